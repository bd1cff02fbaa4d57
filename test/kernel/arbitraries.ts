/** SAs, selectors and policies for the property tests. */
import fc from 'fast-check';
import type { Policy, Sa, SaCipher, Selector } from '../../kernel/xfrm-types.ts';

export const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const port = fc.integer({ min: 1, max: 65_535 });
const family = fc.constantFrom<4 | 6>(4, 6);
const mode = fc.constantFrom<'transport' | 'tunnel'>('transport', 'tunnel');
const u32 = fc.integer({ min: 1, max: 0xffffffff });

function selectorOf(family: 4 | 6): fc.Arbitrary<Selector> {
  const octets = family === 4 ? 4 : 16;
  const prefix = fc.integer({ min: 0, max: octets * 8 });
  return fc.record(
    {
      family: fc.constant(family),
      source: bytes(octets),
      sourcePrefix: prefix,
      destination: bytes(octets),
      destinationPrefix: prefix,
      protocol: fc.integer({ min: 1, max: 255 }),
      sourcePort: port,
      destinationPort: port,
    },
    {
      noNullPrototype: true,
      requiredKeys: ['family', 'source', 'sourcePrefix', 'destination', 'destinationPrefix'],
    },
  );
}

const cipher: fc.Arbitrary<SaCipher> = fc.oneof(
  fc.record(
    {
      kind: fc.constant('aead' as const),
      name: fc.constant('aes-gcm-16' as const),
      key: fc.oneof(bytes(20), bytes(36)),
      icvBits: fc.constant(128 as const),
    },
    { noNullPrototype: true },
  ),
  fc.record(
    {
      kind: fc.constant('cbc-hmac' as const),
      cipher: fc.constant('aes-cbc' as const),
      cipherKey: fc.oneof(bytes(16), bytes(32)),
      integrity: fc.constantFrom('hmac-sha2-256' as const, 'hmac-sha2-512' as const),
      integrityKey: bytes(32),
      icvBits: fc.constantFrom(128 as const, 256 as const),
    },
    { noNullPrototype: true },
  ),
);

export const sa: fc.Arbitrary<Sa> = family.chain(f =>
  fc.record(
    {
      spi: fc.integer({ min: 256, max: 0xffffffff }),
      source: bytes(f === 4 ? 4 : 16),
      destination: bytes(f === 4 ? 4 : 16),
      reqid: u32,
      mode,
      cipher,
      esn: fc.boolean(),
      replayWindow: fc.integer({ min: 1, max: 4096 }),
      encapsulation: fc.record({ sourcePort: port, destinationPort: port }, { noNullPrototype: true }),
      selector: selectorOf(f),
    },
    {
      noNullPrototype: true,
      requiredKeys: ['spi', 'source', 'destination', 'reqid', 'mode', 'cipher', 'esn', 'replayWindow'],
    },
  ),
);

export const policy: fc.Arbitrary<Policy> = family.chain(f =>
  fc.record(
    {
      selector: selectorOf(f),
      direction: fc.constantFrom<'in' | 'out' | 'fwd'>('in', 'out', 'fwd'),
      action: fc.constantFrom<'allow' | 'block'>('allow', 'block'),
      priority: u32,
      index: u32,
      template: fc.record(
        {
          source: bytes(f === 4 ? 4 : 16),
          destination: bytes(f === 4 ? 4 : 16),
          reqid: u32,
          mode,
          spi: u32,
          optional: fc.boolean(),
        },
        { noNullPrototype: true },
      ),
    },
    { noNullPrototype: true, requiredKeys: ['selector', 'direction', 'action', 'priority', 'index'] },
  ),
);
