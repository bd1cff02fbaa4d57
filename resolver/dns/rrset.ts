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
  const sets = new Map<string, Gathered>();
  const orphans = new Map<string, Gathered>();
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
  const rrsets: Rrset[] = [];
  for (const { rrset } of sets.values()) rrsets.push(rrset);
  for (const { rrset } of orphans.values()) rrsets.push(rrset);
  return rrsets;
}

/** `seen`: RDATA by section of the RRset, once there are so many that comparing each with each would cost. */
type Gathered = { rrset: Rrset; seen?: { rdatas: Set<string>; signatures: Set<string> } };

/** With fewer records, comparing beats making strings; most RRsets have one or two. */
const FEW = 8;

function add(
  sets: Map<string, Gathered>,
  key: string,
  { name, type, class: rrClass, ttlSeconds, rdata }: ResourceRecord,
  where: 'rdatas' | 'signatures',
): void {
  let gathered = sets.get(key);
  if (gathered === undefined) {
    gathered = { rrset: { name, type, class: rrClass, ttlSeconds, rdatas: [], signatures: [] } };
    sets.set(key, gathered);
  }
  const { rrset } = gathered;
  if (isThere(gathered, where, rdata)) return;
  rrset[where].push(rdata);
  rrset.ttlSeconds = Math.min(rrset.ttlSeconds, ttlSeconds);
}

/** Whether the RRset has this RDATA already; from then on it counts as there. */
function isThere(gathered: Gathered, where: 'rdatas' | 'signatures', rdata: Uint8Array): boolean {
  const list = gathered.rrset[where];
  if (list.length < FEW) {
    for (const other of list) if (Buffer.compare(other, rdata) === 0) return true;
    return false;
  }
  const { rdatas, signatures } = gathered.rrset;
  gathered.seen ??= { rdatas: new Set(rdatas.map(keyOf)), signatures: new Set(signatures.map(keyOf)) };
  const seen = gathered.seen[where];
  // What came while the list was short is in no set if the set was made for the other list.
  if (seen.size < list.length) for (const other of list) seen.add(keyOf(other));
  const key = keyOf(rdata);
  if (seen.has(key)) return true;
  seen.add(key);
  return false;
}

function keyOf(rdata: Uint8Array): string {
  if (rdata.length <= 16) return String.fromCharCode(...rdata); // addresses, mostly: no Buffer is needed for them
  return Buffer.from(rdata.buffer, rdata.byteOffset, rdata.byteLength).toString('latin1');
}
