import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { sealFragments } from '../../../ike/crypto/seal.ts';
import { composeHeader } from '../../../ike/wire/header.ts';
import { invalidKePayload, notify } from '../../../ike/wire/notify.ts';
import { ExchangeType, NotifyType } from '../../../ike/wire/numbers.ts';
import { composeMessage, findNotify, findPayload, parseMessage } from '../../../ike/wire/payloads.ts';
import type { NotifyPayload } from '../../../ike/wire/notify.ts';
import { assertConnected, type Datagram, ip, keys, pair, publicKeys, seeded } from './pair.ts';
import { ScriptedPeer } from './scripted-peer.ts';

/* What an attacker sends, on the path or off it. IKE-FACTS §4, the rows that concern the state machine. */

/** An unprotected answer to this IKE_SA_INIT request, as anybody on the path can make it. */
function forgedAnswer(to: Datagram, ...payloads: NotifyPayload[]): Uint8Array {
  const { header } = parseMessage(to.data);
  return composeMessage({ ...header, fromInitiator: false, response: true }, payloads);
}

function bobForges(to: Datagram, data: Uint8Array): Datagram {
  return { ...to, data, local: to.remote, remote: to.local };
}

test('forged error notifies before the real answer change nothing', () => {
  const errors = [
    NotifyType.NO_PROPOSAL_CHOSEN,
    NotifyType.AUTHENTICATION_FAILED,
    NotifyType.INVALID_SYNTAX,
    NotifyType.INVALID_MAJOR_VERSION,
    NotifyType.INVALID_IKE_SPI,
    NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD,
  ];
  for (const type of errors) {
    const { network, alice, bob } = pair();
    alice.initiate(bob);
    alice.authenticate(bob);
    const request = network.queue[0]!;
    network.deliver(bobForges(request, forgedAnswer(request, notify(type))));
    assert.equal(alice.of('failed').length, 0);
    network.settle();
    assertConnected(alice, bob);
  }
});

test('a forged COOKIE before the real answer costs a second handshake, not the negotiation', () => {
  const { network, alice, bob } = pair({ alice: { addressIdentityRetry: false } });
  alice.initiate(bob);
  alice.authenticate(bob);
  const request = network.queue[0]!;
  network.deliver(
    bobForges(request, forgedAnswer(request, notify(NotifyType.COOKIE, new Uint8Array(8).fill(1)))),
  );
  network.settle();
  assert.equal(alice.of('failed').length, 0);
  assertConnected(alice, bob);
  assert.equal(alice.counter('keyRetries'), 1);
});

test('a key that is refused after a COOKIE is tried once more, and no more', () => {
  const { network, alice, bob } = pair({
    alice: { addressIdentityRetry: false },
    bob: { limits: { cookieFrom: 0 } },
  });
  bob.lookup = () => ({ keys: publicKeys(keys.p256) });
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  assert.deepEqual([alice.of('failed').length, alice.counter('keyRetries')], [1, 1]);
});

test('forged INVALID_KE_PAYLOAD: the answer to the first request still counts, in the better group', () => {
  const { network, alice, bob } = pair();
  alice.initiate(bob);
  alice.authenticate(bob);
  const request = network.queue[0]!;
  network.deliver(bobForges(request, forgedAnswer(request, invalidKePayload(14))));
  network.settle();
  assertConnected(alice, bob);
  assert.match(alice.of('established')[0]!.ikeSa.suite, /CURVE25519/);
});

test('INVALID_KE_PAYLOAD: never a group that we did not offer, never for ever', () => {
  const { network, alice, bob } = pair();
  alice.initiate(bob);
  const request = network.queue[0]!;
  for (const group of [1, 2, 5, 22, 0, 19, 20, 14, 19, 31]) {
    network.deliver(bobForges(request, forgedAnswer(request, invalidKePayload(group))));
  }
  assert.equal(alice.counter('keyExchangeRetried'), 2);
  network.settle();
});

test('notifies without protection kill no established SA', () => {
  const { network, alice, bob } = pair();
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  const { spiInitiator, spiResponder } = alice.engine.ikeSas()[0]!;
  for (const exchangeType of [34, 35, 36, 37]) {
    for (const response of [true, false]) {
      const header = {
        spiInitiator,
        spiResponder,
        exchangeType,
        fromInitiator: !response,
        response,
        messageId: 0,
      };
      const data = composeMessage(header, [
        notify(NotifyType.INVALID_IKE_SPI),
        { kind: 'D', protocol: 1, spis: [] },
      ]);
      const endpoints = [alice, bob].map(host => ({ address: host.address, port: 500 }));
      alice.run(alice.engine.receive({ data, local: endpoints[0]!, remote: endpoints[1]! }, network.now));
      bob.run(bob.engine.receive({ data, local: endpoints[1]!, remote: endpoints[0]! }, network.now));
    }
  }
  assertConnected(alice, bob);
});

