import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { concat } from '../../../ike/wire/bytes.ts';
import { WireError } from '../../../ike/wire/error.ts';
import {
  addNonEspMarker,
  type Header,
  headerOfLaterVersion,
  stripNonEspMarker,
} from '../../../ike/wire/header.ts';
import { identityOf, identityPayload } from '../../../ike/wire/identity.ts';
import {
  hashAlgorithmsOf,
  invalidKeGroup,
  invalidKePayload,
  natDetectionHash,
  notify,
  signatureHashAlgorithms,
} from '../../../ike/wire/notify.ts';
import { NotifyType, PayloadType } from '../../../ike/wire/numbers.ts';
import {
  composeMessage,
  composePayloads,
  findNotify,
  findPayload,
  hashAlgorithms,
  parseMessage,
  parsePayloads,
} from '../../../ike/wire/payloads.ts';
import { coversHost, hostSelector } from '../../../ike/wire/traffic-selectors.ts';
import { hex, toHex } from '../vectors.ts';
import { payloadArbitraries, payloads } from './arbitraries.ts';

const init: Header = {
  spiInitiator: 0x0102030405060708n,
  spiResponder: 0n,
  exchangeType: 34,
  fromInitiator: true,
  response: false,
  messageId: 0,
};

for (const [kind, arbitrary] of Object.entries(payloadArbitraries)) {
  test(`${kind} payload: what is composed is parsed again`, () => {
    fc.assert(
      fc.property(arbitrary, payload => {
        const { first, bytes } = composePayloads([payload]);
        assert.deepEqual(parsePayloads(first, bytes), [payload]);
      }),
    );
  });
}

test('a chain of payloads is parsed again, and composes the same bytes', () => {
  fc.assert(
    fc.property(payloads, all => {
      const bytes = composeMessage(init, all);
      const message = parseMessage(bytes);
      assert.deepEqual(message.payloads, all);
      assert.deepEqual(composeMessage(message.header, message.payloads), bytes);
    }),
  );
});

test('an IKE_SA_INIT request, byte for byte', () => {
  // Typed by hand from the pictures of RFC 7296 §3.1-3.10 (AES-GCM-256, PRF HMAC-SHA2-256, Curve25519).
  const message = hex(`
    0102030405060708 0000000000000000 21 20 22 08 00000000 0000008c
    22 00 0028  00 00 0024 01 01 00 03
       03 00 000c 01 00 0014 800e 0100  03 00 0008 02 00 0005  00 00 0008 04 00 001f
    28 00 0028  001f 0000 ${'09'.repeat(32)}
    29 00 0014  ${'0a'.repeat(16)}
    00 00 000c  00 00 402f 0002 0005`);
  const sa = {
    kind: 'SA' as const,
    proposals: [
      {
        number: 1,
        protocol: 1,
        spi: new Uint8Array(0),
        transforms: [
          { type: 1, id: 20, keyBits: 256 },
          { type: 2, id: 5 },
          { type: 4, id: 31 },
        ],
      },
    ],
  };
  const composed = composeMessage(init, [
    sa,
    { kind: 'KE', group: 31, data: new Uint8Array(32).fill(9) },
    { kind: 'NONCE', data: new Uint8Array(16).fill(10) },
    signatureHashAlgorithms([2, 5]),
  ]);
  assert.equal(toHex(composed), toHex(message));
  const parsed = parseMessage(message);
  assert.deepEqual(findPayload(parsed.payloads, 'SA'), sa);
  assert.deepEqual(hashAlgorithms(parsed.payloads), [2, 5]);
  assert.equal(findNotify(parsed.payloads, NotifyType.COOKIE), undefined);
});

test('parsing copies nothing', () => {
  const bytes = composeMessage(init, [{ kind: 'NONCE', data: new Uint8Array(16) }]);
  const nonce = findPayload(parseMessage(bytes).payloads, 'NONCE');
  assert.equal(nonce?.data.buffer, bytes.buffer);
});

/** The notify that answers, 'drop', or 'fine'. */
function verdict(parse: () => unknown): number | 'drop' | 'fine' {
  try {
    parse();
    return 'fine';
  } catch (error) {
    assert.ok(error instanceof WireError, String(error));
    return error.notify ?? 'drop';
  }
}

