/** What a running daemon is sent by those who mean it no good, from either side; everybody else keeps his service. */
import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';
import test, { type TestContext } from 'node:test';
import { parseMessage } from '../../resolver/dns/message.ts';
import { RCODE, TYPE } from '../../resolver/dns/types.ts';
import { frame } from '../../resolver/upstream/tcp-framing.ts';
import type { Packet } from './dns-packet.ts';
import { type RunningDaemon, runDaemon } from './running-daemon.ts';
import { overTcp, overUdp, queryBytes } from './stub/clients.ts';
import { type Asked, fakeServer } from './upstream/fake-server.ts';
import { extendedErrors } from './dns/extended-errors.ts';

const ADDRESS = '192.0.2.1';
const FORGED = '203.0.113.66';

/** The answer of an unsigned zone: this address for A, nothing for all else. The question comes back octet by octet. */
function answerTo({ bytes }: Asked, address = ADDRESS): Buffer {
  let end = 12;
  while (bytes[end] !== 0) end += bytes[end]! + 1;
  const type = bytes.readUInt16BE(end + 1);
  end += 5;
  const head = Buffer.from(bytes.subarray(0, end));
  head.writeUInt16BE(0x8190, 2); // QR, RD, RA, CD
  head.writeUInt16BE(type === TYPE.A ? 1 : 0, 6);
  head.writeUInt16BE(type === TYPE.A ? 0 : 1, 8);
  const rdata = type === TYPE.A ? address.split('.').map(Number) : [0, 0, ...new Array(19).fill(0), 60];
  const record = [0xc0, 12, 0, type === TYPE.A ? 1 : 6, 0, 1, 0, 0, 1, 44, 0, rdata.length, ...rdata];
  return Buffer.concat([head, Buffer.from(record), Buffer.from([0, 0, 41, 4, 208, 0, 0, 128, 0, 0, 0])]);
}

async function setUp(t: TestContext, answer: (asked: Asked) => unknown): Promise<RunningDaemon> {
  const server = await fakeServer(answer);
  t.after(() => server.close());
  return runDaemon(t, server);
}

const honest = (asked: Asked) => asked.reply(answerTo(asked));
const question = (name: string, change: Packet = {}) =>
  queryBytes({ questions: [{ type: 'A', name, class: 'IN' }], ...change });

/** Somebody else's question over UDP and what he gets. */
async function served({ at }: RunningDaemon, name: string): Promise<string> {
  const { rcode, answer, edns } = parseMessage(await overUdp(at, question(name), '127.0.0.1'));
  assert.equal(rcode, RCODE.NOERROR, `${name}: ${extendedErrors(edns)[0]?.text}`);
  return answer.map(({ rdata }) => rdata.join('.')).join();
}

test('forged answers before, beside and after the true one: none is believed, all are counted', async t => {
  let forged = 0;
  const daemon = await setUp(t, asked => {
    if (asked.transport === 'tcp') return honest(asked);
    const lie = (at: number, flip: number): void => {
      const bytes = answerTo(asked, FORGED);
      bytes[at]! ^= flip;
      asked.reply(bytes);
      forged++;
    };
    lie(1, 1); // the ID
    lie(14, 1); // a letter of the name
    lie(14, 0x21); // and its case
    asked.replyFromElsewhere(answerTo(asked, FORGED));
    asked.reply(answerTo(asked, FORGED).subarray(0, 11));
    honest(asked);
    // Late: the question has its answer. The second copy, then other data for it.
    honest(asked);
    setImmediate(() => asked.reply(answerTo(asked, FORGED)));
  });
  for (let i = 0; i < 20; i++) assert.equal(await served(daemon, `www${i}.example`), ADDRESS);
  for (let i = 0; i < 20; i++) assert.equal(await served(daemon, `www${i}.example`), ADDRESS, 'nor kept');
  const counters = await daemon.counters();
  assert.ok(counters['upstream.foreign']! > 0 && forged > 0);
  assert.deepEqual([counters['stub.inFlight'], counters['stub.waiting']], [0, 0]);
});

test('answers that lie about their own bytes are no answers, and the next question is a new one', async t => {
  let spoil = true;
  const daemon = await setUp(t, asked => {
    if (!spoil) return honest(asked);
    const bytes = answerTo(asked);
    bytes.writeUInt16BE(40_000, 6); // ANCOUNT
    asked.reply(bytes);
  });
  const refused = parseMessage(await overUdp(daemon.at, question('a.example')));
  assert.deepEqual([refused.rcode, refused.answer.length], [RCODE.SERVFAIL, 0]);
  spoil = false;
  assert.equal(await served(daemon, 'b.example'), ADDRESS);
});

