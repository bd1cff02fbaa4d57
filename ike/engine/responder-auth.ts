import { chooseSigner, signAuth, signedOctets, verifyAuth } from '../crypto/auth.ts';
import { deriveShared } from '../crypto/key-exchange.ts';
import { deriveIkeKeys, skeyseed } from '../crypto/prf.ts';
import { Opener, Sealer } from '../crypto/seal.ts';
import type { Identity, PublicKey } from '../types.ts';
import { WireError } from '../wire/error.ts';
import { ExchangeType, NotifyType } from '../wire/numbers.ts';
import { identityOf, identityPayload } from '../wire/identity.ts';
import { notify } from '../wire/notify.ts';
import { findNotify, findPayload, type Payload } from '../wire/payloads.ts';
import { addressIdentity, identityText, sameAddress, sameIdentity } from './addresses.ts';
import { install, transportAllowed } from './child.ts';
import type { Core } from './core.ts';
import { answer, type Received } from './exchange.ts';
import { chooseChild, spiBytes, spiNumber } from './proposals.ts';
import type { IkeSa, ResponderHandshake } from './sa.ts';
import { narrow } from './selectors.ts';
import { advance, permits } from './states.ts';

/**
 * The responder's IKE_AUTH (RFC 7296 §1.2, RFC 7427). The answer waits until the kernel holds the Child SA, so that the
 * initiator's first packet finds it.
 *
 * | from          | event                                  | answer                        | to          |
 * |---------------|----------------------------------------|-------------------------------|-------------|
 * | init-answered | IDi, AUTH                              | (keys are looked up)          | lookup      |
 * | lookup        | no key, or AUTH proven by none         | N(AUTHENTICATION_FAILED)      | lingering   |
 * | lookup        | AUTH proven, Child SA acceptable       | (kernel installs)             | installing  |
 * | lookup        | AUTH proven, Child SA not, or not asked | IDr, AUTH, [N(why)]          | established |
 * | installing    | (kernel) installed                     | IDr, AUTH, SA, TSi, TSr       | established |
 * | installing    | (kernel) refused                       | IDr, AUTH, N(NO_PROPOSAL_CHOSEN) | established |
 */

/** The keys of IKE_SA_INIT, computed when a message shows up that needs them: a flood of requests never does. */
export function deriveKeys(core: Core, sa: IkeSa): boolean {
  const { handshake } = sa;
  if (sa.secure) return true;
  if (handshake?.role !== 'responder') return false;
  const { suite, ni, nr, share, peerKe } = handshake;
  try {
    const seed = skeyseed(suite.prf, ni, nr, deriveShared(share, peerKe));
    const keys = deriveIkeKeys(suite, seed, { ni, nr, ...spis(sa) });
    sa.secure = {
      suite,
      keys,
      sealer: new Sealer(suite, keys.responder, core.config.random),
      opener: new Opener(suite, keys.initiator),
    };
    return true;
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    core.drop('droppedMalformed', sa.remote, `KEi: ${error.message}`);
    core.free(sa, 'invalid key exchange');
    return false;
  }
}

function spis({ spiInitiator, spiResponder }: IkeSa) {
  return { spiInitiator, spiResponder };
}

/** HDR, SK {IDi, [IDr,] AUTH, [N(…),] SAi2, TSi, TSr}  --> */
export function receiveAuthRequest(core: Core, sa: IkeSa, received: Received): void {
  const { handshake } = sa;
  if (handshake?.role !== 'responder') return;
  advance(sa, 'authRequest');
  // RFC 7296 §2.23: a NAT or MOBIKE moves the peer to port 4500 here; what it authenticates is where we answer.
  sa.local = received.from.local;
  sa.remote = received.from.remote;
  if (sa.nat.us) core.deadlines.set(sa, 'keepalive', core.now + core.config.limits.keepaliveMillis);
  if (received.broken) {
    refuse(core, sa, received.broken.notify ?? NotifyType.INVALID_SYNTAX, received.broken.data);
    return;
  }
  const idi = findPayload(received.payloads, 'IDi');
  if (!idi) {
    refuse(core, sa, NotifyType.INVALID_SYNTAX);
    return;
  }
  const identity = identityOf(idi);
  // Without AUTH the peer asks for EAP (RFC 7296 §2.16), which we do not speak; identities without a name have no keys.
  if (!identity || !findPayload(received.payloads, 'AUTH')) {
    refuse(core, sa, NotifyType.AUTHENTICATION_FAILED);
    return;
  }
  const lookup = core.newId();
  handshake.auth = { lookup, messageId: received.messageId, payloads: received.payloads };
  core.lookups.set(lookup, sa);
  core.emit({ kind: 'lookupKeys', lookup, identity: copyOf(identity), remote: sa.remote.address });
}