/* RFC 7296 §2.5 */
test('an IKE_SA_INIT request with a critical payload that we do not know is told so, a few times', () => {
  const { bob } = pair();
  const peer = new ScriptedPeer(bob);
  const unknown = { kind: 'unknown' as const, type: 200, body: new Uint8Array(4) };
  const request = peer.composeInit([...peer.initPayloads(), unknown]);
  request[request.length - 7] = 0x80;
  const { payloads } = parseMessage(peer.exchange(request)[0]!);
  assert.deepEqual(payloads, [notify(NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD, Uint8Array.of(200))]);
  let answers = 0;
  for (let i = 0; i < 100; i++) answers += peer.exchange(request).length;
  assert.ok(answers < 10);
  assert.equal(bob.counter('nowIkeSas'), 0);
});

test('every message replayed, in every order, from everywhere: nothing new happens', () => {
  const { network, alice, bob } = pair();
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  const told = [alice.told.length, bob.told.length];
  const all = [...network.sent];
  for (const datagram of [...all, ...all.toReversed()]) {
    for (const address of ['10.9.0.1', '10.9.0.2', '10.9.0.99']) {
      for (const host of [alice, bob]) {
        const remote = { address: ip(address), port: 500 };
        const local = { address: host.address, port: 500 };
        host.run(host.engine.receive({ data: datagram.data, local, remote }, network.now));
      }
    }
  }
  assert.deepEqual([alice.told.length, bob.told.length], told);
  assert.equal(alice.engine.ikeSas().length, 1);
  for (const { data, remote } of network.queue) {
    if (parseMessage(data).encrypted)
      assert.notDeepEqual(remote.address, ip('10.9.0.99'), 'no answer for a stranger');
  }
});

test('our own messages reflected to us', () => {
  const { network, alice, bob } = pair();
  network.translate = datagram => ({ local: datagram.local, remote: datagram.remote });
  alice.initiate(bob);
  network.settle();
  assert.equal(alice.counter('droppedReflected'), 1);
  network.translate = datagram => ({ local: datagram.remote, remote: datagram.local });
  network.pass(600);
  alice.authenticate(bob);
  const mine = { ...network.queue[0]! };
  network.deliver(bobForges({ ...mine, from: bob }, mine.data));
  assert.equal(alice.counter('droppedReflected'), 2);
  network.settle();
  assertConnected(alice, bob);
});

test('bit flips anywhere in IKE_AUTH: dropped, and the true message is still welcome', () => {
  const { network, alice, bob } = pair();
  alice.initiate(bob);
  network.settle();
  alice.authenticate(bob);
  while (network.queue.length > 0) {
    const datagram = network.queue.shift()!;
    for (let at = 0; at < datagram.data.length; at++) {
      const data = new Uint8Array(datagram.data);
      data[at]! ^= 1 << (at % 8);
      network.deliver({ ...datagram, data });
      network.queue = [];
    }
    network.deliver(datagram);
  }
  assertConnected(alice, bob);
});

test('IKE_SA_INIT rewritten on the path is found out by AUTH', () => {
  const { network, alice, bob } = pair({ alice: { addressIdentityRetry: false } });
  alice.initiate(bob);
  alice.authenticate(bob);
  const request = network.queue.shift()!;
  const { header, payloads } = parseMessage(request.data);
  // An attacker takes all proposals but the last away.
  const weaker = payloads.map(payload =>
    payload.kind === 'SA' ? { ...payload, proposals: payload.proposals.slice(-1) } : payload,
  );
  network.deliver({ ...request, data: composeMessage(header, weaker) });
  network.settle();
  assert.equal(alice.of('established').length + bob.of('established').length, 0);
  assert.equal(alice.of('failed')[0]?.reason.code, 'auth-failed');
});

test('garbage, IKEv1, short and long datagrams: dropped, not answered', () => {
  const { network, bob } = pair();
  const remote = { address: ip('10.9.0.66'), port: 500 };
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), fc.constantFrom(500, 4500), (data, port) => {
      bob.run(bob.engine.receive({ data, local: { address: bob.address, port }, remote }, network.now));
    }),
    { numRuns: 500 },
  );
  const v1 = composeHeader(
    {
      spiInitiator: 1n,
      spiResponder: 0n,
      exchangeType: 2,
      fromInitiator: false,
      response: false,
      messageId: 0,
    },
    1,
    28,
  );
  v1[17] = 0x10;
  bob.run(bob.engine.receive({ data: v1, local: { address: bob.address, port: 500 }, remote }, network.now));
  assert.equal(network.sent.length, 0);
  assert.equal(bob.counter('nowIkeSas'), 0);
  assert.equal(bob.counter('internalErrors'), 0);
});

