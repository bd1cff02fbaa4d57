import { chooseSigner } from '../crypto/auth.ts';
import { deriveShared, generateKeyShare } from '../crypto/key-exchange.ts';
import { deriveIkeKeys, skeyseed } from '../crypto/prf.ts';
import { Opener, Sealer } from '../crypto/seal.ts';
import type { FailureReason, Hosts, IpAddress } from '../types.ts';
import { WireError } from '../wire/error.ts';
import { ExchangeType, NotifyType, notifyName } from '../wire/numbers.ts';
import { invalidKeGroup, type NotifyPayload, notify } from '../wire/notify.ts';
import {
  composeMessage,
  findNotify,
  findPayload,
  type Message,
  notifies,
  type Payload,
} from '../wire/payloads.ts';
import { addressIdentity, sameEndpoint } from './addresses.ts';
import type { Core } from './core.ts';
import { type Path, requestAnswered, sendRequest } from './exchange.ts';
import { sendAuth } from './initiator-auth.ts';
import { initNotifies, readInitNotifies } from './init-payloads.ts';
import { acceptIke, offerIke, offeredGroups } from './proposals.ts';
import { type Attempt, type ExpectedPeer, type IkeSa, type InitiatorHandshake, newWindow } from './sa.ts';
import { advance, permits } from './states.ts';

/**
 * The initiator's IKE_SA_INIT (RFC 7296 §1.2), sent before anybody knows whom to expect.
 *
 * | from      | answer                          | to        |
 * |-----------|---------------------------------|-----------|
 * | init-sent | N(COOKIE)                       | init-sent | asked again with the cookie, a few times
 * | init-sent | N(INVALID_KE_PAYLOAD), offered  | init-sent | asked again with that group, a few times
 * | init-sent | any other error notify          | init-sent | noted; a real answer may still come
 * | init-sent | SA, KE, Nr                      | init-done | IKE_AUTH goes when authenticate() was called
 */

export function initiate(
  core: Core,
  request: { requestId: number; local: IpAddress; remote: IpAddress; protects?: Hosts },
): void {
  const { requestId } = request;
  if (core.attempts.has(requestId)) throw new RangeError(`request ${requestId} is already there`);
  const { limits } = core.config;
  if (core.attempts.size >= limits.requests || core.sas.size >= limits.ikeSas) {
    core.count('failed');
    const reason: FailureReason = { code: 'busy', text: 'too many negotiations at once' };
    core.emit({ kind: 'failed', requestId, reason });
    return;
  }
  const attempt = { ...request, startedAt: core.now } as Attempt;
  core.attempts.set(requestId, attempt);
  startSa(core, attempt, offeredGroups(core.config.ikeProposals)[0]!);
}

/** A first, or after a refused key another, IKE SA for this attempt. */
export function startSa(core: Core, attempt: Attempt, group: number): void {
  const { ports, random } = core.config;
  const handshake: InitiatorHandshake = {
    role: 'initiator',
    attempt,
    ni: random(32),
    group,
    offers: new Map(),
    cookieAnswers: 0,
    askedTransport: false,
  };
  const sa: IkeSa = {
    id: core.newId(),
    role: 'initiator',
    state: 'init-sent',
    spiInitiator: core.newIkeSpi(),
    spiResponder: 0n,
    local: { address: attempt.local, port: ports.ike },
    remote: { address: attempt.remote, port: ports.ike },
    ...(attempt.protects ? { protects: attempt.protects } : {}),
    createdAt: core.now,
    localIdentity: core.config.identity ?? addressIdentity(attempt.local),
    nat: { us: false, peer: false },
    peerTakesFragments: false,
    handshake,
    window: newWindow(),
    children: [],
    halfOpen: false,
    announced: false,
    requestId: attempt.requestId,
    timings: { initSentAt: attempt.startedAt },
    deadlines: new Map(),
  };
  attempt.sa = sa;
  core.open(sa);
  sendInit(core, sa, handshake);
}

