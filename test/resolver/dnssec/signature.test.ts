import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import test from 'node:test';
import { ed25519 } from '@noble/curves/ed25519.js';
import { type Dnskey, parseDnskey, parseDs } from '../../../resolver/dns/dnssec-rdata.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { canonicalRdata } from '../../../resolver/dns/rdata-form.ts';
import type { Rrset } from '../../../resolver/dns/rrset.ts';
import { EDE, TYPE } from '../../../resolver/dns/types.ts';
import {
  dsMatches,
  isSupportedAlgorithm,
  isSupportedDigest,
  isTooShort,
  verifySignature,
} from '../../../resolver/dnssec/algorithms.ts';
import {
  IANA_ROOT_ANCHORS,
  parseTrustAnchors,
  zonesWithoutUsableAnchor,
} from '../../../resolver/dnssec/anchors.ts';
import { isUsableKey, verifyRrset } from '../../../resolver/dnssec/signature.ts';
import { DEFAULT_LIMITS, Work, WorkExceeded } from '../../../resolver/dnssec/work.ts';

const base64 = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, 'base64'));
const work = (): Work => new Work(DEFAULT_LIMITS);

function dnskey(flags: number, algorithm: number, key: Uint8Array, protocol: number = 3): Dnskey {
  return parseDnskey(Uint8Array.of(flags >> 8, flags & 0xff, protocol, algorithm, ...key))!;
}

type Fields = {
  type: number;
  algorithm: number;
  labels: number;
  ttl: number;
  expiration: number;
  inception: number;
  tag: number;
  signer: Name;
};

function rrsigPrefix(f: Fields): Uint8Array {
  const head = Buffer.alloc(18);
  head.writeUInt16BE(f.type, 0);
  head[2] = f.algorithm;
  head[3] = f.labels;
  head.writeUInt32BE(f.ttl, 4);
  head.writeUInt32BE(f.expiration, 8);
  head.writeUInt32BE(f.inception, 12);
  head.writeUInt16BE(f.tag, 16);
  return Uint8Array.from(Buffer.concat([head, f.signer.wire]));
}

const utc = (...parts: [number, number, number, number, number, number]): number =>
  Date.UTC(parts[0], parts[1] - 1, ...(parts.slice(2) as [number, number, number, number])) / 1000;

test('ECDSA P-256: the example of RFC 6605 §6.1', async () => {
  const zone = Name.parseText('example.net');
  const key = dnskey(
    257,
    13,
    base64('GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edbkrSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAA=='),
  );
  assert.equal(key.keyTag, 55648);
  const digest = Buffer.from('b4c8c1fe2e7477127b27115656ad6256f424625bf5c1e2770ce6d6e37df61d17', 'hex');
  const ds = parseDs(Uint8Array.of(55648 >> 8, 55648 & 0xff, 13, 2, ...digest))!;
  assert.ok(dsMatches(ds, zone, key));
  const prefix = rrsigPrefix({
    type: TYPE.A,
    algorithm: 13,
    labels: 3,
    ttl: 3600,
    expiration: utc(2010, 9, 9, 10, 4, 39),
    inception: utc(2010, 8, 12, 10, 4, 39),
    tag: 55648,
    signer: zone,
  });
  const signature = base64(
    'qx6wLYqmh+l9oCKTN6qIc+bw6ya+KJ8oMz0YP107epXAyGmt+3SNruPFKG7tZoLBLlUzGGus7ZwmwWep666VCw==',
  );
  const rrset: Rrset = {
    name: Name.parseText('WWW.example.net'),
    type: TYPE.A,
    class: 1,
    ttlSeconds: 9999,
    rdatas: [Uint8Array.of(192, 0, 2, 1)],
    signatures: [Uint8Array.of(...prefix, ...signature)],
  };
  const now = utc(2010, 9, 1, 0, 0, 0);
  assert.deepEqual(await verifyRrset(rrset, zone, [key], now, work()), {
    status: 'secure',
    ttlSeconds: 3600,
  });
  const nearEnd = utc(2010, 9, 9, 10, 4, 30);
  assert.deepEqual(await verifyRrset(rrset, zone, [key], nearEnd, work()), {
    status: 'secure',
    ttlSeconds: 9,
  });
  const other = { ...rrset, rdatas: [Uint8Array.of(192, 0, 2, 2)] };
  assert.equal((await verifyRrset(other, zone, [key], now, work())).status, 'bogus');
});

