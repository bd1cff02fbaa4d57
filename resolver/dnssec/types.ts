/** What validation takes and gives: plain data shared with upstream/, stub/ and capture/. */
import type { ExtendedError } from '../dns/edns.ts';
import type { Message } from '../dns/message.ts';
import type { Name } from '../dns/name.ts';
import type { Rrset } from '../dns/rrset.ts';

/**
 * RFC 4033 §5, seen by a forwarder.
 *
 * `secure`: signed and proven. `insecure`: proven to be outside signed zones, or no trust anchor above it.
 * `bogus`: should be signed and is not proven. `indeterminate`: no answer that could be judged.
 */
export type Verdict = 'secure' | 'insecure' | 'bogus' | 'indeterminate';

/**
 * The judged answer to one question.
 *
 * `answer`: the CNAME/DNAME chain in order, then the asked RRset (all RRsets of the name for ANY). `authority`: SOA and
 * the denial proofs. For `bogus` both hold what came, for a client that set CD; nobody else may use it.
 * `outcome` `failure`: the upstream gave nothing to judge (timeout, SERVFAIL, …): verdict indeterminate, or bogus when
 * what is missing belongs to the chain of trust.
 * `ttlSeconds`: how long the whole may be kept; signature lifetimes are already counted in.
 * `transient`: a failure of our own (too much to do, nobody waits): it says nothing of the name and is not remembered.
 * `stale`: its time is over, and nobody could be asked again (RFC 8767); only the cache says so.
 */
export type Resolution = {
  question: { name: Name; type: number };
  rcode: number;
  verdict: Verdict;
  ede?: ExtendedError;
  answer: Rrset[];
  authority: Rrset[];
  /** The name asked for, after CNAMEs and DNAMEs. */
  canonicalName: Name;
  outcome: 'positive' | 'nodata' | 'nxdomain' | 'failure';
  ttlSeconds: number;
  transient?: true;
  stale?: true;
};

/** What the validator asks. `attempt` 1 wants another server than attempt 0 had: the first answer was bogus. */
export type UpstreamQuestion = { name: Name; type: number; attempt?: number };

/** Asks upstream with RD, CD and DO set, and resolves with a message whose question is the one asked. Rejects when there is no answer. */
export type Exchange = (question: UpstreamQuestion, signal?: AbortSignal) => Promise<Message>;

/** Whether an Exchange rejected because it asked nobody: too much to do, or nobody waits any more. */
export function wasNotAsked(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return code === 'overload' || code === 'aborted';
}