export type Found = { keys: PublicKey[]; preferLocalKey?: PublicKey['algorithm'] } | { error: string };

/** The caller's answer to lookupKeys. */
export function keysFound(core: Core, sa: IkeSa, handshake: ResponderHandshake, found: Found): void {
  if (!permits(sa, 'verified')) return;
  const { payloads } = handshake.auth!;
  const why = proveInitiator(sa, handshake, payloads, found);
  if (why !== undefined) {
    core.count('authenticationFailed');
    core.log('info', 'authenticationFailed', { id: sa.id, why });
    refuse(core, sa, NotifyType.AUTHENTICATION_FAILED);
    return;
  }
  const { keys, preferLocalKey } = found as Extract<Found, { keys: PublicKey[] }>;
  const prefer = [...(preferLocalKey === undefined ? [] : [preferLocalKey]), sa.remoteKey!.algorithm];
  const proof = ourProof(core, sa, handshake, payloads, prefer);
  if (!proof) {
    refuse(core, sa, NotifyType.AUTHENTICATION_FAILED);
    return;
  }
  core.log('debug', 'proven', { id: sa.id, identity: identityText(sa.remoteIdentity!), keys: keys.length });
  if (findNotify(payloads, NotifyType.INITIAL_CONTACT)) dropForgotten(core, sa);
  answerChild(core, sa, handshake, payloads, proof);
}

/** Sets the SA's remote identity and key when AUTH is proven; otherwise says why not, and changes nothing. */
function proveInitiator(
  sa: IkeSa,
  handshake: ResponderHandshake,
  payloads: Payload[],
  found: Found,
): string | undefined {
  if ('error' in found) return found.error;
  if (found.keys.length === 0) return 'no key for this identity';
  const { suite, keys } = sa.secure!;
  const idi = findPayload(payloads, 'IDi')!;
  const octets = signedOctets({
    realMessage: handshake.initRequest,
    nonce: handshake.nr,
    prfId: suite.prf,
    skP: keys.initiator.skP,
    idBody: idi.body,
  });
  const proof = verifyAuth(findPayload(payloads, 'AUTH')!, octets, found.keys);
  if (!proof.verified) return proof.why;
  sa.remoteIdentity = copyOf(identityOf(idi)!);
  sa.remoteKey = proof.key;
  return undefined;
}

/** IDr and AUTH of ours; undefined when the peer takes no signature that we can make. */
function ourProof(
  core: Core,
  sa: IkeSa,
  handshake: ResponderHandshake,
  payloads: Payload[],
  prefer: number[],
): Payload[] | undefined {
  const { identity, identities, keys: ourKeys, rsa } = core.config;
  const signer = chooseSigner(ourKeys, handshake.peerHashes, { rsa, prefer });
  if (!signer) return undefined;
  const ours = [...(identity ? [identity] : []), ...identities, addressIdentity(sa.local.address)];
  const asked = findPayload(payloads, 'IDr');
  const wanted = asked && identityOf(asked);
  sa.localIdentity = ours.find(own => wanted && sameIdentity(own, wanted)) ?? ours[0]!;
  const idr = identityPayload('IDr', sa.localIdentity);
  const { suite, keys } = sa.secure!;
  const octets = signedOctets({
    realMessage: handshake.initResponse,
    nonce: handshake.ni,
    prfId: suite.prf,
    skP: keys.responder.skP,
    idBody: idr.body,
  });
  return [idr, signAuth(signer, octets)];
}

/**
 * INITIAL_CONTACT (RFC 7296 §2.4): SAs of the same proven identity and address that the peer has forgotten. One that was established
 * after this SA's first message is not forgotten: both sides may have initiated at the same time.
 */
function dropForgotten(core: Core, sa: IkeSa): void {
  core.count('initialContact');
  for (const other of core.ofIdentity(sa.remoteIdentity!)) {
    if (other === sa || other.establishedAt! >= sa.createdAt || !permits(other, 'replaced')) continue;
    // A host with two addresses has SAs of its own with each.
    if (!sameAddress(other.remote.address, sa.remote.address)) continue;
    advance(other, 'replaced');
    core.free(other, 'the peer started anew (INITIAL_CONTACT)');
  }
}