const chainVerdict = (type: number, text: string) => verdict(() => parsePayloads(type, hex(text)));

test('refused: chains whose lengths do not fit', () => {
  assert.equal(chainVerdict(43, ''), 7);
  assert.equal(chainVerdict(43, '00 00 0003'), 7);
  assert.equal(chainVerdict(43, '00 00 0005'), 7);
  assert.equal(chainVerdict(43, '00 00 0004 00'), 7);
  assert.equal(chainVerdict(43, '2b 00 0004'), 7);
  assert.equal(chainVerdict(0, '00'), 7);
  assert.equal(chainVerdict(43, `${'2b 00 0004'.repeat(127)} 00 00 0004`), 'fine');
  assert.equal(chainVerdict(43, `${'2b 00 0004'.repeat(128)} 00 00 0004`), 7);
  assert.equal(chainVerdict(41, `${'29 00 0008 00000001'.repeat(63)} 00 00 0008 00000001`), 'fine');
  assert.equal(chainVerdict(41, `${'29 00 0008 00000001'.repeat(64)} 00 00 0008 00000001`), 7);
});

test('refused: a second payload of a kind that comes once, and SK or SKF inside a chain', () => {
  const nonce = `00 0014 ${'01'.repeat(16)}`;
  assert.equal(chainVerdict(40, `00 ${nonce}`), 'fine');
  assert.equal(chainVerdict(40, `28 ${nonce} 00 ${nonce}`), 7);
  assert.equal(chainVerdict(46, '00 00 0004'), 7);
  assert.equal(chainVerdict(53, '00 00 0008 00010001'), 7);
});

test('unknown payloads are kept; a critical one is named to the peer', () => {
  assert.deepEqual(parsePayloads(200, hex('00 00 0006 abcd')), [
    { kind: 'unknown', type: 200, body: hex('abcd') },
  ]);
  try {
    parsePayloads(200, hex('00 80 0006 abcd'));
    assert.fail('must throw');
  } catch (error) {
    assert.ok(error instanceof WireError);
    assert.equal(error.notify, NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD);
    assert.deepEqual(error.data, Uint8Array.of(200));
  }
  // The critical bit on a type that we know means nothing (RFC 7296 §3.2).
  assert.equal(chainVerdict(43, '00 80 0006 abcd'), 'fine');
});

