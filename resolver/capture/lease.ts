/**
 * Leases: on what an answer rests, so that its bytes may be used again without asking anybody.
 *
 * An answer stands on grounds. A ground gives way at once and for good: a peer's when one of its pairs of SAs goes or
 * changes, the common one when anything else changes that answers rest on (`Capture.revoke`). Looking is one read, and
 * nobody keeps lists: who holds a lease looks before each use. The time is the second bound: what DNS said may be used no
 * longer than it may be kept, and a seal no longer than it is believed without asking the kernel.
 */
import type { Resolution } from '../dnssec/types.ts';

export type Ground = { stands: boolean };

export type Lease = { grounds: readonly Ground[]; seconds: number };

/** With the time for which `Peers` believes a seal before looking into the kernel again, a second at most. */
export const SEAL_SECONDS = 0.5;

/** As long as what DNS said may be kept; undefined for what could not be judged, which is looked at each time. */
export function leaseOf({
  verdict,
  ttlSeconds,
}: Pick<Resolution, 'verdict' | 'ttlSeconds'>): Lease | undefined {
  return verdict === 'secure' || verdict === 'insecure' ? { grounds: [], seconds: ttlSeconds } : undefined;
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
