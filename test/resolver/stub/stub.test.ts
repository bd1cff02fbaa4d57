import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';
import test, { type TestContext } from 'node:test';
import { openUdp } from '../../../kernel/sockets.ts';
import type { Cidr, SocketAddress } from '../../../resolver/address.ts';
import { parseCidr } from '../../../resolver/address.ts';
import { parseMessage } from '../../../resolver/dns/message.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { CLASS, RCODE, TYPE } from '../../../resolver/dns/types.ts';
import { Stub, type StubConfig } from '../../../resolver/stub/stub.ts';
import type { StubAnswer, StubHandler, StubQuestion } from '../../../resolver/stub/types.ts';
import { dnsPacket } from '../dns-packet.ts';
import { dig, overTcp, overUdp, queryBytes } from './clients.ts';
import { until } from '../until.ts';
import { extendedErrors } from '../dns/extended-errors.ts';

const LOOPBACK: Cidr[] = [parseCidr('127.0.0.0/8')!, parseCidr('::1')!];

function addressOf({ name, type }: StubQuestion, count = 1): StubAnswer {
  const rdatas = Array.from({ length: count }, (_, i) => Uint8Array.of(192, 0, 2, i + 1));
  const answer =
    type === TYPE.A ? [{ name, type, class: CLASS.IN, ttlSeconds: 300, rdatas, signatures: [] }] : [];
  return { rcode: RCODE.NOERROR, authenticated: true, answer, authority: [] };
}

const atOnce: StubHandler = async question => addressOf(question);

async function setUp(t: TestContext, handler: StubHandler, config: Partial<StubConfig> = {}) {
  const stub = new Stub({
    openUdp,
    listen: [{ address: '127.0.0.1', port: 0 }],
    access: LOOPBACK,
    handler,
    ...config,
  });
  await stub.start();
  t.after(() => stub.close());
  return { stub, at: stub.addresses()[0]! };
}

/** A handler whose questions wait for the test to answer them. */
function held() {
  const questions: { question: StubQuestion; signal: AbortSignal; answer: (answer?: StubAnswer) => void }[] =
    [];
  const handler: StubHandler = (question, signal) =>
    new Promise(resolve => {
      questions.push({ question, signal, answer: (answer = addressOf(question)) => resolve(answer) });
    });
  const arrived = async (count: number) => {
    await until(() => questions.length >= count);
  };
  return { questions, handler, arrived };
}

test('dig is served over UDP and TCP, IPv4 and IPv6', async t => {
  const listen = [
    { address: '127.0.0.1', port: 0 },
    { address: '::1', port: 0 },
  ];
  const { stub } = await setUp(t, atOnce, { listen });
  for (const at of stub.addresses()) {
    for (const transport of ['+notcp', '+tcp']) {
      const output = await dig(at, transport, '+adflag', 'WWW.Example.com', 'A');
      assert.match(output, /status: NOERROR/);
      assert.match(output, /flags: qr rd ra ad; QUERY: 1, ANSWER: 1/);
      assert.match(output, /^WWW\.Example\.com\.\s+300\s+IN\s+A\s+192\.0\.2\.1$/m);
      assert.doesNotMatch(output, /WARNING|malformed|extra bytes/i);
    }
  }
});

test('dig goes to TCP after TC and gets everything', async t => {
  const { stub, at } = await setUp(t, async question => addressOf(question, 200));
  const output = await dig(at, 'www.example.com', 'A');
  assert.match(output, /Truncated, retrying in TCP mode/);
  assert.match(output, /ANSWER: 200/);
  assert.equal(stub.counters().truncated, 1);
});

test('dig shows the extended error', async t => {
  const ede = [{ code: 6, text: 'RRSIG of example.com expired' }];
  const { at } = await setUp(t, async () => ({
    rcode: RCODE.SERVFAIL,
    authenticated: false,
    answer: [],
    authority: [],
    ede,
  }));
  assert.match(await dig(at, 'www.example.com'), /EDE: 6 \(DNSSEC Bogus\): \(RRSIG of example.com expired\)/);
});

