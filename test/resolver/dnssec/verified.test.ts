/** A proof that was verified is not verified again, and nothing else is believed for it. */
import assert from 'node:assert/strict';
import { generateKeyPairSync, sign } from 'node:crypto';
import test from 'node:test';
import { type Dnskey, parseDnskey } from '../../../resolver/dns/dnssec-rdata.ts';
import { Name } from '../../../resolver/dns/name.ts';
import type { Rrset } from '../../../resolver/dns/rrset.ts';
import { EDE, TYPE } from '../../../resolver/dns/types.ts';
import { verifyRrset } from '../../../resolver/dnssec/signature.ts';
import { VerifiedProofs } from '../../../resolver/dnssec/verified.ts';
import { DEFAULT_LIMITS, Ledger, Work } from '../../../resolver/dnssec/work.ts';

const NOW = 1_700_000_000;
const zone = Name.parseText('example');
const { privateKey, publicKey } = generateKeyPairSync('ed25519');
const point = Buffer.from(publicKey.export({ format: 'jwk' }).x!, 'base64url');
const newKey = (): Dnskey => parseDnskey(Uint8Array.of(1, 0, 3, 15, ...point))!;

/** An RRset of the zone's apex, signed for a thousand seconds round NOW. */
function signed(type: number, rdata: Uint8Array): Rrset {
  const head = Buffer.alloc(18);
  head.writeUInt16BE(type, 0);
  head[2] = 15;
  head[3] = 1;
  head.writeUInt32BE(60, 4);
  head.writeUInt32BE(NOW + 1000, 8);
  head.writeUInt32BE(NOW - 1000, 12);
  head.writeUInt16BE(newKey().keyTag, 16);
  const prefix = Buffer.concat([head, zone.wire]);
  const fixed = Buffer.alloc(10);
  fixed.writeUInt16BE(type, 0);
  fixed.writeUInt16BE(1, 2);
  fixed.writeUInt32BE(60, 4);
  fixed.writeUInt16BE(rdata.length, 8);
  const signature = sign(null, Buffer.concat([prefix, zone.wire, fixed, rdata]), privateKey);
  const rrsig = Uint8Array.from(Buffer.concat([prefix, signature]));
  return { name: zone, type, class: 1, ttlSeconds: 60, rdatas: [rdata], signatures: [rrsig] };
}

const soa = Uint8Array.from([0, 0, ...new Array(20).fill(1)]);
const address = Uint8Array.of(192, 0, 2, 1);

/** Verifies by questions of their own; tells of each what came out, and how many signatures were checked for it. */
function verifier() {
  const ledger = new Ledger(() => 0);
  return async (rrset: Rrset, key: Dnskey, now: number = NOW) => {
    const before = ledger.counters().verifications;
    const result = await verifyRrset(rrset, zone, [key], now, new Work(DEFAULT_LIMITS, ledger));
    const code = result.status === 'bogus' ? result.ede.code : undefined;
    return { status: result.status, code, checks: ledger.counters().verifications - before };
  };
}
const secure = (checks: number) => ({ status: 'secure', code: undefined, checks });

test('the SOA that comes with each denial is verified once', async () => {
  const verify = verifier();
  const key = newKey();
  assert.deepEqual(await verify(signed(TYPE.SOA, soa), key), secure(1));
  assert.deepEqual(await verify(signed(TYPE.SOA, soa), key), secure(0));
});

test('its time is looked at each time', async () => {
  const verify = verifier();
  const key = newKey();
  await verify(signed(TYPE.SOA, soa), key);
  const late = await verify(signed(TYPE.SOA, soa), key, NOW + 1001);
  assert.deepEqual([late.status, late.code], ['bogus', EDE.SIGNATURE_EXPIRED]);
  const early = await verify(signed(TYPE.SOA, soa), key, NOW - 1001);
  assert.deepEqual([early.status, early.code], ['bogus', EDE.SIGNATURE_NOT_YET_VALID]);
});

test('other octets under a signature that is remembered are bogus', async () => {
  const verify = verifier();
  const key = newKey();
  const rrset = signed(TYPE.SOA, soa);
  await verify(rrset, key);
  const other = { ...rrset, rdatas: [soa.with(21, 9)] };
  assert.deepEqual(await verify(other, key), { status: 'bogus', code: EDE.DNSSEC_BOGUS, checks: 1 });
});

test('the key of a chain of trust that was made anew verifies anew', async () => {
  const verify = verifier();
  await verify(signed(TYPE.SOA, soa), newKey());
  assert.deepEqual(await verify(signed(TYPE.SOA, soa), newKey()), secure(1));
});

test('what is asked for by its own name is not remembered here', async () => {
  const verify = verifier();
  const key = newKey();
  for (const _ of [1, 2]) assert.deepEqual(await verify(signed(TYPE.A, address), key), secure(1));
});

test('proofs are bounded in number and size, and those in use stay', () => {
  const proofs = new VerifiedProofs();
  const key = newKey();
  const nth = (n: number): Uint8Array => Uint8Array.of(n >> 8, n & 0xff);
  const data = Uint8Array.of(1, 2, 3);
  for (let n = 0; n < 600; n++) {
    proofs.keep(TYPE.SOA, key, data, nth(n));
    assert.ok(proofs.has(key, data, nth(0)), `${n}`);
  }
  assert.ok(!proofs.has(key, data, nth(50)));
  assert.ok(proofs.has(key, data, nth(599)));
  proofs.keep(TYPE.SOA, key, new Uint8Array(1024), nth(1000));
  assert.ok(!proofs.has(key, new Uint8Array(1024), nth(1000)));
});
