import assert from 'node:assert/strict';
import test from 'node:test';
import { Group } from '../../../ike/crypto/algorithms.ts';
import type { Found } from '../../../ike/engine.ts';
import type { ChildSa } from '../../../ike/types.ts';
import { NotifyType } from '../../../ike/wire/numbers.ts';
import { assertConnected, fqdn, Host, ip, keys, Network, pair, publicKeys } from './pair.ts';

/*
 * HDR, SAi1, KEi, Ni            -->
 *                               <--  HDR, SAr1, KEr, Nr
 * HDR, SK {IDi, IDr, AUTH,
 *     SAi2, TSi, TSr}           -->
 *                               <--  HDR, SK {IDr, AUTH, SAr2, TSi, TSr}
 */
test('two round trips make an IKE SA and a Child SA', () => {
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
  const [answered] = bob.of('established');
  assert.equal(answered?.requestId, undefined);
  assert.deepEqual(answered?.ikeSa.remoteIdentity, alice.identity);
  assert.deepEqual(answered?.ikeSa.remoteKey, keys.ed25519.publicKey);
});

test('speculation: IKE_SA_INIT before anybody knows whom to expect, IKE_AUTH after', () => {
  const { network, alice, bob } = pair();
  alice.initiate(bob);
  network.settle();
  assert.deepEqual(alice.states(), ['init-done']);
  assert.equal(alice.of('established').length, 0);
  network.now += 40;
  alice.authenticate(bob);
  network.settle();
  assertConnected(alice, bob);
  const { timings } = alice.of('established')[0]!.ikeSa;
  assert.deepEqual(timings, {
    initSentAt: 1000,
    initAnsweredAt: 1000,
    authSentAt: 1040,
    authAnsweredAt: 1040,
  });
});

test('speculation that nobody wants ends by itself, without a trace at either side', () => {
  const { network, alice, bob } = pair();
  alice.initiate(bob);
  network.settle();
  network.pass(60_000);
  assert.equal(alice.of('failed')[0]?.reason.code, 'cancelled');
  assert.deepEqual([alice.states(), bob.states()], [[], []]);
  assert.equal(bob.told.length, 0);
});

for (const [name, own] of Object.entries({ ed25519: keys.ed25519, p256: keys.p256, rsa: keys.rsa })) {
  test(`both sides prove themselves with ${name}`, () => {
    const { network, alice, bob } = pair({ aliceKeys: [own], bobKeys: [own] });
    alice.initiate(bob);
    alice.authenticate(bob);
    network.settle();
    assertConnected(alice, bob);
  });
}

test('RSA by PKCS#1 v1.5 when configured', () => {
  const { network, alice, bob } = pair({ aliceKeys: [keys.rsa], alice: { rsa: 'pkcs1' } });
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  assertConnected(alice, bob);
});

test('IPv6', () => {
  const network = new Network();
  const alice = new Host(network, 'fd09::1', 'alice.example', [keys.ed25519]);
  const bob = new Host(network, 'fd09::2', 'bob.example', [keys.ed25519other]);
  bob.trust(alice);
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  assertConnected(alice, bob);
  assert.equal([...bob.installed.values()][0]!.remote.family, 6);
});

test('the responder mirrors the algorithm of the key that the initiator proved', () => {
  const { network, alice, bob } = pair({ aliceKeys: [keys.rsa], bobKeys: [keys.ed25519other, keys.rsa] });
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  assert.equal(alice.of('established')[0]?.ikeSa.remoteKey?.algorithm, 2);
});

test('the responder follows the hint of its key lookup before that', () => {
  const { network, alice, bob } = pair({ aliceKeys: [keys.rsa], bobKeys: [keys.rsa, keys.ed25519other] });
  bob.lookup = () => ({ keys: publicKeys(keys.rsa), preferLocalKey: 4 });
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  assert.equal(alice.of('established')[0]?.ikeSa.remoteKey?.algorithm, 4);
});

/*
 * HDR, SK {IDi, AUTH(Ed25519) …}  -->
 *                                 <--  HDR, SK {N(AUTHENTICATION_FAILED)}
 * HDR, SAi1, KEi, Ni              -->  a new IKE SA, the next key
 */
test('a peer that knows only one of our keys: the next is tried in the same request', () => {
  const own = [keys.ed25519, keys.p256, keys.rsa];
  const { network, alice, bob } = pair({ aliceKeys: own });
  bob.lookup = () => ({ keys: publicKeys(keys.rsa) });
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  assertConnected(alice, bob);
  assert.equal(alice.counter('keyRetries'), 2);
  assert.equal(alice.of('established').length, 1);
  assert.equal(alice.of('failed').length, 0);
  assert.equal(bob.of('established')[0]?.ikeSa.remoteKey?.algorithm, 2);
});

