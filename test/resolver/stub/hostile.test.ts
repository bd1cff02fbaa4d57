import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import test from 'node:test';
import fc from 'fast-check';
import { openUdp } from '../../../kernel/sockets.ts';
import { parseCidr } from '../../../resolver/address.ts';
import { parseMessage } from '../../../resolver/dns/message.ts';
import { CLASS, TYPE } from '../../../resolver/dns/types.ts';
import { composeError, composeHeaderError, composeResponse } from '../../../resolver/stub/answer.ts';
import { parseQuery } from '../../../resolver/stub/query.ts';
import { Stub } from '../../../resolver/stub/stub.ts';
import type { StubAnswer, StubQuestion } from '../../../resolver/stub/types.ts';
import { overTcp, overUdp, queryBytes } from './clients.ts';
import { until } from '../until.ts';

const seeds = [
  queryBytes(),
  queryBytes({ edns: false }),
  queryBytes({ edns: { do: true, udpSize: 4096 } }),
  queryBytes({ questions: [{ type: 'TXT', name: 'version.bind', class: 'CH' }] }),
];

/** Real queries with some octets changed, cut or added. */
const mutant = fc
  .tuple(
    fc.constantFrom(...seeds),
    fc.array(fc.tuple(fc.nat(), fc.nat({ max: 7 })), { maxLength: 12 }),
    fc.nat({ max: 60 }),
    fc.uint8Array({ maxLength: 20 }),
  )
  .map(([seed, flips, cut, tail]) => {
    const bytes = new Uint8Array(seed);
    for (const [at, bit] of flips) bytes[at % bytes.length]! ^= 1 << bit;
    return cut < 30 ? bytes : new Uint8Array([...bytes.subarray(0, bytes.length - (cut - 30)), ...tail]);
  });

function addressOf({ name, type }: StubQuestion): StubAnswer {
  const rdatas = [Uint8Array.of(192, 0, 2, 1)];
  const answer =
    type === TYPE.A ? [{ name, type, class: CLASS.IN, ttlSeconds: 1, rdatas, signatures: [] }] : [];
  return { rcode: 0, authenticated: false, answer, authority: [] };
}

test('whatever is parsed can be answered, and the answer is a message', () => {
  fc.assert(
    fc.property(fc.oneof(mutant, fc.uint8Array({ maxLength: 100 })), bytes => {
      const parsed = parseQuery(bytes);
      if (parsed.kind === 'drop') {
        assert.ok(bytes.length < 12 || (bytes[2]! & 0x80) !== 0);
        return;
      }
      const { query } = parsed;
      const response =
        parsed.kind === 'query'
          ? composeResponse(
              parsed.query,
              addressOf({ name: parsed.query.name, type: TYPE.A } as StubQuestion),
              'udp',
            )
          : query === undefined
            ? composeHeaderError(bytes, parsed.rcode)
            : composeError(query, parsed.rcode);
      const message = parseMessage(response);
      assert.equal(message.response, true);
      assert.equal(message.id, (bytes[0]! << 8) | bytes[1]!);
      if (parsed.kind === 'query') assert.ok(message.questions[0]!.name.equals(parsed.query.name));
    }),
    { numRuns: 20_000 },
  );
});

test('what is read in place is read as the whole parser reads it', () => {
  fc.assert(
    fc.property(mutant, bytes => {
      const parsed = parseQuery(bytes);
      if (parsed.kind !== 'query') return;
      const { name, type, edns, checkingDisabled, authenticData } = parsed.query;
      const message = parseMessage(bytes);
      assert.ok(message.questions[0]!.name.equals(name));
      assert.equal(message.questions[0]!.type, type);
      assert.deepEqual([message.checkingDisabled, message.authenticData], [checkingDisabled, authenticData]);
      assert.equal(message.edns?.dnssecOk, edns?.dnssecOk);
      if (edns) assert.equal(message.edns!.udpSize, Math.max(512, edns.udpSize));
    }),
    { numRuns: 5000 },
  );
});

test('the listeners outlive everything thrown at them', async t => {
  const handler = async (question: StubQuestion) => addressOf(question);
  const stub = new Stub({
    openUdp,
    listen: [{ address: '127.0.0.1', port: 0 }],
    access: [parseCidr('127.0.0.0/8')!],
    handler,
  });
  await stub.start();
  t.after(() => stub.close());
  const at = stub.addresses()[0]!;

  const socket = dgram.createSocket('udp4');
  t.after(() => socket.close());
  for (const [i, bytes] of fc.sample(mutant, 3000).entries()) {
    socket.send(bytes, at.port, at.address);
    if (i % 50 === 0) await overUdp(at, queryBytes());
  }

  // One message as full of compression pointers as it can be: names that are chains through the whole message.
  const bomb = Buffer.alloc(4096);
  queryBytes().copy(bomb, 0, 0, 12);
  bomb.writeUInt16BE(1, 4);
  bomb.writeUInt16BE(0xffff, 10);
  for (let at = 12; at + 1 < bomb.length; at += 2) bomb.writeUInt16BE(0xc000 | (at - 2), at);
  const client = await overTcp(at);
  for (let i = 0; i < 100; i++) client.ask(bomb);
  await client.received(100);
  assert.ok(client.answers.every(({ rcode }) => rcode === 'FORMERR'));
  client.socket.destroy();

  // The same behind a good question, where additional records stand.
  const good = queryBytes({ edns: false });
  const behind = Buffer.concat([good, bomb.subarray(good.length)]);
  behind.writeUInt16BE(300, 10);
  const second = await overTcp(at);
  for (let i = 0; i < 100; i++) second.ask(behind);
  await second.received(100);
  assert.ok(second.answers.every(({ rcode }) => rcode === 'FORMERR'));
  second.socket.destroy();

  // 64 KB of nothing in particular.
  for (const fill of [0x00, 0x01, 0x0f, 0xff]) {
    const garbage = await overTcp(at);
    garbage.socket.write(Buffer.alloc(65_536, fill));
    garbage.socket.end();
    garbage.socket.resume();
    await garbage.closed;
  }
  await overUdp(at, queryBytes());
  await until(() => stub.counters().tcpConnections! <= 0);
  assert.deepEqual([stub.counters().inFlight, stub.counters().waiting, stub.counters().failed], [0, 0, 0]);
});