test('Ed25519: the example of RFC 8080 §6.1', async () => {
  const zone = Name.parseText('example.com');
  const key = dnskey(257, 15, base64('l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4='));
  assert.equal(key.keyTag, 3613);
  const prefix = rrsigPrefix({
    type: TYPE.MX,
    algorithm: 15,
    labels: 2,
    ttl: 3600,
    expiration: 1440021600,
    inception: 1438207200,
    tag: 3613,
    signer: zone,
  });
  const signature = base64(
    'oL9krJun7xfBOIWcGHi7mag5/hdZrKWw15jPGrHpjQeRAvTdszaPD+QLs3fx8A4M3e23mRZ9VrbpMngwcrqNAg==',
  );
  const mx = Uint8Array.of(0, 10, ...Name.parseText('Mail.Example.com').wire);
  const rrset: Rrset = {
    name: zone,
    type: TYPE.MX,
    class: 1,
    ttlSeconds: 60,
    rdatas: [mx],
    signatures: [Uint8Array.of(...prefix, ...signature)],
  };
  const result = await verifyRrset(rrset, zone, [key], 1439000000, work());
  assert.deepEqual(result, { status: 'secure', ttlSeconds: 60 }, 'the exchange is signed in lower case');
  assert.deepEqual(
    canonicalRdata(TYPE.MX, mx),
    Uint8Array.of(0, 10, ...Name.parseText('mail.example.com').wire),
  );
});

test('what Ed25519 of node:crypto accepts, @noble/curves made', () => {
  const { secretKey, publicKey } = ed25519.keygen();
  const data = Buffer.from('any');
  const signature = ed25519.sign(data, secretKey);
  assert.ok(verifySignature(dnskey(256, 15, publicKey), data, signature));
  assert.ok(!verifySignature(dnskey(256, 15, publicKey), Buffer.from('another'), signature));
});

/** A zone key of ours, to sign what no signer would. */
const zone = Name.parseText('example');
const { privateKey, publicKey } = generateKeyPairSync('ed25519');
const rawKey = Buffer.from((publicKey as KeyObject).export({ format: 'jwk' }).x!, 'base64url');
const zoneKey = dnskey(256, 15, rawKey);
const NOW = 1_700_000_000;

function signed(
  name: Name,
  changes: Partial<Fields> = {},
  rdatas: Uint8Array[] = [Uint8Array.of(1, 2, 3, 4)],
): Rrset {
  const fields = {
    type: TYPE.A,
    algorithm: 15,
    labels: name.labelCount,
    ttl: 60,
    expiration: NOW + 1000,
    inception: NOW - 1000,
    tag: zoneKey.keyTag,
    signer: zone,
    ...changes,
  };
  const prefix = rrsigPrefix(fields);
  const kept = Math.min(fields.labels, name.labelCount);
  const owner = kept < name.labelCount && !name.isWildcard ? name.suffix(kept).wildcard()! : name;
  const records = rdatas.map(rdata =>
    Uint8Array.of(...owner.wire, 0, 1, 0, 1, 0, 0, 0, 60, 0, rdata.length, ...rdata),
  );
  const signature = sign(null, Buffer.concat([prefix, ...records]), privateKey);
  return {
    name,
    type: TYPE.A,
    class: 1,
    ttlSeconds: 60,
    rdatas,
    signatures: [Uint8Array.of(...prefix, ...signature)],
  };
}

