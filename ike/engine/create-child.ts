import { deriveShared, generateKeyShare, type KeyShare } from '../crypto/key-exchange.ts';
import { deriveIkeKeys, skeyseedRekey } from '../crypto/prf.ts';
import { Opener, Sealer } from '../crypto/seal.ts';
import { WireError } from '../wire/error.ts';
import { ExchangeType, NotifyType, ProtocolId, TransformType } from '../wire/numbers.ts';
import { invalidKePayload, type NotifyPayload, notify } from '../wire/notify.ts';
import { findNotify, findPayload, type Payload } from '../wire/payloads.ts';
import type { Proposal } from '../wire/sa.ts';
import { hostsOf, install, transportAllowed } from './child.ts';
import type { Core } from './core.ts';
import { answer, type Received } from './exchange.ts';
import { chooseChild, chooseIke, offeredGroups, spiBytes, spiNumber } from './proposals.ts';
import { type IkeSa, newWindow, ownSpi } from './sa.ts';
import { narrow } from './selectors.ts';
import { advance } from './states.ts';

/**
 * CREATE_CHILD_SA as responder (RFC 7296 §1.3, §2.8). We never send this request ourselves yet.
 *
 * | request                              | answer                                                       |
 * |--------------------------------------|--------------------------------------------------------------|
 * | SA(IKE), Ni, KEi                     | SA, Nr, KEr: a new IKE SA takes over the Child SAs           |
 * | N(REKEY_SA), SA, Ni, [KEi,] TSi, TSr | SA, Nr, [KEr,] TSi, TSr once the kernel has it               |
 * | SA, Ni, [KEi,] TSi, TSr              | the same where there is no Child SA, else N(NO_ADDITIONAL_SAS) |
 * | while we delete, or replaced already | N(TEMPORARY_FAILURE)                                         |
 * | SA(IKE) while the SA before is there | N(TEMPORARY_FAILURE)                                         |
 *
 * The old SAs stay until the peer deletes them: make before break is the rekeying side's duty.
 */

export function receiveCreateChild(core: Core, sa: IkeSa, received: Received): void {
  if (received.broken) {
    refuse(core, sa, notify(received.broken.notify ?? NotifyType.INVALID_SYNTAX, received.broken.data));
    return;
  }
  if (sa.state !== 'established') {
    refuse(core, sa, notify(NotifyType.TEMPORARY_FAILURE));
    return;
  }
  const { payloads } = received;
  const offer = findPayload(payloads, 'SA')?.proposals;
  const ni = findPayload(payloads, 'NONCE')?.data;
  if (!offer || !ni) {
    refuse(core, sa, notify(NotifyType.INVALID_SYNTAX));
    return;
  }
  if (offer[0]?.protocol === ProtocolId.IKE) rekeyIke(core, sa, payloads, offer, ni);
  else createChild(core, sa, payloads, offer, ni, received.messageId);
}

/** HDR, SK {[N(REKEY_SA),] SA, Ni, [KEi,] TSi, TSr}  --> */
function createChild(
  core: Core,
  sa: IkeSa,
  payloads: Payload[],
  offer: Proposal[],
  ni: Uint8Array,
  messageId: number,
): void {
  const rekey = findNotify(payloads, NotifyType.REKEY_SA);
  // The SPI that the peer receives with: our outbound one.
  const old = rekey && sa.children.find(child => child.outbound.spi === spiNumber(rekey.spi));
  if (rekey && !old) {
    refuse(core, sa, notify(NotifyType.CHILD_SA_NOT_FOUND, undefined, rekey));
    return;
  }
  // Two at most: one, and the one that replaces it.
  if (rekey ? sa.children.length > 1 : sa.children.length > 0) {
    refuse(core, sa, notify(rekey ? NotifyType.TEMPORARY_FAILURE : NotifyType.NO_ADDITIONAL_SAS));
    return;
  }
  const ke = findPayload(payloads, 'KE');
  const takesGroup = !ke || offeredGroups(core.config.ikeProposals).includes(ke.group);
  const choice = takesGroup ? chooseChild(offer, core.config.childProposals, ke?.group) : undefined;
  if (!choice) {
    const group = ke && wantedGroup(core, offer, ke.group);
    if (group === undefined) refuse(core, sa, notify(NotifyType.NO_PROPOSAL_CHOSEN));
    else refuse(core, sa, invalidKePayload(group));
    return;
  }
  const tsi = findPayload(payloads, 'TSi');
  const tsr = findPayload(payloads, 'TSr');
  const transport =
    findNotify(payloads, NotifyType.USE_TRANSPORT_MODE) !== undefined && transportAllowed(core, sa);
  const hosts = hostsOf(sa);
  const theirs = tsi && narrow(tsi.selectors, hosts.remote, transport && sa.nat.peer);
  const ours = tsr && narrow(tsr.selectors, hosts.local, transport && sa.nat.us);
  if (!theirs || !ours) {
    refuse(core, sa, notify(NotifyType.TS_UNACCEPTABLE));
    return;
  }
  const exchange = ke && keyExchange(core, sa, ke.group, ke.data);
  if (ke && !exchange) return;
  const nr = core.config.random(32);
  const inboundSpi = core.newChildSpi();
  const child = install(core, sa, {
    suite: choice.suite,
    mode: transport ? 'transport' : 'tunnel',
    inboundSpi,
    outboundSpi: spiNumber(choice.answer.spi),
    ni,
    nr,
    ...(exchange ? { shared: exchange.shared } : {}),
    initiator: false,
  });
  sa.pending = {
    child,
    messageId,
    exchangeType: ExchangeType.CREATE_CHILD_SA,
    prefix: [],
    payloads: [
      ...(transport ? [notify(NotifyType.USE_TRANSPORT_MODE)] : []),
      { kind: 'SA', proposals: [{ ...choice.answer, spi: spiBytes(inboundSpi) }] },
      { kind: 'NONCE', data: nr },
      ...(exchange ? [kePayload(exchange.share)] : []),
      { kind: 'TSi', selectors: theirs },
      { kind: 'TSr', selectors: ours },
    ],
  };
}

