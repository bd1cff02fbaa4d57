import assert from 'node:assert/strict';
import test from 'node:test';
import type { ChildSa, Endpoint } from '../../../ike/types.ts';
import { ExchangeType, NotifyType } from '../../../ike/wire/numbers.ts';
import { notify } from '../../../ike/wire/notify.ts';
import { findPayload } from '../../../ike/wire/payloads.ts';
import { assertConnected, type Datagram, Host, ip, keys, pair, publicKeys } from './pair.ts';
import { ScriptedPeer } from './scripted-peer.ts';

function connected() {
  const both = pair();
  both.alice.initiate(both.bob);
  both.alice.authenticate(both.bob);
  both.network.settle();
  assertConnected(both.alice, both.bob);
  return both;
}

function assertNothingLeft(...hosts: Host[]): void {
  for (const host of hosts) {
    assert.deepEqual(host.states(), []);
    assert.equal(host.installed.size, 0);
    assert.equal(host.engine.nextDeadline(), undefined);
    assert.equal(host.of('closed').length, host.of('established').length);
  }
}

/* HDR, SK {D}  -->  <--  HDR, SK {} */
test('closed by the initiator, closed by the responder', () => {
  for (const who of ['alice', 'bob'] as const) {
    const both = connected();
    const { network, alice, bob } = both;
    const closer = both[who];
    closer.run(closer.engine.close(closer.engine.ikeSas()[0]!.id, network.now));
    assert.deepEqual(
      closer.told.slice(-2).map(effect => effect.kind),
      ['removeChildSa', 'closed'],
    );
    network.settle();
    network.pass(20_000);
    assertNothingLeft(alice, bob);
  }
});

test('both close at the same time', () => {
  const { network, alice, bob } = connected();
  for (const host of [alice, bob]) host.run(host.engine.closeAll(network.now));
  network.settle();
  network.pass(20_000);
  assertNothingLeft(alice, bob);
});

test('the DELETE is lost, its answer is lost, the peer is gone', () => {
  for (const lost of [1, 2, 99]) {
    const { network, alice, bob } = connected();
    let count = 0;
    const deliver = network.translate;
    network.translate = datagram => (lost === 99 || ++count === lost ? undefined : deliver(datagram));
    alice.run(alice.engine.close(1, network.now));
    network.settle();
    network.pass(30_000);
    assertNothingLeft(alice);
    if (lost !== 99) assertNothingLeft(bob);
  }
});

test('closeAll in every state leaves nothing', () => {
  for (let steps = 0; steps <= 4; steps++) {
    const { network, alice, bob } = pair();
    alice.initiate(bob);
    alice.authenticate(bob);
    for (let i = 0; i < steps; i++) network.deliver(network.queue.shift()!);
    for (const host of [alice, bob]) host.run(host.engine.closeAll(network.now));
    network.settle();
    network.pass(60_000);
    assertNothingLeft(alice, bob);
  }
});

test('closeAll has nothing to wait for but answers to DELETE', () => {
  const { network, alice, bob } = connected();
  alice.run(alice.engine.closeAll(network.now));
  network.settle();
  assert.equal(alice.engine.nextDeadline(), undefined);
  assert.deepEqual(bob.states(), ['lingering']);
  bob.run(bob.engine.closeAll(network.now));
  assert.equal(bob.engine.nextDeadline(), undefined);
  assertNothingLeft(alice, bob);
});

test('cancelled in every state: told at once, and the peer keeps nothing', () => {
  for (let steps = 0; steps <= 3; steps++) {
    const { network, alice, bob } = pair();
    alice.initiate(bob);
    alice.authenticate(bob);
    for (let i = 0; i < steps; i++) network.deliver(network.queue.shift()!);
    alice.run(alice.engine.cancel(1, network.now));
    assert.equal(alice.of('failed')[0]?.reason.code, 'cancelled');
    network.settle();
    assert.equal(alice.of('established').length, 0);
    network.pass(60_000);
    assertNothingLeft(alice, bob);
  }
});

