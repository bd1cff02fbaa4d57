import assert from 'node:assert/strict';
import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import test, { type TestContext } from 'node:test';
import { RCODE } from '../../../resolver/dns/types.ts';
import { AccessList } from '../../../resolver/stub/access.ts';
import { parseCidr } from '../../../resolver/address.ts';
import { composeResponse } from '../../../resolver/stub/answer.ts';
import { InFlight } from '../../../resolver/stub/in-flight.ts';
import { parseQuery, type StubQuery } from '../../../resolver/stub/query.ts';
import { Connections, type Receive } from '../../../resolver/stub/connections.ts';
import { serveFramed } from '../../../resolver/stub/framed.ts';
import type { StubAnswer } from '../../../resolver/stub/types.ts';
import { parseMessage } from '../../../resolver/dns/message.ts';
import type { DatagramSocket } from '../../../resolver/stub/sockets.ts';
import { KeptResponses } from '../../../resolver/stub/kept.ts';
import { UdpListener } from '../../../resolver/stub/udp-listener.ts';
import { frame } from '../../../resolver/upstream/tcp-framing.ts';
import { queryBytes } from './clients.ts';
import { until } from '../until.ts';
import { extendedErrors } from '../dns/extended-errors.ts';

function query(name: string): StubQuery {
  const parsed = parseQuery(new Uint8Array(queryBytes({ questions: [{ type: 'A', name }] })));
  assert.ok(parsed.kind === 'query');
  return parsed.query;
}

const client = (address: string) => ({ address, transport: 'udp' as const });
const never = () => new Promise<StubAnswer>(() => {});
const noError = (error: unknown) => assert.fail(String(error));

test('one client cannot take all the questions in flight', () => {
  const inFlight = new InFlight(never, () => 0, noError);
  const join = (i: number, address: string) =>
    inFlight.join(query(`n${i}.example`), client(address), () => {});
  let accepted = 0;
  for (let i = 0; i < 5000; i++) if (join(i, '192.0.2.1') !== undefined) accepted++;
  assert.equal(accepted, 1024);
  assert.ok(join(9000, '192.0.2.2'), 'others are served');
  assert.ok(join(5, '192.0.2.1'), 'waiting for what is asked already costs little');
  for (let i = 0; i < 9000; i++) join(10_000 + i, `198.51.100.${i % 200}`);
  assert.equal(inFlight.size, 4096);
  inFlight.close();
  assert.deepEqual([inFlight.size, inFlight.waiting], [0, 0]);
  assert.ok(join(1, '192.0.2.1'), 'nothing is left counted');
});

test('those who wait for one question are bounded as well', () => {
  const inFlight = new InFlight(never, () => 0, noError);
  let accepted = 0;
  for (let i = 0; i < 10_000; i++)
    if (inFlight.join(query('a.example'), client('192.0.2.1'), () => {})) accepted++;
  assert.equal(accepted, 8192);
  for (let i = 0; i < 10_000; i++)
    if (inFlight.join(query('a.example'), client('192.0.2.2'), () => {})) accepted++;
  assert.equal(accepted, 16_384);
});

test('what nobody answers is SERVFAIL after 10 s, and the handler is told', () => {
  let now = 0;
  const signals: AbortSignal[] = [];
  const answers: StubAnswer[] = [];
  const handler = (_question: unknown, signal: AbortSignal) => {
    signals.push(signal);
    return never();
  };
  const inFlight = new InFlight(handler, () => now, noError);
  inFlight.join(query('a.example'), client('192.0.2.1'), answer => answers.push(answer));
  now = 5000;
  inFlight.join(query('b.example'), client('192.0.2.1'), answer => answers.push(answer));
  now = 9999;
  inFlight.sweep();
  assert.equal(answers.length, 0);
  now = 10_000;
  inFlight.sweep();
  assert.equal(answers.length, 1);
  assert.deepEqual(
    signals.map(({ aborted }) => aborted),
    [true, false],
  );
  const message = parseMessage(composeResponse(query('a.example'), answers[0]!, 'udp'));
  assert.equal(message.rcode, RCODE.SERVFAIL);
  assert.match(extendedErrors(message.edns)[0]!.text, /10 s/);
  assert.deepEqual([inFlight.size, inFlight.waiting], [1, 1]);
});

test('one waiter whose delivery fails does not cost the others their answer', async () => {
  const errors: unknown[] = [];
  const answer: StubAnswer = { rcode: 0, authenticated: false, answer: [], authority: [] };
  const inFlight = new InFlight(
    async () => answer,
    () => 0,
    error => errors.push(error),
  );
  let delivered = 0;
  inFlight.join(query('a.example'), client('192.0.2.1'), () => {
    throw new Error('broken');
  });
  inFlight.join(query('a.example'), client('192.0.2.1'), () => delivered++);
  await new Promise(setImmediate);
  assert.equal(delivered, 1);
  assert.equal(errors.length, 1);
  assert.deepEqual([inFlight.size, inFlight.waiting], [0, 0]);
});

