import assert from 'node:assert/strict';
import test from 'node:test';
import { deriveShared, generateKeyShare } from '../../../ike/crypto/key-exchange.ts';
import { deriveChildKeys, deriveIkeKeys, skeyseedRekey } from '../../../ike/crypto/prf.ts';
import { Opener, Sealer } from '../../../ike/crypto/seal.ts';
import { offerIke } from '../../../ike/engine/proposals.ts';
import { notify } from '../../../ike/wire/notify.ts';
import { ExchangeType, NotifyType, ProtocolId } from '../../../ike/wire/numbers.ts';
import { findNotify, findPayload, type Payload } from '../../../ike/wire/payloads.ts';
import { pair } from './pair.ts';
import { ScriptedPeer } from './scripted-peer.ts';

/* CREATE_CHILD_SA as responder (RFC 7296 §1.3, §2.8, §2.25). */

function spiBytes(spi: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, spi);
  return bytes;
}

function rekeyChild(peer: ScriptedPeer, old: number, fresh: number, more: Payload[] = []): Payload[] {
  const about = { protocol: ProtocolId.ESP, spi: spiBytes(old) };
  const nonce = { kind: 'NONCE' as const, data: peer.random(32) };
  return [notify(NotifyType.REKEY_SA, undefined, about), nonce, ...more, ...peer.childPayloads(fresh)];
}

const kindsOf = (payloads: Payload[] | undefined) =>
  payloads?.map(payload => (payload.kind === 'N' ? payload.type : payload.kind));

/*
 * HDR, SK {N(REKEY_SA), SA, Ni, TSi, TSr}  -->
 *                                          <--  HDR, SK {SA, Nr, TSi, TSr}
 * HDR, SK {D(old)}                         -->
 *                                          <--  HDR, SK {D(old)}
 */
test('child rekey: the new one is installed first, the old one goes with the DELETE', () => {
  const { bob } = pair();
  const peer = new ScriptedPeer(bob).establish();
  const [old] = [...bob.installed.values()];
  const request = rekeyChild(peer, 0x1234_5678, 0xaaaa_0001);
  const answer = peer.request(ExchangeType.CREATE_CHILD_SA, request)!;
  assert.deepEqual(kindsOf(answer), ['SA', 'NONCE', 'TSi', 'TSr']);
  assert.equal(bob.installed.size, 2);
  const fresh = [...bob.installed.values()].at(-1)!;
  assert.equal(fresh.outbound.spi, 0xaaaa_0001);
  assert.equal(fresh.ikeSaId, old!.ikeSaId);
  const ni = findPayload(request, 'NONCE')!.data;
  const nr = findPayload(answer, 'NONCE')!.data;
  const suite = { encr: 20, keyBits: 256, integ: 0, esn: false };
  const ours = deriveChildKeys(peer.suite.prf, peer.ikeKeys.skD, suite, ni, nr);
  assert.deepEqual(ours.initiator, fresh.inbound.cipher);
  assert.deepEqual(ours.responder, fresh.outbound.cipher);
  const deleted = peer.request(ExchangeType.INFORMATIONAL, [{ kind: 'D', protocol: 3, spis: [0x1234_5678] }]);
  assert.deepEqual(deleted, [{ kind: 'D', protocol: 3, spis: [old!.inbound.spi] }]);
  assert.deepEqual([...bob.installed.keys()], [fresh.id]);
  bob.network.pass(60_000);
  assert.equal(bob.engine.ikeSas().length, 1);
});

test('child rekey with a key exchange of its own', () => {
  const { bob } = pair();
  const peer = new ScriptedPeer(bob).establish();
  const share = generateKeyShare(19, peer.random);
  const request = rekeyChild(peer, 0x1234_5678, 0xaaaa_0001, [
    { kind: 'KE', group: 19, data: share.publicValue },
  ]);
  for (const payload of request) {
    if (payload.kind !== 'SA') continue;
    for (const proposal of payload.proposals) proposal.transforms.push({ type: 4, id: 19 });
  }
  const answer = peer.request(ExchangeType.CREATE_CHILD_SA, request)!;
  assert.deepEqual(kindsOf(answer), ['SA', 'NONCE', 'KE', 'TSi', 'TSr']);
  const shared = deriveShared(share, findPayload(answer, 'KE')!.data);
  const suite = { encr: 20, keyBits: 256, integ: 0, esn: false, group: 19 };
  const nonces = [request, answer].map(payloads => findPayload(payloads, 'NONCE')!.data);
  const ours = deriveChildKeys(peer.suite.prf, peer.ikeKeys.skD, suite, nonces[0]!, nonces[1]!, shared);
  assert.deepEqual(ours.initiator, [...bob.installed.values()].at(-1)!.inbound.cipher);
});

