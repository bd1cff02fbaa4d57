/**
 * Verified NSEC and NSEC3 records, in order, so that one denial answers for all the names that it covers (RFC 8198).
 *
 * Finding one costs a binary search. A new record drives out those that contradict it, so that what is found is always
 * from one state of the zone at that place.
 */
import { parseNsec, parseNsec3 } from '../dns/dnssec-rdata.ts';
import type { Name } from '../dns/name.ts';
import { parseSoa } from '../dns/rdata.ts';
import type { Rrset } from '../dns/rrset.ts';
import { TYPE } from '../dns/types.ts';
import { nsec3OwnerHash } from '../dnssec/denial.ts';
import type { Nsec3Denials, ZoneDenials } from '../dnssec/kept.ts';
import { pack, unpack } from './packed.ts';

/** RFC 8198 §5.4 and RFC 2308 §5: one to three hours. */
const MAX_TTL_SECONDS = 10_800;
/** NSEC3s that cost more to look through are not kept: asking costs less (RFC 9276 §3.1 wants none at all). */
const MAX_ITERATIONS = 50;
const MAX_CHAINS = 2;
/** Roughly what V8 takes for an item, its place in the list and in the order of use, and the headers of three strings. */
const ITEM_OCTETS = 250;

/** `key`, `next`: owner and next name or hash, as strings that sort in the order of the chain. */
type Item = {
  zone: Zone;
  list: Item[];
  key: string;
  next: string;
  packed: string;
  storedAt: number;
  ttlSeconds: number;
};

export class DenialCache {
  readonly #now: () => number;
  readonly #maxBytes: number;
  readonly #zones = new Map<string, Zone>();
  /** The least recently used first. */
  readonly #items = new Set<Item>();
  #bytes = 0;
  #evicted = 0;

  constructor(now: () => number, maxBytes: number) {
    this.#now = now;
    this.#maxBytes = maxBytes;
  }

