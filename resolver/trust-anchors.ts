/**
 * Trust anchors in force: configured ones as they stand, or followed through their rollovers (RFC 5011).
 *
 * Each trust point is asked for its DNSKEY RRset at the times of section 2.3; what `dnssec/rollover.ts` makes of the
 * answer is written to the state directory before it counts, so that a restart never knows less.
 */
import { join } from 'node:path';
import { composeState, MAX_STATE_BYTES, type ManagedPoint, parseState, timeText } from './anchors-state.ts';
import { parseDnskey, parseDs } from './dns/dnssec-rdata.ts';
import type { Name } from './dns/name.ts';
import { groupRrsets } from './dns/rrset.ts';
import { TYPE } from './dns/types.ts';
import type { TrustAnchor } from './dnssec/anchors.ts';
import {
  anchorsOf,
  begun,
  isTrusted,
  observed,
  queryInterval,
  reconciled,
  retryInterval,
} from './dnssec/rollover.ts';
import { observe } from './dnssec/rollover-observe.ts';
import type { Exchange } from './dnssec/types.ts';
import type { Logger } from './log.ts';
import { readStateFile, writeStateFile } from './state-file.ts';

/** After the start, so that the first questions do not wait behind it. */
const FIRST_REFRESH_SECONDS = 5;
/** No refresh is ever planned further ahead (section 2.3); if one is, the clock was set back. */
const MAX_INTERVAL_SECONDS = 15 * 86_400;

export type TrustAnchorsOptions = {
  configured: readonly TrustAnchor[];
  managed: boolean;
  /** The state directory. */
  state: string;
  exchange: Exchange;
  /** Unix seconds. */
  now: () => number;
  /** Calls back after so many seconds, unless cancelled by what it returns. */
  later: (seconds: number, callback: () => void) => () => void;
  /** What was trusted so far is not what is trusted now. */
  changed: (anchors: TrustAnchor[]) => void;
  log: Logger;
};

/** One key or DS of a trust point, for people. `unseen`: a DS whose key the zone has not shown yet. */
export type TrustAnchorStatus = {
  zone: string;
  managed: boolean;
  keys: { keyTag: number; algorithm: number; state: string; since?: string; until?: string }[];
  lastRefresh?: string;
  nextRefresh?: string;
  problem?: string;
};

export class TrustAnchors {
  readonly #options: TrustAnchorsOptions;
  readonly #points: ManagedPoint[];
  #cancel: (() => void) | undefined;
  #stopped = false;

  /** Reads the state file; what cannot be used of it is told and ignored. */
  constructor(options: TrustAnchorsOptions) {
    this.#options = options;
    this.#points = options.managed ? this.#restored() : [];
  }

  /** What is trusted now. */
  current(): TrustAnchor[] {
    const { managed, configured } = this.#options;
    return managed ? this.#points.flatMap(({ point }) => anchorsOf(point)) : [...configured];
  }

  /** From now on each zone is asked when it is due. */
  start(): void {
    this.#schedule(FIRST_REFRESH_SECONDS);
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel?.();
  }

  status(): TrustAnchorStatus[] {
    const { managed, configured } = this.#options;
    if (!managed) return zonesOf(configured).map(zone => staticStatus(zone, configured));
    return this.#points.map(managedStatus);
  }

