import assert from 'node:assert/strict';
import { createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import test from 'node:test';
import { ed448 } from '@noble/curves/ed448.js';
import { ed25519 } from '@noble/curves/ed25519.js';
import { p256, p384 } from '@noble/curves/nist.js';
import fc from 'fast-check';
import {
  fingerprint,
  generateKey,
  keyName,
  type KeyKind,
  loadPrivateKey,
  localKey,
  privateKeyPem,
  publicKeyObject,
  publicKeyOf,
  samePublicKey,
} from '../../../ike/crypto/public-key.ts';
import type { PublicKey } from '../../../ike/types.ts';
import { concat } from '../../../ike/wire/bytes.ts';
import { WireError } from '../../../ike/wire/error.ts';
import { hex, seededRandom, toHex } from '../vectors.ts';

const kinds: [KeyKind, string, number][] = [
  ['rsa-2048', 'RSA-2048', 1 + 3 + 256],
  ['p-256', 'P-256', 64],
  ['p-384', 'P-384', 96],
  ['ed25519', 'Ed25519', 32],
  ['ed448', 'Ed448', 57],
];

for (const [kind, name, length] of kinds) {
  test(`${name}: DNS form and back, PEM and back`, () => {
    const key = generateKey(kind);
    assert.equal(keyName(key.publicKey), name);
    assert.equal(key.publicKey.data.length, length);
    assert.deepEqual(publicKeyOf(publicKeyObject(key.publicKey)), key.publicKey);
    const again = loadPrivateKey(privateKeyPem(key));
    assert.ok(samePublicKey(again.publicKey, key.publicKey));
    assert.ok(again.privateKey.equals(key.privateKey));
    assert.ok(!samePublicKey(generateKey(kind).publicKey, key.publicKey));
    assert.match(fingerprint(key.publicKey), /^SHA256:[A-Za-z0-9+/]{43}$/);
  });
}

test('Ed25519: the key of RFC 8080 §6.1', () => {
  // Private key 1 of the RFC (base64 ODIyNjAz…) and the DNSKEY that goes with it.
  const seed = Buffer.from('ODIyNjAzODQ2MjgwODAxMjI2NDUxOTAyMDQxNDIyNjI=', 'base64');
  const pkcs8 = Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed]);
  const key = localKey(createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' }));
  assert.equal(
    Buffer.from(key.publicKey.data).toString('base64'),
    'l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4=',
  );
});

test('noble agrees on public keys', () => {
  const random = seededRandom(3);
  for (const [algorithm, curve, size, jwk] of [
    [3, p256, 32, { kty: 'EC', crv: 'P-256' }],
    [3, p384, 48, { kty: 'EC', crv: 'P-384' }],
    [4, ed25519, 32, { kty: 'OKP', crv: 'Ed25519' }],
    [4, ed448, 57, { kty: 'OKP', crv: 'Ed448' }],
  ] as const) {
    const secret = random(size);
    const point =
      algorithm === 3
        ? (curve as typeof p256).getPublicKey(secret, false).subarray(1)
        : curve.getPublicKey(secret);
    const text = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64url');
    const half = point.length / 2;
    const coordinates =
      algorithm === 3
        ? { x: text(point.subarray(0, half)), y: text(point.subarray(half)) }
        : { x: text(point) };
    const key = createPrivateKey({ key: { ...jwk, d: text(secret), ...coordinates }, format: 'jwk' });
    assert.equal(toHex(publicKeyOf(key).data), toHex(point));
    assert.ok(publicKeyObject({ algorithm, data: point }).equals(createPublicKey(key)));
  }
});

const refused = (algorithm: number, data: Uint8Array, what: string) =>
  assert.throws(() => publicKeyObject({ algorithm: algorithm as 2, data }), WireError, what);

test('refused: keys of other lengths, and points off their curve', () => {
  for (let length = 0; length < 140; length++) {
    if (length !== 64 && length !== 96) refused(3, randomBytes(length), `ECDSA ${length}`);
    if (length !== 32 && length !== 57) refused(4, randomBytes(length), `EdDSA ${length}`);
    refused(2, randomBytes(length), `RSA ${length}`);
    refused(1, randomBytes(length), 'DSA');
  }
  refused(4, generateKey('p-256').publicKey.data, 'a good P-256 point as EdDSA');
  refused(3, generateKey('ed25519').publicKey.data, 'a good Ed25519 key as ECDSA');
  for (const kind of ['p-256', 'p-384'] as const) {
    const data = Uint8Array.from(generateKey(kind).publicKey.data);
    data[data.length - 1]! ^= 1;
    refused(3, data, 'off the curve');
    refused(3, new Uint8Array(data.length), 'zero');
    refused(3, new Uint8Array(data.length).fill(255), 'beyond the field');
  }
});

