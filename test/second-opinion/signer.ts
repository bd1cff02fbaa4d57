/**
 * A zone signer for what BIND's refuses to sign: odd algorithms, many iterations, wrong times, keys without flags.
 *
 * It shares names and canonical RDATA with the daemon; unbound and delv read what it signs, so a slip shows as a difference.
 */
import { createHash, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { keyTag } from '../../resolver/dns/dnssec-rdata.ts';
import { Name } from '../../resolver/dns/name.ts';
import { canonicalRdata } from '../../resolver/dns/rdata-form.ts';
import { base32hex } from '../../resolver/dns/rdata-text.ts';
import { TYPE } from '../../resolver/dns/types.ts';
import { nsec3Hash } from '../../resolver/dnssec/nsec3.ts';

export type ZoneRecord = { name: Name; type: number; ttlSeconds: number; rdata: Uint8Array };

export type ZoneKey = {
  algorithm: number;
  rdata: Uint8Array;
  tag: number;
  sign: (data: Uint8Array) => Uint8Array;
};

export type Denial =
  | { kind: 'nsec' }
  | { kind: 'nsec3'; iterations: number; salt?: Uint8Array; optOut?: boolean };

export type SignatureTimes = { inception: number; expiration: number };

/** What of a signature is not as it should be. */
export type Misfit = Partial<{
  labels: number;
  originalTtlSeconds: number;
  signer: Name;
  algorithm: number;
  tag: number;
}>;

const RSA_HASH = new Map([
  [5, 'sha1'],
  [7, 'sha1'],
  [8, 'sha256'],
  [10, 'sha512'],
]);
const CURVES = new Map([
  [13, { curve: 'P-256', hash: 'sha256' }],
  [14, { curve: 'P-384', hash: 'sha384' }],
]);

/** A new key. Algorithms that nobody here can sign with get random bytes for key and signatures. */
export function makeKey(
  algorithm: number,
  { flags = 257, protocol = 3, bits = 1280 }: { flags?: number; protocol?: number; bits?: number } = {},
): ZoneKey {
  const { publicKey, sign: signWith } = material(algorithm, bits);
  const rdata = Uint8Array.of(flags >> 8, flags & 0xff, protocol, algorithm, ...publicKey);
  return { algorithm, rdata, tag: keyTag(rdata), sign: signWith };
}

function material(
  algorithm: number,
  bits: number,
): { publicKey: Uint8Array; sign: (data: Uint8Array) => Uint8Array } {
  const part = (key: KeyObject, field: 'n' | 'e' | 'x' | 'y') =>
    Buffer.from(key.export({ format: 'jwk' })[field] as string, 'base64url');
  const rsaHash = RSA_HASH.get(algorithm);
  if (rsaHash !== undefined) {
    const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: bits });
    const exponent = part(publicKey, 'e');
    return {
      publicKey: Uint8Array.of(exponent.length, ...exponent, ...part(publicKey, 'n')),
      sign: data => sign(rsaHash, data, privateKey),
    };
  }
  const curve = CURVES.get(algorithm);
  if (curve !== undefined) {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: curve.curve });
    return {
      publicKey: Buffer.concat([part(publicKey, 'x'), part(publicKey, 'y')]),
      sign: data => sign(curve.hash, data, { key: privateKey, dsaEncoding: 'ieee-p1363' }),
    };
  }
  if (algorithm === 15 || algorithm === 16) {
    const { publicKey, privateKey } =
      algorithm === 15 ? generateKeyPairSync('ed25519') : generateKeyPairSync('ed448');
    return { publicKey: part(publicKey, 'x'), sign: data => sign(null, data, privateKey) };
  }
  // PRIVATEDNS begins with the name of its algorithm (RFC 4034 App. A.1.1).
  const label = algorithm === 253 ? Name.parseText('private.example.').wire : new Uint8Array();
  const noise = (text: string) => createHash('sha512').update(text).digest();
  return {
    publicKey: Buffer.concat([label, noise(`key ${algorithm}`)]),
    sign: data => Buffer.concat([label, noise(`signature ${data.length}`)]),
  };
}