test('refused: SA payloads', () => {
  const sa = (body: string) => {
    const bytes = hex(body);
    return chainVerdict(33, `00 00 ${(bytes.length + 4).toString(16).padStart(4, '0')} ${body}`);
  };
  const transform = '00 00 0008 02 00 0005';
  assert.equal(sa(`00 00 0010 01 01 00 01 ${transform}`), 'fine');
  assert.equal(sa(''), 7, 'no proposal');
  assert.equal(sa(`00 00 0007 01 01 00 01 ${transform}`), 7, 'proposal length below its head');
  assert.equal(sa(`00 00 0011 01 01 00 01 ${transform}`), 7, 'proposal length beyond the payload');
  assert.equal(sa(`02 00 0010 01 01 00 01 ${transform}`), 7, 'another proposal announced');
  assert.equal(sa(`01 00 0010 01 01 00 01 ${transform}`), 7, 'last substructure 1');
  assert.equal(sa(`00 00 0010 01 01 00 02 ${transform}`), 7, 'two transforms announced, one there');
  assert.equal(sa('00 00 0010 01 01 00 01 03 00 0008 02 00 0005'), 7, 'another transform announced');
  assert.equal(sa('00 00 0010 01 01 00 01 00 00 0007 02 00 0005'), 7, 'transform length');
  assert.equal(sa('00 00 0010 01 01 00 01 00 00 0009 02 00 0005'), 7, 'transform beyond its proposal');
  assert.equal(sa('00 00 000f 01 01 00 01 00 00 0007 02 00 00'), 7, 'transform cut short');
  assert.equal(sa(`00 00 0010 01 01 00 00 ${transform}`), 7, 'no transforms announced');
  assert.equal(sa(`00 00 0010 01 01 09 01 ${transform}`), 7, 'SPI beyond the proposal');
  assert.equal(sa(`00 00 0014 01 03 04 01 00000000 ${transform}`), 7, 'SPI zero');
  assert.equal(sa(`00 00 0014 01 03 04 01 00000001 ${transform}`), 'fine');
  assert.equal(sa(`00 00 0014 01 01 04 01 00000001 ${transform}`), 7, 'SPI size for IKE');
  assert.equal(sa(`00 00 0010 01 03 00 01 ${transform}`), 7, 'ESP without SPI');
  const attribute = (text: string) => {
    const length = (8 + hex(text).length).toString(16).padStart(4, '0');
    const whole = (16 + hex(text).length).toString(16).padStart(4, '0');
    return sa(`00 00 ${whole} 01 01 00 01 00 00 ${length} 01 00 0014 ${text}`);
  };
  assert.equal(attribute('800e 0100'), 'fine');
  assert.equal(attribute('800e 0100 800e 0080'), 7, 'two key lengths');
  assert.equal(attribute('000e 0002 0100'), 7, 'key length of variable length');
  assert.equal(attribute('0001 0002 01'), 7, 'attribute cut short');
  assert.equal(attribute('80'), 7);
  assert.equal(attribute('8001 0001'.repeat(9)), 7, 'too many attributes');
  const many = (count: number) =>
    sa(
      `00 00 ${(8 + 8 * count).toString(16).padStart(4, '0')} 01 01 00 ${count.toString(16).padStart(2, '0')} ` +
        `${'03 00 0008 02 00 0005 '.repeat(count - 1)} ${transform}`,
    );
  assert.equal(many(255), 'fine');
  const proposals = (count: number) =>
    sa(`${`02 00 0010 01 01 00 01 ${transform}`.repeat(count - 1)} 00 00 0010 01 01 00 01 ${transform}`);
  assert.equal(proposals(64), 'fine');
  assert.equal(proposals(65), 7);
});

test('a transform with an attribute that we do not know shows it', () => {
  const [payload] = parsePayloads(
    33,
    hex('00 00 0018 00 00 0014 01 01 00 01 00 00 000c 01 00 0014 8001 0001'),
  );
  assert.ok(payload?.kind === 'SA');
  assert.equal(payload.proposals[0]?.transforms[0]?.attributes?.length, 1);
});

test('refused: KE, nonce, AUTH, identities', () => {
  assert.equal(chainVerdict(34, '00 00 0008 001f 0000'), 7, 'KE without data');
  assert.equal(chainVerdict(34, '00 00 0009 0000 0000 01'), 7, 'KE with group NONE');
  assert.equal(chainVerdict(40, `00 00 0013 ${'01'.repeat(15)}`), 7, 'nonce of 15 bytes');
  assert.equal(chainVerdict(40, `00 00 0104 ${'01'.repeat(256)}`), 'fine');
  assert.equal(chainVerdict(40, `00 00 0105 ${'01'.repeat(257)}`), 7, 'nonce of 257 bytes');
  assert.equal(chainVerdict(39, '00 00 0008 0e000000'), 7, 'AUTH without data');
  assert.equal(chainVerdict(35, '00 00 0007 020000'), 7, 'ID cut short');
  assert.equal(chainVerdict(35, '00 00 0008 02000000'), 7, 'empty FQDN');
  assert.equal(chainVerdict(35, '00 00 0008 0d000000'), 'fine', 'ID_NULL');
  assert.equal(chainVerdict(35, '00 00 0009 0d000000 61'), 7, 'ID_NULL with data');
  assert.equal(chainVerdict(35, '00 00 000b 01000000 0a0000'), 7, 'IPv4 address of 3 bytes');
  assert.equal(chainVerdict(35, '00 00 000c 05000000 0a000001'), 7, 'IPv6 address of 4 bytes');
  assert.equal(chainVerdict(35, `00 00 0409 0b000000 ${'61'.repeat(1025)}`), 7, 'key ID of 1025 bytes');
  assert.equal(chainVerdict(37, '00 00 0004'), 7, 'CERT without encoding');
});

