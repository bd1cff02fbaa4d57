import fc from 'fast-check';
import { idPayload } from '../../../ike/wire/identity.ts';
import type { NotifyPayload } from '../../../ike/wire/notify.ts';
import type { Payload } from '../../../ike/wire/payloads.ts';
import type { Proposal, Transform } from '../../../ike/wire/sa.ts';
import type { TrafficSelector } from '../../../ike/wire/traffic-selectors.ts';

/** Every payload that compose may be given and parse must give back. */

/** Plain objects, as the parser gives them. */
const record: typeof fc.record = (model: object, constraints: object = {}) =>
  fc.record(model, { ...constraints, noNullPrototype: true }) as never;

const byte = fc.integer({ min: 0, max: 255 });
const word = fc.integer({ min: 0, max: 65535 });
const bytes = (minLength: number, maxLength = minLength) => fc.uint8Array({ minLength, maxLength });
const spi = (length: number) => bytes(length).map(value => (value[0] === 0 ? value.fill(1) : value));

const attribute = fc.oneof(
  record({ type: fc.integer({ min: 1, max: 13 }), value: bytes(0, 20) }),
  record({ type: fc.integer({ min: 0x8000, max: 0x800d }), value: bytes(2) }),
);

const transform: fc.Arbitrary<Transform> = record(
  { type: byte, id: word, keyBits: word, attributes: fc.array(attribute, { minLength: 1, maxLength: 4 }) },
  { requiredKeys: ['type', 'id'] },
);

const proposal: fc.Arbitrary<Proposal> = fc
  .constantFrom([1, 0], [1, 8], [3, 4], [2, 4])
  .chain(([protocol, size]) =>
    record({
      number: byte,
      protocol: fc.constant(protocol!),
      spi: spi(size!),
      transforms: fc.array(transform, { maxLength: 8 }),
    }),
  );

const selector: fc.Arbitrary<TrafficSelector> = fc.constantFrom(7 as const, 8 as const).chain(type =>
  record({
    type: fc.constant(type),
    protocol: byte,
    ports: fc.tuple(word, word),
    ends: fc.tuple(bytes(type === 7 ? 4 : 16), bytes(type === 7 ? 4 : 16)),
  }).map(({ ports, ends, ...rest }) => {
    const [startPort, endPort] = ports.toSorted((a, b) => a - b) as [number, number];
    const [start, end] = ends.toSorted(Buffer.compare) as [Uint8Array, Uint8Array];
    return { ...rest, startPort, endPort, start, end };
  }),
);

const notify: fc.Arbitrary<NotifyPayload> = fc.oneof(
  record({
    kind: fc.constant('N' as const),
    type: fc.constantFrom(7, 14, 24, 38, 16384, 16391, 16396, 16418, 16430, 40000),
    protocol: byte,
    spi: fc.constantFrom(0, 4, 8).chain(spi),
    data: bytes(0, 80),
  }),
  record({
    kind: fc.constant('N' as const),
    type: fc.constant(16390),
    protocol: fc.constant(0),
    spi: bytes(0),
    data: bytes(1, 64),
  }),
);

/** Arbitraries by the kind of payload. */
export const payloadArbitraries: Record<Payload['kind'], fc.Arbitrary<Payload>> = {
  SA: record({ kind: fc.constant('SA'), proposals: fc.array(proposal, { minLength: 1, maxLength: 6 }) }),
  KE: record({ kind: fc.constant('KE'), group: fc.integer({ min: 1, max: 65535 }), data: bytes(1, 300) }),
  NONCE: record({ kind: fc.constant('NONCE'), data: bytes(16, 256) }),
  AUTH: record({ kind: fc.constant('AUTH'), method: byte, data: bytes(1, 300) }),
  IDi: bytes(1, 255).map(data => idPayload('IDi', 2, data)),
  IDr: fc.constantFrom(
    idPayload('IDr', 13, new Uint8Array(0)),
    idPayload('IDr', 1, Uint8Array.of(10, 0, 0, 1)),
  ),
  CERT: record({ kind: fc.constant('CERT'), encoding: byte, data: bytes(0, 300) }),
  CERTREQ: record({ kind: fc.constant('CERTREQ'), encoding: byte, data: bytes(0, 60) }),
  N: notify,
  D: fc.oneof(
    fc.constant<Payload>({ kind: 'D', protocol: 1, spis: [] }),
    record({
      kind: fc.constant('D'),
      protocol: fc.constantFrom(2, 3),
      spis: fc.array(fc.integer({ min: 1, max: 0xffffffff }), { maxLength: 20 }),
    }),
  ),
  V: record({ kind: fc.constant('V'), data: bytes(0, 64) }),
  TSi: record({ kind: fc.constant('TSi'), selectors: fc.array(selector, { minLength: 1, maxLength: 8 }) }),
  TSr: record({ kind: fc.constant('TSr'), selectors: fc.array(selector, { minLength: 1, maxLength: 8 }) }),
  CP: record({
    kind: fc.constant('CP'),
    configType: byte,
    attributes: fc.array(record({ type: fc.integer({ min: 0, max: 0x7fff }), value: bytes(0, 32) }), {
      maxLength: 10,
    }),
  }),
  EAP: record({ kind: fc.constant('EAP'), data: bytes(0, 100) }),
  unknown: record({
    kind: fc.constant('unknown'),
    type: fc.integer({ min: 60, max: 255 }),
    body: bytes(0, 100),
  }),
};

const payload: fc.Arbitrary<Payload> = fc.oneof(...Object.values(payloadArbitraries));

/** Messages as they may be: kinds that come once come once. */
export const payloads: fc.Arbitrary<Payload[]> = fc
  .array(payload, { maxLength: 16 })
  .map(all =>
    all.filter(
      (one, index) =>
        ['N', 'D', 'V', 'CERT', 'CERTREQ', 'unknown'].includes(one.kind) ||
        all.findIndex(other => other.kind === one.kind) === index,
    ),
  );
