import assert from 'node:assert/strict';
import test from 'node:test';
import { notify } from '../../../ike/wire/notify.ts';
import { ExchangeType, NotifyType } from '../../../ike/wire/numbers.ts';
import { composeMessage, findNotify, parseMessage } from '../../../ike/wire/payloads.ts';
import { ip, keys, pair, publicKeys, seeded } from './pair.ts';
import { ScriptedPeer } from './scripted-peer.ts';

/* Floods: what they can make us keep, compute or send is bounded (RFC 7296 §2.6). */

test('half-open SAs are bounded in all and per address; then cookies, then nothing', () => {
  const { network, bob } = pair({
    bob: { limits: { halfOpen: 20, halfOpenPerAddress: 5, cookieFrom: 10, cookieFromPerAddress: 3 } },
  });
  const kinds = { real: 0, cookie: 0, none: 0 };
  for (let host = 1; host <= 20; host++) {
    for (let i = 0; i < 10; i++) {
      const peer = new ScriptedPeer(bob);
      peer.local = { address: ip(`10.9.1.${host}`), port: 500 };
      peer.spiInitiator = BigInt(host * 1000 + i + 1);
      const [answer] = peer.exchange(peer.composeInit());
      const cookie = answer && findNotify(parseMessage(answer).payloads, NotifyType.COOKIE);
      if (!cookie) {
        kinds[answer ? 'real' : 'none']++;
        continue;
      }
      kinds.cookie++;
      assert.ok(answer.length <= peer.composeInit().length, 'no amplification');
      // Half of them can receive at their address.
      if (i % 2 === 0) continue;
      const [second] = peer.exchange(
        peer.composeInit([notify(NotifyType.COOKIE, cookie.data), ...peer.initPayloads()]),
      );
      kinds[second ? 'real' : 'none']++;
    }
  }
  assert.equal(kinds.real, 20);
  assert.equal(bob.counter('nowHalfOpen'), 20);
  network.pass(31_000);
  assert.equal(bob.counter('nowHalfOpen'), 0);
  assert.equal(bob.counter('nowIkeSas'), 0);
  assert.equal(bob.engine.nextDeadline(), undefined);
});

test('one address cannot take all the room, cookies or not', () => {
  const { bob } = pair({ bob: { limits: { halfOpenPerAddress: 5, cookieFromPerAddress: 100 } } });
  let answered = 0;
  for (let i = 1; i <= 20; i++) {
    const peer = new ScriptedPeer(bob);
    peer.spiInitiator = BigInt(i);
    answered += peer.exchange(peer.composeInit()).length;
  }
  assert.equal(answered, 5);
  assert.equal(bob.counter('droppedHalfOpenLimit'), 15);
  const other = new ScriptedPeer(bob);
  other.local = { address: ip('10.9.0.67'), port: 500 };
  assert.equal(other.exchange(other.composeInit()).length, 1);
});

test('a /64, which one host can have for itself, counts as four addresses', () => {
  const { network, bob } = pair({ bob: { limits: { halfOpenPerAddress: 5, cookieFromPerAddress: 100 } } });
  const ask = (address: string, i: number) => {
    const peer = new ScriptedPeer(bob);
    peer.spiInitiator = BigInt(i);
    peer.local = { address: ip(address), port: 500 };
    return peer.exchange(peer.composeInit()).length;
  };
  let answered = 0;
  for (let i = 1; i <= 50; i++) answered += ask(`20010db800000001::${i}`, i);
  assert.equal(answered, 20);
  assert.equal(ask('20010db800000002::1', 51), 1);
  network.pass(31_000);
  assert.equal(ask('20010db800000001::99', 52), 1);
});

test('who has keys of his own cannot take all the room with them', () => {
  const { network, bob } = pair({ bob: { limits: { ikeSasPerAddress: 10 } } });
  const connect = (i: number) => {
    const peer = new ScriptedPeer(bob);
    peer.spiInitiator = BigInt(i);
    if (peer.exchange(peer.composeInit()).length === 0) return false;
    // The same bytes again get the same answer.
    peer.init().request(ExchangeType.IKE_AUTH, peer.authPayloads(keys.ed25519, 0x1000_0000 + i));
    return true;
  };
  for (let i = 1; i <= 30; i++) connect(i);
  assert.ok(bob.counter('nowIkeSas') <= 10);
  assert.ok(bob.counter('droppedSaLimit') > 0);
  const other = new ScriptedPeer(bob);
  other.local = { address: ip('10.9.0.67'), port: 500 };
  assert.equal(other.exchange(other.composeInit()).length, 1);
  bob.run(bob.engine.closeAll(network.now));
  network.pass(60_000, true);
  assert.equal(bob.counter('nowIkeSas'), 0);
  assert.equal(connect(99), true, 'what is gone does not count');
});

test('our own fault in the middle of a handshake: told, not thrown; it ends in time and the next one works', () => {
  const random = seeded('bob');
  let broken = false;
  const { network, bob } = pair({
    bob: {
      random: bytes => {
        if (broken) throw new Error('no entropy');
        return random(bytes);
      },
    },
  });
  const trusted = bob.lookup;
  bob.lookup = () => undefined;
  const peer = new ScriptedPeer(bob).init();
  peer.request(ExchangeType.IKE_AUTH, peer.authPayloads());
  const { lookup } = bob.of('lookupKeys')[0]!;
  broken = true;
  const effects = bob.engine.keysFound(lookup, { keys: publicKeys(keys.ed25519) }, network.now);
  assert.ok(effects.some(effect => effect.kind === 'log' && effect.event === 'internalError'));
  assert.equal(bob.counter('internalErrors'), 1);
  broken = false;
  network.pass(31_000, true);
  assert.equal(bob.counter('nowIkeSas'), 0);
  bob.lookup = trusted;
  const next = new ScriptedPeer(bob);
  next.spiInitiator = 2n;
  next.establish();
  assert.equal(bob.engine.ikeSas().length, 1);
});

