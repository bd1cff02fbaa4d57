import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import type { Endpoint } from '../../../ike/types.ts';
import { ExchangeType } from '../../../ike/wire/numbers.ts';
import { assertConnected, type Datagram, ip, keys, pair } from './pair.ts';
import { ScriptedPeer } from './scripted-peer.ts';

/* What UDP does to datagrams: loses, repeats, reorders and delays them. */

test('no answer: byte-identical copies after 0.5, 1, 2, 4 s, and the end after 8 s more', () => {
  const { network, alice, bob } = pair();
  network.translate = () => undefined;
  const times: number[] = [];
  alice.initiate(bob);
  alice.authenticate(bob);
  times.push(network.now);
  for (let seen = 1; alice.of('failed').length === 0; ) {
    network.now = alice.engine.nextDeadline()!.at;
    alice.run(alice.engine.tick(network.now));
    if (network.sent.length > seen) times.push(network.now);
    seen = network.sent.length;
  }
  assert.deepEqual(times, [1_000, 1_500, 2_500, 4_500, 8_500]);
  assert.equal(network.now, 16_500);
  for (const { data } of network.sent) assert.deepEqual(data, network.sent[0]!.data);
  assert.equal(alice.of('failed')[0]?.reason.code, 'no-answer');
  assert.deepEqual(alice.states(), []);
  assert.equal(alice.engine.nextDeadline(), undefined);
});

for (const lost of [0, 1, 2, 3]) {
  test(`message ${lost + 1} of 4 is lost once`, () => {
    const { network, alice, bob } = pair();
    let count = 0;
    const deliver = network.translate;
    network.translate = datagram => (count++ === lost ? undefined : deliver(datagram));
    alice.initiate(bob);
    alice.authenticate(bob);
    network.settle();
    network.pass(600);
    assertConnected(alice, bob);
    assert.equal(network.sent.length, lost % 2 === 0 ? 5 : 6);
  });
}

test('a repeated request gets the same bytes again, and nothing else happens', () => {
  const { network, alice, bob } = pair();
  const copy = (datagram: Datagram) => {
    network.deliver(datagram);
    network.deliver(datagram);
  };
  alice.initiate(bob);
  alice.authenticate(bob);
  while (network.queue.length > 0) copy(network.queue.shift()!);
  assertConnected(alice, bob);
  const fromBob = network.sent.filter(datagram => datagram.from === bob);
  assert.equal(new Set(fromBob.map(({ data }) => Buffer.from(data).toString('hex'))).size, 2);
  assert.equal(bob.of('lookupKeys').length, 1);
  assert.equal(bob.of('installChildSa').length, 1);
});

test('the answer comes after the request was repeated: both answers are the same, one is taken', () => {
  const { network, alice, bob } = pair();
  alice.initiate(bob);
  alice.authenticate(bob);
  const first = network.queue.shift()!;
  network.pass(500, true);
  network.queue = [];
  network.deliver(first);
  network.deliver(first);
  network.settle();
  assertConnected(alice, bob);
});

/** Every way in which two or four messages may be lost, doubled or overtaken, then a network that is well again. */
test('loss, duplication, reordering, delay: one result per request, pairs that fit, nothing left over', () => {
  const step = fc.record({
    what: fc.constantFrom('deliver', 'deliver', 'deliver', 'drop', 'twice', 'last', 'wait', 'keep'),
    millis: fc.integer({ min: 1, max: 900 }),
  });
  const scenario = fc.record({
    steps: fc.array(step, { maxLength: 60 }),
    authenticateAt: fc.nat(12),
    crossed: fc.boolean(),
    manyKeys: fc.boolean(),
    fragmentBytes: fc.constantFrom(150, 400, 1200),
  });
  fc.assert(
    fc.property(scenario, ({ steps, authenticateAt, crossed, manyKeys, fragmentBytes }) => {
      const limits = { fragmentBytes };
      const { network, alice, bob } = pair({
        alice: { limits },
        bob: { limits },
        aliceKeys: manyKeys ? [keys.p256, keys.ed25519] : [keys.ed25519],
      });
      bob.lookup = () => ({ keys: [keys.ed25519.publicKey] });
      const requests = crossed ? 2 : 1;
      const old: Datagram[] = [];
      const begin = (index: number) => {
        if (index !== Math.min(authenticateAt, steps.length - 1) && steps.length > 0) return;
        alice.authenticate(bob);
        if (crossed) bob.authenticate(alice);
      };
      alice.initiate(bob);
      if (crossed) bob.initiate(alice);
      if (steps.length === 0) begin(0);
      steps.forEach(({ what, millis }, index) => {
        begin(index);
        const { queue } = network;
        if (what === 'wait') {
          network.now += millis;
          for (const host of network.hosts) host.run(host.engine.tick(network.now));
        } else if (queue.length > 0) {
          const datagram = what === 'last' ? queue.pop()! : queue.shift()!;
          if (what !== 'drop') network.deliver(datagram);
          if (what === 'twice') network.deliver(datagram);
          if (what === 'keep') old.push(datagram);
        }
      });
      network.settle();
      network.pass(40_000);
      for (const datagram of old) network.deliver(datagram);
      network.settle();
      network.pass(40_000);
      for (const host of network.hosts) {
        const established = host.of('established').filter(effect => effect.requestId !== undefined);
        const expected = host === alice || crossed ? 1 : 0;
        assert.equal(established.length + host.of('failed').length, expected, 'one result per request');
        assert.equal(host.counter('nowHalfOpen'), 0);
        assert.equal(host.counter('nowRequests'), 0);
        assert.equal(host.counter('nowLookups'), 0);
        assert.equal(host.counter('nowInstalling'), 0);
        assert.equal(host.installed.size, host.engine.ikeSas().length, 'one Child SA per IKE SA');
      }
      assert.ok(alice.of('established').length >= 1, 'a network that heals in time connects');
      for (const child of alice.installed.values()) {
        const other = [...bob.installed.values()].find(one => one.inbound.spi === child.outbound.spi);
        assert.ok(other, "alice's Child SA has its other half");
        assert.deepEqual(other.inbound, child.outbound);
        assert.deepEqual(other.outbound, child.inbound);
      }
      assert.ok(alice.engine.ikeSas().length <= requests);
    }),
    { numRuns: 300, seed: 4711 },
  );
});

/* RFC 7296 §2.11: answers go to where the request came from. */
test('a copy of a request that overtakes it from elsewhere does not take the answer from the peer', () => {
  const { network, bob } = pair();
  const peer = new ScriptedPeer(bob).establish();
  const probe = peer.compose(ExchangeType.INFORMATIONAL, []);
  const answeredTo = (from: Endpoint) => {
    const before = network.sent.length;
    peer.exchange(probe, from);
    return network.sent.slice(before).map(({ remote }) => remote);
  };
  const elsewhere = { address: ip('10.9.0.99'), port: 500 };
  answeredTo(elsewhere);
  assert.deepEqual(answeredTo(peer.local), [peer.local]);
  const otherPort = { ...peer.local, port: 1024 };
  assert.deepEqual(answeredTo(otherPort), [otherPort], 'its NAT gave it another port');
});
