// Kept responses against freshly composed ones, octet by octet; and what ends their use.
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Name } from '../../../resolver/dns/name.ts';
import type { Rrset } from '../../../resolver/dns/rrset.ts';
import { CLASS, RCODE, TYPE } from '../../../resolver/dns/types.ts';
import { composeResponse, composeWhole } from '../../../resolver/stub/answer.ts';
import { keyedHash } from '../../../resolver/stub/hash.ts';
import { KeptResponses, MAX_KEPT_OCTETS } from '../../../resolver/stub/kept.ts';
import { parseQuery, type StubQuery } from '../../../resolver/stub/query.ts';
import type { Lease, StubAnswer } from '../../../resolver/stub/types.ts';
import { queryBytes } from './clients.ts';

const HASH_KEYS = Uint32Array.of(0x01234567, 0x89abcdef);
const LEASE: Lease = { grounds: [], seconds: 86_400 };

function setUp(ringOctets?: number) {
  const clock = { now: 5_000, wall: 1_790_000_000_000 };
  const kept = new KeptResponses({
    now: () => clock.now,
    wallClock: () => clock.wall,
    hashKeys: HASH_KEYS,
    ...(ringOctets !== undefined && { ringOctets }),
  });
  const pass = (millis: number) => {
    clock.now += millis;
    clock.wall += millis;
  };
  return { kept, clock, pass };
}

type Asked = {
  name?: Name;
  type?: number;
  id?: number;
  /** RD, AD, CD as in the header's third and fourth octet. */
  recursion?: boolean;
  authenticData?: boolean;
  checkingDisabled?: boolean;
  edns?: { udpSize: number; dnssecOk: boolean; options: Uint8Array } | undefined;
};

const NAME = Name.parseText('www.example.com');

function bytesOf({ name = NAME, type = TYPE.A, id = 0x1234, edns, ...flags }: Asked = {}): Uint8Array {
  const head = [id >> 8, id & 0xff, flags.recursion ? 1 : 0];
  head.push((flags.authenticData ? 0x20 : 0) | (flags.checkingDisabled ? 0x10 : 0));
  head.push(0, 1, 0, 0, 0, 0, 0, edns ? 1 : 0, ...name.wire, type >> 8, type & 0xff, 0, 1);
  if (edns) {
    const { udpSize, dnssecOk, options } = edns;
    head.push(0, 0, 41, udpSize >> 8, udpSize & 0xff, 0, 0, dnssecOk ? 0x80 : 0, 0);
    head.push(options.length >> 8, options.length & 0xff, ...options);
  }
  return Uint8Array.from(head);
}

function parsed(bytes: Uint8Array): StubQuery {
  const found = parseQuery(bytes);
  assert.ok(found.kind === 'query');
  return found.query;
}

function answerOf(ttlSeconds = 300, change: Partial<StubAnswer> = {}): StubAnswer {
  const rrset = { name: NAME, type: TYPE.A, class: CLASS.IN, ttlSeconds, signatures: [] };
  const answer = [{ ...rrset, rdatas: [Uint8Array.of(192, 0, 2, 1)] }];
  return { rcode: RCODE.NOERROR, authenticated: true, answer, authority: [], ...change };
}

function keep(kept: KeptResponses, bytes: Uint8Array, answer: StubAnswer, lease = LEASE): void {
  const query = parsed(bytes);
  const whole = composeWhole(query, answer, MAX_KEPT_OCTETS);
  if (whole) kept.keep(query, whole, answer.authenticated, lease);
}

/** What the kept responses make of a query; undefined when it has to go the whole way. */
function respond(kept: KeptResponses, bytes: Uint8Array, transport: 'udp' | 'tcp' = 'udp') {
  const room = new Uint8Array(3 + MAX_KEPT_OCTETS * 2).fill(0xee);
  room.set(bytes, 3);
  kept.tick();
  const octets = kept.answer(room, 3, bytes.length, transport);
  if (octets > 0) return room.slice(3, 3 + octets);
  assert.deepEqual(
    room.slice(3, 3 + bytes.length),
    bytes,
    'a query that goes the whole way stands as it came',
  );
  return undefined;
}

