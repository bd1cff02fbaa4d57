/**
 * Rollover of trust anchors (RFC 5011): what is trusted at a trust point, and how that changes with what the zone shows.
 *
 *   FROM \ TO   Start       AddPend   Valid        Missing     Revoked   Removed      (section 4.1)
 *   Start                   newKey
 *   AddPend     keyRemoved            addTime
 *   Valid                                          keyRemoved  revoked
 *   Missing                           keyPresent               revoked
 *   Revoked                                                              removeTime
 *   Removed
 *
 * Pure: values in, values out. Times are Unix seconds. A key is known by its RDATA without the REVOKE flag, which changes
 * its tag and its digest. Configured keys begin as Valid (section 5); so does the key of a configured DS once it is seen.
 */
import { createHash } from 'node:crypto';
import { DNSKEY_FLAG, parseDnskey, parseDs } from '../dns/dnssec-rdata.ts';
import type { Name } from '../dns/name.ts';
import { TYPE } from '../dns/types.ts';
import { dsMatches } from './algorithms.ts';
import type { TrustAnchor } from './anchors.ts';

export type AnchorState = 'addPend' | 'valid' | 'missing' | 'revoked' | 'removed';

export type RolloverEvent = 'newKey' | 'keyPresent' | 'keyRemoved' | 'addTime' | 'removeTime' | 'revoked';

export type AnchorKey = {
  /** RDATA of the DNSKEY, its REVOKE flag clear. */
  rdata: Uint8Array;
  state: AnchorState;
  /** When it came into this state. */
  since: number;
  /** AddPend: when it may become valid. Revoked: when it is removed; absent while the zone still shows it. */
  until?: number;
  /** AddPend: the keys that vouched for it when it was first seen, by `keyId`. */
  vouchers?: readonly string[];
};

export type TrustPoint = {
  zone: Name;
  /** Configured DS RDATA whose keys have not been seen yet; they are anchors like the keys. */
  unseen: readonly Uint8Array[];
  keys: readonly AnchorKey[];
};

/** What one DNSKEY RRset of the zone shows, signatures checked (`rollover-observe.ts`). */
export type Observation = {
  /** Keys that are trusted and sign the RRset, by `keyId`; without any the RRset proves nothing but revocations. */
  vouchers: readonly string[];
  /** RDATA of the keys in the RRset that may be anchors (SEP, not revoked), and of those that are anchors already. */
  present: readonly Uint8Array[];
  /** RDATA, REVOKE flag cleared, of keys that bear it and sign the RRset themselves. */
  revoked: readonly Uint8Array[];
  originalTtlSeconds: number;
};

export type Change = { rdata: Uint8Array; from: AnchorState | 'start'; event: RolloverEvent };

const NEXT: Record<AnchorState | 'start', Partial<Record<RolloverEvent, AnchorState | 'start'>>> = {
  start: { newKey: 'addPend' },
  addPend: { keyRemoved: 'start', addTime: 'valid' },
  valid: { keyRemoved: 'missing', revoked: 'revoked' },
  missing: { keyPresent: 'valid', revoked: 'revoked' },
  revoked: { removeTime: 'removed' },
  removed: {},
};

const HOUR = 3600;
const DAY = 24 * HOUR;
/** Sections 2.4.1 and 2.4.2. */
const HOLD_DOWN_SECONDS = 30 * DAY;
/** Of one trust point; section 2.4.3 asks for five at least. Removed ones are remembered, so that they stay out. */
const MAX_KEYS = 16;
const MAX_REMOVED = 16;

/** The trust point after an observation at `now`, and what changed. */
export function observed(
  point: TrustPoint,
  observation: Observation,
  now: number,
): { point: TrustPoint; changes: Change[] } {
  const changes: Change[] = [];
  const identified = identify(point, observation, now);
  const proven = observation.vouchers.length > 0;
  const keys: AnchorKey[] = [];
  for (const key of identified.keys) {
    const event = eventOf(key, observation, proven, now);
    const next = event && NEXT[key.state][event];
    if (event && next) changes.push({ rdata: key.rdata, from: key.state, event });
    if (next === 'start') continue;
    keys.push(next ? moved(key, next, now) : stayed(key, observation, proven, now));
  }
  const after = { ...identified, keys: withoutOrphans(keys, changes) };
  return { point: proven ? withNewKeys(after, observation, now, changes) : after, changes };
}