test('answers come from the address that was asked', async t => {
  const listen = ['127.0.0.1', '127.0.0.3', '127.9.9.9'].map(address => ({ address, port: 0 }));
  const { stub } = await setUp(t, atOnce, { listen });
  // The client's socket is connected: from any other address the answer would never arrive.
  for (const at of stub.addresses()) await overUdp(at, queryBytes());
});

test('equal questions are asked once, in whatever case and over whatever transport', async t => {
  const { questions, handler, arrived } = held();
  const { stub, at } = await setUp(t, handler);
  const client = await overTcp(at);
  const names = ['www.example.com', 'WWW.EXAMPLE.COM', 'wWw.eXample.com'];
  const answers = Array.from({ length: 30 }, (_, i) =>
    overUdp(at, queryBytes({ id: 1000 + i, questions: [{ type: 'A', name: names[i % 3]! }] })),
  );
  for (let i = 0; i < 10; i++) client.ask(queryBytes({ id: 2000 + i }));
  await until(() => stub.counters().waiting! >= 40);
  await arrived(1);
  assert.equal(questions.length, 1);
  assert.equal(stub.counters().coalesced, 39);
  questions[0]!.answer();
  for (const [i, bytes] of (await Promise.all(answers)).entries()) {
    const decoded = dnsPacket.decode(bytes);
    assert.equal(decoded.id, 1000 + i);
    assert.equal(decoded.questions![0]!.name, names[i % 3]);
    assert.equal(decoded.answers![0]!.name, names[i % 3]);
  }
  await client.received(10);
  assert.deepEqual(
    client.answers.map(({ id }) => id).sort(),
    Array.from({ length: 10 }, (_, i) => 2000 + i),
  );
  client.socket.destroy();
});

test('other type, DO or CD: another question', async t => {
  const { questions, handler, arrived } = held();
  const { at } = await setUp(t, handler);
  const client = await overTcp(at);
  client.ask(queryBytes());
  client.ask(queryBytes({ edns: { do: true } }));
  client.ask(queryBytes({ flags: 0x0110 }));
  client.ask(queryBytes({ questions: [{ type: 'AAAA', name: 'www.example.com' }] }));
  await arrived(4);
  assert.deepEqual(
    questions.map(({ question: { type, dnssecOk, checkingDisabled } }) => [type, dnssecOk, checkingDisabled]),
    [
      [TYPE.A, false, false],
      [TYPE.A, true, false],
      [TYPE.A, false, true],
      [TYPE.AAAA, false, false],
    ],
  );
  client.socket.destroy();
});

test('the access list: others are refused, with the reason', async t => {
  const { stub, at } = await setUp(t, atOnce, { access: [parseCidr('127.0.0.1')!] });
  assert.equal(parseMessage(await overUdp(at, queryBytes(), '127.0.0.1')).rcode, RCODE.NOERROR);
  const refused = parseMessage(await overUdp(at, queryBytes(), '127.0.0.2'));
  assert.equal(refused.rcode, RCODE.REFUSED);
  assert.equal(refused.answer.length, 0);
  assert.equal(extendedErrors(refused.edns)[0]!.code, 18);
  assert.equal(stub.counters().prohibited, 1);
  assert.equal(stub.counters().asked, 1);
});

test('what was answered once is answered from bytes, over UDP and TCP, until a ground gives way', async t => {
  const ground = { stands: true };
  let asked = 0;
  const handler: StubHandler = async question => {
    asked++;
    return { ...addressOf(question), lease: { grounds: [ground], seconds: 60 } };
  };
  const { stub, at } = await setUp(t, handler);
  const first = await overUdp(at, queryBytes());
  assert.deepEqual(await overUdp(at, queryBytes()), first);
  const client = await overTcp(at);
  client.ask(queryBytes({ id: 7, questions: [{ type: 'A', name: 'WWW.example.com' }] }));
  await client.received(1);
  assert.equal(client.answers[0]!.answers![0]!.name, 'WWW.example.com');
  assert.deepEqual([asked, stub.counters()['kept.used']], [1, 2]);
  ground.stands = false;
  assert.deepEqual(await overUdp(at, queryBytes()), first);
  client.ask(queryBytes());
  await client.received(2);
  assert.deepEqual([asked, stub.counters()['kept.used']], [3, 2]);
  client.socket.destroy();
});

