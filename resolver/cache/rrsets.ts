/**
 * RRsets and empty answers that were judged, each with its verdict (RFC 2181 §5.4.1, RFC 2308, RFC 4035 §4.5).
 *
 * Only what the validator judged as the answer to a question comes in here; nothing out of an additional section, nothing
 * that nobody asked for. Entries are octets in a log (`octet-log.ts`), so that a hundred thousand of them fit into little
 * memory; who asks gets RRsets made for him, with TTLs counted down.
 */
import type { ExtendedError } from '../dns/edns.ts';
import type { Name } from '../dns/name.ts';
import { TYPE } from '../dns/types.ts';
import type { KeptAbsence, KeptAnswers, KeptRrset, ZoneDenials } from '../dnssec/kept.ts';
import type { Rrset } from '../dns/rrset.ts';
import { DenialCache } from './denials.ts';
import { elapsedSeconds } from './elapsed.ts';
import { OctetLog } from './octet-log.ts';
import { packOctets, unpack } from './packed.ts';

export type RrsetCacheConfig = {
  /** Seconds, never going back. */
  now?: () => number;
  /** About so many octets of memory, denials apart; what was not used for long goes first. */
  maxBytes?: number;
  /** The same for NSEC and NSEC3. */
  maxDenialBytes?: number;
};

const MAX_BYTES = 40 << 20;
const MAX_DENIAL_BYTES = 8 << 20;
/** As in the cache of answers: nothing is kept longer, whatever its owner says. */
const MAX_TTL_SECONDS = 86_400;
/** RFC 2308 §5, RFC 8198 §5.4. */
const MAX_NEGATIVE_TTL_SECONDS = 10_800;
/** Roughly what V8 takes for a place in the map, and the header of the key. */
const ENTRY_OCTETS = 80;
/** A sixteenth of a small cache, so that room is made in small pieces there too. */
const BLOCK_OCTETS = 256 << 10;
const BLOCKS = 16;

/** `outcome` undefined: an RRset, with its proofs behind it; else SOA and proofs. */
type Entry = {
  packed: Uint8Array;
  outcome: KeptAbsence['outcome'] | undefined;
  verdict: 'secure' | 'insecure';
  ede: ExtendedError | undefined;
  storedAt: number;
  ttlSeconds: number;
};

export class RrsetCache implements KeptAnswers {
  readonly #now: () => number;
  readonly #maxBytes: number;
  readonly #denials: DenialCache;
  /** Positions in the log, in its order: the oldest first. */
  readonly #entries = new Map<string, number>();
  #log: OctetLog;
  #keyOctets = 0;
  #dnames = 0;
  readonly #counters = { hits: 0, evicted: 0 };

  constructor(config: RrsetCacheConfig = {}) {
    this.#now = config.now ?? elapsedSeconds();
    this.#maxBytes = config.maxBytes ?? MAX_BYTES;
    this.#log = this.#emptyLog();
    this.#denials = new DenialCache(this.#now, config.maxDenialBytes ?? MAX_DENIAL_BYTES);
  }

  rrset(name: Name, type: number): KeptRrset | undefined {
    const entry = this.#fresh(keyOf(name.key, type));
    if (entry === undefined || entry.outcome !== undefined) return undefined;
    return this.#opened(entry, name);
  }