test('nothing is kept of an IKE_SA_INIT request that is huge or has an impossible KE', () => {
  const { bob } = pair();
  const peer = new ScriptedPeer(bob);
  const huge = [...peer.initPayloads(), { kind: 'V' as const, data: new Uint8Array(60_000) }];
  const short = peer
    .initPayloads()
    .map(payload => (payload.kind === 'KE' ? { ...payload, data: new Uint8Array(31) } : payload));
  for (const payloads of [huge, short]) assert.deepEqual(peer.exchange(peer.composeInit(payloads)), []);
  assert.equal(bob.counter('nowIkeSas'), 0);
  assert.equal(bob.counter('droppedMalformed'), 2);
});

test('a cookie is good for one address, SPI and nonce, and for two minutes', () => {
  const { network, bob } = pair({ bob: { limits: { cookieFrom: 0 } } });
  const ask = (peer: ScriptedPeer, cookie?: Uint8Array) => {
    const first = cookie ? [notify(NotifyType.COOKIE, cookie)] : [];
    const [answer] = peer.exchange(peer.composeInit([...first, ...peer.initPayloads()]));
    return findNotify(parseMessage(answer!).payloads, NotifyType.COOKIE)?.data;
  };
  const peer = new ScriptedPeer(bob);
  const cookie = ask(peer)!;
  for (const change of [
    (other: ScriptedPeer) => (other.local = { address: ip('10.9.0.67'), port: 500 }),
    (other: ScriptedPeer) => (other.spiInitiator = 77n),
    (other: ScriptedPeer) => (other.ni = new Uint8Array(32)),
  ]) {
    const other = new ScriptedPeer(bob);
    change(other);
    assert.ok(ask(other, cookie), 'another cookie instead of an SA');
  }
  network.now += 61_000;
  assert.equal(ask(peer, cookie), undefined);
  const later = new ScriptedPeer(bob);
  later.spiInitiator = 99n;
  const old = ask(later)!;
  network.now += 125_000;
  assert.ok(ask(later, old));
  assert.equal(bob.counter('cookieWrong'), 4);
});

test('lookups that are never answered are bounded and end', () => {
  const { network, bob } = pair({
    bob: { limits: { pendingLookups: 4, halfOpenPerAddress: 50, cookieFromPerAddress: 50 } },
  });
  bob.lookup = () => undefined;
  for (let i = 0; i < 10; i++) {
    const peer = new ScriptedPeer(bob);
    peer.spiInitiator = BigInt(i + 1);
    peer.init().request(ExchangeType.IKE_AUTH, peer.authPayloads());
  }
  assert.equal(bob.of('lookupKeys').length, 4);
  assert.equal(bob.counter('droppedLookupLimit'), 6);
  const [late] = bob.of('lookupKeys');
  network.pass(31_000);
  assert.equal(bob.counter('nowLookups'), 0);
  bob.run(bob.engine.keysFound(late!.lookup, { keys: publicKeys(keys.ed25519) }, network.now));
  bob.run(bob.engine.childInstalled(12_345, undefined, network.now));
  assert.equal(bob.of('established').length, 0);
});

test('a stranger is not answered when strangers are not wanted', () => {
  const { bob } = pair({ bob: { acceptStrangers: false } });
  const peer = new ScriptedPeer(bob);
  assert.deepEqual(peer.exchange(peer.composeInit()), []);
});

test('a later major version and an unknown SPI are answered a few times a second', () => {
  const { network, bob } = pair();
  const peer = new ScriptedPeer(bob);
  const later = peer.composeInit();
  later[17] = 0x30;
  const [answer] = peer.exchange(later);
  assert.ok(findNotify(parseMessage(answer!).payloads, NotifyType.INVALID_MAJOR_VERSION));
  peer.init();
  peer.spiResponder ^= 1n;
  let answers = 0;
  for (let i = 0; i < 1_000; i++)
    answers += peer.exchange(peer.compose(ExchangeType.INFORMATIONAL, [])).length;
  assert.equal(answers, 9);
  assert.equal(bob.counter('errorRepliesSuppressed'), 991);
  network.now += 1_000;
  const [spi] = peer.exchange(peer.compose(ExchangeType.INFORMATIONAL, []));
  assert.ok(findNotify(parseMessage(spi!).payloads, NotifyType.INVALID_IKE_SPI));
});

test('cookie after cookie ends after three', () => {
  const { network, alice, bob } = pair();
  alice.initiate(bob);
  const request = network.queue[0]!;
  for (let i = 1; i <= 10; i++) {
    const { header } = parseMessage(request.data);
    const cookie = notify(NotifyType.COOKIE, Uint8Array.of(i));
    const data = composeMessage({ ...header, fromInitiator: false, response: true }, [cookie]);
    network.deliver({ ...request, data, local: request.remote, remote: request.local });
  }
  assert.equal(alice.counter('cookieAnswered'), 3);
  assert.equal(network.sent.length, 4);
});
