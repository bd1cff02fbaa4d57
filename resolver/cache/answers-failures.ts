/** Failures, believed for seconds so that what is broken is not asked for with every question (RFC 9520). */
import type { Resolution } from '../dnssec/types.ts';
import { aged, compacted } from './answers-entry.ts';

/** How long a failure is believed when it has happened once, twice in a row, … (RFC 9520 section 3.2). */
const FAILURE_TTL_SECONDS = [5, 10, 20, 30];
/** One that comes so long after the end of the one before is the first again. */
const IN_A_ROW_MILLIS = 60_000;
/** Of memory; what was stored first goes first. Bogus answers are kept whole, for clients that check for themselves. */
const MAX_BYTES = 4 << 20;

type Failure = {
  resolution: Resolution;
  storedAt: number;
  lifeMillis: number;
  inARow: number;
  bytes: number;
};

export class Failures {
  readonly #now: () => number;
  readonly #failures = new Map<string, Failure>();
  #bytes = 0;

  /** `now`: milliseconds, monotonic. */
  constructor(now: () => number) {
    this.#now = now;
  }

  get size(): number {
    return this.#failures.size;
  }

  get(key: string): Resolution | undefined {
    const failure = this.#failures.get(key);
    if (failure === undefined) return undefined;
    const age = this.#now() - failure.storedAt;
    return age < failure.lifeMillis ? aged(failure.resolution, Math.floor(age / 1000)) : undefined;
  }

  /** Keeps it, longer when it follows upon others, and returns it with the TTL that it has here. */
  keep(key: string, found: Resolution): Resolution {
    const before = this.#failures.get(key);
    const since =
      before === undefined ? Number.POSITIVE_INFINITY : this.#now() - before.storedAt - before.lifeMillis;
    const inARow = before !== undefined && since < IN_A_ROW_MILLIS ? before.inARow + 1 : 1;
    const ttlSeconds = FAILURE_TTL_SECONDS[Math.min(inARow, FAILURE_TTL_SECONDS.length) - 1]!;
    const { resolution, bytes } = compacted(found, ttlSeconds);
    const lifeMillis = ttlSeconds * 1000;
    this.delete(key);
    this.#failures.set(key, { resolution, storedAt: this.#now(), lifeMillis, inARow, bytes });
    this.#bytes += bytes;
    for (const oldest of this.#failures.keys()) {
      if (this.#bytes <= MAX_BYTES) break;
      this.delete(oldest);
    }
    return resolution;
  }

  delete(key: string): boolean {
    this.#bytes -= this.#failures.get(key)?.bytes ?? 0;
    return this.#failures.delete(key);
  }

  keys(): Iterable<string> {
    return this.#failures.keys();
  }
}