function older(answer: StubAnswer, seconds: number): StubAnswer {
  const lower = (rrsets: readonly Rrset[]) =>
    rrsets.map(rrset => ({
      ...rrset,
      ttlSeconds: Math.max(0, Math.min(rrset.ttlSeconds, answer.ttlCapSeconds ?? 1e9) - seconds),
    }));
  const { ttlCapSeconds: _, ...rest } = answer;
  return { ...rest, answer: lower(answer.answer), authority: lower(answer.authority) };
}

const label = fc.uint8Array({ minLength: 1, maxLength: 12 });
const anyName = fc
  .array(label, { maxLength: 4 })
  .map(labels =>
    Name.fromWire(Uint8Array.from([...labels.flatMap(octets => [octets.length, ...octets]), 0])),
  );
const anyOptions = fc
  .array(fc.tuple(fc.constantFrom(3, 10, 12, 65_001), fc.uint8Array({ maxLength: 20 })), { maxLength: 3 })
  .map(options =>
    Uint8Array.from(options.flatMap(([code, data]) => [code >> 8, code & 0xff, 0, data.length, ...data])),
  );
const anyEdns = fc.option(
  fc.record({ udpSize: fc.integer({ min: 0, max: 65_535 }), dnssecOk: fc.boolean(), options: anyOptions }),
  { nil: undefined },
);
const anyAsked = fc.record({
  id: fc.integer({ min: 0, max: 65_535 }),
  recursion: fc.boolean(),
  authenticData: fc.boolean(),
  checkingDisabled: fc.boolean(),
  edns: anyEdns,
});
const anyRrsets = (names: Name[]) =>
  fc.array(
    fc.record({
      name: fc.constantFrom(...names),
      type: fc.constantFrom(TYPE.A, TYPE.TXT, TYPE.NSEC, 65_280),
      class: fc.constant(1),
      ttlSeconds: fc.integer({ min: 10, max: 100_000 }),
      rdatas: fc.array(fc.uint8Array({ minLength: 1, maxLength: 90 }), { minLength: 1, maxLength: 6 }),
      signatures: fc.array(fc.uint8Array({ minLength: 20, maxLength: 90 }), { maxLength: 2 }),
    }),
    { minLength: 1, maxLength: 6 },
  );

/** The same letters, some of them large. */
function respelt(name: Name, large: boolean[]): Name {
  return Name.fromWire(
    name.wire.map((octet, i) =>
      (large[i % large.length] ?? false) && octet >= 0x61 && octet <= 0x7a ? octet - 0x20 : octet,
    ),
  );
}

test('a kept response is, octet by octet, what would be composed now', () => {
  const everything = fc.record({ name: anyName, other: anyName }).chain(({ name, other }) =>
    fc.record({
      name: fc.constant(name),
      first: anyAsked,
      later: anyAsked,
      large: fc.array(fc.boolean(), { minLength: 1, maxLength: 8 }),
      answer: anyRrsets([name, other, name.parent() ?? name, other.canonical()]),
      authority: anyRrsets([name, other, name.parent() ?? name]),
      rcode: fc.constantFrom(RCODE.NOERROR, RCODE.NXDOMAIN),
      authenticated: fc.boolean(),
      cap: fc.option(fc.integer({ min: 10, max: 60 }), { nil: undefined }),
      ede: fc.option(fc.string({ maxLength: 500 }), { nil: undefined }),
      transport: fc.constantFrom('udp' as const, 'tcp' as const),
      seconds: fc.integer({ min: 0, max: 8 }),
    }),
  );
  let used = 0;
  fc.assert(
    fc.property(everything, given => {
      const { kept, pass } = setUp();
      const answer: StubAnswer = {
        rcode: given.rcode,
        authenticated: given.authenticated,
        answer: given.answer,
        authority: given.authority,
        ...(given.cap !== undefined && { ttlCapSeconds: given.cap }),
        ...(given.ede !== undefined && { ede: [{ code: 15, text: given.ede }] }),
      };
      // What makes another response is the same; everything else differs.
      const edns = given.first.edns && { ...given.later.edns, ...given.first.edns };
      const { checkingDisabled } = given.first;
      const later = {
        ...given.later,
        checkingDisabled,
        edns: edns && {
          udpSize: given.later.edns?.udpSize ?? 700,
          options: given.later.edns?.options ?? new Uint8Array(0),
          dnssecOk: edns.dnssecOk,
        },
      };
      keep(kept, bytesOf({ ...given.first, name: given.name }), answer);
      pass(given.seconds * 1000);
      const asked = bytesOf({ ...later, name: respelt(given.name, given.large) });
      const response = respond(kept, asked, given.transport);
      const whole = composeWhole(
        parsed(bytesOf({ ...given.first, name: given.name })),
        answer,
        MAX_KEPT_OCTETS,
      );
      if (whole === undefined || whole[6]! + whole[7]! + whole[8]! + whole[9]! === 0) {
        assert.equal(response, undefined);
        return;
      }
      used++;
      const fresh = composeResponse(parsed(asked), older(answer, given.seconds), given.transport);
      assert.deepEqual(Buffer.from(response!).toString('hex'), Buffer.from(fresh).toString('hex'));
    }),
    { numRuns: 1000 },
  );
  assert.ok(used > 500, `only ${used} runs compared anything`);
});