test('who may not ask gets nothing from bytes either', async t => {
  const handler: StubHandler = async question => ({
    ...addressOf(question),
    lease: { grounds: [], seconds: 60 },
  });
  const { stub, at } = await setUp(t, handler, { access: [parseCidr('127.0.0.0/31')!] });
  for (let i = 0; i < 2; i++) await overUdp(at, queryBytes(), '127.0.0.1');
  assert.equal(stub.counters()['kept.used'], 1);
  assert.equal(parseMessage(await overUdp(at, queryBytes(), '127.0.0.2')).rcode, RCODE.REFUSED);
  assert.equal(stub.counters()['kept.used'], 1);
});

test('on the unspecified address, answers come from the address that was asked, composed or kept', async t => {
  const handler: StubHandler = async question => ({
    ...addressOf(question),
    lease: { grounds: [], seconds: 60 },
  });
  const listen = [
    { address: '0.0.0.0', port: 0 },
    { address: '::', port: 0 },
  ];
  const { stub } = await setUp(t, handler, { listen });
  const [four, six] = stub.addresses();
  // The clients' sockets are connected: from any other address the answer would never arrive.
  for (let i = 0; i < 2; i++) {
    for (const address of ['127.0.0.1', '127.0.0.3', '127.9.9.9'])
      await overUdp({ address, port: four!.port }, queryBytes());
    await overUdp({ address: '::1', port: six!.port }, queryBytes());
  }
  assert.equal(stub.counters()['kept.used'], 7);
});

test('a burst larger than a batch is answered whole, kept and composed answers mixed', async t => {
  const handler: StubHandler = async question => ({
    ...addressOf(question),
    ...(question.type === TYPE.A && { lease: { grounds: [], seconds: 60 } }),
  });
  const { at } = await setUp(t, handler);
  await overUdp(at, queryBytes());
  const socket = dgram.createSocket('udp4');
  t.after(() => socket.close());
  const ids = new Set<number>();
  socket.on('message', bytes => ids.add(bytes.readUInt16BE(0)));
  for (let id = 0; id < 200; id++) {
    const type = id % 3 === 0 ? 'AAAA' : 'A';
    socket.send(queryBytes({ id, questions: [{ type, name: 'www.example.com' }] }), at.port, at.address);
  }
  await until(() => ids.size === 200);
});

test('special names are answered without the handler, unless they are said to be served', async t => {
  const handler: StubHandler = async question => addressOf(question);
  const { stub, at } = await setUp(t, handler, { notSpecial: [Name.root, Name.parseText('lab.test')] });
  const rcode = async (name: string) =>
    parseMessage(await overUdp(at, queryBytes({ questions: [{ type: 'A', name }] }))).rcode;
  assert.equal(await rcode('www.test'), RCODE.NXDOMAIN);
  assert.equal(await rcode('www.invalid'), RCODE.NXDOMAIN);
  assert.equal(await rcode('localhost'), RCODE.NOERROR);
  assert.equal(stub.counters().asked, 0);
  assert.equal(await rcode('www.lab.test'), RCODE.NOERROR);
  assert.equal(stub.counters().asked, 1);
});

