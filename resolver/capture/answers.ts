/** The answers that leave the capture: as judged, in part, or refused. */
import type { IpAddress } from '../address.ts';
import type { Name } from '../dns/name.ts';
import type { Rrset } from '../dns/rrset.ts';
import { EDE, RCODE, TYPE } from '../dns/types.ts';
import type { Resolution } from '../dnssec/types.ts';
import { withoutHints } from './hints.ts';
import { bytesEqual, effectiveAddress } from './keys.ts';
import type { Lease } from './lease.ts';

export type CaptureQuestion = { name: Name; type: number; dnssecOk: boolean; checkingDisabled: boolean };

/** An answer that rests on a seal lives no longer than this, so that the seal is looked at again. */
export const SEALED_TTL_SECONDS = 60;

export type CaptureAnswer = {
  rcode: number;
  authenticated: boolean;
  answer: Rrset[];
  authority: Rrset[];
  ede?: { code: number; text: string }[];
  ttlCapSeconds?: number;
  /** Until when its bytes may be used again; absent: not at all. */
  lease?: Lease;
};

/** As little as possible (RFC 8482 §4.2), where nothing but addresses was there. */
export function minimalAny(name: Name): CaptureAnswer {
  const cpu = Buffer.from('RFC8482', 'latin1');
  const rdata = Uint8Array.from([cpu.length, ...cpu, 0]);
  const rrset: Rrset = {
    name,
    type: TYPE.HINFO,
    class: 1,
    ttlSeconds: 3600,
    rdatas: [rdata],
    signatures: [],
  };
  return { rcode: RCODE.NOERROR, authenticated: false, answer: [rrset], authority: [] };
}

/** As judged: AD only when all of it is secure. */
export function passed(resolution: Resolution): CaptureAnswer {
  return {
    rcode: resolution.rcode,
    authenticated: resolution.verdict === 'secure',
    answer: resolution.answer,
    authority: resolution.authority,
    ...(resolution.ede ? { ede: [resolution.ede] } : {}),
  };
}

/** The answer, good as long as the lease where there is one. */
export function withLease(answer: CaptureAnswer, lease: Lease | undefined): CaptureAnswer {
  return lease === undefined ? answer : { ...answer, lease };
}

export function strippedOfHints(resolution: Resolution): CaptureAnswer {
  return { ...passed(resolution), authenticated: false, answer: withoutHints(resolution.answer) };
}

/** SERVFAIL, with the reason as an Extended DNS Error (RFC 8914). */
export function refuse(code: number, text: string): CaptureAnswer {
  return { rcode: RCODE.SERVFAIL, authenticated: false, answer: [], authority: [], ede: [{ code, text }] };
}

export function refusedResolution(resolution: Resolution): CaptureAnswer {
  const { code, text } = resolution.ede ?? { code: EDE.OTHER, text: 'the look-up failed' };
  return refuse(code, text);
}

/** The RRset with these addresses only, and so without the signatures that covered the whole. */
export function keepOnly(rrset: Rrset, kept: IpAddress[]): Rrset {
  const rdatas = rrset.rdatas.filter(rdata => {
    const address = effectiveAddress(rdata);
    return address !== undefined && kept.some(other => bytesEqual(other.bytes, address.bytes));
  });
  return { ...rrset, rdatas, signatures: [] };
}

/** For the story of an answer. */
export function describe(resolution: Resolution): string {
  const count = resolution.answer.reduce((sum, rrset) => sum + rrset.rdatas.length, 0);
  if (resolution.outcome === 'positive') return `${count} record(s), ${resolution.verdict}`;
  return `${resolution.outcome}, ${resolution.verdict}`;
}