  #restored(): ManagedPoint[] {
    const { configured } = this.#options;
    const now = this.#options.now();
    const left = this.#read();
    return zonesOf(configured).map(zone => {
      const own = configured.filter(({ name }) => name.equals(zone));
      const before = left.find(({ point }) => point.zone.equals(zone));
      if (before === undefined) return newPoint(zone, own, now);
      const { nextRefreshAt } = before;
      return {
        ...before,
        point: reconciled(before.point, before.configured, own, now),
        configured: own,
        nextRefreshAt: nextRefreshAt > now + MAX_INTERVAL_SECONDS ? now : nextRefreshAt,
      };
    });
  }

  #read(): ManagedPoint[] {
    const path = this.#path();
    try {
      const content = readStateFile(path, MAX_STATE_BYTES);
      return content === undefined ? [] : parseState(content.toString());
    } catch (error) {
      const why = (error as Error).message;
      this.#options.log.error(
        { event: 'anchorsIgnored', path, why },
        'what was learnt of trust anchors is not used: those of the configuration are',
      );
      return [];
    }
  }

  #schedule(leastSeconds: number): void {
    this.#cancel?.();
    if (this.#stopped || this.#points.length === 0) return;
    const next = Math.min(...this.#points.map(({ nextRefreshAt }) => nextRefreshAt));
    // Timers of Node end after 24 days; the clock may be set in the meantime; a machine may sleep.
    const seconds = Math.min(Math.max(leastSeconds, next - this.#options.now()), 3600);
    this.#cancel = this.#options.later(seconds, () => void this.#refreshDue());
  }

  async #refreshDue(): Promise<void> {
    const due = this.#points.filter(({ nextRefreshAt }) => nextRefreshAt <= this.#options.now());
    let otherTrust = false;
    for (const managed of due) otherTrust = (await this.#refresh(managed)) || otherTrust;
    if (this.#stopped) return;
    if (due.length > 0) this.#write();
    if (otherTrust) this.#options.changed(this.current());
    this.#schedule(1);
  }

  /** Asks one zone; whether other keys are trusted now than before. */
  async #refresh(managed: ManagedPoint): Promise<boolean> {
    const { exchange, now, log } = this.#options;
    const { zone } = managed.point;
    let otherTrust = false;
    try {
      const { answer } = await exchange({ name: zone, type: TYPE.DNSKEY });
      const rrset = groupRrsets(answer).find(({ name, type }) => type === TYPE.DNSKEY && name.equals(zone));
      if (rrset === undefined) throw new Error('the answer holds no DNSKEY');
      const seen = await observe(managed.point, rrset, now());
      const { point, changes } = observed(managed.point, seen, now());
      managed.point = point;
      otherTrust = changes.some(({ event }) => event === 'addTime' || event === 'revoked');
      for (const { rdata, event, from } of changes) {
        const keyTag = parseDnskey(rdata)!.keyTag;
        log.warn({ event: 'trustAnchor', zone: zone.toText(), keyTag, from, because: event });
      }
      if (point.unseen.length === 0 && !point.keys.some(({ state }) => isTrusted(state))) {
        throw new Error('all its keys are revoked: configure other trust anchors');
      }
      if (seen.vouchers.length === 0) throw new Error('no trusted key signs the DNSKEY RRset');
      managed.originalTtlSeconds = seen.originalTtlSeconds;
      managed.signatureLifeSeconds = seen.signatureLifeSeconds;
      managed.refreshedAt = now();
      managed.nextRefreshAt = now() + queryInterval(seen.originalTtlSeconds, seen.signatureLifeSeconds);
      managed.problem = undefined;
    } catch (error) {
      managed.problem = error instanceof Error ? error.message : String(error);
      managed.nextRefreshAt = now() + retryInterval(managed.originalTtlSeconds, managed.signatureLifeSeconds);
      log.warn({ event: 'trustAnchorRefresh', zone: zone.toText(), why: managed.problem });
    }
    return otherTrust;
  }

  #write(): void {
    const path = this.#path();
    try {
      writeStateFile(path, composeState(this.#points));
    } catch (error) {
      this.#options.log.error(
        { event: 'anchorsNotWritten', path, err: error },
        'what was learnt of trust anchors will be lost with the next stop',
      );
    }
  }

  #path(): string {
    return join(this.#options.state, 'trust-anchors.json');
  }
}

function zonesOf(anchors: readonly TrustAnchor[]): Name[] {
  return [...new Map(anchors.map(({ name }) => [name.key, name])).values()];
}

function newPoint(zone: Name, configured: TrustAnchor[], now: number): ManagedPoint {
  return {
    point: begun(zone, configured, now),
    configured,
    originalTtlSeconds: 0,
    signatureLifeSeconds: 0,
    refreshedAt: undefined,
    nextRefreshAt: now,
    problem: undefined,
  };
}

function managedStatus({ point, refreshedAt, nextRefreshAt, problem }: ManagedPoint): TrustAnchorStatus {
  return {
    zone: point.zone.toText(),
    managed: true,
    keys: [
      ...point.unseen.map(rdata => ({ ...tagOf(TYPE.DS, rdata), state: 'unseen' })),
      ...point.keys.map(({ rdata, state, since, until }) => ({
        ...tagOf(TYPE.DNSKEY, rdata),
        state,
        since: timeText(since),
        ...(until !== undefined && { until: timeText(until) }),
      })),
    ],
    ...(refreshedAt !== undefined && { lastRefresh: timeText(refreshedAt) }),
    nextRefresh: timeText(nextRefreshAt),
    ...(problem !== undefined && { problem }),
  };
}

function staticStatus(zone: Name, configured: readonly TrustAnchor[]): TrustAnchorStatus {
  const own = configured.filter(({ name }) => name.equals(zone));
  const keys = own.flatMap(({ type, records }) =>
    records.map(rdata => ({ ...tagOf(type, rdata), state: 'static' })),
  );
  return { zone: zone.toText(), managed: false, keys };
}

function tagOf(type: number, rdata: Uint8Array): { keyTag: number; algorithm: number } {
  const { keyTag = 0, algorithm = 0 } = (type === TYPE.DS ? parseDs(rdata) : parseDnskey(rdata)) ?? {};
  return { keyTag, algorithm };
}
