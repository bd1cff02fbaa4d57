/** Checking one RRset against the keys of its zone (RFC 4035 §5.3). */
import { type Dnskey, DNSKEY_FLAG, parseRrsig, type Rrsig } from '../dns/dnssec-rdata.ts';
import type { ExtendedError } from '../dns/edns.ts';
import type { Name } from '../dns/name.ts';
import { canonicalRdata } from '../dns/rdata-form.ts';
import type { Rrset } from '../dns/rrset.ts';
import { EDE, typeToText } from '../dns/types.ts';
import { isSupportedAlgorithm, verifySignature } from './algorithms.ts';
import type { Work } from './work.ts';

/**
 * `closestEncloser`: the RRset was made from `*.closestEncloser`; that no closer name exists is still to be proven.
 * `ttlSeconds`: no more than the original TTL and what is left of the signature's life (§5.3.3).
 */
export type SignatureResult =
  | { status: 'secure'; ttlSeconds: number; closestEncloser?: Name }
  | { status: 'bogus'; ede: ExtendedError };

/**
 * Whether one of the RRset's signatures was made by one of `keys` of `zone`, at `now` in Unix seconds.
 *
 * Any one good signature suffices (RFC 6840 §5.4, §5.11). Throws WorkExceeded.
 */
export async function verifyRrset(
  rrset: Rrset,
  zone: Name,
  keys: readonly Dnskey[],
  now: number,
  work: Work,
): Promise<SignatureResult> {
  const what = `${typeToText(rrset.type)} of ${rrset.name.toText()}`;
  const complaints: ExtendedError[] = [];
  const data = new SignedData(rrset);
  let tried = 0;
  for (const rdata of rrset.signatures) {
    const rrsig = parseRrsig(rdata);
    if (rrsig === undefined || !rrsig.signer.equals(zone)) continue;
    const objection = misfit(rrsig, rrset, now);
    if (objection !== undefined) {
      complaints.push({ code: objection.code, text: `${what}: ${objection.text}` });
      continue;
    }
    const candidates = keys.filter(key => key.keyTag === rrsig.keyTag && key.algorithm === rrsig.algorithm);
    if (candidates.length === 0) {
      const text = `${what}: no key of ${zone.toText()} has tag ${rrsig.keyTag} and algorithm ${rrsig.algorithm}`;
      complaints.push({ code: EDE.DNSKEY_MISSING, text });
    }
    for (const key of lastGoodFirst(candidates).slice(0, work.limits.keysPerTag)) {
      if (++tried > work.limits.verificationsPerRrset) {
        return { status: 'bogus', ede: { code: EDE.DNSSEC_BOGUS, text: `${what}: too many bad signatures` } };
      }
      const octets = data.of(rrsig);
      if (work.verified.has(key, octets, rrsig.signature)) return good(rrset, rrsig, now);
      const turn = work.verification(zone, key.algorithm, octets.length);
      if (turn !== undefined) await turn;
      if (verifySignature(key, octets, rrsig.signature)) {
        proven.add(key);
        work.verified.keep(rrset.type, key, octets, rrsig.signature);
        return good(rrset, rrsig, now);
      }
      work.failure(zone, key.algorithm, octets.length);
    }
    if (candidates.length > 0) {
      complaints.push({ code: EDE.DNSSEC_BOGUS, text: `${what}: signature by key ${rrsig.keyTag} is wrong` });
    }
  }
  return { status: 'bogus', ede: worst(complaints, what, zone) };
}

/** Keys that may sign data: zone keys (RFC 4034 §2.1.1) of protocol 3, not revoked (RFC 5011 §2.1), algorithm known. */
export function isUsableKey(key: Dnskey): boolean {
  return (
    (key.flags & DNSKEY_FLAG.ZONE) !== 0 &&
    (key.flags & DNSKEY_FLAG.REVOKE) === 0 &&
    key.protocol === 3 &&
    isSupportedAlgorithm(key.algorithm)
  );
}

/** Everything about a signature that can be refused without a key. */
function misfit(rrsig: Rrsig, { name, type }: Rrset, now: number): ExtendedError | undefined {
  const ownerLabels = name.labelCount - (name.isWildcard ? 1 : 0);
  if (rrsig.typeCovered !== type) return { code: EDE.DNSSEC_BOGUS, text: 'signature covers another type' };
  if (!name.isSubdomainOf(rrsig.signer)) {
    return { code: EDE.DNSSEC_BOGUS, text: `signer ${rrsig.signer.toText()} is not above it` };
  }
  if (rrsig.labels > ownerLabels || rrsig.labels < rrsig.signer.labelCount) {
    return { code: EDE.DNSSEC_BOGUS, text: 'label count of the signature is impossible' };
  }
  if (!isSupportedAlgorithm(rrsig.algorithm)) {
    return { code: EDE.UNSUPPORTED_DNSKEY_ALGORITHM, text: `algorithm ${rrsig.algorithm} is not supported` };
  }
  if (serialLess(rrsig.expiration, rrsig.inception)) {
    return { code: EDE.DNSSEC_BOGUS, text: 'signature expires before it begins' };
  }
  if (serialLess(now, rrsig.inception)) {
    const clock = new Date(now * 1000).toISOString();
    const text = `signature begins ${when(rrsig.inception)}, our clock says ${clock}; is the clock right?`;
    return { code: EDE.SIGNATURE_NOT_YET_VALID, text };
  }
  if (serialLess(rrsig.expiration, now)) {
    return { code: EDE.SIGNATURE_EXPIRED, text: `signature expired ${when(rrsig.expiration)}` };
  }
  return undefined;
}

