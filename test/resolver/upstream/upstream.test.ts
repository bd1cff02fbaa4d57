import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import type { SocketAddress } from '../../../resolver/address.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { TYPE } from '../../../resolver/dns/types.ts';
import { UpstreamError, type UpstreamErrorCode } from '../../../resolver/upstream/error.ts';
import type { UpstreamServer } from '../../../resolver/upstream/server.ts';
import { plainSockets } from '../../../resolver/upstream/sockets.ts';
import { TURN_LIMITS } from '../../../resolver/upstream/turns.ts';
import { Upstream, type UpstreamConfig } from '../../../resolver/upstream/upstream.ts';
import { dnsPacket } from '../dns-packet.ts';
import { type Asked, type FakeServer, fakeServer, respond } from './fake-server.ts';
import { until } from '../until.ts';

const QUESTION = { name: Name.parseText('www.example.com'), type: TYPE.A };
/** Short patience: these tests wait for events, and for silence no longer than they must. */
const QUICK = { rounds: [60, 120, 240], total: 1500 };

const plain = ({ address, port }: SocketAddress): UpstreamServer => ({
  transport: 'udp',
  address: { address, port },
});

async function setUp(
  t: TestContext,
  answers: ((asked: Asked) => unknown)[],
  config: Partial<UpstreamConfig> = {},
): Promise<{ upstream: Upstream; servers: FakeServer[] }> {
  const servers = await Promise.all(answers.map(answer => fakeServer(answer)));
  const upstream = new Upstream({ servers: servers.map(plain), times: QUICK, ...config });
  t.after(async () => {
    upstream.close();
    await Promise.all(servers.map(server => server.close()));
  });
  return { upstream, servers };
}

const honest = (asked: Asked) => asked.reply(respond(asked.query));
const withRcode = (rcode: number) => (asked: Asked) =>
  asked.reply(respond(asked.query, { rcode, answers: [] }));
const silent = () => {};

function failsWith(code: UpstreamErrorCode, text?: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof UpstreamError, String(error));
    assert.equal(error.code, code);
    if (text !== undefined) assert.match(error.message, text);
    return true;
  };
}

test('the query is what RFC 6891 and RFC 4035 ask of a validating resolver', async t => {
  const { upstream, servers } = await setUp(t, [honest]);
  const message = await upstream.exchange(QUESTION);
  assert.deepEqual([...message.answer[0]!.rdata], [192, 0, 2, 1]);
  const { query } = servers[0]!.asked[0]!;
  assert.equal(query.flags, 0x0110, 'RD and CD alone');
  const [question] = query.questions!;
  assert.equal(question!.name.toLowerCase(), 'www.example.com');
  assert.deepEqual([question!.type, question!.class], ['A', 'IN']);
  const [opt] = query.additionals!;
  assert.equal(opt!.type, 'OPT');
  assert.equal(opt!.udpPayloadSize, 1232);
  assert.equal(opt!.flag_do, true);
  assert.equal(opt!.ednsVersion, 0);
});

test('a port serves few questions, and no two with one ID', async t => {
  const { upstream, servers } = await setUp(t, [honest], { times: { rounds: [30_000], total: 60_000 } });
  const some = () => Promise.all(Array.from({ length: 200 }, () => upstream.exchange(QUESTION)));
  await some();
  await some();
  const { asked } = servers[0]!;
  assert.equal(asked.length, 400);
  const byPort = Map.groupBy(asked, ({ port }) => port);
  assert.ok(byPort.size >= 400 / 16, `${byPort.size} ports`);
  for (const questions of byPort.values()) {
    assert.equal(new Set(questions.map(({ query }) => query.id)).size, questions.length);
  }
  assert.ok(new Set(asked.map(({ query }) => query.id)).size > 390, 'IDs are drawn');
  assert.ok(new Set(asked.map(({ query }) => query.questions![0]!.name)).size > 300, 'so is the case');
});

test('IPv6 servers are asked as well', async t => {
  const server = await fakeServer(honest, { address: '::1' });
  const upstream = new Upstream({ servers: [plain(server)] });
  t.after(() => {
    upstream.close();
    return server.close();
  });
  assert.equal((await upstream.exchange(QUESTION)).rcode, 0);
});

