import assert from 'node:assert/strict';
import { createCipheriv, createSecretKey, randomBytes } from 'node:crypto';
import test from 'node:test';
import fc from 'fast-check';
import { Encr, type IkeSuite, Integ, suiteName } from '../../../ike/crypto/algorithms.ts';
import { deriveIkeKeys, type DirectionKeys } from '../../../ike/crypto/prf.ts';
import { Opener, openMessage, Sealer, sealFragments, sealMessage } from '../../../ike/crypto/seal.ts';
import { addFragment, type Reassembly } from '../../../ike/fragments.ts';
import { concat } from '../../../ike/wire/bytes.ts';
import { WireError } from '../../../ike/wire/error.ts';
import type { Header } from '../../../ike/wire/header.ts';
import { composePayloads, findPayload, parseMessage, parsePayloads } from '../../../ike/wire/payloads.ts';
import { type Capture, hex, toHex, vectorTest } from '../vectors.ts';
import { payloads } from '../wire/arbitraries.ts';

const base = { prf: 5, group: 31 };
const suites: IkeSuite[] = [
  { ...base, encr: Encr.AES_GCM_16, keyBits: 256, integ: 0 },
  { ...base, encr: Encr.AES_GCM_16, keyBits: 128, integ: 0 },
  { ...base, encr: Encr.CHACHA20_POLY1305, keyBits: 256, integ: 0 },
  { ...base, encr: Encr.AES_CBC, keyBits: 128, integ: Integ.HMAC_SHA2_256_128 },
  { ...base, encr: Encr.AES_CBC, keyBits: 256, integ: Integ.HMAC_SHA2_384_192 },
  { ...base, encr: Encr.AES_CBC, keyBits: 256, integ: Integ.HMAC_SHA2_512_256 },
];

const header: Header = {
  spiInitiator: 1n,
  spiResponder: 2n,
  exchangeType: 35,
  fromInitiator: true,
  response: false,
  messageId: 1,
};

function keysFor(suite: IkeSuite) {
  const nonces = { ni: randomBytes(32), nr: randomBytes(32) };
  return deriveIkeKeys(suite, createSecretKey(randomBytes(32)), {
    ...nonces,
    spiInitiator: 1n,
    spiResponder: 2n,
  });
}

for (const suite of suites) {
  test(`${suiteName(suite)}: what is sealed opens, and only with its own key and every byte in place`, () => {
    const keys = keysFor(suite);
    const sealer = new Sealer(suite, keys.initiator, randomBytes);
    const opener = new Opener(suite, keys.initiator);
    fc.assert(
      fc.property(payloads, fc.nat(), (all, at) => {
        const bytes = sealMessage(header, all, sealer);
        const message = parseMessage(bytes);
        const opened = openMessage(message, opener);
        assert.ok(opened !== undefined);
        assert.deepEqual(parsePayloads(opened.firstPayload, opened.plaintext), all);
        assert.equal(openMessage(message, new Opener(suite, keys.responder)), undefined);
        const changed = Uint8Array.from(bytes);
        const place = at % bytes.length;
        changed[place]! ^= 0x01;
        // A change of length or version is refused before; any other must fail its ICV.
        let result: unknown;
        try {
          result = openMessage(parseMessage(changed), opener);
        } catch (error) {
          assert.ok(error instanceof WireError);
        }
        assert.equal(result, undefined, `byte ${place} changed`);
      }),
      { numRuns: 60 },
    );
  });

  test(`${suiteName(suite)}: fragments fit, open, and come together in any order`, () => {
    const keys = keysFor(suite);
    const sealer = new Sealer(suite, keys.initiator, randomBytes);
    const opener = new Opener(suite, keys.initiator);
    fc.assert(
      fc.property(
        payloads,
        fc.integer({ min: 150, max: 700 }),
        fc.infiniteStream(fc.nat()),
        (all, limit, picks) => {
          const datagrams = sealFragments(header, all, sealer, limit);
          for (const datagram of datagrams) assert.ok(datagram.length <= limit);
          if (datagrams.length === 1) {
            const opened = openMessage(parseMessage(datagrams[0]!), opener);
            assert.deepEqual(parsePayloads(opened!.firstPayload, opened!.plaintext), all);
            return;
          }
          const waiting = [...datagrams];
          let state: Reassembly | undefined;
          let whole: Uint8Array | undefined;
          let first = 0;
          while (waiting.length > 0) {
            const [datagram] = waiting.splice(picks.next().value! % waiting.length, 1);
            const message = parseMessage(datagram!);
            const opened = openMessage(message, opener);
            assert.ok(opened !== undefined);
            const result = addFragment(state, { messageId: 1, ...message.encrypted!.fragment!, ...opened });
            assert.notEqual(result.outcome, 'refused');
            state = result.state;
            if (result.outcome === 'complete') {
              whole = result.plaintext;
              first = result.firstPayload;
            }
          }
          const { first: expectedFirst, bytes } = composePayloads(all);
          assert.equal(first, expectedFirst);
          assert.equal(toHex(whole!), toHex(bytes));
        },
      ),
      { numRuns: 40 },
    );
  });
}