/* What strongSwan and libreswan ask for first with PFS may be a group that we do not do. */
test('child rekey with the key exchange of a group that is not ours', () => {
  for (const [also, expected] of [
    [14, NotifyType.INVALID_KE_PAYLOAD],
    [16, NotifyType.NO_PROPOSAL_CHOSEN],
  ] as const) {
    const { bob } = pair();
    const peer = new ScriptedPeer(bob).establish();
    const request = rekeyChild(peer, 0x1234_5678, 0xaaaa_0001, [
      { kind: 'KE', group: 15, data: new Uint8Array(384).fill(3) },
    ]);
    for (const payload of request) {
      if (payload.kind !== 'SA') continue;
      for (const { transforms } of payload.proposals) {
        transforms.push({ type: 4, id: 15 }, { type: 4, id: also });
      }
    }
    assert.deepEqual(kindsOf(peer.request(ExchangeType.CREATE_CHILD_SA, request)), [expected]);
    assert.deepEqual(kindsOf(peer.request(ExchangeType.INFORMATIONAL, [])), []);
  }
});

test('what cannot be rekeyed is said to be so', () => {
  const { bob } = pair();
  const peer = new ScriptedPeer(bob).establish();
  const unknown = peer.request(ExchangeType.CREATE_CHILD_SA, rekeyChild(peer, 0xdead_beef, 0xaaaa_0001))!;
  const notFound = findNotify(unknown, NotifyType.CHILD_SA_NOT_FOUND);
  assert.deepEqual(notFound?.spi, spiBytes(0xdead_beef));
  const [, ...second] = rekeyChild(peer, 0x1234_5678, 0xaaaa_0002);
  assert.deepEqual(kindsOf(peer.request(ExchangeType.CREATE_CHILD_SA, second)), [
    NotifyType.NO_ADDITIONAL_SAS,
  ]);
  bob.kernel = () => 'ENOMEM';
  const refused = peer.request(ExchangeType.CREATE_CHILD_SA, rekeyChild(peer, 0x1234_5678, 0xaaaa_0003));
  assert.deepEqual(kindsOf(refused), [NotifyType.TEMPORARY_FAILURE]);
  assert.equal(bob.installed.size, 1);
  assert.deepEqual(kindsOf(peer.request(ExchangeType.CREATE_CHILD_SA, [])), [NotifyType.INVALID_SYNTAX]);
  assert.deepEqual(bob.states(), ['established']);
});

/*
 * HDR, SK {SA, Ni, KEi}   -->
 *                         <--  HDR, SK {SA, Nr, KEr}
 * then both speak on the new IKE SA, and the old one is deleted
 */
test('IKE rekey: the Child SA moves over, the id stays, the old SA goes', () => {
  const { bob } = pair();
  const peer = new ScriptedPeer(bob).establish();
  const before = bob.engine.ikeSas()[0]!;
  const share = generateKeyShare(31, peer.random);
  const ni = peer.random(32);
  const spiInitiator = 0x6666_6666_6666_6666n;
  const spi = new Uint8Array(8).fill(0x66);
  const proposal = { encr: [[20, 256]] as [number, number][], integ: [], prf: [5], groups: [31] };
  const answer = peer.request(ExchangeType.CREATE_CHILD_SA, [
    { kind: 'SA', proposals: offerIke([proposal], 31, spi) },
    { kind: 'NONCE', data: ni },
    { kind: 'KE', group: 31, data: share.publicValue },
  ])!;
  assert.deepEqual(kindsOf(answer), ['SA', 'NONCE', 'KE']);
  const old = { ...peer };
  const nr = findPayload(answer, 'NONCE')!.data;
  const shared = deriveShared(share, findPayload(answer, 'KE')!.data);
  const seed = skeyseedRekey(peer.suite.prf, peer.ikeKeys.skD, shared, ni, nr);
  const theirSpi = findPayload(answer, 'SA')!.proposals[0]!.spi;
  const spiResponder = new DataView(theirSpi.buffer, theirSpi.byteOffset).getBigUint64(0);
  const keys = deriveIkeKeys(peer.suite, seed, { ni, nr, spiInitiator, spiResponder });

  const fresh = new ScriptedPeer(bob);
  Object.assign(fresh, { spiInitiator, spiResponder, messageId: 0, ikeKeys: keys });
  fresh.sealer = new Sealer(peer.suite, keys.initiator, peer.random);
  fresh.opener = new Opener(peer.suite, keys.responder);
  assert.deepEqual(kindsOf(fresh.request(ExchangeType.INFORMATIONAL, [])), []);
  // On the old one nothing new is made any more.
  const late = peer.request(ExchangeType.CREATE_CHILD_SA, rekeyChild(peer, 0x1234_5678, 0xaaaa_0001));
  assert.deepEqual(kindsOf(late), [NotifyType.TEMPORARY_FAILURE]);
  assert.deepEqual(
    kindsOf(peer.request(ExchangeType.INFORMATIONAL, [{ kind: 'D', protocol: 1, spis: [] }])),
    [],
  );
  assert.equal(bob.of('closed').length, 0);
  const after = bob.engine.ikeSas();
  assert.deepEqual([after.length, after[0]!.id, after[0]!.spiResponder], [1, before.id, spiResponder]);
  assert.equal(bob.installed.size, 1);
  bob.network.pass(60_000);
  assert.deepEqual(bob.states(), ['established']);
  // And the new one can rekey the Child SA that came from the old one.
  const request = rekeyChild(fresh, 0x1234_5678, 0xaaaa_0009);
  assert.deepEqual(kindsOf(fresh.request(ExchangeType.CREATE_CHILD_SA, request)), [
    'SA',
    'NONCE',
    'TSi',
    'TSr',
  ]);
  assert.equal(old.spiResponder, peer.spiResponder);
});

