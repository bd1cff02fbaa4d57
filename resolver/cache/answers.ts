/**
 * Judged answers, kept as long as their TTL allows and their number of octets permits (RFC 2308).
 *
 *   fresh ── last tenth, popular ──▶ fresh, being renewed ──▶ fresh
 *     └── its TTL ends ──▶ gone, or kept to be shown as stale where nobody can be reached (RFC 8767)
 *
 * Failures are kept apart and for seconds (`answers-failures.ts`), and never in the place of what was proven before.
 */
import type { Name } from '../dns/name.ts';
import { EDE, RCODE } from '../dns/types.ts';
import type { Resolution } from '../dnssec/types.ts';
import {
  aged,
  asStale,
  compacted,
  type Entry,
  isFailure,
  lifeSeconds,
  MAX_TTL_SECONDS,
  mayBecomeStale,
  newEntry,
  saying,
  signaturesHold,
} from './answers-entry.ts';
import { Failures } from './answers-failures.ts';
import type { KeptAnswer } from './answers-image.ts';

/** What is behind the cache; never rejects. `refresh`: ask anew even for what is kept back there. */
export type Lookup = {
  lookup(name: Name, type: number, options: { signal?: AbortSignal; refresh?: boolean }): Promise<Resolution>;
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
  /** For how long after its end an answer may be shown as stale; 0: not at all. */
  maxStaleSeconds?: number;
};

/** `turn` rises when another thing is said; entries of an earlier turn are contradicted. */
type End = { said: string | undefined; turn: number; entries: number };

const MAX_BYTES = 16 << 20;
/** Renewals at one time; who comes when there are as many goes without, and asks when the time is over. */
const MAX_RENEWALS = 32;
/** An answer that came within this time is not asked for anew by whoever doubts it. */
const MOMENT_MILLIS = 5_000;
/** Asked again in so many different seconds of its life, a name is popular. */
const POPULAR_USES = 2;
/** The part of its life after which a popular answer is renewed. */
const RENEWAL_SHARE = 0.9;

/**
 * One question under way, and how many wait for it. A renewal waits for itself, so that nobody ends it by leaving.
 *
 * When it is over it holds nothing: the old tables of a Map that is filled and emptied all the time keep what was in them.
 */
