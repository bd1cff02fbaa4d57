/** What keeps forgers out over UDP (the case of letters, cookies), and what happens where a server knows neither. */
import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { Name } from '../../../resolver/dns/name.ts';
import { TYPE } from '../../../resolver/dns/types.ts';
import type { UpstreamServer } from '../../../resolver/upstream/server.ts';
import { Upstream, type UpstreamConfig } from '../../../resolver/upstream/upstream.ts';
import { until } from '../until.ts';
import { type Asked, type FakeServer, fakeServer, respond } from './fake-server.ts';

/** So many letters that their case never comes out all small by chance. */
const NAME = 'a.rather.long.name.of.several.labels.example.com';
const QUESTION = { name: Name.parseText(NAME), type: TYPE.A };
const COOKIE = 10;
const BADCOOKIE = 23;

const plain = ({ address, port }: FakeServer): UpstreamServer => ({
  transport: 'udp',
  address: { address, port },
});

async function setUp(
  t: TestContext,
  answer: (asked: Asked, server: FakeServer) => unknown,
  config: Partial<UpstreamConfig> = {},
) {
  const server: FakeServer = await fakeServer(asked => answer(asked, server));
  const upstream = new Upstream({
    servers: [plain(server)],
    times: { rounds: [60, 120, 240], total: 1500 },
    ...config,
  });
  t.after(() => {
    upstream.close();
    return server.close();
  });
  return { upstream, server };
}

const honest = (asked: Asked) => asked.reply(respond(asked.query));

const lowerCased = ({ query, reply }: Asked) => {
  const questions = query.questions!.map(question => ({ ...question, name: question.name.toLowerCase() }));
  reply(respond({ ...query, questions }));
};

function cookieOf({ query }: Asked): Buffer | undefined {
  const options = (query.additionals![0]!.options ?? []) as { code: number; data: Buffer }[];
  return options.find(({ code }) => code === COOKIE)?.data;
}

/** An answer with a COOKIE option. */
function withCookie(query: Asked['query'], cookie: Uint8Array, rcode = 0): Buffer {
  const options = [{ code: COOKIE, data: Buffer.from(cookie) }];
  const extended = { extendedRcode: rcode >> 4 };
  const opt = { type: 'OPT', name: '.', udpPayloadSize: 1232, flags: 0x8000, options, ...extended };
  const answers = rcode === 0 ? {} : { answers: [] };
  return respond(query, { rcode: rcode & 0x0f, additionals: [opt], ...answers } as never);
}

const SERVER_PART = Buffer.alloc(16, 0x5e);
const joined = (asked: Asked) => Buffer.concat([cookieOf(asked)!.subarray(0, 8), SERVER_PART]);

test('the question leaves in mixed case, the answer comes back in ours', async t => {
  const { upstream, server } = await setUp(t, honest);
  const message = await upstream.exchange({ name: Name.parseText('Www.Example.Com'), type: TYPE.A });
  assert.equal(message.questions[0]!.name.toText(), 'Www.Example.Com.');
  const spelt = new Set<string>();
  for (let i = 0; i < 20; i++) await upstream.exchange(QUESTION);
  for (const { query } of server.asked) spelt.add(query.questions![0]!.name);
  assert.ok(spelt.size > 10, `${spelt.size} spellings of 21`);
  assert.equal(upstream.servers()[0]!.mixedCase, 'used');
});

test('a server that does not keep the case is asked once more each time, and then no longer in mixed case', async t => {
  const { upstream, server } = await setUp(t, lowerCased);
  for (let i = 0; i < 3; i++) assert.equal((await upstream.exchange(QUESTION)).answer.length, 1);
  assert.deepEqual([server.asked.length, upstream.counters().folded], [6, 3]);
  assert.equal(upstream.servers()[0]!.mixedCase, 'not kept');
  await upstream.exchange(QUESTION);
  assert.equal(server.asked.length, 7);
  assert.equal(server.asked.at(-1)!.query.questions![0]!.name, NAME);
  assert.equal(upstream.counters().tcp, 0);
});

