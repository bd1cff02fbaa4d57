// The bench's own arithmetic and readers. What it measures is asserted nowhere: a slow machine is no fault.
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import type { Explanation } from '../../resolver/control/api.ts';
import { countExchanges } from './exchanges.ts';
import {
  type BenchResult,
  type CaptureTimes,
  captureTimes,
  figures,
  hiddenShare,
  lastNegotiationMs,
  percentile,
  ratios,
  report,
  resultsPage,
  type Round,
  speculation,
  summarize,
} from './figures.ts';
import { whole } from './run.ts';
import { composeViciPacket, PACKET, parseViciPacket, type ViciMessage } from './vici.ts';

test('percentiles stand between their neighbours and do not mind the order', () => {
  assert.deepEqual(summarize([4, 1, 3, 2]), { min: 1, median: 2.5, max: 4 });
  assert.deepEqual(summarize([7]), { min: 7, median: 7, max: 7 });
  assert.equal(percentile([10, 0], 0.9), 9);
  assert.throws(() => percentile([], 0.5), RangeError);
  const values = fc.array(fc.integer({ min: 0, max: 1e6 }), { minLength: 1 });
  fc.assert(
    fc.property(values, fc.double({ min: 0, max: 1, noNaN: true }), (list, p) => {
      const value = percentile(list, p);
      assert.ok(value >= Math.min(...list) && value <= Math.max(...list));
      assert.equal(percentile(list.toReversed(), p), value);
    }),
  );
});

const told: Explanation = {
  name: 'p1.example',
  type: 'A',
  askedAt: '2026-11-20T12:00:00.000Z',
  group: 'private-or-clear',
  assurance: 'authenticated',
  rcode: 'NOERROR',
  ede: [],
  addresses: [],
  answerMs: 40,
  dnsMs: 15,
  ikeMs: 24,
  kernelMs: 1,
  steps: [
    { at: 0, what: 'question' },
    { at: 12, what: 'IKE_SA_INIT sent' },
    { at: 24, what: 'IKE_SA_INIT answered', detail: 'a suite' },
    { at: 25, what: 'IKE_AUTH sent' },
    { at: 38, what: 'IKE_AUTH answered' },
    { at: 39, what: 'SAs and policies in the kernel' },
  ],
};
const times: CaptureTimes = {
  ...{ answerMs: 40, dnsMs: 15, ikeMs: 24, kernelMs: 1 },
  ...{ initSentAt: 12, initAnsweredAt: 24, authSentAt: 25, authAnsweredAt: 38, installedAt: 39 },
};

test('the times of a capture come from its story, and a story without a negotiation is refused', () => {
  assert.deepEqual(captureTimes(told), times);
  const { ikeMs: _, ...cached } = told;
  assert.throws(() => captureTimes(cached), /p1\.example.*waited for no negotiation/);
  assert.throws(() => captureTimes({ ...told, steps: told.steps.slice(0, 3) }), /no step "IKE_AUTH sent"/);
});

// Lines as strongSwan 5.9.8 writes them.
test('the last negotiation of a log of charon counts, over midnight too', () => {
  const line = (time: string, text: string) => `${time} 07[IKE] ${text}\n`;
  const start = (time: string) => line(time, 'initiating IKE_SA p1[1] to 10.9.0.101');
  const child =
    'CHILD_SA p1{1} established with SPIs c0ffee01_i c0ffee02_o and TS 10.9.0.90/32 === 10.9.0.101/32';
  const log = start('10:00:00.000') + line('10:00:09.000', child);
  assert.equal(lastNegotiationMs(log), 9000);
  const night =
    start('23:59:59.990') + line('00:00:00.001', 'IKE_SA p1[1] established') + line('00:00:00.002', child);
  assert.equal(lastNegotiationMs(log + night + line('00:00:01.000', 'deleting IKE_SA p1[1]')), 12);
  assert.throws(() => lastNegotiationMs(log + start('10:00:10.000')), /no negotiation/);
  assert.throws(() => lastNegotiationMs(''), /no negotiation/);
});

test('hidden is the share of IKE_SA_INIT that passed before DNS was done', () => {
  assert.equal(hiddenShare(times), 0.25);
  assert.equal(hiddenShare({ ...times, dnsMs: 12 }), 0);
  assert.equal(hiddenShare({ ...times, dnsMs: 10 }), 0);
  assert.equal(hiddenShare({ ...times, dnsMs: 24 }), 1);
  assert.equal(hiddenShare({ ...times, dnsMs: 99 }), 1);
  assert.equal(hiddenShare({ ...times, initAnsweredAt: 12 }), 1);
});

