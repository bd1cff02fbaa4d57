import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { composeEde } from '../../../resolver/dns/edns.ts';
import { parseMessage } from '../../../resolver/dns/message.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { groupRrsets, type Rrset } from '../../../resolver/dns/rrset.ts';
import { CLASS, RCODE, TYPE } from '../../../resolver/dns/types.ts';
import { composeError, composeResponse } from '../../../resolver/stub/answer.ts';
import { parseQuery, type StubQuery } from '../../../resolver/stub/query.ts';
import type { StubAnswer } from '../../../resolver/stub/types.ts';
import { dnsPacket } from '../dns-packet.ts';
import { extendedErrors } from '../dns/extended-errors.ts';

type Asked = {
  name?: string;
  type?: string;
  flags?: number;
  udpSize?: number;
  dnssecOk?: boolean;
  edns?: boolean;
};

function query({
  name = 'www.example.com',
  type = 'A',
  flags = 0x0100,
  udpSize = 1232,
  dnssecOk = false,
  edns = true,
}: Asked = {}): StubQuery {
  const bytes = dnsPacket.encode({
    type: 'query',
    id: 0xbeef,
    flags,
    questions: [{ type, name, class: 'IN' }],
    additionals: edns
      ? [{ type: 'OPT', name: '.', udpPayloadSize: udpSize, flags: dnssecOk ? 0x8000 : 0, options: [] }]
      : [],
  });
  const parsed = parseQuery(new Uint8Array(bytes));
  assert.equal(parsed.kind, 'query');
  return (parsed as { query: StubQuery }).query;
}

function rrset(name: string, type: number, rdatas: Uint8Array[], change: Partial<Rrset> = {}): Rrset {
  return {
    name: Name.parseText(name),
    type,
    class: CLASS.IN,
    ttlSeconds: 300,
    rdatas,
    signatures: [],
    ...change,
  };
}

const A = Uint8Array.of(192, 0, 2, 1);
/** The fixed part of an RRSIG over A, and a signer. */
const RRSIG = new Uint8Array([0, 1, 13, 2, ...Array(14).fill(0), 0, 9, 9, 9]);
const signed = rrset('www.example.com', TYPE.A, [A], { signatures: [RRSIG] });

function answer(change: Partial<StubAnswer> = {}): StubAnswer {
  return { rcode: RCODE.NOERROR, authenticated: false, answer: [signed], authority: [], ...change };
}

test("ID, RD, CD and the case of the question are the client's; RA is ours", () => {
  const asked = query({ name: 'wWw.ExAmPlE.cOm', flags: 0x0110 });
  const decoded = dnsPacket.decode(composeResponse(asked, answer(), 'udp'));
  assert.equal(decoded.id, 0xbeef);
  assert.deepEqual(
    [
      decoded.flag_qr,
      decoded.flag_aa,
      decoded.flag_tc,
      decoded.flag_rd,
      decoded.flag_ra,
      decoded.flag_ad,
      decoded.flag_cd,
    ],
    [true, false, false, true, true, false, true],
  );
  assert.equal(decoded.questions![0]!.name, 'wWw.ExAmPlE.cOm');
  assert.equal(decoded.answers![0]!.name, 'wWw.ExAmPlE.cOm');
  assert.equal(decoded.answers![0]!.data, '192.0.2.1');
});

test('AD only when authenticated and the client can make use of it (RFC 6840 5.8)', () => {
  const ad = (asked: Asked, authenticated: boolean) =>
    dnsPacket.decode(composeResponse(query(asked), answer({ authenticated }), 'udp')).flag_ad;
  assert.equal(ad({}, true), false);
  assert.equal(ad({ flags: 0x0120 }, true), true);
  assert.equal(ad({ dnssecOk: true }, true), true);
  assert.equal(ad({ flags: 0x0120, edns: false }, true), true);
  assert.equal(ad({ flags: 0x0120, dnssecOk: true }, false), false);
});

