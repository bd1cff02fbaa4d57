/** What was judged before and still holds: the interface through which validation remembers (resolver/cache/ has it). */
import type { ExtendedError } from '../dns/edns.ts';
import type { Name } from '../dns/name.ts';
import type { Rrset } from '../dns/rrset.ts';

/** An RRset with its verdict; `proofs` show that a wildcard rightly answered. TTLs are what is left of them. */
export type KeptRrset = {
  rrset: Rrset;
  verdict: 'secure' | 'insecure';
  ede?: ExtendedError;
  proofs: Rrset[];
};

/** An empty answer with its verdict; `authority`: SOA and proofs. */
export type KeptAbsence = {
  outcome: 'nodata' | 'nxdomain';
  verdict: 'secure' | 'insecure';
  ede?: ExtendedError;
  authority: Rrset[];
  ttlSeconds: number;
};

/** The verified denials of one zone. All RRsets are secure, TTLs are what is left of them. */
export interface ZoneDenials {
  readonly zone: Name;
  /** What a negative answer needs to say for how long it holds (RFC 2308 §5). */
  soa(): Rrset | undefined;
  /** The NSEC that stands at `name`, or says that nothing does. */
  nsecFor(name: Name): Rrset | undefined;
  readonly nsec3Chains: readonly Nsec3Denials[];
}

/** NSEC3s that share salt and iterations. */
export interface Nsec3Denials {
  readonly salt: Uint8Array;
  readonly iterations: number;
  /** The NSEC3 whose owner's hash is `hash` or the closest before it, round the ring. */
  nsec3Before(hash: Uint8Array): Rrset | undefined;
}

export interface KeptAnswers {
  rrset(name: Name, type: number): KeptRrset | undefined;
  /** A secure DNAME at a name above `name`. */
  dnameAbove(name: Name): KeptRrset | undefined;
  absence(name: Name, type: number): KeptAbsence | undefined;
  /** Of the closest zone at or above `name` that has any. */
  denialsAbove(name: Name): ZoneDenials | undefined;
  denialsOf(zone: Name): ZoneDenials | undefined;

  keepRrset(found: KeptRrset): void;
  keepAbsence(name: Name, type: number, found: KeptAbsence): void;
  /** Verified SOA, NSEC and NSEC3 RRsets of `zone`; whether all of them are kept, so that they can be asked again. */
  keepDenials(zone: Name, verified: readonly Rrset[]): boolean;

  /** Forgets all of one name and the denials of the zone above it; how many entries that were. */
  flush(name: Name): number;
  flushInsecure(): number;
  flushAll(): number;
}

/** For a resolver that shall ask everything anew. */
export const NOTHING_KEPT: KeptAnswers = {
  rrset: () => undefined,
  dnameAbove: () => undefined,
  absence: () => undefined,
  denialsAbove: () => undefined,
  denialsOf: () => undefined,
  keepRrset: () => {},
  keepAbsence: () => {},
  keepDenials: () => false,
  flush: () => 0,
  flushInsecure: () => 0,
  flushAll: () => 0,
};