/** DS RDATA (RFC 4034 §5.1) by digest type 1 (SHA-1), 2 (SHA-256) or 4 (SHA-384); others get SHA-256 bytes. */
export function dsOf(zone: Name, key: ZoneKey, digestType: number = 2): Uint8Array {
  const hash = digestType === 1 ? 'sha1' : digestType === 4 ? 'sha384' : 'sha256';
  const digest = createHash(hash).update(zone.canonical().wire).update(key.rdata).digest();
  return Uint8Array.of(key.tag >> 8, key.tag & 0xff, key.algorithm, digestType, ...digest);
}

/** A DS as trust anchors are written. */
export type Anchor = { tag: number; algorithm: number; digestType: number; digest: string };

export function anchorOf(ds: Uint8Array): Anchor {
  const digest = Buffer.from(ds.subarray(4)).toString('hex').toUpperCase();
  return { tag: (ds[0]! << 8) | ds[1]!, algorithm: ds[2]!, digestType: ds[3]!, digest };
}

/** One RRSIG over records of one owner and type (RFC 4034 §3.1.8.1). */
export function signRrset(
  records: readonly ZoneRecord[],
  zone: Name,
  key: ZoneKey,
  { inception, expiration }: SignatureTimes,
  misfit: Misfit = {},
): ZoneRecord {
  const { name, type, ttlSeconds } = records[0]!;
  const labels = misfit.labels ?? name.labelCount - (name.isWildcard ? 1 : 0);
  const originalTtlSeconds = misfit.originalTtlSeconds ?? ttlSeconds;
  const head = Buffer.alloc(18);
  head.writeUInt16BE(type, 0);
  head[2] = misfit.algorithm ?? key.algorithm;
  head[3] = labels;
  head.writeUInt32BE(originalTtlSeconds, 4);
  head.writeUInt32BE(expiration, 8);
  head.writeUInt32BE(inception, 12);
  head.writeUInt16BE(misfit.tag ?? key.tag, 16);
  const prefix = Buffer.concat([head, (misfit.signer ?? zone).canonical().wire]);
  const owner = name.canonical().wire;
  const lines = [...records]
    .map(record => canonicalRdata(type, record.rdata))
    .sort(Buffer.compare)
    .map(rdata => {
      const fixed = Buffer.alloc(10);
      fixed.writeUInt16BE(type, 0);
      fixed.writeUInt16BE(1, 2);
      fixed.writeUInt32BE(originalTtlSeconds, 4);
      fixed.writeUInt16BE(rdata.length, 8);
      return Buffer.concat([owner, fixed, rdata]);
    });
  const signature = key.sign(Buffer.concat([prefix, ...lines]));
  return { name, type: TYPE.RRSIG, ttlSeconds, rdata: Buffer.concat([prefix, signature]) };
}

/**
 * The zone with DNSKEYs, denial chain and signatures.
 *
 * `keySigners` sign the DNSKEY RRset, `signers` everything else; each signs it all.
 */
export function signZone(
  zone: Name,
  content: readonly ZoneRecord[],
  {
    keys,
    keySigners,
    signers,
    denial,
    times,
  }: {
    keys: readonly ZoneKey[];
    keySigners: readonly ZoneKey[];
    signers: readonly ZoneKey[];
    denial: Denial;
    times: SignatureTimes;
  },
): ZoneRecord[] {
  const dnskeys = keys.map(({ rdata }) => ({ name: zone, type: TYPE.DNSKEY, ttlSeconds: 3600, rdata }));
  const whole = [...content, ...dnskeys];
  const cuts = whole.filter(r => r.type === TYPE.NS && !r.name.equals(zone)).map(r => r.name);
  const isCut = (name: Name) => cuts.some(cut => cut.equals(name));
  const isGlue = (name: Name) => cuts.some(cut => name.isBelow(cut));
  const inside = whole.filter(record => !isGlue(record.name));
  const chain =
    denial.kind === 'nsec' ? nsecChain(zone, inside, isCut) : nsec3Chain(zone, inside, isCut, denial);
  const rrsets = Map.groupBy([...inside, ...chain], ({ name, type }) => `${type} ${name.key}`);
  const signatures = [...rrsets.values()].flatMap(records => {
    const { name, type } = records[0]!;
    if (isCut(name) && type !== TYPE.DS && type !== TYPE.NSEC) return [];
    const by = type === TYPE.DNSKEY ? keySigners : signers;
    return by.map(key => signRrset(records, zone, key, times));
  });
  return [...whole, ...chain, ...signatures];
}

