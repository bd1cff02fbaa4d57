// A soak of half a minute, so that the long one works when it is wanted: all faults, all checks but growth and speed.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import test from 'node:test';
import { locate, projectRoot } from '../lab/packages.ts';

const missing = ['usr/sbin/nsd', 'usr/sbin/unbound', 'usr/bin/dnssec-signzone'].filter(file => !locate(file));
const skip = missing.length > 0 ? `not here: ${missing.join(', ')}` : false;

test('half a minute of faults: no wrong answer, nothing left open, well again at the end', { skip }, () => {
  const script = join(projectRoot, 'test', 'soak', 'run.ts');
  const args = [script, '--minutes', '0.5', '--rate', '200'];
  const run = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 300_000 });
  assert.equal(run.status, 0, `${run.stdout}${run.stderr}`);
  assert.match(run.stdout, /wrong 0\n/);
});