/** RFC 1982 comparison modulo 2^32 (RFC 4034 §3.1.5). */
function serialLess(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}

function when(seconds: number): string {
  return new Date(seconds * 1000).toISOString();
}

function good(rrset: Rrset, rrsig: Rrsig, now: number): SignatureResult {
  const life = (rrsig.expiration - now) | 0;
  const ttlSeconds = Math.min(rrset.ttlSeconds, rrsig.originalTtlSeconds, life);
  const ownerLabels = rrset.name.labelCount - (rrset.name.isWildcard ? 1 : 0);
  if (rrsig.labels === ownerLabels) return { status: 'secure', ttlSeconds };
  return { status: 'secure', ttlSeconds, closestEncloser: rrset.name.suffix(rrsig.labels) };
}

/** Keys that some signature was good by. */
const proven = new WeakSet<Dnskey>();

/** Where tags of an honest zone collide, the key that signs is known after the first RRset, and no other fails any more. */
function lastGoodFirst(candidates: readonly Dnskey[]): readonly Dnskey[] {
  if (candidates.length < 2) return candidates;
  return [...candidates].sort((a, b) => Number(proven.has(b)) - Number(proven.has(a)));
}

/** What is signed of one RRset: sorted and written once, however many signatures there are to try. */
class SignedData {
  readonly #rrset: Rrset;
  #records: Uint8Array[] | undefined;
  /** The last one made; signatures of one RRset mostly differ in their first octets alone. */
  #made: { labels: number; ttlSeconds: number; prefixLength: number; octets: Buffer } | undefined;

  constructor(rrset: Rrset) {
    this.#rrset = rrset;
  }

  /** RFC 4034 §3.1.8.1: RRSIG RDATA without signature | RR(1) | RR(2)…; valid until the next call. */
  of(rrsig: Rrsig): Uint8Array {
    const { labels, originalTtlSeconds: ttlSeconds, signedPrefix } = rrsig;
    const made = this.#made;
    if (
      made === undefined ||
      made.labels !== labels ||
      made.ttlSeconds !== ttlSeconds ||
      made.prefixLength !== signedPrefix.length
    ) {
      this.#records ??= canonicalRecords(this.#rrset);
      const octets = signedData(this.#rrset, rrsig, this.#records);
      this.#made = { labels, ttlSeconds, prefixLength: signedPrefix.length, octets };
      return octets;
    }
    made.octets.set(signedPrefix, 0);
    return made.octets;
  }
}

/** RDATA in canonical form and order, duplicates gone (RFC 4034 §6.2, §6.3). */
function canonicalRecords({ type, rdatas }: Rrset): Uint8Array[] {
  if (rdatas.length === 1) return [canonicalRdata(type, rdatas[0]!)];
  const sorted = rdatas.map(rdata => canonicalRdata(type, rdata)).sort(Buffer.compare);
  return sorted.filter((rdata, i) => i === 0 || Buffer.compare(rdata, sorted[i - 1]!) !== 0);
}

function signedData(
  { name, type, class: rrClass }: Rrset,
  rrsig: Rrsig,
  records: readonly Uint8Array[],
): Buffer {
  const owner = signedOwner(name, rrsig).canonical().wire;
  let size = rrsig.signedPrefix.length;
  for (const rdata of records) size += owner.length + 10 + rdata.length;
  const data = Buffer.allocUnsafe(size);
  data.set(rrsig.signedPrefix, 0);
  let at = rrsig.signedPrefix.length;
  for (const rdata of records) {
    data.set(owner, at);
    at += owner.length;
    at = data.writeUInt16BE(type, at);
    at = data.writeUInt16BE(rrClass, at);
    at = data.writeUInt32BE(rrsig.originalTtlSeconds, at);
    at = data.writeUInt16BE(rdata.length, at);
    data.set(rdata, at);
    at += rdata.length;
  }
  return data;
}

/** RFC 4035 §5.3.2: the wildcard that the owner was made from, or the owner. */
function signedOwner(name: Name, { labels }: Rrsig): Name {
  if (labels === name.labelCount - (name.isWildcard ? 1 : 0)) return name;
  return name.suffix(labels).wildcard()!; // shorter than the owner, so never too long
}

/** The complaint that helps a person most: a wrong time explains more than a missing key. */
function worst(complaints: readonly ExtendedError[], what: string, zone: Name): ExtendedError {
  const order: number[] = [
    EDE.SIGNATURE_EXPIRED,
    EDE.SIGNATURE_NOT_YET_VALID,
    EDE.DNSSEC_BOGUS,
    EDE.DNSKEY_MISSING,
    EDE.UNSUPPORTED_DNSKEY_ALGORITHM,
  ];
  for (const code of order) {
    const found = complaints.find(complaint => complaint.code === code);
    if (found !== undefined) return found;
  }
  return { code: EDE.RRSIGS_MISSING, text: `${what}: no signature by ${zone.toText()}` };
}