/** The kernel's word on a Child SA that the peer asked for. */
export function createdChildInstalled(core: Core, sa: IkeSa, error: string | undefined): void {
  const { pending } = sa;
  if (!pending) return;
  delete sa.pending;
  if (error !== undefined) {
    core.removeChild(pending.child, `not installed: ${error}`);
    refuse(core, sa, notify(NotifyType.TEMPORARY_FAILURE));
    return;
  }
  sa.children.push(pending.child);
  core.deadlines.clear(sa, 'childless');
  answer(core, sa, pending.exchangeType, pending.payloads);
}

/**
 * HDR, SK {SA, Ni, KEi}  -->  and  <--  HDR, SK {SA, Nr, KEr}
 *
 * For the caller it stays the same IKE SA: the new one takes over id, Child SAs and identities.
 */
function rekeyIke(core: Core, sa: IkeSa, payloads: Payload[], offer: Proposal[], ni: Uint8Array): void {
  // Each leaves an old SA behind for a while: at most one of these per peer, however often it asks.
  if (sa.replaces !== undefined && core.bySpi.has(sa.replaces)) {
    refuse(core, sa, notify(NotifyType.TEMPORARY_FAILURE));
    return;
  }
  const ke = findPayload(payloads, 'KE');
  const choice = ke && chooseIke(offer, core.config.ikeProposals, ke.group);
  if (!ke || !choice || choice.answer.spi.length !== 8 || choice.answer.spi.every(byte => byte === 0)) {
    refuse(core, sa, notify(NotifyType.NO_PROPOSAL_CHOSEN));
    return;
  }
  const { suite } = choice;
  if (suite.group !== ke.group) {
    refuse(core, sa, invalidKePayload(suite.group));
    return;
  }
  const theirSpi = choice.answer.spi;
  const spis = {
    spiInitiator: new DataView(theirSpi.buffer, theirSpi.byteOffset, 8).getBigUint64(0),
    spiResponder: core.newIkeSpi(),
  };
  const exchange = keyExchange(core, sa, ke.group, ke.data);
  if (!exchange) return;
  const nr = core.config.random(32);
  const { suite: oldSuite, keys: oldKeys } = sa.secure!;
  const seed = skeyseedRekey(oldSuite.prf, oldKeys.skD, exchange.shared, ni, nr);
  const keys = deriveIkeKeys(suite, seed, { ni, nr, ...spis });
  const ourSpi = new Uint8Array(8);
  new DataView(ourSpi.buffer).setBigUint64(0, spis.spiResponder);
  answer(core, sa, ExchangeType.CREATE_CHILD_SA, [
    { kind: 'SA', proposals: [{ ...choice.answer, spi: ourSpi }] },
    { kind: 'NONCE', data: nr },
    kePayload(exchange.share),
  ]);
  advance(sa, 'rekey');

  const fresh: IkeSa = {
    ...sa,
    ...spis,
    role: 'responder',
    state: 'established',
    replaces: ownSpi(sa),
    createdAt: core.now,
    secure: {
      suite,
      keys,
      sealer: new Sealer(suite, keys.responder, core.config.random),
      opener: new Opener(suite, keys.initiator),
    },
    window: newWindow(),
    deadlines: new Map(),
  };
  core.takeOver(sa, fresh);
  const { childlessMillis } = core.config.limits;
  core.deadlines.set(sa, 'rekeyed', core.now + childlessMillis);
  if (fresh.children.length === 0) core.deadlines.set(fresh, 'childless', core.now + childlessMillis);
  core.log('info', 'rekeyed', { id: fresh.id });
}

function keyExchange(core: Core, sa: IkeSa, group: number, peerPublic: Uint8Array) {
  const share = generateKeyShare(group, core.config.random);
  try {
    return { share, shared: deriveShared(share, peerPublic) };
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    refuse(core, sa, notify(NotifyType.INVALID_SYNTAX));
    return undefined;
  }
}

function kePayload(share: KeyShare): Payload {
  return { kind: 'KE', group: share.group, data: share.publicValue };
}

/** A group of ours that the peer offers besides the one it sent. */
function wantedGroup(core: Core, offer: Proposal[], sent: number): number | undefined {
  const offered = offer.flatMap(proposal => proposal.transforms).filter(t => t.type === TransformType.KE);
  const groups = offeredGroups(core.config.ikeProposals);
  if (groups.includes(sent)) return undefined;
  return groups.find(group => offered.some(transform => transform.id === group));
}

function refuse(core: Core, sa: IkeSa, payload: NotifyPayload): void {
  answer(core, sa, ExchangeType.CREATE_CHILD_SA, [payload]);
}
