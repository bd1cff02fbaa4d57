import { chooseSigner, signAuth, signedOctets, verifyAuth } from '../crypto/auth.ts';
import { samePublicKey } from '../crypto/public-key.ts';
import type { FailureReason, PublicKey } from '../types.ts';
import { ExchangeType, NotifyType, notifyName, ProtocolId } from '../wire/numbers.ts';
import { identityOf, identityPayload } from '../wire/identity.ts';
import { notify } from '../wire/notify.ts';
import { findNotify, findPayload, notifies, type Payload } from '../wire/payloads.ts';
import { hostSelector } from '../wire/traffic-selectors.ts';
import { addressIdentity, identityText, sameIdentity } from './addresses.ts';
import { hostsOf, install, transportAllowed } from './child.ts';
import type { Core } from './core.ts';
import { type Received, request, requestAnswered } from './exchange.ts';
import { isError, startSa } from './initiator.ts';
import { acceptChild, offerChild, spiBytes } from './proposals.ts';
import type { Attempt, Candidate, ExpectedPeer, IkeSa, InitiatorHandshake } from './sa.ts';
import { isExactly } from './selectors.ts';
import { advance, permits } from './states.ts';

/**
 * The initiator's IKE_AUTH (RFC 7296 §1.2, RFC 7427).
 *
 * | from       | answer                                    | to         |
 * |------------|-------------------------------------------|------------|
 * | auth-sent  | IDr, AUTH proven, SA, TSi, TSr            | installing | the Child SA goes to the kernel
 * | auth-sent  | N(AUTHENTICATION_FAILED)                  | closed     | the next key of ours, in a new IKE SA
 * | auth-sent  | another error notify without AUTH         | closed     | failed
 * | auth-sent  | AUTH proven, IDr another FQDN             | verifying  | (its keys are looked up)
 * | auth-sent  | AUTH or IDr wrong, Child SA refused       | deleting   | failed, DELETE
 * | verifying  | (lookup) the proven key is published there | installing |
 * | verifying  | (lookup) it is not, or no answer in time  | deleting   | failed, DELETE
 * | cancelling | anything with AUTH                        | deleting   | DELETE
 * | installing | (kernel) installed                        | established |
 * | installing | (kernel) refused                          | deleting   | failed, DELETE
 */

/** HDR, SK {IDi, [N(INITIAL_CONTACT),] IDr, AUTH, [N(USE_TRANSPORT_MODE),] SAi2, TSi, TSr}  --> */
export function sendAuth(core: Core, sa: IkeSa, handshake: InitiatorHandshake, candidate: Candidate): void {
  const { suite, keys } = sa.secure!;
  const { peer } = handshake.attempt;
  const signer = chooseSigner([candidate.key], handshake.peerHashes, { rsa: core.config.rsa });
  const idi = identityPayload('IDi', candidate.identity);
  const octets = signedOctets({
    realMessage: handshake.initRequest!,
    nonce: handshake.nr!,
    prfId: suite.prf,
    skP: keys.initiator.skP,
    idBody: idi.body,
  });
  sa.localIdentity = candidate.identity;
  handshake.candidate = candidate;
  handshake.childSpi = core.newChildSpi();
  handshake.askedTransport = transportAllowed(core, sa);
  const hosts = hostsOf(sa);
  const payloads: Payload[] = [
    idi,
    ...(isOnlyContact(core, sa, peer!) ? [notify(NotifyType.INITIAL_CONTACT)] : []),
    identityPayload('IDr', peer!.idr),
    signAuth(signer!, octets),
    ...(handshake.askedTransport ? [notify(NotifyType.USE_TRANSPORT_MODE)] : []),
    { kind: 'SA', proposals: offerChild(core.config.childProposals, spiBytes(handshake.childSpi)) },
    { kind: 'TSi', selectors: [hostSelector(hosts.local.bytes)] },
    { kind: 'TSr', selectors: [hostSelector(hosts.remote.bytes)] },
  ];
  sa.timings.authSentAt = core.now;
  request(core, sa, ExchangeType.IKE_AUTH, payloads, 'auth');
}