test('identities by name', () => {
  const data = new TextEncoder().encode('east.example');
  const payload = identityPayload('IDr', { type: 'fqdn', data });
  assert.equal(toHex(payload.body), `02000000${toHex(data)}`);
  assert.deepEqual(identityOf(payload), { type: 'fqdn', data });
  assert.equal(identityOf({ ...payload, idType: 10 }), undefined);
});

test('refused: notifies', () => {
  assert.equal(chainVerdict(41, '00 00 0007 000000'), 7);
  assert.equal(chainVerdict(41, '00 00 000c 03 04 400b 00000000'), 7, 'SPI zero');
  assert.equal(chainVerdict(41, '00 00 000a 03 04 0026 0001'), 7, 'SPI cut short');
  assert.equal(chainVerdict(41, '00 00 000b 03 03 0026 000001'), 7, 'SPI of 3 bytes');
  assert.equal(chainVerdict(41, '00 00 000c 03 04 4009 00000001'), 'fine', 'REKEY_SA');
  assert.equal(chainVerdict(41, '00 00 000c 00 04 4009 00000001'), 7, 'REKEY_SA, protocol 0');
  assert.equal(chainVerdict(41, '00 00 000c 01 04 4009 00000001'), 7, 'REKEY_SA, protocol 1');
  assert.equal(chainVerdict(41, '00 00 0008 03 00 4009'), 7, 'REKEY_SA without SPI');
  assert.equal(chainVerdict(41, '00 00 0008 00 00 4006'), 7, 'COOKIE, empty');
  assert.equal(chainVerdict(41, `00 00 0049 00 00 4006 ${'01'.repeat(65)}`), 7, 'COOKIE of 65 bytes');
  assert.equal(chainVerdict(41, `00 00 001b 00 00 4004 ${'01'.repeat(19)}`), 7, 'NAT detection of 19 bytes');
  assert.equal(chainVerdict(41, '00 00 0009 00 00 0011 13'), 7, 'INVALID_KE_PAYLOAD of 1 byte');
  assert.equal(chainVerdict(41, '00 00 000b 00 00 402f 000200'), 7, 'half a hash algorithm');
});

test('notify data by name', () => {
  assert.deepEqual(hashAlgorithmsOf(signatureHashAlgorithms([2, 3, 4, 5])), [2, 3, 4, 5]);
  assert.equal(invalidKeGroup(invalidKePayload(0x0113)), 0x0113);
  const about = { protocol: 3, spi: hex('01020304') };
  assert.deepEqual(notify(44, hex(''), about), { kind: 'N', type: 44, ...about, data: hex('') });
  // SHA-1 of 8+8 SPI bytes, 192.0.2.1, port 500, computed with `openssl sha1`.
  assert.equal(
    toHex(natDetectionHash(1n, 2n, Uint8Array.of(192, 0, 2, 1), 500)),
    'e551650fd0b1c24a937f8f251b195b30fec944e4',
  );
});

test('refused: deletes', () => {
  assert.equal(chainVerdict(42, '00 00 0008 01 00 0000'), 'fine');
  assert.equal(chainVerdict(42, '00 00 0010 01 08 0001 0000000000000001'), 7, 'SPI for the IKE SA');
  assert.equal(chainVerdict(42, '00 00 0008 01 00 0001'), 7, 'a count for the IKE SA');
  assert.equal(chainVerdict(42, '00 00 000c 01 00 0000 00000001'), 7, 'bytes for the IKE SA');
  assert.equal(chainVerdict(42, '00 00 000c 03 04 0001 00000001'), 'fine');
  assert.equal(chainVerdict(42, '00 00 000c 03 04 0001 00000000'), 7, 'SPI zero');
  assert.equal(chainVerdict(42, '00 00 000c 03 04 0002 00000001'), 7, 'count');
  assert.equal(chainVerdict(42, '00 00 000c 03 08 0001 00000001'), 7, 'SPI size');
  assert.equal(chainVerdict(42, '00 00 000c 00 04 0001 00000001'), 7, 'protocol');
  assert.equal(chainVerdict(42, `00 00 040c 03 04 0101 ${'00000001'.repeat(257)}`), 7, '257 SPIs');
});

