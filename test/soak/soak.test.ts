// The soak's own judgement: it must see what is wrong, and let pass what is right.
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { type Packet, type PacketRecord, dnsPacket } from '../resolver/dns-packet.ts';
import { check } from './check.ts';
import { askedName, distort, distortStream } from './distort.ts';
import { growth, heapAfterCollections, slopePerHour } from './trend.ts';
import { forecast, generator, KINDS, kindAt, strike } from './weather.ts';
import { drawQuestion, type Question, type Truth, Truths } from './zones.ts';

const truths = new Truths();
const RA = 0x80;
const AD = 0x20;

/** An answer as a correct server would send it, with what is to be different. */
function answer(question: Question, truth: Truth, changes: Partial<Packet> = {}): Buffer {
  const answers = truth.records.map(({ owner, type, data, ttlSeconds }): PacketRecord => {
    const value = type === 'TXT' ? [Buffer.from(data)] : data;
    return { name: owner, type, ttl: ttlSeconds, class: 'IN', data: value };
  });
  const packet: Packet = { type: 'response', id: 7, flags: RA, questions: [question], answers, ...changes };
  const bytes = dnsPacket.encode(packet);
  if (truth.rcode === 'NXDOMAIN') bytes[3]! |= 3;
  return bytes;
}

const hot: Question = { name: 'hot1.example', type: 'A' };
const alias: Question = { name: 'alias3.example', type: 'AAAA' };
const plain: Question = { name: 'u1.unsigned.example', type: 'A' };

test('what the zones say is right, along aliases, out of a signed zone into an unsigned one, and where there is nothing', () => {
  for (const question of [
    hot,
    alias,
    plain,
    { name: 'nobody.example', type: 'A' },
    { name: 'n1.example', type: 'AAAA' },
  ]) {
    const truth = truths.of(question);
    assert.equal(check(answer(question, truth), question, 'plain', truth), 'right', question.name);
    const flags = RA | (truth.signed ? AD : 0);
    assert.equal(check(answer(question, truth, { flags }), question, 'ad', truth), 'right', question.name);
  }
  assert.equal(truths.of({ name: 'cross1.example', type: 'A' }).signed, false);
  assert.deepEqual(
    truths.of(alias).records.map(({ owner }) => owner),
    ['alias3.example', 'middle3.example', 'hot3.example'],
  );
  assert.equal(truths.of({ name: 'any.wild.example', type: 'A' }).records[0]?.owner, 'any.wild.example');
});

test('what the zones do not say is wrong', () => {
  const truth = truths.of(hot);
  const forged = [{ name: hot.name, type: 'A', ttl: 300, class: 'IN', data: '203.0.113.66' }];
  const wrong: [string, Partial<Packet>, RegExp][] = [
    ['another address', { answers: forged }, /203\.0\.113\.66/],
    ['no address', { answers: [] }, /says nothing/],
    ['AD unasked', { flags: RA | AD }, /AD is set/],
    ['no RA', { flags: 0 }, /RA/],
    ['another question', { questions: [{ name: 'hot2.example', type: 'A' }] }, /another question/],
    [
      'too long a life',
      { answers: forged.map(one => ({ ...one, data: truth.records[0]!.data, ttl: 301 })) },
      /TTL/,
    ],
    ['another RCODE', { flags: RA | 3 }, /NXDOMAIN/],
    ['SERVFAIL with data', { flags: RA | 2 }, /SERVFAIL with records/],
  ];
  for (const [what, changes, why] of wrong) {
    const verdict = check(answer(hot, truth, changes), hot, 'plain', truth);
    assert.match((verdict as { wrong: string }).wrong, why, what);
  }
  const unsigned = truths.of(plain);
  const claimed = check(answer(plain, unsigned, { flags: RA | AD }), plain, 'do', unsigned);
  assert.match((claimed as { wrong: string }).wrong, /AD is set, unsigned/);
  const unproven = check(answer(hot, truth), hot, 'ad', truth);
  assert.match((unproven as { wrong: string }).wrong, /AD is not set/);
  assert.equal(check(answer(hot, truth, { flags: RA | 2, answers: [] }), hot, 'do', truth), 'servfail');
  assert.match((check(Buffer.alloc(3), hot, 'do', truth) as { wrong: string }).wrong, /cannot be read/);
});

