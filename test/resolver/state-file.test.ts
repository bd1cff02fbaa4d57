import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { readStateFile, writeStateFile } from '../../resolver/state-file.ts';

const directory = mkdtempSync(join(tmpdir(), 'holdfast-state-'));
after(() => rmSync(directory, { recursive: true }));

test('what was written is read; nobody else can read or write it; nothing unfinished stays', () => {
  const path = join(directory, 'new', 'anchors.json');
  assert.equal(readStateFile(path, 100), undefined);
  writeStateFile(path, 'first');
  writeStateFile(path, Buffer.from('second'));
  assert.equal(readStateFile(path, 100)?.toString(), 'second');
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.equal(statSync(join(directory, 'new')).mode & 0o777, 0o700);
  assert.deepEqual(readdirSync(join(directory, 'new')), ['anchors.json']);
});

test('a write that fails leaves what was there', () => {
  const path = join(directory, 'kept');
  writeStateFile(path, 'old');
  symlinkSync('elsewhere', `${path}.new`);
  assert.throws(() => writeStateFile(path, 'new'), { code: 'ELOOP' });
  assert.equal(readStateFile(path, 100)?.toString(), 'old');
});

test('what others could have written, and what is no file, is not read', () => {
  const path = join(directory, 'foreign');
  writeFileSync(path, '1234567890');
  chmodSync(path, 0o620);
  assert.throws(() => readStateFile(path, 100), /lets others write/);
  chmodSync(path, 0o600);
  assert.throws(() => readStateFile(path, 9), /longer than 9/);
  const link = join(directory, 'link');
  symlinkSync(path, link);
  assert.throws(() => readStateFile(link, 100), /symbolic link/);
  assert.throws(() => readStateFile(directory, 100_000), /no regular file/);
});
