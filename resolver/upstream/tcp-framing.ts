/**
 * DNS over a byte stream: two octets of length before each message (RFC 1035 section 4.2.2, RFC 7766 section 8).
 * Pure: chunks in, whole messages out.
 */

/** Puts the length in front of a message, in one buffer so that it leaves in one segment (RFC 7766 section 8). */
export function frame(message: Uint8Array): Uint8Array {
  const framed = new Uint8Array(message.length + 2);
  framed[0] = message.length >> 8;
  framed[1] = message.length & 0xff;
  framed.set(message, 2);
  return framed;
}

/**
 * Cuts a byte stream into messages.
 *
 * Holds at most one unfinished message, so at most `limit` octets plus the chunk at hand. Every message handed out is
 * a copy of exact size: whoever keeps a few octets of it does not keep a whole socket buffer alive.
 */
export class Deframer {
  /** The message being filled, once its length is known. */
  #message: Uint8Array | undefined;
  #filled = 0;
  /** First octet of a length whose second octet has not come yet. */
  #lengthHigh = -1;
  readonly #limit: number;

  /** `limit`: largest acceptable message, octets (at most 65535). */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** True between messages: nothing begun, nothing lost when the stream ends here. */
  get atBoundary(): boolean {
    return this.#message === undefined && this.#lengthHigh < 0;
  }

  /**
   * Takes the next octets of the stream and hands each completed message to `deliver`, in order.
   *
   * Returns false when a length is over the limit: the stream is then of no more use. `deliver` returns false to stop
   * early (the rest of the chunk is dropped; for streams that are being closed).
   */
  push(chunk: Uint8Array, deliver: (message: Uint8Array) => boolean): boolean {
    let at = 0;
    while (at < chunk.length) {
      if (this.#message === undefined) {
        const octet = chunk[at++]!;
        if (this.#lengthHigh < 0) {
          this.#lengthHigh = octet;
          continue;
        }
        const length = (this.#lengthHigh << 8) | octet;
        this.#lengthHigh = -1;
        if (length > this.#limit) return false;
        this.#message = new Uint8Array(length);
        this.#filled = 0;
      }
      const take = Math.min(this.#message.length - this.#filled, chunk.length - at);
      this.#message.set(chunk.subarray(at, at + take), this.#filled);
      at += take;
      this.#filled += take;
      if (this.#filled === this.#message.length) {
        const whole = this.#message;
        this.#message = undefined;
        if (!deliver(whole)) return true;
      }
    }
    return true;
  }
}
