/**
 * Kept responses: what was composed once is copied for whoever asks the same, and nothing is encoded anew.
 *
 * Patched in: ID, RD, CD, AD and the question as the client spelt it; TTLs go down by the response's age; what is larger
 * than the client takes over UDP goes out with TC. For any question the result is, octet by octet, what
 * `composeResponse` makes of the same answer that much later.
 *
 * A response is used while its lease holds, and for the first nine tenths of its least TTL. Then the
 * question goes the whole way, so that what is popular is fetched again before it ends, and its seals are looked at.
 *
 * Memory is a ring of octets and a table with eight places for each hash, both of fixed size: the oldest responses are
 * overwritten. Whoever floods it costs others a composing, and nobody more than eight comparisons; the hash is keyed, so
 * that nobody can choose whose place he takes.
 */
import { TYPE } from '../dns/types.ts';
import { isUsefulInPart, udpLimit } from './answer.ts';
import { keyedHash, LOWER } from './hash.ts';
import type { StubQuery } from './query.ts';
import type { Lease } from './types.ts';

const HEADER_OCTETS = 12;
const OPT_OCTETS = 11;
/** Longer responses are rare, and composed each time. */
export const MAX_KEPT_OCTETS = 4096;
const RING_OCTETS = 8 << 20;
const BUCKETS = 8192;
const WAYS = 8;
/** Of the least TTL. */
const KEPT_SHARE = 0.9;

/** What else than name and type makes a response another one. */
const WITH_EDNS = 1;
const DNSSEC_OK = 2;
const CHECKING_DISABLED = 4;

const NO_GROUNDS: Lease['grounds'] = [];

export class KeptResponses {
  readonly #now: () => number;
  readonly #wallClock: () => number;
  readonly #keys: Uint32Array;
  readonly #ringOctets: number;
  readonly #ring: Uint8Array;
  /** How many octets were ever written: where the next response goes, modulo the ring. */
  #written = 0;
  readonly #hashes = new Uint32Array(BUCKETS * WAYS);
  /** Of `#written` at its beginning; overwritten when that lies a whole ring back. */
  readonly #positions = new Float64Array(BUCKETS * WAYS);
  readonly #storedAt = new Float64Array(BUCKETS * WAYS);
  readonly #storedAtWall = new Float64Array(BUCKETS * WAYS);
  /** 0 for a place that is free. */
  readonly #lifeMillis = new Float64Array(BUCKETS * WAYS);
  readonly #octets = new Uint16Array(BUCKETS * WAYS);
  readonly #nameOctets = new Uint8Array(BUCKETS * WAYS);
  readonly #optOctets = new Uint16Array(BUCKETS * WAYS);
  readonly #ttls = new Uint16Array(BUCKETS * WAYS);
  readonly #variants = new Uint8Array(BUCKETS * WAYS);
  readonly #grounds = new Array<Lease['grounds']>(BUCKETS * WAYS).fill(NO_GROUNDS);
  /** The clocks when `tick` was called last. */
  #time = 0;
  #wallTime = 0;
  readonly counters = { stored: 0, used: 0, lapsed: 0 };

  constructor(options: {
    /** Milliseconds, monotonic. */
    now: () => number;
    /** Milliseconds, of the day: the monotonic clock stands still while a machine sleeps, TTLs do not. */
    wallClock: () => number;
    /** Two random 32-bit numbers. */
    hashKeys: Uint32Array;
    ringOctets?: number;
  }) {
    this.#now = options.now;
    this.#wallClock = options.wallClock;
    this.#keys = options.hashKeys;
    this.#ringOctets = options.ringOctets ?? RING_OCTETS;
    this.#ring = new Uint8Array(this.#ringOctets);
    this.tick();
  }

  /** Reads the clocks; to be called before a batch of `answer`. */
  tick(): void {
    this.#time = this.#now();
    this.#wallTime = this.#wallClock();
  }