const check = (rrset: Rrset, keys: Dnskey[] = [zoneKey], now: number = NOW) =>
  verifyRrset(rrset, zone, keys, now, work());

test('RFC 4035 §5.3.1: each condition alone makes a good signature worthless', async () => {
  const name = Name.parseText('www.example');
  assert.equal((await check(signed(name))).status, 'secure');
  const bad: [string, Rrset, number][] = [
    ['expired', signed(name, { expiration: NOW - 1 }), EDE.SIGNATURE_EXPIRED],
    ['not yet valid', signed(name, { inception: NOW + 1 }), EDE.SIGNATURE_NOT_YET_VALID],
    [
      'ends before it begins',
      signed(name, { expiration: NOW - 500, inception: NOW + 500 }),
      EDE.DNSSEC_BOGUS,
    ],
    ['labels above the owner', signed(name, { labels: 3 }), EDE.DNSSEC_BOGUS],
    ['labels below the signer', signed(name, { labels: 0 }), EDE.DNSSEC_BOGUS],
    ['another type', signed(name, { type: TYPE.AAAA }), EDE.DNSSEC_BOGUS],
    ['another tag', signed(name, { tag: zoneKey.keyTag ^ 1 }), EDE.DNSKEY_MISSING],
    ['another algorithm', signed(name, { algorithm: 13 }), EDE.DNSKEY_MISSING],
    ['an unknown algorithm', signed(name, { algorithm: 250 }), EDE.UNSUPPORTED_DNSKEY_ALGORITHM],
    ['another signer', signed(name, { signer: Name.parseText('test') }), EDE.RRSIGS_MISSING],
    ['a name outside', signed(Name.parseText('www.test')), EDE.DNSSEC_BOGUS],
    ['an asterisk that counts', signed(Name.parseText('*.example'), { labels: 2 }), EDE.DNSSEC_BOGUS],
  ];
  for (const [what, rrset, code] of bad) {
    const result = await check(rrset);
    assert.equal(result.status === 'bogus' ? result.ede.code : 'secure', code, what);
  }
});

test('signature times wrap modulo 2^32 (RFC 4034 §3.1.5)', async () => {
  const name = Name.parseText('www.example');
  const wrapped = signed(name, { inception: 0xffffff00, expiration: 0x100 });
  assert.equal((await check(wrapped, [zoneKey], 0x1_0000_0000 + 0x10)).status, 'secure');
  assert.equal((await check(wrapped, [zoneKey], 0x1_0000_0000 + 0x200)).status, 'bogus');
});

test('wildcards tell where they stand; a question for the asterisk itself is no expansion', async () => {
  const expanded = await check(signed(Name.parseText('a.b.example'), { labels: 1 }));
  assert.equal(expanded.status === 'secure' && expanded.closestEncloser?.toText(), 'example.');
  const literal = await check(signed(Name.parseText('*.example'), { labels: 1 }));
  assert.deepEqual(literal, { status: 'secure', ttlSeconds: 60 });
});

test('keys that must not sign: no zone flag, revoked, other protocol, unknown algorithm', () => {
  assert.ok(isUsableKey(zoneKey));
  assert.ok(!isUsableKey(dnskey(0, 15, rawKey)));
  assert.ok(!isUsableKey(dnskey(256 | 128, 15, rawKey)));
  assert.ok(!isUsableKey(dnskey(256, 15, rawKey, 2)));
  for (const algorithm of [1, 3, 5, 6, 7, 12, 17, 253]) assert.ok(!isSupportedAlgorithm(algorithm));
  for (const digest of [0, 3, 5]) assert.ok(!isSupportedDigest(digest));
});

