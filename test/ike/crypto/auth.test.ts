import assert from 'node:assert/strict';
import {
  constants,
  createHash,
  createPublicKey,
  createSecretKey,
  generateKeyPairSync,
  randomBytes,
  sign,
} from 'node:crypto';
import test from 'node:test';
import { ed448 } from '@noble/curves/ed448.js';
import { ed25519 } from '@noble/curves/ed25519.js';
import { p256, p384 } from '@noble/curves/nist.js';
import fc from 'fast-check';
import {
  chooseSigner,
  maximumCandidateKeys,
  nullAuth,
  ourHashAlgorithms,
  type Scheme,
  signAuth,
  signedOctets,
  usableSigners,
  verifyAuth,
  verifyNullAuth,
} from '../../../ike/crypto/auth.ts';
import { prf } from '../../../ike/crypto/prf.ts';
import { generateKey, publicKeyOf } from '../../../ike/crypto/public-key.ts';
import type { LocalKey, PublicKey } from '../../../ike/types.ts';
import { concat } from '../../../ike/wire/bytes.ts';
import type { AuthPayload } from '../../../ike/wire/opaque.ts';
import { hex, toHex, vectorTest } from '../vectors.ts';

const rsa = generateKey('rsa-2048');
const [k256, k384, k25519, k448] = [
  generateKey('p-256'),
  generateKey('p-384'),
  generateKey('ed25519'),
  generateKey('ed448'),
];
const octets = randomBytes(300);
const digest = (hash: string) => createHash(hash).update(octets).digest();

const signature = (identifier: string, value: Uint8Array): AuthPayload => ({
  kind: 'AUTH',
  method: 14,
  data: concat([Uint8Array.of(hex(identifier).length), hex(identifier), value]),
});

// AlgorithmIdentifiers as RFC 7427 appendix A and RFC 8420 appendix A print them.
const pss256 =
  '304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120';
const pss256Trailer =
  '304606092a864886f70d01010a3039a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120a303020101';
const pkcs1 = {
  sha256: '300d06092a864886f70d01010b0500',
  sha384: '300d06092a864886f70d01010c0500',
  sha512: '300d06092a864886f70d01010d0500',
};
const ecdsa = {
  sha256: '300a06082a8648ce3d040302',
  sha384: '300a06082a8648ce3d040303',
  sha512: '300a06082a8648ce3d040304',
};

test('the octets that AUTH covers: RealMessage | Nonce | prf(SK_p, ID)', () => {
  const skP = createSecretKey(hex('0b'.repeat(20)));
  // RFC 4231 §4.2, test case 1: HMAC-SHA-256 of "Hi There".
  const covered = signedOctets({
    realMessage: hex('aabb'),
    nonce: hex('cc'),
    prfId: 5,
    skP,
    idBody: new TextEncoder().encode('Hi There'),
  });
  assert.equal(toHex(covered), 'aabbccb0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7');
});

const all: [Scheme, LocalKey, string][] = [
  ['rsa-pss-sha2-256', rsa, pss256],
  [
    'rsa-pss-sha2-384',
    rsa,
    pss256.replaceAll('0304020105', '0304020205').replace('a203020120', 'a203020130'),
  ],
  [
    'rsa-pss-sha2-512',
    rsa,
    pss256.replaceAll('0304020105', '0304020305').replace('a203020120', 'a203020140'),
  ],
  ['rsa-pkcs1-sha2-256', rsa, pkcs1.sha256],
  ['rsa-pkcs1-sha2-384', rsa, pkcs1.sha384],
  ['rsa-pkcs1-sha2-512', rsa, pkcs1.sha512],
  ['ecdsa-sha2-256', k256, ecdsa.sha256],
  ['ecdsa-sha2-384', k384, ecdsa.sha384],
  ['ecdsa-sha2-512', k256, ecdsa.sha512],
  ['ecdsa-sha2-256', k384, ecdsa.sha256],
  ['ed25519', k25519, '300506032b6570'],
  ['ed448', k448, '300506032b6571'],
];