test('errors that the RFCs ask for', async t => {
  const { stub, at } = await setUp(t, atOnce);
  const rcode = async (bytes: Uint8Array) => {
    const message = parseMessage(await overUdp(at, bytes));
    assert.equal(message.response, true);
    assert.equal(message.id, 0x1234);
    return message.rcode;
  };
  const changed = (change: (bytes: Buffer) => void) => {
    const bytes = queryBytes();
    change(bytes);
    return bytes;
  };
  const question = (name: string, type: string, rrClass = 'IN') =>
    queryBytes({ questions: [{ name, type, class: rrClass }] });
  assert.equal(await rcode(changed(bytes => (bytes[2] = 0x28))), RCODE.NOTIMP); // opcode UPDATE
  assert.equal(await rcode(changed(bytes => (bytes[5] = 0))), RCODE.FORMERR); // QDCOUNT
  assert.equal(await rcode(changed(bytes => (bytes[5] = 2))), RCODE.FORMERR);
  assert.equal(await rcode(changed(bytes => (bytes[7] = 1))), RCODE.FORMERR); // ANCOUNT
  assert.equal(await rcode(changed(bytes => (bytes[11] = 2))), RCODE.FORMERR); // a second additional record that is not there
  assert.equal(await rcode(changed(bytes => bytes.set([0xc0, 0x0c], 12))), RCODE.FORMERR); // the question points at itself
  assert.equal(await rcode(queryBytes().subarray(0, 20)), RCODE.FORMERR);
  assert.equal(await rcode(Buffer.concat([queryBytes(), Buffer.from([0])])), RCODE.FORMERR);
  assert.equal(await rcode(queryBytes({ edns: { version: 1 } })), RCODE.BADVERS);
  assert.equal(await rcode(question('version.bind', 'TXT', 'CH')), RCODE.REFUSED);
  assert.equal(await rcode(question('www.example.com', 'A', 'HS')), RCODE.NOTIMP);
  assert.equal(await rcode(question('www.example.com', 'A', 'ANY')), RCODE.NOTIMP);
  assert.equal(await rcode(question('example.com', 'AXFR')), RCODE.REFUSED);
  assert.equal(await rcode(question('example.com', 'IXFR')), RCODE.REFUSED);
  assert.equal(await rcode(question('example.com', 'TKEY')), RCODE.NOTIMP);
  assert.equal(stub.counters().asked, 0);
});

test('EDNS errors as RFC 6891 has them, and transfers with the SOA that RFC 1995 puts there', async t => {
  const { stub, at } = await setUp(t, atOnce);
  const plain = queryBytes({ edns: false });
  /** The question with these octets behind it, and that many additional or authority records. */
  const ask = async (hex: string, counts: { authority?: number; additional?: number } = {}) => {
    const bytes = Buffer.concat([plain, Buffer.from(hex.replaceAll(' ', ''), 'hex')]);
    bytes.writeUInt16BE(counts.authority ?? 0, 8);
    bytes.writeUInt16BE(counts.additional ?? 1, 10);
    return parseMessage(await overUdp(at, bytes));
  };
  const badVersion = await ask('00 0029 04d0 00010000 0000');
  assert.deepEqual([badVersion.rcode, badVersion.edns!.version], [RCODE.BADVERS, 0]);
  // What version 1 would have as options nobody knows.
  assert.equal((await ask('00 0029 04d0 00010000 0003 ffffff')).rcode, RCODE.BADVERS);
  assert.equal((await ask('00 0029 04d0 00000000 0003 ffffff')).rcode, RCODE.FORMERR);
  assert.equal(
    (await ask('00 0029 04d0 00000000 0009 000a0004 00')).rcode,
    RCODE.FORMERR,
    'RDLENGTH too large',
  );
  assert.equal((await ask('00 0029 04d0 00000000 0000 00')).rcode, RCODE.FORMERR, 'an octet more');
  assert.equal((await ask('00 0029 04d0 0000')).rcode, RCODE.FORMERR, 'OPT cut short');
  assert.equal((await ask('0161 00 0029 04d0 00000000 0000')).rcode, RCODE.FORMERR, 'owned by a.');
  const both = '00 0029 04d0 00000000 0000';
  assert.equal((await ask(both + both, { additional: 2 })).rcode, RCODE.FORMERR);
  assert.equal((await ask(both, { additional: 0, authority: 1 })).rcode, RCODE.FORMERR, 'OPT as authority');
  assert.equal((await ask('00 0029 0000 00000000 0000')).rcode, RCODE.NOERROR, 'size 0 counts as 512');
  // Unknown options, and flags that are reserved, are ignored (sections 6.1.2 and 6.1.4).
  const unknown = await ask('00 0029 04d0 00007fff 0006 fde90002 abcd');
  assert.deepEqual([unknown.rcode, unknown.edns!.options], [RCODE.NOERROR, []]);
  const soa = 'c00c 0006 0001 00000000 0016 00 00 00000001 00000000 00000000 00000000 00000000';
  plain.writeUInt16BE(TYPE.IXFR, plain.length - 4);
  assert.equal((await ask(soa, { authority: 1, additional: 0 })).rcode, RCODE.REFUSED);
  const withOpt = await ask(soa + both, { authority: 1, additional: 1 });
  assert.deepEqual([withOpt.rcode, extendedErrors(withOpt.edns)[0]!.code], [RCODE.REFUSED, 21]);
  assert.equal((await ask(`${soa} 00`, { authority: 1, additional: 0 })).rcode, RCODE.FORMERR);
  plain.writeUInt16BE(TYPE.A, plain.length - 4);
  assert.equal((await ask(soa, { authority: 1, additional: 0 })).rcode, RCODE.FORMERR, 'only with IXFR');
  assert.equal(stub.counters().asked, 2, 'the two good ones');
});

