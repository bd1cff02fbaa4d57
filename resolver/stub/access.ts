/** Who may ask. */
import { type Cidr, cidrContains, maskAddress, parseIpAddress } from '../address.ts';
import { canonicalAddress } from '../upstream/resolv-conf.ts';

const MAX_REMEMBERED = 1024;

/** Prefixes whose addresses may ask; all others may not. */
export class AccessList {
  readonly #allowed: readonly Cidr[];
  /** The same for addresses as bytes: whole octets to compare, then the mask of the next. */
  readonly #prefixes: { family: 4 | 6; bytes: Uint8Array; octets: number; mask: number }[];
  /** Clients come back: what was decided for the text of an address is decided. */
  readonly #decided = new Map<string, boolean>();

  constructor(allowed: readonly Cidr[]) {
    this.#allowed = allowed;
    this.#prefixes = allowed.map(({ family, bytes, prefix }) => ({
      family,
      bytes: maskAddress(bytes, prefix),
      octets: prefix >> 3,
      mask: (0xff00 >> (prefix & 7)) & 0xff,
    }));
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

  /** The same for the 4 or 16 octets at `bytes[at]`, of a socket that carries only one family; allocates nothing. */
  allowsAt(bytes: Uint8Array, at: number, family: 4 | 6): boolean {
    for (const prefix of this.#prefixes) {
      if (prefix.family !== family) continue;
      let i = 0;
      while (i < prefix.octets && bytes[at + i] === prefix.bytes[i]) i++;
      if (i < prefix.octets) continue;
      if (prefix.mask === 0 || (bytes[at + i]! & prefix.mask) === prefix.bytes[i]) return true;
    }
    return false;
  }

  #decide(address: string): boolean {
    const parsed = parseIpAddress(canonicalAddress(address).replace(/%.*$/, ''));
    return parsed !== undefined && this.#allowed.some(cidr => cidrContains(cidr, parsed));
  }
}

/**
 * Whose share of our limits an address draws on: its own for IPv4, that of its /64 for IPv6, where hosts have as many
 * addresses as they like.
 */
export function clientOf(address: string): string {
  if (!address.includes(':')) return address;
  const known = clients.get(address);
  if (known !== undefined) return known;
  const canonical = canonicalAddress(address).replace(/%.*$/, '');
  const parsed = parseIpAddress(canonical);
  const client =
    parsed?.family === 6 ? `${Buffer.from(parsed.bytes.subarray(0, 8)).toString('hex')}::` : canonical;
  if (clients.size >= MAX_REMEMBERED) clients.clear();
  clients.set(address, client);
  return client;
}

const clients = new Map<string, string>();