/** Keys of configured DS that show themselves are valid from the start, or were revoked before we saw them otherwise. */
function identify(point: TrustPoint, observation: Observation, now: number): TrustPoint {
  const keys = [...point.keys];
  const { vouchers, present, revoked } = observation;
  const shownKeys = [...(vouchers.length > 0 ? present : []), ...revoked];
  const unseen = point.unseen.filter(ds => {
    const shown = shownKeys.find(key => isOf(ds, point.zone, key));
    if (shown === undefined) return true;
    const known = keys.findIndex(key => sameBytes(key.rdata, shown));
    if (known < 0) keys.push({ rdata: shown, state: 'valid', since: now });
    else if (keys[known]!.state === 'addPend') keys[known] = { rdata: shown, state: 'valid', since: now };
    return false;
  });
  return { ...point, unseen, keys };
}

function eventOf(
  key: AnchorKey,
  { present, revoked }: Observation,
  proven: boolean,
  now: number,
): RolloverEvent | undefined {
  const shows = (rdatas: readonly Uint8Array[]): boolean => rdatas.some(rdata => sameBytes(rdata, key.rdata));
  const trusted = key.state === 'valid' || key.state === 'missing';
  if (trusted && shows(revoked)) return 'revoked';
  if (!proven) return undefined;
  if (key.state === 'revoked') {
    const gone = !shows(revoked) && !shows(present);
    return gone && key.until !== undefined && now >= key.until ? 'removeTime' : undefined;
  }
  if (!shows(present)) return 'keyRemoved';
  return key.state === 'addPend' && now >= key.until! ? 'addTime' : 'keyPresent';
}

function moved({ rdata }: AnchorKey, state: AnchorState, now: number): AnchorKey {
  return { rdata, state, since: now };
}

/** A revoked key is removed when it has been gone for the whole of the hold-down time. */
function stayed(key: AnchorKey, shown: Observation, proven: boolean, now: number): AnchorKey {
  if (key.state !== 'revoked' || !proven) return key;
  const { until, ...rest } = key;
  if ([...shown.revoked, ...shown.present].some(rdata => sameBytes(rdata, key.rdata))) return rest;
  return { ...rest, until: until ?? now + HOLD_DOWN_SECONDS };
}

/** Section 2.2: when all that vouched for a new key are revoked, waiting for it begins anew. */
function withoutOrphans(keys: readonly AnchorKey[], changes: Change[]): AnchorKey[] {
  const over = new Set(
    keys.filter(({ state }) => state === 'revoked' || state === 'removed').map(({ rdata }) => keyId(rdata)),
  );
  return keys.filter(key => {
    if (key.state !== 'addPend' || !key.vouchers!.every(voucher => over.has(voucher))) return true;
    changes.push({ rdata: key.rdata, from: 'addPend', event: 'keyRemoved' });
    return false;
  });
}

function withNewKeys(
  point: TrustPoint,
  observation: Observation,
  now: number,
  changes: Change[],
): TrustPoint {
  const removed = point.keys.filter(({ state }) => state === 'removed').slice(-MAX_REMOVED);
  const keys = point.keys.filter(({ state }) => state !== 'removed');
  const vouchers = observation.vouchers.filter(voucher =>
    keys.some(({ rdata, state }) => isTrusted(state) && keyId(rdata) === voucher),
  );
  for (const rdata of vouchers.length > 0 ? observation.present : []) {
    const known = [...keys, ...removed].some(key => sameBytes(key.rdata, rdata));
    if (known || !isSep(rdata) || keys.length >= MAX_KEYS) continue;
    // Section 2.4.1: so that it has been seen twice at least.
    const until = now + Math.max(HOLD_DOWN_SECONDS, observation.originalTtlSeconds);
    keys.push({ rdata, state: NEXT.start.newKey as AnchorState, since: now, until, vouchers });
    changes.push({ rdata, from: 'start', event: 'newKey' });
  }
  return { ...point, keys: [...keys, ...removed] };
}

/**
 * What is trusted now: keys that are Valid or Missing, and DS whose keys were never seen.
 *
 * Empty when all were revoked: then the trust point is treated as if it had never been configured (section 5). Not the
 * root: with it would go all of DNSSEC, and what must not happen silently does not happen at all. Its revoked keys vouch
 * for nobody, so that everything is bogus until somebody configures new ones.
 */
export function anchorsOf({ zone, unseen, keys }: TrustPoint): TrustAnchor[] {
  const trusted = keys.filter(({ state }) => isTrusted(state)).map(({ rdata }) => rdata);
  const anchors: TrustAnchor[] = [
    { name: zone, type: TYPE.DS, records: [...unseen] },
    { name: zone, type: TYPE.DNSKEY, records: trusted },
  ];
  const some = anchors.filter(({ records }) => records.length > 0);
  if (some.length > 0 || zone.labelCount > 0) return some;
  const revoked = keys.filter(({ state }) => !isTrusted(state)).map(({ rdata }) => withRevokeFlag(rdata));
  return [{ name: zone, type: TYPE.DNSKEY, records: revoked }];
}