function answerChild(
  core: Core,
  sa: IkeSa,
  handshake: ResponderHandshake,
  payloads: Payload[],
  proof: Payload[],
): void {
  const offer = findPayload(payloads, 'SA');
  const tsi = findPayload(payloads, 'TSi');
  const tsr = findPayload(payloads, 'TSr');
  if (!offer || !tsi || !tsr) {
    // RFC 6023: an IKE SA without a Child SA, asked for by leaving all three out.
    const childless = !offer && !tsi && !tsr;
    establishChildless(core, sa, childless ? proof : [...proof, notify(NotifyType.INVALID_SYNTAX)]);
    return;
  }
  const choice = chooseChild(offer.proposals, core.config.childProposals);
  if (!choice) {
    establishChildless(core, sa, [...proof, notify(NotifyType.NO_PROPOSAL_CHOSEN)]);
    return;
  }
  const transport =
    findNotify(payloads, NotifyType.USE_TRANSPORT_MODE) !== undefined && transportAllowed(core, sa);
  const theirs = narrow(tsi.selectors, sa.remote.address, transport && sa.nat.peer);
  const ours = narrow(tsr.selectors, sa.local.address, transport && sa.nat.us);
  if (!theirs || !ours) {
    establishChildless(core, sa, [...proof, notify(NotifyType.TS_UNACCEPTABLE)]);
    return;
  }
  const inboundSpi = core.newChildSpi();
  const { messageId } = handshake.auth!;
  const child = install(core, sa, {
    suite: choice.suite,
    mode: transport ? 'transport' : 'tunnel',
    inboundSpi,
    outboundSpi: spiNumber(choice.answer.spi),
    ni: handshake.ni,
    nr: handshake.nr,
    initiator: false,
  });
  sa.pending = {
    child,
    messageId,
    exchangeType: ExchangeType.IKE_AUTH,
    prefix: proof,
    payloads: [
      ...(transport ? [notify(NotifyType.USE_TRANSPORT_MODE)] : []),
      { kind: 'SA', proposals: [{ ...choice.answer, spi: spiBytes(inboundSpi) }] },
      { kind: 'TSi', selectors: theirs },
      { kind: 'TSr', selectors: ours },
    ],
  };
  advance(sa, 'verified');
}

/** The kernel's word on the responder's first Child SA. <--  HDR, SK {IDr, AUTH, SAr2, TSi, TSr} */
export function authChildInstalled(core: Core, sa: IkeSa, error: string | undefined): void {
  const { pending } = sa;
  if (!pending) return;
  delete sa.pending;
  sa.timings.authAnsweredAt = core.now;
  if (error !== undefined) {
    core.removeChild(pending.child, `not installed: ${error}`);
    advance(sa, 'installFailed');
    // RFC 7296 §1.2: the IKE SA stands although its first Child SA failed.
    answer(core, sa, ExchangeType.IKE_AUTH, [...pending.prefix, notify(NotifyType.NO_PROPOSAL_CHOSEN)]);
    settle(core, sa);
    return;
  }
  sa.children.push(pending.child);
  advance(sa, 'installed');
  answer(core, sa, ExchangeType.IKE_AUTH, [...pending.prefix, ...pending.payloads]);
  settle(core, sa);
}

function establishChildless(core: Core, sa: IkeSa, payloads: Payload[]): void {
  sa.timings.authAnsweredAt = core.now;
  advance(sa, 'verifiedChildless');
  answer(core, sa, ExchangeType.IKE_AUTH, payloads);
  settle(core, sa);
}

function settle(core: Core, sa: IkeSa): void {
  core.deadlines.clear(sa, 'half-open');
  core.announce(sa, sa.children[0]);
  if (sa.children.length === 0) {
    core.deadlines.set(sa, 'childless', core.now + core.config.limits.childlessMillis);
  }
}

/** Not with this peer: the answer is kept for repetitions until the half-open time is over. */
function refuse(core: Core, sa: IkeSa, type: number, data?: Uint8Array): void {
  answer(core, sa, ExchangeType.IKE_AUTH, [notify(type, data)]);
  advance(sa, 'refused');
  core.forgetHandshake(sa);
  core.deadlines.clear(sa, 'half-open');
  core.deadlines.set(sa, 'linger', core.now + core.config.limits.lingerMillis);
}

function copyOf(identity: Identity): Identity {
  return { type: identity.type, data: new Uint8Array(identity.data) };
}
