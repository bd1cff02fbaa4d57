/** Results kept for their TTL and shared by all who ask while they are being made. */

/** `octets`: what it holds that others may choose the size of. */
export type Kept<T> = { value: T; ttlSeconds: number; octets?: number };

type Entry = { made: Promise<Kept<unknown>>; madeAt: number; expiresAt: number; octets: number };

/**
 * Bounded in entries and octets: the oldest goes first. `now` in seconds, by the clock that signatures are judged by: when that is
 * set back, what was made by the wrong time is over at once. A key always belongs to the same type of value.
 */
export class Keeper {
  readonly #now: () => number;
  readonly #maxEntries: number;
  readonly #maxTtlSeconds: number;
  readonly #maxOctets: number;
  readonly #entries = new Map<string, Entry>();
  #octets = 0;

  constructor(
    now: () => number,
    maxEntries: number,
    maxTtlSeconds: number,
    maxOctets: number = Number.POSITIVE_INFINITY,
  ) {
    this.#now = now;
    this.#maxEntries = maxEntries;
    this.#maxTtlSeconds = maxTtlSeconds;
    this.#maxOctets = maxOctets;
  }

  /**
   * What is kept under `key`, else what `make` finds.
   *
   * A failure is not kept and ends only the question that made it; those who waited for it go and see for themselves.
   */
  async get<T>(key: string, make: () => Promise<Kept<T>>): Promise<T> {
    for (let known = this.peek<T>(key); known !== undefined; known = this.peek<T>(key)) {
      const kept = await known.catch(() => undefined);
      if (kept !== undefined) return kept.value;
    }
    const made = make();
    const entry: Entry = {
      made: made as Promise<Kept<unknown>>,
      madeAt: Number.NEGATIVE_INFINITY,
      expiresAt: Number.POSITIVE_INFINITY,
      octets: 0,
    };
    this.delete(key);
    this.#entries.set(key, entry);
    this.#keepBounds();
    try {
      const { value, ttlSeconds, octets = 0 } = await made;
      if (this.#entries.get(key) === entry) {
        entry.octets = octets;
        this.#octets += octets;
        this.#keepBounds();
      }
      entry.madeAt = this.#now();
      entry.expiresAt = entry.madeAt + Math.min(ttlSeconds, this.#maxTtlSeconds);
      return value;
    } catch (error) {
      if (this.#entries.get(key) === entry) this.delete(key);
      throw error;
    }
  }

  /** What is kept or being made; undefined when nothing is, or its time is over. */
  peek<T>(key: string): Promise<Kept<T>> | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    const now = this.#now();
    if (entry.madeAt <= now && now < entry.expiresAt) return entry.made as Promise<Kept<T>>;
    this.delete(key);
    return undefined;
  }

  /** Forgets; what is being made is delivered to those who wait, and not kept. */
  delete(key: string): void {
    this.#octets -= this.#entries.get(key)?.octets ?? 0;
    this.#entries.delete(key);
  }

  clear(): void {
    this.#entries.clear();
    this.#octets = 0;
  }

  #keepBounds(): void {
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= this.#maxEntries && this.#octets <= this.#maxOctets) return;
      this.delete(oldest);
    }
  }
}