test('the preferred key is tried first', () => {
  const { network, alice, bob } = pair({ aliceKeys: [keys.ed25519, keys.p256, keys.rsa] });
  bob.lookup = () => ({ keys: publicKeys(keys.rsa) });
  alice.initiate(bob);
  alice.authenticate(bob, 1, { preferLocalKey: 2 });
  network.settle();
  assertConnected(alice, bob);
  assert.equal(alice.counter('keyRetries'), 0);
});

test('after all keys once more under our address, as libreswan wants it for keys of the reverse zone', () => {
  const { network, alice, bob } = pair();
  bob.lookup = identity =>
    identity.type === 'ipv4' ? { keys: publicKeys(keys.ed25519) } : { error: 'unknown name' };
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  assertConnected(alice, bob);
  assert.deepEqual(bob.of('established')[0]?.ikeSa.remoteIdentity, {
    type: 'ipv4',
    data: alice.address.bytes,
  });
});

test('a peer that accepts none of our keys: one failure, bounded tries, nothing left', () => {
  const { network, alice, bob } = pair({ aliceKeys: [keys.ed25519, keys.p256, keys.rsa] });
  bob.lookup = () => ({ keys: publicKeys(keys.ed25519other) });
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  assert.deepEqual(alice.of('failed')[0]?.reason.code, 'auth-failed');
  assert.deepEqual(alice.of('failed')[0]?.reason.notify, NotifyType.AUTHENTICATION_FAILED);
  assert.equal(alice.of('failed').length, 1);
  assert.equal(bob.counter('authenticationFailed'), 4);
  assert.equal(bob.of('established').length, 0);
  network.pass(60_000);
  assert.deepEqual([alice.states(), bob.states()], [[], []]);
});

test('AUTH by another key than the expected: failed, DELETE, nothing installed', () => {
  const { network, alice, bob } = pair();
  alice.initiate(bob);
  alice.authenticate(bob, 1, { keys: publicKeys(keys.p256, keys.ed25519) });
  network.settle();
  assert.equal(alice.of('failed')[0]?.reason.code, 'peer-key-mismatch');
  assert.equal(alice.of('installChildSa').length, 0);
  assert.equal(bob.engine.ikeSas().length, 0, 'bob was told');
  assert.equal(bob.installed.size, 0);
  network.pass(60_000);
  assert.deepEqual([alice.states(), bob.states()], [[], []]);
});

test('any of several expected keys will do, and the one that did is named', () => {
  const { network, alice, bob } = pair();
  alice.initiate(bob);
  alice.authenticate(bob, 1, { keys: publicKeys(keys.p256, keys.ed25519, keys.ed25519other) });
  network.settle();
  assert.deepEqual(alice.of('established')[0]?.ikeSa.remoteKey, keys.ed25519other.publicKey);
});

test('no keys at all to expect: never established', () => {
  const { network, alice, bob } = pair();
  alice.initiate(bob);
  alice.authenticate(bob, 1, { keys: [] });
  network.settle();
  assert.equal(alice.of('failed')[0]?.reason.code, 'peer-key-mismatch');
});

// One host, one key, several names: asked by one of them, it may answer by another where the same key is published.
test('another FQDN as IDr is accepted when the proven key is published there too', () => {
  const { network, alice, bob } = pair();
  alice.initiate(bob);
  alice.authenticate(bob, 1, { idr: fqdn('www.bob.example') });
  network.settle();
  assertConnected(alice, bob);
  assert.deepEqual(
    alice.of('lookupKeys').map(({ identity }) => identity),
    [bob.identity],
  );
  assert.deepEqual(alice.of('established')[0]?.ikeSa.remoteIdentity, bob.identity);
});

for (const [title, found] of [
  ['another key is published there', { keys: publicKeys(keys.p256) }],
  ['nothing is', { error: 'no such name' }],
] as const) {
  test(`another FQDN as IDr is refused when ${title}`, () => {
    const { network, alice, bob } = pair();
    alice.lookup = () => found as Found;
    alice.initiate(bob);
    alice.authenticate(bob, 1, { idr: fqdn('bank.example') });
    network.settle();
    assert.equal(alice.of('failed')[0]?.reason.code, 'auth-failed');
    assert.equal(alice.of('installChildSa').length, 0);
    assert.equal(bob.installed.size, 0);
    network.pass(60_000);
    assert.deepEqual([alice.states(), bob.states()], [[], []]);
  });
}

