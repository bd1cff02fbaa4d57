/** The zones below the generated root: each good, odd or spoiled in one way. */
import { TYPE } from '../../resolver/dns/types.ts';
import type { Name } from '../../resolver/dns/name.ts';
import {
  dsOf,
  makeKey,
  type Denial,
  type SignatureTimes,
  signRrset,
  type ZoneKey,
  type ZoneRecord,
} from './signer.ts';

/**
 * One zone under the root.
 *
 * `full`: all kinds of answers and zones below; else a few. `bind`: signed by dnssec-signzone, by this algorithm name and
 * arguments. `keys` are all published; those that sign are told by `keySigners` and `signers` (default: all).
 * `ds`: what the root says of it. `spoil`: changes the signed zone before it is served.
 */
export type ZonePlan = {
  name: string;
  full?: boolean;
  bind?: { algorithm: string; denial: string[] };
  keys?: () => ZoneKey[];
  keySigners?: (keys: ZoneKey[]) => ZoneKey[];
  signers?: (keys: ZoneKey[]) => ZoneKey[];
  denial?: Denial;
  times?: SignatureTimes;
  ds?: (zone: Name, keys: readonly ZoneKey[]) => Uint8Array[];
  spoil?: (records: ZoneRecord[], zone: Name, keys: readonly ZoneKey[]) => ZoneRecord[];
  extra?: string;
};

const DAY = 86_400;
const NOW: number = Math.floor(Date.now() / 1000);
export const TIMES: SignatureTimes = { inception: NOW - DAY, expiration: NOW + 30 * DAY };

const nsec3 = (iterations: number, optOut: boolean = false): Denial => ({
  kind: 'nsec3',
  iterations,
  optOut,
  salt: Buffer.from('abcd', 'hex'),
});

const bindAlgorithms: [number, string][] = [
  [5, 'RSASHA1'],
  [7, 'NSEC3RSASHA1'],
  [8, 'RSASHA256'],
  [10, 'RSASHA512'],
  [13, 'ECDSAP256SHA256'],
  [14, 'ECDSAP384SHA384'],
  [15, 'ED25519'],
  [16, 'ED448'],
];

const honest: ZonePlan[] = [
  ...bindAlgorithms.map(
    ([number, algorithm]): ZonePlan => ({
      name: `nsec-${number}.`,
      full: number === 13,
      bind: { algorithm, denial: [] },
    }),
  ),
  ...bindAlgorithms.slice(1).map(
    ([number, algorithm]): ZonePlan => ({
      name: `nsec3-${number}.`,
      full: number === 13,
      bind: { algorithm, denial: ['-3', 'abcd', '-H', '0'] },
    }),
  ),
  {
    name: 'optout.',
    full: true,
    bind: { algorithm: 'ECDSAP256SHA256', denial: ['-3', '-', '-A', '-H', '0'] },
  },
  { name: 'own-nsec.' },
  { name: 'own-optout.', denial: nsec3(1, true) },
  { name: 'iterations-1.', denial: nsec3(1) },
  { name: 'iterations-50.', denial: nsec3(50) },
  { name: 'iterations-51.', denial: nsec3(51) },
  { name: 'iterations-100.', denial: nsec3(100) },
  { name: 'iterations-150.', denial: nsec3(150) },
  { name: 'iterations-151.', full: true, denial: nsec3(151) },
  { name: 'iterations-2000.', denial: nsec3(2000) },
  { name: 'salt-255.', denial: { kind: 'nsec3', iterations: 0, salt: Buffer.alloc(255, 0xa5) } },
];