test('signatures and proofs for DO alone, except when asked for by type', () => {
  const nsec = rrset('example.com', TYPE.NSEC, [Uint8Array.of(0, 0, 1, 0x40)], { signatures: [RRSIG] });
  const soa = rrset('example.com', TYPE.SOA, [new Uint8Array([0, 0, ...Array(20).fill(0)])], {
    signatures: [RRSIG],
  });
  const denial = answer({ rcode: RCODE.NXDOMAIN, answer: [], authority: [soa, nsec] });
  const types = (asked: Asked, given: StubAnswer) => {
    const { answer: found, authority } = parseMessage(composeResponse(query(asked), given, 'tcp'));
    return [...found, ...authority].map(({ type }) => type);
  };
  assert.deepEqual(types({}, denial), [TYPE.SOA]);
  assert.deepEqual(types({ dnssecOk: true }, denial), [TYPE.SOA, TYPE.RRSIG, TYPE.NSEC, TYPE.RRSIG]);
  assert.deepEqual(types({}, answer()), [TYPE.A]);
  assert.deepEqual(types({ dnssecOk: true }, answer()), [TYPE.A, TYPE.RRSIG]);
  assert.deepEqual(types({ type: 'NSEC' }, answer({ answer: [nsec] })), [TYPE.NSEC]);
  const signatures = rrset('www.example.com', TYPE.RRSIG, [RRSIG]);
  assert.deepEqual(types({ type: 'RRSIG' }, answer({ answer: [signatures] })), [TYPE.RRSIG]);
});

test('without EDNS there is no OPT and no EDE, with it there are both', () => {
  const refused = answer({
    rcode: RCODE.SERVFAIL,
    answer: [],
    ede: [
      { code: 6, text: 'expired' },
      { code: 0, text: '' },
    ],
  });
  const plain = parseMessage(composeResponse(query({ edns: false }), refused, 'udp'));
  assert.equal(plain.edns, undefined);
  assert.equal(plain.rcode, RCODE.SERVFAIL);
  const extended = parseMessage(composeResponse(query({ dnssecOk: true }), refused, 'udp'));
  assert.deepEqual(extendedErrors(extended.edns), [
    { code: 6, text: 'expired' },
    { code: 0, text: '' },
  ]);
  assert.equal(extended.edns!.dnssecOk, true);
  assert.equal(extended.edns!.udpSize, 1232);
});

test('an extended RCODE needs OPT', () => {
  assert.equal(parseMessage(composeError(query(), RCODE.BADVERS)).rcode, RCODE.BADVERS);
  assert.equal(parseMessage(composeError(query({ edns: false }), RCODE.BADVERS)).rcode, RCODE.SERVFAIL);
});

test('addresses that do not all fit go out with TC as far as they fit, and whole over TCP', () => {
  const many = Array.from({ length: 60 }, (_, i) => Uint8Array.of(192, 0, 2, i));
  const given = answer({ authenticated: true, answer: [rrset('www.example.com', TYPE.A, many)] });
  for (const [asked, count] of [
    [{ edns: false }, 29], // 33 octets, then 16 for each: 497 of 512
    [{ udpSize: 1 }, 29], // counts as 512, 11 of them for OPT
    [{ udpSize: 900 }, 53],
    [{ udpSize: 900, dnssecOk: true }, 0], // part of a signed RRset is of no use
    [{ udpSize: 1100 }, 60],
    [{ udpSize: 65535 }, 60],
  ] as const) {
    const fits = count === 60;
    const message = parseMessage(composeResponse(query({ ...asked, flags: 0x0120 }), given, 'udp'));
    assert.equal(message.truncated, !fits, JSON.stringify(asked));
    assert.equal(message.answer.length, count, JSON.stringify(asked));
    assert.equal(message.authenticData, fits);
    const overTcp = parseMessage(composeResponse(query(asked), given, 'tcp'));
    assert.equal(overTcp.truncated, false);
    assert.equal(overTcp.answer.length, 60);
  }
});

