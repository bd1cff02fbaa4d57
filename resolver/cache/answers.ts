/** Judged answers, kept as long as their TTL allows and their number of octets permits (RFC 2308, RFC 9520). */
import type { Name } from '../dns/name.ts';
import type { Rrset } from '../dns/rrset.ts';
import { TYPE } from '../dns/types.ts';
import type { Resolution } from '../dnssec/types.ts';

/** What is behind the cache; never rejects. `refresh`: ask anew even for what is kept back there. */
export type Lookup = {
  lookup(name: Name, type: number, options?: { refresh?: boolean }): Promise<Resolution>;
  flush?(name: Name): number;
  flushAll?(): number;
};

export type CacheConfig = {
  /** Milliseconds, monotonic: a clock that is set back must not bring the dead to life. */
  now?: () => number;
  /** Milliseconds, of the day: the monotonic clock of Linux stands still while a machine sleeps, TTLs do not. */
  wallClock?: () => number;
  /** About so many octets of memory; the least recently used go first. */
  maxBytes?: number;
};

const MAX_BYTES = 32 << 20;
/** No answer is kept longer, whatever its owner says (RFC 8767 section 4 suggests such a bound). */
const MAX_TTL_SECONDS = 86_400;
/** RFC 2308 section 5 suggests one to three hours. */
const MAX_NEGATIVE_TTL_SECONDS = 10_800;
/** How long a failure is believed when it has happened once, twice in a row, … (RFC 9520 section 3.2). */
const FAILURE_TTL_SECONDS = [5, 10, 20, 30];

type Entry = {
  resolution: Resolution;
  storedAt: number;
  storedAtWall: number;
  lifeMillis: number;
  bytes: number;
  /** Failures in a row, this one included. */
  failures: number;
  usedAt: number;
  /** What was handed out last, and for which age: all who ask within one second share it. */
  view: Resolution;
  viewAge: number;
};

/**
 * A cache round a lookup; equal lookups in flight are one.
 *
 * What it hands out is frozen, shared by all who ask within the same second, and has its TTLs counted down: they never
 * exceed what is left of the whole. Octets of RDATA cannot be frozen; do not write to them.
 */
export class CachedResolver {
  readonly #inner: Lookup;
  readonly #now: () => number;
  readonly #wallClock: () => number;
  readonly #maxBytes: number;
  /** The least recently used first. */
  readonly #entries = new Map<string, Entry>();
  readonly #inFlight = new Map<string, Promise<Resolution>>();
  #bytes = 0;
  readonly #counters = { hits: 0, misses: 0, coalesced: 0, evicted: 0 };

  constructor(inner: Lookup, config: CacheConfig = {}) {
    this.#inner = inner;
    this.#now = config.now ?? (() => performance.now());
    this.#wallClock = config.wallClock ?? Date.now;
    this.#maxBytes = config.maxBytes ?? MAX_BYTES;
  }

  /** The answer from the cache, or from behind it. */
  lookup(name: Name, type: number): Promise<Resolution> {
    const key = keyOf(name, type);
    const cached = this.#fresh(key);
    if (cached !== undefined) {
      this.#counters.hits++;
      return Promise.resolve(cached);
    }
    const pending = this.#inFlight.get(key);
    if (pending !== undefined) {
      this.#counters.coalesced++;
      return pending;
    }
    this.#counters.misses++;
    const flight: Promise<Resolution> = this.#inner.lookup(name, type).then(
      resolution => this.#store(key, flight, resolution),
      (error: unknown) => {
        if (this.#inFlight.get(key) === flight) this.#inFlight.delete(key);
        throw error;
      },
    );
    this.#inFlight.set(key, flight);
    return flight;
  }

  /** The answer if it is in the cache and still good; asks nobody. */
  peek(name: Name, type: number): Resolution | undefined {
    return this.#fresh(keyOf(name, type));
  }

  /** Forgets all types of one name, also behind it; how many answers that were. What is in flight is delivered, not kept. */
  flush(name: Name): number {
    this.#inner.flush?.(name);
    return this.#forget(key => key.startsWith(name.key));
  }

  flushAll(): number {
    this.#inner.flushAll?.();
    return this.#forget(() => true);
  }

  counters(): Record<string, number> {
    return {
      ...this.#counters,
      entries: this.#entries.size,
      bytes: this.#bytes,
      inFlight: this.#inFlight.size,
    };
  }

  #fresh(key: string): Resolution | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    const now = this.#now();
    const ageMillis = Math.max(now - entry.storedAt, this.#wallClock() - entry.storedAtWall);
    if (ageMillis >= entry.lifeMillis) return undefined;
    if (now - entry.usedAt >= 1000) {
      // Within a second the order does not matter, and popular names stay cheap.
      entry.usedAt = now;
      this.#entries.delete(key);
      this.#entries.set(key, entry);
    }
    const age = Math.floor(ageMillis / 1000);
    if (age !== entry.viewAge) {
      entry.view = aged(entry.resolution, age);
      entry.viewAge = age;
    }
    return entry.view;
  }

