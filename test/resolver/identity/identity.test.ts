import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import fc from 'fast-check';
import { generateKey, privateKeyPem } from '../../../ike/crypto/public-key.ts';
import { parseIpAddress } from '../../../resolver/address.ts';
import { parseIpseckey } from '../../../resolver/dns/ipseckey.ts';
import { generateKeyFiles, loadIdentity, loadKeyFile } from '../../../resolver/identity/identity.ts';
import { recordsFor, reverseName } from '../../../resolver/identity/record.ts';
import { StartupError } from '../../../resolver/startup-error.ts';

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'holdfast-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

function refusal(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    assert.ok(error instanceof StartupError, String(error));
    return error.message;
  }
  return assert.fail('nothing was refused');
}

test('first start makes keys, the next loads the same ones', t => {
  const directory = join(folder(t), 'state', 'keys');
  const identity = { name: 'a.example', keys: { directory, generate: true } };
  const first = loadIdentity(identity);
  const second = loadIdentity(identity);
  assert.deepEqual([first.generated, second.generated], [true, false]);
  const fingerprints = (keys: typeof first.keys) => keys.map(({ file, fingerprint }) => [file, fingerprint]);
  assert.deepEqual(fingerprints(first.keys), fingerprints(second.keys));
  assert.deepEqual(
    second.keys.map(({ kind }) => kind),
    ['Ed25519', 'P-256', 'RSA-2048'],
  );
  assert.equal(statSync(directory).mode & 0o777, 0o700);
  for (const { file } of first.keys) assert.equal(statSync(file).mode & 0o777, 0o600);
});

test('a directory that the configuration names is never filled', t => {
  const directory = join(folder(t), 'misspelt');
  const message = refusal(() => loadIdentity({ name: undefined, keys: { directory, generate: false } }));
  assert.match(message, /misspelt holds no \.pem file; make some with `holdfast keygen --out DIR`/);
  assert.equal(existsSync(directory), false);
});

test('a key that others may read or write is refused by name, with the cure', t => {
  const [key] = generateKeyFiles(join(folder(t), 'keys'));
  for (const mode of [0o644, 0o640, 0o602, 0o601]) {
    chmodSync(key!.file, mode);
    const message = refusal(() => loadKeyFile(key!.file));
    assert.match(
      message,
      new RegExp(`its mode ${mode.toString(8)} lets others at it; run \`chmod 600 ${key!.file}\``),
    );
  }
  chmodSync(key!.file, 0o400);
  assert.equal(loadKeyFile(key!.file).fingerprint, key!.fingerprint);
});

test('a file that is no usable key, and one that is not there', t => {
  const file = join(folder(t), 'x.pem');
  writeFileSync(file, 'no key', { mode: 0o600 });
  assert.match(
    refusal(() => loadKeyFile(file)),
    /^cannot use the key .*x\.pem: .*; expected an unencrypted PKCS#8 PEM/,
  );
  const missing = refusal(() => loadIdentity({ name: undefined, keys: { files: [`${file}.gone`] } }));
  assert.match(missing, /^cannot read .*x\.pem\.gone: no such file; correct identity\.keys/);
});

test('one key of the three is there: nothing is written', t => {
  const directory = folder(t);
  writeFileSync(join(directory, 'rsa-2048.pem'), 'old');
  assert.match(
    refusal(() => generateKeyFiles(directory)),
    /rsa-2048\.pem is already there/,
  );
  assert.deepEqual(readdirSync(directory), ['rsa-2048.pem']);
});

test('records: gateway none, preferred kinds first, P-384 left out, RDATA and text agree', () => {
  const keys = (['rsa-2048', 'p-384', 'ed25519', 'p-256'] as const).map(kind => ({
    ...generateKey(kind),
    kind: { 'rsa-2048': 'RSA-2048', 'p-384': 'P-384', ed25519: 'Ed25519', 'p-256': 'P-256' }[kind],
  }));
  const records = recordsFor(keys, ['a.example', 'b.example']);
  assert.deepEqual(
    records.map(({ owner, text }) => `${owner} ${text.split(' ').slice(0, 4).join(' ')}`),
    ['a', 'b'].flatMap(host => ['10 0 4 .', '20 0 3 .', '30 0 2 .'].map(head => `${host}.example ${head}`)),
  );
  for (const { text, rdata } of records) {
    const parsed = parseIpseckey(rdata)!;
    assert.deepEqual(parsed.gateway, { kind: 'none' });
    assert.equal(Buffer.from(parsed.publicKey).toString('base64'), text.split(' ')[4]);
  }
});

test('reverse names: RFC 1035 §3.5 and the example of RFC 3596 §2.5', () => {
  assert.equal(reverseName(parseIpAddress('10.2.0.52')!), '52.0.2.10.in-addr.arpa');
  assert.equal(
    reverseName(parseIpAddress('4321:0:1:2:3:4:567:89ab')!),
    'b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa',
  );
  fc.assert(
    fc.property(fc.ipV6(), text =>
      assert.equal(reverseName(parseIpAddress(text)!).length, 32 * 2 + 'ip6.arpa'.length),
    ),
  );
});

test('what generateKeyFiles writes is what privateKeyPem says', t => {
  const [key] = generateKeyFiles(join(folder(t), 'keys'));
  assert.equal(privateKeyPem(loadKeyFile(key!.file)), privateKeyPem(key!));
});