test('what is no address and does not fit goes out empty, the chain to addresses with as many of them as fit', () => {
  const texts = Array.from({ length: 60 }, (_, i) => Uint8Array.of(1, i));
  const asked = query({ type: 'TXT', edns: false });
  const given = answer({ answer: [rrset('www.example.com', TYPE.TXT, texts)] });
  const message = parseMessage(composeResponse(asked, given, 'udp'));
  assert.deepEqual([message.truncated, message.answer.length], [true, 0]);
  assert.equal(parseMessage(composeResponse(asked, given, 'tcp')).answer.length, 60);
  const many = Array.from({ length: 60 }, (_, i) => Uint8Array.of(192, 0, 2, i));
  const alias = rrset('www.example.com', TYPE.CNAME, [Name.parseText('a.example.com').wire]);
  const chained = answer({ answer: [alias, rrset('a.example.com', TYPE.A, many)] });
  const head = parseMessage(composeResponse(query({ edns: false }), chained, 'udp'));
  assert.equal(head.truncated, true);
  assert.deepEqual(
    head.answer.map(({ type }) => type),
    [TYPE.CNAME, ...Array.from({ length: head.answer.length - 1 }, () => TYPE.A)],
  );
  assert.ok(head.answer.length > 20);
});

test('our own limit holds for clients that promise more', () => {
  const many = Array.from({ length: 100 }, (_, i) => Uint8Array.of(192, 0, 2, i));
  const given = answer({ answer: [rrset('www.example.com', TYPE.A, many)] });
  const response = composeResponse(query({ udpSize: 4096 }), given, 'udp');
  assert.equal(parseMessage(response).truncated, true);
  assert.ok(response.length <= 1232);
});

test('an answer larger than a message can be is SERVFAIL', () => {
  const many = Array.from({ length: 300 }, (_, i) => new Uint8Array(250).fill(i));
  const message = parseMessage(
    composeResponse(query(), answer({ answer: [rrset('www.example.com', 99, many)] }), 'tcp'),
  );
  assert.equal(message.rcode, RCODE.SERVFAIL);
  assert.equal(extendedErrors(message.edns).length, 1);
});

test('TTLs go out no higher than the cap', () => {
  const long = rrset('www.example.com', TYPE.A, [A], { ttlSeconds: 0x7fffffff });
  const ttl = (change: Partial<StubAnswer>) =>
    parseMessage(composeResponse(query(), answer({ answer: [long], ...change }), 'udp')).answer[0]!
      .ttlSeconds;
  assert.equal(ttl({}), 0x7fffffff);
  assert.equal(ttl({ ttlCapSeconds: 60 }), 60);
  assert.equal(ttl({ ttlCapSeconds: 0 }), 0);
});

test('owner names are compressed against the question and against each other', () => {
  const target = rrset('edge.cdn.example.net', TYPE.A, [A, Uint8Array.of(192, 0, 2, 2)]);
  const alias = rrset('www.example.com', TYPE.CNAME, [Name.parseText('edge.cdn.example.net').wire]);
  const response = composeResponse(query(), answer({ answer: [alias, target] }), 'udp');
  const message = parseMessage(response);
  assert.deepEqual(
    message.answer.map(({ name }) => name.toText()),
    ['www.example.com.', 'edge.cdn.example.net.', 'edge.cdn.example.net.'],
  );
  // header, question, CNAME by pointer, the target's name once, a pointer to it, OPT
  assert.equal(response.length, 12 + 21 + (2 + 10 + 22) + (22 + 10 + 4) + (2 + 10 + 4) + 11);
});

