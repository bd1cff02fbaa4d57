/** Mutations: real inputs with something wrong in them, the same for the same seed. */

/** Numbers from a seed; 32 bits of state, which is plenty for mutations (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 0 to 2^32 - 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }

  /** 0 to `limit` - 1; 0 when `limit` is 0. */
  below(limit: number): number {
    return limit === 0 ? 0 : this.next() % limit;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
}

/** The random numbers of one case: they depend on nothing else than these three. */
export function randomOf(seed: number, target: string, index: number): Random {
  let hash = 0x811c9dc5 ^ seed;
  for (let i = 0; i < target.length; i++) hash = Math.imul(hash ^ target.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (index & 0xffff), 0x01000193);
  hash = Math.imul(hash ^ (index >>> 16), 0x01000193);
  return new Random(Math.imul(hash ^ (hash >>> 13), 0x5bd1e995));
}

/** Octets that sit on the edges of DNS, IKE and netlink: lengths, pointers, flags. */
const EDGES = [0, 1, 2, 3, 4, 0x0c, 0x29, 0x2e, 0x3f, 0x40, 0x7f, 0x80, 0xbf, 0xc0, 0xc1, 0xfe, 0xff];
/** Nothing that came over a network is longer. */
const MAX_OCTETS = 65_535;

/**
 * One to eight changes of one member of the corpus.
 *
 * `words`: tokens of the format, put in whole now and then. One case in 64 is a member as it is, one in 64 only noise.
 */
export function mutate(
  corpus: readonly Uint8Array[],
  random: Random,
  words: readonly Uint8Array[] = [],
): Uint8Array {
  const way = random.below(64);
  if (way === 0 || corpus.length === 0) return noise(random, random.below(200));
  let bytes: Uint8Array = Uint8Array.from(random.pick(corpus));
  if (way === 1) return bytes;
  for (let changes = 1 + random.below(random.below(8) + 1); changes > 0; changes--) {
    bytes = changed(bytes, corpus, random, words);
  }
  return bytes.length > MAX_OCTETS ? bytes.slice(0, MAX_OCTETS) : bytes;
}

function changed(
  bytes: Uint8Array,
  corpus: readonly Uint8Array[],
  random: Random,
  words: readonly Uint8Array[],
): Uint8Array {
  const at = random.below(bytes.length);
  const left = bytes.length - at;
  switch (random.below(words.length > 0 ? 13 : 12)) {
    case 0: // a bit
      if (left > 0) bytes[at]! ^= 1 << random.below(8);
      return bytes;
    case 1: // an octet
      if (left > 0) bytes[at] = random.below(256);
      return bytes;
    case 2:
      if (left > 0) bytes[at] = random.pick(EDGES);
      return bytes;
    case 3: // a little more or less: lengths and counts
      if (left > 0) bytes[at] = bytes[at]! + random.below(9) - 4;
      return bytes;
    case 4: // 16 bits
      if (left > 1) bytes.set([random.pick(EDGES), random.pick(EDGES)], at);
      return bytes;
    case 5: // a compression pointer
      if (left > 1) bytes.set([0xc0 | random.below(1 + (bytes.length >> 8)), random.below(256)], at);
      return bytes;
    case 6: // the end is missing
      return bytes.slice(0, at);
    case 7: // a piece is missing
      return spliced(bytes, at, random.below(Math.min(left, 32) + 1), new Uint8Array(0));
    case 8: // a piece too many
      return spliced(bytes, at, 0, noise(random, random.below(16)));
    case 9: {
      // a piece twice, or often
      const piece = bytes.slice(at, at + 1 + random.below(Math.min(left, 64)));
      const times = random.below(8) === 0 ? random.below(200) : 1;
      const repeated = new Uint8Array(piece.length * times);
      for (let i = 0; i < times; i++) repeated.set(piece, i * piece.length);
      return spliced(bytes, at, 0, repeated);
    }
    case 10: {
      // a piece of another member
      const other = random.pick(corpus);
      const from = random.below(other.length);
      return spliced(bytes, at, 0, other.subarray(from, from + random.below(other.length - from + 1)));
    }
    case 11: {
      // the end of another member
      const other = random.pick(corpus);
      return spliced(bytes, at, left, other.subarray(Math.min(at, other.length)));
    }
    default:
      return spliced(bytes, at, random.below(Math.min(left, 2) + 1), random.pick(words));
  }
}

function spliced(bytes: Uint8Array, at: number, remove: number, insert: Uint8Array): Uint8Array {
  const result = new Uint8Array(bytes.length - remove + insert.length);
  result.set(bytes.subarray(0, at));
  result.set(insert, at);
  result.set(bytes.subarray(at + remove), at + insert.length);
  return result;
}

function noise(random: Random, octets: number): Uint8Array {
  return Uint8Array.from({ length: octets }, () => random.next());
}