const odd = (bits: number) => {
  const bytes = new Uint8Array(Math.ceil(bits / 8)).fill(0xff);
  bytes[0] = 0xff >>> (bytes.length * 8 - bits);
  return bytes;
};
const rsa = (exponent: string, modulus: Uint8Array): Uint8Array =>
  concat([Uint8Array.of(hex(exponent).length), hex(exponent), modulus]);

test('RSA: bounds of modulus and exponent (CVE-2018-17540, CVE-2026-14957)', () => {
  const fine = (data: Uint8Array) => publicKeyObject({ algorithm: 2, data });
  assert.equal(fine(rsa('010001', odd(2048))).asymmetricKeyDetails?.modulusLength, 2048);
  assert.equal(fine(rsa('03', odd(8192))).asymmetricKeyDetails?.modulusLength, 8192);
  fine(rsa('ffffffff', odd(2048)));
  refused(2, rsa('010001', odd(2047)), '2047 bits');
  refused(2, rsa('010001', odd(8193)), '8193 bits');
  refused(2, rsa('010001', odd(512)), '512 bits');
  refused(2, rsa('010001', new Uint8Array(0)), 'no modulus');
  refused(2, rsa('010001', new Uint8Array(256)), 'zero modulus');
  refused(2, rsa('010001', odd(2048).with(255, 0xfe)), 'even modulus');
  refused(2, rsa('00', odd(2048)), 'exponent 0');
  refused(2, rsa('01', odd(2048)), 'exponent 1');
  refused(2, rsa('02', odd(2048)), 'exponent 2');
  refused(2, rsa('0100000001', odd(2048)), 'exponent 2^32 + 1');
  refused(2, rsa('0200000001', odd(2048)), 'exponent 2^33 + 1');
  refused(2, rsa('ff'.repeat(200), odd(2048)), 'exponent of 1600 bits');
  refused(2, concat([hex('00 0000'), odd(2048)]), 'exponent length 0');
  refused(2, hex('00 ffff 03'), 'exponent beyond the record');
});

test('RSA: long exponent form and leading zeros are the same key (RFC 3110 §2)', () => {
  const { publicKey } = generateKey('rsa-2048');
  const modulus = publicKey.data.subarray(4);
  const variants = [
    concat([hex('00 0003 010001'), modulus]),
    concat([hex('04 00010001'), modulus]),
    concat([hex('03 010001 00'), modulus]),
  ];
  for (const data of variants) {
    const variant: PublicKey = { algorithm: 2, data };
    assert.deepEqual(publicKeyOf(publicKeyObject(variant)), publicKey);
    assert.ok(samePublicKey(variant, publicKey));
    assert.equal(fingerprint(variant), fingerprint(publicKey));
    assert.equal(keyName(variant), 'RSA-2048');
  }
  assert.ok(!samePublicKey({ algorithm: 3, data: publicKey.data }, publicKey));
});

test('whatever DNS carries gives a KeyObject or a WireError; names and fingerprints always come', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 255 }),
      fc.oneof(
        fc.uint8Array({ maxLength: 600 }),
        fc.uint8Array({ minLength: 64, maxLength: 64 }),
        fc.uint8Array({ minLength: 57, maxLength: 57 }),
      ),
      (algorithm, data) => {
        const key = { algorithm: algorithm as 2, data };
        assert.ok(keyName(key).length > 0 && fingerprint(key).length === 50 && samePublicKey(key, key));
        try {
          publicKeyObject(key);
        } catch (error) {
          assert.ok(error instanceof WireError);
        }
      },
    ),
    { numRuns: 400 },
  );
});

test('refused: what is no private key of ours', () => {
  assert.throws(() => loadPrivateKey('nonsense'), WireError);
  const pem = (key: ReturnType<typeof createPrivateKey>) =>
    key.export({ format: 'pem', type: 'pkcs8' }) as string;
  assert.throws(() => loadPrivateKey(pem(generateKeyPairSync('x25519').privateKey)), WireError);
  assert.throws(
    () => loadPrivateKey(pem(generateKeyPairSync('ec', { namedCurve: 'P-521' }).privateKey)),
    WireError,
  );
  assert.throws(
    () => loadPrivateKey(pem(generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey)),
    WireError,
  );
  const encrypted = generateKeyPairSync('ed25519').privateKey.export({
    format: 'pem',
    type: 'pkcs8',
    cipher: 'aes-256-cbc',
    passphrase: 'secret',
  }) as string;
  assert.throws(() => loadPrivateKey(encrypted), WireError);
});