const odd: ZonePlan[] = [
  ...[3, 6, 12, 17, 23, 253].map(
    (number): ZonePlan => ({ name: `unknown-${number}.`, keys: () => [makeKey(number)] }),
  ),
  { name: 'rsa-512.', keys: () => [makeKey(8, { bits: 512 })] },
  { name: 'rsa-1024.', keys: () => [makeKey(8, { bits: 1024 })] },
  { name: 'rsa-4096.', keys: () => [makeKey(8, { bits: 4096 })] },
  // RFC 6840 §5.11: the zone says two algorithms, and either suffices.
  { name: 'two-algorithms.', keys: () => [makeKey(13), makeKey(8)] },
  { name: 'two-one-unknown.', keys: () => [makeKey(13), makeKey(253)] },
  {
    name: 'second-unknown-no-ds.',
    keys: () => [makeKey(13), makeKey(253)],
    ds: (zone, keys) => [dsOf(zone, keys[1]!)],
  },
  {
    name: 'two-only-one-signs.',
    keys: () => [makeKey(13), makeKey(8)],
    signers: keys => keys.slice(0, 1),
  },
  {
    name: 'ksk-zsk.',
    keys: () => [makeKey(13), makeKey(13, { flags: 256 })],
    keySigners: k => k.slice(0, 1),
    signers: k => k.slice(1),
  },
  { name: 'no-sep.', keys: () => [makeKey(13, { flags: 256 })] },
  { name: 'no-zone-flag.', keys: () => [makeKey(13, { flags: 1 })] },
  { name: 'protocol-4.', keys: () => [makeKey(13, { protocol: 4 })] },
  { name: 'revoked-only.', keys: () => [makeKey(13, { flags: 257 | 128 })] },
  {
    name: 'revoked-beside.',
    keys: () => [makeKey(13), makeKey(13, { flags: 257 | 128 })],
  },
  {
    name: 'revoked-signs.',
    keys: () => [makeKey(13), makeKey(13, { flags: 257 | 128 })],
    signers: keys => keys.slice(1),
    ds: (zone, keys) => [dsOf(zone, keys[0]!)],
  },
  {
    name: 'zsk-signs-keys.',
    keys: () => [makeKey(13), makeKey(13, { flags: 256 })],
    keySigners: keys => keys.slice(1),
    ds: (zone, keys) => [dsOf(zone, keys[0]!)],
  },
  {
    name: 'ds-of-zsk.',
    keys: () => [makeKey(13), makeKey(13, { flags: 256 })],
    ds: (zone, keys) => [dsOf(zone, keys[1]!)],
  },
  { name: 'ds-sha1.', ds: (zone, [key]) => [dsOf(zone, key!, 1)] },
  { name: 'ds-sha384.', ds: (zone, [key]) => [dsOf(zone, key!, 4)] },
  { name: 'ds-gost.', ds: (zone, [key]) => [dsOf(zone, key!, 3)] },
  { name: 'ds-unknown.', ds: (zone, [key]) => [dsOf(zone, key!, 99)] },
  { name: 'ds-sha1-and-256.', ds: (zone, [key]) => [dsOf(zone, key!, 1), dsOf(zone, key!, 2)] },
  // RFC 4509 §3: SHA-1 must not be used when a SHA-256 is there.
  { name: 'ds-sha256-wrong.', ds: (zone, [key]) => [dsOf(zone, key!, 1), wrong(dsOf(zone, key!, 2))] },
  { name: 'ds-sha384-wrong.', ds: (zone, [key]) => [dsOf(zone, key!, 2), wrong(dsOf(zone, key!, 4))] },
  { name: 'ds-unknown-and-256.', ds: (zone, [key]) => [dsOf(zone, key!, 99), dsOf(zone, key!, 2)] },
  { name: 'ds-one-wrong.', ds: (zone, [key]) => [wrong(dsOf(zone, key!, 2)), dsOf(zone, key!, 2)] },
  { name: 'ds-short.', ds: (zone, [key]) => [dsOf(zone, key!, 2).subarray(0, 20)] },
  {
    name: 'ds-many.',
    ds: (zone, [key]) => [
      ...Array.from({ length: 12 }, () => dsOf(zone, makeKey(13), 2)),
      dsOf(zone, key!, 2),
    ],
  },
  {
    name: 'ds-unknown-algorithm-too.',
    ds: (zone, [key]) => [dsOf(zone, makeKey(253), 2), dsOf(zone, key!, 2)],
  },
  {
    name: 'many-keys.',
    keys: () => Array.from({ length: 12 }, () => makeKey(13)),
    signers: k => k.slice(11),
    keySigners: k => k.slice(0, 1),
    ds: (zone, [key]) => [dsOf(zone, key!)],
  },
  // About 3 kB of TXT in one RRset, and an RRset of a hundred addresses: TCP.
  {
    name: 'big.',
    extra: `${Array.from({ length: 16 }, (_, i) => `big TXT ${String(i).padEnd(200, 'x')}`).join('\n')}\n${Array.from({ length: 100 }, (_, i) => `hundred A 198.51.100.${i}`).join('\n')}\n`,
  },
  { name: 'root-wildcard.', extra: '* A 192.0.2.9\n*.ent A 192.0.2.10\n' },
  { name: 'wildcard-nsec3.', denial: nsec3(0), extra: '* A 192.0.2.9\n*.ent A 192.0.2.10\n' },
  { name: 'wildcard-optout.', denial: nsec3(0, true), extra: '* A 192.0.2.9\n' },
  { name: 'apex-dname.', extra: '@ DNAME nsec-13.\n' },
  { name: 'apex-cname-target.', extra: 'to CNAME nsec-13.\nto2 CNAME nsec-13\nto3 CNAME .\n' },
];