test('a flood of names nobody answers takes one client his share, and nobody else his service', async t => {
  const daemon = await setUp(t, asked => {
    if (!asked.query.questions![0]!.name.startsWith('dead')) honest(asked);
  });
  const flooder = dgram.createSocket('udp4').bind(0, '127.0.0.66');
  await once(flooder, 'listening');
  t.after(() => flooder.close());
  for (let i = 0; i < 4000; i++) {
    flooder.send(question(`dead${i}.x${i}.test-zone.org`), daemon.at.port, daemon.at.address);
    if (i % 100 === 99) await new Promise(setImmediate);
  }
  let counters = await daemon.counters();
  while (counters['stub.udp']! < 3500) counters = await daemon.counters();
  assert.ok(counters['stub.inFlight']! <= 1024, String(counters['stub.inFlight']));
  assert.ok(counters['stub.overloaded']! + counters['upstream.overloaded']! > 0);
  for (let i = 0; i < 20; i++) assert.equal(await served(daemon, `alive${i}.example`), ADDRESS);
});

test('a flood of connections displaces itself; who was there before goes on', async t => {
  const daemon = await setUp(t, honest);
  const honestClient = await overTcp(daemon.at);
  honestClient.ask(question('first.example'));
  await honestClient.received(1);
  const flood: net.Socket[] = [];
  t.after(() => {
    for (const socket of flood) socket.destroy();
  });
  let counters = await daemon.counters();
  // In waves, so that the kernel's own queue is not what stops them.
  for (let wave = 1; wave <= 20; wave++) {
    for (let i = 0; i < 50; i++) {
      const { port, address: host } = daemon.at;
      const localAddress = `127.0.0.${66 + (i % 3)}`;
      flood.push(net.connect({ port, host, localAddress }).on('error', () => {}));
    }
    while (counters['stub.tcp.connections']! < 1 + wave * 50) counters = await daemon.counters();
  }
  assert.ok(counters['stub.tcpConnections']! <= 512);
  assert.ok(counters['stub.tcp.evicted']! >= 1001 - 512);
  honestClient.ask(question('second.example'));
  await honestClient.received(2);
  const late = await overTcp(daemon.at);
  late.ask(question('third.example'));
  await late.received(1);
  for (const { socket } of [honestClient, late]) socket.destroy();
});

test('half questions, single octets and answers never read hold places, and no more than that', async t => {
  const daemon = await setUp(t, honest);
  const sockets: net.Socket[] = [];
  t.after(() => {
    for (const socket of sockets) socket.destroy();
  });
  const connect = async () => {
    const socket = net.connect(daemon.at.port, daemon.at.address).on('error', () => {});
    await once(socket, 'connect');
    sockets.push(socket);
    return socket;
  };
  const whole = frame(question('slow.example'));
  const [half, dripping, deaf] = [await connect(), await connect(), await connect()];
  half.write(whole.subarray(0, 9));
  deaf.pause();
  for (const octet of whole) {
    dripping.write(Uint8Array.of(octet));
    await new Promise(setImmediate);
  }
  const [answer] = (await once(dripping, 'data')) as [Buffer];
  assert.equal(parseMessage(answer.subarray(2)).answer.length, 1, 'slow is no crime');
  // Until the kernel's buffers and ours are full, which ends the connection or stops our reading.
  const burst = Buffer.concat(Array.from({ length: 200 }, () => whole));
  let sent = 0;
  while (!deaf.closed && !deaf.writableNeedDrain && sent < 2000) {
    deaf.write(burst);
    sent++;
    await new Promise(setImmediate);
  }
  assert.equal(await served(daemon, 'other.example'), ADDRESS);
  const counters = await daemon.counters();
  assert.ok(counters['stub.tcpConnections']! <= 3);
  assert.equal(counters['stub.inFlight'], 0);
});

test('responses sent to us get no response', async t => {
  const daemon = await setUp(t, honest);
  const socket = dgram.createSocket('udp4').bind(0, '127.0.0.1');
  await once(socket, 'listening');
  t.after(() => socket.close());
  socket.on('message', () => assert.fail('answered'));
  const response = question('a.example');
  response[2]! |= 0x80;
  for (let i = 0; i < 50; i++) socket.send(response, daemon.at.port, daemon.at.address);
  let counters = await daemon.counters();
  while (counters['stub.dropped']! < 50) counters = await daemon.counters();
  assert.equal(await served(daemon, 'b.example'), ADDRESS);
  assert.equal((await daemon.counters())['stub.asked'], 1);
});

test('names without number are answered, and nothing of them is left but what the caches may hold', async t => {
  const daemon = await setUp(t, honest);
  const client = await overTcp(daemon.at);
  for (let from = 0; from < 3000; from += 60) {
    for (let i = from; i < from + 60; i++) client.ask(question(`n${i}.z${i % 97}.example`, { id: i }));
    await client.received(from + 60);
  }
  assert.ok(client.answers.every(({ rcode }) => rcode === 'NOERROR'));
  client.socket.destroy();
  const counters = await daemon.counters();
  for (const held of ['stub.inFlight', 'stub.waiting', 'cache.inFlight', 'upstream.waiting'])
    assert.equal(counters[held], 0, held);
});