test('IKE rekey after IKE rekey: what is kept of the old ones is bounded', () => {
  const { network, bob } = pair();
  let peer = new ScriptedPeer(bob).establish();
  let refused = 0;
  for (let spi = 1n; spi <= 50n; spi++) {
    const fresh = peer.rekeyIke(spi);
    if (!fresh) refused++;
    peer = fresh ?? peer;
  }
  assert.equal(refused, 49);
  assert.equal(bob.counter('nowIkeSas'), 2);
  network.pass(60_000, true);
  assert.ok(peer.rekeyIke(99n), 'possible again when the old one is gone');
  assert.equal(bob.installed.size, 1);
});

test('IKE rekey without a Child SA does not make it live longer', () => {
  const { network, bob } = pair();
  const peer = new ScriptedPeer(bob).establish();
  peer.request(ExchangeType.INFORMATIONAL, [{ kind: 'D', protocol: 3, spis: [0x1234_5678] }]);
  assert.ok(peer.rekeyIke(1n));
  network.pass(120_000, true);
  assert.deepEqual(bob.states(), []);
});

test('IKE rekey while a request of ours is out: the old SA ends nevertheless', () => {
  const { network, bob } = pair();
  const peer = new ScriptedPeer(bob).establish();
  bob.run(bob.engine.probe(bob.engine.ikeSas()[0]!.id, network.now));
  network.queue = [];
  assert.ok(peer.rekeyIke(1n));
  network.pass(120_000, true);
  assert.deepEqual(bob.states(), ['established']);
  assert.equal(bob.installed.size, 1);
});

test('after the peer deleted its only Child SA it may make another, or the IKE SA is closed', () => {
  const { network, bob } = pair();
  const peer = new ScriptedPeer(bob).establish();
  const remove = (spi: number) =>
    peer.request(ExchangeType.INFORMATIONAL, [{ kind: 'D', protocol: 3, spis: [spi, 0x99] }]);
  remove(0x1234_5678);
  assert.equal(bob.installed.size, 0);
  const nonce = { kind: 'NONCE' as const, data: peer.random(32) };
  const answer = peer.request(ExchangeType.CREATE_CHILD_SA, [nonce, ...peer.childPayloads(0xbbbb_0001)]);
  assert.deepEqual(kindsOf(answer), ['SA', 'NONCE', 'TSi', 'TSr']);
  network.pass(60_000, true);
  assert.equal(bob.engine.ikeSas().length, 1);
  remove(0xbbbb_0001);
  network.pass(31_000, true);
  assert.equal(bob.of('closed')[0]?.why, 'without a Child SA');
});

test('childless IKE_AUTH (RFC 6023)', () => {
  const { bob } = pair();
  const peer = new ScriptedPeer(bob).init();
  const [idi, auth] = peer.authPayloads();
  const answer = peer.request(ExchangeType.IKE_AUTH, [idi!, auth!]);
  assert.deepEqual(kindsOf(answer), ['IDr', 'AUTH']);
  assert.equal(bob.of('established')[0]?.child, undefined);
  const nonce = { kind: 'NONCE' as const, data: peer.random(32) };
  peer.request(ExchangeType.CREATE_CHILD_SA, [nonce, ...peer.childPayloads(0xbbbb_0001)]);
  assert.equal(bob.installed.size, 1);
});

test('a second request before the first is answered is not taken: the window is one', () => {
  const { network, bob } = pair();
  const peer = new ScriptedPeer(bob).establish();
  bob.kernel = () => 'later';
  const request = rekeyChild(peer, 0x1234_5678, 0xaaaa_0001);
  assert.equal(peer.request(ExchangeType.CREATE_CHILD_SA, request), undefined);
  const remove = peer.compose(ExchangeType.INFORMATIONAL, [{ kind: 'D', protocol: 1, spis: [] }]);
  assert.deepEqual(peer.exchange(remove), []);
  const waiting = bob.of('installChildSa').at(-1)!.child;
  bob.run(bob.engine.childInstalled(waiting.id, undefined, network.now));
  assert.deepEqual(kindsOf(peer.read(network.queue.pop()!.data)), ['SA', 'NONCE', 'TSi', 'TSr']);
  assert.equal(peer.exchange(remove).length, 1);
  assert.deepEqual(bob.states(), ['lingering']);
  assert.equal(bob.installed.size, 0);
});
