/** A keyed hash over names: HalfSipHash-1-3 (Aumasson and Bernstein), the one that Linux uses for its own tables. */

/** Octets in lower case (RFC 4343); lengths of labels lie below the letters, so whole names can be run through it. */
export const LOWER = Uint8Array.from({ length: 256 }, (_, octet) =>
  octet >= 0x41 && octet <= 0x5a ? octet + 0x20 : octet,
);

/**
 * Of `word` (little-endian) and `octets` octets from `bytes[at]` on, in lower case; an unsigned 32-bit number.
 *
 * `keys`: two, random. Allocates nothing.
 */
export function keyedHash(
  keys: Uint32Array,
  word: number,
  bytes: Uint8Array,
  at: number,
  octets: number,
): number {
  let v0 = keys[0]! | 0;
  let v1 = keys[1]! | 0;
  let v2 = keys[0]! ^ 0x6c796765;
  let v3 = keys[1]! ^ 0x74656462;
  const words = octets >> 2;
  let i = at;
  let message = word;
  // Each step takes in one word; then the rest with the length, and three rounds more, which is taking in zeros.
  for (let step = 0; step < words + 5; step++) {
    if (step > 0 && step <= words) {
      message =
        LOWER[bytes[i]!]! |
        (LOWER[bytes[i + 1]!]! << 8) |
        (LOWER[bytes[i + 2]!]! << 16) |
        (LOWER[bytes[i + 3]!]! << 24);
      i += 4;
    } else if (step === words + 1) {
      message = (octets + 4) << 24;
      for (let shift = 0; i < at + octets; i++, shift += 8) message |= LOWER[bytes[i]!]! << shift;
    } else if (step === words + 2) {
      message = 0;
      v2 ^= 0xff;
    }
    v3 ^= message;
    v0 = (v0 + v1) | 0;
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
    v0 = (v0 << 16) | (v0 >>> 16);
    v2 = (v2 + v3) | 0;
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
    v2 = (v2 << 16) | (v2 >>> 16);
    v0 ^= message;
  }
  return (v1 ^ v3) >>> 0;
}
