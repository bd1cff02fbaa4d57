import { createHash } from 'node:crypto';
import { type Opener, openMessage, sealFragments, sealMessage } from '../crypto/seal.ts';
import { addFragment } from '../fragments.ts';
import type { Endpoint } from '../types.ts';
import { equalBytes } from '../wire/bytes.ts';
import { WireError } from '../wire/error.ts';
import type { Header } from '../wire/header.ts';
import { type Message, type Payload, parsePayloads } from '../wire/payloads.ts';
import { sameAddress } from './addresses.ts';
import type { Core } from './core.ts';
import type { IkeSa, Purpose } from './sa.ts';

/**
 * Requests and answers inside an IKE SA: message IDs, windows of one, retransmission, fragments, sealing
 * (RFC 7296 §2.1 to §2.3, RFC 7383). Knows no payload by name.
 */

// --- sending

/** Send a request, or queue it behind the one that is out. */
export function request(
  core: Core,
  sa: IkeSa,
  exchangeType: number,
  payloads: Payload[],
  purpose: Purpose,
): void {
  if (sa.window.outstanding) {
    if (sa.window.queue.length < core.config.limits.queuedRequests) {
      sa.window.queue.push({ exchangeType, payloads, purpose });
    }
    return;
  }
  const messages = seal(core, sa, exchangeType, false, sa.window.nextOut, payloads);
  sendRequest(core, sa, messages, purpose);
}

/** Send request messages that are complete already, and keep them until their answer is here. */
export function sendRequest(core: Core, sa: IkeSa, messages: Uint8Array[], purpose: Purpose): void {
  const waitMillis = core.config.retransmit.firstMillis;
  sa.window.outstanding = { messageId: sa.window.nextOut, purpose, messages, tries: 1, waitMillis };
  for (const message of messages) core.send(message, sa.local, sa.remote);
  core.deadlines.set(sa, 'retransmission', core.now + waitMillis);
}

/** The answer to our request was accepted: its message ID is used up, the next one may go. */
export function requestAnswered(core: Core, sa: IkeSa): void {
  delete sa.window.outstanding;
  delete sa.window.responseParts;
  sa.window.nextOut++;
  core.deadlines.clear(sa, 'retransmission');
}

export function sendQueued(core: Core, sa: IkeSa): void {
  if (sa.window.outstanding || !sa.secure) return;
  const next = sa.window.queue.shift();
  if (next) request(core, sa, next.exchangeType, next.payloads, next.purpose);
}

/** Send the same bytes again. False when that was tried often enough. */
export function retransmit(core: Core, sa: IkeSa): boolean {
  const { outstanding } = sa.window;
  if (!outstanding) return true;
  if (outstanding.tries >= core.config.retransmit.tries) return false;
  outstanding.tries++;
  outstanding.waitMillis *= core.config.retransmit.factor;
  core.count('retransmitted');
  for (const message of outstanding.messages) core.send(message, sa.local, sa.remote);
  core.deadlines.set(sa, 'retransmission', core.now + outstanding.waitMillis);
  return true;
}

/** Answer the request that was taken last; it goes to where that request came from. */
export function answer(core: Core, sa: IkeSa, exchangeType: number, payloads: Payload[]): void {
  const { answered } = sa.window;
  if (!answered) throw new Error('no request to answer');
  answered.messages = seal(core, sa, exchangeType, true, sa.window.nextIn - 1, payloads);
  for (const message of answered.messages) core.send(message, answered.local, answered.remote);
}

function seal(
  core: Core,
  sa: IkeSa,
  exchangeType: number,
  response: boolean,
  messageId: number,
  payloads: Payload[],
): Uint8Array[] {
  if (!sa.secure) throw new Error('no keys to seal with');
  const header: Header = {
    spiInitiator: sa.spiInitiator,
    spiResponder: sa.spiResponder,
    exchangeType,
    fromInitiator: sa.role === 'initiator',
    response,
    messageId,
  };
  if (!sa.peerTakesFragments) return [sealMessage(header, payloads, sa.secure.sealer)];
  return sealFragments(header, payloads, sa.secure.sealer, core.config.limits.fragmentBytes);
}

// --- receiving

/** A protected message that is authentic, complete and in order. `broken`: authentic, but its payloads do not parse. */
export type Received = { response: boolean; exchangeType: number; messageId: number; from: Path } & (
  | { payloads: Payload[]; broken?: undefined }
  | { broken: WireError; payloads?: undefined }
);

