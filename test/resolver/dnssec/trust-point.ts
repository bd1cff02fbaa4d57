/** A zone that rolls its keys: Ed25519 keys, and its DNSKEY RRset signed by whichever of them. */
import { createHash, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { keyTag } from '../../../resolver/dns/dnssec-rdata.ts';
import type { Name } from '../../../resolver/dns/name.ts';
import type { Rrset } from '../../../resolver/dns/rrset.ts';
import { CLASS, TYPE } from '../../../resolver/dns/types.ts';

const REVOKE = 0x80;

/** `plain`: RDATA of the DNSKEY with its REVOKE flag clear. */
export type ZoneKey = { plain: Uint8Array; privateKey: KeyObject };

/** A key-signing key, or with 256 a zone-signing one. */
export function makeKey(flags: 257 | 256 = 257): ZoneKey {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  const raw = Buffer.from(publicKey.export({ format: 'jwk' }).x!, 'base64url');
  return { plain: Uint8Array.of(flags >> 8, flags & 0xff, 3, 15, ...raw), privateKey };
}

export function revokedForm({ plain }: ZoneKey): Uint8Array {
  const copy = Uint8Array.from(plain);
  copy[1]! |= REVOKE;
  return copy;
}

export function dsOf(zone: Name, key: ZoneKey): Uint8Array {
  const tag = keyTag(key.plain);
  const digest = createHash('sha256').update(zone.canonical().wire).update(key.plain).digest();
  return Uint8Array.of(tag >> 8, tag & 0xff, 15, 2, ...digest);
}

/** The DNSKEY RRset with these keys, signed by these at `now`; a key in `revoked` is shown, and signs, with its flag. */
export function dnskeyRrset(
  zone: Name,
  shown: { keys: ZoneKey[]; revoked?: ZoneKey[]; signers: ZoneKey[] },
  now: number,
  { ttlSeconds = 172_800, lifeSeconds = 21 * 86_400 }: { ttlSeconds?: number; lifeSeconds?: number } = {},
): Rrset {
  const revoked = shown.revoked ?? [];
  const rdatas = [...shown.keys.map(({ plain }) => plain), ...revoked.map(revokedForm)];
  const sorted = [...rdatas].sort(Buffer.compare);
  const records = sorted.map(rdata => {
    const head = Buffer.alloc(10);
    head.writeUInt16BE(TYPE.DNSKEY, 0);
    head.writeUInt16BE(CLASS.IN, 2);
    head.writeUInt32BE(ttlSeconds, 4);
    head.writeUInt16BE(rdata.length, 8);
    return Buffer.concat([zone.canonical().wire, head, rdata]);
  });
  const signatures = shown.signers.map(key => {
    const prefix = Buffer.alloc(18);
    prefix.writeUInt16BE(TYPE.DNSKEY, 0);
    prefix[2] = 15;
    prefix[3] = zone.labelCount;
    prefix.writeUInt32BE(ttlSeconds, 4);
    prefix.writeUInt32BE(now + lifeSeconds, 8);
    prefix.writeUInt32BE(now - 3600, 12);
    prefix.writeUInt16BE(keyTag(revoked.includes(key) ? revokedForm(key) : key.plain), 16);
    const signed = Buffer.concat([prefix, zone.canonical().wire]);
    const signature = sign(null, Buffer.concat([signed, ...records]), key.privateKey);
    return Uint8Array.from(Buffer.concat([signed, signature]));
  });
  return { name: zone, type: TYPE.DNSKEY, class: CLASS.IN, ttlSeconds, rdatas, signatures };
}
