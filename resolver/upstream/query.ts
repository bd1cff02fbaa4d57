/** The question as it goes upstream, and which messages count as its answer. Bytes only; nothing is parsed here. */
import { EDNS_OPTION } from '../dns/edns.ts';
import type { Name } from '../dns/name.ts';
import { RCODE, TYPE } from '../dns/types.ts';

/** What we say we can take over UDP: fits every path without fragments (DNS flag day 2020). */
const UDP_PAYLOAD_OCTETS = 1232;

const HEADER_OCTETS = 12;
const OPT_OCTETS = 11;
const OPTION_HEADER_OCTETS = 4;
/** RFC 8467 section 4.1: queries are padded to a multiple of this. */
const PADDING_BLOCK_OCTETS = 128;

export type QueryForm = {
  id: number;
  /** Data of a COOKIE option (RFC 7873). */
  cookie?: Uint8Array | undefined;
  /** With an empty edns-tcp-keepalive option (RFC 7828 section 3.2.1); for streams alone. */
  keepalive?: boolean;
  /** Padded to a multiple of 128 octets (RFC 7830, RFC 8467); for encrypted transports. */
  padded?: boolean;
};

/**
 * Composes a query: RD=1, CD=1, class IN, EDNS version 0 with DO=1 and 1232 octets (RFC 6891, RFC 4035 section 3.2).
 *
 * CD because we validate ourselves, and a validating upstream must not keep from us what it calls bogus.
 */
export function composeQuery(name: Name, type: number, form: QueryForm): Uint8Array {
  const { cookie, keepalive = false, padded = false } = form;
  const optAt = questionEnd(name);
  let length = optAt + OPT_OCTETS;
  if (cookie !== undefined) length += OPTION_HEADER_OCTETS + cookie.length;
  if (keepalive) length += OPTION_HEADER_OCTETS;
  const paddingAt = length;
  if (padded)
    length = Math.ceil((length + OPTION_HEADER_OCTETS) / PADDING_BLOCK_OCTETS) * PADDING_BLOCK_OCTETS;
  const query = new Uint8Array(length);
  query[2] = 0x01; // RD
  query[3] = 0x10; // CD
  query[5] = 1; // QDCOUNT
  query[11] = 1; // ARCOUNT
  query.set(name.wire, HEADER_OCTETS);
  query[optAt - 4] = type >> 8;
  query[optAt - 3] = type & 0xff;
  query[optAt - 1] = 1; // IN
  query[optAt + 2] = TYPE.OPT; // owned by the root
  query[optAt + 3] = UDP_PAYLOAD_OCTETS >> 8;
  query[optAt + 4] = UDP_PAYLOAD_OCTETS & 0xff;
  query[optAt + 7] = 0x80; // DO
  putUint16(query, optAt + 9, length - optAt - OPT_OCTETS);
  let at = optAt + OPT_OCTETS;
  if (cookie !== undefined) {
    putOptionHeader(query, at, EDNS_OPTION.COOKIE, cookie.length);
    query.set(cookie, at + OPTION_HEADER_OCTETS);
    at += OPTION_HEADER_OCTETS + cookie.length;
  }
  if (keepalive) putOptionHeader(query, at, EDNS_OPTION.KEEPALIVE, 0);
  if (padded) {
    putOptionHeader(query, paddingAt, EDNS_OPTION.PADDING, length - paddingAt - OPTION_HEADER_OCTETS);
  }
  return withId(query, form.id);
}

function putOptionHeader(query: Uint8Array, at: number, code: number, length: number): void {
  putUint16(query, at, code);
  putUint16(query, at + 2, length);
}

function putUint16(octets: Uint8Array, at: number, value: number): void {
  octets[at] = value >> 8;
  octets[at + 1] = value & 0xff;
}

/** Where the question section of a query for `name` ends, octets from its beginning. */
export function questionEnd(name: Name): number {
  return HEADER_OCTETS + name.wire.length + 4;
}

/**
 * Gives each letter of the question a case by the toss of a coin, in place (draft-vixie-dnsext-dns0x20): the answer has
 * to repeat it, which costs a forger another bit for each letter. `bits` returns 32 random bits.
 */
export function mixCase(query: Uint8Array, name: Name, bits: () => number): void {
  const { wire } = name;
  let left = 0;
  let pool = 0;
  // Length octets are at most 63 and so below every letter.
  for (let i = 0; i < wire.length; i++) {
    const letter = wire[i]! | 0x20;
    if (wire[i]! < 0x41 || letter < 0x61 || letter > 0x7a) continue;
    if (left-- === 0) {
      pool = bits();
      left = 31;
    }
    query[HEADER_OCTETS + i] = letter ^ ((pool & 1) << 5);
    pool >>>= 1;
  }
}

/** Puts the name as it was asked for back into an answer, whose records mostly point to it. */
export function restoreCase(message: Uint8Array, name: Name): void {
  message.set(name.wire, HEADER_OCTETS);
}

/** Writes the message ID, in place. */
export function withId(query: Uint8Array, id: number): Uint8Array {
  query[0] = id >> 8;
  query[1] = id & 0xff;
  return query;
}

/** The message ID of a message of at least two octets. */
export function idOf(message: Uint8Array): number {
  return (message[0]! << 8) | message[1]!;
}

/**
 * - `answer`: it answers our question.
 * - `truncated`: it does, but not in full (TC); its records are not to be used.
 * - `rejection`: a bare header with FORMERR, SERVFAIL, NOTIMP or REFUSED; servers that could not read the question
 *   send it so. Good for asking someone else, never for an answer.
 * - `folded`: it would be an answer, but the letters of the question have another case than we gave them: a server that
 *   does not keep it, or somebody's guess.
 * - `foreign`: anything else. Somebody's guess, or a late answer to another question.
 */
export type Judgement = 'answer' | 'truncated' | 'rejection' | 'folded' | 'foreign';

/**
 * Judges a message by ID, QR, opcode and question (RFC 5452 section 9); the caller has checked where it came from.
 *
 * `end`: where the question section of `query` ends. The question must come back octet for octet, not compressed.
 */
export function judge(message: Uint8Array, query: Uint8Array, end: number): Judgement {
  if (message.length < HEADER_OCTETS || message[0] !== query[0] || message[1] !== query[1]) return 'foreign';
  const flags = message[2]!;
  if ((flags & 0xf8) !== 0x80) return 'foreign'; // QR=1, opcode QUERY
  const questions = (message[4]! << 8) | message[5]!;
  if (questions === 0)
    return message.length === HEADER_OCTETS && isFailure(message[3]! & 0x0f) ? 'rejection' : 'foreign';
  if (questions !== 1 || message.length < end) return 'foreign';
  let folded = false;
  for (let at = HEADER_OCTETS; at < end; at++) {
    if (query[at] === message[at]) continue;
    if (at >= end - 4 || !differInCase(query[at]!, message[at]!)) return 'foreign';
    folded = true;
  }
  if (folded) return 'folded';
  return (flags & 0x02) === 0 ? 'answer' : 'truncated';
}

function isFailure(rcode: number): boolean {
  return (
    rcode === RCODE.FORMERR || rcode === RCODE.SERVFAIL || rcode === RCODE.NOTIMP || rcode === RCODE.REFUSED
  );
}

/** Whether two octets are one letter in two cases. */
function differInCase(ours: number, theirs: number): boolean {
  return (ours ^ theirs) === 0x20 && (ours | 0x20) >= 0x61 && (ours | 0x20) <= 0x7a;
}