for (const [scheme, key, identifier] of all) {
  test(`${scheme}: signs with the RFC's identifier and verifies; nothing else does`, () => {
    const auth = signAuth({ key, scheme, method: 14 }, octets);
    assert.equal(toHex(auth.data.subarray(1, 1 + auth.data[0]!)), identifier);
    const good = verifyAuth(auth, octets, [k256.publicKey, k25519.publicKey, rsa.publicKey, key.publicKey]);
    assert.ok(good.verified && good.scheme === scheme);
    assert.equal(good.key, key.publicKey);
    const others = [rsa, k256, k384, k25519, k448].filter(one => one !== key).map(one => one.publicKey);
    assert.equal(verifyAuth(auth, octets, others).verified, false, 'other keys');
    assert.equal(verifyAuth(auth, octets, []).verified, false, 'no key');
    assert.equal(verifyAuth(auth, octets.subarray(1), [key.publicKey]).verified, false, 'other octets');
    const longer = { ...auth, data: concat([auth.data, Uint8Array.of(0)]) };
    assert.equal(verifyAuth(longer, octets, [key.publicKey]).verified, false, 'trailing byte');
    const shorter = { ...auth, data: auth.data.subarray(0, -1) };
    assert.equal(verifyAuth(shorter, octets, [key.publicKey]).verified, false, 'cut short');
    for (let at = 0; at < auth.data.length; at += 3) {
      const data = Uint8Array.from(auth.data);
      data[at]! ^= 0x10;
      assert.equal(verifyAuth({ ...auth, data }, octets, [key.publicKey]).verified, false, `byte ${at}`);
    }
  });
}

test('RSASSA-PSS with the trailer field written out is accepted (OpenIKED)', () => {
  const value = sign('sha256', octets, {
    key: rsa.privateKey,
    padding: constants.RSA_PKCS1_PSS_PADDING,
    saltLength: 32,
  });
  assert.ok(verifyAuth(signature(pss256Trailer, value), octets, [rsa.publicKey]).verified);
});

function refuses(auth: AuthPayload, key: PublicKey, what: RegExp): void {
  const result = verifyAuth(auth, octets, [key]);
  assert.ok(!result.verified);
  assert.match(result.why, what);
}

test('refused: SHA-1, unknown identifiers, other PSS parameters', () => {
  const rsaSign = (hash: string, saltLength?: number) =>
    sign(hash, octets, {
      key: rsa.privateKey,
      ...(saltLength === undefined ? {} : { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength }),
    });
  refuses(signature('300d06092a864886f70d0101050500', rsaSign('sha1')), rsa.publicKey, /not accepted/);
  refuses({ kind: 'AUTH', method: 1, data: rsaSign('sha1') }, rsa.publicKey, /SHA-1/);
  refuses(
    signature('300906072a8648ce3d0401', sign('sha1', octets, k256.privateKey)),
    k256.publicKey,
    /not accepted/,
  );
  // RSASSA-PSS-params empty means SHA-1 (RFC 7427 A.4.1).
  refuses(signature('300d06092a864886f70d01010a3000', rsaSign('sha1', 20)), rsa.publicKey, /not accepted/);
  refuses(
    signature(pss256.replace('a203020120', 'a203020100'), rsaSign('sha256', 0)),
    rsa.publicKey,
    /not accepted/,
  );
  refuses(
    signature(pss256.replace('a203020120', 'a2030201de'), rsaSign('sha256', 222)),
    rsa.publicKey,
    /not accepted/,
  );
  refuses(signature(pss256, rsaSign('sha256', 0)), rsa.publicKey, /does not verify/);
  refuses(signature(pss256, rsaSign('sha256')), rsa.publicKey, /does not verify/);
  refuses(signature(pkcs1.sha256, rsaSign('sha256', 32)), rsa.publicKey, /does not verify/);
  refuses(signature(`${pkcs1.sha256}00`, rsaSign('sha256')), rsa.publicKey, /not accepted/);
  refuses(signature('300b06092a864886f70d01010b', rsaSign('sha256')), rsa.publicKey, /not accepted/);
  refuses(signature(pkcs1.sha256, rsaSign('sha256')), k256.publicKey, /no key/);
});

test('refused: one Edwards curve under the name of the other', () => {
  const as = (identifier: string, key: LocalKey) => signature(identifier, sign(null, octets, key.privateKey));
  refuses(as('300506032b6570', k448), k448.publicKey, /no key/);
  refuses(as('300506032b6571', k25519), k25519.publicKey, /no key/);
});

test('refused: no signature, no identifier, methods that are none of ours', () => {
  const data = (text: string): AuthPayload => ({ kind: 'AUTH', method: 14, data: hex(text) });
  refuses(data(''), rsa.publicKey, /cut short/);
  refuses(data('00'), rsa.publicKey, /cut short/);
  refuses(data('0f300d'), rsa.publicKey, /cut short/);
  refuses(data(`0f${pkcs1.sha256}`), rsa.publicKey, /cut short/);
  for (const method of [0, 2, 3, 11, 12, 13, 15, 255]) {
    refuses({ kind: 'AUTH', method, data: new Uint8Array(64) }, k256.publicKey, /not accepted/);
  }
});

