import assert from 'node:assert/strict';
import test from 'node:test';
import {
  Encr,
  encrAlgorithm,
  encrTransform,
  Group,
  groupAlgorithm,
  Integ,
  integAlgorithm,
  Prf,
  prfAlgorithm,
  suiteName,
} from '../../../ike/crypto/algorithms.ts';

test('every number is one that IANA gave', () => {
  // https://www.iana.org/assignments/ikev2-parameters
  assert.deepEqual(Object.values(Encr), [12, 20, 28]);
  assert.deepEqual(Object.values(Prf), [5, 6, 7]);
  assert.deepEqual(Object.values(Integ), [0, 12, 13, 14]);
  assert.deepEqual(Object.values(Group), [0, 14, 19, 20, 31]);
});

test('AES wants its key length said, ChaCha20 has none to say', () => {
  assert.equal(encrAlgorithm(Encr.AES_GCM_16, 256)?.keyBytes, 32);
  assert.equal(encrAlgorithm(Encr.AES_GCM_16, 128)?.keyBytes, 16);
  assert.equal(encrAlgorithm(Encr.AES_GCM_16, 192), undefined);
  assert.equal(encrAlgorithm(Encr.AES_GCM_16, undefined), undefined);
  assert.equal(encrAlgorithm(Encr.AES_GCM_16, 0), undefined);
  assert.equal(encrAlgorithm(Encr.AES_CBC, undefined), undefined);
  assert.equal(encrAlgorithm(Encr.CHACHA20_POLY1305, undefined)?.keyBytes, 32);
  assert.equal(encrAlgorithm(Encr.CHACHA20_POLY1305, 256)?.keyBytes, 32);
  assert.equal(encrAlgorithm(Encr.CHACHA20_POLY1305, 128), undefined);
  assert.deepEqual(encrTransform(Encr.AES_CBC, 256), { type: 1, id: 12, keyBits: 256 });
  assert.deepEqual(encrTransform(Encr.CHACHA20_POLY1305, 256), { type: 1, id: 28 });
  assert.throws(() => encrTransform(Encr.AES_CBC, 192), RangeError);
});

test('what must never be chosen is not there (RFC 8221, RFC 8247)', () => {
  for (const id of [1, 2, 3, 11, 13, 18, 19, 21]) assert.equal(encrAlgorithm(id, 256), undefined);
  for (const id of [0, 1, 2, 3, 4, 8]) assert.equal(prfAlgorithm(id), undefined);
  for (const id of [0, 1, 2, 5, 9]) assert.equal(integAlgorithm(id), undefined);
  for (const id of [0, 1, 2, 5, 22, 23, 24]) assert.equal(groupAlgorithm(id), undefined);
});

test('suites by name', () => {
  const ike = { encr: Encr.AES_CBC, keyBits: 128, prf: Prf.HMAC_SHA2_384, integ: 13, group: Group.ECP_384 };
  assert.equal(suiteName(ike), 'AES_CBC_128/HMAC_SHA2_384_192/PRF_HMAC_SHA2_384/ECP_384');
  const esp = { encr: Encr.CHACHA20_POLY1305, keyBits: 256, integ: 0, esn: true };
  assert.equal(suiteName(esp), 'CHACHA20_POLY1305/ESN');
  assert.equal(suiteName({ ...esp, esn: false, group: 31 }), 'CHACHA20_POLY1305/CURVE25519');
  assert.equal(suiteName({ ...ike, encr: 99 }), 'ENCR 99/HMAC_SHA2_384_192/PRF_HMAC_SHA2_384/ECP_384');
});