test('whatever the octets, nothing is thrown and nothing but a real question is answered', () => {
  const { kept } = setUp();
  const real = bytesOf({
    recursion: true,
    edns: { udpSize: 1232, dnssecOk: false, options: new Uint8Array(0) },
  });
  keep(kept, real, answerOf());
  const change = fc.array(fc.tuple(fc.nat({ max: real.length - 1 }), fc.integer({ min: 0, max: 255 })), {
    maxLength: 4,
  });
  fc.assert(
    fc.property(change, fc.nat({ max: real.length + 4 }), (changes, length) => {
      const bytes = new Uint8Array(length);
      bytes.set(real.subarray(0, length));
      for (const [at, octet] of changes) if (at < length) bytes[at] = octet;
      const response = respond(kept, bytes);
      if (response === undefined) return;
      const found = parseQuery(bytes);
      assert.equal(found.kind, 'query');
      assert.deepEqual(response, composeResponse(parsed(bytes), answerOf(), 'udp'));
    }),
    { numRuns: 5000 },
  );
});

test('the response from the example, octet by octet', () => {
  const { kept, pass } = setUp();
  keep(kept, bytesOf(), answerOf());
  pass(10_999);
  const asked = bytesOf({ name: Name.parseText('wWw.eXample.com'), id: 0xbeef, recursion: true });
  // Header (RFC 1035 §4.1.1): QR RD, RA; one question, one answer. Question as asked. TTL 300 - 10.
  assert.equal(
    Buffer.from(respond(kept, asked)!).toString('hex'),
    'beef81800001000100000000' +
      '03775777076558616d706c65' +
      '03636f6d0000010001' +
      'c00c00010001000001220004c0000201',
  );
});

test('type, DO, CD, with and without OPT are other questions', () => {
  const { kept } = setUp();
  const edns = { udpSize: 1232, dnssecOk: false, options: new Uint8Array(0) };
  const variants = [
    {},
    { edns },
    { edns: { ...edns, dnssecOk: true } },
    { checkingDisabled: true },
    { checkingDisabled: true, edns },
    { type: TYPE.AAAA },
    { name: Name.parseText('ww.example.com') },
  ].map(bytesOf);
  variants.forEach((bytes, i) => {
    for (const later of variants.slice(i)) assert.equal(respond(kept, later), undefined);
    keep(kept, bytes, answerOf());
    assert.ok(respond(kept, bytes));
  });
});

