/** What a client sent: a question, something that deserves an error, or something to drop. */
import { parseOptions } from '../dns/edns.ts';
import { parseMessage } from '../dns/message.ts';
import { DnsFormatError, Name } from '../dns/name.ts';
import { CLASS, RCODE, TYPE } from '../dns/types.ts';

const HEADER_OCTETS = 12;
const OPT_OCTETS = 11;

/** A query that can be read, with what its answer needs. */
export type StubQuery = {
  /** The message as it came: ID, RD and CD are echoed from it, and the question with the case of its letters. */
  readonly bytes: Uint8Array;
  /** Where the question section ends. */
  readonly questionEnd: number;
  readonly name: Name;
  readonly type: number;
  readonly class: number;
  /** Undefined without OPT. */
  readonly edns:
    | { readonly udpSize: number; readonly version: number; readonly dnssecOk: boolean }
    | undefined;
  readonly authenticData: boolean;
  readonly checkingDisabled: boolean;
};

export type ParsedQuery =
  | { readonly kind: 'query'; readonly query: StubQuery }
  /** To be answered with `rcode` and nothing else; `query` when the question at least could be read. */
  | { readonly kind: 'error'; readonly rcode: number; readonly query?: StubQuery }
  /** Not a query: no header, or a response (answering those makes two servers talk to each other for ever). */
  | { readonly kind: 'drop' };

const DROP: ParsedQuery = { kind: 'drop' };
const FORMERR: ParsedQuery = { kind: 'error', rcode: RCODE.FORMERR };

/**
 * Reads a client's message (RFC 1035 section 4.1, RFC 6891 section 6). Never throws.
 *
 * Opcodes other than QUERY are NOTIMP; anything but one question (RFC 9619), or that does not follow the format to the
 * last octet, is FORMERR; an EDNS version over 0 is BADVERS, whatever its options look like. Class and type are looked at
 * by `unanswerable`.
 */
export function parseQuery(bytes: Uint8Array): ParsedQuery {
  if (bytes.length < HEADER_OCTETS || (bytes[2]! & 0x80) !== 0) return DROP;
  if ((bytes[2]! & 0x78) !== 0) return { kind: 'error', rcode: RCODE.NOTIMP };
  // One question, no answers.
  if (bytes[4] !== 0 || bytes[5] !== 1 || (bytes[6]! | bytes[7]!) !== 0) return FORMERR;
  try {
    const query = readQuery(bytes);
    return (query.edns?.version ?? 0) === 0
      ? { kind: 'query', query }
      : { kind: 'error', rcode: RCODE.BADVERS, query };
  } catch (error) {
    if (!(error instanceof DnsFormatError)) throw error;
    return FORMERR;
  }
}

/**
 * The RCODE for questions that are well formed and that we do not pass on; undefined for all others.
 *
 * Other classes (`version.bind` in CH among them) and zone transfers are refused, meta types are not implemented.
 */
export function unanswerable(query: StubQuery): number | undefined {
  if (query.class !== CLASS.IN) return query.class === CLASS.CH ? RCODE.REFUSED : RCODE.NOTIMP;
  const { type } = query;
  if (type === TYPE.AXFR || type === TYPE.IXFR) return RCODE.REFUSED;
  // Reserved, OPT, and the meta types (RFC 6895 section 3.1) other than ANY.
  if (type === 0 || type === TYPE.OPT || (type >= 128 && type < TYPE.ANY)) return RCODE.NOTIMP;
  return undefined;
}

function readQuery(bytes: Uint8Array): StubQuery {
  const { name, end } = Name.readUncompressed(bytes, HEADER_OCTETS, bytes.length);
  const questionEnd = end + 4;
  if (questionEnd > bytes.length) throw new DnsFormatError('question cut short');
  const type = (bytes[end]! << 8) | bytes[end + 1]!;
  const hasAuthority = (bytes[8]! | bytes[9]!) !== 0;
  // The SOA that the client has (RFC 1995 section 3).
  if (hasAuthority && type !== TYPE.IXFR) throw new DnsFormatError('authority in a query');
  return {
    bytes,
    questionEnd,
    name,
    type,
    class: (bytes[end + 2]! << 8) | bytes[end + 3]!,
    edns: hasAuthority ? parseMessage(bytes).edns : readEdns(bytes, questionEnd),
    authenticData: (bytes[3]! & 0x20) !== 0,
    checkingDisabled: (bytes[3]! & 0x10) !== 0,
  };
}

/** Nothing or a lone OPT, as nearly every client sends it, is read in place; the rest goes through the whole parser. */
function readEdns(bytes: Uint8Array, at: number): StubQuery['edns'] {
  const additional = (bytes[10]! << 8) | bytes[11]!;
  if (additional === 0) {
    if (at !== bytes.length) throw new DnsFormatError('bytes after the message');
    return undefined;
  }
  const loneOpt = additional === 1 && bytes[at] === 0 && bytes[at + 1] === 0 && bytes[at + 2] === TYPE.OPT;
  if (!loneOpt || at + OPT_OCTETS > bytes.length) return parseMessage(bytes).edns;
  const optionsAt = at + OPT_OCTETS;
  const length = (bytes[at + 9]! << 8) | bytes[at + 10]!;
  if (optionsAt + length !== bytes.length)
    throw new DnsFormatError('OPT does not end where the message does');
  const version = bytes[at + 6]!;
  if (length > 0 && version === 0) parseOptions(bytes.subarray(optionsAt));
  return {
    udpSize: (bytes[at + 3]! << 8) | bytes[at + 4]!,
    version,
    dnssecOk: (bytes[at + 7]! & 0x80) !== 0,
  };
}