test('two OPT records are FORMERR, a TSIG beside OPT is not our concern', async t => {
  const { at } = await setUp(t, atOnce);
  const opt = { type: 'OPT', name: '.', udpPayloadSize: 1232, flags: 0, options: [] };
  const rcode = async (additionals: object[]) =>
    parseMessage(await overUdp(at, queryBytes({ additionals: additionals as never }))).rcode;
  assert.equal(await rcode([opt, opt]), RCODE.FORMERR);
  assert.equal(await rcode([opt, { type: 'TXT', name: 'x.example', ttl: 0, data: 'y' }]), RCODE.NOERROR);
});

test('responses and scraps are dropped, so that nobody can be made to talk to himself', async t => {
  const { stub, at } = await setUp(t, atOnce);
  const socket = dgram.createSocket('udp4');
  t.after(() => socket.close());
  socket.on('message', () => assert.fail('answered'));
  const response = queryBytes();
  response[2]! |= 0x80;
  for (const bytes of [response, Buffer.alloc(0), Buffer.from([1, 2, 3]), Buffer.alloc(11)])
    socket.send(bytes, at.port, at.address);
  await until(() => stub.counters().dropped! >= 4);
  assert.equal(stub.counters().formatErrors, 0);
});

test('a handler that fails is SERVFAIL, and the defect is told', async t => {
  const errors: unknown[] = [];
  const { at } = await setUp(
    t,
    async () => {
      throw new Error('a defect');
    },
    { onError: error => errors.push(error) },
  );
  const message = parseMessage(await overUdp(at, queryBytes()));
  assert.equal(message.rcode, RCODE.SERVFAIL);
  assert.match(extendedErrors(message.edns)[0]!.text, /internal error/);
  assert.match(String(errors[0]), /a defect/);
});

test('TCP: many questions at once, answered out of order', async t => {
  const { questions, handler, arrived } = held();
  const { at } = await setUp(t, handler);
  const client = await overTcp(at);
  const names = Array.from({ length: 60 }, (_, i) => `n${i}.example`);
  names.forEach((name, i) => {
    client.ask(queryBytes({ id: i, questions: [{ type: 'A', name }] }));
  });
  await arrived(60);
  for (const { answer } of questions.toReversed()) answer();
  await client.received(60);
  assert.deepEqual(
    client.answers.map(({ id }) => id),
    names.map((_, i) => i).toReversed(),
  );
  for (const { id, questions: asked } of client.answers) assert.equal(asked![0]!.name, names[id!]);
  client.socket.destroy();
});

