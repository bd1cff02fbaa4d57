/** RRsets: records of one owner, type and class (RFC 2181 §5), each with the signatures that cover it. */
import type { ResourceRecord } from './message.ts';
import type { Name } from './name.ts';
import { CLASS, TYPE } from './types.ts';

/**
 * `rdatas`: uncompressed RDATA, no two alike, in the order found. `signatures`: RDATA of RRSIGs over this type.
 * `ttlSeconds`: the least of the records' TTLs (RFC 2181 §5.2).
 */
export type Rrset = {
  name: Name;
  type: number;
  class: number;
  ttlSeconds: number;
  rdatas: Uint8Array[];
  signatures: Uint8Array[];
};

/**
 * The RRsets of one section in order of appearance, class IN only.
 *
 * Malformed records are left out. RRSIGs go to the RRset they cover; RRSIGs whose RRset is not there make RRsets
 * of type RRSIG of their own, one for each type covered, so that an answer to a question for RRSIG survives.
 */
export function groupRrsets(records: readonly ResourceRecord[]): Rrset[] {
  const sets = new Map<string, Rrset & { seen: Set<string> }>();
  const orphans = new Map<string, Rrset & { seen: Set<string> }>();
  for (const record of records) {
    if (record.malformed || record.class !== CLASS.IN || record.type === TYPE.RRSIG) continue;
    add(sets, `${record.type} ${record.name.key}`, record, 'rdatas');
  }
  for (const record of records) {
    if (record.malformed || record.class !== CLASS.IN || record.type !== TYPE.RRSIG) continue;
    const covered = (record.rdata[0]! << 8) | record.rdata[1]!;
    const key = `${covered} ${record.name.key}`;
    if (sets.has(key)) add(sets, key, record, 'signatures');
    else add(orphans, key, record, 'rdatas');
  }
  return [...sets.values(), ...orphans.values()].map(({ seen: _, ...rrset }) => rrset);
}

/** The records of an RRset, and of its signatures when asked for, as they go into a message. */
export function recordsOf(
  rrset: Rrset,
  withSignatures: boolean,
  ttlSeconds: number = rrset.ttlSeconds,
): ResourceRecord[] {
  const { name, class: rrClass } = rrset;
  const records = rrset.rdatas.map(rdata => ({ name, type: rrset.type, class: rrClass, ttlSeconds, rdata }));
  if (!withSignatures) return records;
  const signatures = rrset.signatures.map(rdata => ({
    name,
    type: TYPE.RRSIG,
    class: rrClass,
    ttlSeconds,
    rdata,
  }));
  return [...records, ...signatures];
}

function add(
  sets: Map<string, Rrset & { seen: Set<string> }>,
  key: string,
  { name, type, class: rrClass, ttlSeconds, rdata }: ResourceRecord,
  where: 'rdatas' | 'signatures',
): void {
  let set = sets.get(key);
  if (set === undefined) {
    set = { name, type, class: rrClass, ttlSeconds, rdatas: [], signatures: [], seen: new Set() };
    sets.set(key, set);
  }
  const text = `${type} ${Buffer.from(rdata.buffer, rdata.byteOffset, rdata.byteLength).toString('latin1')}`;
  if (set.seen.has(text)) return;
  set.seen.add(text);
  set[where].push(rdata);
  set.ttlSeconds = Math.min(set.ttlSeconds, ttlSeconds);
}
