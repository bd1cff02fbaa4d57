/**
 * Where names stand inside RDATA: decompression on receipt and the canonical form for signatures.
 *
 * RFC 3597 §4 (which types may be compressed or must be decompressed), RFC 4034 §6.2 with RFC 6840 §5.1
 * (which embedded names are lower-cased: all listed ones but NSEC's).
 */
import { copyBytes, DnsFormatError, Name } from './name.ts';
import { TYPE } from './types.ts';

/** `n` bytes; `name` possibly compressed; `plain` a name never compressed and never lower-cased; `string` a character-string. */
type Field = number | 'name' | 'plain' | 'string' | 'strings' | 'rest';

const FORMS = new Map<number, readonly Field[]>([
  [TYPE.A, [4]],
  [TYPE.NS, ['name']],
  [3, ['name']], // MD
  [4, ['name']], // MF
  [TYPE.CNAME, ['name']],
  [TYPE.SOA, ['name', 'name', 20]],
  [7, ['name']], // MB
  [8, ['name']], // MG
  [9, ['name']], // MR
  [TYPE.PTR, ['name']],
  [TYPE.HINFO, ['string', 'string']],
  [14, ['name', 'name']], // MINFO
  [TYPE.MX, [2, 'name']],
  [TYPE.TXT, ['strings']],
  [17, ['name', 'name']], // RP
  [18, [2, 'name']], // AFSDB
  [21, [2, 'name']], // RT
  [24, [18, 'name', 'rest']], // SIG
  [26, [2, 'name', 'name']], // PX
  [TYPE.AAAA, [16]],
  [30, ['name', 'rest']], // NXT
  [TYPE.SRV, [6, 'name']],
  [TYPE.NAPTR, [4, 'string', 'string', 'string', 'name']],
  [36, [2, 'name']], // KX
  [TYPE.DNAME, ['name']],
  [TYPE.DS, [4, 'rest']],
  [TYPE.RRSIG, [18, 'name', 'rest']],
  [TYPE.NSEC, ['plain', 'rest']],
  [TYPE.DNSKEY, [4, 'rest']],
]);

/**
 * The RDATA at `offset` of a message without compression, as a copy.
 *
 * Throws DnsFormatError when it does not fit its type: a name that runs past RDLENGTH, bytes left over.
 */
export function readRdata(message: Uint8Array, type: number, offset: number, length: number): Uint8Array {
  const form = FORMS.get(type);
  const end = offset + length;
  if (form === undefined || length === 0) {
    if (form !== undefined) throw new DnsFormatError('empty RDATA');
    return copyBytes(message, offset, end);
  }
  let parts: Uint8Array[] | undefined;
  let at = offset;
  let plainFrom = offset;
  for (const field of form) {
    // Nearly all names in RDATA stand there as they are, and none has to be made to see that.
    const isName = field === 'name' || field === 'plain';
    const nameEnd = isName ? Name.endOfUncompressed(message, at, end) : undefined;
    if (nameEnd !== undefined) at = nameEnd;
    else if (field === 'name') {
      const read = Name.read(message, at, end);
      if (read.end - at !== read.name.wire.length) {
        parts ??= [];
        parts.push(message.subarray(plainFrom, at), read.name.wire);
        plainFrom = read.end;
      }
      at = read.end;
    } else if (field === 'plain') at = Name.readUncompressed(message, at, end).end;
    else at += fieldSize(message, field, at, end);
  }
  if (at !== end) throw new DnsFormatError('RDATA longer than its fields');
  if (parts === undefined) return copyBytes(message, offset, end);
  return concat([...parts, message.subarray(plainFrom, end)]);
}

/** Uncompressed RDATA with the names that RFC 4034 §6.2 lists in lower case; the same array when nothing changes. */
export function canonicalRdata(type: number, rdata: Uint8Array): Uint8Array {
  const form = FORMS.get(type);
  if (form === undefined || !form.includes('name')) return rdata;
  const copy = copyBytes(rdata);
  let at = 0;
  try {
    for (const field of form) {
      if (field === 'name') {
        const { name, end } = Name.readUncompressed(rdata, at, rdata.length);
        copy.set(name.canonical().wire, at);
        at = end;
      } else if (field === 'plain') at = Name.readUncompressed(rdata, at, rdata.length).end;
      else at += fieldSize(rdata, field, at, rdata.length);
    }
  } catch {
    return rdata; // does not fit its type: there is nothing to fold
  }
  return copy;
}

function fieldSize(
  bytes: Uint8Array,
  field: number | 'string' | 'strings' | 'rest',
  at: number,
  end: number,
): number {
  if (field === 'rest') return end - at;
  if (field === 'string') return stringSize(bytes, at, end);
  if (field === 'strings') {
    let next = at;
    do next += stringSize(bytes, next, end);
    while (next < end);
    return next - at;
  }
  if (at + field > end) throw new DnsFormatError('RDATA shorter than its fields');
  return field;
}

function stringSize(bytes: Uint8Array, at: number, end: number): number {
  if (at >= end || at + 1 + bytes[at]! > end) throw new DnsFormatError('character-string runs past its end');
  return 1 + bytes[at]!;
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
