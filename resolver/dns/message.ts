/** DNS messages: bytes to values (RFC 1035 §4.1, RFC 6891). Composing lives in compose.ts. */
import type { Edns } from './edns.ts';
import { parseOptions } from './edns.ts';
import { copyBytes, DnsFormatError, Name } from './name.ts';
import { readRdata } from './rdata-form.ts';
import { TYPE } from './types.ts';

export type Question = { name: Name; type: number; class: number };

/**
 * One resource record; `rdata` is without compression.
 *
 * `malformed`: the RDATA does not fit its type; it is kept as found and belongs in no RRset.
 */
export type ResourceRecord = {
  name: Name;
  type: number;
  class: number;
  ttlSeconds: number;
  rdata: Uint8Array;
  malformed?: true;
};

export type Header = {
  id: number;
  response: boolean;
  opcode: number;
  authoritative: boolean;
  truncated: boolean;
  recursionDesired: boolean;
  recursionAvailable: boolean;
  authenticData: boolean;
  checkingDisabled: boolean;
  /** With the extended bits of OPT when the message has one: 0 to 4095. */
  rcode: number;
};

/**
 * OPT is never among `additional`: it is read into `edns`.
 *
 * `unread`: so many records in answer and authority that none was read, in a message read with a bound.
 */
export type Message = Header & {
  questions: Question[];
  answer: ResourceRecord[];
  authority: ResourceRecord[];
  additional: ResourceRecord[];
  edns?: Edns;
  unread?: number;
};

/**
 * Records in answer and authority of what others answer us; a message with more costs no more than its question. Servers
 * keep no such RRsets: BIND has 100 records of a type by default.
 */
export const MAX_RECORDS = 512;

const HEADER_BYTES = 12;
/** Root name, type, class, TTL, RDLENGTH. */
const MIN_RECORD_BYTES = 11;
const MIN_QUESTION_BYTES = 5;

/** The header alone, so that a FORMERR can be sent to a message whose rest is bad; undefined under 12 bytes. */
export function parseHeader(bytes: Uint8Array): Header | undefined {
  if (bytes.length < HEADER_BYTES) return undefined;
  const high = bytes[2]!;
  const low = bytes[3]!;
  return {
    id: uint16(bytes, 0),
    response: (high & 0x80) !== 0,
    opcode: (high >> 3) & 0x0f,
    authoritative: (high & 0x04) !== 0,
    truncated: (high & 0x02) !== 0,
    recursionDesired: (high & 0x01) !== 0,
    recursionAvailable: (low & 0x80) !== 0,
    authenticData: (low & 0x20) !== 0,
    checkingDisabled: (low & 0x10) !== 0,
    rcode: low & 0x0f,
  };
}

/**
 * A whole message.
 *
 * Throws DnsFormatError and nothing else: structure that can not be followed, counts that the bytes can not hold,
 * bytes after the end, a second OPT, OPT outside the additional section. RDATA that does not fit its own type
 * harms only its record (`malformed`). Work is linear in the message: at most 255 bytes and 127 pointers a name,
 * and names reached by the same pointer are read once. With more than `maxRecords` in answer and authority only header
 * and question are read, and `unread` says so.
 */
export function parseMessage(bytes: Uint8Array, maxRecords: number = Number.POSITIVE_INFINITY): Message {
  const header = parseHeader(bytes);
  if (header === undefined) throw new DnsFormatError('message shorter than its header');
  const counts = [uint16(bytes, 4), uint16(bytes, 6), uint16(bytes, 8), uint16(bytes, 10)] as const;
  const least = counts[0] * MIN_QUESTION_BYTES + (counts[1] + counts[2] + counts[3]) * MIN_RECORD_BYTES;
  if (HEADER_BYTES + least > bytes.length) throw new DnsFormatError('counts exceed the message');

  const cursor: Cursor = { bytes, at: HEADER_BYTES, names: new Map() };
  const questions: Question[] = [];
  for (let i = 0; i < counts[0]; i++) questions.push(readQuestion(cursor));
  const count = counts[1] + counts[2];
  if (count > maxRecords)
    return { ...header, questions, answer: [], authority: [], additional: [], unread: count };
  const answer = readRecords(cursor, counts[1]);
  const authority = readRecords(cursor, counts[2]);
  const all = readRecords(cursor, counts[3]);
  if (cursor.at !== bytes.length) throw new DnsFormatError('bytes after the message');
  if (answer.some(isOpt) || authority.some(isOpt))
    throw new DnsFormatError('OPT outside the additional section');

  const message: Message = {
    ...header,
    questions,
    answer,
    authority,
    additional: all.filter(r => !isOpt(r)),
  };
  const opts = all.filter(isOpt);
  if (opts.length > 1) throw new DnsFormatError('more than one OPT');
  if (opts[0] !== undefined) readOpt(message, opts[0]);
  return message;
}