test('TCP: reading stops while too many questions are open, and goes on after', async t => {
  const { questions, handler, arrived } = held();
  const { at } = await setUp(t, handler);
  const client = await overTcp(at);
  // Long names, so that they come in several chunks.
  const name = (i: number) => `n${i}.${'x'.repeat(60)}.${'y'.repeat(60)}.${'z'.repeat(60)}.example`;
  for (let i = 0; i < 1000; i++) client.ask(queryBytes({ id: i, questions: [{ type: 'A', name: name(i) }] }));
  await arrived(128);
  for (let i = 0; i < 50; i++) await new Promise(setImmediate);
  assert.ok(questions.length < 1000, 'not all are read');
  let answered = 0;
  await until(() => {
    while (answered < questions.length) questions[answered++]!.answer();
    return client.answers.length === 1000;
  });
  client.socket.destroy();
});

test('TCP: a client that has closed its side still gets its answers, then the end', async t => {
  const { questions, handler, arrived } = held();
  const { at } = await setUp(t, handler);
  const client = await overTcp(at);
  client.ask(queryBytes({ id: 1 }));
  client.ask(queryBytes({ id: 2, questions: [{ type: 'AAAA', name: 'www.example.com' }] }));
  client.socket.end();
  await arrived(2);
  await new Promise(resolve => setTimeout(resolve, 20));
  for (const { answer } of questions) answer();
  await client.closed;
  assert.equal(client.answers.length, 2);
});

test('the handler hears when nobody waits any more, and only then', async t => {
  const { questions, handler, arrived } = held();
  const { stub, at } = await setUp(t, handler);
  const [first, second] = [await overTcp(at), await overTcp(at)];
  first.ask(queryBytes());
  second.ask(queryBytes());
  await until(() => stub.counters().waiting! >= 2);
  await arrived(1);
  // A reset: a mere end could be a client that waits for its answers.
  first.socket.resetAndDestroy();
  await until(() => stub.counters().waiting! <= 1);
  assert.equal(questions[0]!.signal.aborted, false);
  second.socket.resetAndDestroy();
  await until(() => questions[0]!.signal.aborted);
  assert.equal(stub.counters().inFlight, 0);
  // The same question anew does not wait for the one that was given up.
  const third = await overTcp(at);
  third.ask(queryBytes());
  await arrived(2);
  questions[0]!.answer();
  questions[1]!.answer();
  await third.received(1);
  third.socket.destroy();
});

test('TCP: lengths that no question has, and garbage, end the connection', async t => {
  const { stub, at } = await setUp(t, atOnce);
  const long = await overTcp(at);
  long.socket.write(Buffer.alloc(65_537, 0xff));
  await long.closed;
  const garbage = await overTcp(at);
  for (let i = 0; i < 8; i++) garbage.ask(Buffer.alloc(40, 0xff));
  await garbage.closed;
  assert.equal(stub.counters()['tcp.misbehaved'], 2);
  assert.equal(stub.counters().tcpConnections, 0);
  assert.equal(parseMessage(await overUdp(at, queryBytes())).rcode, RCODE.NOERROR);
});

test('start opens all or nothing', async t => {
  const taken = net.createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  t.after(() => taken.close());
  const { port } = taken.address() as net.AddressInfo;
  const listen: SocketAddress[] = [
    { address: '127.0.0.2', port },
    { address: '127.0.0.1', port },
  ];
  const stub = new Stub({ openUdp, listen, access: LOOPBACK, handler: atOnce });
  await assert.rejects(stub.start(), { code: 'EADDRINUSE', address: '127.0.0.1', port });
  // The first one is free again.
  const again = new Stub({ openUdp, listen: listen.slice(0, 1), access: LOOPBACK, handler: atOnce });
  await again.start();
  await again.close();
});

test('close: handlers are told, clients are let go, late answers go nowhere', async t => {
  const { questions, handler, arrived } = held();
  const { stub, at } = await setUp(t, handler);
  const client = await overTcp(at);
  client.ask(queryBytes());
  await arrived(1);
  await stub.close();
  assert.equal(questions[0]!.signal.aborted, true);
  await client.closed;
  questions[0]!.answer();
});