test('AEAD IVs never repeat; CBC IVs come from the random source', () => {
  const gcm = suites[0]!;
  const sealer = new Sealer(gcm, keysFor(gcm).initiator, randomBytes);
  const iv = (bytes: Uint8Array) => toHex(bytes.subarray(32, 40));
  const ivs = Array.from({ length: 5 }, () => iv(sealMessage(header, [], sealer)));
  assert.deepEqual(
    ivs,
    [0, 1, 2, 3, 4].map(number => number.toString(16).padStart(16, '0')),
  );
  const cbc = suites[3]!;
  const fixed = new Sealer(cbc, keysFor(cbc).initiator, length => new Uint8Array(length).fill(0xab));
  assert.equal(toHex(sealMessage(header, [], fixed).subarray(32, 48)), 'ab'.repeat(16));
});

test('a message of exactly the limit is not fragmented, one byte more is', () => {
  for (const suite of suites) {
    const sealer = new Sealer(suite, keysFor(suite).initiator, randomBytes);
    const whole = [{ kind: 'V' as const, data: new Uint8Array(300) }];
    const { length } = sealMessage(header, whole, sealer);
    assert.equal(sealFragments(header, whole, sealer, length).length, 1);
    const parts = sealFragments(header, whole, sealer, length - 1);
    assert.equal(parts.length, 2);
    for (const part of parts) assert.ok(part.length < length);
  }
});

test('messages that would need too many fragments are not sent', () => {
  const suite = suites[0]!;
  const sealer = new Sealer(suite, keysFor(suite).initiator, randomBytes);
  const long = [{ kind: 'V' as const, data: new Uint8Array(60000) }];
  assert.throws(() => sealFragments(header, long, sealer, 500), RangeError);
  assert.throws(() => sealFragments(header, long, sealer, 60), RangeError);
  assert.equal(sealFragments(header, long, sealer, 1200).length, 53);
});

test('too short to hold anything: not authentic', () => {
  for (const suite of suites) {
    const opener = new Opener(suite, keysFor(suite).initiator);
    for (let length = 0; length < 60; length++) {
      const sealed = {
        kind: 'SK' as const,
        firstPayload: 0,
        associatedData: new Uint8Array(32),
        body: new Uint8Array(length),
      };
      assert.equal(opener.open(sealed), undefined);
    }
  }
});

test('authentic, but more padding than content: INVALID_SYNTAX', () => {
  const suite = suites[0]!;
  const { initiator } = keysFor(suite);
  // Sealed by hand: three bytes of content, the last of which says that nine bytes of padding stand before it.
  const associatedData = new Uint8Array(32);
  const iv = new Uint8Array(8);
  const nonce = concat([initiator.salt, iv]);
  const cipher = createCipheriv('aes-256-gcm', initiator.encryption, nonce);
  cipher.setAAD(associatedData);
  const text = concat([cipher.update(Uint8Array.of(1, 2, 9)), cipher.final()]);
  const body = concat([iv, text, cipher.getAuthTag()]);
  const sealed = { kind: 'SK' as const, firstPayload: 0, associatedData, body };
  assert.throws(
    () => new Opener(suite, initiator).open(sealed),
    (error: unknown) => error instanceof WireError && error.notify === 7,
  );
});

const directory: Record<string, [number, number, number]> = {
  'AES-CBC-256 [RFC3602]': [Encr.AES_CBC, 256, Integ.HMAC_SHA2_256_128],
  'AES-GCM-256 with 16 octet ICV [RFC5282]': [Encr.AES_GCM_16, 256, 0],
};