test('nobody answers for the other FQDN: failed in bounded time, DELETE', () => {
  const { network, alice, bob } = pair();
  alice.lookup = () => undefined;
  alice.initiate(bob);
  alice.authenticate(bob, 1, { idr: fqdn('bank.example') });
  network.settle();
  assert.deepEqual(alice.states(), ['verifying']);
  network.pass(60_000);
  assert.equal(alice.of('failed')[0]?.reason.code, 'auth-failed');
  assert.deepEqual([alice.states(), bob.states(), bob.installed.size], [[], [], 0]);
});

test('cancelled while the other FQDN is looked up: DELETE', () => {
  const { network, alice, bob } = pair();
  alice.lookup = () => undefined;
  alice.initiate(bob);
  alice.authenticate(bob, 1, { idr: fqdn('bank.example') });
  network.settle();
  alice.run(alice.engine.cancel(1, network.now));
  network.pass(60_000);
  assert.equal(alice.of('failed')[0]?.reason.code, 'cancelled');
  assert.deepEqual([alice.states(), bob.states(), bob.installed.size], [[], [], 0]);
});

test('an IDr that is neither expected nor an FQDN is refused although the key is right', () => {
  const { network, alice, bob } = pair({ bob: { identity: { type: 'keyid', data: Uint8Array.of(1) } } });
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  assert.equal(alice.of('failed')[0]?.reason.code, 'auth-failed');
  assert.equal(alice.of('lookupKeys').length, 0);
  assert.equal(bob.installed.size, 0);
});

test('without a name, both sides go by their addresses', () => {
  const { network, alice, bob } = pair({ alice: { identity: undefined }, bob: { identity: undefined } });
  bob.lookup = identity =>
    identity.type === 'ipv4' ? { keys: publicKeys(keys.ed25519) } : { error: 'unknown' };
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  assertConnected(alice, bob);
  assert.deepEqual(alice.of('established')[0]?.ikeSa.remoteIdentity, {
    type: 'ipv4',
    data: bob.address.bytes,
  });
  assert.deepEqual(bob.of('established')[0]?.ikeSa.remoteIdentity, {
    type: 'ipv4',
    data: alice.address.bytes,
  });
});

test('IDr may be one of the acceptable names or the own address of the peer', () => {
  for (const identity of [fqdn('b.example'), { type: 'ipv4' as const, data: ip('10.9.0.2').bytes }]) {
    const { network, alice, bob } = pair({ bob: { identity } });
    alice.initiate(bob);
    alice.authenticate(bob, 1, { idr: fqdn('www.example'), acceptableIdr: [fqdn('B.EXAMPLE')] });
    network.settle();
    assertConnected(alice, bob);
  }
});

test('IDr asked by the initiator is honoured when it is one of ours', () => {
  const { network, alice, bob } = pair({ bob: { identities: [fqdn('www.example')] } });
  alice.initiate(bob);
  alice.authenticate(bob, 1, { idr: fqdn('www.example') });
  network.settle();
  assert.deepEqual(alice.of('established')[0]?.ikeSa.remoteIdentity, fqdn('www.example'));
});

test('an unknown initiator is refused; keys found with an error are no keys', () => {
  const { network, alice, bob } = pair({ alice: { addressIdentityRetry: false } });
  bob.lookup = () => ({ keys: [] });
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  assert.equal(alice.of('failed')[0]?.reason.code, 'auth-failed');
  assert.equal(bob.of('installChildSa').length, 0);
});

/*
 *                               <--  HDR, SK {IDr, AUTH, SAr2, TSi, TSr}   without N(USE_TRANSPORT_MODE)
 */
test('a peer that will not do transport mode: tunnel', () => {
  for (const options of [{ bob: { transportMode: false } }, { alice: { transportMode: false } }]) {
    const { network, alice, bob } = pair(options);
    alice.initiate(bob);
    alice.authenticate(bob);
    network.settle();
    assertConnected(alice, bob);
    assert.equal([...bob.installed.values()][0]!.mode, 'tunnel');
  }
});

/*
 * HDR, SAi1(…), KEi(group 31), Ni   -->
 *                                   <--  HDR, N(INVALID_KE_PAYLOAD, group 19)
 * HDR, SAi1(…), KEi(group 19), Ni   -->
 */
test('INVALID_KE_PAYLOAD: asked again with the group that the peer wants', () => {
  const ikeProposals = [
    { encr: [[20, 256]] as [number, number][], integ: [], prf: [5], groups: [Group.ECP_256] },
  ];
  const { network, alice, bob } = pair({ bob: { ikeProposals } });
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  assertConnected(alice, bob);
  assert.equal(alice.counter('keyExchangeRetried'), 1);
  assert.match(alice.of('established')[0]!.ikeSa.suite, /ECP_256/);
});

