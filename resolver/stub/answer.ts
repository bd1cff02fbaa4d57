/** Answers as bytes: what the client may have of a StubAnswer, in the room that its transport leaves. */
import { composeEde, composeOptions, type ExtendedError } from '../dns/edns.ts';
import type { Name } from '../dns/name.ts';
import type { Rrset } from '../dns/rrset.ts';
import { RCODE, TYPE } from '../dns/types.ts';
import type { StubQuery } from './query.ts';
import type { StubAnswer } from './types.ts';

/** Our own limit over UDP: no fragments on any path (DNS flag day 2020). */
const UDP_OCTETS = 1232;
const UDP_OCTETS_WITHOUT_EDNS = 512;
const TCP_OCTETS = 65535;
const HEADER_OCTETS = 12;
const OPT_OCTETS = 11;
const QUESTION_POINTER = 0xc000 | HEADER_OCTETS;
const MAX_TTL = 0x7fffffff;

/**
 * Composes the response to `query`.
 *
 * ID, RD, CD and the question, with the case of its letters, are the client's; RA=1, AA=0. AD only for authenticated
 * answers to clients that set AD or DO (RFC 6840 section 5.8). Without DO no signatures and no denial proofs. OPT and
 * EDE only for clients with EDNS. What does not fit even TCP is SERVFAIL.
 *
 * Over UDP, TC is set when not everything fits. Addresses go out then as far as they fit, without AD: clients that
 * never ask over TCP (musl before 1.2.4) can do with any of them, all others throw them away (RFC 2181 section 9). Of
 * everything else, half an RRset or half a proof is of no use to anyone.
 */
export function composeResponse(query: StubQuery, answer: StubAnswer, transport: 'udp' | 'tcp'): Uint8Array {
  const limit = transport === 'tcp' ? TCP_OCTETS : udpLimit(query.edns?.udpSize ?? -1);
  const whole = composeWhole(query, answer, limit);
  if (whole !== undefined) return whole;
  if (transport === 'tcp') return composeError(query, RCODE.SERVFAIL, [TOO_LARGE]);
  const options = optionsFor(query, answer, limit);
  const room = query.edns === undefined ? limit : limit - OPT_OCTETS - options.length;
  return finish(query, answer.rcode, writeAddresses(query, answer, room), options, 0, 0x02);
}

/** Whether part of the answer to such a question is of use; with DO it would be part of a signed RRset. */
export function isUsefulInPart(type: number, dnssecOk: boolean): boolean {
  return !dnssecOk && (type === TYPE.A || type === TYPE.AAAA);
}

/** The question, and of an answer with addresses the records that fit; the offset after them. */
function writeAddresses(query: StubQuery, { answer, ttlCapSeconds }: StubAnswer, limit: number): number {
  startRecords(query);
  let at = query.questionEnd;
  if (!isUsefulInPart(query.type, query.edns?.dnssecOk === true)) return at;
  let count = 0;
  for (const { name, type, class: rrClass, ttlSeconds, rdatas } of answer) {
    if (isProof(type)) continue;
    const ttl = Math.min(ttlSeconds, ttlCapSeconds ?? MAX_TTL);
    for (const rdata of rdatas) {
      const end = writeRecord(query, name, type, rrClass, ttl, rdata, at, limit);
      if (end < 0) return at;
      at = end;
      write16(++count, 6);
    }
  }
  return at;
}

/** The same where all of it fits into `limit` octets, otherwise undefined. */
export function composeWhole(query: StubQuery, answer: StubAnswer, limit: number): Uint8Array | undefined {
  const options = optionsFor(query, answer, limit);
  const end = writeRecords(
    query,
    answer,
    query.edns === undefined ? limit : limit - OPT_OCTETS - options.length,
  );
  return end < 0 ? undefined : finish(query, answer.rcode, end, options, answer.authenticated ? 0x20 : 0, 0);
}

/** Extended errors as options; none where they leave no room for the question. */
function optionsFor(query: StubQuery, answer: StubAnswer, limit: number): Uint8Array {
  if (answer.ede === undefined || query.edns === undefined) return NO_OPTIONS;
  const options = composeEdes(answer.ede);
  return query.questionEnd + OPT_OCTETS + options.length > limit ? NO_OPTIONS : options;
}

/** Composes a response without records. */
export function composeError(
  query: StubQuery,
  rcode: number,
  ede: readonly ExtendedError[] = [],
): Uint8Array {
  startRecords(query);
  const options = ede.length === 0 || query.edns === undefined ? NO_OPTIONS : composeEdes(ede);
  return finish(query, rcode, query.questionEnd, options, 0, 0);
}

/** Composes the bare header that answers a message whose question could not be read. */
export function composeHeaderError(bytes: Uint8Array, rcode: number): Uint8Array {
  const response = new Uint8Array(HEADER_OCTETS);
  response[0] = bytes[0]!;
  response[1] = bytes[1]!;
  response[2] = 0x80 | (bytes[2]! & 0x79); // opcode and RD are the client's
  response[3] = 0x80 | (rcode & 0x0f);
  return response;
}

/** How much a client can take over UDP that says so in OPT; -1 for one without OPT. */
export function udpLimit(udpSize: number): number {
  return Math.min(Math.max(udpSize, UDP_OCTETS_WITHOUT_EDNS), UDP_OCTETS);
}

/**
 * Every response is put together here and copied out once. Composing never awaits, so one is enough. What turns out not to
 * fit has been written already: there is room for one more record, of any size.
 */
const scratch = new Uint8Array(2 * TCP_OCTETS + 512);
const NO_OPTIONS = new Uint8Array(0);
const TOO_LARGE: ExtendedError = { code: 0, text: 'the answer is larger than a DNS message can be' };

