/** Results kept for their TTL and shared by all who ask while they are being made. */

export type Kept<T> = { value: T; ttlSeconds: number };

/**
 * Bounded in entries: the oldest goes first. `now` in seconds, by the clock that signatures are judged by: when that is
 * set back, what was made by the wrong time is over at once. A key always belongs to the same type of value.
 */
export class Keeper {
  readonly #now: () => number;
  readonly #maxEntries: number;
  readonly #maxTtlSeconds: number;
  readonly #entries = new Map<string, { made: Promise<Kept<unknown>>; madeAt: number; expiresAt: number }>();

  constructor(now: () => number, maxEntries: number, maxTtlSeconds: number) {
    this.#now = now;
    this.#maxEntries = maxEntries;
    this.#maxTtlSeconds = maxTtlSeconds;
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
    const entry = {
      made: made as Promise<Kept<unknown>>,
      madeAt: Number.NEGATIVE_INFINITY,
      expiresAt: Number.POSITIVE_INFINITY,
    };
    this.#entries.set(key, entry);
    if (this.#entries.size > this.#maxEntries) this.#entries.delete(this.#entries.keys().next().value!);
    try {
      const { value, ttlSeconds } = await made;
      entry.madeAt = this.#now();
      entry.expiresAt = entry.madeAt + Math.min(ttlSeconds, this.#maxTtlSeconds);
      return value;
    } catch (error) {
      if (this.#entries.get(key) === entry) this.#entries.delete(key);
      throw error;
    }
  }

  /** What is kept or being made; undefined when nothing is, or its time is over. */
  peek<T>(key: string): Promise<Kept<T>> | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    const now = this.#now();
    if (entry.madeAt <= now && now < entry.expiresAt) return entry.made as Promise<Kept<T>>;
    this.#entries.delete(key);
    return undefined;
  }

  /** Forgets; what is being made is delivered to those who wait, and not kept. */
  delete(key: string): void {
    this.#entries.delete(key);
  }

  clear(): void {
    this.#entries.clear();
  }
}