test('refused: traffic selectors and configuration', () => {
  const v4 = '07 00 0010 0000 ffff 0a000001 0a000001';
  assert.equal(chainVerdict(44, `00 00 0018 01000000 ${v4}`), 'fine');
  assert.equal(chainVerdict(44, `00 00 0018 02000000 ${v4}`), 7, 'count too high');
  assert.equal(chainVerdict(44, `00 00 0028 01000000 ${v4}${v4}`), 7, 'count too low');
  assert.equal(chainVerdict(44, '00 00 0008 00000000'), 7, 'none');
  assert.equal(chainVerdict(44, '00 00 000c 01000000 07 00 0003'), 7, 'selector length 3');
  assert.equal(chainVerdict(44, '00 00 000c 01000000 07 00 0004'), 7, 'IPv4 selector of 4 bytes');
  assert.equal(chainVerdict(44, '00 00 0018 01000000 08 00 0010 0000 ffff 0a000001 0a000001'), 7);
  assert.equal(chainVerdict(44, '00 00 0018 01000000 07 00 0010 0000 ffff 0a000002 0a000001'), 7);
  assert.equal(chainVerdict(44, '00 00 0018 01000000 07 06 0010 0051 0050 0a000001 0a000001'), 7);
  assert.equal(chainVerdict(44, '00 00 0018 01000000 07 06 0010 ffff 0000 0a000001 0a000001'), 'fine');
  assert.deepEqual(parsePayloads(44, hex('00 00 000e 01000000 09 00 0006 1234')), [
    { kind: 'TSi', selectors: [] },
  ]);
  assert.equal(chainVerdict(47, '00 00 000b 01000000 000100'), 7);
  assert.equal(chainVerdict(47, '00 00 000c 01000000 0001 0001'), 7);
  assert.equal(chainVerdict(47, `00 00 0108 01000000 ${'0001 0000'.repeat(64)}`), 'fine');
  assert.equal(chainVerdict(47, `00 00 010c 01000000 ${'0001 0000'.repeat(65)}`), 7);
});

test('a host selector covers its host and no other', () => {
  const address = Uint8Array.of(192, 0, 2, 1);
  const selector = hostSelector(address);
  assert.ok(coversHost(selector, address));
  assert.ok(coversHost({ ...selector, start: hex('00000000'), end: hex('ffffffff') }, address));
  assert.ok(!coversHost(selector, Uint8Array.of(192, 0, 2, 2)));
  assert.ok(!coversHost(selector, new Uint8Array(16)));
  assert.ok(!coversHost({ ...selector, protocol: 6 }, address));
  assert.ok(!coversHost({ ...selector, startPort: 1 }, address));
});

test('refused: headers', () => {
  const header = (text: string) => verdict(() => parseMessage(hex(text)));
  const i = '0102030405060708';
  const o = '0000000000000000';
  assert.equal(header(`${i}${o} 00 20 22 08 00000000 0000001c`), 'fine');
  assert.equal(header(`${i}${o} 00 20 22 08 00000000 0000001d`), 'drop', 'length');
  assert.equal(header(`${i}${o} 00 20 22 08 00000000 0000001c 00`), 'drop', 'bytes behind');
  assert.equal(header(`${i}${o} 00 20 22 08 00000000 000000`), 'drop', 'too short');
  assert.equal(header(`${i}${o} 00 10 22 08 00000000 0000001c`), 'drop', 'IKEv1');
  assert.equal(header(`${i}${o} 00 30 22 08 00000000 0000001c`), 5, 'major version 3');
  assert.equal(header(`${i}${o} 00 30 22 20 00000000 0000001c`), 'drop', 'major version 3 in a response');
  assert.equal(header(`${i}${o} 00 21 22 08 00000000 0000001c`), 'fine', 'minor version 1');
  assert.equal(header(`${o}${o} 00 20 22 08 00000000 0000001c`), 'drop', 'SPIi zero');
  assert.equal(header(`${i}${i} 00 20 22 08 00000000 0000001c`), 'drop', 'SPIr in a first request');
  assert.equal(header(`${i}${o} 00 20 23 08 00000001 0000001c`), 'drop', 'SPIr zero in IKE_AUTH');
  assert.equal(header(`${i}${o} 00 20 22 08 00000001 0000001c`), 'drop', 'IKE_SA_INIT with message ID 1');
  assert.equal(header(`${i}${o} 00 20 22 28 00000000 0000001c`), 'drop', 'response from the initiator');
  assert.equal(header(`${i}${o} 00 20 22 00 00000000 0000001c`), 'drop', 'request from the responder');
  assert.equal(header(`${i}${o} 00 20 22 20 00000000 0000001c`), 'fine', 'COOKIE answers may lack SPIr');
});

