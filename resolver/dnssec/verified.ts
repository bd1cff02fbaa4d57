/**
 * Proofs that were verified lately: the SOA of a zone, the NSEC3 of its apex come with every denial, signed once.
 *
 * What is remembered is that one key made one signature over these octets, and nothing else: time, names and limits are
 * looked at each time. Keys are told apart as objects, and a chain of trust that is made anew makes new ones.
 */
import type { Dnskey } from '../dns/dnssec-rdata.ts';
import { copyBytes } from '../dns/name.ts';
import { TYPE } from '../dns/types.ts';

const MAX_KEPT = 500;
/** Longer ones are not worth the room: signed octets and signature together. */
const MAX_OCTETS = 1024;

export class VerifiedProofs {
  /** The signature as text leads to what it signs; the least recently used first. */
  readonly #kept = new Map<string, { key: Dnskey; data: Uint8Array }>();

  has(key: Dnskey, data: Uint8Array, signature: Uint8Array): boolean {
    if (this.#kept.size === 0) return false;
    const text = textOf(signature);
    const found = this.#kept.get(text);
    if (found === undefined || found.key !== key || Buffer.compare(found.data, data) !== 0) return false;
    this.#kept.delete(text);
    this.#kept.set(text, found);
    return true;
  }

  /** Types that come only to those who ask for them are kept as RRsets, and not here. */
  keep(type: number, key: Dnskey, data: Uint8Array, signature: Uint8Array): void {
    if (type !== TYPE.SOA && type !== TYPE.NSEC && type !== TYPE.NSEC3) return;
    if (data.length + signature.length > MAX_OCTETS) return;
    this.#kept.set(textOf(signature), { key, data: copyBytes(data) });
    if (this.#kept.size > MAX_KEPT) this.#kept.delete(this.#kept.keys().next().value!);
  }
}

function textOf(signature: Uint8Array): string {
  return Buffer.from(signature.buffer, signature.byteOffset, signature.byteLength).toString('latin1');
}