const NEGATIVE_TTL_SECONDS = 300;

function typesAt(name: Name, records: readonly ZoneRecord[], isCut: boolean): number[] {
  const types = new Set(records.filter(record => record.name.equals(name)).map(({ type }) => type));
  return [...types].filter(type => !isCut || type === TYPE.NS || type === TYPE.DS);
}

function nsecChain(zone: Name, records: readonly ZoneRecord[], isCut: (name: Name) => boolean): ZoneRecord[] {
  const names = distinct(records.map(({ name }) => name)).sort((a, b) => a.compare(b));
  return names.map((name, i) => {
    const next = names[i + 1] ?? zone;
    const types = [...typesAt(name, records, isCut(name)), TYPE.RRSIG, TYPE.NSEC];
    const rdata = Buffer.concat([next.wire, typeBitmap(types)]);
    return { name, type: TYPE.NSEC, ttlSeconds: NEGATIVE_TTL_SECONDS, rdata };
  });
}

function nsec3Chain(
  zone: Name,
  records: readonly ZoneRecord[],
  isCut: (name: Name) => boolean,
  { iterations, salt = new Uint8Array(), optOut = false }: Denial & { kind: 'nsec3' },
): ZoneRecord[] {
  const parameters = [1, 0, iterations >> 8, iterations & 0xff, salt.length, ...salt];
  const param = { name: zone, type: TYPE.NSEC3PARAM, ttlSeconds: 0, rdata: Uint8Array.from(parameters) };
  const all = [...records, param];
  const unsigned = (name: Name) =>
    isCut(name) && !records.some(record => record.type === TYPE.DS && record.name.equals(name));
  const owners = distinct(records.map(({ name }) => name)).filter(name => !(optOut && unsigned(name)));
  const names = distinct(owners.flatMap(name => ancestors(name, zone)));
  const hashed = names
    .map(name => ({ name, hash: nsec3Hash(name, salt, iterations) }))
    .sort((a, b) => Buffer.compare(a.hash, b.hash));
  const chain = hashed.map(({ name, hash }, i) => {
    const { hash: next } = hashed[(i + 1) % hashed.length]!;
    const types = typesAt(name, all, isCut(name));
    if (types.length > 0 && !unsigned(name)) types.push(TYPE.RRSIG);
    const rdata = Uint8Array.of(
      ...[1, optOut ? 1 : 0, ...parameters.slice(2)],
      ...[next.length, ...next, ...typeBitmap(types)],
    );
    const owner = zone.prepend(Buffer.from(base32hex(hash)))!;
    return { name: owner, type: TYPE.NSEC3, ttlSeconds: NEGATIVE_TTL_SECONDS, rdata };
  });
  return [param, ...chain];
}

/** The name and what is between it and the apex, which it includes. */
function ancestors(name: Name, zone: Name): Name[] {
  return Array.from({ length: name.labelCount - zone.labelCount + 1 }, (_, i) =>
    name.suffix(zone.labelCount + i),
  );
}

function distinct(names: readonly Name[]): Name[] {
  return [...new Map(names.map(name => [name.key, name])).values()];
}

/** RFC 4034 §4.1.2. */
export function typeBitmap(types: readonly number[]): Uint8Array {
  const windows = Map.groupBy(
    [...new Set(types)].sort((a, b) => a - b),
    type => type >> 8,
  );
  const parts = [...windows].map(([window, members]) => {
    const bits = new Uint8Array(((members.at(-1)! & 0xff) >> 3) + 1);
    for (const type of members) bits[(type & 0xff) >> 3]! |= 0x80 >> (type & 7);
    return Uint8Array.of(window, bits.length, ...bits);
  });
  return Buffer.concat(parts);
}

/** A zone file; RDATA in the form of RFC 3597 §5, which every server reads. */
export function zoneFile(records: readonly ZoneRecord[]): string {
  const soaFirst = [...records].sort((a, b) => Number(b.type === TYPE.SOA) - Number(a.type === TYPE.SOA));
  const line = ({ name, type, ttlSeconds, rdata }: ZoneRecord) =>
    `${name.toText()} ${ttlSeconds} IN TYPE${type} \\# ${rdata.length} ${Buffer.from(rdata).toString('hex')}`;
  return `${soaFirst.map(line).join('\n')}\n`;
}