test('every question of the mix has an answer in the zones', () => {
  const random = generator(1);
  const codes = new Set<string>();
  for (let i = 0; i < 5000; i++) codes.add(truths.of(drawQuestion(random)).rcode);
  assert.deepEqual([...codes].sort(), ['NOERROR', 'NXDOMAIN']);
});

test('every kind of weather comes, in an order of its own for each server, and being down lasts twice as long', () => {
  const [one, other] = [forecast(1, 10), forecast(2, 10)];
  assert.deepEqual(new Set(one.map(({ kind }) => kind)), new Set(KINDS));
  assert.notDeepEqual(one, other);
  assert.equal(one.find(({ kind }) => kind === 'down')!.seconds, 20);
  const whole = one.reduce((sum, { seconds }) => sum + seconds, 0);
  assert.equal(kindAt(one, 0), one[0]!.kind);
  assert.equal(
    kindAt(one, whole + 10.5),
    one[1]!.kind === 'down' || one[0]!.seconds === 20 ? kindAt(one, 10.5) : one[1]!.kind,
  );
  assert.equal(
    strike('calm', () => 0),
    'calm',
  );
  assert.notEqual(
    strike('mixed', () => 0),
    'mixed',
  );
});

test('faults leave their mark, and none lets an unsigned answer arrive whole and altered from the server that was asked', () => {
  const unsigned = answer(plain, truths.of(plain));
  fc.assert(
    fc.property(fc.constantFrom(...KINDS), fc.integer(), (kind, seed) => {
      const random = generator(seed);
      for (const { bytes, foreign } of distort(unsigned, kind, random, true)) {
        const whole = Buffer.from(bytes);
        const sameId = whole.length >= 2 && whole.readUInt16BE(0) === unsigned.readUInt16BE(0);
        const sameQuestion = whole.length > 20 && askedName(whole) === plain.name;
        const short = whole.length < unsigned.length; // as its counts show, or TC, or SERVFAIL
        if (foreign || !sameId || !sameQuestion || short) continue;
        assert.deepEqual(whole, unsigned);
      }
    }),
  );
  const random = generator(3);
  assert.deepEqual(distort(unsigned, 'down', random), []);
  assert.equal(distortStream(unsigned, 'reset', random), undefined);
  assert.equal(distort(unsigned, 'duplicates', random).length, 3);
  assert.equal(distort(unsigned, 'truncated', random)[0]!.bytes[2]! & 2, 2);
  const signed = answer(hot, truths.of(hot), {
    answers: [{ name: hot.name, type: 'A', ttl: 300, class: 'IN', data: '198.19.0.1' }],
    authorities: [
      { name: hot.name, type: 'NSEC', ttl: 9, data: { nextDomain: 'z.example', rrtypes: ['A'] } },
    ],
  });
  const left = dnsPacket.decode(distort(signed, 'stripped', random)[0]!.bytes);
  assert.deepEqual([left.answers!.length, left.authorities!.length], [1, 0]);
});

test('growth is what stays, not what swings: the slope and the windows must agree', () => {
  const points = (value: (minute: number) => number) =>
    Array.from({ length: 60 }, (_, minute) => ({ seconds: minute * 60, value: value(minute) }));
  const swinging = points(minute => 100 + (minute % 7) * 10 + (minute === 30 ? 500 : 0));
  assert.equal(growth(swinging, 180, 12).grows, false);
  const warming = points(minute => (minute < 3 ? minute * 50 : 150));
  assert.equal(growth(warming, 180, 12).grows, false);
  const leaking = points(minute => 100 + minute + (minute % 5));
  assert.equal(growth(leaking, 180, 12).grows, true);
  assert.ok(Math.abs(slopePerHour(leaking) - 60) < 5);
  assert.equal(slopePerHour([]), 0);
});

test('the live heap is read from what V8 says of its full collections', () => {
  const trace = `[4711:0x2ff85000]     1234 ms: Scavenge 20.1 (35.2) -> 15.3 (36.2) MB, pooled: 0 MB, 1.2 / 0.0 ms
[4711:0x2ff85000]    61000 ms: Mark-Compact (reduce) 42.1 (60.2) -> 31.5 (58.0) MB, pooled: 0 MB, 20.2 / 0.0 ms
[4711:0x2ff85000]    99000 ms: Mark-Compact 52.1 (60.2) -> 32.5 (58.0) MB, pooled: 0 MB, 20.2 / 0.0 ms
`;
  assert.deepEqual(heapAfterCollections(trace), [
    { seconds: 61, value: 31.5 },
    { seconds: 99, value: 32.5 },
  ]);
});
