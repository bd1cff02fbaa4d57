/** Who may ask. */
import { type Cidr, cidrContains, parseIpAddress } from '../address.ts';
import { canonicalAddress } from '../upstream/resolv-conf.ts';

const MAX_REMEMBERED = 1024;

/** Prefixes whose addresses may ask; all others may not. */
export class AccessList {
  readonly #allowed: readonly Cidr[];
  /** Clients come back: what was decided for the text of an address is decided. */
  readonly #decided = new Map<string, boolean>();

  constructor(allowed: readonly Cidr[]) {
    this.#allowed = allowed;
  }

  /** `address` as the socket gives it: a zone is ignored, IPv4-mapped IPv6 is IPv4. */
  allows(address: string): boolean {
    const decided = this.#decided.get(address);
    if (decided !== undefined) return decided;
    const allowed = this.#decide(address);
    if (this.#decided.size >= MAX_REMEMBERED) this.#decided.clear();
    this.#decided.set(address, allowed);
    return allowed;
  }

  #decide(address: string): boolean {
    const parsed = parseIpAddress(canonicalAddress(address).replace(/%.*$/, ''));
    return parsed !== undefined && this.#allowed.some(cidr => cidrContains(cidr, parsed));
  }
}
