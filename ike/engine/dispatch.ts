import { WireError } from '../wire/error.ts';
import { type Header, headerOfLaterVersion, parseHeader, stripNonEspMarker } from '../wire/header.ts';
import { ExchangeType, NotifyType } from '../wire/numbers.ts';
import { notify } from '../wire/notify.ts';
import { composeMessage, type Message, parseMessage } from '../wire/payloads.ts';
import type { Core } from './core.ts';
import { receiveCreateChild } from './create-child.ts';
import { open, type Path, type Received, requestAnswered, sendQueued } from './exchange.ts';
import { receiveInformational } from './informational.ts';
import { receiveInitAnswer } from './initiator.ts';
import { receiveAuthAnswer } from './initiator-auth.ts';
import { receiveInitRequest } from './responder.ts';
import { deriveKeys, receiveAuthRequest } from './responder-auth.ts';
import type { IkeSa, Purpose } from './sa.ts';
import { advance, permits } from './states.ts';

/**
 * From a datagram to the handler of its exchange. Cheap checks first; nothing that is not authentic gets further than
 * a counter, and error notifies without protection end nothing (RFC 7296 §2.4, §2.21).
 */
export function receive(core: Core, data: Uint8Array, from: Path): void {
  core.count('received');
  const ike = from.local.port === core.config.ports.natt ? stripNonEspMarker(data) : data;
  if (!ike) {
    core.count('droppedNotIke');
    return;
  }
  // A copy: what is kept of it must not change when the caller reuses its buffer.
  const bytes = new Uint8Array(ike);
  let message: Message;
  try {
    message = parseMessage(bytes);
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    core.drop('droppedMalformed', from.remote, error.message);
    answerMalformed(core, bytes, error, from);
    return;
  }
  const { exchangeType, response } = message.header;
  if (exchangeType === ExchangeType.IKE_SA_INIT) {
    if (response) receiveInitAnswer(core, message, from);
    else receiveInitRequest(core, message, from);
  } else if (message.encrypted) {
    receiveProtected(core, message, from);
  } else {
    core.drop('unauthenticatedNotify', from.remote);
  }
}

function receiveProtected(core: Core, message: Message, from: Path): void {
  const { header } = message;
  const spi = header.fromInitiator ? header.spiResponder : header.spiInitiator;
  const sa = core.bySpi.get(spi);
  if (!sa && core.bySpi.has(header.fromInitiator ? header.spiInitiator : header.spiResponder)) {
    core.drop('droppedReflected', from.remote);
    return;
  }
  if (!sa) {
    core.drop('droppedUnknownSpi', from.remote);
    if (!header.response) answerUnprotected(core, header, NotifyType.INVALID_IKE_SPI, undefined, from);
    return;
  }
  // Our own messages carry our own role; the peer's SPI must be the peer's.
  if (
    (sa.role === 'initiator') === header.fromInitiator ||
    sa.spiInitiator !== header.spiInitiator ||
    sa.spiResponder !== header.spiResponder
  ) {
    core.drop('droppedReflected', from.remote);
    return;
  }
  if (!(header.response ? awaits(sa, header.exchangeType) : takes(sa, header))) {
    core.drop('droppedOutOfState', from.remote, `${sa.state}, exchange ${header.exchangeType}`);
    return;
  }
  if (sa.state === 'init-answered' && !admitAuth(core, sa, from)) return;
  const received = open(core, sa, message, from);
  if (!received) return;
  followNat(sa, from);
  if (received.response) receiveAnswer(core, sa, received);
  else receiveRequest(core, sa, received);
  sendQueued(core, sa);
}

/**
 * What is authentic and new tells where the NAT before the peer has it now, unless we are behind one too (RFC 7296 §2.23).
 * The port only: the Child SAs of another address would be those of another host.
 */
function followNat(sa: IkeSa, { remote }: Path): void {
  const same = Buffer.compare(sa.remote.address.bytes, remote.address.bytes) === 0;
  if (sa.nat.peer && !sa.nat.us && same) sa.remote = remote;
}

/** Whether a new request of this exchange may come now; one that was taken already may always be repeated. */
function takes(sa: IkeSa, header: Header): boolean {
  if (header.messageId < sa.window.nextIn) return true;
  if (sa.state === 'init-answered') return header.exchangeType === ExchangeType.IKE_AUTH;
  const { CREATE_CHILD_SA, INFORMATIONAL } = ExchangeType;
  const exchange = header.exchangeType === CREATE_CHILD_SA || header.exchangeType === INFORMATIONAL;
  return exchange && permits(sa, 'request');
}

const exchangeOf: { [purpose in Purpose]: number } = {
  init: ExchangeType.IKE_SA_INIT,
  auth: ExchangeType.IKE_AUTH,
  delete: ExchangeType.INFORMATIONAL,
  probe: ExchangeType.INFORMATIONAL,
};

function awaits(sa: IkeSa, exchangeType: number): boolean {
  const purpose = sa.window.outstanding?.purpose;
  return purpose !== undefined && purpose !== 'init' && exchangeOf[purpose] === exchangeType;
}

/** Before the first decryption for a half-open SA: the address it began with, and room for a lookup. */
function admitAuth(core: Core, sa: IkeSa, from: Path): boolean {
  if (Buffer.compare(sa.remote.address.bytes, from.remote.address.bytes) !== 0) {
    core.drop('droppedAddress', from.remote);
    return false;
  }
  if (core.lookups.size >= core.config.limits.pendingLookups) {
    core.drop('droppedLookupLimit', from.remote);
    return false;
  }
  return deriveKeys(core, sa);
}

function receiveRequest(core: Core, sa: IkeSa, received: Received): void {
  if (received.exchangeType === ExchangeType.IKE_AUTH) receiveAuthRequest(core, sa, received);
  else if (received.exchangeType === ExchangeType.CREATE_CHILD_SA) receiveCreateChild(core, sa, received);
  else receiveInformational(core, sa, received);
}

function receiveAnswer(core: Core, sa: IkeSa, received: Received): void {
  const purpose = sa.window.outstanding!.purpose;
  if (purpose === 'auth') {
    receiveAuthAnswer(core, sa, received);
    return;
  }
  requestAnswered(core, sa);
  if (purpose === 'delete') {
    advance(sa, 'deleteAnswer');
    core.free(sa, 'deleted');
  }
}

function answerMalformed(core: Core, bytes: Uint8Array, error: WireError, from: Path): void {
  if (error.notify === NotifyType.INVALID_MAJOR_VERSION) {
    const header = headerOfLaterVersion(bytes);
    if (header) answerUnprotected(core, header, error.notify, error.data, from);
  } else if (error.notify === NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD && core.config.acceptStrangers) {
    // RFC 7296 §2.5: a request, and outside of an SA only IKE_SA_INIT, that we do not understand enough of.
    const header = parseHeader(bytes);
    const asks = header.exchangeType === ExchangeType.IKE_SA_INIT && !header.response;
    if (asks) answerUnprotected(core, header, error.notify, error.data, from);
  }
}

/** An error notify outside of any SA (RFC 7296 §1.5): a few per second, whoever asks. */
function answerUnprotected(
  core: Core,
  to: Header,
  type: number,
  data: Uint8Array | undefined,
  from: Path,
): void {
  if (!core.errorReplies.allow(core.now)) {
    core.count('errorRepliesSuppressed');
    return;
  }
  core.count('errorRepliesSent');
  const header = { ...to, fromInitiator: !to.fromInitiator, response: true };
  core.send(composeMessage(header, [notify(type, data)]), from.local, from.remote);
}