type Flight = {
  outcome: Promise<Resolution> | undefined;
  waiters: number;
  cancel: AbortController | undefined;
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
  readonly #maxStaleMillis: number;
  /** The least recently used first. */
  readonly #entries = new Map<string, Entry>();
  /** What was said last of each name and type at which answers end: aliases share it, and what contradicts one, all. */
  readonly #ends = new Map<string, End>();
  readonly #failures: Failures;
  readonly #inFlight = new Map<string, Flight>();
  #renewing = 0;
  #bytes = 0;
  readonly #counters = {
    hits: 0,
    misses: 0,
    coalesced: 0,
    abandoned: 0,
    renewals: 0,
    renewalsFailed: 0,
    stale: 0,
    evicted: 0,
    flushes: 0,
  };

  constructor(inner: Lookup, config: CacheConfig = {}) {
    this.#inner = inner;
    this.#now = config.now ?? (() => performance.now());
    this.#wallClock = config.wallClock ?? Date.now;
    this.#maxBytes = config.maxBytes ?? MAX_BYTES;
    this.#maxStaleMillis = 1000 * (config.maxStaleSeconds ?? 0);
    this.#failures = new Failures(this.#now);
  }

  /**
   * The answer from the cache, or from behind it.
   *
   * When `signal` fires the caller gets a failure at once; the question itself is given up when the last of those who
   * wait for it has gone.
   */
  lookup(name: Name, type: number, signal?: AbortSignal): Promise<Resolution> {
    const key = keyOf(name, type);
    const cached = this.#hit(key, name, type) ?? this.#failures.get(key);
    if (cached !== undefined) {
      this.#counters.hits++;
      return Promise.resolve(cached);
    }
    let flight = this.#inFlight.get(key);
    if (flight === undefined) {
      this.#counters.misses++;
      flight = this.#begin(key, name, type, false);
    } else this.#counters.coalesced++;
    return signal === undefined ? this.#stay(flight) : this.#wait(flight, key, name, type, signal);
  }

  /** The answer asked for anew, past all that is kept, unless it was a moment ago. */
  reconsidered(name: Name, type: number, signal?: AbortSignal): Promise<Resolution> {
    const key = keyOf(name, type);
    const entry = this.#entries.get(key);
    if (entry !== undefined && this.#ageMillis(entry) >= MOMENT_MILLIS && !this.#inFlight.has(key)) {
      const flight = this.#begin(key, name, type, true);
      return signal === undefined ? this.#stay(flight) : this.#wait(flight, key, name, type, signal);
    }
    return this.lookup(name, type, signal);
  }

  /**
   * What is known without asking anybody, failures apart: an answer that is still good, or one that was and may be
   * shown as `stale`.
   *
   * Stale is only what DNSSEC proved, whose signatures are still in force, and of which nothing else was heard since:
   * no more than whoever sits on the way could show us at this moment anyway, by sending old records again.
   */
  remembered(name: Name, type: number): Resolution | undefined {
    const key = keyOf(name, type);
    const fresh = this.#fresh(key);
    if (fresh !== undefined) return fresh;
    const entry = this.#entries.get(key);
    if (entry === undefined || this.#isContradicted(entry) || !mayBecomeStale(entry.resolution))
      return undefined;
    const overMillis = this.#ageMillis(entry) - entry.lifeMillis;
    if (overMillis > this.#maxStaleMillis) return undefined;
    if (!signaturesHold(entry.resolution, Math.floor(this.#wallClock() / 1000))) return undefined;
    this.#counters.stale++;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    return asStale(entry.resolution, Math.floor(overMillis / 1000));
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

  /**
   * Forgets every failure and bogus answer, and keeps none of those that are on their way: the network has changed, and
   * what another one did says nothing. How many that were.
   */
  flushFailures(): number {
    const keys = [...this.#failures.keys()];
    for (const key of keys) this.#failures.delete(key);
    this.#inFlight.clear();
    return keys.length;
  }

  /** Forgets all that DNSSEC did not prove: it was the word of a network that is another now. How many answers that were. */
  flushUnproven(): number {
    this.#counters.flushes++;
    const forgotten = this.flushFailures();
    const keys = [...this.#entries].filter(([, { resolution }]) => resolution.verdict !== 'secure');
    for (const [key] of keys) this.#remove(key);
    return forgotten + keys.length;
  }

  /** All answers that are still good or may be shown as stale, the least recently used first. */
  *kept(): Iterable<KeptAnswer> {
    for (const entry of this.#entries.values()) {
      const { resolution, storedAtWall, lifeMillis } = entry;
      yield { resolution, storedAtWall, lifeMillis, contradicted: this.#isContradicted(entry) };
    }
  }

  /**
   * Takes in an answer that an earlier run kept, unless its time is over or there is a newer one; whether it did.
   *
   * Its age is told by the time of day. Of what DNSSEC proved the signatures must be in force now.
   */
  restore({ resolution: found, storedAtWall, lifeMillis, contradicted }: KeptAnswer): boolean {
    const key = keyOf(found.question.name, found.question.type);
    const ageMillis = this.#wallClock() - storedAtWall;
    if (this.#entries.has(key) || this.#inFlight.has(key) || ageMillis < 0) return false;
    const end = lifeMillis + (mayBecomeStale(found) && !contradicted ? this.#maxStaleMillis : 0);
    if (ageMillis >= end || isFailure(found) || lifeMillis > 1000 * MAX_TTL_SECONDS) return false;
    if (found.verdict === 'secure' && !signaturesHold(found, Math.floor(this.#wallClock() / 1000)))
      return false;
    const { resolution, bytes } = compacted(found, lifeMillis / 1000);
    if (this.#bytes + bytes + 2 * key.length > this.#maxBytes) return false;
    this.#put(key, {
      ...newEntry(resolution, this.#now() - ageMillis, storedAtWall, lifeMillis),
      bytes: bytes + 2 * key.length,
      contradicted,
    });
    return true;
  }

  counters(): Record<string, number> {
    return {
      ...this.#counters,
      entries: this.#entries.size,
      failures: this.#failures.size,
      bytes: this.#bytes,
      inFlight: this.#inFlight.size,
    };
  }

  #hit(key: string, name: Name, type: number): Resolution | undefined {
    const view = this.#fresh(key);
    if (view === undefined) return undefined;
    const entry = this.#entries.get(key)!;
    const now = this.#now();
    if (now - entry.usedAt >= 1000) {
      // Within a second the order does not matter, and popular names stay cheap.
      entry.usedAt = now;
      entry.uses++;
      this.#entries.delete(key);
      this.#entries.set(key, entry);
    }
    if (entry.uses >= POPULAR_USES && !entry.renewed && this.#renewing < MAX_RENEWALS) {
      if (this.#ageMillis(entry) >= RENEWAL_SHARE * entry.lifeMillis) this.#renew(entry, key, name, type);
    }
    return view;
  }

  #fresh(key: string): Resolution | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    const ageMillis = this.#ageMillis(entry);
    if (ageMillis >= entry.lifeMillis) {
      const overMillis = ageMillis - entry.lifeMillis;
      if (overMillis > this.#maxStaleMillis || !mayBecomeStale(entry.resolution)) this.#remove(key);
      return undefined;
    }
    const age = Math.floor(ageMillis / 1000);
    if (age !== entry.viewAge) {
      entry.view = aged(entry.resolution, age);
      entry.viewAge = age;
    }
    return entry.view;
  }

  #ageMillis(entry: Entry): number {
    return Math.max(this.#now() - entry.storedAt, this.#wallClock() - entry.storedAtWall);
  }

  /** Once in an entry's life, and after whoever hit it has got his answer. */
  #renew(entry: Entry, key: string, name: Name, type: number): void {
    entry.renewed = true;
    this.#renewing++;
    this.#counters.renewals++;
    setImmediate(() => {
      const due = this.#entries.get(key) === entry && !this.#inFlight.has(key);
      const renewal = due ? this.#stay(this.#begin(key, name, type, true)) : Promise.resolve();
      renewal
        .catch(() => {})
        .finally(() => {
          this.#renewing--;
        });
    });
  }

  #begin(key: string, name: Name, type: number, refresh: boolean): Flight {
    const cancel = new AbortController();
    const flight: Flight = { outcome: undefined, waiters: 0, cancel };
    flight.outcome = this.#inner.lookup(name, type, { signal: cancel.signal, refresh }).then(
      resolution => this.#settle(key, flight, resolution),
      (error: unknown) => {
        this.#land(key, flight);
        throw error;
      },
    );
    this.#inFlight.set(key, flight);
    return flight;
  }

  #stay(flight: Flight): Promise<Resolution> {
    flight.waiters++;
    return flight.outcome!;
  }

  #wait(flight: Flight, key: string, name: Name, type: number, signal: AbortSignal): Promise<Resolution> {
    flight.waiters++;
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        this.#counters.abandoned++;
        resolve(abandoned(name, type));
        if (--flight.waiters > 0) return;
        const { cancel } = flight;
        this.#land(key, flight);
        cancel?.abort();
      };
      if (signal.aborted) return leave();
      signal.addEventListener('abort', leave, { once: true });
      flight.outcome!.finally(() => signal.removeEventListener('abort', leave)).then(resolve, reject);
    });
  }

  /** Whether it was still the one that others would have joined. */
  #land(key: string, flight: Flight): boolean {
    flight.outcome = undefined;
    flight.cancel = undefined;
    return this.#inFlight.get(key) === flight && this.#inFlight.delete(key);
  }

  #settle(key: string, flight: Flight, found: Resolution): Resolution {
    // Flushed while it was under way: those who wait get it, those who come later do not.
    const current = this.#land(key, flight);
    if (found.transient) return found;
    if (isFailure(found)) return current ? this.#keepFailure(key, found) : found;
    return this.#keep(key, found, current);
  }

  /** A failure ends nothing that is still good, and bars what is over from being shown when it contradicts it. */
  #keepFailure(key: string, found: Resolution): Resolution {
    const entry = this.#entries.get(key);
    if (entry !== undefined && found.verdict === 'bogus') entry.contradicted = true;
    if (this.#fresh(key) === undefined) return this.#failures.keep(key, found);
    this.#counters.renewalsFailed++;
    return found;
  }

  #keep(key: string, found: Resolution, current: boolean): Resolution {
    const ttlSeconds = lifeSeconds(found);
    const { resolution, bytes } = compacted(found, ttlSeconds);
    if (!current) return resolution;
    this.#failures.delete(key);
    this.#remove(key);
    this.#say(resolution);
    if (ttlSeconds === 0) return resolution;
    this.#put(key, {
      ...newEntry(resolution, this.#now(), this.#wallClock(), ttlSeconds * 1000),
      bytes: bytes + 2 * key.length,
    });
    return resolution;
  }

  #put(key: string, entry: Entry): void {
    this.#entries.set(key, entry);
    this.#bytes += entry.bytes;
    const at = endOf(entry.resolution);
    const end = this.#ends.get(at) ?? { said: saying(entry.resolution), turn: 0, entries: 0 };
    this.#ends.set(at, end);
    end.entries++;
    entry.turn = end.turn;
    for (const oldest of this.#entries.keys()) {
      if (this.#bytes <= this.#maxBytes) break;
      this.#remove(oldest);
      this.#counters.evicted++;
    }
  }

  /** What is said now of a canonical name ends what was said otherwise, to whatever name: that is never stale. */
  #say(newer: Resolution): void {
    const end = this.#ends.get(endOf(newer));
    if (end === undefined) return;
    const said = saying(newer);
    if (said !== undefined && said === end.said) return;
    end.said = said;
    end.turn++;
  }

  #isContradicted({ contradicted, turn, resolution }: Entry): boolean {
    return contradicted || turn !== this.#ends.get(endOf(resolution))!.turn;
  }

  #forget(which: (key: string) => boolean): number {
    this.#counters.flushes++;
    for (const key of this.#inFlight.keys()) if (which(key)) this.#inFlight.delete(key);
    let forgotten = 0;
    for (const key of [...this.#failures.keys()]) if (which(key) && this.#failures.delete(key)) forgotten++;
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
    const at = endOf(entry.resolution);
    const end = this.#ends.get(at)!;
    if (--end.entries === 0) this.#ends.delete(at);
  }
}

/** The name's key ends with the root's zero, so that no name's key begins with another's. */
function keyOf(name: Name, type: number): string {
  return name.key + String.fromCharCode(type);
}

/** Of the name and type that the answer is really about. */
function endOf({ canonicalName, question }: Resolution): string {
  return keyOf(canonicalName, question.type);
}

/** What those get who leave; it goes nowhere. */
function abandoned(name: Name, type: number): Resolution {
  return {
    question: { name, type },
    rcode: RCODE.SERVFAIL,
    verdict: 'indeterminate',
    ede: { code: EDE.OTHER, text: 'nobody waits any more' },
    answer: [],
    authority: [],
    canonicalName: name,
    outcome: 'failure',
    ttlSeconds: 0,
    transient: true,
  };
}
