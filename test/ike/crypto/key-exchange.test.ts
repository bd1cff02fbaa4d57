import assert from 'node:assert/strict';
import { createDiffieHellmanGroup, randomBytes } from 'node:crypto';
import test from 'node:test';
import { x25519 } from '@noble/curves/ed25519.js';
import { p256, p384 } from '@noble/curves/nist.js';
import { Group } from '../../../ike/crypto/algorithms.ts';
import { deriveShared, generateKeyShare } from '../../../ike/crypto/key-exchange.ts';
import { WireError } from '../../../ike/wire/error.ts';
import { hex, seededRandom, toHex, vectorTest } from '../vectors.ts';

const fixed = (text: string) => () => hex(text);
const groups = [Group.CURVE25519, Group.ECP_256, Group.ECP_384, Group.MODP_2048];

test('X25519: RFC 7748 §6.1', () => {
  const alice = generateKeyShare(
    31,
    fixed('77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a'),
  );
  const bob = generateKeyShare(31, fixed('5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb'));
  assert.equal(toHex(alice.publicValue), '8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a');
  const shared = '4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742';
  assert.equal(toHex(deriveShared(alice, bob.publicValue)), shared);
  assert.equal(toHex(deriveShared(bob, alice.publicValue)), shared);
});

test('P-256: RFC 5903 §8.1', () => {
  const i = generateKeyShare(19, fixed('C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433'));
  const r = generateKeyShare(19, fixed('C6EF9C5D78AE012A011164ACB397CE2088685D8F06BF9BE0B283AB46476BEE53'));
  assert.equal(
    toHex(i.publicValue).toUpperCase(),
    'DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C37725811805271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3',
  );
  const shared = 'D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE';
  assert.equal(toHex(deriveShared(i, r.publicValue)).toUpperCase(), shared);
  assert.equal(toHex(deriveShared(r, i.publicValue)).toUpperCase(), shared);
});

type Rfc5903 = { group: number; i: string; gi?: string; r: string; gr?: string; girx: string };

vectorTest<Rfc5903[]>('RFC 5903 §8', 'rfc5903.json', all => {
  for (const vector of all) {
    const i = generateKeyShare(vector.group, fixed(vector.i));
    const r = generateKeyShare(vector.group, fixed(vector.r));
    if (vector.gi !== undefined) assert.equal(toHex(i.publicValue), vector.gi.toLowerCase());
    if (vector.gr !== undefined) assert.equal(toHex(r.publicValue), vector.gr.toLowerCase());
    assert.equal(toHex(deriveShared(i, r.publicValue)), vector.girx.toLowerCase());
  }
});

for (const group of groups) {
  test(`group ${group}: both sides agree, and the same randomness gives the same share`, () => {
    for (let seed = 1; seed <= 4; seed++) {
      const ours = generateKeyShare(group, seededRandom(seed));
      const theirs = generateKeyShare(group, randomBytes);
      assert.deepEqual(deriveShared(ours, theirs.publicValue), deriveShared(theirs, ours.publicValue));
      assert.deepEqual(generateKeyShare(group, seededRandom(seed)).publicValue, ours.publicValue);
      assert.notDeepEqual(theirs.publicValue, ours.publicValue);
    }
  });
}

test('noble agrees', () => {
  for (let seed = 1; seed <= 5; seed++) {
    const scalar = seededRandom(seed)(32);
    const share = generateKeyShare(31, () => scalar);
    const peer = x25519.getPublicKey(seededRandom(seed + 50)(32));
    assert.deepEqual(share.publicValue, x25519.getPublicKey(scalar));
    assert.deepEqual(deriveShared(share, peer), x25519.getSharedSecret(scalar, peer));
  }
  for (const [group, curve, size] of [
    [19, p256, 32],
    [20, p384, 48],
  ] as const) {
    const scalar = seededRandom(7)(size);
    const share = generateKeyShare(group, () => scalar);
    const peer = curve.getPublicKey(seededRandom(8)(size), false);
    assert.deepEqual(share.publicValue, curve.getPublicKey(scalar, false).subarray(1));
    const x = curve.getSharedSecret(scalar, peer, false).subarray(1, 1 + size);
    assert.deepEqual(deriveShared(share, peer.subarray(1)), x);
  }
});

test('MODP 2048: integers agree, and the secret keeps its leading zeros', () => {
  const prime = BigInt(`0x${createDiffieHellmanGroup('modp14').getPrime('hex')}`);
  const number = (bytes: Uint8Array) => BigInt(`0x${toHex(bytes)}`);
  const power = (base: bigint, exponent: bigint) => {
    let result = 1n;
    for (let square = base % prime, left = exponent; left > 0n; left >>= 1n) {
      if (left & 1n) result = (result * square) % prime;
      square = (square * square) % prime;
    }
    return result;
  };
  const random = seededRandom(9)(48);
  const exponent = number(Uint8Array.of(1, ...random));
  const share = generateKeyShare(14, () => random);
  assert.equal(number(share.publicValue), power(2n, exponent));
  let short = 0;
  // About one secret in 256 starts with a zero byte; small public values make many cases cheap.
  for (let peer = 2; peer < 900 && short === 0; peer++) {
    const value = new Uint8Array(256);
    new DataView(value.buffer).setUint32(252, peer);
    const expected = power(BigInt(peer), exponent);
    if (expected >> 2040n !== 0n) continue;
    short++;
    const shared = deriveShared(share, value);
    assert.equal(shared.length, 256);
    assert.equal(shared[0], 0);
    assert.equal(number(shared), expected);
  }
  assert.equal(short, 1);
});

