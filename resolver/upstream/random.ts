/** Random numbers by the handful: one call for many, since each costs more than sending a question. */

const POOL_OCTETS = 4096;

/** What IDs, letters and cookies are drawn from. */
export class RandomSource {
  readonly #octets: (count: number) => Uint8Array;
  #pool: Uint8Array = new Uint8Array(0);
  #at = 0;

  /** `octets`: a cryptographic source, such as node:crypto's randomBytes. */
  constructor(octets: (count: number) => Uint8Array) {
    this.#octets = octets;
  }

  uint16(): number {
    const at = this.#take(2);
    return (this.#pool[at]! << 8) | this.#pool[at + 1]!;
  }

  uint32(): number {
    return ((this.uint16() << 16) | this.uint16()) >>> 0;
  }

  octets(count: number): Uint8Array {
    const at = this.#take(count);
    return this.#pool.slice(at, at + count);
  }

  #take(count: number): number {
    if (this.#at + count > this.#pool.length) {
      this.#pool = new Uint8Array(this.#octets(POOL_OCTETS));
      this.#at = 0;
    }
    this.#at += count;
    return this.#at - count;
  }
}
