/**
 * Typed views of RDATA. Each parser takes uncompressed RDATA and returns undefined when it does not fit the type.
 *
 * SVCB/HTTPS live in svcb.ts, IPSECKEY in ipseckey.ts, the DNSSEC types in dnssec-rdata.ts.
 */
import { DnsFormatError, Name } from './name.ts';

export type Soa = {
  mname: Name;
  rname: Name;
  serial: number;
  refreshSeconds: number;
  retrySeconds: number;
  expireSeconds: number;
  /** The TTL of negative answers together with the SOA's own TTL (RFC 2308 §4). */
  minimumSeconds: number;
};
export type Mx = { preference: number; exchange: Name };
export type Srv = { priority: number; weight: number; port: number; target: Name };

/** A: 4 bytes, RFC 1035 §3.4.1. */
export function parseA(rdata: Uint8Array): Uint8Array | undefined {
  return rdata.length === 4 ? rdata : undefined;
}

/** AAAA: 16 bytes, RFC 3596 §2.2. */
export function parseAaaa(rdata: Uint8Array): Uint8Array | undefined {
  return rdata.length === 16 ? rdata : undefined;
}

/** CNAME, DNAME, NS and PTR: one name (RFC 1035 §3.3, RFC 6672 §2.1). */
export function parseTarget(rdata: Uint8Array): Name | undefined {
  return attempt(() => Name.fromWire(rdata));
}

/** SOA, RFC 1035 §3.3.13. */
export function parseSoa(rdata: Uint8Array): Soa | undefined {
  return attempt(() => {
    const { name: mname, end: mend } = Name.readUncompressed(rdata, 0, rdata.length);
    const { name: rname, end } = Name.readUncompressed(rdata, mend, rdata.length);
    if (rdata.length !== end + 20) throw new DnsFormatError('SOA length');
    const view = viewOf(rdata);
    const number = (index: number): number => view.getUint32(end + 4 * index);
    return {
      mname,
      rname,
      serial: number(0),
      refreshSeconds: number(1),
      retrySeconds: number(2),
      expireSeconds: number(3),
      minimumSeconds: number(4),
    };
  });
}

/** MX, RFC 1035 §3.3.9. */
export function parseMx(rdata: Uint8Array): Mx | undefined {
  if (rdata.length < 3) return undefined;
  const exchange = parseTarget(rdata.subarray(2));
  return exchange && { preference: viewOf(rdata).getUint16(0), exchange };
}

/** SRV, RFC 2782. */
export function parseSrv(rdata: Uint8Array): Srv | undefined {
  if (rdata.length < 7) return undefined;
  const target = parseTarget(rdata.subarray(6));
  const view = viewOf(rdata);
  return (
    target && { priority: view.getUint16(0), weight: view.getUint16(2), port: view.getUint16(4), target }
  );
}

/** TXT: one or more character-strings (RFC 1035 §3.3.14), as bytes. */
export function parseTxt(rdata: Uint8Array): Uint8Array[] | undefined {
  const strings: Uint8Array[] = [];
  for (let at = 0; at < rdata.length; at += 1 + rdata[at]!) {
    if (at + 1 + rdata[at]! > rdata.length) return undefined;
    strings.push(rdata.subarray(at + 1, at + 1 + rdata[at]!));
  }
  return strings.length === 0 ? undefined : strings;
}

/** The value, or undefined for a format error; any other error is ours and goes up. */
export function attempt<T>(parse: () => T): T | undefined {
  try {
    return parse();
  } catch (error) {
    if (error instanceof DnsFormatError) return undefined;
    throw error;
  }
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
