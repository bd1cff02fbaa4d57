/**
 * Which keys DNS gives a name, and which of them may speak for an address.
 *
 * A key counts only when DNSSEC proves it, and only at an address that the record may speak for (RFC 4025 §2.5, §4.1):
 * the name's own address when the gateway field is "none", names this very address, or names a host that has it. A
 * foreign gateway would let the owner of any name take the traffic to any address, DNSSEC or not, so it counts only
 * when the reverse zone of the address says the same. `Name` keys are lower case; addresses are compared as bytes.
 */
import { createHash } from 'node:crypto';
import { formatIpAddress, type IpAddress, parseIpAddress } from '../address.ts';
import { type Ipseckey, parseIpseckey } from '../dns/ipseckey.ts';
import { Name } from '../dns/name.ts';
import { TYPE } from '../dns/types.ts';
import type { Resolution } from '../dnssec/types.ts';
import type { KeyState } from './decision.ts';
import type { Lookup, PublicKey } from './interfaces.ts';

/** More keys than this at one name are not looked at: each may cost a signature check or a look-up. */
const MAX_KEYS = 8;

export type KeyFinding = {
  state: KeyState;
  /** By precedence, lowest first (RFC 4025 §2.1); empty unless published. */
  records: Ipseckey[];
  /** In words, for the reader of EDE and `explain`. */
  why: string;
  /** The EDE code of a look-up that failed. */
  code?: number | undefined;
};

/** What the answer to the IPSECKEY question proves. A failed look-up is never absence. */
export function readKeys(resolution: Resolution): KeyFinding {
  const none = (state: KeyState, why: string): KeyFinding => ({
    state,
    records: [],
    why,
    code: resolution.ede?.code,
  });
  if (resolution.outcome === 'failure' || resolution.verdict === 'indeterminate') {
    return none('unknown', `looking up its key failed: ${resolution.ede?.text ?? 'no answer'}`);
  }
  if (resolution.verdict === 'bogus') {
    return none('unknown', `DNSSEC validation of its key failed: ${resolution.ede?.text ?? 'bogus'}`);
  }
  const found = resolution.answer.filter(
    rrset => rrset.type === TYPE.IPSECKEY && rrset.name.equals(resolution.canonicalName),
  );
  const rdatas = found.flatMap(rrset => rrset.rdatas);
  if (resolution.verdict === 'insecure') {
    return none(
      'unsigned',
      rdatas.length > 0 ? 'its key is in an unsigned zone, so it counts for nothing' : 'its zone is unsigned',
    );
  }
  if (rdatas.length === 0) return none('absent', 'it provably has no key');
  const records = rdatas
    .slice(0, MAX_KEYS)
    .map(rdata => parseIpseckey(rdata))
    .filter(record => record !== undefined)
    .filter(record => record.algorithm >= 2 && record.algorithm <= 4 && record.publicKey.length > 0)
    .sort((a, b) => a.precedence - b.precedence);
  return {
    state: 'published',
    records,
    why: records.length > 0 ? `${records.length} secure key(s)` : 'none of its keys is of a kind we know',
  };
}

/** The keys of a name that may speak for `address`, and why the others may not. */
export async function keysForAddress(
  finding: KeyFinding,
  address: IpAddress,
  owner: { asked: Name; canonical: Name },
  lookup: Lookup,
): Promise<{ keys: PublicKey[]; refused: string[] }> {
  const keys: PublicKey[] = [];
  const refused: string[] = [];
  const seen = new Set<string>();
  for (const record of finding.records) {
    const key: PublicKey = { algorithm: record.algorithm as 2 | 3 | 4, data: record.publicKey };
    const fingerprint = fingerprintOf(key);
    if (seen.has(fingerprint)) continue;
    if (await speaksFor(record, address, owner, lookup)) {
      seen.add(fingerprint);
      keys.push(key);
    } else {
      refused.push(
        `its gateway ${gatewayText(record)} is not ${formatIpAddress(address)}, and the reverse zone does not confirm it`,
      );
    }
  }
  return { keys, refused };
}

async function speaksFor(
  record: Ipseckey,
  address: IpAddress,
  owner: { asked: Name; canonical: Name },
  lookup: Lookup,
): Promise<boolean> {
  const { gateway } = record;
  if (gateway.kind === 'none') return true;
  if (gateway.kind !== 'name') return bytesEqual(gateway.address, address.bytes);
  if (gateway.name.equals(owner.asked) || gateway.name.equals(owner.canonical)) return true;
  const type = address.family === 4 ? TYPE.A : TYPE.AAAA;
  const resolution = await lookup.lookup(gateway.name, type);
  return (
    resolution.verdict === 'secure' &&
    resolution.answer.some(
      rrset => rrset.type === type && rrset.rdatas.some(rdata => bytesEqual(rdata, address.bytes)),
    )
  );
}

/** `SHA256:` and base64 over the algorithm number and the key field: how people and logs name a key. */
export function fingerprintOf(key: PublicKey): string {
  const hash = createHash('sha256').update(Uint8Array.of(key.algorithm)).update(key.data);
  return `SHA256:${hash.digest('base64').replace(/=+$/, '')}`;
}

/** The reverse-zone name of an address (RFC 1035 §3.5, RFC 3596 §2.5). */
export function reverseName(address: IpAddress): Name {
  if (address.family === 4) return Name.parseText(`${[...address.bytes].reverse().join('.')}.in-addr.arpa.`);
  const nibbles = [...address.bytes].flatMap(byte => [byte >> 4, byte & 15]);
  return Name.parseText(
    `${nibbles
      .reverse()
      .map(nibble => nibble.toString(16))
      .join('.')}.ip6.arpa.`,
  );
}

/**
 * The address that packets really go to: an IPv4-mapped IPv6 address is an IPv4 address to the kernel (RFC 4291
 * §2.5.5.2), and would otherwise slip past every policy for it.
 */
export function effectiveAddress(rdata: Uint8Array): IpAddress | undefined {
  if (rdata.length === 4) return { family: 4, bytes: rdata };
  if (rdata.length !== 16) return undefined;
  const mapped = rdata.subarray(0, 10).every(byte => byte === 0) && rdata[10] === 0xff && rdata[11] === 0xff;
  return mapped ? { family: 4, bytes: rdata.subarray(12) } : { family: 6, bytes: rdata };
}

const LOCAL = ['0.0.0.0', '::', '::1'].map(text => parseIpAddress(text)!);

/** Whether packets to it never leave this host whatever its interfaces are. */
export function isHostLocal(address: IpAddress): boolean {
  if (address.family === 4 && address.bytes[0] === 127) return true;
  return LOCAL.some(local => local.family === address.family && bytesEqual(local.bytes, address.bytes));
}

/** Whether it names a group of hosts, with which no two-party SA can be negotiated. */
export function isGroupAddress(address: IpAddress): boolean {
  if (address.family === 6) return address.bytes[0] === 0xff;
  return (address.bytes[0]! & 0xf0) === 0xe0 || address.bytes.every(byte => byte === 255);
}

function gatewayText({ gateway }: Ipseckey): string {
  if (gateway.kind === 'none') return 'none';
  if (gateway.kind === 'name') return gateway.name.toText();
  return formatIpAddress({ family: gateway.kind === 'ipv4' ? 4 : 6, bytes: gateway.address });
}

export function bytesEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