test('ECDSA: methods 9 and 10 carry r and s, and each means one curve', () => {
  const plain = (hash: string, key: LocalKey) =>
    sign(hash, octets, { key: key.privateKey, dsaEncoding: 'ieee-p1363' });
  const nine: AuthPayload = { kind: 'AUTH', method: 9, data: plain('sha256', k256) };
  assert.ok(verifyAuth(nine, octets, [k384.publicKey, k256.publicKey]).verified);
  const ten: AuthPayload = { kind: 'AUTH', method: 10, data: plain('sha384', k384) };
  assert.ok(verifyAuth(ten, octets, [k384.publicKey]).verified);
  refuses({ ...nine, data: plain('sha256', k384) }, k384.publicKey, /no key/);
  refuses({ ...nine, data: sign('sha256', octets, k256.privateKey) }, k256.publicKey, /does not verify/);
  const mine = chooseSigner([rsa, k25519, k256], undefined);
  assert.equal(mine?.method, 9);
  assert.ok(verifyAuth(signAuth(mine, octets), octets, [k256.publicKey]).verified);
  const other = chooseSigner([k384], undefined);
  assert.ok(other !== undefined && verifyAuth(signAuth(other, octets), octets, [k384.publicKey]).verified);
});

test('no more keys are tried than the limit, and a broken one does not hide a good one', () => {
  const broken: PublicKey = { algorithm: 3, data: new Uint8Array(64) };
  const auth = signAuth({ key: k256, scheme: 'ecdsa-sha2-256', method: 14 }, octets);
  assert.ok(verifyAuth(auth, octets, [broken, k256.publicKey]).verified);
  const many = new Array<PublicKey>(maximumCandidateKeys).fill(broken);
  assert.equal(verifyAuth(auth, octets, [...many, k256.publicKey]).verified, false);
});

test('which key and which hash for which peer', () => {
  const keys = [rsa, k256, k25519];
  const schemes = (hashes: number[] | undefined, options = {}) =>
    usableSigners(keys, hashes, options).map(({ scheme }) => scheme);
  assert.deepEqual(schemes([2, 3, 4, 5]), ['rsa-pss-sha2-256', 'ecdsa-sha2-256', 'ed25519']);
  assert.deepEqual(schemes([2, 3, 4]), ['rsa-pss-sha2-256', 'ecdsa-sha2-256'], 'libreswan 4.10');
  assert.deepEqual(schemes([4]), ['rsa-pss-sha2-512', 'ecdsa-sha2-512']);
  assert.deepEqual(schemes([5]), ['ed25519']);
  assert.deepEqual(schemes([1]), []);
  assert.deepEqual(schemes([]), []);
  assert.deepEqual(schemes(undefined), ['ecdsa-sha2-256']);
  assert.deepEqual(schemes([2, 5], { prefer: [4, 3] }), ['ed25519', 'ecdsa-sha2-256', 'rsa-pss-sha2-256']);
  assert.deepEqual(schemes([2, 5], { prefer: [3] }), ['ecdsa-sha2-256', 'rsa-pss-sha2-256', 'ed25519']);
  assert.deepEqual(schemes([2], { rsa: 'pkcs1' }), ['rsa-pkcs1-sha2-256', 'ecdsa-sha2-256']);
  assert.equal(chooseSigner([k384], [2, 3, 4])?.scheme, 'ecdsa-sha2-384');
  assert.equal(chooseSigner([k384], [2])?.scheme, 'ecdsa-sha2-256');
  assert.equal(chooseSigner([k448], ourHashAlgorithms)?.scheme, 'ed448');
  assert.equal(chooseSigner([], [2]), undefined);
});

test('noble verifies what we sign, and we verify what noble signs', () => {
  const value = (key: LocalKey, scheme: Scheme) => {
    const { data } = signAuth({ key, scheme, method: 14 }, octets);
    return data.subarray(1 + data[0]!);
  };
  const point = (key: LocalKey) => concat([Uint8Array.of(4), key.publicKey.data]);
  const der = { format: 'der', prehash: false, lowS: false } as const;
  assert.ok(p256.verify(value(k256, 'ecdsa-sha2-512'), digest('sha512'), point(k256), der));
  assert.ok(p384.verify(value(k384, 'ecdsa-sha2-256'), digest('sha256'), point(k384), der));
  assert.ok(ed25519.verify(value(k25519, 'ed25519'), octets, k25519.publicKey.data));
  assert.ok(ed448.verify(value(k448, 'ed448'), octets, k448.publicKey.data));

  const secret = p256.utils.randomSecretKey();
  const publicKey: PublicKey = { algorithm: 3, data: p256.getPublicKey(secret, false).subarray(1) };
  const theirs = p256.sign(digest('sha384'), secret, der);
  assert.ok(verifyAuth(signature(ecdsa.sha384, theirs), octets, [publicKey]).verified);
  const seed = ed25519.utils.randomSecretKey();
  const edKey: PublicKey = { algorithm: 4, data: ed25519.getPublicKey(seed) };
  assert.ok(verifyAuth(signature('300506032b6570', ed25519.sign(octets, seed)), octets, [edKey]).verified);
});

