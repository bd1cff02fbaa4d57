import assert from 'node:assert/strict';
import { createSecretKey, type KeyObject } from 'node:crypto';
import test from 'node:test';
import { Encr, Integ, Prf, suiteName } from '../../../ike/crypto/algorithms.ts';
import {
  algorithmsOf,
  type DirectionKeys,
  deriveChildKeys,
  deriveIkeKeys,
  prf,
  prfPlus,
  skeyseed,
  skeyseedRekey,
} from '../../../ike/crypto/prf.ts';
import { concat } from '../../../ike/wire/bytes.ts';
import { hex, toHex, vectorTest } from '../vectors.ts';

const key = (text: string) => createSecretKey(hex(text));
const bytesOf = (object: KeyObject | undefined) => (object === undefined ? '' : toHex(object.export()));

test('prf is HMAC', () => {
  // RFC 4231 §4.3, test case 2: key "Jefe", data "what do ya want for nothing?".
  const data = new TextEncoder().encode('what do ya want for nothing?');
  const jefe = createSecretKey(Buffer.from('Jefe'));
  assert.equal(
    toHex(prf(Prf.HMAC_SHA2_256, jefe, data)),
    '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843',
  );
  assert.equal(
    toHex(prf(Prf.HMAC_SHA2_384, jefe, data.subarray(0, 10), data.subarray(10))),
    'af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649',
  );
  assert.equal(
    toHex(prf(Prf.HMAC_SHA2_512, jefe, data)),
    '164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737',
  );
  assert.throws(() => prf(2, jefe, data), RangeError, 'HMAC-SHA1 is not ours');
});

test('prf+ chains its blocks and ends at 255', () => {
  const k = key('0b'.repeat(32));
  const seed = hex('0102');
  const t1 = prf(Prf.HMAC_SHA2_256, k, seed, Uint8Array.of(1));
  const t2 = prf(Prf.HMAC_SHA2_256, k, t1, seed, Uint8Array.of(2));
  assert.equal(toHex(prfPlus(Prf.HMAC_SHA2_256, k, seed, 50)), toHex(concat([t1, t2])).slice(0, 100));
  assert.equal(prfPlus(Prf.HMAC_SHA2_256, k, seed, 0).length, 0);
  assert.equal(prfPlus(Prf.HMAC_SHA2_256, k, seed, 255 * 32).length, 255 * 32);
  assert.throws(() => prfPlus(Prf.HMAC_SHA2_256, k, seed, 255 * 32 + 1), RangeError);
});

type Kdf = Record<
  | 'ni'
  | 'nr'
  | 'spii'
  | 'spir'
  | 'gir'
  | 'gir_new'
  | 'skeyseed'
  | 'dkm'
  | 'dkm_child'
  | 'dkm_child_dh'
  | 'skeyseed_rekey',
  string
>;

vectorTest<Kdf[]>(
  'NIST: SKEYSEED, SK_*, Child SA keys, rekey',
  'nist-ikev2-kdf/ikev2-kdf-sha256-selftest.json',
  all => {
    for (const vector of all) {
      const [ni, nr] = [hex(vector.ni), hex(vector.nr)];
      const seed = skeyseed(Prf.HMAC_SHA2_256, ni, nr, hex(vector.gir));
      assert.equal(bytesOf(seed), vector.skeyseed.toLowerCase());
      const suite = { encr: Encr.AES_CBC, keyBits: 256, prf: 5, integ: Integ.HMAC_SHA2_256_128, group: 14 };
      const keys = deriveIkeKeys(suite, seed, {
        ni,
        nr,
        spiInitiator: BigInt(`0x${vector.spii}`),
        spiResponder: BigInt(`0x${vector.spir}`),
      });
      const { initiator: i, responder: r } = keys;
      const order = [keys.skD, i.integrity, r.integrity, i.encryption, r.encryption, i.skP, r.skP].map(
        bytesOf,
      );
      // CAVP cuts no keys: its DKM is the head of the same stream.
      const dkm = vector.dkm.toLowerCase();
      const stream = order.join('');
      const common = Math.min(dkm.length, stream.length);
      assert.equal(stream.slice(0, common), dkm.slice(0, common));
      assert.ok(common >= 7 * 64);

      const child = { encr: Encr.AES_GCM_16, keyBits: 256, integ: 0, esn: false };
      const plain = deriveChildKeys(5, keys.skD, child, ni, nr);
      assert.equal(childStream(plain), vector.dkm_child.toLowerCase().slice(0, 144));
      const withKe = deriveChildKeys(5, keys.skD, child, ni, nr, hex(vector.gir_new));
      assert.equal(childStream(withKe), vector.dkm_child_dh.toLowerCase().slice(0, 144));
      assert.equal(
        bytesOf(skeyseedRekey(5, keys.skD, hex(vector.gir_new), ni, nr)),
        vector.skeyseed_rekey.toLowerCase(),
      );
    }
  },
);

