import assert from 'node:assert/strict';
import { createPublicKey } from 'node:crypto';
import test from 'node:test';
import { moduleOrder } from './kernel.ts';
import { generateKeys, ipseckey } from './keys.ts';
import { zones } from './names.ts';
import { topologySteps } from './topology.ts';

test('modules load after what they depend on, each once, and built-in ones not at all', () => {
  // Three lines of the modules.dep of Debian's user-mode-linux 6.1um4; depmod writes the deepest dependency last.
  const dependencies = [
    'kernel/net/ipv4/esp4.ko: kernel/net/xfrm/xfrm_algo.ko',
    'kernel/net/bridge/bridge.ko: kernel/net/802/stp.ko kernel/net/llc/llc.ko',
    'kernel/net/xfrm/xfrm_algo.ko:',
  ].join('\n');
  assert.deepEqual(moduleOrder(dependencies, ['bridge', 'esp4', 'xfrm_algo', 'built-in']), [
    'kernel/net/llc/llc.ko',
    'kernel/net/802/stp.ko',
    'kernel/net/bridge/bridge.ko',
    'kernel/net/xfrm/xfrm_algo.ko',
    'kernel/net/ipv4/esp4.ko',
  ]);
});

test('the key field of an IPSECKEY record is the key that was generated', () => {
  const keys = generateKeys();
  const field = (kind: 'rsa' | 'ecdsa' | 'ed25519') =>
    Buffer.from(ipseckey(keys[kind]).split(' ')[5]!, 'base64');
  const rsa = field('rsa'); // RFC 3110 §2: length of the exponent, exponent, modulus
  const text = (bytes: Buffer) => bytes.toString('base64url');
  const point = field('ecdsa'); // RFC 6605 §4: x and y
  const jwks = {
    rsa: { kty: 'RSA', e: text(rsa.subarray(1, 1 + rsa[0]!)), n: text(rsa.subarray(1 + rsa[0]!)) },
    ecdsa: { kty: 'EC', crv: 'P-256', x: text(point.subarray(0, 32)), y: text(point.subarray(32)) },
    ed25519: { kty: 'OKP', crv: 'Ed25519', x: text(field('ed25519')) },
  };
  for (const kind of ['rsa', 'ecdsa', 'ed25519'] as const) {
    assert.ok(createPublicKey({ key: jwks[kind], format: 'jwk' }).equals(keys[kind].publicKey), kind);
  }
  assert.match(ipseckey(keys.rsa, 10, '10.9.0.66'), /^IPSECKEY 10 1 2 10\.9\.0\.66 /);
  assert.match(ipseckey(keys.rsa, 10, 'fd09::66'), /^IPSECKEY 10 2 2 fd09::66 /);
  assert.match(ipseckey(keys.rsa, 10, 'evil.example.'), /^IPSECKEY 10 3 2 evil\.example\. /);
});

test('every address that a zone publishes is some host of the topology, except that of dead.example', () => {
  const ring = generateKeys();
  const all = zones({
    alice: ring,
    bob: ring,
    carol: ring,
    bank: ring,
    gate: ring,
    mallory: ring,
    stranger: ring,
  });
  const owned = new Set(topologySteps().flatMap(step => /addr add ([^/]+)/.exec(step)?.[1] ?? []));
  for (const line of all.flatMap(zone => zone.lines)) {
    const [owner, type, address] = line.split(' ');
    if (type === 'A' || type === 'AAAA') assert.equal(owned.has(address!), owner !== 'dead', line);
  }
});
