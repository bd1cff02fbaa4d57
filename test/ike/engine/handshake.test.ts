import assert from 'node:assert/strict';
import test from 'node:test';
import { assertConnected, keys, pair } from './pair.ts';

test('HDR, SAi1, KEi, Ni --> <-- HDR, SAr1, KEr, Nr; HDR, SK {IDi, IDr, AUTH, SA, TS} --> <-- HDR, SK {IDr, AUTH, SA, TS}', () => {
  const { network, alice, bob } = pair();
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  assertConnected(alice, bob);
  assert.equal(network.sent.length, 4);
  const [established] = alice.of('established');
  assert.equal(established?.requestId, 1);
  assert.deepEqual(established?.ikeSa.remoteKey, keys.ed25519other.publicKey);
  assert.equal(established?.child?.mode, 'transport');
  assert.equal(established?.ikeSa.suite, 'AES_GCM_16_256/PRF_HMAC_SHA2_256/CURVE25519');
});
