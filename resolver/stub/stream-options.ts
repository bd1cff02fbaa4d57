/** EDNS options that belong to the connection and not to the answer: padding and edns-tcp-keepalive. Bytes only. */
import { EDNS_OPTION } from '../dns/edns.ts';
import { TYPE } from '../dns/types.ts';
import { IDLE_MILLIS } from './connections.ts';

/** Responses over an encrypted stream come in multiples of so many octets (RFC 8467 section 4.1). */
const BLOCK_OCTETS = 468;
const MAX_OCTETS = 65_535;
const HEADER_OCTETS = 12;
const OPT_OCTETS = 11;

/** What the client's OPT asks for. */
export type Wishes = { padding: boolean; keepalive: boolean };

const NOTHING: Wishes = { padding: false, keepalive: false };

/** Reads the options of a query with one question and an OPT right after it; anything else wishes nothing. */
export function wishesOf(query: Uint8Array): Wishes {
  if (query.length < HEADER_OCTETS + 5 + OPT_OCTETS || query[5] !== 1 || query[11] !== 1) return NOTHING;
  let at = HEADER_OCTETS;
  while (at < query.length && query[at] !== 0) at += query[at]! + 1;
  at += 5; // the root, type and class
  if (query[at] !== 0 || query[at + 1] !== 0 || query[at + 2] !== TYPE.OPT) return NOTHING;
  const wishes = { padding: false, keepalive: false };
  at += OPT_OCTETS;
  while (at + 4 <= query.length) {
    const code = (query[at]! << 8) | query[at + 1]!;
    if (code === EDNS_OPTION.PADDING) wishes.padding = true;
    if (code === EDNS_OPTION.KEEPALIVE) wishes.keepalive = true;
    at += 4 + ((query[at + 2]! << 8) | query[at + 3]!);
  }
  return wishes;
}

/**
 * A response of ours with the options that were wished for; as it is when it has no OPT.
 *
 * `padding`: up to the next multiple of 468 octets (RFC 7830, RFC 8467). `keepalive`: how long an idle connection is
 * kept, in units of 100 ms (RFC 7828 section 3.1).
 */
export function withOptions(response: Uint8Array, { padding, keepalive }: Wishes): Uint8Array {
  const opt = padding || keepalive ? findOpt(response) : -1;
  if (opt < 0) return response;
  const keepaliveOctets = keepalive ? 6 : 0;
  const least = response.length + keepaliveOctets + (padding ? 4 : 0);
  if (least > MAX_OCTETS) return response;
  const size = padding ? Math.min(Math.ceil(least / BLOCK_OCTETS) * BLOCK_OCTETS, MAX_OCTETS) : least;
  const dressed = new Uint8Array(size);
  dressed.set(response);
  let at = response.length;
  if (keepalive) {
    const units = IDLE_MILLIS / 100;
    dressed.set([0, EDNS_OPTION.KEEPALIVE, 0, 2, units >> 8, units & 0xff], at);
    at += keepaliveOctets;
  }
  if (padding) {
    const zeros = size - at - 4;
    dressed.set([0, EDNS_OPTION.PADDING, zeros >> 8, zeros & 0xff], at);
  }
  const length = size - opt - OPT_OCTETS;
  dressed[opt + 9] = length >> 8;
  dressed[opt + 10] = length & 0xff;
  return dressed;
}

/** Where OPT, the last record of a response of ours, begins; -1 when there is none. */
function findOpt(response: Uint8Array): number {
  if (response[5] !== 1 || response[11] !== 1) return -1;
  let at = HEADER_OCTETS;
  while (response[at] !== 0) at += response[at]! + 1;
  at += 5;
  for (let left = countOf(response, 6) + countOf(response, 8); left > 0; left--) at = recordEnd(response, at);
  return at;
}

/** The least TTL of a response of ours, OPT aside; 0 when it has no records (RFC 8484 section 5.1). */
export function leastTtl(response: Uint8Array): number {
  let least = Number.POSITIVE_INFINITY;
  if (response[5] !== 1) return 0;
  let at = HEADER_OCTETS;
  while (response[at] !== 0) at += response[at]! + 1;
  at += 5;
  for (let left = countOf(response, 6) + countOf(response, 8); left > 0; left--) {
    const end = recordEnd(response, at);
    const ttlAt = nameEnd(response, at) + 4;
    const ttl =
      ((response[ttlAt]! << 24) |
        (response[ttlAt + 1]! << 16) |
        (response[ttlAt + 2]! << 8) |
        response[ttlAt + 3]!) >>>
      0;
    least = Math.min(least, ttl);
    at = end;
  }
  return Number.isFinite(least) ? least : 0;
}

function countOf(response: Uint8Array, at: number): number {
  return (response[at]! << 8) | response[at + 1]!;
}

function nameEnd(response: Uint8Array, start: number): number {
  let at = start;
  while (response[at] !== 0 && response[at]! < 0xc0) at += response[at]! + 1;
  return at + (response[at] === 0 ? 1 : 2);
}

function recordEnd(response: Uint8Array, start: number): number {
  const at = nameEnd(response, start);
  return at + 10 + ((response[at + 8]! << 8) | response[at + 9]!);
}