/** Owner names written out since the question, and where. */
const writtenNames: Name[] = [];
const writtenAt: number[] = [];

/** Question and records; the offset after them, or -1 when they do not fit into `limit`. */
function writeRecords(query: StubQuery, answer: StubAnswer, limit: number): number {
  startRecords(query);
  const dnssecOk = query.edns?.dnssecOk === true;
  const cap = answer.ttlCapSeconds ?? MAX_TTL;
  let at = writeSection(query, answer.answer, query.questionEnd, limit, dnssecOk, cap, 6);
  if (at >= 0) at = writeSection(query, answer.authority, at, limit, dnssecOk, cap, 8);
  return at;
}

/** The question alone, with no name written yet that others could point to. */
function startRecords(query: StubQuery): void {
  scratch.set(query.bytes.subarray(0, query.questionEnd));
  writtenNames.length = 0;
  writtenAt.length = 0;
  scratch.fill(0, 6, 10); // ANCOUNT and NSCOUNT; QDCOUNT is the client's 1
}

function writeSection(
  query: StubQuery,
  rrsets: readonly Rrset[],
  start: number,
  limit: number,
  dnssecOk: boolean,
  cap: number,
  countAt: number,
): number {
  let at = start;
  let count = 0;
  for (const rrset of rrsets) {
    if (!dnssecOk && isProof(rrset.type) && rrset.type !== query.type && query.type !== TYPE.ANY) continue;
    const ttlSeconds = Math.min(rrset.ttlSeconds, cap);
    for (const rdata of rrset.rdatas) {
      at = writeRecord(query, rrset.name, rrset.type, rrset.class, ttlSeconds, rdata, at, limit);
      if (at < 0) return -1;
      count++;
    }
    if (!dnssecOk) continue;
    for (const rdata of rrset.signatures) {
      at = writeRecord(query, rrset.name, TYPE.RRSIG, rrset.class, ttlSeconds, rdata, at, limit);
      if (at < 0) return -1;
      count++;
    }
  }
  scratch[countAt] = count >> 8;
  scratch[countAt + 1] = count & 0xff;
  return at;
}

/** Sent unasked only to those who set DO (RFC 4035 section 3.2.1). */
function isProof(type: number): boolean {
  return type === TYPE.RRSIG || type === TYPE.NSEC || type === TYPE.NSEC3;
}

function writeRecord(
  query: StubQuery,
  name: Name,
  type: number,
  rrClass: number,
  ttlSeconds: number,
  rdata: Uint8Array,
  start: number,
  limit: number,
): number {
  const pointer = pointerTo(query, name);
  let at = pointer >= 0 ? write16(pointer, start) : writeName(query, name, start);
  at = write16(type, at);
  at = write16(rrClass, at);
  at = write16(ttlSeconds >>> 16, at);
  at = write16(ttlSeconds, at);
  at = write16(rdata.length, at);
  if (at + rdata.length > limit) return -1;
  scratch.set(rdata, at);
  return at + rdata.length;
}

/** A pointer to `name` where the whole of it stands already; -1 when it does not. */
function pointerTo(query: StubQuery, name: Name): number {
  // The question's own spelling comes back in the owner names as well.
  if (name === query.name || name.equals(query.name)) return QUESTION_POINTER;
  for (let i = 0; i < writtenNames.length; i++) {
    if (name.equals(writtenNames[i]!)) return 0xc000 | writtenAt[i]!;
  }
  return -1;
}

/** Writes a name, the part it shares with the question as a pointer into it. */
function writeName(query: StubQuery, name: Name, start: number): number {
  if (start <= 0x3fff && writtenNames.length < 32) {
    writtenNames.push(name);
    writtenAt.push(start);
  }
  const shared = name.commonLabels(query.name);
  if (shared === 0) {
    scratch.set(name.wire, start);
    return start + name.wire.length;
  }
  const tail = name.suffix(shared).wire.length;
  const head = name.wire.length - tail;
  scratch.set(name.wire.subarray(0, head), start);
  return write16(0xc000 | (HEADER_OCTETS + query.name.wire.length - tail), start + head);
}

/** Header and OPT round what has been written up to `end`; a copy of exact size. */
function finish(
  query: StubQuery,
  rcode: number,
  end: number,
  options: Uint8Array,
  ad: 0 | 0x20,
  tc: 0 | 0x02,
): Uint8Array {
  const { edns } = query;
  // An extended RCODE cannot be said without OPT.
  const said = edns === undefined && rcode > 15 ? RCODE.SERVFAIL : rcode;
  scratch[2] = 0x80 | tc | (query.bytes[2]! & 0x01);
  const mayHaveAd = query.authenticData || edns?.dnssecOk === true;
  scratch[3] = 0x80 | (mayHaveAd ? ad : 0) | (query.checkingDisabled ? 0x10 : 0) | (said & 0x0f);
  scratch[10] = 0;
  scratch[11] = edns === undefined ? 0 : 1;
  if (edns === undefined) return scratch.slice(0, end);
  let at = end;
  scratch[at++] = 0;
  at = write16(TYPE.OPT, at);
  at = write16(UDP_OCTETS, at);
  scratch[at++] = said >> 4;
  scratch[at++] = 0; // version
  at = write16(edns.dnssecOk ? 0x8000 : 0, at);
  at = write16(options.length, at);
  scratch.set(options, at);
  return scratch.slice(0, at + options.length);
}

function composeEdes(ede: readonly ExtendedError[]): Uint8Array {
  return composeOptions(ede.map(composeEde));
}

function write16(value: number, at: number): number {
  scratch[at] = (value >> 8) & 0xff;
  scratch[at + 1] = value & 0xff;
  return at + 2;
}
