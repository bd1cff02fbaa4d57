/**
 * How much one question may cost (KeyTrap, CVE-2023-50387; NSEC3 floods, CVE-2023-50868).
 *
 * Honest answers stay far below each limit. Reaching one makes the answer bogus with a text that says which.
 */
export type Limits = {
  /** Signature checks for one RRset; an honest one needs one or two. */
  verificationsPerRrset: number;
  /** Signature checks for one question, its aliases and proofs included. */
  verifications: number;
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
  /** Records in answer and authority that are looked at. */
  records: number;
  /** CNAMEs and DNAMEs followed. */
  aliases: number;
  /** Questions for DS and DNSKEY that one question may cause. */
  chainQuestions: number;
};

export const DEFAULT_LIMITS: Limits = {
  verificationsPerRrset: 8,
  verifications: 40,
  failures: 12,
  proofs: 12,
  keysPerTag: 4,
  nsec3Rounds: 5000,
  nsec3Iterations: 150,
  records: 1000,
  aliases: 11,
  chainQuestions: 64,
};

/** A limit was reached; caught where the verdict is made. */
export class WorkExceeded extends Error {
  override name = 'WorkExceeded';
}

/** What one question has used up so far. */
export class Work {
  readonly limits: Limits;
  #verifications = 0;
  #failures = 0;
  #rounds = 0;
  #chainQuestions = 0;
  #roundsSinceBreath = 0;

  constructor(limits: Limits) {
    this.limits = limits;
  }

  verification(): void {
    if (++this.#verifications > this.limits.verifications) {
      throw new WorkExceeded(`more than ${this.limits.verifications} signatures to check`);
    }
  }

  failure(): void {
    if (++this.#failures > this.limits.failures) {
      throw new WorkExceeded(`more than ${this.limits.failures} signatures are wrong`);
    }
  }

  async nsec3Hash(iterations: number): Promise<void> {
    this.#rounds += iterations + 1;
    this.#roundsSinceBreath += iterations + 1;
    if (this.#rounds > this.limits.nsec3Rounds) throw new WorkExceeded('too many NSEC3 hashes to compute');
    if (this.#roundsSinceBreath < ROUNDS_PER_SLICE) return;
    this.#roundsSinceBreath = 0;
    await breathe();
  }

  chainQuestion(): void {
    if (++this.#chainQuestions > this.limits.chainQuestions) {
      throw new WorkExceeded(`more than ${this.limits.chainQuestions} questions for DS and DNSKEY`);
    }
  }
}

/** About half a millisecond. */
const ROUNDS_PER_SLICE = 500;

/** Lets everything else that is waiting run before going on. */
export function breathe(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve));
}