// Whatever the names and sizes: both codecs read what was composed, it fits, and nothing but what was given is in it.
test('any answer survives composing', () => {
  const label = fc.uint8Array({ minLength: 1, maxLength: 12 });
  const name = fc.array(label, { minLength: 0, maxLength: 5 }).map(labels => {
    const wire = labels.flatMap(octets => [octets.length, ...octets]);
    return Name.fromWire(Uint8Array.from([...wire, 0]));
  });
  const related = fc.array(name, { minLength: 1, maxLength: 4 }).chain(names =>
    // Names below one another and equal ones in other case, so that compression has something to do.
    fc.constant(
      names.flatMap(one => [
        one,
        one.canonical(),
        one.parent() ?? one,
        one.prepend(Uint8Array.of(0x61)) ?? one,
      ]),
    ),
  );
  fc.assert(
    fc.property(
      related,
      fc.array(
        fc.record({
          owner: fc.nat(),
          type: fc.constantFrom(TYPE.A, TYPE.TXT, 65_280),
          count: fc.integer({ min: 0, max: 4 }),
          size: fc.integer({ min: 1, max: 120 }),
          authority: fc.boolean(),
        }),
        { maxLength: 12 },
      ),
      fc.record({ dnssecOk: fc.boolean(), edns: fc.boolean(), udpSize: fc.integer({ min: 1, max: 65535 }) }),
      fc.constantFrom('udp' as const, 'tcp' as const),
      fc.option(fc.string({ maxLength: 600 }), { nil: undefined }),
      (names, sets, asked, transport, ede) => {
        const base = query(asked);
        const question = names[0]!;
        const head = Buffer.concat([base.bytes.subarray(0, 12), question.wire, Uint8Array.of(0, 1, 0, 1)]);
        const bytes = new Uint8Array(Buffer.concat([head, base.bytes.subarray(base.questionEnd)]));
        const parsed = parseQuery(bytes);
        assert.ok(parsed.kind === 'query');
        const seen = new Set<string>();
        const rrsets = sets.flatMap(({ owner, type, count, size, authority }) => {
          const at = names[owner % names.length]!;
          const key = `${at.key} ${type}`;
          if (seen.has(key) || count === 0) return [];
          seen.add(key);
          const octets = type === TYPE.A ? 4 : size;
          const rdata = (i: number) => {
            const filled = new Uint8Array(octets).fill(i);
            if (type === TYPE.TXT) filled[0] = octets - 1;
            else filled[0] = i;
            return filled;
          };
          const rdatas =
            type === TYPE.TXT
              ? [rdata(0)]
              : Array.from({ length: octets === 1 ? 1 : count }, (_, i) => rdata(i));
          return [{ authority, rrset: { ...rrset('.', type, rdatas), name: at } }];
        });
        const given = answer({
          answer: rrsets.filter(({ authority }) => !authority).map(one => one.rrset),
          authority: rrsets.filter(({ authority }) => authority).map(one => one.rrset),
          ...(ede === undefined ? {} : { ede: [{ code: 15, text: ede }] }),
        });
        const response = composeResponse(parsed.query, given, transport);
        const limit =
          transport === 'tcp' ? 65535 : asked.edns ? Math.min(Math.max(512, asked.udpSize), 1232) : 512;
        assert.ok(response.length <= limit, `${response.length} > ${limit}`);
        assert.deepEqual(
          response.subarray(12, parsed.query.questionEnd),
          bytes.subarray(12, parsed.query.questionEnd),
        );
        const message = parseMessage(response);
        dnsPacket.decode(response);
        if (message.truncated) {
          assert.equal(transport, 'udp');
          assert.equal(message.authority.length, 0);
          const whole = parseMessage(composeResponse(parsed.query, given, 'tcp')).answer;
          const addresses =
            [TYPE.A, TYPE.AAAA].includes(parsed.query.type as 1) && !parsed.query.edns?.dnssecOk;
          assert.deepEqual(message.answer, addresses ? whole.slice(0, message.answer.length) : []);
          return;
        }
        const plain = (found: readonly Rrset[]) =>
          found.map(({ name: owner, type, ttlSeconds, rdatas }) => [
            owner.key,
            type,
            ttlSeconds,
            rdatas.map(octets => [...octets]),
          ]);
        assert.deepEqual(plain(groupRrsets(message.answer)), plain(given.answer));
        assert.deepEqual(plain(groupRrsets(message.authority)), plain(given.authority));
        if (asked.edns && ede !== undefined)
          assert.deepEqual(message.edns!.options, [composeEde({ code: 15, text: ede })]);
      },
    ),
    { numRuns: 300 },
  );
});