async function tcp(t: TestContext, receive: Receive) {
  const clock = { now: 0 };
  const listener = new Connections(() => clock.now);
  const server = net
    .createServer({ allowHalfOpen: true }, socket => {
      const place = listener.admit(socket);
      if (place !== undefined) serveFramed(socket, place, receive);
    })
    .listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const sockets: net.Socket[] = [];
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    listener.close();
    server.close();
  });
  const connect = async () => {
    const count = listener.counters.connections;
    const socket = net.connect(port, '127.0.0.1').on('error', () => {});
    sockets.push(socket);
    await until(() => listener.counters.connections !== count);
    return socket;
  };
  const closed = (socket: net.Socket) =>
    socket.closed ? Promise.resolve() : new Promise(resolve => socket.resume().on('close', resolve));
  return { listener, clock, connect, closed };
}

test('slow loris: a question that never ends does not keep a connection', async t => {
  const { listener, clock, connect, closed } = await tcp(t, () => 'answered');
  const loris = await connect();
  loris.write(Buffer.from([0, 40]));
  for (clock.now = 0; clock.now < 15_000; clock.now += 1000) {
    loris.write(Buffer.from([1]));
    await new Promise(setImmediate);
    listener.sweep();
    assert.equal(listener.size, 1);
  }
  listener.sweep();
  await closed(loris);
  assert.equal(listener.counters.idle, 1);
});

test('an outstanding question keeps its connection, whatever the clock says', async t => {
  let respond: ((response: Uint8Array) => void) | undefined;
  const { listener, clock, connect, closed } = await tcp(t, (_bytes, _address, done) => {
    respond = done;
    return () => {};
  });
  const socket = await connect();
  socket.write(frame(queryBytes()));
  await until(() => respond !== undefined);
  clock.now = 60_000;
  listener.sweep();
  assert.equal(listener.size, 1);
  respond!(Buffer.from([1]));
  listener.sweep();
  await closed(socket);
});

test('with all places taken the longest idle one goes, never one that waits for an answer', async t => {
  const { listener, clock, connect, closed } = await tcp(t, () => () => {});
  const busy = await connect();
  busy.write(frame(queryBytes()));
  const idle: net.Socket[] = [];
  // 256 for one client
  while (idle.length < 255) {
    clock.now++;
    idle.push(await connect());
  }
  await until(() => busy.bytesWritten !== 0);
  assert.equal(listener.size, 256);
  clock.now++;
  await connect();
  await closed(idle[0]!);
  assert.equal(listener.size, 256);
  assert.equal(listener.counters.evicted, 1);
  assert.equal(busy.closed, false);
});

test('answers that are not fetched do not pile up', async t => {
  const huge = new Uint8Array(60_000);
  const { listener, connect, closed } = await tcp(t, (_bytes, _address, respond) => {
    respond(huge);
    return 'answered';
  });
  const socket = await connect();
  socket.pause();
  const question = frame(queryBytes());
  await until(() => {
    socket.write(question);
    return listener.counters.misbehaved === 1;
  });
  await closed(socket);
});

test('the access list knows families, zones and mapped addresses', () => {
  const list = new AccessList(
    ['127.0.0.0/8', '192.0.2.0/25', '2001:db8::/32', 'fe80::/10'].map(text => parseCidr(text)!),
  );
  const allowed = [
    '127.0.0.1',
    '127.255.255.255',
    '192.0.2.127',
    '::ffff:192.0.2.1',
    '2001:db8:ffff::1',
    'fe80::1%eth0',
  ];
  const denied = ['128.0.0.1', '192.0.2.128', '::1', '2001:db9::', '::ffff:192.0.2.200', '', 'nonsense'];
  for (let round = 0; round < 2; round++) {
    for (const address of allowed) assert.equal(list.allows(address), true, address);
    for (const address of denied) assert.equal(list.allows(address), false, address);
  }
  assert.equal(new AccessList([]).allows('127.0.0.1'), false);
});

test('a datagram from port 0, where no answer can go, is dropped and counted', () => {
  const payload = new Uint8Array(queryBytes());
  let read: (() => void) | undefined;
  let waiting = 1;
  const listener = new UdpListener(
    { address: '127.0.0.1', port: 5353 },
    {
      open: ({ onReadable }) => {
        const socket = {
          port: 5353,
          payload,
          slotOctets: 4096,
          receive: () => waiting--,
          lengthOf: () => payload.length,
          portOf: () => 0,
          flush: () => {},
          counters: { sendErrors: 0, receiveErrors: 0, tooLong: 0 },
        } as unknown as DatagramSocket;
        read = () => onReadable(socket);
        return socket;
      },
      access: new AccessList([parseCidr('127.0.0.0/8')!]),
      kept: new KeptResponses({ now: () => 0, wallClock: () => 0, hashKeys: new Uint32Array(2) }),
      receive: () => assert.fail('it was taken for a question'),
    },
  );
  read!();
  assert.deepEqual([listener.counters().udp, listener.counters().dropped], [1, 1]);
});

test('an IPv6 client is its /64, whatever address of it asks', () => {
  const inFlight = new InFlight(never, () => 0, noError);
  let accepted = 0;
  for (let i = 0; i < 3000; i++) {
    const at = client(`2001:db8::${i.toString(16)}`);
    if (inFlight.join(query(`n${i}.example`), at, () => {})) accepted++;
  }
  assert.equal(accepted, 1024);
  assert.ok(inFlight.join(query('m.example'), client('2001:db8:0:1::1'), () => {}));
  assert.ok(inFlight.join(query('o.example'), client('::ffff:192.0.2.1'), () => {}));
});