  /** RFC 6672 §3.4. */
  dnameAbove(name: Name): KeptRrset | undefined {
    if (this.#dnames === 0) return undefined;
    for (let labels = name.labelCount - 1; labels >= 0; labels--) {
      const owner = name.suffix(labels);
      const entry = this.#fresh(keyOf(owner.key, TYPE.DNAME));
      if (entry?.outcome === undefined && entry?.verdict === 'secure') return this.#opened(entry, owner);
    }
    return undefined;
  }

  absence(name: Name, type: number): KeptAbsence | undefined {
    const entry = this.#fresh(keyOf(name.key, type));
    if (entry?.outcome === undefined) return undefined;
    const { outcome, verdict, ede } = entry;
    const age = this.#now() - entry.storedAt;
    const authority = unpack(entry.packed, age);
    return { outcome, verdict, ...(ede && { ede }), authority, ttlSeconds: entry.ttlSeconds - age };
  }

  denialsAbove(name: Name): ZoneDenials | undefined {
    return this.#denials.above(name);
  }

  denialsOf(zone: Name): ZoneDenials | undefined {
    return this.#denials.of(zone);
  }

  /** A secure RRset is never replaced by an insecure one before its time. */
  keepRrset({ rrset, verdict, ede, proofs }: KeptRrset): void {
    const { name, type } = rrset;
    const key = keyOf(name.key, type);
    const known = this.#fresh(key);
    if (verdict === 'insecure' && known?.outcome === undefined && known?.verdict === 'secure') return;
    const ttls = [rrset, ...proofs].map(({ ttlSeconds }) => ttlSeconds);
    const ttlSeconds = Math.min(MAX_TTL_SECONDS, ...ttls);
    const packed = packOctets([rrset, ...proofs], { withoutOwner: rrset });
    this.#put(key, { packed, outcome: undefined, verdict, ede, storedAt: this.#now(), ttlSeconds });
  }

  keepAbsence(name: Name, type: number, { outcome, verdict, ede, authority, ttlSeconds }: KeptAbsence): void {
    this.#put(keyOf(name.key, type), {
      packed: packOctets(authority),
      outcome,
      verdict,
      ede,
      storedAt: this.#now(),
      ttlSeconds: Math.min(ttlSeconds, MAX_NEGATIVE_TTL_SECONDS),
    });
  }

  keepDenials(zone: Name, verified: readonly Rrset[]): boolean {
    return this.#denials.keep(zone, verified);
  }

  flush(name: Name): number {
    let forgotten = this.#denials.flush(name);
    for (const key of [...this.#entries.keys()]) {
      if (!key.startsWith(name.key)) continue;
      this.#remove(key);
      forgotten++;
    }
    return forgotten;
  }

  flushInsecure(): number {
    const keys = [...this.#entries].filter(([, at]) => parseEntry(this.#log.read(at)).verdict === 'insecure');
    for (const [key] of keys) this.#remove(key);
    return keys.length;
  }

  flushAll(): number {
    const forgotten = this.#entries.size + this.#denials.flushAll();
    this.#entries.clear();
    this.#log = this.#emptyLog();
    this.#keyOctets = 0;
    this.#dnames = 0;
    return forgotten;
  }

  counters(): Record<string, number> {
    return {
      ...this.#counters,
      entries: this.#entries.size,
      bytes: this.#bytes(),
      ...this.#denials.counters(),
    };
  }

  #opened({ packed, verdict, ede, storedAt }: Entry, owner: Name): KeptRrset {
    const [rrset, ...proofs] = unpack(packed, this.#now() - storedAt, owner);
    this.#counters.hits++;
    return { rrset: rrset!, verdict, ...(ede && { ede }), proofs };
  }

  #fresh(key: string): Entry | undefined {
    const position = this.#entries.get(key);
    if (position === undefined) return undefined;
    const record = this.#log.read(position);
    const entry = parseEntry(record);
    if (this.#now() - entry.storedAt >= entry.ttlSeconds) {
      this.#remove(key);
      return undefined;
    }
    if (this.#log.isOld(position)) {
      // In use, so it is not to go with the oldest.
      this.#entries.delete(key);
      this.#entries.set(key, this.#log.append(record));
      this.#log.release(position);
    }
    return entry;
  }

  #put(key: string, entry: Entry): void {
    this.#remove(key);
    if (entry.ttlSeconds <= 0) return;
    this.#entries.set(key, this.#log.append(composeHead(entry), entry.packed));
    this.#keyOctets += key.length;
    if (isDname(key)) this.#dnames++;
    for (const oldest of this.#entries.keys()) {
      if (this.#bytes() <= this.#maxBytes) break;
      this.#remove(oldest);
      this.#counters.evicted++;
    }
  }

  #remove(key: string): void {
    const position = this.#entries.get(key);
    if (position === undefined) return;
    this.#entries.delete(key);
    this.#log.release(position);
    this.#keyOctets -= key.length;
    if (isDname(key)) this.#dnames--;
  }

  #bytes(): number {
    const used = this.#entries.size === 0 ? 0 : this.#log.octets;
    return used + this.#keyOctets + ENTRY_OCTETS * this.#entries.size;
  }

  #emptyLog(): OctetLog {
    return new OctetLog(Math.min(BLOCK_OCTETS, Math.ceil(this.#maxBytes / BLOCKS)));
  }
}

const HEAD_OCTETS = 22;
const NO_EDE = 0xffff;
const OUTCOMES = [undefined, 'nodata', 'nxdomain'] as const;
const VERDICTS = ['secure', 'insecure'] as const;

/** stored at(8) | TTL(8) | outcome(1) | verdict(1) | EDE code(2) | length of its text(2) | text; `packed` is to follow. */
function composeHead({ outcome, verdict, ede, storedAt, ttlSeconds }: Entry): Buffer {
  const text = Buffer.from(ede?.text ?? '');
  const head = Buffer.allocUnsafe(HEAD_OCTETS + text.length);
  head.writeDoubleLE(storedAt, 0);
  head.writeDoubleLE(ttlSeconds, 8);
  head[16] = OUTCOMES.indexOf(outcome);
  head[17] = VERDICTS.indexOf(verdict);
  head.writeUInt16LE(ede?.code ?? NO_EDE, 18);
  head.writeUInt16LE(text.length, 20);
  head.set(text, HEAD_OCTETS);
  return head;
}

/** `packed` is a view. */
function parseEntry(record: Buffer): Entry {
  const code = record.readUInt16LE(18);
  const end = HEAD_OCTETS + record.readUInt16LE(20);
  return {
    packed: record.subarray(end),
    outcome: OUTCOMES[record[16]!],
    verdict: VERDICTS[record[17]!]!,
    ede: code === NO_EDE ? undefined : { code, text: record.toString('utf8', HEAD_OCTETS, end) },
    storedAt: record.readDoubleLE(0),
    ttlSeconds: record.readDoubleLE(8),
  };
}

/** The name's key ends with the root's zero, so that no name's key begins with another's; one byte a character. */
function keyOf(nameKey: string, type: number): string {
  return nameKey + String.fromCharCode(type >> 8, type & 0xff);
}

function isDname(key: string): boolean {
  return key.charCodeAt(key.length - 1) === TYPE.DNAME && key.charCodeAt(key.length - 2) === 0;
}