function childStream(pair: ReturnType<typeof deriveChildKeys>): string {
  return [pair.initiator, pair.responder]
    .map(cipher =>
      cipher.kind === 'aead' ? toHex(cipher.key) : toHex(cipher.cipherKey) + toHex(cipher.integrityKey),
    )
    .join('');
}

test('keys are cut for every cipher', () => {
  const exchange = { ni: hex('01'.repeat(32)), nr: hex('02'.repeat(32)), spiInitiator: 3n, spiResponder: 4n };
  const cases = [
    [{ encr: Encr.AES_GCM_16, keyBits: 256, prf: 5, integ: 0 }, [32, 0, 32, 4]],
    [{ encr: Encr.AES_GCM_16, keyBits: 128, prf: 6, integ: 0 }, [48, 0, 16, 4]],
    [{ encr: Encr.CHACHA20_POLY1305, keyBits: 256, prf: 7, integ: 0 }, [64, 0, 32, 4]],
    [{ encr: Encr.AES_CBC, keyBits: 128, prf: 5, integ: 13 }, [32, 48, 16, 0]],
    [{ encr: Encr.AES_CBC, keyBits: 256, prf: 7, integ: 14 }, [64, 64, 32, 0]],
  ] as const;
  for (const [short, [prfBytes, integBytes, encrBytes, saltBytes]] of cases) {
    const suite = { ...short, group: 31 };
    const seed = skeyseed(suite.prf, exchange.ni, exchange.nr, hex('05'.repeat(32)));
    const keys = deriveIkeKeys(suite, seed, exchange);
    const spis = hex('0000000000000003 0000000000000004');
    const length = 3 * prfBytes + 2 * (integBytes + encrBytes + saltBytes);
    const stream = prfPlus(suite.prf, seed, concat([exchange.ni, exchange.nr, spis]), length);
    const { initiator: i, responder: r } = keys;
    const e = (one: DirectionKeys) => bytesOf(one.encryption) + toHex(one.salt);
    const parts = [bytesOf(keys.skD), bytesOf(i.integrity), bytesOf(r.integrity), e(i), e(r)];
    assert.equal([...parts, bytesOf(i.skP), bytesOf(r.skP)].join(''), toHex(stream), suiteName(suite));
    assert.equal(i.salt.length, saltBytes);

    const child = deriveChildKeys(
      suite.prf,
      keys.skD,
      { encr: suite.encr, keyBits: suite.keyBits, integ: suite.integ, esn: true },
      exchange.ni,
      exchange.nr,
    );
    assert.equal(
      childStream(child),
      toHex(
        prfPlus(
          suite.prf,
          keys.skD,
          concat([exchange.ni, exchange.nr]),
          2 * (encrBytes + saltBytes + integBytes),
        ),
      ),
    );
  }
});

test('suites that leave a key empty are refused', () => {
  assert.throws(() => algorithmsOf({ encr: Encr.AES_CBC, keyBits: 256, integ: 0 }), RangeError);
  assert.throws(() => algorithmsOf({ encr: Encr.AES_GCM_16, keyBits: 256, integ: 12 }), RangeError);
  assert.throws(() => algorithmsOf({ encr: Encr.AES_GCM_16, keyBits: 256, integ: 2 }), RangeError);
  assert.throws(() => algorithmsOf({ encr: Encr.AES_GCM_16, keyBits: 0, integ: 0 }), RangeError);
  assert.throws(() => algorithmsOf({ encr: 11, keyBits: 0, integ: 12 }), RangeError, 'NULL encryption');
  assert.throws(() => algorithmsOf({ encr: 21, keyBits: 256, integ: 0 }), RangeError, 'GMAC');
});

type Named = { name: string; 'arg.prf': string; key: string; salt: string; out: string };
const prfIds: Record<string, number> = { PRF_HMAC_SHA2_256: 5, PRF_HMAC_SHA2_384: 6, PRF_HMAC_SHA2_512: 7 };

vectorTest<Named[]>('CAVP SP 800-135: prf', 'strongswan/kdf_prf.json', all => {
  const ours = all.filter(vector => prfIds[vector['arg.prf']] !== undefined);
  assert.ok(ours.length >= 6);
  for (const { name, salt, out, key: shared, 'arg.prf': id } of ours) {
    const seed = skeyseed(prfIds[id]!, hex(salt), hex(''), hex(shared));
    assert.equal(bytesOf(seed), out, name);
  }
});

vectorTest<Named[]>('CAVP SP 800-135: prf+', 'strongswan/kdf_prf_plus.json', all => {
  const ours = all.filter(vector => prfIds[vector['arg.prf']] !== undefined);
  assert.ok(ours.length >= 6);
  for (const { name, salt, out, key: seed, 'arg.prf': id } of ours) {
    assert.equal(toHex(prfPlus(prfIds[id]!, key(seed), hex(salt), out.length / 2)), out, name);
  }
});