/**
 * INITIAL_CONTACT makes the peer drop every other SA with our identity (RFC 7296 §2.4), those of its other addresses
 * too: only said while no SA with this address or with any of the peer's keys exists or may come to exist.
 */
function isOnlyContact(core: Core, sa: IkeSa, peer: ExpectedPeer): boolean {
  const inFlight = [...core.attempts.values()].filter(
    ({ sa: other, peer: its }) =>
      other !== sa &&
      !isUnproven(other) &&
      its?.keys.some(key => peer.keys.some(own => samePublicKey(own, key))),
  );
  return (
    inFlight.length === 0 &&
    !peer.keys.some(key => core.hasProven(key)) &&
    core.toAddress(sa.remote.address).every(other => other === sa || isUnproven(other))
  );
}

/** Neither side has shown who it is in it yet. */
function isUnproven(sa: IkeSa): boolean {
  return sa.state === 'init-sent' || sa.state === 'init-done' || sa.halfOpen;
}

/** <--  HDR, SK {IDr, AUTH, [N(USE_TRANSPORT_MODE),] SAr2, TSi, TSr} */
export function receiveAuthAnswer(core: Core, sa: IkeSa, received: Received): void {
  const { handshake } = sa;
  if (handshake?.role !== 'initiator' || !permits(sa, 'authWrong')) {
    core.drop('droppedOutOfState', received.from.remote);
    return;
  }
  requestAnswered(core, sa);
  sa.timings.authAnsweredAt = core.now;
  const { attempt } = handshake;
  const payloads = received.payloads ?? [];
  if (received.payloads && !findPayload(payloads, 'AUTH')) {
    receiveRefusal(core, sa, handshake, payloads);
    return;
  }
  if (sa.state === 'cancelling') {
    giveUp(core, sa, 'authWrong', 'cancelled');
    return;
  }
  if (received.broken) {
    core.fail(attempt, { code: 'protocol', text: `IKE_AUTH answer: ${received.broken.message}` });
    giveUp(core, sa, 'authWrong', 'malformed answer');
    return;
  }
  const unproven = proveResponder(sa, handshake, payloads);
  if (unproven) {
    authenticationFailed(core, sa, attempt, unproven);
    return;
  }
  if (isExpected(sa, attempt)) {
    takeChild(core, sa, handshake, payloads);
    return;
  }
  if (sa.remoteIdentity!.type !== 'fqdn') {
    authenticationFailed(core, sa, attempt, callsItself(sa));
    return;
  }
  advance(sa, 'otherName');
  const lookup = core.newId();
  handshake.otherName = { lookup, payloads };
  core.lookups.set(lookup, sa);
  core.deadlines.set(sa, 'verification', core.now + core.config.limits.speculationMillis);
  core.emit({ kind: 'lookupKeys', lookup, identity: sa.remoteIdentity!, remote: sa.remote.address });
}

/** The keys of the other name that the peer goes by: the one that it proved must be among them. */
export function otherNameFound(
  core: Core,
  sa: IkeSa,
  handshake: InitiatorHandshake,
  keys: PublicKey[],
): void {
  const { attempt, otherName } = handshake;
  delete handshake.otherName;
  core.deadlines.clear(sa, 'verification');
  if (!otherName || !permits(sa, 'authAnswer')) return;
  if (keys.some(key => samePublicKey(key, sa.remoteKey!))) takeChild(core, sa, handshake, otherName.payloads);
  else authenticationFailed(core, sa, attempt, callsItself(sa));
}

/** Nobody answered the look-up. */
export function otherNameUnknown(core: Core, sa: IkeSa): void {
  if (sa.handshake?.role !== 'initiator') return;
  core.fail(sa.handshake.attempt, callsItself(sa));
  giveUp(core, sa, 'expire', 'the keys of its name were not found in time');
}

