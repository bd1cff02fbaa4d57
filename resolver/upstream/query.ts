/** The question as it goes upstream, and which messages count as its answer. Bytes only; nothing is parsed here. */
import type { Name } from '../dns/name.ts';
import { RCODE } from '../dns/types.ts';

/** What we say we can take over UDP: fits every path without fragments (DNS flag day 2020). */
export const UDP_PAYLOAD_OCTETS = 1232;

const HEADER_OCTETS = 12;
const OPT_OCTETS = 11;

/**
 * Composes a query: RD=1, CD=1, class IN, EDNS version 0 with DO=1 and 1232 octets (RFC 6891, RFC 4035 section 3.2).
 *
 * CD because we validate ourselves, and a validating upstream must not keep from us what it calls bogus.
 */
export function composeQuery(name: Name, type: number, id: number): Uint8Array {
  const query = new Uint8Array(HEADER_OCTETS + name.wire.length + 4 + OPT_OCTETS);
  query[2] = 0x01; // RD
  query[3] = 0x10; // CD
  query[5] = 1; // QDCOUNT
  query[11] = 1; // ARCOUNT
  query.set(name.wire, HEADER_OCTETS);
  let at = HEADER_OCTETS + name.wire.length;
  query[at++] = type >> 8;
  query[at++] = type & 0xff;
  at++;
  query[at++] = 1; // IN
  at += 2;
  query[at] = 41; // OPT, owned by the root
  query[at + 1] = UDP_PAYLOAD_OCTETS >> 8;
  query[at + 2] = UDP_PAYLOAD_OCTETS & 0xff;
  query[at + 5] = 0x80; // DO
  return withId(query, id);
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
 * - `foreign`: anything else. Somebody's guess, or a late answer to another question.
 */
export type Judgement = 'answer' | 'truncated' | 'rejection' | 'foreign';

/** Judges a message by ID, QR, opcode and question (RFC 5452 section 9); the caller has checked where it came from. */
export function judge(message: Uint8Array, query: Uint8Array): Judgement {
  if (message.length < HEADER_OCTETS || message[0] !== query[0] || message[1] !== query[1]) return 'foreign';
  const flags = message[2]!;
  if ((flags & 0xf8) !== 0x80) return 'foreign'; // QR=1, opcode QUERY
  const questions = (message[4]! << 8) | message[5]!;
  if (questions === 0)
    return message.length === HEADER_OCTETS && isFailure(message[3]! & 0x0f) ? 'rejection' : 'foreign';
  if (questions !== 1 || !sameQuestion(message, query)) return 'foreign';
  return (flags & 0x02) === 0 ? 'answer' : 'truncated';
}

function isFailure(rcode: number): boolean {
  return (
    rcode === RCODE.FORMERR || rcode === RCODE.SERVFAIL || rcode === RCODE.NOTIMP || rcode === RCODE.REFUSED
  );
}

/** ASCII case aside (RFC 4343), the question must come back octet for octet, not compressed. */
function sameQuestion(message: Uint8Array, query: Uint8Array): boolean {
  const end = query.length - OPT_OCTETS;
  if (message.length < end) return false;
  const nameEnd = end - 4;
  for (let at = HEADER_OCTETS; at < end; at++) {
    const ours = query[at]!;
    const theirs = message[at]!;
    if (ours === theirs) continue;
    // Length octets are at most 63, below every letter: folding cannot confuse them.
    if (at >= nameEnd || (ours ^ theirs) !== 0x20 || (ours | 0x20) < 0x61 || (ours | 0x20) > 0x7a)
      return false;
  }
  return true;
}