const spoiled: ZonePlan[] = [
  { name: 'expired.', times: { inception: NOW - 30 * DAY, expiration: NOW - DAY } },
  { name: 'future.', times: { inception: NOW + 3 * DAY, expiration: NOW + 30 * DAY } },
  { name: 'backwards.', times: { inception: NOW + DAY, expiration: NOW - DAY } },
  { name: 'just-expired.', times: { inception: NOW - DAY, expiration: NOW - 7200 } },
  { name: 'wrong-ds.', ds: (zone, [key]) => [wrong(dsOf(zone, key!))] },
  { name: 'missing-key.', ds: zone => [dsOf(zone, makeKey(13))] },
  { name: 'wrong-algorithm-ds.', ds: (zone, [key]) => [changed(dsOf(zone, key!), 2, 8)] },
  { name: 'unsigned-with-ds.', spoil: records => records.filter(({ type }) => !isDnssec(type)) },
  {
    name: 'no-dnskey.',
    spoil: records => records.filter(r => r.type !== TYPE.DNSKEY && covered(r) !== TYPE.DNSKEY),
  },
  { name: 'dnskey-unsigned.', spoil: records => records.filter(r => covered(r) !== TYPE.DNSKEY) },
  { name: 'www-unsigned.', spoil: records => records.filter(r => covered(r) !== TYPE.A) },
  { name: 'nsec-unsigned.', spoil: records => records.filter(r => covered(r) !== TYPE.NSEC) },
  { name: 'soa-unsigned.', spoil: records => records.filter(r => covered(r) !== TYPE.SOA) },
  {
    name: 'nsec-missing.',
    spoil: records => records.filter(r => r.type !== TYPE.NSEC && covered(r) !== TYPE.NSEC),
  },
  {
    name: 'nsec3-unsigned.',
    denial: nsec3(0),
    spoil: records => records.filter(r => covered(r) !== TYPE.NSEC3),
  },
  {
    name: 'forged.',
    spoil: records => records.map(r => (r.type === TYPE.A ? { ...r, rdata: changed(r.rdata, 3, 66) } : r)),
  },
  { name: 'wrong-key.', spoil: (records, zone) => signedBy(records, zone, [makeKey(13)]) },
  {
    name: 'expired-beside-good.',
    spoil: (r, zone, keys) => [
      ...r,
      ...signatures(r, zone, keys, { inception: NOW - 9 * DAY, expiration: NOW - DAY }),
    ],
  },
  {
    name: 'foreign-beside-good.',
    spoil: (r, zone) => [...r, ...signatures(r, zone, [makeKey(13), makeKey(15)], TIMES)],
  },
  { name: 'unknown-beside-good.', spoil: (r, zone) => [...r, ...signatures(r, zone, [makeKey(253)], TIMES)] },
  { name: 'unknown-alone.', spoil: (r, zone) => signedBy(r, zone, [makeKey(253)]) },
  {
    name: 'labels-low.',
    spoil: (r, zone, [key]) =>
      resigned(r, records => [signRrset(records, zone, key!, TIMES, { labels: zone.labelCount })]),
  },
  {
    name: 'labels-high.',
    spoil: (r, zone, [key]) =>
      resigned(r, records => [
        signRrset(records, zone, key!, TIMES, { labels: records[0]!.name.labelCount + 1 }),
      ]),
  },
  {
    name: 'signer-parent.',
    spoil: (r, zone, [key]) =>
      resigned(r, records => [signRrset(records, zone, key!, TIMES, { signer: zone.parent()! })]),
  },
  {
    name: 'signer-self.',
    spoil: (r, zone, [key]) =>
      resigned(r, records => [signRrset(records, zone, key!, TIMES, { signer: records[0]!.name })]),
  },
  {
    name: 'tag-wrong.',
    spoil: (r, zone, [key]) =>
      resigned(r, records => [signRrset(records, zone, key!, TIMES, { tag: key!.tag ^ 1 })]),
  },
  {
    name: 'original-ttl-lower.',
    spoil: (r, zone, [key]) =>
      resigned(r, rs => [signRrset(rs, zone, key!, TIMES, { originalTtlSeconds: 60 })]),
  },
  {
    name: 'original-ttl-higher.',
    spoil: (r, zone, [key]) =>
      resigned(r, rs => [signRrset(rs, zone, key!, TIMES, { originalTtlSeconds: 999_999 })]),
  },
];