  #store(key: string, flight: Promise<Resolution>, found: Resolution): Resolution {
    const previous = this.#entries.get(key);
    const failures = isFailure(found) ? (previous?.failures ?? 0) + 1 : 0;
    const ttlSeconds = keepSeconds(found, failures);
    const { resolution, bytes } = compacted(found, ttlSeconds);
    // Flushed while it was under way: those who wait get it, those who come later do not.
    if (this.#inFlight.get(key) !== flight) return resolution;
    this.#inFlight.delete(key);
    this.#remove(key);
    if (ttlSeconds === 0) return resolution;
    const now = this.#now();
    const total = bytes + ENTRY_OCTETS + 2 * key.length;
    this.#entries.set(key, {
      resolution,
      storedAt: now,
      storedAtWall: this.#wallClock(),
      lifeMillis: ttlSeconds * 1000,
      bytes: total,
      failures,
      usedAt: now,
      view: resolution,
      viewAge: 0,
    });
    this.#bytes += total;
    for (const oldest of this.#entries.keys()) {
      if (this.#bytes <= this.#maxBytes) break;
      this.#remove(oldest);
      this.#counters.evicted++;
    }
    return resolution;
  }

  #forget(which: (key: string) => boolean): number {
    for (const key of this.#inFlight.keys()) if (which(key)) this.#inFlight.delete(key);
    let forgotten = 0;
    for (const key of [...this.#entries.keys()]) {
      if (!which(key)) continue;
      this.#remove(key);
      forgotten++;
    }
    return forgotten;
  }

  #remove(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    this.#entries.delete(key);
    this.#bytes -= entry.bytes;
  }
}

/** The name's key ends with the root's zero, so that no name's key begins with another's. */
function keyOf(name: Name, type: number): string {
  return name.key + String.fromCharCode(type);
}

function isFailure({ outcome, verdict }: Resolution): boolean {
  return outcome === 'failure' || verdict === 'bogus' || verdict === 'indeterminate';
}

/** How long to keep it; 0: not at all. */
function keepSeconds(found: Resolution, failures: number): number {
  if (failures > 0) return FAILURE_TTL_SECONDS[Math.min(failures, FAILURE_TTL_SECONDS.length) - 1]!;
  let seconds = Math.min(found.ttlSeconds, MAX_TTL_SECONDS);
  for (const { ttlSeconds } of found.answer) seconds = Math.min(seconds, ttlSeconds);
  if (found.outcome !== 'positive') {
    const soa = found.authority.find(({ type }) => type === TYPE.SOA);
    // RFC 2308 section 5: without SOA there is nothing that says how long.
    if (soa === undefined) return 0;
    seconds = Math.min(seconds, MAX_NEGATIVE_TTL_SECONDS, soa.ttlSeconds, soaMinimum(soa));
  }
  return Math.max(0, Math.floor(seconds));
}

/** The last of SOA's fields (RFC 1035 section 3.3.13). */
function soaMinimum({ rdatas }: Rrset): number {
  const rdata = rdatas[0];
  if (rdata === undefined || rdata.length < 22) return 0;
  return new DataView(rdata.buffer, rdata.byteOffset, rdata.byteLength).getUint32(rdata.length - 4);
}

/** Roughly what V8 takes for an entry, an RRset with its name, and one view of octets. */
const ENTRY_OCTETS = 500;
const RRSET_OCTETS = 350;
const VIEW_OCTETS = 120;

/** A frozen copy whose RDATA share one buffer of exact size, so that no message is kept alive by a few of its octets. */
function compacted(found: Resolution, ttlSeconds: number): { resolution: Resolution; bytes: number } {
  let octets = 0;
  let views = 0;
  for (const rrset of [...found.answer, ...found.authority]) {
    for (const rdata of rrset.rdatas) octets += rdata.length;
    for (const rdata of rrset.signatures) octets += rdata.length;
    views += rrset.rdatas.length + rrset.signatures.length;
  }
  const buffer = new Uint8Array(octets);
  let at = 0;
  const copy = (rdata: Uint8Array): Uint8Array => {
    buffer.set(rdata, at);
    at += rdata.length;
    return buffer.subarray(at - rdata.length, at);
  };
  const copyRrset = (rrset: Rrset): Rrset =>
    Object.freeze({
      name: rrset.name,
      type: rrset.type,
      class: rrset.class,
      ttlSeconds: ttlSeconds === 0 ? rrset.ttlSeconds : Math.min(rrset.ttlSeconds, ttlSeconds),
      rdatas: freezeArray(rrset.rdatas.map(copy)),
      signatures: freezeArray(rrset.signatures.map(copy)),
    });
  const resolution: Resolution = Object.freeze({
    ...found,
    question: Object.freeze({ ...found.question }),
    answer: freezeArray(found.answer.map(copyRrset)),
    authority: freezeArray(found.authority.map(copyRrset)),
    ttlSeconds: ttlSeconds === 0 ? found.ttlSeconds : ttlSeconds,
  });
  const rrsets = found.answer.length + found.authority.length;
  return { resolution, bytes: octets + rrsets * RRSET_OCTETS + views * VIEW_OCTETS };
}

/** The same, `age` seconds later. */
function aged(resolution: Resolution, age: number): Resolution {
  const later = (rrset: Rrset): Rrset =>
    Object.freeze({ ...rrset, ttlSeconds: Math.max(0, rrset.ttlSeconds - age) });
  return Object.freeze({
    ...resolution,
    answer: freezeArray(resolution.answer.map(later)),
    authority: freezeArray(resolution.authority.map(later)),
    ttlSeconds: resolution.ttlSeconds - age,
  });
}

/** Frozen at run time; the type stays that of the contract. */
function freezeArray<T>(array: T[]): T[] {
  return Object.freeze(array) as T[];
}