test('forged answers are counted and waited past', async t => {
  const forged = { answers: [{ type: 'A', name: 'www.example.com', ttl: 300, data: '203.0.113.66' }] };
  const { upstream } = await setUp(t, [
    asked => {
      const { query } = asked;
      asked.reply(respond({ ...query, id: (query.id! + 1) & 0xffff }, forged));
      asked.reply(
        respond({ ...query, questions: [{ type: 'A', name: 'www.example.net', class: 'IN' }] }, forged),
      );
      asked.reply(
        respond({ ...query, questions: [{ type: 'AAAA', name: 'www.example.com', class: 'IN' }] }, forged),
      );
      asked.reply(
        respond({ ...query, questions: [{ type: 'A', name: 'www.example.com', class: 'CH' }] }, forged),
      );
      asked.reply(respond({ ...query, questions: [] }, { ...forged }));
      asked.reply(asked.bytes); // our own query: QR=0
      asked.replyFromElsewhere(respond(query, forged));
      asked.reply(Buffer.from([1, 2, 3]));
      setTimeout(() => asked.reply(respond(query)), 20);
    },
  ]);
  const message = await upstream.exchange(QUESTION);
  assert.deepEqual([...message.answer[0]!.rdata], [192, 0, 2, 1]);
  const counters = upstream.counters();
  // The one from elsewhere is dropped by the kernel, for the socket is connected.
  assert.equal(counters.foreign, 7);
  assert.equal(counters.tcp, 0);
});

test('under a rain of forgeries the question moves to TCP', async t => {
  const { upstream } = await setUp(t, [
    asked => {
      if (asked.transport === 'tcp') return asked.reply(respond(asked.query));
      for (let i = 1; i <= 20; i++)
        asked.reply(respond({ ...asked.query, id: (asked.query.id! + i) & 0xffff }));
    },
  ]);
  const message = await upstream.exchange(QUESTION);
  assert.equal(message.answer.length, 1);
  const counters = upstream.counters();
  assert.equal(counters.flooded, 1);
  assert.equal(counters.tcp, 1);
});

test('the case of the question may change on the way, its letters may not', async t => {
  const { upstream } = await setUp(t, [
    asked => {
      const [question] = asked.query.questions!;
      asked.reply(respond({ ...asked.query, questions: [{ ...question!, name: 'wWw.ExAmple.COM' }] }));
    },
  ]);
  assert.equal((await upstream.exchange(QUESTION)).answer.length, 1);
});

test('after TC the whole answer comes over TCP, and the connection serves the next ones', async t => {
  const many = Array.from({ length: 200 }, (_, i) => ({
    type: 'A',
    name: 'www.example.com',
    ttl: 300,
    data: `192.0.2.${i}`,
  }));
  const { upstream, servers } = await setUp(t, [
    asked =>
      asked.transport === 'udp'
        ? asked.reply(respond(asked.query, { flags: 0x0380, answers: many.slice(0, 3) }))
        : asked.reply(respond(asked.query, { answers: many })),
  ]);
  for (let i = 0; i < 3; i++) assert.equal((await upstream.exchange(QUESTION)).answer.length, 200);
  assert.equal(servers[0]!.connections, 1);
  assert.equal(upstream.counters().truncated, 3);
});

test('questions on one TCP connection are answered in any order', async t => {
  const held: Asked[] = [];
  const { upstream, servers } = await setUp(t, [
    asked => {
      if (asked.transport === 'udp') return asked.reply(respond(asked.query, { flags: 0x0380, answers: [] }));
      held.push(asked);
      if (held.length === 5) for (const one of held.reverse()) one.reply(respond(one.query));
    },
  ]);
  const names = ['a.example', 'b.example', 'c.example', 'd.example', 'e.example'].map(text =>
    Name.parseText(text),
  );
  const answers = await Promise.all(names.map(name => upstream.exchange({ name, type: TYPE.A })));
  for (const [i, { answer }] of answers.entries()) assert.ok(answer[0]!.name.equals(names[i]!));
  assert.ok(servers[0]!.connections <= 5);
});