/* CVE-2019-12312: HDR, SAi1, KEi, Ni --> then INFORMATIONAL instead of IKE_AUTH */
test('any other exchange than IKE_AUTH on a half-open SA is dropped', () => {
  const { bob } = pair();
  const peer = new ScriptedPeer(bob).init();
  for (const exchangeType of [36, 37, 34, 38, 255]) {
    for (const messageId of [0, 1, 2, 0xffff_ffff]) {
      assert.deepEqual(
        peer.exchange(peer.compose(exchangeType, [{ kind: 'D', protocol: 1, spis: [] }], messageId)),
        [],
      );
    }
  }
  assert.deepEqual(bob.states(), ['init-answered']);
  peer.request(ExchangeType.IKE_AUTH, peer.authPayloads());
  assert.deepEqual(bob.states(), ['established']);
});

/* CVE-2021-45079: success out of order */
test('answers that nobody asked for are dropped in every state', () => {
  const { network, alice, bob } = pair();
  alice.initiate(bob);
  network.settle();
  const { spiInitiator, spiResponder } = parseMessage(network.sent[1]!.data).header;
  for (const exchangeType of [34, 35, 36, 37]) {
    const header = {
      spiInitiator,
      spiResponder,
      exchangeType,
      fromInitiator: false,
      response: true,
      messageId: 1,
    };
    const data = composeMessage(header, [notify(NotifyType.INITIAL_CONTACT)]);
    const remote = { address: bob.address, port: 500 };
    alice.run(
      alice.engine.receive({ data, local: { address: alice.address, port: 500 }, remote }, network.now),
    );
  }
  assert.deepEqual(alice.states(), ['init-done']);
  assert.equal(alice.told.length, 0);
});

test('IKE_AUTH without AUTH, without IDi, by a wrong key: AUTHENTICATION_FAILED or INVALID_SYNTAX, no lookup for nothing', () => {
  for (const [left, notifyType] of [
    ['AUTH', NotifyType.AUTHENTICATION_FAILED],
    ['IDi', NotifyType.INVALID_SYNTAX],
    ['none', NotifyType.AUTHENTICATION_FAILED],
  ] as const) {
    const { bob } = pair();
    const peer = new ScriptedPeer(bob).init();
    const payloads = peer.authPayloads(left === 'none' ? keys.p256 : keys.ed25519);
    const answer = peer.request(
      ExchangeType.IKE_AUTH,
      payloads.filter(payload => payload.kind !== left),
    );
    assert.deepEqual(
      answer!.map(payload => payload.kind === 'N' && payload.type),
      [notifyType],
    );
    assert.deepEqual(bob.states(), ['lingering']);
    assert.equal(bob.of('installChildSa').length, 0);
    // Nothing more is taken on it, and it goes.
    assert.equal(peer.request(ExchangeType.INFORMATIONAL, []), undefined);
    bob.network.pass(60_000);
    assert.deepEqual(bob.states(), []);
  }
});

test('an authenticated peer may ask for its own host only', () => {
  const wrong = [
    [ip('10.9.0.2'), ip('10.9.0.2')],
    [ip('10.9.0.66'), ip('10.9.0.1')],
    [ip('8.8.8.8'), ip('10.9.0.2')],
  ] as const;
  for (const [tsi, tsr] of wrong) {
    const { bob } = pair();
    const peer = new ScriptedPeer(bob).init();
    const payloads = peer.authPayloads().map(payload => {
      if (payload.kind !== 'TSi' && payload.kind !== 'TSr') return payload;
      const host = payload.kind === 'TSi' ? tsi : tsr;
      return {
        ...payload,
        selectors: payload.selectors.map(one => ({ ...one, start: host.bytes, end: host.bytes })),
      };
    });
    const answer = peer.request(ExchangeType.IKE_AUTH, payloads)!;
    assert.ok(findNotify(answer, NotifyType.TS_UNACCEPTABLE));
    assert.equal(bob.of('installChildSa').length, 0);
    bob.network.pass(40_000, true);
    assert.equal(bob.engine.ikeSas().length, 0, 'an SA without a child is not kept');
  }
});

test('a wider selector is narrowed to the host; the first of two may be for one port (strongSwan)', () => {
  const { bob } = pair();
  const peer = new ScriptedPeer(bob).init();
  const payloads = peer.authPayloads().map(payload => {
    if (payload.kind !== 'TSi') return payload;
    const host = payload.selectors[0]!;
    const port = { ...host, protocol: 6, startPort: 443, endPort: 443 };
    return {
      ...payload,
      selectors: [port, { ...host, start: ip('0.0.0.0').bytes, end: ip('255.255.255.255').bytes }],
    };
  });
  const answer = peer.request(ExchangeType.IKE_AUTH, payloads)!;
  const tsi = findPayload(answer, 'TSi');
  assert.deepEqual(
    tsi?.selectors.map(({ start, end, protocol }) => [start, end, protocol]),
    [[peer.local.address.bytes, peer.local.address.bytes, 0]],
  );
});