/** HDR(A,0), [N(COOKIE),] SAi1, KEi, Ni, N(…)  --> */
function sendInit(core: Core, sa: IkeSa, handshake: InitiatorHandshake): void {
  const { group } = handshake;
  const share = handshake.offers.get(group)?.share ?? generateKeyShare(group, core.config.random);
  const payloads: Payload[] = [
    ...(handshake.cookie ? [notify(NotifyType.COOKIE, handshake.cookie)] : []),
    { kind: 'SA', proposals: offerIke(core.config.ikeProposals, group) },
    { kind: 'KE', group, data: share.publicValue },
    { kind: 'NONCE', data: handshake.ni },
    ...initNotifies(sa, sa.local, sa.remote),
  ];
  const header = {
    spiInitiator: sa.spiInitiator,
    spiResponder: 0n,
    exchangeType: ExchangeType.IKE_SA_INIT,
    fromInitiator: true,
    response: false,
    messageId: 0,
  };
  const message = composeMessage(header, payloads);
  handshake.offers.set(group, { share, message });
  sendRequest(core, sa, [message], 'init');
}

/** <--  HDR(A,B), SAr1, KEr, Nr, N(…)   or only notifies */
export function receiveInitAnswer(core: Core, message: Message, from: Path): void {
  const sa = core.bySpi.get(message.header.spiInitiator);
  const handshake = sa?.handshake;
  if (sa?.role !== 'initiator' || handshake?.role !== 'initiator') {
    core.drop('droppedUnknownSpi', from.remote);
    return;
  }
  if (!permits(sa, 'initAnswer')) {
    core.drop('droppedOutOfState', from.remote, 'IKE_SA_INIT is answered already');
    return;
  }
  if (!sameEndpoint(from.remote, sa.remote)) {
    core.drop('droppedAddress', from.remote);
    return;
  }
  const { payloads } = message;
  if (findPayload(payloads, 'SA')) receiveRealAnswer(core, sa, handshake, message, from);
  else receiveInitNotifies(core, sa, handshake, payloads, from);
}

/** Nobody vouches for these: each may be an attacker's, so each costs a bounded amount and ends nothing. */
function receiveInitNotifies(
  core: Core,
  sa: IkeSa,
  handshake: InitiatorHandshake,
  payloads: Payload[],
  from: Path,
): void {
  const { limits, ikeProposals } = core.config;
  const cookie = findNotify(payloads, NotifyType.COOKIE);
  if (cookie) {
    if (++handshake.cookieAnswers > limits.cookieAnswers) {
      core.drop('unauthenticatedNotify', from.remote, 'cookie after cookie');
      return;
    }
    core.count('cookieAnswered');
    advance(sa, 'cookie');
    handshake.cookie = new Uint8Array(cookie.data);
    sendInit(core, sa, handshake);
    return;
  }
  const wrongGroup = findNotify(payloads, NotifyType.INVALID_KE_PAYLOAD);
  if (wrongGroup) {
    const group = invalidKeGroup(wrongGroup);
    const known = handshake.offers.has(group) || !offeredGroups(ikeProposals).includes(group);
    if (known || handshake.offers.size > limits.keyExchangeRetries) {
      core.drop('unauthenticatedNotify', from.remote, `group ${group} asked`);
      return;
    }
    core.count('keyExchangeRetried');
    advance(sa, 'invalidKe');
    handshake.group = group;
    sendInit(core, sa, handshake);
    return;
  }
  const refusal = notifies(payloads).find(isError);
  if (refusal) handshake.refusal = refusal.type;
  core.drop('unauthenticatedNotify', from.remote, refusal && notifyName(refusal.type));
}