test('a TCP connection that the server closed at rest costs nobody an answer', async t => {
  const { upstream, servers } = await setUp(t, [
    asked => {
      if (asked.transport === 'udp') return asked.reply(respond(asked.query, { flags: 0x0380, answers: [] }));
      if (servers[0]!.asked.filter(({ transport }) => transport === 'tcp').length === 2)
        return asked.hangUp();
      asked.reply(respond(asked.query));
    },
  ]);
  await upstream.exchange(QUESTION);
  assert.equal((await upstream.exchange(QUESTION)).answer.length, 1);
  assert.equal(servers[0]!.connections, 2);
});

test('a TCP connection that went dead without a word is not asked again', async t => {
  const first: Asked[] = [];
  const { upstream, servers } = await setUp(t, [
    asked => {
      if (asked.transport === 'udp') return asked.reply(respond(asked.query, { flags: 0x0380, answers: [] }));
      if (servers[0]!.connections > 1 || first.push(asked) === 1) asked.reply(respond(asked.query));
    },
  ]);
  await upstream.exchange(QUESTION);
  await assert.rejects(upstream.exchange(QUESTION), failsWith('timeout'));
  assert.equal((await upstream.exchange(QUESTION)).answer.length, 1);
  assert.equal(servers[0]!.connections, 2);
});

test('TC over TCP is no answer', async t => {
  const { upstream } = await setUp(t, [
    asked => asked.reply(respond(asked.query, { flags: 0x0380, answers: [] })),
  ]);
  await assert.rejects(upstream.exchange(QUESTION), failsWith('malformed', /truncated even over TCP/));
});

test('a garbled answer is asked for again over TCP; garbled there, it is an error', async t => {
  const garbled = (asked: Asked) => {
    const bytes = respond(asked.query);
    bytes[7] = 9; // ANCOUNT
    asked.reply(bytes);
  };
  const first = await setUp(t, [asked => (asked.transport === 'udp' ? garbled(asked) : honest(asked))]);
  assert.equal((await first.upstream.exchange(QUESTION)).answer.length, 1);
  assert.equal(first.upstream.counters().malformed, 1);
  const second = await setUp(t, [garbled]);
  await assert.rejects(second.upstream.exchange(QUESTION), failsWith('malformed'));
});

test('a silent server: the next one answers, and is preferred from then on', async t => {
  const { upstream, servers } = await setUp(t, [silent, honest]);
  await upstream.exchange(QUESTION);
  assert.equal(servers[0]!.asked.length, 1);
  assert.equal(upstream.counters().silent, 1);
  await upstream.exchange(QUESTION);
  await upstream.exchange(QUESTION);
  assert.equal(servers[0]!.asked.length, 1);
  assert.equal(upstream.counters().probes, 1, 'the second was measured on the side at once');
  assert.equal(servers[1]!.asked.length, 4);
});

test('a closed port: the next one answers without waiting', async t => {
  const { upstream, servers } = await setUp(t, [silent, honest], {
    times: { rounds: [60_000], total: 120_000 },
  });
  await servers[0]!.close();
  servers[0]!.close = async () => {};
  await upstream.exchange(QUESTION);
  assert.equal(servers[1]!.asked.length, 1 + upstream.counters().probes!);
});

test('SERVFAIL, REFUSED, FORMERR and NOTIMP send the question to the next server', async t => {
  for (const rcode of [1, 2, 4, 5, 8, 9]) {
    const { upstream, servers } = await setUp(t, [withRcode(rcode), honest]);
    assert.equal((await upstream.exchange(QUESTION)).answer.length, 1);
    // FORMERR might have been about the cookie: once without.
    assert.equal(servers[0]!.asked.length, rcode === 1 ? 2 : 1);
  }
});

