/**
 * How much one question may cost (KeyTrap, CVE-2023-50387; NSEC3 floods, CVE-2023-50868).
 *
 * Honest answers stay far below each limit. Reaching one makes the answer bogus with a text that says which.
 */
import { MAX_RECORDS, type Message } from '../dns/message.ts';
import type { Name } from '../dns/name.ts';
import { Slices } from './slices.ts';
import { VerifiedProofs } from './verified.ts';

export type Limits = {
  /** Signature checks for one RRset; an honest one needs one or two. */
  verificationsPerRrset: number;
  /** Signature checks for one question, its aliases and proofs included, each by its weight. */
  verifications: number;
  /** As much of one zone: twice what an honest answer takes of it that has an alias, wildcards and a denial. */
  zoneVerifications: number;
  /** As much of a zone that lately made a question reach a limit: enough for one honest answer. */
  costlyVerifications: number;
  /** Signature checks that fail for one question, by weight too; honest answers have none, key tags that collide aside. */
  failures: number;
  /** NSEC, NSEC3 and SOA RRsets of one zone in one message: an honest denial has four, and one for each alias from a wildcard. */
  proofs: number;
  /** DNSKEYs of one zone with the same tag and algorithm that are tried. */
  keysPerTag: number;
  /** SHA-1 rounds for one question: each hashed name costs its iterations plus one. */
  nsec3Rounds: number;
  /** RFC 9276 §3.2: above this many iterations what a denial proves only counts as insecure. */
  nsec3Iterations: number;
  /** §3.2 too: above this many nothing is hashed, and what is denied is bogus. */
  nsec3MaxIterations: number;
  /** Records in answer and authority that are looked at. */
  records: number;
  /** CNAMEs and DNAMEs followed. */
  aliases: number;
  /** Questions for DS and DNSKEY that one question may cause; a reverse name of IPv6 has 34 labels. */
  chainQuestions: number;
};

/**
 * What succeeds is weighed lightly: an honest chain through many zones of slow algorithms is all good signatures. What
 * fails is what KeyTrap is made of, so that of failures by a slow algorithm two are all there are.
 */
export const DEFAULT_LIMITS: Limits = {
  verificationsPerRrset: 4,
  verifications: 400,
  zoneVerifications: 72,
  costlyVerifications: 36,
  failures: 12,
  proofs: 16,
  keysPerTag: 4,
  nsec3Rounds: 3000,
  nsec3Iterations: 150,
  nsec3MaxIterations: 500,
  records: MAX_RECORDS,
  aliases: 11,
  chainQuestions: 48,
};

/** What a check costs by the slower algorithms, where 1 is one by P-256 or RSA (0.1 ms or less): P-384 and Ed448. */
const WEIGHTS = new Map([
  [14, 6],
  [16, 3],
]);
/** So many octets to hash count as a check of weight 1. */
const OCTETS_PER_UNIT = 16_384;
/** So many SHA-1 rounds count as a check of weight 1. */
const ROUNDS_PER_UNIT = 50;

/** A limit was reached; caught where the verdict is made. */
export class WorkExceeded extends Error {
  override name = 'WorkExceeded';
}

/** How long a zone that made a question reach a limit is given little. */
const COSTLY_SECONDS = 5;
const MAX_COSTLY = 1000;

/** What all questions have used up together, and the zones that made some of them reach a limit. */
export class Ledger {
  readonly #now: () => number;
  readonly #costlyZones = new Map<string, { until: number; again: boolean }>();
  readonly #counters = { verifications: 0, failures: 0, nsec3Rounds: 0, exceeded: 0 };
  /** What need not be verified again. */
  readonly verified: VerifiedProofs = new VerifiedProofs();

  /** `now` in seconds. */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** `exceeded` counts the questions that reached a limit. */
  counters(): Record<'verifications' | 'failures' | 'nsec3Rounds' | 'exceeded', number> {
    return { ...this.#counters };
  }

  add(counter: 'verifications' | 'failures' | 'nsec3Rounds' | 'exceeded', count: number = 1): void {
    this.#counters[counter] += count;
  }

  /** A zone that is blamed again while it is given little is given nothing, until its time is over. */
  blame(zoneKey: string): void {
    const known = this.#costly(zoneKey);
    if (known?.again) return;
    this.#costlyZones.delete(zoneKey);
    this.#costlyZones.set(zoneKey, { until: this.#now() + COSTLY_SECONDS, again: known !== undefined });
    if (this.#costlyZones.size > MAX_COSTLY) {
      this.#costlyZones.delete(this.#costlyZones.keys().next().value!);
    }
  }

  /** What of one question's work a zone may take, in units. */
  allowance(zoneKey: string, limits: Limits): number {
    const known = this.#costly(zoneKey);
    if (known === undefined) return Number.POSITIVE_INFINITY;
    return known.again ? 0 : limits.costlyVerifications;
  }

  #costly(zoneKey: string): { until: number; again: boolean } | undefined {
    const known = this.#costlyZones.get(zoneKey);
    const left = known === undefined ? 0 : known.until - this.#now();
    return left > 0 && left <= COSTLY_SECONDS ? known : undefined;
  }
}