test('nine tenths of the least TTL, and no longer than the lease', () => {
  const { kept, pass } = setUp();
  keep(kept, bytesOf(), answerOf(100));
  pass(89_999);
  assert.ok(respond(kept, bytesOf()));
  pass(1);
  assert.equal(respond(kept, bytesOf()), undefined);
  keep(kept, bytesOf(), answerOf(100), { grounds: [], seconds: 10 });
  pass(9_999);
  assert.ok(respond(kept, bytesOf()));
  pass(1);
  assert.equal(respond(kept, bytesOf()), undefined);
});

test('the time that a machine sleeps counts, a clock set back does not', () => {
  const { kept, clock } = setUp();
  keep(kept, bytesOf(), answerOf(100));
  clock.wall += 50_000;
  assert.equal(respond(kept, bytesOf())!.at(-7), 50);
  clock.wall -= 1_000_000;
  clock.now += 60_000;
  assert.equal(respond(kept, bytesOf())!.at(-7), 40);
  clock.wall += 2_000_000;
  assert.equal(respond(kept, bytesOf()), undefined);
});

test('a ground that gives way ends it at once and for good', () => {
  const { kept } = setUp();
  const grounds = [{ stands: true }, { stands: true }];
  keep(kept, bytesOf(), answerOf(), { grounds, seconds: 300 });
  assert.ok(respond(kept, bytesOf()));
  grounds[1]!.stands = false;
  assert.equal(respond(kept, bytesOf()), undefined);
  grounds[1]!.stands = true;
  assert.equal(respond(kept, bytesOf()), undefined);
  // Given way before it was kept at all.
  keep(kept, bytesOf(), answerOf(), { grounds: [{ stands: false }], seconds: 300 });
  assert.equal(respond(kept, bytesOf()), undefined);
});

test('failures, empty answers, TTL 0 and very long responses are not kept', () => {
  const { kept } = setUp();
  const many = Array.from({ length: 300 }, (_, i) => Uint8Array.of(10, 0, i >> 8, i));
  const [rrset] = answerOf().answer;
  for (const answer of [
    answerOf(300, { rcode: RCODE.SERVFAIL }),
    answerOf(300, { answer: [] }),
    answerOf(0),
    answerOf(300, { ttlCapSeconds: 0 }),
    answerOf(300, { answer: [{ ...rrset!, rdatas: many }] }),
  ]) {
    keep(kept, bytesOf(), answer);
    assert.equal(respond(kept, bytesOf()), undefined);
  }
  assert.equal(kept.counters.stored, 0);
});

test('what a parser refuses goes the whole way', () => {
  const { kept } = setUp();
  const edns = { udpSize: 1232, dnssecOk: false, options: Uint8Array.of(0, 10, 0, 2, 1, 2) };
  keep(kept, bytesOf(), answerOf());
  keep(kept, bytesOf({ edns }), answerOf());
  assert.ok(respond(kept, bytesOf({ edns })));
  const broken = (change: (bytes: Uint8Array) => void) => {
    const bytes = bytesOf({ edns });
    change(bytes);
    return respond(kept, bytes);
  };
  const opt = 12 + NAME.wire.length + 4;
  for (const [at, octet] of [
    [2, 0x80], // a response
    [2, 0x28], // opcode UPDATE
    [5, 2], // two questions
    [7, 1], // an answer
    [11, 2], // two additional records
    [opt - 1, 3], // class CH
    [opt, 1], // OPT with an owner name
    [opt + 6, 1], // EDNS version 1
    [opt + 10, 5], // RDLENGTH
    [opt + 14, 3], // the option's length
  ] as const) {
    assert.equal(
      broken(bytes => (bytes[at] = octet)),
      undefined,
      `octet ${at} = ${octet}`,
    );
  }
  const plain = bytesOf();
  assert.equal(respond(kept, plain.subarray(0, plain.length - 1)), undefined);
  assert.equal(respond(kept, Uint8Array.from([...plain, 0])), undefined);
});