vectorTest<Capture[]>('captures of other implementations open', 'wireshark/ikev2-decrypt.json', captures => {
  let seen = 0;
  for (const { keys, messages, expect_auth_data, file } of captures) {
    const known = directory[keys.encr];
    if (known === undefined) continue;
    const suite = { ...base, encr: known[0], keyBits: known[1], integ: known[2] };
    const direction = (e: string, a: string): DirectionKeys => {
      const bytes = hex(e);
      return {
        encryption: createSecretKey(bytes.subarray(0, 32)),
        salt: bytes.subarray(32),
        skP: createSecretKey(hex('00')),
        ...(a === '' ? {} : { integrity: createSecretKey(hex(a)) }),
      };
    };
    const initiator = new Opener(suite, direction(keys.sk_ei, keys.sk_ai));
    const responder = new Opener(suite, direction(keys.sk_er, keys.sk_ar));
    let authSeen = false;
    for (const { hex: text } of messages) {
      const message = parseMessage(hex(text));
      if (message.encrypted === undefined) continue;
      const opened = openMessage(message, message.header.fromInitiator ? initiator : responder);
      assert.ok(opened !== undefined, file);
      const auth = findPayload(parsePayloads(opened.firstPayload, opened.plaintext), 'AUTH');
      if (auth !== undefined && toHex(auth.data) === expect_auth_data) authSeen = true;
      seen++;
    }
    assert.ok(authSeen, file);
  }
  assert.ok(seen >= 6);
});

test('ChaCha20-Poly1305 in IKEv2: RFC 7634 appendix B', () => {
  const message = parseMessage(
    hex(`c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e202500000000090000004529000029 1011121314151617
      610394701f8d017f7c129248896b71bfe25236efd7cdc67066906315b2`),
  );
  const opener = new Opener(suites[2]!, {
    encryption: createSecretKey(hex('808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f')),
    salt: hex('a0a1a2a3'),
    skP: createSecretKey(hex('00')),
  });
  const opened = openMessage(message, opener);
  assert.ok(opened !== undefined);
  const setWindowSize = { kind: 'N', type: 16385, protocol: 0, spi: hex(''), data: hex('0000000a') };
  assert.deepEqual(parsePayloads(opened.firstPayload, opened.plaintext), [setWindowSize]);
});

type Aead = {
  testGroups: {
    ivSize: number;
    keySize: number;
    tagSize: number;
    tests: {
      tcId: number;
      comment: string;
      key: string;
      iv: string;
      aad: string;
      msg: string;
      ct: string;
      tag: string;
      result: string;
    }[];
  }[];
};

for (const [file, encr] of [
  ['aes_gcm', Encr.AES_GCM_16],
  ['chacha20_poly1305', Encr.CHACHA20_POLY1305],
] as const) {
  vectorTest<Aead>(`Wycheproof ${file}`, `wycheproof/${file}_test.json`, ({ testGroups }) => {
    let opened = 0;
    let refused = 0;
    for (const { ivSize, keySize, tagSize, tests } of testGroups) {
      if (ivSize !== 96 || tagSize !== 128 || keySize === 192) continue;
      for (const { tcId, comment, key, iv, aad, msg, ct, tag, result } of tests) {
        const opener = new Opener(
          { ...base, encr, keyBits: keySize, integ: 0 },
          {
            encryption: createSecretKey(hex(key)),
            salt: hex(iv).subarray(0, 4),
            skP: createSecretKey(hex('00')),
          },
        );
        const body = concat([hex(iv).subarray(4), hex(ct), hex(tag)]);
        const sealed = { kind: 'SK' as const, firstPayload: 0, associatedData: hex(aad), body };
        const text = hex(msg);
        const end = text.length - 1 - (text[text.length - 1] ?? 0);
        if (result === 'invalid' || text.length === 0) {
          assert.equal(opener.open(sealed), undefined, `${tcId} ${comment}`);
          refused++;
        } else if (end < 0) {
          assert.throws(() => opener.open(sealed), WireError, `${tcId} ${comment}`);
        } else {
          assert.equal(
            toHex(opener.open(sealed) ?? hex('ff')),
            toHex(text.subarray(0, end)),
            `${tcId} ${comment}`,
          );
          opened++;
        }
      }
    }
    assert.ok(opened > 10 && refused > 10);
  });
}
