/** DS, DNSKEY, RRSIG, NSEC and NSEC3 (RFC 4034, RFC 5155). Parsers return undefined for RDATA that does not fit. */
import { copyBytes, Name } from './name.ts';
import { attempt, viewOf } from './rdata.ts';

export type Ds = { keyTag: number; algorithm: number; digestType: number; digest: Uint8Array };

/** `keyTag` is computed (RFC 4034 App. B). Key bytes are in the form of the algorithm's own RFC. */
export type Dnskey = {
  flags: number;
  protocol: number;
  algorithm: number;
  publicKey: Uint8Array;
  keyTag: number;
  rdata: Uint8Array;
};
export const DNSKEY_FLAG = { ZONE: 0x0100, REVOKE: 0x0080, SEP: 0x0001 } as const;

/**
 * `expiration` and `inception`: seconds modulo 2^32 (RFC 4034 §3.1.5, RFC 1982). `labels`: of the owner without root and
 * without a leading asterisk. `signedPrefix`: the RDATA up to the signature with the signer's name in lower case,
 * as it is signed (§3.1.8.1).
 */
export type Rrsig = {
  typeCovered: number;
  algorithm: number;
  labels: number;
  originalTtlSeconds: number;
  expiration: number;
  inception: number;
  keyTag: number;
  signer: Name;
  signature: Uint8Array;
  signedPrefix: Uint8Array;
};

export type Nsec = { next: Name; types: TypeBitmap };

export type Nsec3 = {
  hashAlgorithm: number;
  flags: number;
  optOut: boolean;
  iterations: number;
  salt: Uint8Array;
  nextHash: Uint8Array;
  types: TypeBitmap;
};

/** The types present at a name; `has` is false for every type of an empty bitmap. */
export type TypeBitmap = { has(type: number): boolean; types(): number[] };

export function parseDs(rdata: Uint8Array): Ds | undefined {
  if (rdata.length < 5) return undefined;
  return {
    keyTag: viewOf(rdata).getUint16(0),
    algorithm: rdata[2]!,
    digestType: rdata[3]!,
    digest: rdata.subarray(4),
  };
}

export function parseDnskey(rdata: Uint8Array): Dnskey | undefined {
  if (rdata.length < 5) return undefined;
  return {
    flags: viewOf(rdata).getUint16(0),
    protocol: rdata[2]!,
    algorithm: rdata[3]!,
    publicKey: rdata.subarray(4),
    keyTag: keyTag(rdata),
    rdata,
  };
}

/** RFC 4034 App. B; algorithm 1 (RSA/MD5) has its own form there, which no key we use needs. */
export function keyTag(dnskeyRdata: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < dnskeyRdata.length; i++) sum += i % 2 === 0 ? dnskeyRdata[i]! << 8 : dnskeyRdata[i]!;
  sum += Math.floor(sum / 0x10000) & 0xffff;
  return sum & 0xffff;
}

export function parseRrsig(rdata: Uint8Array): Rrsig | undefined {
  for (const { rdata: other, rrsig } of lately) if (other === rdata) return rrsig;
  const rrsig = readRrsig(rdata);
  lately[next] = { rdata, rrsig };
  next = (next + 1) % LATELY;
  return rrsig;
}

/** One signature is looked at several times while its message is judged, for its signer, its time, to be verified. */
const LATELY = 8;
const lately: { rdata: Uint8Array; rrsig: Rrsig | undefined }[] = [];
let next = 0;

function readRrsig(rdata: Uint8Array): Rrsig | undefined {
  if (rdata.length < 20) return undefined;
  const read = attempt(() => Name.readUncompressed(rdata, 18, rdata.length));
  if (read === undefined || read.end >= rdata.length) return undefined;
  const { name: signer, end } = read;
  const lower = signer.canonical();
  let signedPrefix = rdata.subarray(0, end);
  if (lower !== signer) {
    signedPrefix = copyBytes(signedPrefix);
    signedPrefix.set(lower.wire, 18);
  }
  const view = viewOf(rdata);
  return {
    typeCovered: view.getUint16(0),
    algorithm: rdata[2]!,
    labels: rdata[3]!,
    originalTtlSeconds: view.getUint32(4),
    expiration: view.getUint32(8),
    inception: view.getUint32(12),
    keyTag: view.getUint16(16),
    signer,
    signature: rdata.subarray(end),
    signedPrefix,
  };
}

export function parseNsec(rdata: Uint8Array): Nsec | undefined {
  const read = attempt(() => Name.readUncompressed(rdata, 0, rdata.length));
  if (read === undefined) return undefined;
  const types = parseTypeBitmap(rdata.subarray(read.end));
  return types && { next: read.name, types };
}

export function parseNsec3(rdata: Uint8Array): Nsec3 | undefined {
  if (rdata.length < 6) return undefined;
  const saltEnd = 5 + rdata[4]!;
  if (saltEnd >= rdata.length) return undefined;
  const hashEnd = saltEnd + 1 + rdata[saltEnd]!;
  if (rdata[saltEnd] === 0 || hashEnd > rdata.length) return undefined;
  const types = parseTypeBitmap(rdata.subarray(hashEnd));
  return (
    types && {
      hashAlgorithm: rdata[0]!,
      flags: rdata[1]!,
      optOut: (rdata[1]! & 1) !== 0,
      iterations: viewOf(rdata).getUint16(2),
      salt: rdata.subarray(5, saltEnd),
      nextHash: rdata.subarray(saltEnd + 1, hashEnd),
      types,
    }
  );
}

/** RFC 4034 §4.1.2: windows strictly rising, 1 to 32 bytes each; anything else is undefined. */
export function parseTypeBitmap(bytes: Uint8Array): TypeBitmap | undefined {
  const windows = new Map<number, Uint8Array>();
  let last = -1;
  for (let at = 0; at < bytes.length; ) {
    const window = bytes[at]!;
    const length = bytes[at + 1];
    if (length === undefined || length < 1 || length > 32 || window <= last) return undefined;
    if (at + 2 + length > bytes.length) return undefined;
    windows.set(window, bytes.subarray(at + 2, at + 2 + length));
    last = window;
    at += 2 + length;
  }
  const has = (type: number): boolean => {
    const byte = windows.get(type >> 8)?.[(type & 0xff) >> 3];
    return byte !== undefined && (byte & (0x80 >> (type & 7))) !== 0;
  };
  const types = (): number[] =>
    [...windows].flatMap(([window, map]) =>
      Array.from({ length: map.length * 8 }, (_, bit) => (window << 8) | bit).filter(has),
    );
  return { has, types };
}