export function isTrusted(state: AnchorState): boolean {
  return state === 'valid' || state === 'missing';
}

/**
 * The trust point where it was left, with what is configured now; `configured` and `before` are of this zone.
 *
 * What is new in the configuration counts at once, unless it has been revoked; what is no longer in it counts no more;
 * what was learnt from the zone stays. When nothing in the configuration is as it was, everything begins anew.
 */
export function reconciled(
  left: TrustPoint,
  before: readonly TrustAnchor[],
  configured: readonly TrustAnchor[],
  now: number,
): TrustPoint {
  const { zone } = left;
  const began = begun(zone, configured, now);
  const same = (a: TrustAnchor, b: TrustAnchor) =>
    a.type === b.type && a.records.some(rdata => b.records.some(other => sameBytes(other, rdata)));
  if (!before.some(a => configured.some(b => same(a, b)))) return began;
  const holds = (anchors: readonly TrustAnchor[], key: Uint8Array): boolean =>
    anchors.some(({ type, records }) =>
      records.some(rdata =>
        type === TYPE.DS ? isOf(rdata, zone, key) : sameBytes(withoutRevokeFlag(rdata), key),
      ),
    );
  const keys = left.keys
    .filter(({ rdata, state }) => !isTrusted(state) || holds(configured, rdata) || !holds(before, rdata))
    .map(key =>
      key.state === 'addPend' && holds(configured, key.rdata)
        ? { rdata: key.rdata, state: 'valid' as const, since: now }
        : key,
    );
  const isNew = (rdata: Uint8Array) => !left.keys.some(key => sameBytes(key.rdata, rdata));
  return {
    zone,
    unseen: began.unseen.filter(ds => !left.keys.some(({ rdata }) => isOf(ds, zone, rdata))),
    keys: [...keys, ...began.keys.filter(({ rdata }) => isNew(rdata))],
  };
}

/** A trust point as it is configured, before anything was seen of it. */
export function begun(zone: Name, configured: readonly TrustAnchor[], now: number): TrustPoint {
  const of = (wanted: number) => configured.flatMap(({ type, records }) => (type === wanted ? records : []));
  const keys = of(TYPE.DNSKEY).map(rdata => ({
    rdata: withoutRevokeFlag(rdata),
    state: hasRevokeFlag(rdata) ? ('revoked' as const) : ('valid' as const),
    since: now,
  }));
  return { zone, unseen: of(TYPE.DS), keys };
}

/** Seconds until the zone is to be asked again after an answer (section 2.3). */
export function queryInterval(originalTtlSeconds: number, signatureLifeSeconds: number): number {
  return Math.max(HOUR, Math.min(15 * DAY, originalTtlSeconds / 2, signatureLifeSeconds / 2));
}

/** Seconds until the zone is to be asked again after a failure (section 2.3). */
export function retryInterval(originalTtlSeconds: number, signatureLifeSeconds: number): number {
  return Math.max(HOUR, Math.min(DAY, originalTtlSeconds / 10, signatureLifeSeconds / 10));
}

/** Tells keys apart for good: tags collide. */
export function keyId(rdata: Uint8Array): string {
  return createHash('sha256').update(withoutRevokeFlag(rdata)).digest('base64');
}

export function withoutRevokeFlag(rdata: Uint8Array): Uint8Array {
  const copy = Uint8Array.from(rdata);
  copy[1]! &= ~DNSKEY_FLAG.REVOKE;
  return copy;
}

export function hasRevokeFlag(rdata: Uint8Array): boolean {
  return (rdata[1]! & DNSKEY_FLAG.REVOKE) !== 0;
}

function withRevokeFlag(rdata: Uint8Array): Uint8Array {
  const copy = Uint8Array.from(rdata);
  copy[1]! |= DNSKEY_FLAG.REVOKE;
  return copy;
}

function isSep(rdata: Uint8Array): boolean {
  return (rdata[1]! & DNSKEY_FLAG.SEP) !== 0;
}

function isOf(ds: Uint8Array, zone: Name, key: Uint8Array): boolean {
  const [record, dnskey] = [parseDs(ds), parseDnskey(key)];
  return record !== undefined && dnskey !== undefined && dsMatches(record, zone, dnskey);
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