/** What one question has used up so far. */
export class Work {
  readonly limits: Limits;
  readonly #ledger: Ledger;
  /** Units of cost by zone, and those of them that are signature checks. */
  readonly #spent = new Map<string, { units: number; verifications: number }>();
  #verifications = 0;
  #failures = 0;
  #rounds = 0;
  #chainQuestions = 0;

  /** Without a ledger it is nobody else's business. */
  constructor(limits: Limits, ledger: Ledger = new Ledger(() => 0)) {
    this.limits = limits;
    this.#ledger = ledger;
  }

  get verified(): VerifiedProofs {
    return this.#ledger.verified;
  }

  /** Whether what was bogus may be asked for and judged again: not when that took half of all there is. */
  get allowsRetry(): boolean {
    const { failures, nsec3Rounds, verifications, zoneVerifications } = this.limits;
    const ofZone = Math.max(0, ...[...this.#spent.values()].map(spent => spent.verifications));
    return (
      this.#failures * 2 <= failures &&
      this.#rounds * 2 <= nsec3Rounds &&
      this.#verifications * 2 <= verifications &&
      ofZone * 2 <= zoneVerifications
    );
  }

  /** Before a signature of `zone` over so many octets is checked; a promise when others come first. */
  verification(zone: Name, algorithm: number, octets: number = 0): Promise<void> | undefined {
    const weight = weigh(algorithm, octets);
    const spent = this.#spend(zone, weight);
    spent.verifications += weight;
    this.#verifications += weight;
    if (
      spent.verifications > this.limits.zoneVerifications ||
      this.#verifications > this.limits.verifications
    ) {
      throw this.#exceeded('too many signatures to check');
    }
    this.#ledger.add('verifications');
    return slices.take(weight);
  }

  /** After such a check failed. */
  failure(zone: Name, algorithm: number, octets: number = 0): void {
    this.#ledger.add('failures');
    this.#failures += weigh(algorithm, octets);
    if (this.#failures > this.limits.failures) throw this.#exceeded('too many signatures are wrong', zone);
  }

  /** Before a name is hashed for `zone`; a promise when others come first. */
  nsec3Hash(zone: Name, iterations: number): Promise<void> | undefined {
    const rounds = iterations + 1;
    this.#rounds += rounds;
    this.#spend(zone, rounds / ROUNDS_PER_UNIT);
    if (this.#rounds > this.limits.nsec3Rounds) throw this.#exceeded('too many NSEC3 hashes to compute');
    this.#ledger.add('nsec3Rounds', rounds);
    return slices.take(rounds / ROUNDS_PER_UNIT);
  }

  /** Before the denials of `zone` in one message are looked at. */
  proofs(zone: Name, count: number): void {
    if (count > this.limits.proofs)
      throw this.#exceeded(`more than ${this.limits.proofs} denials in one answer`, zone);
  }

  /** After an answer turned out bogus: a zone that took much for it is given little, whichever limits it stayed below. */
  wasted(): void {
    for (const [zoneKey, { units }] of this.#spent) {
      if (units * 2 > this.limits.costlyVerifications) this.#ledger.blame(zoneKey);
    }
  }

  /** Before the records of a message are looked at. */
  records(message: Message): void {
    if (recordCount(message) > this.limits.records)
      throw this.#exceeded(`more than ${this.limits.records} records`);
  }

  chainQuestion(): void {
    if (++this.#chainQuestions > this.limits.chainQuestions) {
      throw this.#exceeded(`more than ${this.limits.chainQuestions} questions for DS and DNSKEY`);
    }
  }

  #spend(zone: Name, units: number): { units: number; verifications: number } {
    let spent = this.#spent.get(zone.key);
    if (spent === undefined) {
      spent = { units: 0, verifications: 0 };
      this.#spent.set(zone.key, spent);
    }
    spent.units += units;
    if (spent.units > this.#ledger.allowance(zone.key, this.limits)) {
      throw this.#exceeded(`${zone.toText()} has cost too much a moment ago`, zone);
    }
    return spent;
  }

  /** Without a culprit the blame goes to the zone that took most: an innocent one that an alias led to has taken little. */
  #exceeded(text: string, culprit?: Name): WorkExceeded {
    const [most] = [...this.#spent].sort(([, a], [, b]) => b.units - a.units);
    const blamed = culprit?.key ?? most?.[0];
    if (blamed !== undefined) this.#ledger.blame(blamed);
    this.#ledger.add('exceeded');
    return new WorkExceeded(text);
  }
}

/** Of answer and authority, read or not. */
export function recordCount({ answer, authority, unread = 0 }: Message): number {
  return answer.length + authority.length + unread;
}

function weigh(algorithm: number, octets: number): number {
  return (WEIGHTS.get(algorithm) ?? 1) + Math.floor(octets / OCTETS_PER_UNIT);
}

/** Of weight 1, so half a millisecond or a little more; one event loop, so one for all. */
const UNITS_PER_SLICE = 8;
const slices = new Slices(UNITS_PER_SLICE, setImmediate);
