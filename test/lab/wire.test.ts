import assert from 'node:assert/strict';
import test from 'node:test';
import { countWire } from './wire.ts';

// Frames composed by hand from the header diagrams of RFC 791 §3.1, RFC 8200 §3, RFC 9293 §3.1, RFC 768, RFC 3948 §2.
const ethernet4 = '02000000000b' + '02000000000a' + '0800';
const ethernet6 = '02000000000b' + '02000000000a' + '86dd';
/** IPv4 header without options, checksum left zero (nothing here reads it), 10.9.0.1 to 10.9.0.2. */
const ip4 = (protocol: number, payload: string) =>
  `${ethernet4}4500${hex16(20 + payload.length / 2)}0000000040${hex8(protocol)}00000a0900010a090002${payload}`;
/** fd09::1 to fd09::2. */
const ip6 = (next: number, payload: string) =>
  `${ethernet6}60000000${hex16(payload.length / 2)}${hex8(next)}40${'fd09'.padEnd(31, '0')}1${'fd09'.padEnd(31, '0')}2${payload}`;
const udp = (from: number, to: number, data: string) =>
  `${hex16(from)}${hex16(to)}${hex16(8 + data.length / 2)}0000${data}`;
const tcp = (from: number, to: number, sequence: string, flags: string) =>
  `${hex16(from)}${hex16(to)}${sequence}0000000050${flags}ffff00000000`;

const hex8 = (n: number) => n.toString(16).padStart(2, '0');
const hex16 = (n: number) => n.toString(16).padStart(4, '0');

/** File header of pcap (magic a1b2c3d4, version 2.4, snap length 262144, link type 1), then each frame with its record header. */
function pcap(...frames: string[]): Buffer {
  const bytes = frames.map(frame => Buffer.from(frame, 'hex'));
  const header = Buffer.from('d4c3b2a102000400' + '0000000000000000' + '0000040001000000', 'hex');
  const records = bytes.map(frame => {
    const record = Buffer.alloc(16);
    record.writeUInt32LE(frame.length, 8);
    record.writeUInt32LE(frame.length, 12);
    return Buffer.concat([record, frame]);
  });
  return Buffer.concat([header, ...records]);
}

const alice = ['10.9.0.1', 'fd09::1'];
const bob = ['10.9.0.2', 'fd09::2'];

function kinds(...frames: string[]): Record<string, number> {
  const { clearPackets: _, ...counts } = countWire(pcap(...frames), alice, bob);
  return Object.fromEntries(Object.entries(counts).filter(([, count]) => count > 0));
}

test('each packet is what an onlooker takes it for', () => {
  assert.deepEqual(kinds(ip4(50, '00000100' + '00000001')), { esp: 1 });
  assert.deepEqual(kinds(ip6(50, '00000100' + '00000001')), { esp: 1 });
  assert.deepEqual(kinds(ip4(17, udp(500, 500, '0011223344556677'))), { ike: 1 });
  assert.deepEqual(kinds(ip6(17, udp(4500, 4500, '00000000' + '0011223344556677'))), { ike: 1 });
  assert.deepEqual(kinds(ip4(17, udp(4500, 4500, 'ff'))), { ike: 1 });
  assert.deepEqual(kinds(ip4(17, udp(4500, 4500, 'c0ffee00' + '00000001'))), { esp: 1 });
  assert.deepEqual(kinds(ip4(17, udp(40000, 53, '1234'))), { dns: 1 });
  assert.deepEqual(kinds(ip6(58, '87000000')), { neighbour: 1 });
  assert.deepEqual(kinds(`${'ff'.repeat(6)}02000000000a0806${'00'.repeat(28)}`), { neighbour: 1 });
  assert.deepEqual(kinds(ip4(1, '0800000000000000')), { clear: 1 });
  assert.deepEqual(kinds(ip6(58, '8000000000000000')), { clear: 1 });
  assert.deepEqual(kinds(ip4(17, udp(40000, 7, '78'))), { clear: 1 });
});

test('a SYN seen twice is a lost SYN; another port or sequence number is another connection', () => {
  const syn = tcp(40000, 80, '00000001', '02');
  assert.deepEqual(kinds(ip4(6, syn), ip4(6, tcp(40001, 80, '00000001', '02'))), { clear: 2 });
  assert.deepEqual(kinds(ip4(6, syn), ip4(6, tcp(40000, 80, '00000001', '10'))), { clear: 2 });
  assert.deepEqual(kinds(ip4(6, syn), ip4(6, syn), ip4(6, syn)), { clear: 3, lostSyn: 2 });
  assert.deepEqual(kinds(ip6(6, syn), ip6(6, syn)), { clear: 2, lostSyn: 1 });
});

test('packets of others do not count, and an error message can name those that do', () => {
  const clear = pcap(ip4(17, udp(40000, 7, '78')));
  assert.equal(countWire(clear, ['10.9.0.3'], ['10.9.0.2']).clear, 0);
  assert.equal(countWire(clear, ['10.9.0.2'], ['10.9.0.1']).clear, 1);
  assert.deepEqual(countWire(clear).clearPackets, ['10.9.0.1.40000 > 10.9.0.2.7 UDP']);
});

test('a capture that ends in the middle of a packet counts up to there; what is no capture is refused', () => {
  const two = pcap(ip4(50, '0000010000000001'), ip4(50, '0000010000000002'));
  for (let cut = 1; cut <= 42 + 16; cut++) assert.equal(countWire(two.subarray(0, two.length - cut)).esp, 1);
  assert.throws(() => countWire(two.subarray(0, 20)), /not a pcap/);
  assert.throws(() => countWire(Buffer.alloc(24)), /not a pcap/);
});

test('no bytes make the reader fail: every prefix of every frame counts as something', () => {
  const frames = [ip4(17, udp(4500, 4500, 'ff')), ip4(6, tcp(1, 2, '00000001', '02')), ip6(58, '87000000')];
  for (const frame of frames) {
    for (let length = 0; length <= frame.length; length += 2) countWire(pcap(frame.slice(0, length)));
  }
});