test('cancelled while the kernel works on it', () => {
  const { network, alice, bob } = pair();
  alice.kernel = () => 'later';
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  assert.deepEqual(alice.states(), ['installing']);
  alice.run(alice.engine.cancel(1, network.now));
  const [child] = alice.of('installChildSa');
  alice.run(alice.engine.childInstalled(child!.child.id, undefined, network.now));
  network.settle();
  network.pass(20_000);
  assert.equal(alice.of('removeChildSa').length, 1);
  assert.equal(alice.of('established').length, 0);
  assertNothingLeft(alice, bob);
});

test('closed while the kernel works on it: the request has failed, the peer keeps nothing', () => {
  const { network, alice, bob } = pair();
  alice.kernel = () => 'later';
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  alice.run(alice.engine.close(alice.of('installChildSa')[0]!.child.ikeSaId, network.now));
  network.settle();
  network.pass(60_000);
  assert.equal(alice.of('failed')[0]?.reason.code, 'cancelled');
  assert.deepEqual([alice.counter('nowRequests'), alice.counter('nowIkeSas')], [0, 0]);
  assert.equal(bob.counter('nowIkeSas'), 0);
});

test('cancel and authenticate of a request that has ended are ignored', () => {
  const { network, alice, bob } = connected();
  alice.run(alice.engine.cancel(1, network.now));
  alice.authenticate(bob);
  alice.run(alice.engine.cancel(99, network.now));
  assertConnected(alice, bob);
  assert.throws(() => {
    alice.initiate(bob, 7);
    alice.initiate(bob, 7);
  }, RangeError);
});

/* HDR, SK {}  -->  <--  HDR, SK {} */
test('liveness: a living peer answers, a dead one is closed', () => {
  const { network, alice, bob } = connected();
  alice.run(alice.engine.probe(1, network.now));
  network.settle();
  network.pass(30_000);
  assertConnected(alice, bob);
  network.translate = () => undefined;
  alice.run(alice.engine.probe(1, network.now));
  network.pass(30_000);
  assertNothingLeft(alice);
  assert.match(alice.of('closed')[0]!.why, /no answer/);
});

/*
 * alice                          bob
 *   IKE_SA_INIT  ----\  /----  IKE_SA_INIT
 *                -----\/-----
 *                -----/\-----
 */
test('crossed initiation: both succeed, each side keeps both, neither kills the other', () => {
  const { network, alice, bob } = pair();
  for (const [one, other] of [
    [alice, bob],
    [bob, alice],
  ] as const) {
    one.initiate(other);
    one.authenticate(other);
  }
  network.settle();
  for (const host of [alice, bob]) {
    assert.equal(host.engine.ikeSas().length, 2);
    assert.equal(host.installed.size, 2);
    assert.equal(host.of('established').filter(effect => effect.requestId === 1).length, 1);
  }
});

test('a peer that starts anew: INITIAL_CONTACT removes what it forgot, for its identity only', () => {
  const { network, alice, bob } = connected();
  const carol = new Host(network, '10.9.0.3', 'carol.example', [keys.p256]);
  bob.trust(alice, carol);
  carol.initiate(bob);
  carol.authenticate(bob);
  network.settle();
  assert.equal(bob.engine.ikeSas().length, 2);
  network.now += 5_000;
  network.hosts = network.hosts.filter(host => host !== alice);
  const reborn = new Host(network, '10.9.0.1', 'alice.example', [keys.ed25519], {
    random: length => new Uint8Array(length).map((_, i) => (network.now * 7 + i * 31 + length) & 0xff),
  });
  reborn.initiate(bob);
  reborn.authenticate(bob);
  network.settle();
  assert.equal(reborn.of('established').length, 1);
  assert.match(bob.of('closed')[0]!.why, /INITIAL_CONTACT/);
  assert.equal(bob.engine.ikeSas().length, 2);
  assert.equal(bob.installed.size, 2);
});

