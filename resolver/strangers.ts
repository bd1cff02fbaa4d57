/**
 * Strangers: whose key may a peer prove that began the exchange itself?
 *
 * An FQDN identity is looked up forward, an address identity in the reverse zone (RFC 4025, RFC 4322); only secure keys
 * count. An FQDN proves who the peer is, not that the address it comes from is its own: its owner can give it any
 * address. So `ownsAddress` tells whether the reverse zone of the address has the same keys, and only then may it take
 * over what goes out to it.
 */
import type { Identity, IpAddress, PublicKey } from '../ike/types.ts';
import { formatIpAddress } from './address.ts';
import { textOf } from './capture/names.ts';
import type { PolicyGroup, PolicyGroups } from './capture/groups.ts';
import type { Lookup } from './capture/interfaces.ts';
import { bytesEqual, fingerprintOf, keysForAddress, readKeys, reverseName } from './capture/keys.ts';
import { Name } from './dns/name.ts';
import { TYPE } from './dns/types.ts';
import type { Stranger } from './negotiator.ts';

/** Groups in which a stranger is not answered: nothing is to be private there. */
const NOT_SERVED: PolicyGroup[] = ['clear', 'block'];

export class StrangerLookup {
  readonly #lookup: Lookup;
  readonly #groups: PolicyGroups;

  constructor(lookup: Lookup, groups: PolicyGroups) {
    this.#lookup = lookup;
    this.#groups = groups;
  }

  groupOf(name: string | undefined, address: IpAddress): PolicyGroup {
    return this.#groups.groupOf(name, address);
  }

  /** The keys that DNS securely gives this identity, or why there are none. */
  async lookUp(identity: Identity, remote: IpAddress): Promise<Stranger> {
    if (identity.type === 'fqdn') return this.#byName(identity.data, remote);
    if (identity.type === 'ipv4' || identity.type === 'ipv6') return this.#byAddress(identity.data, remote);
    return { error: `no keys are looked up for an identity of type ${identity.type}` };
  }

  async #byName(data: Uint8Array, remote: IpAddress): Promise<Stranger> {
    const asked = nameOf(data);
    if (!asked) return { error: 'the identity is not a domain name' };
    const text = textOf(asked);
    if (NOT_SERVED.includes(this.groupOf(text, remote)))
      return { error: `${text} is not to be sealed by policy` };
    const [keys, reverse] = await Promise.all([
      this.#keysAt(asked, remote),
      this.#keysAt(reverseName(remote), remote),
    ]);
    if ('error' in keys) return keys;
    const owned = 'keys' in reverse ? reverse.keys.map(fingerprintOf) : [];
    const ownsAddress = keys.keys.every(key => owned.includes(fingerprintOf(key)));
    return { ...keys, name: text, ownsAddress };
  }

  async #byAddress(data: Uint8Array, remote: IpAddress): Promise<Stranger> {
    // Behind a NAT the inside address is nobody's name: two hosts may have the same.
    if (!bytesEqual(data, remote.bytes)) {
      return { error: `the identity is not the address ${formatIpAddress(remote)} it comes from` };
    }
    if (NOT_SERVED.includes(this.groupOf(undefined, remote))) {
      return { error: `${formatIpAddress(remote)} is not to be sealed by policy` };
    }
    const keys = await this.#keysAt(reverseName(remote), remote);
    return 'error' in keys ? keys : { ...keys, name: undefined, ownsAddress: true };
  }

  async #keysAt(name: Name, remote: IpAddress): Promise<{ keys: PublicKey[] } | { error: string }> {
    const resolution = await this.#lookup.lookup(name, TYPE.IPSECKEY);
    const finding = readKeys(resolution);
    const owner = { asked: name, canonical: resolution.canonicalName };
    const { ways, refused, unknown } = await keysForAddress(finding, remote, owner, this.#lookup);
    // It speaks for itself here; the key of a gateway that protects it proves somebody else.
    const keys = ways.find(way => way.via === undefined)?.keys;
    return keys ? { keys } : { error: refused[0] ?? unknown?.why ?? `${name.toText()}: ${finding.why}` };
  }
}

/** ID_FQDN is text, without a final dot (RFC 7296 §3.5); hostile bytes make no name. */
function nameOf(data: Uint8Array): Name | undefined {
  const text = Buffer.from(data).toString('latin1');
  if (!/^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})$/.test(text)) return undefined;
  try {
    return Name.parseText(text);
  } catch {
    return undefined;
  }
}
