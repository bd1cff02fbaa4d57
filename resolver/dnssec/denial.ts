/** Proofs of absence: the verified NSEC and NSEC3 records of one zone in one message, and what they prove. */
import { parseNsec, parseNsec3 } from '../dns/dnssec-rdata.ts';
import type { Dnskey } from '../dns/dnssec-rdata.ts';
import type { ExtendedError } from '../dns/edns.ts';
import type { Name } from '../dns/name.ts';
import { parseSoa } from '../dns/rdata.ts';
import type { Rrset } from '../dns/rrset.ts';
import { EDE, TYPE } from '../dns/types.ts';
import type { Nsec3Denials, ZoneDenials } from './kept.ts';
import {
  closestEncloser,
  nsecDsStatus,
  nsecProvesNodata,
  nsecProvesNoCloser,
  nsecProvesNxdomain,
  nsecSpeaksOf,
  type OwnedNsec,
} from './nsec.ts';
import { Nsec3Chain, nsec3Covers, type Nsec3Entries, Nsec3List, type OwnedNsec3 } from './nsec3.ts';
import { verifyRrset } from './signature.ts';
import type { Work } from './work.ts';

export type DenialResult =
  | { status: 'secure' | 'insecure'; outcome: 'nodata' | 'nxdomain'; ede?: ExtendedError }
  | { status: 'bogus'; ede: ExtendedError };

/**
 * `noDs`: an unsigned delegation. `notCut`: no delegation at the name. `nothing`: no name here or below.
 */
export type DsDenial = 'noDs' | 'notCut' | 'nothing';

/** The zone that signs, with its keys. */
export type SecureZone = { zone: Name; keys: readonly Dnskey[] };

/**
 * What the authority section of one message says for one zone. Only records with a good signature count; others
 * are left out and their complaint kept for the case that the proof fails.
 */
export class Denial {
  readonly #zone: Name;
  readonly #limits: Work['limits'];
  readonly #nsecs: OwnedNsec[] = [];
  readonly #chains: Nsec3Chain[] = [];
  #complaint: ExtendedError | undefined;
  /** SOA, NSEC and NSEC3 RRsets that were verified, TTLs capped. */
  readonly rrsets: Rrset[] = [];

  private constructor(zone: Name, limits: Work['limits']) {
    this.#zone = zone;
    this.#limits = limits;
  }