  /**
   * Answers the query at `bytes[at]` in its place; the octets of the response, or 0 when there is none to be used.
   *
   * The room from `at` on must be as large as the response can be: 1,232 octets over UDP, MAX_KEPT_OCTETS over TCP.
   * With 0 the query stands as it came. Allocates nothing.
   */
  answer(bytes: Uint8Array, at: number, length: number, transport: 'udp' | 'tcp'): number {
    const end = at + length;
    // QR and opcode 0, one question, no answers, no authority, at most OPT.
    if (length < HEADER_OCTETS + 5 || (bytes[at + 2]! & 0xf8) !== 0) return 0;
    if (bytes[at + 4] !== 0 || bytes[at + 5] !== 1) return 0;
    if ((bytes[at + 6]! | bytes[at + 7]! | bytes[at + 8]! | bytes[at + 9]! | bytes[at + 10]!) !== 0) return 0;
    const nameAt = at + HEADER_OCTETS;
    let nameEnd = nameAt;
    for (let label = bytes[nameEnd]!; label !== 0; label = bytes[nameEnd]!) {
      nameEnd += label + 1;
      if (label > 63 || nameEnd >= end) return 0;
    }
    nameEnd++;
    const nameOctets = nameEnd - nameAt;
    const questionEnd = nameEnd + 4;
    if (nameOctets > 255 || questionEnd > end || bytes[nameEnd + 2] !== 0 || bytes[nameEnd + 3] !== 1)
      return 0;
    let variant = (bytes[at + 3]! & 0x10) === 0 ? 0 : CHECKING_DISABLED;
    let udpSize = -1;
    if (bytes[at + 11] !== 0) {
      if (!isPlainOpt(bytes, at, questionEnd, end)) return 0;
      udpSize = (bytes[questionEnd + 3]! << 8) | bytes[questionEnd + 4]!;
      variant |= WITH_EDNS | ((bytes[questionEnd + 7]! & 0x80) === 0 ? 0 : DNSSEC_OK);
    } else if (questionEnd !== end) return 0;
    const slot = this.#find(bytes, nameAt, nameOctets, variant);
    if (slot < 0) return 0;
    const age = this.#usableAge(slot);
    if (age < 0) return 0;
    return this.#write(bytes, at, questionEnd, slot, age, transport === 'tcp' ? 0xffff : udpLimit(udpSize));
  }

  /**
   * Keeps a whole response, composed for `query` with room for everything; replaces one for the same question.
   *
   * Not kept: what is longer than MAX_KEPT_OCTETS, has no TTL, or other RCODEs than NOERROR and NXDOMAIN.
   */
  keep(query: StubQuery, response: Uint8Array, authenticated: boolean, lease: Lease): void {
    const { name, questionEnd } = query;
    const rcode = response[3]! & 0x0f;
    if (response.length > MAX_KEPT_OCTETS || (rcode !== 0 && rcode !== 3)) return;
    const found = readTtls(response, questionEnd);
    const lifeMillis = Math.min(found.leastSeconds * KEPT_SHARE, lease.seconds) * 1000;
    if (found.count === 0 || lifeMillis <= 0) return;
    this.tick();
    const variant =
      (query.checkingDisabled ? CHECKING_DISABLED : 0) |
      (query.edns === undefined ? 0 : WITH_EDNS) |
      (query.edns?.dnssecOk === true ? DNSSEC_OK : 0);
    const nameOctets = name.wire.length;
    const hash = this.#hash(query.bytes, HEADER_OCTETS, nameOctets, variant);
    const slot = this.#place(query.bytes, HEADER_OCTETS, nameOctets, variant, hash);
    const start = this.#reserve(response.length + 2 * found.count);
    const ring = this.#ring;
    const base = start % this.#ringOctets;
    ring.set(response, base);
    for (let i = base + HEADER_OCTETS; i < base + HEADER_OCTETS + nameOctets; i++) ring[i] = LOWER[ring[i]!]!;
    ring[base + 2] = 0;
    ring[base + 3] = (authenticated ? 0x20 : 0) | rcode;
    for (let i = 0; i < found.count; i++) {
      ring[base + response.length + 2 * i] = ttlOffsets[i]! >> 8;
      ring[base + response.length + 2 * i + 1] = ttlOffsets[i]! & 0xff;
    }
    this.#hashes[slot] = hash;
    this.#positions[slot] = start;
    this.#storedAt[slot] = this.#time;
    this.#storedAtWall[slot] = this.#wallTime;
    this.#lifeMillis[slot] = lifeMillis;
    this.#octets[slot] = response.length;
    this.#nameOctets[slot] = nameOctets;
    this.#optOctets[slot] = response.length - found.end;
    this.#ttls[slot] = found.count;
    this.#variants[slot] = variant;
    this.#grounds[slot] = lease.grounds;
    this.counters.stored++;
  }

  #hash(bytes: Uint8Array, nameAt: number, nameOctets: number, variant: number): number {
    const type = (bytes[nameAt + nameOctets]! << 8) | bytes[nameAt + nameOctets + 1]!;
    return keyedHash(this.#keys, (type << 8) | variant, bytes, nameAt, nameOctets);
  }