test('the ring overwrites the oldest, and never gives out what it has overwritten', () => {
  const { kept } = setUp(2_000);
  const query = (i: number) => bytesOf({ name: Name.parseText(`host-${i}.example`) });
  const alive = new Set<number>();
  for (let i = 0; i < 500; i++) {
    const address = Uint8Array.of(10, 0, i >> 8, i & 0xff);
    const [rrset] = answerOf().answer;
    keep(kept, query(i), answerOf(300, { answer: [{ ...rrset!, rdatas: [address] }] }));
    alive.add(i);
    for (const j of alive) {
      const response = respond(kept, query(j));
      if (response === undefined) alive.delete(j);
      else assert.deepEqual([response.at(-2), response.at(-1)], [j >> 8, j & 0xff]);
    }
    assert.ok(alive.has(i));
    assert.ok(alive.size <= 40);
  }
  assert.ok(alive.size >= 20, `${alive.size} of what fits are there`);
});

test('a flood of names takes no more than its places, and costs nobody more than eight comparisons', () => {
  const { kept } = setUp();
  keep(kept, bytesOf(), answerOf());
  const places = new Map<number, number>();
  for (let i = 0; i < 100_000; i++) {
    const { wire } = Name.parseText(`${i}.flood.example`);
    const bucket = keyedHash(HASH_KEYS, 1 << 8, wire, 0, wire.length) % 8192;
    places.set(bucket, (places.get(bucket) ?? 0) + 1);
  }
  assert.equal(places.size, 8192);
  // 12.2 on average; with a hash as good as chance the fullest of 8,192 has about 30.
  assert.ok(Math.max(...places.values()) < 45);
});

test('the keyed hash: letters of either case are the same, other keys give other places', () => {
  const random = fc.integer({ min: 0, max: 0xffffffff });
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 255 }), random, random, (bytes, a, b) => {
      const lower = bytes.map(octet => (octet >= 0x41 && octet <= 0x5a ? octet + 0x20 : octet));
      const keys = Uint32Array.of(a, b);
      assert.equal(keyedHash(keys, 7, bytes, 0, bytes.length), halfSipHash(keys, 7, lower));
      assert.equal(keyedHash(keys, 7, lower, 0, lower.length), halfSipHash(keys, 7, lower));
    }),
  );
});

/** HalfSipHash-1-3 as its paper writes it, over the word and the octets, to compare with. */
function halfSipHash(keys: Uint32Array, word: number, octets: Uint8Array): number {
  const input = Uint8Array.of(word & 0xff, (word >> 8) & 0xff, (word >> 16) & 0xff, word >>> 24, ...octets);
  const v = [keys[0]!, keys[1]!, 0x6c796765 ^ keys[0]!, 0x74656462 ^ keys[1]!];
  const rotate = (value: number, by: number) => (value << by) | (value >>> (32 - by));
  const round = () => {
    v[0]! += v[1]!;
    v[0]! |= 0;
    v[1] = rotate(v[1]!, 5) ^ v[0]!;
    v[0] = rotate(v[0]!, 16);
    v[2]! += v[3]!;
    v[2]! |= 0;
    v[3] = rotate(v[3]!, 8) ^ v[2]!;
    v[0]! += v[3]!;
    v[0]! |= 0;
    v[3] = rotate(v[3]!, 7) ^ v[0]!;
    v[2]! += v[1]!;
    v[2]! |= 0;
    v[1] = rotate(v[1]!, 13) ^ v[2]!;
    v[2] = rotate(v[2]!, 16);
  };
  const padded = [...input, ...Array(3 - (input.length % 4)).fill(0), input.length & 0xff];
  for (let i = 0; i < padded.length; i += 4) {
    const m = padded[i]! | (padded[i + 1]! << 8) | (padded[i + 2]! << 16) | (padded[i + 3]! << 24);
    v[3]! ^= m;
    round();
    v[0]! ^= m;
  }
  v[2]! ^= 0xff;
  for (let i = 0; i < 3; i++) round();
  return (v[1]! ^ v[3]!) >>> 0;
}

test('the bytes that clients send are the ones that these tests make', () => {
  const theirs = queryBytes({ edns: { udpSize: 1232 } });
  const edns = { udpSize: 1232, dnssecOk: false, options: new Uint8Array(0) };
  assert.deepEqual(bytesOf({ recursion: true, edns }), new Uint8Array(theirs));
});