export const plans: ZonePlan[] = [...honest, ...odd, ...spoiled];

const isDnssec = (type: number): boolean =>
  [TYPE.RRSIG, TYPE.NSEC, TYPE.NSEC3, TYPE.NSEC3PARAM, TYPE.DNSKEY].some(one => one === type);

export function covered({ type, rdata }: { type: number; rdata: Uint8Array }): number | undefined {
  return type === TYPE.RRSIG ? (rdata[0]! << 8) | rdata[1]! : undefined;
}

export function changed(rdata: Uint8Array, at: number, byte: number): Uint8Array {
  const copy = Uint8Array.from(rdata);
  copy[at] = byte;
  return copy;
}

function wrong(ds: Uint8Array): Uint8Array {
  return changed(ds, ds.length - 1, ds.at(-1)! ^ 0xff);
}

/** New signatures over every signed RRset but DNSKEY. */
function signatures(
  records: readonly ZoneRecord[],
  zone: Name,
  keys: readonly ZoneKey[],
  times: SignatureTimes,
): ZoneRecord[] {
  return signedRrsets(records).flatMap(rrset => keys.map(key => signRrset(rrset, zone, key, times)));
}

/** The signatures of everything but DNSKEY replaced by those of other keys. */
function signedBy(records: readonly ZoneRecord[], zone: Name, keys: readonly ZoneKey[]): ZoneRecord[] {
  return resigned(records, rrset => keys.map(key => signRrset(rrset, zone, key, TIMES)));
}

/** The signatures of A RRsets and NSECs replaced. */
function resigned(records: readonly ZoneRecord[], make: (rrset: ZoneRecord[]) => ZoneRecord[]): ZoneRecord[] {
  const chosen = signedRrsets(records).filter(
    ([first]) => first!.type === TYPE.A || first!.type === TYPE.NSEC,
  );
  const types = [TYPE.A, TYPE.NSEC];
  const kept = records.filter(record => !types.some(type => covered(record) === type));
  return [...kept, ...chosen.flatMap(make)];
}

function signedRrsets(records: readonly ZoneRecord[]): ZoneRecord[][] {
  const signed = new Set(records.filter(r => r.type === TYPE.RRSIG).map(r => `${covered(r)} ${r.name.key}`));
  const plain = records.filter(({ type }) => type !== TYPE.RRSIG && type !== TYPE.DNSKEY);
  const rrsets = Map.groupBy(plain, ({ name, type }) => `${type} ${name.key}`);
  return [...rrsets].filter(([key]) => signed.has(key)).map(([, rrset]) => rrset);
}