type Cursor = { bytes: Uint8Array; at: number; names: Map<number, Name> };

function readQuestion(cursor: Cursor): Question {
  const name = readOwner(cursor);
  if (cursor.at + 4 > cursor.bytes.length) throw new DnsFormatError('question cut short');
  const question = {
    name,
    type: uint16(cursor.bytes, cursor.at),
    class: uint16(cursor.bytes, cursor.at + 2),
  };
  cursor.at += 4;
  return question;
}

function readRecords(cursor: Cursor, count: number): ResourceRecord[] {
  const records: ResourceRecord[] = [];
  for (let i = 0; i < count; i++) records.push(readRecord(cursor));
  return records;
}

function readRecord(cursor: Cursor): ResourceRecord {
  const { bytes } = cursor;
  const name = readOwner(cursor);
  const at = cursor.at;
  if (at + 10 > bytes.length) throw new DnsFormatError('record cut short');
  const type = uint16(bytes, at);
  const length = uint16(bytes, at + 8);
  const rdataAt = at + 10;
  if (rdataAt + length > bytes.length) throw new DnsFormatError('RDLENGTH exceeds the message');
  cursor.at = rdataAt + length;
  const record: ResourceRecord = {
    name,
    type,
    class: uint16(bytes, at + 2),
    ttlSeconds: type === TYPE.OPT ? uint32(bytes, at + 4) : ttl(uint32(bytes, at + 4)),
    rdata: EMPTY,
  };
  try {
    record.rdata = readRdata(bytes, type, rdataAt, length);
  } catch (error) {
    if (!(error instanceof DnsFormatError)) throw error;
    record.rdata = copyBytes(bytes, rdataAt, rdataAt + length);
    record.malformed = true;
  }
  return record;
}

/** Owner names are mostly one pointer to a name seen before: such a name is made once. */
function readOwner(cursor: Cursor): Name {
  const { bytes, at, names } = cursor;
  const pointer = at + 1 < bytes.length && bytes[at]! >= 0xc0;
  const target = pointer ? ((bytes[at]! & 0x3f) << 8) | bytes[at + 1]! : at;
  const known = pointer && target < at ? names.get(target) : undefined;
  if (known !== undefined) {
    cursor.at = at + 2;
    return known;
  }
  const { name, end } = Name.read(bytes, at);
  names.set(target, name);
  cursor.at = end;
  return name;
}

function readOpt(message: Message, opt: ResourceRecord): void {
  if (opt.name.labelCount !== 0) throw new DnsFormatError('OPT is not owned by the root');
  const flags = opt.ttlSeconds;
  message.rcode |= (flags >>> 24) << 4;
  message.edns = {
    udpSize: Math.max(512, opt.class),
    version: (flags >>> 16) & 0xff,
    dnssecOk: (flags & 0x8000) !== 0,
    options: parseOptions(opt.rdata),
  };
}

function isOpt(record: ResourceRecord): boolean {
  return record.type === TYPE.OPT;
}

/** RFC 2181 §8: a TTL with the top bit set counts as zero. */
function ttl(value: number): number {
  return value > 0x7fffffff ? 0 : value;
}

const EMPTY = new Uint8Array(0);

function uint16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}

function uint32(bytes: Uint8Array, at: number): number {
  return uint16(bytes, at) * 0x10000 + uint16(bytes, at + 2);
}
