import { equalBytes } from '../wire/bytes.ts';
import { createHash } from 'node:crypto';
import { groupAlgorithm } from '../crypto/algorithms.ts';
import { generateKeyShare } from '../crypto/key-exchange.ts';
import { ExchangeType, NotifyType } from '../wire/numbers.ts';
import { invalidKePayload, type NotifyPayload, notify } from '../wire/notify.ts';
import { composeMessage, findNotify, findPayload, type Message, type Payload } from '../wire/payloads.ts';
import { addressIdentity, addressKey } from './addresses.ts';
import type { Core } from './core.ts';
import type { Path } from './exchange.ts';
import { initNotifies, readInitNotifies } from './init-payloads.ts';
import { chooseIke } from './proposals.ts';
import { type IkeSa, newWindow, type ResponderHandshake } from './sa.ts';

/**
 * The responder's IKE_SA_INIT (RFC 7296 §1.2, §2.6): nothing here is authenticated, so every step is bounded, and no
 * state is made before a source address under suspicion has returned its COOKIE.
 *
 * | request                          | answer                    | state          |
 * |----------------------------------|---------------------------|----------------|
 * | the same bytes again             | the same bytes again      | unchanged      |
 * | while many are half-open         | N(COOKIE)                 | none           |
 * | no proposal of ours in it        | N(NO_PROPOSAL_CHOSEN)     | none           |
 * | KE of another group than chosen  | N(INVALID_KE_PAYLOAD)     | none           |
 * | SA, KE, Ni                       | SA, KE, Nr                | init-answered  |
 */

/** The request is kept until IKE_AUTH has been checked against it; those of real peers have some 2,000 bytes at most. */
const maximumInitBytes = 8_192;

/** HDR(A,0), [N(COOKIE),] SAi1, KEi, Ni, N(…)  --> */
export function receiveInitRequest(core: Core, message: Message, from: Path): void {
  const { spiInitiator } = message.header;
  core.count('initRequests');
  if (core.bySpi.has(spiInitiator)) {
    core.drop('droppedReflected', from.remote);
    return;
  }
  const initKey = `${spiInitiator} ${from.remote.port} ${addressKey(from.remote.address)}`;
  const initHash = createHash('sha256').update(message.bytes).digest();
  const before = core.byInit.get(initKey)?.handshake;
  if (before?.role === 'responder' && equalBytes(before.initHash, initHash)) {
    core.count('answerRepeated');
    core.send(before.initResponse, from.local, from.remote);
    return;
  }
  if (!core.config.acceptStrangers) {
    core.drop('droppedStranger', from.remote);
    return;
  }
  const { payloads, bytes } = message;
  if (bytes.length > maximumInitBytes) {
    core.drop('droppedMalformed', from.remote, `IKE_SA_INIT request of ${bytes.length} bytes`);
    return;
  }
  const offer = findPayload(payloads, 'SA')?.proposals;
  const ke = findPayload(payloads, 'KE');
  const ni = findPayload(payloads, 'NONCE')?.data;
  if (!offer || !ke || !ni) {
    core.drop('droppedMalformed', from.remote, 'IKE_SA_INIT request without SA, KE or Ni');
    return;
  }
  if (!admitted(core, payloads, { spiInitiator, nonce: ni }, from)) return;
  const choice = chooseIke(offer, core.config.ikeProposals, ke.group);
  if (!choice) {
    answerWithNotify(core, spiInitiator, from, notify(NotifyType.NO_PROPOSAL_CHOSEN));
    return;
  }
  const { suite } = choice;
  if (suite.group !== ke.group) {
    answerWithNotify(core, spiInitiator, from, invalidKePayload(suite.group));
    return;
  }
  if (ke.data.length !== groupAlgorithm(suite.group)?.publicBytes) {
    core.drop('droppedMalformed', from.remote, `KEi of ${ke.data.length} bytes`);
    return;
  }

  const spis = { spiInitiator, spiResponder: core.newIkeSpi() };
  const nr = core.config.random(32);
  const share = generateKeyShare(suite.group, core.config.random);
  const header = {
    ...spis,
    exchangeType: ExchangeType.IKE_SA_INIT,
    fromInitiator: false,
    response: true,
    messageId: 0,
  };
  const initResponse = composeMessage(header, [
    { kind: 'SA', proposals: [choice.answer] },
    { kind: 'KE', group: suite.group, data: share.publicValue },
    { kind: 'NONCE', data: nr },
    ...initNotifies(spis, from.local, from.remote),
    notify(NotifyType.CHILDLESS_IKEV2_SUPPORTED),
  ]);
  const peer = readInitNotifies(payloads, { spiInitiator, spiResponder: 0n }, from.local, from.remote);
  const handshake: ResponderHandshake = {
    role: 'responder',
    initKey,
    initHash,
    ni,
    nr,
    share,
    peerKe: ke.data,
    suite,
    initRequest: bytes,
    initResponse,
    ...(peer.peerHashes ? { peerHashes: peer.peerHashes } : {}),
  };
  const sa: IkeSa = {
    id: core.newId(),
    role: 'responder',
    state: 'init-answered',
    ...spis,
    local: from.local,
    remote: from.remote,
    createdAt: core.now,
    localIdentity: core.config.identity ?? addressIdentity(from.local.address),
    nat: peer.nat,
    peerTakesFragments: peer.peerTakesFragments,
    handshake,
    window: { ...newWindow(), nextIn: 1 },
    children: [],
    halfOpen: true,
    announced: false,
    timings: { initSentAt: core.now, initAnsweredAt: core.now },
    deadlines: new Map(),
  };
  core.open(sa);
  core.byInit.set(initKey, sa);
  core.deadlines.set(sa, 'half-open', core.now + core.config.limits.halfOpenMillis);
  core.send(initResponse, from.local, from.remote);
}

/** Room for one more half-open SA from here? Under load only for those who can receive at the address they name. */
function admitted(
  core: Core,
  payloads: Payload[],
  subject: { spiInitiator: bigint; nonce: Uint8Array },
  from: Path,
): boolean {
  const { limits } = core.config;
  const fromHere = core.halfOpenOf(from.remote.address);
  if (core.halfOpen >= limits.cookieFrom || fromHere >= limits.cookieFromPerAddress) {
    const about = { ...subject, address: from.remote.address };
    const returned = findNotify(payloads, NotifyType.COOKIE)?.data;
    if (!returned || !core.cookies.check(returned, about, core.now)) {
      core.count(returned ? 'cookieWrong' : 'cookieDemanded');
      const cookie = core.cookies.make(about, core.now);
      answerWithNotify(core, subject.spiInitiator, from, notify(NotifyType.COOKIE, cookie));
      return false;
    }
  }
  if (core.halfOpen >= limits.halfOpen || fromHere >= limits.halfOpenPerAddress) {
    core.drop('droppedHalfOpenLimit', from.remote);
    return false;
  }
  // Whoever has a name and a key of his own can have as many proven SAs as he likes.
  if (core.sas.size >= limits.ikeSas || core.ikeSasOf(from.remote.address) >= limits.ikeSasPerAddress) {
    core.drop('droppedSaLimit', from.remote);
    return false;
  }
  return true;
}

/** A stateless answer: never longer than the request that it answers, so it amplifies nothing. */
function answerWithNotify(core: Core, spiInitiator: bigint, from: Path, payload: NotifyPayload): void {
  const header = {
    spiInitiator,
    spiResponder: 0n,
    exchangeType: ExchangeType.IKE_SA_INIT,
    fromInitiator: false,
    response: true,
    messageId: 0,
  };
  core.send(composeMessage(header, [payload]), from.local, from.remote);
}