function callsItself(sa: IkeSa): FailureReason {
  const text = `the peer calls itself ${identityText(sa.remoteIdentity!)}, where its key is not published`;
  return { code: 'auth-failed', text };
}

function isExpected(sa: IkeSa, { peer }: Attempt): boolean {
  const expected = [peer!.idr, addressIdentity(sa.remote.address), ...peer!.acceptableIdr];
  return expected.some(one => sameIdentity(one, sa.remoteIdentity!));
}

function authenticationFailed(core: Core, sa: IkeSa, attempt: Attempt, reason: FailureReason): void {
  core.count('authenticationFailed');
  core.fail(attempt, reason);
  giveUp(core, sa, 'authWrong', reason.text, [notify(NotifyType.AUTHENTICATION_FAILED)]);
}

function takeChild(core: Core, sa: IkeSa, handshake: InitiatorHandshake, payloads: Payload[]): void {
  const unsuitable = receiveChild(core, sa, handshake, payloads);
  if (!unsuitable) return;
  core.fail(handshake.attempt, unsuitable);
  giveUp(core, sa, 'authWrong', unsuitable.text);
}

/** The peer would not have us. Another of our keys may be the one that it knows. */
function receiveRefusal(core: Core, sa: IkeSa, handshake: InitiatorHandshake, payloads: Payload[]): void {
  const { attempt, candidate, cookieAnswers } = handshake;
  const refusal = notifies(payloads).find(isError)?.type;
  const group = sa.secure!.suite.group;
  const cancelled = sa.state === 'cancelling';
  advance(sa, 'authRefused');
  core.free(sa, 'refused by the peer');
  if (cancelled) return;
  if (refusal === NotifyType.AUTHENTICATION_FAILED) {
    // After a COOKIE, forged or late, the peer may have answered the request without it: then AUTH covers the wrong one.
    if (cookieAnswers > 0 && candidate && !attempt.triedAgain) {
      attempt.triedAgain = true;
      attempt.candidates?.unshift(candidate);
    }
    if (attempt.candidates?.length) {
      core.count('keyRetries');
      startSa(core, attempt, group);
      return;
    }
    const text = 'the peer accepts none of our keys (AUTHENTICATION_FAILED)';
    core.fail(attempt, { code: 'auth-failed', notify: refusal, text });
    return;
  }
  core.fail(
    attempt,
    refusal === undefined
      ? { code: 'protocol', text: 'IKE_AUTH answer without AUTH' }
      : { code: 'refused', notify: refusal, text: `the peer answered ${notifyName(refusal)}` },
  );
}

/** Sets the SA's remote identity and key when AUTH is proven; otherwise says why not, and changes nothing. */
function proveResponder(
  sa: IkeSa,
  handshake: InitiatorHandshake,
  payloads: Payload[],
): FailureReason | undefined {
  const { suite, keys } = sa.secure!;
  const peer = handshake.attempt.peer!;
  const idr = findPayload(payloads, 'IDr');
  const identity = idr && identityOf(idr);
  if (!idr || !identity) return { code: 'protocol', text: 'IKE_AUTH answer without a usable IDr' };
  const octets = signedOctets({
    realMessage: handshake.initResponse!,
    nonce: handshake.ni,
    prfId: suite.prf,
    skP: keys.responder.skP,
    idBody: idr.body,
  });
  const proof = verifyAuth(findPayload(payloads, 'AUTH')!, octets, peer.keys);
  if (!proof.verified) {
    const text = `the peer's AUTH verifies with none of its known keys: ${proof.why}`;
    return { code: 'peer-key-mismatch', text };
  }
  sa.remoteIdentity = { type: identity.type, data: new Uint8Array(identity.data) };
  sa.remoteKey = proof.key;
  return undefined;
}

