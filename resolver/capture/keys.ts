/**
 * Which keys DNS gives a name, and which of them may speak for an address.
 *
 * A key counts only when DNSSEC proves it, and only at an address that the record may speak for (RFC 4025 §2.5, §4.1):
 * the name's own address when the gateway field is "none", names this very address, or names a host that has it. A
 * foreign gateway would let the owner of any name take the traffic to any address, DNSSEC or not, so it counts only
 * when the reverse zone of the address securely has the same key with the same gateway (RFC 4322 asks no other zone).
 * The name's own other addresses are no authority: who owns a name does not own the address. The administrator is one.
 *
 * `Name` keys are lower case; addresses are compared as bytes.
 */
import { createHash } from 'node:crypto';
import { formatIpAddress, type IpAddress, parseIpAddress } from '../address.ts';
import { type Ipseckey, parseIpseckey } from '../dns/ipseckey.ts';
import { Name } from '../dns/name.ts';
import { EDE, TYPE } from '../dns/types.ts';
import type { Resolution } from '../dnssec/types.ts';
import type { KeyState } from './decision.ts';
import { type GatewayRule, isAllowedGateway } from './gateways.ts';
import type { Lookup, PublicKey } from './interfaces.ts';

/** More keys than this at one name are not looked at: each may cost a signature check or a look-up. */
const MAX_KEYS = 8;
/** More addresses than this of one gateway are not tried. */
const MAX_GATEWAYS = 4;

export type KeyFinding = {
  state: KeyState;
  /** By precedence, lowest first (RFC 4025 §2.1); empty unless published. */
  records: Ipseckey[];
  /** There are more that were not looked at. */
  truncated?: boolean;
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
  const known = rdatas
    .map(recordOf)
    .filter(record => record !== undefined)
    .filter(record => record.algorithm >= 2 && record.algorithm <= 4 && record.publicKey.length > 0)
    .sort((a, b) => a.precedence - b.precedence);
  const records = known.slice(0, MAX_KEYS);
  return {
    state: 'published',
    records,
    truncated: known.length > records.length,
    why: records.length > 0 ? `${records.length} secure key(s)` : 'none of its keys is of a kind we know',
  };
}

/**
 * A name that securely has an address exists, and in a signed zone: who says otherwise about its key replays another
 * zone's or another time's denial. Only too many NSEC3 iterations make an honest proof insecure there (RFC 9276 §3.2).
 */
export function contradictionIn(addresses: Resolution, keys: Resolution): string | undefined {
  if (addresses.verdict !== 'secure' || addresses.outcome !== 'positive') return undefined;
  if (keys.outcome === 'nxdomain') return 'the name has an address, and DNS denies that it exists';
  const excused = keys.ede?.code === EDE.UNSUPPORTED_NSEC3_ITERATIONS;
  return keys.verdict === 'insecure' && !excused
    ? 'its address is signed, and the answer about its key is not'
    : undefined;
}

/** Keys that may speak for an address, and with whom they are to be proved: with the address itself, or `via` a gateway. */
export type Way = { via?: IpAddress; keys: PublicKey[] };

export type AddressKeys = {
  /** By the precedence of their first key, lowest first. */
  ways: Way[];
  /** Why other keys do not count. */
  refused: string[];
  /** A look-up on which a key depends failed. That is not absence, so it does not make the key absent either. */
  unknown?: { why: string; code?: number | undefined };
};

/** The keys of a name that may speak for `address`, and why the others may not. */
export async function keysForAddress(
  finding: KeyFinding,
  address: IpAddress,
  owner: { asked: Name; canonical: Name },
  lookup: Lookup,
  allowed: readonly GatewayRule[] = [],
): Promise<AddressKeys> {
  const claims = await Promise.all(
    finding.records.map(record => claimOf(record, address, owner, lookup, allowed)),
  );
  const found: AddressKeys = { ways: [], refused: [], unknown: claims.find(isUnknown) };
  finding.records.forEach((record, i) => {
    const claim = claims[i]!;
    if ('refused' in claim) found.refused.push(claim.refused);
    if (!('vias' in claim)) return;
    for (const via of claim.vias) addKey(found.ways, via, keyOf(record));
  });
  return found;
}

/** What a record says about an address: whom to negotiate with (undefined: itself), or why it counts for nothing. */
type Claim =
  | { vias: (IpAddress | undefined)[] }
  | { refused: string }
  | { why: string; code?: number | undefined };

const ITSELF: Claim = { vias: [undefined] };