const seen = (resolveMs: number) => ({ resolveMs, connectMs: 1, totalMs: resolveMs + 2, retransmits: 0 });
const round: Round = {
  kind: 'ecdsa',
  floor: seen(10),
  strongSwanMs: 30.5,
  charonMs: 30,
  holdfast: times,
  app: seen(44),
};

test('ratios divide medians', () => {
  const slow = { ...round, strongSwanMs: 3000, charonMs: 2999, app: seen(9000) };
  const { waited, negotiation, whole: all } = ratios([round, round, slow]);
  assert.deepEqual([waited, negotiation, all], [25 / 30, 27 / 30, 44 / 40]);
});

test('speculation counts what left early and what was wholly hidden', () => {
  const hidden = { ...round, holdfast: { ...times, dnsMs: 30 } };
  const none = { ...round, holdfast: { ...times, dnsMs: 5 } };
  assert.deepEqual(speculation([round, hidden, none]), { rounds: 3, early: 2, whole: 1, medianShare: 0.25 });
});

const result: BenchResult = {
  kernel: 'Linux 6.1.0 (User-Mode Linux)',
  versions: { Node: '24.0.0', strongSwan: '5.9.8' },
  series: [
    { delayMs: 10, situation: 'warm', roundTripMs: 10.2, rounds: [round, round] },
    { delayMs: 10, situation: 'cold', roundTripMs: 10.2, rounds: [] },
  ],
  exchanges: {
    names: 2,
    holdfast: { roundTrips: { IKE_SA_INIT: 2, IKE_AUTH: 2 }, retransmitted: 0 },
    strongSwan: { roundTrips: { IKE_SA_INIT: 2, IKE_AUTH: 2 }, retransmitted: 1 },
  },
  failures: ['p2.example: out of luck'],
};

test('the report names the kernel, every figure of every series, and what failed', () => {
  const text = report(result);
  for (const what of Object.keys(figures([round]))) assert.ok(text.includes(what), what);
  for (const part of ['User-Mode Linux', 'strongSwan 5.9.8', 'delay 10 ms', 'p2.example: out of luck'])
    assert.ok(text.includes(part), part);
  assert.match(text, /strongSwan: initiate to installed +30\.5 +30\.5 +30\.5/);
  assert.match(text, /strongSwan +IKE_SA_INIT 2, IKE_AUTH 2; 1 messages sent twice/);
});

test('the results page keeps every sample, in rows as wide as their heading', () => {
  const page = resultsPage(result, '2026-01-02', 'npm run bench');
  assert.match(page, /2026-01-02, by `npm run bench`/);
  const rows = page.split('\n').filter(line => line.startsWith('| ecdsa'));
  assert.equal(rows.length, 2);
  const width = (line: string) => line.split('|').length;
  assert.equal(width(rows[0]!), width(page.split('\n').find(line => line.startsWith('| key'))!));
});

test('an option out of its range is refused by name', () => {
  assert.equal(whole('--count', ' 15', 1, 100), 15);
  for (const text of ['', '-1', '0', '101', '1.5', 'ten'])
    assert.throws(() => whole('--count', text, 1, 100), /--count: expected a whole number from 1 to 100/);
});

// strongSwan's vici README.md, "Message encoding": element types 1 section start, 2 its end, 3 key/value, 4 list start,
// 5 list item, 6 list end; names behind one octet of length, values behind two.
test('vici packets are written as strongSwan documents them', () => {
  const message = { ike: 'p1', list: ['a'], in: { x: '' } };
  const expected = [
    `0008${hex('initiate')}`,
    `0303${hex('ike')}0002${hex('p1')}`,
    `0404${hex('list')}050001${hex('a')}06`,
    `0102${hex('in')}0301${hex('x')}000002`,
  ].join('');
  const bytes = composeViciPacket({ type: PACKET.COMMAND, name: 'initiate', message });
  assert.equal(bytes.toString('hex'), expected);
  assert.deepEqual(parseViciPacket(bytes), { type: PACKET.COMMAND, name: 'initiate', message });
});

