/** One judged answer as the cache keeps it: for how long, in how many octets, and what it looks like later. */
import { hash } from 'node:crypto';
import { parseRrsig } from '../dns/dnssec-rdata.ts';
import type { Rrset } from '../dns/rrset.ts';
import { EDE, TYPE } from '../dns/types.ts';
import type { Resolution } from '../dnssec/types.ts';

export type Entry = {
  readonly resolution: Resolution;
  /** Milliseconds, of the monotonic clock and of the day. */
  readonly storedAt: number;
  readonly storedAtWall: number;
  readonly lifeMillis: number;
  readonly bytes: number;
  /** When it was asked for last, and in how many seconds it was asked for again. */
  usedAt: number;
  uses: number;
  /** Its renewal was begun. */
  renewed: boolean;
  /** A later word was bogus: never to be shown when its time is over. */
  contradicted: boolean;
  /** Of what is said of its canonical name (answers.ts). */
  turn: number;
  /** What was handed out last, and for which age: all who ask within one second share it. */
  view: Resolution;
  viewAge: number;
};

/** No answer is kept longer, whatever its owner says (RFC 8767 section 4 suggests such a bound). */
export const MAX_TTL_SECONDS = 86_400;
/** RFC 2308 section 5 suggests one to three hours. */
const MAX_NEGATIVE_TTL_SECONDS = 10_800;
/** The TTL of what is handed out past its time (RFC 8767 section 4). */
const STALE_TTL_SECONDS = 30;

/** An entry that nobody has asked for yet; its octets are for the caller to count. */
export function newEntry(
  resolution: Resolution,
  storedAt: number,
  storedAtWall: number,
  lifeMillis: number,
): Omit<Entry, 'bytes'> {
  return {
    resolution,
    storedAt,
    storedAtWall,
    lifeMillis,
    usedAt: storedAt,
    uses: 0,
    renewed: false,
    contradicted: false,
    turn: 0,
    view: resolution,
    viewAge: 0,
  };
}

/** How long an answer that is no failure may be kept, seconds; 0: not at all. */
export function lifeSeconds(found: Resolution): number {
  let seconds = Math.min(found.ttlSeconds, MAX_TTL_SECONDS);
  for (const { ttlSeconds } of found.answer) seconds = Math.min(seconds, ttlSeconds);
  if (found.outcome !== 'positive') {
    const soa = found.authority.find(({ type }) => type === TYPE.SOA);
    // RFC 2308 section 5: without SOA there is nothing that says how long.
    if (soa === undefined) return 0;
    seconds = Math.min(seconds, MAX_NEGATIVE_TTL_SECONDS, soa.ttlSeconds, soaMinimum(soa));
  }
  return Math.max(0, Math.floor(seconds));
}

/** The last of SOA's fields (RFC 1035 section 3.3.13). */
function soaMinimum({ rdatas }: Rrset): number {
  const rdata = rdatas[0];
  if (rdata === undefined || rdata.length < 22) return 0;
  return new DataView(rdata.buffer, rdata.byteOffset, rdata.byteLength).getUint32(rdata.length - 4);
}

/** Neither an answer nor a denial that anybody may believe. */
export function isFailure({ outcome, verdict }: Resolution): boolean {
  return outcome === 'failure' || verdict === 'bogus' || verdict === 'indeterminate';
}

/** Whether it could be shown past its time, were nobody to be reached: only what DNSSEC proved of a name that is there. */
export function mayBecomeStale({ outcome, verdict }: Resolution): boolean {
  return (outcome === 'positive' || outcome === 'nodata') && verdict === 'secure';
}

/** Whether every signature of every RRset is in force at `unixSeconds` (RFC 4034 section 3.1.5). */
export function signaturesHold({ answer, authority }: Resolution, unixSeconds: number): boolean {
  return [...answer, ...authority].every(({ signatures }) =>
    signatures.every(rdata => {
      const rrsig = parseRrsig(rdata);
      if (rrsig === undefined) return false;
      return ((rrsig.expiration - unixSeconds) | 0) > 0 && ((unixSeconds - rrsig.inception) | 0) >= 0;
    }),
  );
}