async function claimOf(
  record: Ipseckey,
  address: IpAddress,
  owner: { asked: Name; canonical: Name },
  lookup: Lookup,
  allowed: readonly GatewayRule[],
): Promise<Claim> {
  const { gateway } = record;
  if (gateway.kind === 'none') return ITSELF;
  let vias: IpAddress[];
  if (gateway.kind === 'name') {
    if (gateway.name.equals(owner.asked) || gateway.name.equals(owner.canonical)) return ITSELF;
    const resolution = await lookup.lookup(gateway.name, address.family === 4 ? TYPE.A : TYPE.AAAA);
    const failure = failureOf(resolution);
    if (failure)
      return {
        why: `looking up its gateway ${gatewayText(record)} failed: ${failure}`,
        code: resolution.ede?.code,
      };
    vias = secureAddresses(resolution);
  } else {
    vias = [effectiveAddress(gateway.address)!];
  }
  if (vias.some(via => sameAddress(via, address))) return ITSELF;
  const reachable = vias.filter(via => !isHostLocal(via) && !isGroupAddress(via)).slice(0, MAX_GATEWAYS);
  if (reachable.length === 0) {
    return { refused: `its gateway ${gatewayText(record)} has no secure address to negotiate with` };
  }
  const trusted = reachable.filter(via => isAllowedGateway(allowed, via, address));
  if (trusted.length > 0) return { vias: trusted };
  const foreign = `its gateway ${gatewayText(record)} is not ${formatIpAddress(address)}, and the reverse zone does not confirm it`;
  const reverse = readKeys(await lookup.lookup(reverseName(address), TYPE.IPSECKEY));
  if (reverse.state === 'unknown') return { why: `${foreign}: ${reverse.why}`, code: reverse.code };
  if (reverse.records.some(other => sameKeyAndGateway(other, record))) return { vias: reachable };
  return { refused: `${foreign}: ${reverse.records.length > 0 ? 'it says otherwise' : reverse.why}` };
}

/**
 * The gateway fields are compared as they stand, not by what a name resolves to: the address's owner says where its
 * traffic may go, and says it here.
 */
function sameKeyAndGateway(a: Ipseckey, b: Ipseckey): boolean {
  if (a.algorithm !== b.algorithm || !bytesEqual(a.publicKey, b.publicKey)) return false;
  const [one, other] = [a.gateway, b.gateway];
  if (one.kind === 'none' || other.kind === 'none') return false;
  if (one.kind === 'name') return other.kind === 'name' && one.name.equals(other.name);
  return other.kind !== 'name' && bytesEqual(one.address, other.address);
}

function failureOf({ outcome, verdict, ede }: Resolution): string | undefined {
  if (outcome === 'failure' || verdict === 'indeterminate') return ede?.text ?? 'no answer';
  return verdict === 'bogus' ? (ede?.text ?? 'bogus') : undefined;
}

/** What packets to the answer's addresses go to; RDATA that are none are left out. */
export function addressesOf(resolution: Resolution, type: number): IpAddress[] {
  return resolution.answer
    .filter(rrset => rrset.type === type)
    .flatMap(rrset => rrset.rdatas)
    .map(effectiveAddress)
    .filter(address => address !== undefined);
}

function secureAddresses({ verdict, answer, question, canonicalName }: Resolution): IpAddress[] {
  if (verdict !== 'secure') return [];
  return answer
    .filter(rrset => rrset.type === question.type && rrset.name.equals(canonicalName))
    .flatMap(rrset => rrset.rdatas)
    .map(effectiveAddress)
    .filter(address => address !== undefined);
}

function isUnknown(claim: Claim): claim is { why: string } {
  return 'why' in claim;
}

function addKey(ways: Way[], via: IpAddress | undefined, key: PublicKey): void {
  const way = ways.find(other => (via && other.via ? sameAddress(via, other.via) : via === other.via));
  if (!way) ways.push({ ...(via && { via }), keys: [key] });
  else if (!way.keys.some(other => fingerprintOf(other) === fingerprintOf(key))) way.keys.push(key);
}

function keyOf({ algorithm, publicKey }: Ipseckey): PublicKey {
  return { algorithm: algorithm as 2 | 3 | 4, data: publicKey };
}

/** `SHA256:` and base64 over the algorithm number and the key field: how people and logs name a key. */
export function fingerprintOf(key: PublicKey): string {
  const known = fingerprints.get(key.data);
  if (known?.algorithm === key.algorithm) return known.text;
  const hash = createHash('sha256').update(Uint8Array.of(key.algorithm)).update(key.data);
  const text = `SHA256:${hash.digest('base64').replace(/=+$/, '')}`;
  fingerprints.set(key.data, { algorithm: key.algorithm, text });
  return text;
}

/** A cached answer is looked at with every question: its records are parsed, and their keys hashed, once. */
const fingerprints = new WeakMap<Uint8Array, { algorithm: number; text: string }>();
const parsed = new WeakMap<Uint8Array, { record: Ipseckey | undefined }>();

function recordOf(rdata: Uint8Array): Ipseckey | undefined {
  const known = parsed.get(rdata) ?? { record: parseIpseckey(rdata) };
  parsed.set(rdata, known);
  return known.record;
}

/** Fingerprints of the keys that the reverse zone securely gives this address for itself. */
export async function ownersOf(address: IpAddress, lookup: Lookup): Promise<string[]> {
  const name = reverseName(address);
  const finding = readKeys(await lookup.lookup(name, TYPE.IPSECKEY));
  const { ways } = await keysForAddress(finding, address, { asked: name, canonical: name }, lookup);
  return ways.flatMap(({ via, keys }) => (via ? [] : keys.map(fingerprintOf)));
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

function sameAddress(a: IpAddress, b: IpAddress): boolean {
  return a.family === b.family && bytesEqual(a.bytes, b.bytes);
}