test('an RSA key is too short to prove anything below 1,024 bits, other keys never', () => {
  const rsa = (bits: number): Uint8Array => Uint8Array.of(3, 1, 0, 1, ...Buffer.alloc(bits / 8, 0xff));
  const short = (algorithm: number, publicKey: Uint8Array): boolean =>
    isTooShort({ ...zoneKey, algorithm, publicKey });
  assert.deepEqual(
    [512, 1016, 1024, 2048].map(bits => short(8, rsa(bits))),
    [true, true, false, false],
  );
  assert.ok(short(10, rsa(1016)));
  assert.ok(!short(13, rsa(512)) && !isTooShort(zoneKey));
});

test('RSA keys are bounded: size, exponent, form (RFC 3110)', () => {
  const { privateKey: rsa, publicKey: rsaPublic } = generateKeyPairSync('rsa', { modulusLength: 1024 });
  const modulus = Buffer.from(rsaPublic.export({ format: 'jwk' }).n!, 'base64url');
  const data = Buffer.from('data');
  const signature = sign('sha256', data, rsa);
  const good = [3, 1, 0, 1];
  const cases: [string, Uint8Array, boolean][] = [
    ['1024 bits, exponent 65537', Uint8Array.of(...good, ...modulus), true],
    ['long exponent form', Uint8Array.of(0, 0, 3, 1, 0, 1, ...modulus), true],
    ['504 bits', Uint8Array.of(...good, ...modulus.subarray(65)), false],
    ['over 4096 bits', Uint8Array.of(...good, ...Buffer.alloc(513, 0xff)), false],
    ['exponent 1', Uint8Array.of(1, 1, ...modulus), false],
    ['even exponent', Uint8Array.of(1, 4, ...modulus), false],
    ['exponent of the modulus size', Uint8Array.of(128, ...modulus, ...modulus), false],
    ['leading zero', Uint8Array.of(...good, 0, ...modulus), false],
    ['nothing', Uint8Array.of(), false],
    ['exponent past the end', Uint8Array.of(200, 1, 2), false],
  ];
  for (const [what, key, expected] of cases) {
    assert.equal(
      verifySignature({ ...zoneKey, algorithm: 8, publicKey: key }, data, signature),
      expected,
      what,
    );
  }
  assert.ok(
    !verifySignature({ ...zoneKey, algorithm: 13, publicKey: Buffer.alloc(64, 1) }, data, Buffer.alloc(64)),
    'off the curve',
  );
});

test('KeyTrap: bad signatures and keys of one tag are only tried so often', async () => {
  const good = signed(Name.parseText('www.example'));
  const bad = (i: number): Uint8Array => good.signatures[0]!.with(-1, good.signatures[0]!.at(-1)! ^ (i + 1));
  const many = {
    ...good,
    signatures: [...Array.from({ length: 20 }, (_, i) => bad(i)), good.signatures[0]!],
  };
  const result = await check(many);
  assert.match(result.status === 'bogus' ? result.ede.text : '', /too many bad signatures/);
  const few = { ...good, signatures: [bad(0), bad(1), good.signatures[0]!] };
  assert.equal((await check(few)).status, 'secure');
  // Keys are forced to collide: the good one is the fifth of its tag, until it is known to be good.
  const fresh = { ...zoneKey };
  const colliding = Array.from({ length: 4 }, (_, i) => ({ ...zoneKey, publicKey: Buffer.alloc(32, i) }));
  assert.equal((await check(good, [...colliding, fresh])).status, 'bogus');
  assert.equal((await check(good, [...colliding.slice(1), fresh])).status, 'secure');
  assert.equal((await check(good, [...colliding, fresh])).status, 'secure');
  for (const limit of [{ verifications: 2 }, { failures: 2 }]) {
    const spent = new Work({ ...DEFAULT_LIMITS, ...limit });
    await assert.rejects(verifyRrset(many, zone, [zoneKey], NOW, spent), WorkExceeded);
  }
});