test('when all fail, the error says what each of them did', async t => {
  const { upstream, servers } = await setUp(t, [silent, withRcode(5), withRcode(2)]);
  await assert.rejects(upstream.exchange(QUESTION), error => {
    assert.ok(error instanceof UpstreamError);
    assert.ok(error.code === 'servfail' || error.code === 'refused');
    assert.ok(error.tried.includes(`127.0.0.1:${servers[0]!.port}: no answer`));
    assert.ok(error.tried.includes(`127.0.0.1:${servers[1]!.port}: answers REFUSED`));
    assert.ok(error.tried.includes(`127.0.0.1:${servers[2]!.port}: answers SERVFAIL`));
    return true;
  });
  assert.equal(servers[1]!.asked.length, 1 + upstream.counters().probes!, 'who said no is not asked again');
  assert.equal(servers[0]!.asked.length, 3, 'who was silent is');
});

test('NXDOMAIN and NODATA are answers', async t => {
  const { upstream } = await setUp(t, [withRcode(3)]);
  assert.equal((await upstream.exchange(QUESTION)).rcode, 3);
});

test('a server that rejects EDNS is an error, remembered, and never asked without EDNS', async t => {
  const { upstream, servers } = await setUp(t, [
    asked => asked.reply(respond(asked.query, { rcode: 1, answers: [], edns: false })),
    honest,
  ]);
  await upstream.exchange(QUESTION);
  await upstream.exchange(QUESTION);
  assert.equal(servers[0]!.asked.length, 2, 'with cookie and without, then put last');
  assert.equal(upstream.servers()[0]!.why, 'rejects EDNS');
  await servers[1]!.close();
  servers[1]!.close = async () => {};
  await assert.rejects(upstream.exchange(QUESTION), failsWith('no-edns', /FORMERR/));
  for (const { query } of servers[0]!.asked) assert.equal(query.additionals![0]!.type, 'OPT');
});

test('a bare FORMERR header is understood, a bare NOERROR is not an answer', async t => {
  const bare = (rcode: number) => (asked: Asked) => {
    const bytes = Buffer.from(asked.bytes.subarray(0, 12));
    bytes.set([0x81, 0x80 | rcode, 0, 0, 0, 0, 0, 0, 0, 0], 2);
    asked.reply(bytes);
  };
  const formerr = await setUp(t, [bare(1)]);
  await assert.rejects(formerr.upstream.exchange(QUESTION), failsWith('no-edns'));
  const noerror = await setUp(t, [bare(0)]);
  await assert.rejects(noerror.upstream.exchange(QUESTION), failsWith('timeout'));
});

test('a late answer still wins over asking again', async t => {
  const { upstream, servers } = await setUp(t, [asked => setTimeout(() => honest(asked), 150)]);
  assert.equal((await upstream.exchange(QUESTION)).answer.length, 1);
  assert.ok(servers[0]!.asked.length <= 2);
});

test('a second attempt goes to another server', async t => {
  const { upstream, servers } = await setUp(t, [honest, honest]);
  await upstream.exchange(QUESTION); // measures both
  for (let i = 0; i < 6; i++) {
    const name = Name.parseText(`n${i}.example`);
    await upstream.exchange({ name, type: TYPE.A });
    await upstream.exchange({ name, type: TYPE.A, attempt: 1 });
    const askedFor = (server: FakeServer) =>
      server.asked.filter(({ query }) => query.questions![0]!.name.toLowerCase() === `n${i}.example`);
    assert.deepEqual(
      servers.map(server => askedFor(server).length),
      [1, 1],
    );
  }
});

test('abort: before, while waiting, and no answer is delivered after', async t => {
  const { upstream } = await setUp(t, [silent]);
  await assert.rejects(upstream.exchange(QUESTION, AbortSignal.abort()), failsWith('aborted'));
  const controller = new AbortController();
  const pending = upstream.exchange(QUESTION, controller.signal);
  setImmediate(() => controller.abort());
  await assert.rejects(pending, failsWith('aborted'));
  assert.equal(upstream.counters().inFlight, 0);
});

test('close rejects what is in flight and all that comes after', async t => {
  const { upstream } = await setUp(t, [silent]);
  const pending = upstream.exchange(QUESTION);
  setImmediate(() => upstream.close());
  await assert.rejects(pending, failsWith('aborted'));
  await assert.rejects(upstream.exchange(QUESTION), failsWith('aborted'));
});