test('every vici message comes back as it was written, and a packet cut short is refused', () => {
  const name = fc.stringMatching(/^[a-z0-9-]{1,20}$/);
  const value = fc.string({ maxLength: 40 });
  const { message } = fc.letrec<{ message: ViciMessage }>(tie => ({
    message: fc.dictionary(name, fc.oneof({ maxDepth: 3 }, value, fc.array(value), tie('message')), {
      noNullPrototype: true,
    }) as fc.Arbitrary<ViciMessage>,
  }));
  fc.assert(
    fc.property(message, given => {
      const packet = { type: PACKET.RESPONSE, message: given };
      assert.deepEqual(parseViciPacket(composeViciPacket(packet)), packet);
    }),
  );
  const bytes = composeViciPacket({ type: PACKET.EVENT, name: 'child-updown', message: { up: 'yes' } });
  assert.throws(() => parseViciPacket(bytes.subarray(0, -1)), RangeError);
  assert.throws(() => parseViciPacket(Buffer.of(PACKET.RESPONSE, 2)), /wrong place/);
});

test('exchanges are counted by request: retransmissions apart, fragments once, answers and others not', () => {
  const init = ike({ exchange: 34, messageId: 0, body: 'one' });
  const again = ike({ exchange: 34, messageId: 0, body: 'with a cookie' });
  const fragment = (n: number) => ike({ exchange: 35, messageId: 1, body: `part ${n}`, next: 53 });
  const answer = ike({ exchange: 34, messageId: 0, body: 'two', flags: 0x20 });
  const auth = ike({ exchange: 35, messageId: 1, body: 'proof' });
  const esp = Buffer.from('0102030400000001', 'hex');
  const pcap = capture([
    udp('10.9.0.1', 500, init),
    udp('10.9.0.1', 500, init),
    udp('10.9.0.1', 500, again),
    udp('10.9.0.2', 500, answer),
    udp('10.9.0.1', 500, fragment(1)),
    udp('10.9.0.1', 500, fragment(2)),
    udp('10.9.0.1', 4500, Buffer.concat([Buffer.alloc(4), auth])),
    udp('10.9.0.1', 4500, Buffer.concat([esp, Buffer.alloc(40, 1)])),
    udp('10.9.0.1', 53, init),
    udp('10.9.0.9', 500, init),
  ]);
  assert.deepEqual(countExchanges(pcap, '10.9.0.1'), {
    roundTrips: { IKE_SA_INIT: 2, IKE_AUTH: 2 },
    retransmitted: 1,
  });
  assert.deepEqual(countExchanges(pcap.subarray(0, 60), '10.9.0.1'), { roundTrips: {}, retransmitted: 0 });
  assert.throws(() => countExchanges(Buffer.alloc(40), '10.9.0.1'), /not a pcap/);
});

function hex(text: string): string {
  return Buffer.from(text).toString('hex');
}

/** An IKE message as far as it is read here (RFC 7296 §3.1). */
function ike(of: { exchange: number; messageId: number; body: string; next?: number; flags?: number }) {
  const header = Buffer.alloc(28);
  header.writeBigUInt64BE(0x1122334455667788n, 0);
  header.set([of.next ?? 33, 0x20, of.exchange, of.flags ?? 0x08], 16);
  header.writeUInt32BE(of.messageId, 20);
  header.writeUInt32BE(28 + of.body.length, 24);
  return Buffer.concat([header, Buffer.from(of.body)]);
}

function udp(source: string, port: number, payload: Buffer): Buffer {
  const frame = Buffer.alloc(42);
  frame.writeUInt16BE(0x0800, 12);
  frame[14] = 0x45;
  frame[23] = 17;
  frame.set(source.split('.').map(Number), 26);
  frame.writeUInt16BE(port, 34);
  frame.writeUInt16BE(port, 36);
  return Buffer.concat([frame, payload]);
}

function capture(packets: Buffer[]): Buffer {
  const header = Buffer.alloc(24);
  header.writeUInt32LE(0xa1b2c3d4, 0);
  header.writeUInt32LE(1, 20);
  const records = packets.flatMap(packet => {
    const record = Buffer.alloc(16);
    record.writeUInt32LE(packet.length, 8);
    record.writeUInt32LE(packet.length, 12);
    return [record, packet];
  });
  return Buffer.concat([header, ...records]);
}