test('a second SA to the same peer does not say INITIAL_CONTACT', () => {
  const { network, alice, bob } = connected();
  network.now += 5_000;
  alice.initiate(bob, 2);
  alice.authenticate(bob, 2);
  network.settle();
  assert.equal(bob.counter('initialContact'), 1);
  assert.equal(bob.engine.ikeSas().length, 2);
});

test('INITIAL_CONTACT spares what the same identity established from another address', () => {
  const { network, alice, bob } = connected();
  const roof = new Host(network, '10.9.0.9', 'alice.example', [keys.ed25519], {
    random: length => new Uint8Array(length).map((_, i) => (network.now * 7 + i * 31 + length) & 0xff),
  });
  network.now += 5_000;
  roof.initiate(bob);
  roof.authenticate(bob);
  network.settle();
  assert.equal(bob.counter('initialContact'), 2);
  assert.equal(bob.of('closed').length, 0);
  assert.deepEqual([alice.engine.ikeSas().length, bob.engine.ikeSas().length], [1, 2]);
});

test('a second address of a peer with the same key does not get INITIAL_CONTACT, also at the same time', () => {
  for (const atOnce of [false, true]) {
    const { network, alice, bob } = pair();
    const other = new Host(network, '10.9.0.9', 'bob.example', [keys.ed25519other]);
    other.trust(alice);
    for (const [host, requestId] of [[bob, 1] as const, [other, 2] as const]) {
      alice.initiate(host, requestId);
      alice.authenticate(host, requestId);
      if (!atOnce) network.settle();
    }
    network.settle();
    assert.equal(alice.engine.ikeSas().length, 2);
    assert.equal(bob.counter('initialContact') + other.counter('initialContact'), 1);
  }
});

test('INITIAL_CONTACT of somebody who proved another identity removes nothing', () => {
  const { network, bob } = connected();
  network.now += 5_000;
  bob.lookup = () => ({ keys: publicKeys(keys.ed25519) });
  const peer = new ScriptedPeer(bob).init();
  const payloads = peer.authPayloads(keys.p256);
  peer.request(ExchangeType.IKE_AUTH, [...payloads, notify(NotifyType.INITIAL_CONTACT)]);
  assert.equal(bob.of('closed').length, 0);
  assert.equal(bob.engine.ikeSas().length, 1);
});

// --- NAT

const natOutside = ip('203.0.113.7');

/** alice sits behind a NAT that maps each of her ports to another one of its own address. */
function behindNat(
  { address: alice }: Host,
  shift = 20_000,
): (datagram: Datagram) => { local: Endpoint; remote: Endpoint } {
  return ({ local, remote }) => {
    if (Buffer.compare(local.address.bytes, alice.bytes) === 0) {
      return { local: remote, remote: { address: natOutside, port: local.port + shift } };
    }
    return { local: { address: alice, port: remote.port - shift }, remote: local };
  };
}

test('a NAT: both move to port 4500, ESP goes in UDP, transport selectors are each side’s own view', () => {
  const { network, alice, bob } = pair();
  network.translate = behindNat(alice);
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  const [a] = [...alice.installed.values()] as [ChildSa];
  const [b] = [...bob.installed.values()] as [ChildSa];
  assert.deepEqual(a.encapsulation, { localPort: 4500, remotePort: 4500 });
  assert.deepEqual(b.encapsulation, { localPort: 4500, remotePort: 24_500 });
  assert.deepEqual([a.local, a.remote], [alice.address, bob.address]);
  assert.deepEqual([b.local, b.remote], [bob.address, natOutside]);
  assert.deepEqual([a.mode, b.mode], ['transport', 'transport']);
  assert.deepEqual(a.outbound, b.inbound);
  assert.ok(alice.of('established')[0]!.ikeSa.natDetected);
  const auth = network.sent[2]!;
  assert.deepEqual([...auth.data.subarray(0, 4)], [0, 0, 0, 0], 'non-ESP marker');
  assert.equal(auth.local.port, 4500);
  // The NAT's mapping is kept alive by the side behind it.
  network.pass(61_000);
  assert.equal(alice.counter('keepalives'), 3);
  assert.deepEqual(network.sent.at(-1)!.data, Uint8Array.of(0xff));
  assert.equal(bob.counter('droppedNotIke'), 3);
  alice.run(alice.engine.closeAll(network.now));
  network.settle();
  network.pass(20_000);
  assertNothingLeft(alice, bob);
});