/** What an answer says of its canonical name: its RDATA in whatever order, as a digest; undefined where it denies. */
export function saying({ outcome, answer, question }: Resolution): string | undefined {
  if (outcome !== 'positive') return undefined;
  const rdatas = answer.find(({ type }) => type === question.type)?.rdatas ?? [];
  const sorted = rdatas.map(rdata => Buffer.from(rdata).toString('base64')).sort();
  return hash('sha256', sorted.join(), 'base64');
}

/** Roughly what V8 takes for an entry, an RRset with its name, and one view of octets. */
const ENTRY_OCTETS = 500;
const RRSET_OCTETS = 350;
const VIEW_OCTETS = 120;

/** A frozen copy whose RDATA share one buffer of exact size, so that no message is kept alive by a few of its octets. */
export function compacted(found: Resolution, ttlSeconds: number): { resolution: Resolution; bytes: number } {
  let octets = 0;
  let views = 0;
  for (const rrset of [...found.answer, ...found.authority]) {
    for (const rdata of rrset.rdatas) octets += rdata.length;
    for (const rdata of rrset.signatures) octets += rdata.length;
    views += rrset.rdatas.length + rrset.signatures.length;
  }
  const buffer = new Uint8Array(octets);
  let at = 0;
  const copy = (rdata: Uint8Array): Uint8Array => {
    buffer.set(rdata, at);
    at += rdata.length;
    return buffer.subarray(at - rdata.length, at);
  };
  const copyRrset = (rrset: Rrset): Rrset =>
    Object.freeze({
      name: rrset.name,
      type: rrset.type,
      class: rrset.class,
      ttlSeconds: ttlSeconds === 0 ? rrset.ttlSeconds : Math.min(rrset.ttlSeconds, ttlSeconds),
      rdatas: freezeArray(rrset.rdatas.map(copy)),
      signatures: freezeArray(rrset.signatures.map(copy)),
    });
  const resolution: Resolution = Object.freeze({
    ...found,
    question: Object.freeze({ ...found.question }),
    answer: freezeArray(found.answer.map(copyRrset)),
    authority: freezeArray(found.authority.map(copyRrset)),
    ttlSeconds: ttlSeconds === 0 ? found.ttlSeconds : ttlSeconds,
  });
  const rrsets = found.answer.length + found.authority.length;
  const bytes = ENTRY_OCTETS + octets + rrsets * RRSET_OCTETS + views * VIEW_OCTETS;
  return { resolution, bytes };
}

/** The same, `age` seconds later. */
export function aged(resolution: Resolution, age: number): Resolution {
  return withTtls(resolution, resolution.ttlSeconds - age, ttlSeconds => Math.max(0, ttlSeconds - age));
}

/** The same past its time (RFC 8767): said of it, and with a TTL that has it asked for again soon. */
export function asStale(resolution: Resolution, agoSeconds: number): Resolution {
  const ede = {
    code: EDE.STALE_ANSWER,
    text: `nobody answers upstream; this answer ended ${agoSeconds} s ago`,
  };
  const view = withTtls(resolution, STALE_TTL_SECONDS, () => STALE_TTL_SECONDS);
  return Object.freeze({ ...view, stale: true, ede });
}

function withTtls(resolution: Resolution, whole: number, change: (ttlSeconds: number) => number): Resolution {
  const later = (rrset: Rrset): Rrset => Object.freeze({ ...rrset, ttlSeconds: change(rrset.ttlSeconds) });
  return Object.freeze({
    ...resolution,
    answer: freezeArray(resolution.answer.map(later)),
    authority: freezeArray(resolution.authority.map(later)),
    ttlSeconds: whole,
  });
}

/** Frozen at run time; the type stays that of the contract. */
function freezeArray<T>(array: T[]): T[] {
  return Object.freeze(array) as T[];
}
