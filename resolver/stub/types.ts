/** What the stub asks of the rest of the program, and what it gets. */
import type { ExtendedError } from '../dns/edns.ts';
import type { Name } from '../dns/name.ts';
import type { Rrset } from '../dns/rrset.ts';

/** A question of class IN by a client that may ask. */
export type StubQuestion = {
  name: Name;
  type: number;
  class: number;
  /** The client set DO: it gets signatures and proofs. */
  dnssecOk: boolean;
  checkingDisabled: boolean;
  /** Who asked first; equal questions that came while this one was in flight get the same answer. */
  client: { address: string; transport: 'udp' | 'tcp' | 'tls' | 'https' };
};

/**
 * What to answer.
 *
 * `authenticated`: every RRset is DNSSEC-secure; AD is set for clients that can make use of it. Signatures and denial
 * proofs may be present, they are left out for clients without DO. `ttlCapSeconds`: no TTL goes out higher.
 */
export type StubAnswer = {
  readonly rcode: number;
  readonly authenticated: boolean;
  readonly answer: readonly Rrset[];
  readonly authority: readonly Rrset[];
  readonly ede?: readonly ExtendedError[];
  readonly ttlCapSeconds?: number;
  /** Without one, the next question goes the whole way again. */
  readonly lease?: Lease;
};

/**
 * How long the bytes of an answer may be used for other questions.
 *
 * While every ground stands, for `seconds` at most, and never to the end of the answer's TTLs (`kept.ts`).
 */
export type Lease = {
  readonly grounds: readonly { readonly stands: boolean }[];
  readonly seconds: number;
};

/** Finds the answer. The signal fires when no client waits any more; what is returned then goes nowhere. */
export type StubHandler = (question: StubQuestion, signal: AbortSignal) => Promise<StubAnswer>;