function receiveRealAnswer(
  core: Core,
  sa: IkeSa,
  handshake: InitiatorHandshake,
  message: Message,
  from: Path,
): void {
  const { payloads } = message;
  const spis = { spiInitiator: sa.spiInitiator, spiResponder: message.header.spiResponder };
  const ke = findPayload(payloads, 'KE');
  const nr = findPayload(payloads, 'NONCE')?.data;
  const suite = acceptIke(findPayload(payloads, 'SA')!.proposals, core.config.ikeProposals);
  const offer = ke && handshake.offers.get(ke.group);
  if (!ke || !nr || !suite || suite.group !== ke.group || !offer || spis.spiResponder === 0n) {
    core.drop('droppedMalformed', from.remote, 'IKE_SA_INIT answer does not fit our offer');
    return;
  }
  let shared: Uint8Array;
  try {
    shared = deriveShared(offer.share, ke.data);
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    core.drop('droppedMalformed', from.remote, error.message);
    return;
  }
  const { ni } = handshake;
  const keys = deriveIkeKeys(suite, skeyseed(suite.prf, ni, nr, shared), { ni, nr, ...spis });
  const peer = readInitNotifies(payloads, spis, from.local, from.remote);

  sa.spiResponder = spis.spiResponder;
  sa.nat = peer.nat;
  sa.peerTakesFragments = peer.peerTakesFragments;
  sa.secure = {
    suite,
    keys,
    sealer: new Sealer(suite, keys.initiator, core.config.random),
    opener: new Opener(suite, keys.responder),
  };
  sa.timings.initAnsweredAt = core.now;
  handshake.nr = nr;
  handshake.group = suite.group;
  handshake.initRequest = offer.message;
  handshake.initResponse = message.bytes;
  if (peer.peerHashes) handshake.peerHashes = peer.peerHashes;
  handshake.offers.clear();
  if (sa.nat.us || sa.nat.peer) floatToNatPorts(core, sa);
  requestAnswered(core, sa);
  advance(sa, 'initAnswer');
  core.deadlines.set(sa, 'speculation', core.now + core.config.limits.speculationMillis);
  if (handshake.attempt.peer) authenticateNow(core, sa, handshake, handshake.attempt.peer);
}

/** RFC 7296 §2.23: from IKE_AUTH on, both ports are 4500. */
function floatToNatPorts(core: Core, sa: IkeSa): void {
  const { natt } = core.config.ports;
  sa.local = { address: sa.local.address, port: natt };
  sa.remote = { address: sa.remote.address, port: natt };
  if (sa.nat.us) core.deadlines.set(sa, 'keepalive', core.now + core.config.limits.keepaliveMillis);
}

/** The caller knows now whom it wants; before or after IKE_SA_INIT's answer. */
export function authenticate(core: Core, requestId: number, peer: ExpectedPeer): void {
  const attempt = core.attempts.get(requestId);
  if (!attempt || attempt.peer) return;
  attempt.peer = peer;
  const { sa } = attempt;
  if (sa.handshake?.role === 'initiator' && permits(sa, 'authenticate')) {
    authenticateNow(core, sa, sa.handshake, peer);
  }
}

function authenticateNow(
  core: Core,
  sa: IkeSa,
  handshake: InitiatorHandshake,
  { preferLocalKey }: ExpectedPeer,
): void {
  const { attempt } = handshake;
  attempt.candidates ??= candidates(core, attempt, preferLocalKey);
  const { rsa } = core.config;
  // What the peer cannot verify need not be tried; another answer of the same peer would say the same.
  attempt.candidates = attempt.candidates.filter(({ key }) =>
    chooseSigner([key], handshake.peerHashes, { rsa }),
  );
  const candidate = attempt.candidates.shift();
  if (!candidate) {
    core.fail(attempt, { code: 'refused', text: 'the peer takes no signature that we can make' });
    advance(sa, 'expire');
    core.free(sa, 'no common signature');
    return;
  }
  advance(sa, 'authenticate');
  core.deadlines.clear(sa, 'speculation');
  sendAuth(core, sa, handshake, candidate);
}

/** All our keys under our name, the preferred one first; then once more the first under our address. */
function candidates(core: Core, attempt: Attempt, prefer: number | undefined) {
  const { keys, identity, addressIdentityRetry } = core.config;
  const preferred = keys.filter(key => key.publicKey.algorithm === prefer);
  const ordered = [...preferred, ...keys.filter(key => !preferred.includes(key))];
  const address = addressIdentity(attempt.local);
  const list = ordered.map(key => ({ key, identity: identity ?? address }));
  return addressIdentityRetry && identity && identity.type !== address.type && ordered[0]
    ? [...list, { key: ordered[0], identity: address }]
    : list;
}

export function isError(payload: NotifyPayload): boolean {
  return payload.type < 16_384;
}
