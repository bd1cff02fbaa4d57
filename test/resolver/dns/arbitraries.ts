/** Random names, records and messages for the property tests. */
import fc from 'fast-check';
import type { Message, ResourceRecord } from '../../../resolver/dns/message.ts';
import { Name } from '../../../resolver/dns/name.ts';

/** Any bytes in labels, skewed to few short labels so that names meet and compress. */
export const nameArbitrary: fc.Arbitrary<Name> = fc
  .array(
    fc.oneof(
      fc.constantFrom('a', 'A', 'b', 'www', 'Example', '*').map(text => new TextEncoder().encode(text)),
      fc.uint8Array({ minLength: 1, maxLength: 63 }),
    ),
    { maxLength: 6 },
  )
  .map(labels => {
    let name = Name.root;
    for (const label of labels) name = name.prepend(label) ?? name;
    return name;
  });

const recordArbitrary: fc.Arbitrary<ResourceRecord> = fc.record({
  name: nameArbitrary,
  type: fc.constantFrom(10, 99, 65280), // no names and no form inside: every RDATA fits
  class: fc.constantFrom(1, 3),
  ttlSeconds: fc.integer({ min: 0, max: 0x7fffffff }),
  rdata: fc.uint8Array({ maxLength: 300 }),
});

const bit = fc.boolean();

export const messageArbitrary: fc.Arbitrary<Message> = fc
  .record({
    id: fc.integer({ min: 0, max: 0xffff }),
    response: bit,
    opcode: fc.integer({ min: 0, max: 15 }),
    authoritative: bit,
    truncated: bit,
    recursionDesired: bit,
    recursionAvailable: bit,
    authenticData: bit,
    checkingDisabled: bit,
    rcode: fc.integer({ min: 0, max: 15 }),
    questions: fc.array(fc.record({ name: nameArbitrary, type: fc.nat(0xffff), class: fc.constant(1) }), {
      maxLength: 2,
    }),
    answer: fc.array(recordArbitrary, { maxLength: 5 }),
    authority: fc.array(recordArbitrary, { maxLength: 3 }),
    additional: fc.array(recordArbitrary, { maxLength: 3 }),
    edns: fc.option(
      fc.record({
        udpSize: fc.integer({ min: 512, max: 0xffff }),
        version: fc.integer({ min: 0, max: 255 }),
        dnssecOk: bit,
        options: fc.array(fc.record({ code: fc.nat(0xffff), data: fc.uint8Array({ maxLength: 40 }) }), {
          maxLength: 3,
        }),
      }),
      { nil: undefined },
    ),
  })
  .map(({ edns, ...rest }) => (edns === undefined ? rest : { ...rest, edns }));
