import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { WireError } from '../../../ike/wire/error.ts';
import { composeMessage, parseMessage, parsePayloads } from '../../../ike/wire/payloads.ts';
import { type Capture, hex, vectorTest } from '../vectors.ts';
import { payloads } from './arbitraries.ts';

/** Parsing hostile bytes gives a message or a WireError, nothing else. */
function survives(parse: () => unknown): void {
  try {
    parse();
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
  }
}

const init = {
  spiInitiator: 1n,
  spiResponder: 0n,
  exchangeType: 34,
  fromInitiator: true,
  response: false,
  messageId: 0,
};

/** A change of one place: a byte, a cut, an insertion, a length field stretched. */
const mutation = fc.record({
  at: fc.nat(),
  value: fc.integer({ min: 0, max: 255 }),
  kind: fc.constantFrom('set', 'flip', 'cut', 'insert', 'repeat'),
});

type Mutation = { at: number; value: number; kind: string };

function mutate(bytes: Uint8Array, mutations: Mutation[]): Uint8Array {
  let result = Uint8Array.from(bytes);
  for (const { at, value, kind } of mutations) {
    const place = result.length === 0 ? 0 : at % result.length;
    if (kind === 'set') result[place] = value;
    if (kind === 'flip') result[place]! ^= 1 << (value & 7);
    if (kind === 'cut') result = result.slice(0, place);
    if (kind === 'insert')
      result = Uint8Array.from([...result.subarray(0, place), value, ...result.subarray(place)]);
    if (kind === 'repeat') result = Uint8Array.from([...result, ...result.subarray(place, place + value)]);
  }
  return result;
}

/** With the right total length again, so that the change reaches the payloads. */
function withLength(bytes: Uint8Array): Uint8Array {
  if (bytes.length >= 28) new DataView(bytes.buffer, bytes.byteOffset).setUint32(24, bytes.length);
  return bytes;
}

test('mutated messages: a message or a WireError', () => {
  fc.assert(
    fc.property(payloads, fc.array(mutation, { minLength: 1, maxLength: 6 }), (all, mutations) => {
      const bytes = mutate(composeMessage(init, all), mutations);
      survives(() => parseMessage(bytes));
      survives(() => parseMessage(withLength(bytes)));
    }),
    { numRuns: 2000 },
  );
});

test('what survives a mutation composes to something that parses to the same', () => {
  fc.assert(
    fc.property(payloads, fc.array(mutation, { minLength: 1, maxLength: 3 }), (all, mutations) => {
      const bytes = withLength(mutate(composeMessage(init, all), mutations));
      survives(() => {
        const message = parseMessage(bytes);
        if (message.encrypted !== undefined) return;
        const again = parseMessage(composeMessage(message.header, message.payloads));
        assert.deepEqual(again.payloads.map(kindOf), message.payloads.map(kindOf));
      });
    }),
    { numRuns: 500 },
  );
});

const kindOf = (payload: { kind: string }) => payload.kind;

test('arbitrary bytes under every payload type: payloads or a WireError', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 255 }), fc.uint8Array({ maxLength: 400 }), (type, bytes) => {
      survives(() => parsePayloads(type, bytes));
    }),
    { numRuns: 2000 },
  );
});

test('a message as large as UDP allows costs no more than its limits', () => {
  // 65507 bytes of the smallest things that there are, in each place that counts something.
  const chain = (type: number, piece: string) => {
    const bytes = hex(piece);
    const all = new Uint8Array(Math.floor(65507 / bytes.length) * bytes.length);
    for (let at = 0; at < all.length; at += bytes.length) all.set(bytes, at);
    assert.throws(() => parsePayloads(type, all), WireError);
  };
  chain(43, '2b000004');
  chain(41, '2900000800000001');
  chain(33, '00000018 00000014 01010001 00000008 02000005');
  const body = (text: string, head: string) => {
    const piece = hex(text);
    const start = hex(head);
    const all = new Uint8Array(65000);
    all.set(start);
    for (let at = start.length; at + piece.length <= all.length; at += piece.length) all.set(piece, at);
    new DataView(all.buffer).setUint16(2, all.length);
    return all;
  };
  assert.throws(() => parsePayloads(33, body('0200000801010000', '00000000')), WireError);
  assert.throws(() => parsePayloads(47, body('00010000', '00000000 01000000')), WireError);
  assert.throws(() => parsePayloads(44, body('09000004', '00000000 ff000000')), WireError);
});

vectorTest<Capture[]>(
  'mutated messages of other implementations',
  'wireshark/ikev2-decrypt.json',
  captures => {
    const messages = captures.flatMap(({ messages }) => messages.map(({ hex: text }) => hex(text)));
    fc.assert(
      fc.property(
        fc.constantFrom(...messages),
        fc.array(mutation, { minLength: 1, maxLength: 6 }),
        (message, mutations) => {
          const bytes = mutate(message, mutations);
          survives(() => parseMessage(bytes));
          survives(() => parseMessage(withLength(bytes)));
        },
      ),
      { numRuns: 3000 },
    );
  },
);