test('NULL authentication: RFC 7619 §2.1', () => {
  const skP = createSecretKey(randomBytes(32));
  const mac = nullAuth(5, skP, octets);
  const inner = createSecretKey(prf(5, skP, new TextEncoder().encode('Key Pad for IKEv2')));
  assert.deepEqual(mac, prf(5, inner, octets));
  assert.ok(verifyNullAuth(5, skP, octets, mac));
  assert.ok(!verifyNullAuth(5, skP, octets, mac.subarray(1)));
  assert.ok(!verifyNullAuth(5, skP, octets.subarray(1), mac));
  assert.ok(!verifyNullAuth(5, createSecretKey(randomBytes(32)), octets, mac));
});

test('whatever comes as AUTH is refused without an exception', () => {
  const keys = [rsa, k256, k384, k25519, k448].map(({ publicKey }) => publicKey);
  const identifiers = [
    pss256,
    pss256Trailer,
    ...Object.values(pkcs1),
    ...Object.values(ecdsa),
    '300506032b6570',
    '300506032b6571',
  ];
  fc.assert(
    fc.property(
      fc.constantFrom(...identifiers, ''),
      fc.integer({ min: 0, max: 255 }),
      fc.uint8Array({ maxLength: 300 }),
      (identifier, method, value) => {
        assert.equal(verifyAuth(signature(identifier, value), octets, keys).verified, false);
        assert.equal(verifyAuth({ kind: 'AUTH', method, data: value }, octets, keys).verified, false);
      },
    ),
    { numRuns: 300 },
  );
});

type Wycheproof = {
  testGroups: {
    publicKeyPem?: string;
    publicKeyDer?: string;
    tests: { tcId: number; comment: string; flags: string[]; msg: string; sig: string; result: string }[];
  }[];
};

const wycheproof: [string, string | number][] = [
  ['rsa_pss_2048_sha256_mgf1_32', pss256],
  ['rsa_signature_2048_sha256', pkcs1.sha256],
  ['rsa_signature_2048_sha512', pkcs1.sha512],
  ['ecdsa_secp256r1_sha256', ecdsa.sha256],
  ['ecdsa_secp256r1_sha512', ecdsa.sha512],
  ['ecdsa_secp384r1_sha384', ecdsa.sha384],
  ['ecdsa_secp256r1_sha256_p1363', 9],
  ['ecdsa_secp384r1_sha384_p1363', 10],
  ['ed25519', '300506032b6570'],
  ['ed448', '300506032b6571'],
];

for (const [file, identifier] of wycheproof) {
  vectorTest<Wycheproof>(`Wycheproof ${file}`, `wycheproof/${file}_test.json`, ({ testGroups }) => {
    let good = 0;
    let bad = 0;
    for (const { publicKeyPem, publicKeyDer, tests } of testGroups) {
      const object =
        publicKeyPem !== undefined
          ? createPublicKey(publicKeyPem)
          : createPublicKey({ key: Buffer.from(publicKeyDer!, 'hex'), format: 'der', type: 'spki' });
      const key = publicKeyOf(object);
      for (const { tcId, comment, msg, sig, result } of tests) {
        const auth: AuthPayload =
          typeof identifier === 'number'
            ? { kind: 'AUTH', method: identifier, data: hex(sig) }
            : signature(identifier, hex(sig));
        const { verified } = verifyAuth(auth, hex(msg), [key]);
        if (verified) good++;
        else bad++;
        // "acceptable": PKCS1 without the hash's NULL parameter; strict or lenient, both are allowed.
        if (result !== 'acceptable') assert.equal(verified, result === 'valid', `${tcId} ${comment}`);
      }
    }
    assert.ok(good > 5 && bad > 5, `${good} good, ${bad} bad`);
  });
}

test('RSA keys that DNS may not carry verify nothing', () => {
  const small = generateKeyPairSync('rsa', { modulusLength: 1024 });
  const jwk = small.publicKey.export({ format: 'jwk' });
  const data = concat([hex('03 010001'), new Uint8Array(Buffer.from(jwk.n!, 'base64url'))]);
  const value = sign('sha256', octets, small.privateKey);
  refuses(signature(pkcs1.sha256, value), { algorithm: 2, data }, /does not verify/);
});