test('a NAT that maps anew: after the first authentic message from the new port we send there', () => {
  const { network, alice, bob } = pair();
  network.translate = behindNat(alice);
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  network.translate = behindNat(alice, 30_000);
  alice.run(alice.engine.probe(1, network.now));
  network.settle();
  assert.equal(bob.engine.ikeSas()[0]!.remote.port, 34_500);
  bob.run(bob.engine.closeAll(network.now));
  assert.equal(network.sent.at(-1)!.remote.port, 34_500);
  network.settle();
  network.pass(20_000);
  assertNothingLeft(alice, bob);
});

test('a NAT and no transport mode: tunnel selectors of hidden addresses are refused', () => {
  const { network, alice, bob } = pair({ bob: { transportThroughNat: false } });
  network.translate = behindNat(alice);
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  const { reason } = alice.of('failed')[0]!;
  assert.deepEqual([reason.code, reason.notify], ['refused', NotifyType.TS_UNACCEPTABLE]);
  network.pass(60_000);
  assertNothingLeft(alice, bob);
});

/* strongSwan with MOBIKE: IKE_SA_INIT on 500, IKE_AUTH on 4500 although there is no NAT */
test('an initiator that floats to port 4500 without a NAT is answered there, without encapsulation', () => {
  const { bob } = pair();
  const peer = new ScriptedPeer(bob).init();
  const message = peer.compose(ExchangeType.IKE_AUTH, peer.authPayloads());
  const marked = new Uint8Array(message.length + 4);
  marked.set(message, 4);
  const [answer] = peer.exchange(marked, { ...peer.local, port: 4500 });
  assert.deepEqual([...answer!.subarray(0, 4)], [0, 0, 0, 0]);
  assert.equal(bob.network.sent.at(-1)!.local.port, 4500);
  assert.ok(findPayload(peer.read(answer!.subarray(4)), 'AUTH'));
  assert.equal(bob.engine.ikeSas()[0]!.remote.port, 4500);
  assert.equal(bob.of('installChildSa')[0]!.child.encapsulation, undefined);
});

test('IKE_AUTH from another address than IKE_SA_INIT is dropped', () => {
  const { bob } = pair();
  const peer = new ScriptedPeer(bob).init();
  const message = peer.compose(ExchangeType.IKE_AUTH, peer.authPayloads());
  assert.deepEqual(peer.exchange(message, { address: ip('10.9.0.67'), port: 500 }), []);
  assert.deepEqual(bob.states(), ['init-answered']);
});

/* RFC 7383 */
test('messages above the limit go in fragments, when the peer takes them; lost ones come again', () => {
  const { network, alice, bob } = pair({
    aliceKeys: [keys.rsa],
    bobKeys: [keys.rsa],
    alice: { limits: { fragmentBytes: 300 } },
    bob: { limits: { fragmentBytes: 250 } },
  });
  let dropped = 0;
  const deliver = network.translate;
  network.translate = datagram => {
    const fragment = datagram.data[16] === 53;
    if (fragment && dropped < 2) {
      dropped++;
      return undefined;
    }
    return deliver(datagram);
  };
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  network.pass(2_000);
  assertConnected(alice, bob);
  const fragments = network.sent.filter(({ data }) => data[16] === 53);
  assert.ok(fragments.length >= 7);
  assert.ok(fragments.every(({ data }) => data.length <= 300));
});