  /** The slot of a response to this question, however old; -1 when there is none. */
  #find(bytes: Uint8Array, nameAt: number, nameOctets: number, variant: number): number {
    const hash = this.#hash(bytes, nameAt, nameOctets, variant);
    const first = (hash & (BUCKETS - 1)) * WAYS;
    for (let slot = first; slot < first + WAYS; slot++) {
      if (this.#hashes[slot] === hash && this.#isFor(slot, bytes, nameAt, nameOctets, variant)) return slot;
    }
    return -1;
  }

  #isFor(slot: number, bytes: Uint8Array, nameAt: number, nameOctets: number, variant: number): boolean {
    if (this.#variants[slot] !== variant || this.#nameOctets[slot] !== nameOctets) return false;
    if (this.#lifeMillis[slot] === 0 || !this.#isIntact(slot)) return false;
    const ring = this.#ring;
    const stored = (this.#positions[slot]! % this.#ringOctets) + HEADER_OCTETS;
    for (let i = 0; i < nameOctets; i++) {
      if (LOWER[bytes[nameAt + i]!] !== ring[stored + i]) return false;
    }
    return (
      bytes[nameAt + nameOctets] === ring[stored + nameOctets] &&
      bytes[nameAt + nameOctets + 1] === ring[stored + nameOctets + 1]
    );
  }

  #isIntact(slot: number): boolean {
    return this.#positions[slot]! >= this.#written - this.#ringOctets;
  }

  /** Seconds since it was composed; -1 when it must not be used any more. */
  #usableAge(slot: number): number {
    const ageMillis = Math.max(
      this.#time - this.#storedAt[slot]!,
      this.#wallTime - this.#storedAtWall[slot]!,
    );
    let usable = ageMillis < this.#lifeMillis[slot]!;
    const grounds = this.#grounds[slot]!;
    for (let i = 0; usable && i < grounds.length; i++) usable = grounds[i]!.stands;
    if (usable) return Math.floor(ageMillis / 1000);
    // What fell once does not stand again: free, and nothing of it is held.
    this.#lifeMillis[slot] = 0;
    this.#grounds[slot] = NO_GROUNDS;
    this.counters.lapsed++;
    return -1;
  }

  /** Where a new response goes: in the place of the old one, a free one, or the oldest. */
  #place(bytes: Uint8Array, nameAt: number, nameOctets: number, variant: number, hash: number): number {
    const first = (hash & (BUCKETS - 1)) * WAYS;
    let oldest = first;
    for (let slot = first; slot < first + WAYS; slot++) {
      if (this.#hashes[slot] === hash && this.#isFor(slot, bytes, nameAt, nameOctets, variant)) return slot;
      if (this.#ageRank(slot) < this.#ageRank(oldest)) oldest = slot;
    }
    return oldest;
  }

  #ageRank(slot: number): number {
    return this.#lifeMillis[slot] === 0 ? -1 : this.#positions[slot]!;
  }