function refused(group: number, peerPublic: Uint8Array, what: string): void {
  const share = generateKeyShare(group, randomBytes);
  assert.throws(
    () => deriveShared(share, peerPublic),
    (error: unknown) => error instanceof WireError && error.notify === 7,
    what,
  );
}

test('refused: wrong lengths (RFC 6989, CVE-2023-41913)', () => {
  for (const group of groups) {
    const { publicValue } = generateKeyShare(group, randomBytes);
    refused(group, new Uint8Array(0), 'empty');
    refused(group, publicValue.subarray(1), 'one byte short');
    refused(group, Uint8Array.of(...publicValue, 0), 'one byte long');
    refused(group, Uint8Array.of(0, ...publicValue), 'one byte long before');
  }
});

test('refused: X25519 points of low order', () => {
  // RFC 7748 §6.1 asks for the zero check; the points are those of https://cr.yp.to/ecdh.html.
  for (const point of [
    '0000000000000000000000000000000000000000000000000000000000000000',
    '0100000000000000000000000000000000000000000000000000000000000000',
    'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
    '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
    'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  ]) {
    refused(31, hex(point), point);
  }
});

test('refused: points off the curve, MODP values out of 2..p-2', () => {
  for (const group of [19, 20]) {
    const { publicValue } = generateKeyShare(group, randomBytes);
    const off = Uint8Array.from(publicValue);
    off[off.length - 1]! ^= 1;
    refused(group, off, 'off the curve');
    refused(group, new Uint8Array(publicValue.length), 'zero');
    refused(group, new Uint8Array(publicValue.length).fill(255), 'coordinates beyond the field');
  }
  const prime = createDiffieHellmanGroup('modp14').getPrime();
  const near = (difference: number) => {
    const value = Uint8Array.from(prime);
    value[255]! += difference;
    return value;
  };
  const small = (number: number) => Uint8Array.from({ length: 256 }, (_, at) => (at === 255 ? number : 0));
  refused(14, small(0), '0');
  refused(14, small(1), '1');
  refused(14, near(-1), 'p - 1');
  refused(14, near(0), 'p');
  refused(14, new Uint8Array(256).fill(255), '2^2048 - 1');
  assert.equal(deriveShared(generateKeyShare(14, randomBytes), near(-2)).length, 256);
});

test('groups that are not in the table are no key exchange', () => {
  for (const group of [0, 1, 2, 5, 22, 35])
    assert.throws(() => generateKeyShare(group, randomBytes), RangeError);
  assert.throws(
    () => generateKeyShare(19, length => new Uint8Array(length)),
    RangeError,
    'dead random source',
  );
});

type Wycheproof = {
  testGroups: {
    tests: {
      tcId: number;
      comment: string;
      public: string;
      private: string;
      shared: string;
      result: string;
    }[];
  }[];
};

vectorTest<Wycheproof>('Wycheproof X25519', 'wycheproof/x25519_test.json', ({ testGroups }) => {
  for (const { tcId, comment, public: peer, private: scalar, shared } of testGroups.flatMap(
    ({ tests }) => tests,
  )) {
    const share = generateKeyShare(31, fixed(scalar));
    // "acceptable" there: low order gives zero, which we refuse; twist points and non-canonical ones work.
    if (/^0*$/.test(shared))
      assert.throws(() => deriveShared(share, hex(peer)), WireError, `${tcId} ${comment}`);
    else assert.equal(toHex(deriveShared(share, hex(peer))), shared, `${tcId} ${comment}`);
  }
});

for (const [group, name, size] of [
  [19, 'secp256r1', 32],
  [20, 'secp384r1', 48],
] as const) {
  vectorTest<Wycheproof>(
    `Wycheproof ECDH ${name}`,
    `wycheproof/ecdh_${name}_ecpoint_test.json`,
    ({ testGroups }) => {
      let good = 0;
      for (const { tcId, comment, public: peer, private: scalar, shared, result } of testGroups.flatMap(
        ({ tests }) => tests,
      )) {
        const share = generateKeyShare(group, fixed(scalar.padStart(2 * size, '0').slice(-2 * size)));
        const point = hex(peer);
        const uncompressed = point.length === 1 + 2 * size && point[0] === 4;
        if (uncompressed && result !== 'invalid') {
          assert.equal(toHex(deriveShared(share, point.subarray(1))), shared, `${tcId} ${comment}`);
          good++;
        } else {
          const data = point[0] === 4 ? point.subarray(1) : point;
          assert.throws(() => deriveShared(share, data), WireError, `${tcId} ${comment}`);
        }
      }
      assert.ok(good > 100);
    },
  );
}

type KeVector = { name: string; method: string; seed: string; pub_i: string; pub_r: string; shared: string };

vectorTest<KeVector[]>('X25519: RFC 7748, RFC 8031', 'strongswan/curve25519.json', all => {
  for (const { name, seed, pub_i, pub_r, shared } of all) {
    const i = generateKeyShare(31, fixed(seed.slice(0, 64)));
    assert.equal(toHex(i.publicValue), pub_i, name);
    assert.equal(toHex(deriveShared(i, hex(pub_r))), shared, name);
  }
});