test('ports 500 and 4500: the non-ESP marker, and what has none', () => {
  assert.deepEqual(stripNonEspMarker(hex('00000000 0102')), hex('0102'));
  assert.deepEqual(stripNonEspMarker(addNonEspMarker(hex('0102'))), hex('0102'));
  assert.deepEqual(stripNonEspMarker(hex('00000000')), hex(''));
  for (const other of ['', 'ff', '000000', '00000001 00000001', '01000000 00000000']) {
    assert.equal(stripNonEspMarker(hex(other)), undefined, other);
  }
});

test('a request of a later version gives enough to answer it', () => {
  const later = (text: string) => headerOfLaterVersion(hex(text));
  const spis = '0102030405060708 0000000000000000';
  assert.deepEqual(later(`${spis} 00 30 22 08 00000000 0000001c`), init);
  assert.equal(later(`${spis} 00 30 22 20 00000000 0000001c`), undefined, 'a response');
  assert.equal(later(`${spis} 00 20 22 08 00000000 0000001c`), undefined, 'our version');
  assert.equal(later(`${spis} 00 30 22 08 00000000 000000`), undefined, 'too short');
});

test('SK and SKF: found, and refused where they may not be', () => {
  const head = (exchange: string, next: string, length: string) =>
    `0102030405060708 0807060504030201 ${next} 20 ${exchange} 08 00000001 ${length}`;
  const sk = parseMessage(hex(`${head('23', '2e', '00000024')} 23 00 0008 01020304`));
  assert.deepEqual(sk.payloads, []);
  assert.equal(sk.encrypted?.kind, 'SK');
  assert.equal(sk.encrypted?.firstPayload, PayloadType.IDi);
  assert.equal(toHex(sk.encrypted?.body ?? hex('')), '01020304');
  assert.equal(sk.encrypted?.associatedData.length, 32);
  const skf = parseMessage(hex(`${head('23', '35', '00000028')} 23 00 000c 00010002 01020304`));
  assert.deepEqual(skf.encrypted?.fragment, { number: 1, total: 2 });
  assert.equal(skf.encrypted?.associatedData.length, 36);
  const drop = (text: string) => verdict(() => parseMessage(hex(text)));
  assert.equal(drop(`${head('23', '35', '00000028')} 00 00 000c 00020002 01020304`), 'fine', 'the last one');
  assert.equal(drop(`${head('23', '35', '00000028')} 23 00 000c 00000002 01020304`), 'drop', 'fragment 0');
  assert.equal(drop(`${head('23', '35', '00000028')} 23 00 000c 00030002 01020304`), 'drop', '3 of 2');
  assert.equal(drop(`${head('23', '35', '00000022')} 23 00 0006 0001`), 'drop', 'SKF cut short');
  assert.equal(drop(`${head('23', '2e', '00000024')} 23 00 0009 01020304`), 'drop', 'length');
  assert.equal(drop(`${head('23', '2e', '00000028')} 23 00 0008 01020304 00000004`), 'drop', 'not last');
  assert.equal(drop(`${head('23', '2e', '0000001e')} 2300`), 'drop', 'too short');
  assert.equal(drop(`${head('23', '2b', '00000020')} 00 00 0004`), 'drop', 'Vendor ID in clear in IKE_AUTH');
  assert.equal(drop(`${head('25', '29', '00000024')} 00 00 0008 0000 0004`), 'fine', 'INVALID_IKE_SPI');
  assert.equal(drop(`${head('23', '2b', '00000024')} 2e 00 0004 00 00 0004`), 7, 'payload before SK');
});

test('long payloads are refused to compose', () => {
  assert.throws(() => composePayloads([{ kind: 'V', data: new Uint8Array(65532) }]), RangeError);
  assert.equal(concat([]).length, 0);
});