/** The peer is proven. Its half of the Child SA must be within what we offered, for exactly our two hosts. */
function receiveChild(
  core: Core,
  sa: IkeSa,
  handshake: InitiatorHandshake,
  payloads: Payload[],
): FailureReason | undefined {
  const answer = findPayload(payloads, 'SA');
  const tsi = findPayload(payloads, 'TSi');
  const tsr = findPayload(payloads, 'TSr');
  if (!answer) {
    const refusal = notifies(payloads).find(isError)?.type;
    if (refusal === undefined) return { code: 'protocol', text: 'no Child SA in the IKE_AUTH answer' };
    return { code: 'refused', notify: refusal, text: `the peer answered ${notifyName(refusal)}` };
  }
  const accepted = acceptChild(answer.proposals, core.config.childProposals);
  if (!accepted) return { code: 'protocol', text: 'the peer chose ESP algorithms that we did not offer' };
  const transport = findNotify(payloads, NotifyType.USE_TRANSPORT_MODE) !== undefined;
  if (transport && !handshake.askedTransport) {
    return { code: 'protocol', text: 'the peer chose transport mode, which we did not ask for' };
  }
  const hosts = hostsOf(sa);
  if (!tsi || !isExactly(tsi.selectors, hosts.local, transport && sa.nat.us)) {
    return { code: 'protocol', text: 'the peer narrowed our traffic selector' };
  }
  if (!tsr || !isExactly(tsr.selectors, hosts.remote, transport && sa.nat.peer)) {
    return { code: 'protocol', text: "the peer's traffic selector is not exactly the host asked for" };
  }
  const { spi, ...suite } = accepted;
  const inboundSpi = handshake.childSpi!;
  delete handshake.childSpi;
  const child = install(core, sa, {
    suite,
    mode: transport ? 'transport' : 'tunnel',
    inboundSpi,
    outboundSpi: spi,
    ni: handshake.ni,
    nr: handshake.nr!,
    initiator: true,
  });
  sa.pending = { child, messageId: 1, exchangeType: ExchangeType.IKE_AUTH, prefix: [], payloads: [] };
  advance(sa, 'authAnswer');
  return undefined;
}

/** The kernel's word on the initiator's first Child SA. */
export function authChildInstalled(core: Core, sa: IkeSa, error: string | undefined): void {
  const { handshake, pending } = sa;
  if (handshake?.role !== 'initiator' || !pending) return;
  delete sa.pending;
  const { attempt } = handshake;
  if (error !== undefined) {
    core.removeChild(pending.child, `not installed: ${error}`);
    core.fail(attempt, { code: 'kernel', text: error });
    giveUp(core, sa, 'installFailed', error);
    return;
  }
  sa.children.push(pending.child);
  core.attempts.delete(attempt.requestId);
  advance(sa, 'installed');
  core.announce(sa, pending.child);
}

/** The caller does not want it any more: nothing that the peer may believe in is left without a DELETE. */
export function cancel(core: Core, requestId: number): void {
  const attempt = core.attempts.get(requestId);
  if (!attempt) return;
  const { sa } = attempt;
  core.fail(attempt, { code: 'cancelled', text: 'cancelled' });
  if (sa.state === 'installing' || sa.state === 'verifying') {
    giveUp(core, sa, 'cancel', 'cancelled');
    return;
  }
  advance(sa, 'cancel');
  if (sa.state === 'closed') core.free(sa, 'cancelled');
}

/** HDR, SK {[N(…),] D}  --> */
function giveUp(
  core: Core,
  sa: IkeSa,
  event: 'authWrong' | 'installFailed' | 'cancel' | 'expire',
  why: string,
  first: Payload[] = [],
): void {
  advance(sa, event);
  core.retire(sa, why);
  const payloads: Payload[] = [...first, { kind: 'D', protocol: ProtocolId.IKE, spis: [] }];
  request(core, sa, ExchangeType.INFORMATIONAL, payloads, 'delete');
}