test('every group and every kind of cipher', () => {
  const aead: [number, number][][] = [[[20, 256]], [[20, 128]], [[28, 256]]];
  const suites = [
    ...aead.map((encr, i) => ({ encr, integ: [], prf: [5 + i], groups: [Group.CURVE25519] })),
    ...[12, 13, 14].map(integ => ({
      encr: [[12, 256]] as [number, number][],
      integ: [integ],
      prf: [7],
      groups: [Group.ECP_384],
    })),
    { encr: [[12, 128]] as [number, number][], integ: [12], prf: [5], groups: [Group.MODP_2048] },
    { encr: [[20, 256]] as [number, number][], integ: [], prf: [6], groups: [Group.ECP_256] },
  ];
  for (const suite of suites) {
    const child = { encr: suite.encr, integ: suite.integ, esn: [0] };
    const { network, alice, bob } = pair({ bob: { ikeProposals: [suite], childProposals: [child] } });
    alice.initiate(bob);
    alice.authenticate(bob);
    network.settle();
    assertConnected(alice, bob);
    assert.equal([...alice.installed.values()][0]!.esn, false);
  }
});

test('no proposal in common: refused, but only when no better answer came', () => {
  const ikeProposals = [{ encr: [[20, 128]] as [number, number][], integ: [], prf: [5], groups: [31] }];
  const { network, alice, bob } = pair({
    alice: { ikeProposals: [{ ...ikeProposals[0]!, encr: [[20, 256]] }] },
    bob: { ikeProposals },
  });
  alice.initiate(bob);
  network.settle();
  assert.equal(alice.of('failed').length, 0);
  network.pass(20_000);
  const { reason } = alice.of('failed')[0]!;
  assert.deepEqual([reason.code, reason.notify], ['refused', NotifyType.NO_PROPOSAL_CHOSEN]);
  assert.equal(bob.states().length, 0);
});

test('no ESP proposal in common: failed with the notify, and the IKE SA is deleted', () => {
  const childProposals = [{ encr: [[20, 128]] as [number, number][], integ: [], esn: [0] }];
  const { network, alice, bob } = pair({
    alice: { childProposals: [{ ...childProposals[0]!, encr: [[20, 256]] }] },
    bob: { childProposals },
  });
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  const { reason } = alice.of('failed')[0]!;
  assert.deepEqual([reason.code, reason.notify], ['refused', NotifyType.NO_PROPOSAL_CHOSEN]);
  assert.equal(bob.engine.ikeSas().length, 0);
  assert.equal(bob.of('closed').length, 1);
});

test('the answer waits until the kernel holds the Child SA', () => {
  const { network, alice, bob } = pair();
  let waiting: ChildSa | undefined;
  bob.kernel = child => {
    waiting = child;
    return 'later';
  };
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  assert.deepEqual([alice.states(), bob.states()], [['auth-sent'], ['installing']]);
  // A copy of the request changes nothing.
  network.pass(600);
  assert.equal(bob.counter('stillWorking'), 1);
  bob.installed.set(waiting!.id, waiting!);
  bob.run(bob.engine.childInstalled(waiting!.id, undefined, network.now));
  network.settle();
  assertConnected(alice, bob);
});

test("the responder's kernel refuses: the initiator learns it, nothing stays installed", () => {
  const { network, alice, bob } = pair();
  bob.kernel = () => 'EEXIST';
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  assert.equal(alice.of('failed')[0]?.reason.code, 'refused');
  assert.equal(bob.of('removeChildSa').length, 1);
  network.pass(60_000);
  assert.deepEqual([alice.states(), bob.states()], [[], []]);
  assert.deepEqual([alice.installed.size, bob.installed.size], [0, 0]);
});

test("the initiator's kernel refuses: both sides roll back", () => {
  const { network, alice, bob } = pair();
  alice.kernel = () => 'ENOSYS: no ESP';
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  assert.deepEqual(alice.of('failed')[0]?.reason, { code: 'kernel', text: 'ENOSYS: no ESP' });
  assert.deepEqual([alice.installed.size, bob.installed.size], [0, 0]);
  assert.equal(bob.of('closed').length, 1);
  network.pass(60_000);
  assert.deepEqual([alice.states(), bob.states()], [[], []]);
});

test('the same randomness and the same clock make the same bytes', () => {
  const run = () => {
    const { network, alice, bob } = pair();
    alice.initiate(bob);
    network.settle();
    alice.authenticate(bob);
    network.settle();
    alice.run(alice.engine.closeAll(network.now));
    network.settle();
    return network.sent.map(datagram => Buffer.from(datagram.data).toString('hex'));
  };
  const first = run();
  assert.equal(first.length, 6);
  assert.deepEqual(run(), first);
});