test('no servers', async () => {
  await assert.rejects(new Upstream({ servers: [] }).exchange(QUESTION), failsWith('no-servers'));
});

test('questions in flight are bounded, the others wait, and too many are turned away', async t => {
  const held: Asked[] = [];
  const { upstream } = await setUp(t, [asked => held.push(asked)], {
    times: { rounds: [60_000], total: 60_000 },
    turns: { inFlight: 20, crowded: 10, inFlightOfZone: 10, waiting: 30, fairMillis: 60_000 },
  });
  const ask = (zone: string, count: number) => {
    const name = Name.parseText(`www.${zone}.example`);
    for (let i = 0; i < count; i++) upstream.exchange({ name, type: TYPE.A }).catch(() => {});
  };
  ask('one', 41);
  const counts = () => [
    upstream.counters().inFlight,
    upstream.counters().waiting,
    upstream.counters().overloaded,
  ];
  assert.deepEqual(counts(), [10, 30, 1], 'a zone has its share');
  ask('two', 5);
  assert.deepEqual(counts(), [15, 30, 1], 'others are not kept out');
  ask('three', 20);
  assert.deepEqual(counts(), [20, 30, 16]);
  ask('four', 1);
  assert.deepEqual(counts(), [20, 30, 17], 'for the newcomer, one of the zone with most goes');
  await until(() => held.length >= 20);
  for (const asked of held) honest(asked);
  await until(() => upstream.counters().answers === 20);
});

test('500 dead names at one server, and honest names are all answered while those still wait', async t => {
  const { upstream } = await setUp(
    t,
    [asked => /dead\.example$/i.test(asked.query.questions![0]!.name) || honest(asked)],
    {
      times: { rounds: [500, 500, 60_000], total: 60_000 },
      turns: { ...TURN_LIMITS, crowded: 256, fairMillis: 60_000 },
    },
  );
  let over = 0;
  for (let i = 0; i < 500; i++) {
    const dead = upstream.exchange({ name: Name.parseText(`n${i}.dead.example`), type: TYPE.A });
    dead.catch(() => over++);
  }
  for (let i = 0; i < 100; i++) {
    const { answer } = await upstream.exchange({
      name: Name.parseText(`www.honest${i}.example`),
      type: TYPE.A,
    });
    assert.equal(answer.length, 1);
  }
  assert.equal(over, 0, 'nobody had to go for them');
  assert.deepEqual([upstream.counters().inFlight, upstream.counters().waiting], [256, 244]);
  assert.equal(upstream.servers()[0]!.healthy, true);
});

test('a recovered server is found again by a question on the side', async t => {
  let alive = false;
  let later = 0;
  const { upstream, servers } = await setUp(t, [asked => alive && honest(asked), honest], {
    now: () => performance.now() + later,
  });
  await upstream.exchange(QUESTION);
  assert.equal(upstream.servers()[0]!.healthy, false);
  alive = true;
  await upstream.exchange(QUESTION);
  assert.equal(servers[0]!.asked.length, 1, 'it still backs off');
  later += 1000;
  await Promise.all([upstream.exchange(QUESTION), upstream.exchange(QUESTION)]);
  await until(() => upstream.servers()[0]!.healthy);
  assert.equal(servers[0]!.asked.length, 2, 'asked on the side, once');
});

test('a socket factory that fails is a server that cannot be reached', async t => {
  const { upstream } = await setUp(t, [honest], {
    sockets: {
      udp: () => {
        throw Object.assign(new Error('no'), { code: 'EMFILE' });
      },
      tcp: plainSockets.tcp,
    },
  });
  await assert.rejects(upstream.exchange(QUESTION), failsWith('network', /EMFILE/));
});

test('what comes back is parsed by an independent codec alike', async t => {
  const { upstream } = await setUp(t, [honest]);
  const message = await upstream.exchange(QUESTION);
  const bytes = respond({ id: message.id, questions: [{ name: 'www.example.com', type: 'A' }] });
  assert.equal(dnsPacket.decode(bytes).answers![0]!.data, message.answer[0]!.rdata.join('.'));
});
