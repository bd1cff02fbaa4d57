/**
 * Leases: on what an answer rests, so that its bytes may be used again without asking anybody.
 *
 * An answer stands on grounds. A ground gives way at once and for good: a peer's when one of its pairs of SAs goes or
 * changes, the common one when anything else changes that answers rest on (`Capture.revoke`). Looking is one read, and
 * nobody keeps lists: who holds a lease looks before each use. Time is the second bound.
 */
import type { Resolution } from '../dnssec/types.ts';

export type Ground = { stands: boolean };

export type Lease = { grounds: readonly Ground[]; seconds: number };

/** With the time for which `Peers` believes a seal before looking into the kernel again, a second at most. */
export const SEAL_SECONDS = 0.5;

/**
 * How long bytes are used before what DNS said is looked up anew, in the cache mostly: this part of the time that is left,
 * and no longer than so many seconds. Only who goes the whole way is seen by the cache, and by `explain`: so the cache
 * knows what is popular, fetches it again before its time ends, and does not throw it away.
 */
const SHARE = 0.4;
const MAX_SECONDS = 15;

/** For what was judged, and is not stale; the rest is looked at each time. */
export function leaseOf({
  verdict,
  ttlSeconds,
  stale,
}: Pick<Resolution, 'verdict' | 'ttlSeconds' | 'stale'>): Lease | undefined {
  if ((verdict !== 'secure' && verdict !== 'insecure') || stale) return undefined;
  return { grounds: [], seconds: Math.min(SHARE * ttlSeconds, MAX_SECONDS) };
}

/** All grounds, and the shortest time; undefined when there is one without a lease. */
export function jointly(leases: readonly (Lease | undefined)[]): Lease | undefined {
  const all = leases.filter(lease => lease !== undefined);
  if (all.length < leases.length) return undefined;
  return {
    grounds: [...new Set(all.flatMap(({ grounds }) => grounds))],
    seconds: Math.min(...all.map(({ seconds }) => seconds)),
  };
}

/** The ground gives way; another in its place. */
export function giveWay(ground: Ground): Ground {
  ground.stands = false;
  return { stands: true };
}