test('an answer in the wrong case is not taken from a server that keeps it', async t => {
  const { upstream } = await setUp(t, asked => {
    const { query } = asked;
    const forged = { answers: [{ type: 'A', name: NAME, ttl: 9, data: '203.0.113.66' }] };
    const [question] = query.questions!;
    const swapped = question!.name.replace(/[a-z]/i, c =>
      c === c.toLowerCase() ? c.toUpperCase() : c.toLowerCase(),
    );
    if (question!.name !== NAME) {
      asked.reply(respond({ ...query, questions: [{ ...question!, name: swapped }] }, forged as never));
      return;
    }
    honest(asked);
  });
  const message = await upstream.exchange(QUESTION);
  assert.deepEqual([...message.answer[0]!.rdata], [192, 0, 2, 1]);
  assert.equal(upstream.counters().folded, 1);
});

test('a server that drops what it does not know is asked plainly the second time', async t => {
  const { upstream, server } = await setUp(t, asked => {
    const [question] = asked.query.questions!;
    if (cookieOf(asked) === undefined && question!.name === NAME) honest(asked);
  });
  assert.equal((await upstream.exchange(QUESTION)).answer.length, 1);
  assert.equal(server.asked.length, 2);
});

test('a cookie is learnt and echoed; another client part is a forgery', async t => {
  const { upstream, server } = await setUp(t, asked => {
    const forged = Buffer.concat([Buffer.alloc(8, 1), SERVER_PART]);
    asked.reply(withCookie(asked.query, forged));
    asked.reply(withCookie(asked.query, joined(asked)));
  });
  await upstream.exchange(QUESTION);
  await upstream.exchange(QUESTION);
  assert.equal(cookieOf(server.asked[0]!)!.length, 8);
  assert.deepEqual(cookieOf(server.asked[1]!), joined(server.asked[0]!));
  assert.equal(upstream.counters().forgedCookies, 2);
  assert.equal(upstream.servers()[0]!.cookies, 'used');
});

test('no cookie from a server that has one: TCP says what is true, and it is forgotten', async t => {
  const { upstream, server } = await setUp(t, (asked, { asked: all }) => {
    if (asked.transport === 'udp' && all.length === 1) asked.reply(withCookie(asked.query, joined(asked)));
    else honest(asked);
  });
  await upstream.exchange(QUESTION);
  await upstream.exchange(QUESTION);
  assert.deepEqual(
    server.asked.map(({ transport }) => transport),
    ['udp', 'udp', 'tcp'],
  );
  assert.equal(upstream.counters().missingCookies, 1);
  await upstream.exchange(QUESTION);
  assert.equal(server.asked.length, 4, 'over UDP again');
});

test('BADCOOKIE: once more with the new cookie; again, and the question moves to TCP (RFC 7873 section 5.3)', async t => {
  const once = await setUp(t, asked => {
    const known = cookieOf(asked)!.length > 8;
    asked.reply(withCookie(asked.query, joined(asked), known ? 0 : BADCOOKIE));
  });
  assert.equal((await once.upstream.exchange(QUESTION)).rcode, 0);
  assert.equal(once.server.asked.length, 2);
  const always = await setUp(t, asked =>
    asked.transport === 'tcp'
      ? honest(asked)
      : asked.reply(withCookie(asked.query, joined(asked), BADCOOKIE)),
  );
  assert.equal((await always.upstream.exchange(QUESTION)).rcode, 0);
  assert.deepEqual(
    always.server.asked.map(({ transport }) => transport),
    ['udp', 'udp', 'tcp'],
  );
});

test('FORMERR about the cookie is not mistaken for FORMERR about EDNS, and remembered', async t => {
  const { upstream, server } = await setUp(t, asked =>
    cookieOf(asked) === undefined
      ? honest(asked)
      : asked.reply(respond(asked.query, { rcode: 1, answers: [] })),
  );
  await upstream.exchange(QUESTION);
  await upstream.exchange(QUESTION);
  assert.equal(server.asked.length, 3);
  assert.equal(upstream.servers()[0]!.healthy, true);
});

test('second copies and late answers are no forgeries, however many', async t => {
  const { upstream } = await setUp(t, asked => {
    for (let i = 0; i < 3; i++) honest(asked);
  });
  await Promise.all(Array.from({ length: 12 }, () => upstream.exchange(QUESTION)));
  await until(() => upstream.counters().late! >= 20);
  const { foreign, flooded, tcp } = upstream.counters();
  assert.deepEqual([foreign, flooded, tcp], [0, 0, 0]);
});

