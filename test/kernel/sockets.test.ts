// UDP sockets of the addon on loopback: local addresses, batches, refusals, and their end, in this thread and in workers.
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import test from 'node:test';
import { Worker } from 'node:worker_threads';
import { native } from '../../kernel/native/binding.ts';
import { type Datagram, openUdp, type SocketEndpoint, type UdpSocket } from '../../kernel/sockets.ts';

const loopback = {
  4: Uint8Array.of(127, 9, 9, 9),
  6: Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1),
} as const;

/** Collects what arrives until `count` datagrams are there. */
function collect(count: number, options: { family: 4 | 6; maxDatagramOctets?: number; batch?: number }) {
  const got: Datagram[] = [];
  const done = Promise.withResolvers<Datagram[]>();
  const socket: UdpSocket = openUdp({
    ...options,
    onReadable: socket => {
      got.push(...socket.receiveBatch());
      if (got.length >= count) done.resolve(got);
    },
  });
  return { socket, done: done.promise, endpoint: at(options.family, socket.port) };
}

function at(family: 4 | 6, port: number): SocketEndpoint {
  return { address: { family, bytes: loopback[family] }, port };
}

for (const family of [4, 6] as const) {
  test(`IPv${family}: a datagram tells where it was sent to, and the answer leaves from there`, async () => {
    const server = collect(1, { family });
    const client = collect(1, { family });
    assert.equal(client.socket.send(Buffer.from('question'), server.endpoint), undefined);
    const [question] = await server.done;
    assert.equal(Buffer.from(question!.data).toString(), 'question');
    assert.deepEqual(question!.local, server.endpoint);
    assert.equal(question!.remote.port, client.socket.port);
    assert.equal(
      server.socket.send(Buffer.from('answer'), question!.remote, question!.local.address),
      undefined,
    );
    const [answer] = await client.done;
    assert.deepEqual(answer!.remote, server.endpoint);
    server.socket.close();
    client.socket.close();
  });
}

test('eighty datagrams leave and arrive in batches', async () => {
  const server = collect(80, { family: 4, batch: 32, maxDatagramOctets: 2048 });
  const client = openUdp({ family: 4 });
  const data = Array.from({ length: 80 }, (_, i) => Buffer.alloc(1 + i * 3, i));
  const datagrams = data.map(each => ({ data: each, remote: server.endpoint }));
  assert.equal(client.sendBatch(datagrams), 80);
  const got = await server.done;
  assert.deepEqual(
    got.map(({ data }) => Buffer.from(data)),
    data,
  );
  server.socket.close();
  client.close();
});

test('answers in place leave in batches, and only for those that have one', async () => {
  // Odd ones are answered in place with one octet more, every fourth later, the others never; every fifth is too long.
  const numbers = Array.from({ length: 60 }, (_, i) => i + 1);
  const expected = numbers
    .filter(i => i % 5 !== 0 && (i % 2 === 1 || i % 4 === 0))
    .map(i => (i % 2 === 1 ? [...Array(1 + (i % 7)).fill(i), 0xff] : [i, 0xee]));
  const client = collect(expected.length, { family: 4 });
  const server = openUdp({
    family: 4,
    maxDatagramOctets: 64,
    batch: 16,
    onReadable: socket => {
      const count = socket.receive();
      for (let i = 0; i < count; i++) {
        const start = i * socket.slotOctets;
        assert.equal(socket.portOf(i), client.socket.port);
        assert.deepEqual(socket.senders.slice(socket.senderAt(i), socket.senderAt(i) + 4), loopback[4]);
        const [first, length] = [socket.payload[start]!, socket.lengthOf(i)];
        if (length === 0) continue;
        if (first % 2 === 1) {
          socket.payload[start + length] = 0xff;
          socket.answer(i, length + 1);
        } else if (first % 4 === 0) {
          const envelope = socket.envelopeOf(i);
          setImmediate(() => assert.equal(socket.sendBack(envelope, Uint8Array.of(first, 0xee)), true));
        }
      }
      socket.flush();
      // A second time there is nothing left to send.
      socket.flush();
    },
  });
  const local = { family: 4 as const, bytes: loopback[4] };
  for (const i of numbers) {
    const data = new Uint8Array(i % 5 === 0 ? 65 : 1 + (i % 7)).fill(i);
    assert.equal(client.socket.send(data, at(4, server.port), local), undefined);
  }
  const got = await client.done;
  assert.deepEqual(got.map(({ data }) => [...data]).sort(), expected.sort());
  for (const { remote } of got) assert.deepEqual(remote, at(4, server.port));
  assert.equal(server.counters.tooLong, 12);
  assert.equal(server.counters.sent, expected.length);
  client.socket.close();
  server.close();
  assert.deepEqual([server.receive(), server.sendBack(new Uint8Array(64), new Uint8Array(1))], [0, false]);
});