  /** Verifies what `authority` holds of `zone`. Throws WorkExceeded. */
  static async collect(
    authority: readonly Rrset[],
    { zone, keys }: SecureZone,
    now: number,
    work: Work,
  ): Promise<Denial> {
    const denial = new Denial(zone, work.limits);
    const nsec3s = new Map<string, OwnedNsec3[]>();
    const proofs = authority.filter(rrset => isProof(rrset) && rrset.name.isSubdomainOf(zone));
    work.proofs(zone, proofs.length);
    for (const rrset of proofs) {
      if (denial.#iteratesTooOften(rrset)) continue;
      const result = await verifyRrset(rrset, zone, keys, now, work);
      if (result.status === 'bogus') {
        denial.#complaint ??= result.ede;
        continue;
      }
      // A denial that was itself made from a wildcard says nothing about its owner's place (RFC 4592 §4.1).
      if (result.closestEncloser !== undefined) continue;
      denial.rrsets.push({ ...rrset, ttlSeconds: result.ttlSeconds });
      denial.#add(rrset, nsec3s);
    }
    for (const entries of nsec3s.values())
      denial.#chains.push(new Nsec3Chain(zone, new Nsec3List(entries), work));
    denial.#chains.sort((a, b) => a.iterations - b.iterations);
    return denial;
  }

  /** Of what was verified before, that which speaks of `name` and of the wildcard that could stand for it. */
  static recall(kept: ZoneDenials, name: Name, work: Work): Denial {
    const { zone } = kept;
    const denial = new Denial(zone, work.limits);
    const soa = kept.soa();
    if (soa !== undefined) denial.rrsets.push(soa);
    denial.#recallNsec(kept, name);
    const wildcard = closestEncloser(denial.#nsecs, name, zone)?.wildcard();
    if (wildcard !== undefined) denial.#recallNsec(kept, wildcard);
    for (const chain of kept.nsec3Chains) {
      const found = (rrset: Rrset): void => void denial.#take(rrset);
      denial.#chains.push(new Nsec3Chain(zone, new KeptNsec3s(chain, zone, found), work));
    }
    return denial;
  }

  /**
   * Whether an empty answer for (name, type) is proven, and as what: what the proof says outweighs the RCODE,
   * which nobody signs; but a NOERROR is never proven by an NXDOMAIN proof alone.
   *
   * A proof with more NSEC3 iterations than we like is insecure (RFC 9276 §3.2), but it has to be one: otherwise any
   * NSEC3 of such a zone could deny all that is there. Throws WorkExceeded where hashing costs too much.
   */
  async ofAnswer(name: Name, type: number, nxdomain: boolean): Promise<DenialResult> {
    if (nxdomain) {
      if (nsecProvesNxdomain(this.#nsecs, name, this.#zone)) return { status: 'secure', outcome: 'nxdomain' };
      for (const chain of this.#chains) {
        const status = await chain.provesNxdomain(name);
        if (status !== undefined) return { ...this.#strength(chain, status), outcome: 'nxdomain' };
      }
    }
    if (nsecProvesNodata(this.#nsecs, name, type, this.#zone)) return { status: 'secure', outcome: 'nodata' };
    for (const chain of this.#chains) {
      const status = await chain.provesNodata(name, type);
      if (status === 'secure' || (status === 'insecure' && !nxdomain)) {
        return { ...this.#strength(chain, status), outcome: 'nodata' };
      }
    }
    return this.#unproven(nxdomain ? `${name.toText()} does not exist` : `${name.toText()} has no such data`);
  }

  /** Whether a wildcard at `closest` rightly answered for `name`. */
  async ofCloserName(
    name: Name,
    closest: Name,
  ): Promise<
    { status: 'secure' | 'insecure'; ede?: ExtendedError } | { status: 'bogus'; ede: ExtendedError }
  > {
    if (nsecProvesNoCloser(this.#nsecs, name, closest, this.#zone)) return { status: 'secure' };
    for (const chain of this.#chains) {
      const status = await chain.provesNoCloser(name, closest);
      if (status !== undefined) return this.#strength(chain, status);
    }
    return this.#unproven(`nothing is closer to ${name.toText()} than the wildcard that answered`);
  }

  /** What is said of a zone cut at `name`. */
  async ofDs(name: Name): Promise<DsDenial | { status: 'bogus'; ede: ExtendedError }> {
    const byNsec = nsecDsStatus(this.#nsecs, name, this.#zone);
    if (byNsec !== undefined) return byNsec;
    for (const chain of this.#chains) {
      const status = await chain.dsStatus(name);
      if (status !== undefined) return status;
    }
    return this.#unproven(`${name.toText()} has no DS`);
  }

  #recallNsec(kept: ZoneDenials, name: Name): void {
    const rrset = kept.nsecFor(name);
    const nsec = rrset && parseNsec(rrset.rdatas[0]!);
    if (nsec === undefined || !nsecSpeaksOf({ owner: rrset!.name, nsec }, name, this.#zone)) return;
    if (this.#take(rrset!)) this.#nsecs.push({ owner: rrset!.name, nsec });
  }

  /** Whether it is new. */
  #take(rrset: Rrset): boolean {
    if (this.rrsets.some(({ name, type }) => type === rrset.type && name.equals(rrset.name))) return false;
    this.rrsets.push(rrset);
    return true;
  }

  #add({ name, type, rdatas }: Rrset, nsec3s: Map<string, OwnedNsec3[]>): void {
    for (const rdata of rdatas) {
      if (type === TYPE.NSEC) {
        const nsec = parseNsec(rdata);
        if (nsec !== undefined) this.#nsecs.push({ owner: name, nsec });
      } else if (type === TYPE.NSEC3) {
        const nsec3 = parseNsec3(rdata);
        const ownerHash = nsec3OwnerHash(name, this.#zone);
        // RFC 5155 §8.1 and §8.2: unknown hash algorithms and flags are passed over.
        if (nsec3 === undefined || ownerHash === undefined) continue;
        if (nsec3.hashAlgorithm !== 1 || nsec3.flags > 1 || nsec3.nextHash.length !== ownerHash.length)
          continue;
        const parameters = `${nsec3.iterations} ${Buffer.from(nsec3.salt).toString('hex')}`;
        nsec3s.set(parameters, [...(nsec3s.get(parameters) ?? []), { ownerHash, nsec3 }]);
      }
    }
  }

  /** Not worth the check of its signature. */
  #iteratesTooOften({ type, rdatas }: Rrset): boolean {
    if (type !== TYPE.NSEC3) return false;
    const iterations = Math.max(...rdatas.map(rdata => parseNsec3(rdata)?.iterations ?? 0));
    if (iterations <= this.#limits.nsec3MaxIterations) return false;
    const text = `${this.#zone.toText()} uses ${iterations} NSEC3 iterations, too many to look at`;
    this.#complaint ??= { code: EDE.UNSUPPORTED_NSEC3_ITERATIONS, text };
    return true;
  }

  #strength(
    { iterations }: Nsec3Chain,
    status: 'secure' | 'insecure',
  ): { status: 'secure' | 'insecure'; ede?: ExtendedError } {
    if (iterations <= this.#limits.nsec3Iterations) return { status };
    const text = `${this.#zone.toText()} uses more than ${this.#limits.nsec3Iterations} NSEC3 iterations`;
    return { status: 'insecure', ede: { code: EDE.UNSUPPORTED_NSEC3_ITERATIONS, text } };
  }

  #unproven(claim: string): { status: 'bogus'; ede: ExtendedError } {
    if (this.#complaint !== undefined) return { status: 'bogus', ede: this.#complaint };
    const found = this.#nsecs.length > 0 || this.#chains.length > 0;
    const code = found ? EDE.DNSSEC_BOGUS : EDE.NSEC_MISSING;
    const text = found
      ? `the denial of ${this.#zone.toText()} does not prove that ${claim}`
      : `no proof that ${claim}`;
    return { status: 'bogus', ede: { code, text } };
  }
}

/** Finds the NSEC3s of a chain that is kept; those that speak of a hash that is asked for go to `found`. */
class KeptNsec3s implements Nsec3Entries {
  readonly salt: Uint8Array;
  readonly iterations: number;
  readonly #chain: Nsec3Denials;
  readonly #zone: Name;
  readonly #found: (rrset: Rrset) => void;

  constructor(chain: Nsec3Denials, zone: Name, found: (rrset: Rrset) => void) {
    this.salt = chain.salt;
    this.iterations = chain.iterations;
    this.#chain = chain;
    this.#zone = zone;
    this.#found = found;
  }

  matching(hash: Uint8Array): OwnedNsec3 | undefined {
    return this.#before(hash, ({ ownerHash }) => Buffer.compare(ownerHash, hash) === 0);
  }

  covering(hash: Uint8Array): OwnedNsec3 | undefined {
    return this.#before(hash, entry => nsec3Covers(entry, hash));
  }

  #before(hash: Uint8Array, fits: (entry: OwnedNsec3) => boolean): OwnedNsec3 | undefined {
    const rrset = this.#chain.nsec3Before(hash);
    const nsec3 = rrset && parseNsec3(rrset.rdatas[0]!);
    const ownerHash = rrset && nsec3OwnerHash(rrset.name, this.#zone);
    if (nsec3 === undefined || ownerHash === undefined || !fits({ ownerHash, nsec3 })) return undefined;
    this.#found(rrset!);
    return { ownerHash, nsec3 };
  }
}

/** RRsets that speak of absence; all else in an authority section is noise to a validator. */
export function isProof({ type }: Rrset): boolean {
  return type === TYPE.NSEC || type === TYPE.NSEC3 || type === TYPE.SOA;
}

/** How long an empty answer may be kept (RFC 2308 §5, RFC 9077): SOA's TTL and minimum, and the proof's TTLs. */
export function negativeTtl(authority: readonly Rrset[]): number {
  let ttlSeconds = Number.POSITIVE_INFINITY;
  let sawSoa = false;
  for (const rrset of authority) {
    const soa = rrset.type === TYPE.SOA ? parseSoa(rrset.rdatas[0]!) : undefined;
    if (soa !== undefined) sawSoa = true;
    ttlSeconds = Math.min(ttlSeconds, rrset.ttlSeconds, soa?.minimumSeconds ?? ttlSeconds);
  }
  return sawSoa ? ttlSeconds : 0;
}

/** The hash in the first label of an NSEC3's owner, which is one label below its zone. */
export function nsec3OwnerHash(owner: Name, zone: Name): Uint8Array | undefined {
  if (owner.labelCount !== zone.labelCount + 1) return undefined;
  const label = owner.wire.subarray(1, 1 + owner.wire[0]!);
  if (label.length !== 32) return undefined; // SHA-1 only
  const hash = new Uint8Array(20);
  let bits = 0;
  let value = 0;
  let at = 0;
  for (const byte of label) {
    const digit = '0123456789abcdefghijklmnopqrstuv'.indexOf(String.fromCharCode(byte).toLowerCase());
    if (digit === -1) return undefined;
    value = (value << 5) | digit;
    bits += 5;
    if (bits < 8) continue;
    bits -= 8;
    hash[at++] = value >> bits;
    value &= (1 << bits) - 1;
  }
  return hash;
}
