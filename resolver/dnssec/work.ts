/**
 * How much one question may cost (KeyTrap, CVE-2023-50387; NSEC3 floods, CVE-2023-50868).
 *
 * Honest answers stay far below each limit. Reaching one makes the answer bogus with a text that says which.
 */
import type { Name } from '../dns/name.ts';
import { Slices } from './slices.ts';

export type Limits = {
  /** Signature checks for one RRset; an honest one needs one or two. */
  verificationsPerRrset: number;
  /** Signature checks for one question, its aliases and proofs included, each by its weight. */
  verifications: number;
  /** As much for one zone that lately made a question reach a limit: enough for one honest answer. */
  costlyVerifications: number;
  /** Signature checks that fail for one question; honest answers have none, key tags that collide aside. */
  failures: number;
  /** NSEC, NSEC3 and SOA RRsets of one zone in one message; an honest denial has four, a chain of wildcards some more. */
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

export const DEFAULT_LIMITS: Limits = {
  verificationsPerRrset: 4,
  verifications: 60,
  costlyVerifications: 30,
  failures: 8,
  proofs: 12,
  keysPerTag: 4,
  nsec3Rounds: 3000,
  nsec3Iterations: 150,
  nsec3MaxIterations: 500,
  records: 1000,
  aliases: 11,
  chainQuestions: 48,
};

/** What a check costs by the slower algorithms, where 1 is one by P-256 or RSA (0.1 ms or less): P-384 and Ed448. */
const WEIGHTS = new Map([
  [14, 6],
  [16, 3],
]);
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
  readonly #costlyUntil = new Map<string, number>();
  readonly #counters = { verifications: 0, failures: 0, nsec3Rounds: 0, exceeded: 0 };

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

  blame(zoneKey: string): void {
    this.#costlyUntil.delete(zoneKey);
    this.#costlyUntil.set(zoneKey, this.#now() + COSTLY_SECONDS);
    if (this.#costlyUntil.size > MAX_COSTLY) {
      this.#costlyUntil.delete(this.#costlyUntil.keys().next().value!);
    }
  }

  isCostly(zoneKey: string): boolean {
    const until = this.#costlyUntil.get(zoneKey);
    return until !== undefined && this.#now() < until && until - this.#now() <= COSTLY_SECONDS;
  }
}

/** What one question has used up so far. */
export class Work {
  readonly limits: Limits;
  readonly #ledger: Ledger;
  /** Units of cost by zone. */
  readonly #spent = new Map<string, number>();
  #verifications = 0;
  #failures = 0;
  #rounds = 0;
  #chainQuestions = 0;

  /** Without a ledger it is nobody else's business. */
  constructor(limits: Limits, ledger: Ledger = new Ledger(() => 0)) {
    this.limits = limits;
    this.#ledger = ledger;
  }

  /** Whether what was bogus may be asked for and judged again: not when that took half of all there is. */
  get allowsRetry(): boolean {
    return (
      this.#verifications * 2 <= this.limits.verifications && this.#rounds * 2 <= this.limits.nsec3Rounds
    );
  }

  /** Before a signature of `zone` is checked; a promise when others come first. */
  verification(zone: Name, algorithm: number): Promise<void> | undefined {
    const weight = WEIGHTS.get(algorithm) ?? 1;
    const ofZone = this.#spend(zone, weight);
    this.#verifications += weight;
    if (this.#verifications > this.limits.verifications) throw this.#exceeded('too many signatures to check');
    if (ofZone > this.limits.costlyVerifications && this.#ledger.isCostly(zone.key)) {
      throw this.#exceeded(`${zone.toText()} has cost too much a moment ago`);
    }
    this.#ledger.add('verifications');
    return slices.take(weight);
  }

  failure(): void {
    this.#ledger.add('failures');
    if (++this.#failures > this.limits.failures) {
      throw this.#exceeded(`more than ${this.limits.failures} signatures are wrong`);
    }
  }

  /** Before a name is hashed for `zone`; a promise when others come first. */
  nsec3Hash(zone: Name, iterations: number): Promise<void> | undefined {
    const rounds = iterations + 1;
    this.#rounds += rounds;
    const ofZone = this.#spend(zone, rounds / ROUNDS_PER_UNIT);
    if (this.#rounds > this.limits.nsec3Rounds) throw this.#exceeded('too many NSEC3 hashes to compute');
    if (ofZone > this.limits.costlyVerifications && this.#ledger.isCostly(zone.key)) {
      throw this.#exceeded(`${zone.toText()} has cost too much a moment ago`);
    }
    this.#ledger.add('nsec3Rounds', rounds);
    return slices.take(rounds / ROUNDS_PER_UNIT);
  }

  /** Before the records of a message are looked at. */
  records(count: number): void {
    if (count > this.limits.records) throw this.#exceeded(`more than ${this.limits.records} records`);
  }

  chainQuestion(): void {
    if (++this.#chainQuestions > this.limits.chainQuestions) {
      throw this.#exceeded(`more than ${this.limits.chainQuestions} questions for DS and DNSKEY`);
    }
  }

  #spend(zone: Name, units: number): number {
    const total = (this.#spent.get(zone.key) ?? 0) + units;
    this.#spent.set(zone.key, total);
    return total;
  }

  /** The blame goes to the zone that took most: an innocent one that an alias led to has taken little. */
  #exceeded(text: string): WorkExceeded {
    const [most] = [...this.#spent].sort(([, a], [, b]) => b - a);
    if (most !== undefined) this.#ledger.blame(most[0]);
    this.#ledger.add('exceeded');
    return new WorkExceeded(text);
  }
}

/** Of weight 1, so half a millisecond or a little more; one event loop, so one for all. */
const UNITS_PER_SLICE = 8;
const slices = new Slices(UNITS_PER_SLICE, setImmediate);