export type Path = { local: Endpoint; remote: Endpoint };

/**
 * Open a protected message of this SA; undefined when there is nothing to act on (dropped, a repetition, a fragment of
 * a message that is not complete).
 *
 * A request takes its message ID here; whoever gets it must answer() it, now or later. A response does not: its handler
 * calls requestAnswered().
 */
export function open(core: Core, sa: IkeSa, message: Message, from: Path): Received | undefined {
  const { response, messageId } = message.header;
  const { window } = sa;
  const fragment = message.encrypted?.fragment;
  if (!response && messageId === window.nextIn - 1) {
    repeatAnswer(core, sa, message, from);
    return undefined;
  }
  const awaited = response
    ? window.outstanding?.purpose !== 'init' && window.outstanding?.messageId
    : window.nextIn;
  if (!response && window.answered && !window.answered.messages) {
    core.drop('stillWorking', from.remote, 'a second request before our answer to the first');
    return undefined;
  }
  if (messageId !== awaited || !sa.secure) {
    core.drop('droppedMessageId', from.remote);
    return undefined;
  }
  if (fragment && !sa.peerTakesFragments) {
    core.drop('droppedMalformed', from.remote, 'fragments without negotiation');
    return undefined;
  }
  const opened = decrypt(message, sa.secure.opener);
  if (!opened) {
    core.drop('droppedNotAuthentic', from.remote);
    return undefined;
  }
  const whole = fragment ? assemble(core, sa, message, { ...fragment, ...opened }, from) : opened;
  if (!whole) return undefined;
  const { exchangeType } = message.header;
  if (!response) {
    window.nextIn++;
    window.answered = { requestHash: window.firstPartHash ?? hash(message.bytes), ...from };
    delete window.requestParts;
    delete window.firstPartHash;
  }
  const about = { response, exchangeType, messageId, from };
  try {
    return { ...about, payloads: parsePayloads(whole.firstPayload, whole.plaintext) };
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    return { ...about, broken: error };
  }
}

/** Wrong padding inside an authentic message counts as not authentic: nothing of ours or of the RFC's makes it. */
function decrypt(message: Message, opener: Opener) {
  try {
    return openMessage(message, opener);
  } catch (error) {
    if (error instanceof WireError) return undefined;
    throw error;
  }
}

/**
 * A request that we took already. The same bytes get the same answer: at the peer's address to where this copy came from
 * (RFC 7296 §2.11), for whoever brought us a copy first from elsewhere must not keep the answer from the peer; otherwise to
 * where the answer went before: a copy replayed from elsewhere earns its sender nothing. Of a fragmented request only the
 * first fragment counts (RFC 7383 §2.6.1).
 */
function repeatAnswer(core: Core, sa: IkeSa, message: Message, from: Path): void {
  const { answered } = sa.window;
  if ((message.encrypted?.fragment?.number ?? 1) !== 1) return;
  if (!answered || !equalBytes(answered.requestHash, hash(message.bytes))) {
    core.drop('droppedMessageId', from.remote, 'another request under a used message ID');
    return;
  }
  if (!answered.messages) {
    core.count('stillWorking');
    return;
  }
  core.count('answerRepeated');
  const to = sameAddress(from.remote.address, sa.remote.address) ? from : answered;
  for (const bytes of answered.messages) core.send(bytes, to.local, to.remote);
}

/** Anyone can send fragments to a half-open SA; no message of two raw-key peers comes near this. */
const reassemblyLimits = { fragments: 32, bytes: 16_384 };

type Fragment = { number: number; total: number; firstPayload: number; plaintext: Uint8Array };

function assemble(core: Core, sa: IkeSa, message: Message, fragment: Fragment, from: Path) {
  const { response, messageId } = message.header;
  const slot = response ? 'responseParts' : 'requestParts';
  core.count('fragmentsReceived');
  if (!response && fragment.number === 1) sa.window.firstPartHash = hash(message.bytes);
  const result = addFragment(sa.window[slot], { messageId, ...fragment }, reassemblyLimits);
  if (result.state) sa.window[slot] = result.state;
  else delete sa.window[slot];
  if (result.outcome === 'refused') core.drop('droppedMalformed', from.remote, 'fragment refused');
  return result.outcome === 'complete' ? result : undefined;
}

function hash(bytes: Uint8Array): Uint8Array {
  return createHash('sha256').update(bytes).digest();
}