test('forward zones: the longest suffix, its servers alone, and DS from the zone above', async t => {
  const names = (server: FakeServer) =>
    server.asked.map(
      ({ query }) => `${query.questions![0]!.name.toLowerCase()} ${query.questions![0]!.type}`,
    );
  const [corp, lab] = await Promise.all([fakeServer(honest), fakeServer(() => {})]);
  const { upstream, server } = await setUp(t, honest, {
    forward: [
      { zone: Name.parseText('corp.example'), servers: [plain(corp)] },
      { zone: Name.parseText('lab.corp.example'), servers: [plain(lab)] },
    ],
  });
  t.after(() => Promise.all([corp.close(), lab.close()]));
  const ask = (text: string, type: number) => upstream.exchange({ name: Name.parseText(text), type });
  await ask('www.example', TYPE.A);
  await ask('notcorp.example', TYPE.A);
  await ask('corp.example', TYPE.DS);
  await ask('www.CORP.example', TYPE.A);
  await ask('corp.example', TYPE.DNSKEY);
  await ask('sub.corp.example', TYPE.DS);
  await ask('lab.corp.example', TYPE.DS);
  assert.deepEqual(names(server), ['www.example A', 'notcorp.example A', 'corp.example DS']);
  assert.deepEqual(names(corp), [
    'www.corp.example A',
    'corp.example DNSKEY',
    'sub.corp.example DS',
    'lab.corp.example DS',
  ]);
  await assert.rejects(ask('www.lab.corp.example', TYPE.A), { code: 'timeout' });
  assert.ok(lab.asked.length >= 1);
  assert.deepEqual([names(server).length, names(corp).length], [3, 4], 'nobody else hears of the name');
  assert.deepEqual(
    upstream.servers().map(({ zone }) => zone),
    [undefined, 'corp.example.', 'lab.corp.example.'],
  );
});

test('new servers take over what is in flight; the old ones are closed', async t => {
  const { upstream, server } = await setUp(t, () => {}, { times: { rounds: [60_000], total: 60_000 } });
  const pending = Promise.all(Array.from({ length: 5 }, () => upstream.exchange(QUESTION)));
  await until(() => server.asked.length === 5);
  const other = await fakeServer(honest);
  t.after(() => other.close());
  upstream.setServers([plain(other)]);
  for (const { answer } of await pending) assert.equal(answer.length, 1);
  assert.equal(upstream.servers().length, 1);
  upstream.setServers([]);
  await assert.rejects(upstream.exchange(QUESTION), { code: 'no-servers' });
  upstream.setServers([plain(other), plain(other)]);
  assert.equal(upstream.servers().length, 1, 'each once');
  assert.equal((await upstream.exchange(QUESTION)).answer.length, 1);
});

test('the same servers, named again, leave what is in flight as it is', async t => {
  const held: Asked[] = [];
  const { upstream, server } = await setUp(t, asked => void held.push(asked), {
    times: { rounds: [60_000], total: 60_000 },
  });
  const pending = upstream.exchange(QUESTION);
  await until(() => held.length === 1);
  upstream.setServers([plain(server)]);
  honest(held[0]!);
  assert.equal((await pending).answer.length, 1);
  assert.equal(server.asked.length, 1, 'and it is not asked anew');
});

test('asking one server shows what it says: truncation, errors, silence', async t => {
  const { upstream, server } = await setUp(t, (asked, { asked: all }) => {
    if (asked.transport === 'tcp') return honest(asked);
    if (all.length === 1) return asked.reply(respond(asked.query, { flags: 0x0380, answers: [] }));
    if (all.length === 2) return asked.reply(respond(asked.query, { rcode: 5, answers: [] }));
  });
  const { address } = plain(server) as { address: { address: string; port: number } };
  const ask = (transport: 'udp' | 'tcp') =>
    upstream.ask({ transport, address }, QUESTION, { timeoutMillis: 300 });
  assert.equal((await ask('udp')).truncated, true);
  assert.equal((await ask('udp')).rcode, 5);
  await assert.rejects(ask('udp'), { code: 'timeout' });
  assert.equal((await ask('tcp')).answer.length, 1);
  assert.deepEqual(
    server.asked.map(({ transport }) => transport),
    ['udp', 'udp', 'udp', 'tcp'],
  );
});