test('built-in root anchors are the digests of the keys that Debian ships', t => {
  const file = '/usr/share/dns/root.key';
  if (!existsSync(file)) return t.skip('package dns-root-data is not installed');
  const keys = parseTrustAnchors(readFileSync(file, 'utf8'))[0]!.records.map(record => parseDnskey(record)!);
  const anchors = parseTrustAnchors(IANA_ROOT_ANCHORS)[0]!.records.map(record => parseDs(record)!);
  for (const key of keys)
    assert.ok(
      anchors.some(ds => dsMatches(ds, Name.root, key)),
      `tag ${key.keyTag}`,
    );
});

test('trust anchors are read as zone-file lines; a bad one is named by its line', () => {
  const anchors = parseTrustAnchors(
    '; comment\nexample. 3600 IN DS 1 13 2 ab cd ; more\n. DNSKEY 257 3 15 ( AAAA )\nexample. DS 2 13 2 ef\n',
  );
  assert.deepEqual(
    anchors.map(anchor => [anchor.name.toText(), anchor.type, anchor.records.length]),
    [
      ['example.', TYPE.DS, 2],
      ['.', TYPE.DNSKEY, 1],
    ],
  );
  for (const bad of [
    '. DS 1 13 2',
    '. DS 1 13 2 xyz',
    '. A 192.0.2.1',
    '. DS 70000 13 2 ab',
    '. DNSKEY 257 3 8 ?',
  ]) {
    assert.throws(() => parseTrustAnchors(`\n${bad}`), /line 2/, bad);
  }
});

test('a zone whose anchors are all of unknown algorithms or digests is named; one good anchor is enough', () => {
  const digest = 'ab'.repeat(32);
  const anchors = parseTrustAnchors(
    `gost. DS 1 8 3 ${digest}\nold. DS 1 5 2 ${digest}\nkey. DNSKEY 257 3 5 AAAA\n` +
      `mixed. DS 1 5 2 ${digest}\nmixed. DNSKEY 257 3 13 AAAA\ngood. DS 1 8 3 ab\ngood. DS 1 13 2 ${digest}\n`,
  );
  assert.deepEqual(
    zonesWithoutUsableAnchor(anchors).map(zone => zone.toText()),
    ['gost.', 'old.', 'key.'],
  );
  assert.deepEqual(zonesWithoutUsableAnchor(parseTrustAnchors(IANA_ROOT_ANCHORS)), []);
});

test('ECDSA: signatures of every shape go through DER and back', () => {
  for (const [namedCurve, algorithm, hash, half] of [
    ['P-256', 13, 'sha256', 32],
    ['P-384', 14, 'sha384', 48],
  ] as const) {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve });
    const { x, y } = publicKey.export({ format: 'jwk' });
    const key = dnskey(256, algorithm, Buffer.concat([base64url(x!), base64url(y!)]));
    const shapes = new Set<string>();
    // A number in 256 begins with a zero octet, one in two with a bit that DER would take for a sign.
    for (let i = 0; i < 5000 && shapes.size < 6; i++) {
      const data = Buffer.from(`${namedCurve} ${i}`);
      const signature = sign(hash, data, { key: privateKey, dsaEncoding: 'ieee-p1363' });
      const shape = (at: number): string => `${signature[at] === 0 ? 'zero' : signature[at]! >> 7}`;
      const both = [`r ${shape(0)}`, `s ${shape(half)}`];
      if (both.every(one => shapes.has(one))) continue;
      for (const one of both) shapes.add(one);
      assert.ok(verifySignature(key, data, signature), both.join());
      signature[2 * half - 1]! ^= 1;
      assert.ok(!verifySignature(key, data, signature), both.join());
    }
    assert.equal(shapes.size, 6, [...shapes].join());
    for (const filling of [0, 0xff]) {
      assert.ok(!verifySignature(key, Buffer.from('x'), new Uint8Array(2 * half).fill(filling)));
    }
  }
});

function base64url(text: string): Buffer {
  return Buffer.from(text, 'base64url');
}
