/** The file in which the rollover of trust anchors is remembered: JSON that people can read. */
import { z } from 'zod';
import { anchorRecords } from './config/anchors.ts';
import { parseDnskey } from './dns/dnssec-rdata.ts';
import { Name } from './dns/name.ts';
import { TYPE } from './dns/types.ts';
import { parseTrustAnchors, type TrustAnchor } from './dnssec/anchors.ts';
import type { AnchorKey, TrustPoint } from './dnssec/rollover.ts';

/** One trust point with what belongs to asking it again; times are Unix seconds. */
export type ManagedPoint = {
  point: TrustPoint;
  /** As it was configured when this was written. */
  configured: readonly TrustAnchor[];
  /** Of the last RRset that was proven: what the next refresh goes by. */
  originalTtlSeconds: number;
  signatureLifeSeconds: number;
  refreshedAt: number | undefined;
  nextRefreshAt: number;
  /** Why the last refresh failed. */
  problem: string | undefined;
};

export const MAX_STATE_BYTES = 1 << 20;

const time = z.iso.datetime({ precision: 0 }).transform(text => Date.parse(text) / 1000);
const records = z.array(z.string()).transform(lines => parseTrustAnchors(lines.join('\n')));
const seconds = z.number().nonnegative();

const file = z.object({
  version: z.literal(1),
  zones: z.array(
    z.object({
      zone: z.string(),
      configured: records,
      unseen: records,
      keys: z.array(
        z.object({
          record: z.string().transform(line => parseTrustAnchors(line)[0]?.records[0]),
          state: z.enum(['addPend', 'valid', 'missing', 'revoked', 'removed']),
          since: time,
          until: time.optional(),
          vouchers: z.array(z.string()).optional(),
        }),
      ),
      originalTtlSeconds: seconds,
      signatureLifeSeconds: seconds,
      refreshedAt: time.optional(),
      nextRefreshAt: time,
      problem: z.string().optional(),
    }),
  ),
});

export function composeState(points: readonly ManagedPoint[]): string {
  const zones = points.map(({ point, configured, refreshedAt, nextRefreshAt, problem, ...times }) => ({
    zone: point.zone.toText(),
    configured: anchorRecords([...configured]),
    unseen: anchorRecords([{ name: point.zone, type: TYPE.DS, records: [...point.unseen] }]),
    keys: point.keys.map(({ rdata, since, until, state, vouchers }) => ({
      keyTag: parseDnskey(rdata)?.keyTag,
      state,
      since: timeText(since),
      ...(until !== undefined && { until: timeText(until) }),
      ...(vouchers !== undefined && { vouchers }),
      record: anchorRecords([{ name: point.zone, type: TYPE.DNSKEY, records: [rdata] }])[0],
    })),
    ...times,
    ...(refreshedAt !== undefined && { refreshedAt: timeText(refreshedAt) }),
    nextRefreshAt: timeText(nextRefreshAt),
    ...(problem !== undefined && { problem }),
  }));
  return `${JSON.stringify({ version: 1, zones }, undefined, 2)}\n`;
}

/** Throws, in words, for what `composeState` did not write. */
export function parseState(text: string): ManagedPoint[] {
  let parsed: z.output<typeof file>;
  try {
    parsed = file.parse(JSON.parse(text));
  } catch (error) {
    throw new Error(`it is not what was written there: ${(error as Error).message.split('\n')[0]}`);
  }
  return parsed.zones.map(({ zone, configured, unseen, keys, refreshedAt, problem, ...times }) => ({
    point: {
      zone: Name.parseText(zone),
      unseen: unseen.flatMap(anchor => anchor.records),
      keys: keys.map(keyOf),
    },
    configured,
    refreshedAt,
    problem,
    ...times,
  }));
}

type KeyRecord = z.output<typeof file>['zones'][number]['keys'][number];

function keyOf({ record, state, since, until, vouchers }: KeyRecord): AnchorKey {
  if (record === undefined || parseDnskey(record) === undefined)
    throw new Error('it holds a key that is none');
  if (state === 'addPend' && (until === undefined || vouchers === undefined)) {
    throw new Error('it holds a pending key without an end or anybody who vouched for it');
  }
  return {
    rdata: record,
    state,
    since,
    ...(until !== undefined && { until }),
    ...(vouchers !== undefined && { vouchers }),
  };
}

export function timeText(seconds: number): string {
  return new Date(Math.floor(seconds) * 1000).toISOString().replace('.000Z', 'Z');
}