  above(name: Name): ZoneDenials | undefined {
    if (this.#zones.size === 0) return undefined;
    for (let key = name.key; ; key = key.slice(1 + key.charCodeAt(0))) {
      const zone = this.#zones.get(key);
      if (zone !== undefined || key.length === 1) return zone;
    }
  }

  of(zone: Name): ZoneDenials | undefined {
    return this.#zones.get(zone.key);
  }

  /** Whether all of them are kept. RFC 9077: none longer than the SOA says, when there is one. */
  keep(apex: Name, verified: readonly Rrset[]): boolean {
    const zone = this.#zones.get(apex.key) ?? new Zone(apex, item => this.#use(item));
    const soa = verified.find(({ name, type }) => type === TYPE.SOA && name.equals(apex));
    const minimum = soa && parseSoa(soa.rdatas[0]!)?.minimumSeconds;
    const most = Math.min(MAX_TTL_SECONDS, soa?.ttlSeconds ?? MAX_TTL_SECONDS, minimum ?? MAX_TTL_SECONDS);
    let all = true;
    for (const rrset of verified) {
      const place = rrset === soa ? { list: zone.soas, key: '', next: '' } : zone.placeOf(rrset);
      const ttlSeconds = Math.min(rrset.ttlSeconds, most);
      if (place === undefined || ttlSeconds <= 0) all = false;
      else this.#put({ ...place, zone, packed: pack([rrset]), storedAt: this.#now(), ttlSeconds });
    }
    return all && soa !== undefined;
  }

  /** Forgets the closest zone at or above `name`. */
  flush(name: Name): number {
    const zone = this.above(name) as Zone | undefined;
    const items = zone?.items() ?? [];
    this.#removeAll(items);
    return items.length;
  }

  flushAll(): number {
    const forgotten = this.#items.size;
    this.#zones.clear();
    this.#items.clear();
    this.#bytes = 0;
    return forgotten;
  }

  counters(): Record<string, number> {
    return { denials: this.#items.size, denialBytes: this.#bytes, denialsEvicted: this.#evicted };
  }

  #put(item: Item): void {
    this.#removeAll(contradicting(item));
    item.list.splice(lastAtOrBefore(item.list, item.key) + 1, 0, item);
    this.#zones.set(item.zone.zone.key, item.zone);
    this.#items.add(item);
    this.#bytes += bytesOf(item);
    for (const oldest of this.#items) {
      if (this.#bytes <= this.#maxBytes) break;
      this.#remove(oldest);
      this.#evicted++;
    }
  }

  /** The RRset of a list's item, when its time is not over. */
  #use(item: Item): Rrset | undefined {
    const age = this.#now() - item.storedAt;
    if (age >= item.ttlSeconds) {
      this.#remove(item);
      return undefined;
    }
    this.#items.delete(item);
    this.#items.add(item);
    const [rrset] = unpack(item.packed, 0);
    return { ...rrset!, ttlSeconds: item.ttlSeconds - age };
  }

  /** One NSEC may cover all that a zone has: each list is gone through once, however many go. */
  #removeAll(items: readonly Item[]): void {
    for (const item of items) if (this.#items.delete(item)) this.#bytes -= bytesOf(item);
    for (const list of new Set(items.map(item => item.list))) {
      let left = 0;
      for (const item of list) if (this.#items.has(item)) list[left++] = item;
      list.length = left;
    }
    for (const zone of new Set(items.map(item => item.zone)))
      if (zone.isEmpty()) this.#zones.delete(zone.zone.key);
  }

  #remove(item: Item): void {
    if (!this.#items.delete(item)) return;
    this.#bytes -= bytesOf(item);
    item.list.splice(lastAtOrBefore(item.list, item.key), 1);
    if (item.zone.isEmpty()) this.#zones.delete(item.zone.zone.key);
  }
}

class Zone implements ZoneDenials {
  readonly zone: Name;
  readonly soas: Item[] = [];
  readonly #nsecs: Item[] = [];
  readonly #chains = new Map<string, Chain>();
  readonly #use: (item: Item) => Rrset | undefined;

  constructor(zone: Name, use: (item: Item) => Rrset | undefined) {
    this.zone = zone;
    this.#use = use;
  }

  soa(): Rrset | undefined {
    return this.soas[0] && this.#use(this.soas[0]);
  }

  nsecFor(name: Name): Rrset | undefined {
    const key = orderKey(name);
    const item = this.#nsecs[lastAtOrBefore(this.#nsecs, key)];
    if (item === undefined || (item.key !== key && !isBetween(item.key, key, item.next))) return undefined;
    return this.#use(item);
  }

  get nsec3Chains(): readonly Nsec3Denials[] {
    return [...this.#chains.values()];
  }

  /** Where an NSEC or NSEC3 belongs; undefined for one that is not to be kept. */
  placeOf({ name, type, rdatas }: Rrset): Pick<Item, 'list' | 'key' | 'next'> | undefined {
    if (rdatas.length !== 1 || !name.isSubdomainOf(this.zone)) return undefined;
    if (type === TYPE.NSEC) {
      const next = parseNsec(rdatas[0]!)?.next;
      if (next === undefined || !next.isSubdomainOf(this.zone)) return undefined;
      return { list: this.#nsecs, key: orderKey(name), next: orderKey(next) };
    }
    const nsec3 = type === TYPE.NSEC3 ? parseNsec3(rdatas[0]!) : undefined;
    const hash = nsec3OwnerHash(name, this.zone);
    if (nsec3 === undefined || hash === undefined || nsec3.hashAlgorithm !== 1 || nsec3.flags > 1)
      return undefined;
    if (nsec3.nextHash.length !== hash.length || nsec3.iterations > MAX_ITERATIONS) return undefined;
    const list = this.#chainOf(nsec3.salt, nsec3.iterations)?.items;
    return list && { list, key: latin1(hash), next: latin1(nsec3.nextHash) };
  }

  items(): Item[] {
    return [...this.soas, ...this.#nsecs, ...[...this.#chains.values()].flatMap(({ items }) => items)];
  }

  isEmpty(): boolean {
    for (const [parameters, { items }] of this.#chains)
      if (items.length === 0) this.#chains.delete(parameters);
    return this.soas.length === 0 && this.#nsecs.length === 0 && this.#chains.size === 0;
  }

  /** A zone has one chain, and while it changes its salt another; undefined for a third. */
  #chainOf(salt: Uint8Array, iterations: number): Chain | undefined {
    const parameters = `${iterations} ${latin1(salt)}`;
    const known = this.#chains.get(parameters);
    if (known !== undefined) return known;
    if (this.#chains.size === MAX_CHAINS) return undefined;
    const made = new Chain(Uint8Array.from(salt), iterations, this.#use);
    this.#chains.set(parameters, made);
    return made;
  }
}

class Chain implements Nsec3Denials {
  readonly salt: Uint8Array;
  readonly iterations: number;
  readonly items: Item[] = [];
  readonly #use: (item: Item) => Rrset | undefined;

  constructor(salt: Uint8Array, iterations: number, use: (item: Item) => Rrset | undefined) {
    this.salt = salt;
    this.iterations = iterations;
    this.#use = use;
  }

  nsec3Before(hash: Uint8Array): Rrset | undefined {
    const item = this.items[lastAtOrBefore(this.items, latin1(hash))] ?? this.items.at(-1);
    return item && this.#use(item);
  }
}

/**
 * A string for each name that sorts in canonical order (RFC 4034 §6.1): the labels from the right in lower case, each
 * with a zero behind it; within labels 0 and 1 are written as 1 1 and 1 2, so that the shorter label comes first.
 */
export function orderKey(name: Name): string {
  let text = '';
  const { key } = name;
  for (let at = 0; key.charCodeAt(at) !== 0; at += 1 + key.charCodeAt(at)) {
    const label = key.slice(at + 1, at + 1 + key.charCodeAt(at));
    text = `${ESCAPED.test(label) ? label.replace(ESCAPABLE, escaped) : label}\0${text}`;
  }
  return text;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is escaped
const ESCAPED = /[\0\x01]/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is escaped
const ESCAPABLE = /[\0\x01]/g;
const escaped = (byte: string): string => (byte === '\0' ? '\x01\x01' : '\x01\x02');

/** Those of the list that stand where `item` says that nothing stands, and the one that says so of `item` itself. */
function contradicting({ list, key, next }: Item): Item[] {
  if (list.length === 0) return [];
  const at = lastAtOrBefore(list, key);
  const found: Item[] = [];
  const before = list[at] ?? list.at(-1)!;
  if (before.key === key || isBetween(before.key, key, before.next)) found.push(before);
  for (let i = at + 1; i < list.length && isBetween(key, list[i]!.key, next); i++) found.push(list[i]!);
  if (next <= key) for (let i = 0; i <= at && list[i]!.key < next; i++) found.push(list[i]!);
  return found;
}

/** Whether `key` stands strictly between the two, round the ring when `next` is not after `owner`. */
function isBetween(owner: string, key: string, next: string): boolean {
  if (owner < next) return owner < key && key < next;
  return owner < key || key < next;
}

/** The index of the last item whose key is at or before `key`; -1 when there is none. */
function lastAtOrBefore(list: readonly Item[], key: string): number {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle]!.key <= key) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}

function bytesOf({ packed, key, next }: Item): number {
  return ITEM_OCTETS + packed.length + key.length + next.length;
}
