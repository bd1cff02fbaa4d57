/**
 * Denial by NSEC3 (RFC 5155 §8, RFC 6840 §4, RFC 9276): questions to NSEC3s whose signatures are already verified.
 *
 * All NSEC3s of one chain share hash parameters (§8.2); the caller hands in one chain at a time.
 */
import { hash } from 'node:crypto';
import type { Nsec3 } from '../dns/dnssec-rdata.ts';
import type { Name } from '../dns/name.ts';
import { TYPE } from '../dns/types.ts';
import { isDelegation, lacksType } from './nsec.ts';
import type { Work } from './work.ts';

export type OwnedNsec3 = { ownerHash: Uint8Array; nsec3: Nsec3 };

/** `insecure`: an opt-out span may hide an unsigned delegation (§9.2, §12.2). */
export type Nsec3Proof = 'secure' | 'insecure' | undefined;

/** Where the NSEC3s of one chain are found. */
export interface Nsec3Entries {
  readonly salt: Uint8Array;
  readonly iterations: number;
  matching(hash: Uint8Array): OwnedNsec3 | undefined;
  covering(hash: Uint8Array): OwnedNsec3 | undefined;
}

/** Those of one message: a few, at least one. */
export class Nsec3List implements Nsec3Entries {
  readonly #entries: readonly OwnedNsec3[];

  constructor(entries: readonly OwnedNsec3[]) {
    this.#entries = entries;
  }

  get salt(): Uint8Array {
    return this.#entries[0]!.nsec3.salt;
  }

  get iterations(): number {
    return this.#entries[0]!.nsec3.iterations;
  }

  matching(hash: Uint8Array): OwnedNsec3 | undefined {
    return this.#entries.find(({ ownerHash }) => Buffer.compare(ownerHash, hash) === 0);
  }

  covering(hash: Uint8Array): OwnedNsec3 | undefined {
    return this.#entries.find(entry => nsec3Covers(entry, hash));
  }
}

/** The NSEC3s of one zone that share salt and iterations. Throws WorkExceeded when hashing costs too much. */
export class Nsec3Chain {
  readonly #zone: Name;
  readonly #entries: Nsec3Entries;
  readonly #work: Work;
  readonly #hashes = new Map<string, Uint8Array>();

  constructor(zone: Name, entries: Nsec3Entries, work: Work) {
    this.#zone = zone;
    this.#entries = entries;
    this.#work = work;
  }

  get iterations(): number {
    return this.#entries.iterations;
  }

  /** §8.4: closest encloser proof, and the wildcard at the closest encloser is covered. */
  async provesNxdomain(name: Name): Promise<Nsec3Proof> {
    const proof = await this.#closestEncloser(name);
    if (proof === undefined) return undefined;
    const wildcard = proof.closest.wildcard();
    if (wildcard !== undefined && (await this.#covering(wildcard)) === undefined) return undefined;
    return proof.covering.nsec3.optOut ? 'insecure' : 'secure';
  }

  /** §8.5 no data, §8.6 no data for DS, §8.7 wildcard no data. */
  async provesNodata(name: Name, type: number): Promise<Nsec3Proof> {
    const exact = await this.#matching(name);
    if (exact !== undefined) return lacksType(exact.nsec3.types, type, name) ? 'secure' : undefined;
    const proof = await this.#closestEncloser(name);
    if (proof === undefined) return undefined;
    const { optOut } = proof.covering.nsec3;
    const wildcard = proof.closest.wildcard();
    const match = wildcard && (await this.#matching(wildcard));
    if (match !== undefined) {
      if (!lacksType(match.nsec3.types, type, wildcard!)) return undefined;
      return optOut ? 'insecure' : 'secure';
    }
    return optOut ? 'insecure' : undefined;
  }

  /** §8.8: the name one label below the wildcard's place, towards `name`, does not exist. */
  async provesNoCloser(name: Name, closest: Name): Promise<Nsec3Proof> {
    const covering = await this.#covering(name.suffix(closest.labelCount + 1));
    if (covering === undefined) return undefined;
    return covering.nsec3.optOut ? 'insecure' : 'secure';
  }

  /** As nsecDsStatus; under opt-out what has no NSEC3 may be an unsigned delegation: `noDs` (§8.9). */
  async dsStatus(name: Name): Promise<'noDs' | 'notCut' | 'nothing' | undefined> {
    const exact = await this.#matching(name);
    if (exact !== undefined) {
      const { types } = exact.nsec3;
      if (types.has(TYPE.SOA) || types.has(TYPE.DS)) return undefined;
      return types.has(TYPE.NS) ? 'noDs' : 'notCut';
    }
    const proof = await this.#closestEncloser(name);
    if (proof === undefined) return undefined;
    return proof.covering.nsec3.optOut ? 'noDs' : 'nothing';
  }

  /**
   * §8.3: the longest existing ancestor, with the NSEC3 that covers the next closer name.
   *
   * From the apex down, so that what is below a name that does not exist need not be hashed: random names deep down in
   * an honest zone cost no more than others. An ancestor that is a zone cut or a DNAME proves nothing about names below it.
   */
  async #closestEncloser(name: Name): Promise<{ closest: Name; covering: OwnedNsec3 } | undefined> {
    let closest: Name | undefined;
    for (let labels = this.#zone.labelCount; labels <= name.labelCount; labels++) {
      const candidate = name.suffix(labels);
      const match = await this.#matching(candidate);
      if (match !== undefined) {
        const { types } = match.nsec3;
        if (isDelegation(types) || types.has(TYPE.DNAME)) return undefined;
        closest = candidate;
      } else if (closest?.labelCount === labels - 1) {
        const covering = await this.#covering(candidate);
        if (covering !== undefined) return { closest, covering };
      }
    }
    return undefined;
  }

  async #matching(name: Name): Promise<OwnedNsec3 | undefined> {
    return this.#entries.matching(await this.#hash(name));
  }

  async #covering(name: Name): Promise<OwnedNsec3 | undefined> {
    return this.#entries.covering(await this.#hash(name));
  }

  async #hash(name: Name): Promise<Uint8Array> {
    const known = this.#hashes.get(name.key);
    if (known !== undefined) return known;
    const { salt, iterations } = this.#entries;
    const turn = this.#work.nsec3Hash(this.#zone, iterations);
    if (turn !== undefined) await turn;
    const hash = nsec3Hash(name, salt, iterations);
    this.#hashes.set(name.key, hash);
    return hash;
  }
}

/** Whether the hash lies between owner and next (§1.3 "cover"). */
export function nsec3Covers({ ownerHash, nsec3: { nextHash } }: OwnedNsec3, hash: Uint8Array): boolean {
  const afterOwner = Buffer.compare(hash, ownerHash) > 0;
  const beforeNext = Buffer.compare(hash, nextHash) < 0;
  if (Buffer.compare(ownerHash, nextHash) < 0) return afterOwner && beforeNext;
  return afterOwner || beforeNext; // the last one wraps; a lone one covers all but itself
}

/** RFC 5155 §5: IH(salt, x, k) = H(IH(salt, x, k-1) || salt), SHA-1. */
export function nsec3Hash(name: Name, salt: Uint8Array, iterations: number): Uint8Array {
  let digest = hash('sha1', Buffer.concat([name.canonical().wire, salt]), 'buffer');
  const input = Buffer.concat([digest, salt]);
  for (let i = 0; i < iterations; i++) {
    digest = hash('sha1', input, 'buffer');
    input.set(digest);
  }
  return digest;
}