test('an IKE_SA_INIT answer from another address or port than asked is dropped', () => {
  const { network, alice, bob } = pair();
  alice.initiate(bob);
  network.deliver(network.queue.shift()!);
  const { data } = network.queue.shift()!;
  const local = { address: alice.address, port: 500 };
  for (const remote of [
    { address: ip('10.9.0.66'), port: 500 },
    { address: bob.address, port: 501 },
  ]) {
    alice.run(alice.engine.receive({ data, local, remote }, network.now));
    assert.deepEqual(alice.states(), ['init-sent']);
  }
  alice.run(alice.engine.receive({ data, local, remote: { address: bob.address, port: 500 } }, network.now));
  assert.deepEqual(alice.states(), ['init-done']);
});

test('no two Child SAs of ours receive with the same SPI, and none with a reserved one', () => {
  const spis = [7, 0x4000_0000, 0x4000_0000, 0x4000_0000, 0x4000_0001];
  const other = seeded('spis');
  const random = (length: number) => {
    const spi = length === 4 ? spis.shift() : undefined;
    if (spi === undefined) return other(length);
    return Uint8Array.of(spi >>> 24, spi >>> 16, spi >>> 8, spi);
  };
  const { bob } = pair({ bob: { random } });
  for (let i = 1; i <= 2; i++) {
    const peer = new ScriptedPeer(bob);
    peer.spiInitiator = BigInt(i);
    peer.establish();
  }
  const inbound = [...bob.installed.values()].map(child => child.inbound.spi);
  assert.deepEqual(inbound, [0x4000_0000, 0x4000_0001]);
});

/* CVE-2026-12413 class: SKF with totals that change, too many fragments, too much memory */
test('fragments: bounded in number and bytes, each authentic, in any order', () => {
  const { bob } = pair();
  const peer = new ScriptedPeer(bob).init();
  const header = {
    spiInitiator: peer.spiInitiator,
    spiResponder: peer.spiResponder,
    exchangeType: 35,
    fromInitiator: true,
    response: false,
    messageId: 1,
  };
  const huge = [{ kind: 'V' as const, data: new Uint8Array(30_000) }, ...peer.authPayloads()];
  for (const fragment of sealFragments(header, huge, peer.sealer, 1_000))
    assert.deepEqual(peer.exchange(fragment), []);
  const many = sealFragments(
    header,
    [{ kind: 'V', data: new Uint8Array(4_000) }, ...peer.authPayloads()],
    peer.sealer,
    130,
  );
  assert.ok(many.length > 32);
  for (const fragment of many) assert.deepEqual(peer.exchange(fragment), []);
  assert.deepEqual(bob.states(), ['init-answered']);
  const good = sealFragments(header, peer.authPayloads(), peer.sealer, 200);
  const tampered = new Uint8Array(good[1]!);
  tampered[tampered.length - 1]! ^= 1;
  peer.exchange(tampered);
  for (const fragment of good.toReversed()) peer.exchange(fragment);
  assert.deepEqual(bob.states(), ['established']);
});

test('garbage inside of an authenticated session: INVALID_SYNTAX, and that SA ends', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 60 }),
      fc.constantFrom(35, 36, 37),
      fc.nat(255),
      (body, exchangeType, first) => {
        const { bob } = pair();
        const peer = new ScriptedPeer(bob).establish();
        const { spiInitiator, spiResponder } = peer;
        const header = {
          spiInitiator,
          spiResponder,
          exchangeType,
          fromInitiator: true,
          response: false,
          messageId: 2,
        };
        peer.exchange(peer.sealer.seal(header, first, body));
        assert.equal(bob.counter('internalErrors'), 0);
        assert.equal(bob.of('established').length, 1);
      },
    ),
    { numRuns: 200 },
  );
});

test('the window: neither a used nor a later message ID is taken', () => {
  const { bob } = pair();
  const peer = new ScriptedPeer(bob).establish();
  const liveness = (messageId: number) =>
    peer.exchange(peer.compose(ExchangeType.INFORMATIONAL, [], messageId));
  assert.equal(liveness(2).length, 1);
  for (const messageId of [0, 1, 2, 4, 5, 0x8000_0000, 0xffff_ffff])
    assert.deepEqual(liveness(messageId), []);
  assert.equal(liveness(3).length, 1);
});