  /** Room for so many octets in one piece. */
  #reserve(octets: number): number {
    const left = this.#ringOctets - (this.#written % this.#ringOctets);
    if (octets > left) this.#written += left;
    const start = this.#written;
    this.#written += octets;
    return start;
  }

  /** Copies the response behind the question that stands at `at`, and writes the header over the query's. */
  #write(
    bytes: Uint8Array,
    at: number,
    questionEnd: number,
    slot: number,
    age: number,
    limit: number,
  ): number {
    const ring = this.#ring;
    const base = this.#positions[slot]! % this.#ringOctets;
    const variant = this.#variants[slot]!;
    const head = questionEnd - at;
    const recordsEnd = this.#octets[slot]! - this.#optOctets[slot]!;
    const optEnd = this.#octets[slot]!;
    // Options (extended errors) that leave no room for the question alone are left out.
    let opt = this.#optOctets[slot]!;
    if (opt > OPT_OCTETS && head + opt > limit) opt = OPT_OCTETS;
    const fits = recordsEnd + opt <= limit;
    const type = (bytes[questionEnd - 4]! << 8) | bytes[questionEnd - 3]!;
    const inPart = !fits && isUsefulInPart(type, (variant & DNSSEC_OK) !== 0);
    const count = fits ? this.#ttls[slot]! : inPart ? this.#answersWithin(slot, base, limit - opt) : 0;
    const last = fits ? recordsEnd : count > 0 ? this.#recordEnd(base, optEnd, count - 1) : head;
    let to = questionEnd;
    for (let from = base + head; from < base + last; from++) bytes[to++] = ring[from]!;
    for (let from = base + optEnd - this.#optOctets[slot]!, left = opt; left > 0; left--)
      bytes[to++] = ring[from++]!;
    if (opt < this.#optOctets[slot]!) {
      bytes[to - 2] = 0;
      bytes[to - 1] = 0;
    }
    bytes[at + 2] = 0x80 | (fits ? 0 : 0x02) | (bytes[at + 2]! & 0x01);
    const mayHaveAd = fits && ((variant & DNSSEC_OK) !== 0 || (bytes[at + 3]! & 0x20) !== 0);
    const rcode = ring[base + 3]! & 0x0f;
    const ad = mayHaveAd ? ring[base + 3]! & 0x20 : 0;
    bytes[at + 3] = 0x80 | ad | (bytes[at + 3]! & 0x10) | rcode;
    for (let i = 6; i < 10; i++) bytes[at + i] = fits ? ring[base + i]! : 0;
    bytes[at + 10] = 0;
    bytes[at + 11] = variant & WITH_EDNS;
    if (!fits) {
      bytes[at + 6] = count >> 8;
      bytes[at + 7] = count & 0xff;
    }
    if (age > 0) this.#lowerTtls(bytes, at, base + optEnd, count, age);
    this.counters.used++;
    return to - at;
  }

  /** How many records of the answer section, from the first on, end within so many octets. */
  #answersWithin(slot: number, base: number, octets: number): number {
    const answers = (this.#ring[base + 6]! << 8) | this.#ring[base + 7]!;
    let count = 0;
    while (count < answers && this.#recordEnd(base, this.#octets[slot]!, count) <= octets) count++;
    return count;
  }

  /** Where record i ends, by where its TTL lies. */
  #recordEnd(base: number, offsetsAt: number, i: number): number {
    const at = base + offsetsAt + 2 * i;
    const ttlAt = (this.#ring[at]! << 8) | this.#ring[at + 1]!;
    return ttlAt + 6 + ((this.#ring[base + ttlAt + 4]! << 8) | this.#ring[base + ttlAt + 5]!);
  }

  #lowerTtls(bytes: Uint8Array, at: number, offsetsAt: number, count: number, age: number): void {
    for (let i = offsetsAt; i < offsetsAt + 2 * count; i += 2) {
      const ttlAt = at + ((this.#ring[i]! << 8) | this.#ring[i + 1]!);
      const ttl =
        ((bytes[ttlAt]! << 24) | (bytes[ttlAt + 1]! << 16) | (bytes[ttlAt + 2]! << 8) | bytes[ttlAt + 3]!) >>>
        0;
      const left = ttl > age ? ttl - age : 0;
      bytes[ttlAt] = left >>> 24;
      bytes[ttlAt + 1] = (left >>> 16) & 0xff;
      bytes[ttlAt + 2] = (left >>> 8) & 0xff;
      bytes[ttlAt + 3] = left & 0xff;
    }
  }
}

/** A lone OPT of version 0 to the end of the message, its options well formed (RFC 6891 section 6.1.2). */
function isPlainOpt(bytes: Uint8Array, at: number, optAt: number, end: number): boolean {
  if (bytes[at + 11] !== 1 || optAt + OPT_OCTETS > end) return false;
  if (bytes[optAt] !== 0 || bytes[optAt + 1] !== 0 || bytes[optAt + 2] !== TYPE.OPT) return false;
  if (bytes[optAt + 6] !== 0) return false;
  let option = optAt + OPT_OCTETS;
  if (option + ((bytes[optAt + 9]! << 8) | bytes[optAt + 10]!) !== end) return false;
  while (option + 4 <= end) option += 4 + ((bytes[option + 2]! << 8) | bytes[option + 3]!);
  return option === end;
}

/** Filled by `readTtls`. */
const ttlOffsets = new Uint16Array(MAX_KEPT_OCTETS);

/** Where the TTLs of a response of ours lie, the least of them, and where the records end and OPT begins. */
function readTtls(
  response: Uint8Array,
  questionEnd: number,
): { count: number; leastSeconds: number; end: number } {
  const count = ((response[6]! + response[8]!) << 8) + response[7]! + response[9]!;
  let leastSeconds = Number.POSITIVE_INFINITY;
  let at = questionEnd;
  for (let i = 0; i < count; i++) {
    while (response[at] !== 0 && response[at]! < 0xc0) at += response[at]! + 1;
    at += response[at] === 0 ? 1 : 2;
    ttlOffsets[i] = at + 4;
    const ttl =
      ((response[at + 4]! << 24) |
        (response[at + 5]! << 16) |
        (response[at + 6]! << 8) |
        response[at + 7]!) >>>
      0;
    leastSeconds = Math.min(leastSeconds, ttl);
    at += 10 + ((response[at + 8]! << 8) | response[at + 9]!);
  }
  return { count, leastSeconds, end: at };
}