test('what is longer than wanted is counted, and what is too long for UDP is refused', async () => {
  const server = collect(1, { family: 4, maxDatagramOctets: 100 });
  const client = openUdp({ family: 4 });
  assert.equal(client.send(new Uint8Array(101), server.endpoint), undefined);
  assert.equal(client.send(new Uint8Array(70_000), server.endpoint), 'EMSGSIZE');
  const mixed = [new Uint8Array(70_000), new Uint8Array(100)].map(data => ({
    data,
    remote: server.endpoint,
  }));
  assert.equal(client.sendBatch(mixed), 1);
  const [received] = await server.done;
  assert.equal(received!.data.length, 100);
  assert.deepEqual([server.socket.counters.tooLong, server.socket.counters.received], [1, 1]);
  assert.deepEqual([client.counters.sent, client.counters.sendErrors], [2, 2]);
  server.socket.close();
  client.close();
});

test('a refusal names the step; an address of the other family is refused', () => {
  const taken = openUdp({ family: 4, address: loopback[4] });
  assert.throws(() => openUdp({ family: 4, address: loopback[4], port: taken.port }), {
    name: 'KernelError',
    verb: 'bind',
    code: 'EADDRINUSE',
  });
  assert.equal(taken.send(Uint8Array.of(1), at(6, 9)), 'EAFNOSUPPORT');
  const long = { address: { family: 4 as const, bytes: new Uint8Array(40) }, port: 9 };
  assert.equal(taken.send(Uint8Array.of(1), long), 'EAFNOSUPPORT');
  assert.deepEqual(taken.boundAddress.bytes, loopback[4]);
  taken.close();
});

test('what a handler throws is an uncaught exception, as with any callback', async () => {
  const worker = new Worker(
    `
    const { parentPort, workerData } = require('node:worker_threads');
    process.on('uncaughtException', error => { parentPort.postMessage(error.message); process.exit(); });
    import(workerData).then(({ openUdp }) => {
      const socket = openUdp({ family: 4, onReadable: s => { s.receiveBatch(); throw new Error('thrown by the handler'); } });
      openUdp({ family: 4 }).send(Uint8Array.of(1), { address: { family: 4, bytes: Uint8Array.of(127, 0, 0, 1) }, port: socket.port });
    });`,
    { eval: true, workerData: new URL('../../kernel/sockets.ts', import.meta.url).href },
  );
  assert.equal(await new Promise(resolve => worker.once('message', resolve)), 'thrown by the handler');
});

test('a second close does nothing; a closed socket neither sends nor receives', () => {
  const socket = openUdp({ family: 4, onReadable: () => {} });
  const other = openUdp({ family: 4 });
  socket.close();
  const next = openUdp({ family: 4 });
  socket.close();
  assert.equal(
    next.send(Uint8Array.of(1), at(4, other.port)),
    undefined,
    'the second close took a stranger’s socket',
  );
  assert.equal(socket.send(Uint8Array.of(1), at(4, other.port)), 'EBADF');
  assert.deepEqual([socket.receiveBatch(), socket.sendBatch([])], [[], 0]);
  other.close();
  next.close();
});

test('the addon closes only what it opened, and refuses arguments of a wrong type', () => {
  const calls = native();
  assert.equal(calls.close(0), -9);
  assert.equal(calls.close(-1), -9);
  assert.throws(() => calls.close('0' as unknown as number), TypeError);
  assert.throws(() => calls.send(1, 'text' as unknown as Uint8Array), TypeError);
  assert.throws(() => (calls.bind as (fd: number) => number)(1), TypeError);
  const fd = calls.socket(2, 2, 0);
  const records = new Uint8Array(64);
  assert.equal(calls.receiveMessages(fd, new Uint8Array(0), 10, records), -22);
  assert.equal(calls.receiveMessages(fd, new Uint8Array(10), 0, records), -22);
  assert.equal(calls.sendMessages(fd, new Uint8Array(10), 10, records, 1, 1), -22);
  assert.equal(calls.sendMessages(fd, new Uint8Array(10), 10, records, 2, 1), -22);
  new DataView(records.buffer).setUint32(0, 11, true);
  assert.equal(
    calls.sendMessages(fd, new Uint8Array(10), 10, records, 0, 1),
    -90,
    'a record longer than its slot',
  );
  assert.equal(calls.close(fd), 0);
  assert.equal(calls.close(fd), -9);
});

test('workers that end with open, polled sockets leave no descriptor behind', async () => {
  const descriptors = () => readdirSync('/proc/self/fd').length;
  const once = async () => {
    const worker = new Worker(
      `
      const { parentPort, workerData } = require('node:worker_threads');
      import(workerData).then(({ openUdp }) => {
        for (let i = 0; i < 10; i++) openUdp({ family: 4, ...(i % 2 && { onReadable: s => s.receiveBatch() }) });
        parentPort.postMessage('open');
      });`,
      { eval: true, workerData: new URL('../../kernel/sockets.ts', import.meta.url).href },
    );
    await new Promise(resolve => worker.once('message', resolve));
    await worker.terminate();
  };
  await once();
  const before = descriptors();
  for (let i = 0; i < 5; i++) await once();
  assert.ok(descriptors() <= before, `${descriptors()} descriptors, ${before} before`);
});
