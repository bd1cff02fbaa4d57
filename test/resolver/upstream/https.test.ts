/** DNS over HTTPS (RFC 8484) against a server of node:http2 whose behaviour is up to the test. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http2 from 'node:http2';
import type { AddressInfo } from 'node:net';
import test, { type TestContext } from 'node:test';
import tls from 'node:tls';
import { Name } from '../../../resolver/dns/name.ts';
import { TYPE } from '../../../resolver/dns/types.ts';
import { parseUpstreamServer } from '../../../resolver/upstream/server.ts';
import { Upstream, type UpstreamConfig } from '../../../resolver/upstream/upstream.ts';
import { dnsPacket, type Packet } from '../dns-packet.ts';
import { makeAuthority } from './certificates.ts';
import { respond } from './fake-server.ts';

const QUESTION = { name: Name.parseText('www.example.com'), type: TYPE.A };
const authority = makeAuthority();
const NAMED = authority.issue(['dns.example']);

type Asked = {
  headers: http2.IncomingHttpHeaders;
  query: Packet;
  length: number;
  stream: http2.ServerHttp2Stream;
  reply: (body: Uint8Array, headers?: http2.OutgoingHttpHeaders) => void;
};

async function httpsServer(t: TestContext, answer: (asked: Asked) => unknown, certificate = NAMED) {
  const asked: Asked[] = [];
  const sessions = new Set<http2.Http2Session>();
  const server = http2.createSecureServer({ key: certificate.key, cert: certificate.certificate });
  let opened = 0;
  server.on('session', session => {
    opened++;
    sessions.add(session);
    session.on('error', () => {});
  });
  server.on('stream', (stream, headers) => {
    const chunks: Buffer[] = [];
    stream.on('error', () => {});
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('end', () => {
      const body = Buffer.concat(chunks);
      const one: Asked = {
        headers,
        query: dnsPacket.decode(body),
        length: body.length,
        stream,
        reply: (bytes, more = {}) => {
          if (stream.destroyed) return;
          stream.respond({ ':status': 200, 'content-type': 'application/dns-message', ...more });
          stream.end(bytes);
        },
      };
      asked.push(one);
      answer(one);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    for (const session of sessions) session.destroy();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { asked, sessions, port, opened: () => opened };
}

function upstreamTo(t: TestContext, text: string, config: Partial<UpstreamConfig> = {}): Upstream {
  const server = parseUpstreamServer(text);
  assert.ok(server, text);
  const upstream = new Upstream({
    servers: [server],
    authorities: authority.pem,
    times: { rounds: [400, 800], total: 2000 },
    ...config,
  });
  t.after(() => upstream.close());
  return upstream;
}

const honest = ({ query, reply }: Asked) => reply(respond(query));
const at = (port: number) => `https://dns.example:${port}/dns-query#127.0.0.1`;

test('POST of a padded question with the ID 0; many at once on one connection', async t => {
  const held: Asked[] = [];
  const server = await httpsServer(t, one => {
    held.push(one);
    if (held.length === 8) for (const each of held.splice(0).reverse()) honest(each);
  });
  // So patient that a busy machine asks nothing twice: what is counted is what one asking costs.
  const upstream = upstreamTo(t, at(server.port), { times: { rounds: [30_000], total: 30_000 } });
  const names = Array.from({ length: 8 }, (_, i) => Name.parseText(`n${i}.example`));
  const answers = await Promise.all(names.map(name => upstream.exchange({ name, type: TYPE.A })));
  for (const [i, { answer }] of answers.entries()) assert.ok(answer[0]!.name.equals(names[i]!));
  assert.equal(server.opened(), 1);
  for (const { headers, query, length } of server.asked) {
    assert.equal(headers[':method'], 'POST');
    assert.equal(headers[':path'], '/dns-query');
    assert.equal(headers[':authority'], `dns.example:${server.port}`);
    assert.equal(headers['content-type'], 'application/dns-message');
    assert.equal(headers.accept, 'application/dns-message');
    assert.deepEqual(
      Object.keys(headers).filter(name => /agent|cookie|language/.test(name)),
      [],
      'nothing that tells who asks',
    );
    assert.equal(query.id, 0);
    assert.equal(length % 128, 0);
  }
  assert.equal(upstream.counters().https, 8);
  assert.equal(upstream.servers()[0]!.connections, 1);
});

test('what has lain in a cache on the way has aged (RFC 8484 section 5.1)', async t => {
  const ages = ['100', '999999', '-5', 'old', undefined];
  const server = await httpsServer(t, ({ query, reply }) => {
    const age = ages[server.asked.length - 1];
    reply(respond(query), age === undefined ? {} : { age });
  });
  const upstream = upstreamTo(t, at(server.port));
  for (const ttl of [200, 0, 300, 300, 300]) {
    assert.equal((await upstream.exchange(QUESTION)).answer[0]!.ttlSeconds, ttl);
  }
});

test('status, type, length, question and form of an answer are checked', async t => {
  const cases: [(asked: Asked) => unknown, string, RegExp][] = [
    [({ reply }) => reply(Buffer.from('no'), { ':status': 403 }), 'refused', /HTTP status 403/],
    [
      ({ reply }) => reply(Buffer.alloc(0), { ':status': 302, location: 'https://x.example/' }),
      'refused',
      /302/,
    ],
    [({ query, reply }) => reply(respond(query), { 'content-type': 'text/html' }), 'malformed', /text\/html/],
    [({ reply }) => reply(Buffer.alloc(70_000)), 'network', /./],
    [({ reply }) => reply(Buffer.from([1, 2, 3])), 'malformed', /another question/],
    [
      ({ query, reply }) =>
        reply(respond({ ...query, questions: [{ type: 'A', name: 'www.example.net', class: 'IN' }] })),
      'malformed',
      /another question/,
    ],
    [({ query, reply }) => reply(respond({ ...query, id: 7 })), 'malformed', /another question/],
    [({ query, reply }) => reply(respond(query, { flags: 0x0380 })), 'malformed', /truncated/],
    [({ stream }) => stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR), 'network', /HTTPS failed/],
  ];
  for (const [answer, code, text] of cases) {
    const server = await httpsServer(t, answer);
    await assert.rejects(
      upstreamTo(t, at(server.port)).exchange(QUESTION),
      (error: Error & { code: string }) => {
        assert.equal(error.code, code, error.message);
        assert.match(error.message, text);
        return true;
      },
    );
  }
});

test('who cannot prove to be the server, or does not speak HTTP/2, is not asked', async t => {
  const other = await httpsServer(t, honest, authority.issue(['other.example']));
  await assert.rejects(upstreamTo(t, at(other.port)).exchange(QUESTION), {
    code: 'network',
    message: /altnames/,
  });
  const pinned = await httpsServer(t, honest);
  const wrong = `${at(pinned.port)}#pin-sha256=${authority.issue(['dns.example']).pin}`;
  await assert.rejects(upstreamTo(t, wrong).exchange(QUESTION), { code: 'network', message: /pinned/ });
  assert.equal(other.asked.length + pinned.asked.length, 0);
  const old = tls.createServer({ key: NAMED.key, cert: NAMED.certificate, ALPNProtocols: ['http/1.1'] });
  old.listen(0, '127.0.0.1');
  await once(old, 'listening');
  t.after(() => old.close());
  const { port } = old.address() as AddressInfo;
  await assert.rejects(upstreamTo(t, at(port)).exchange(QUESTION), { code: 'network' });
});

test('a session that the server ended is opened anew', async t => {
  const server = await httpsServer(t, honest);
  const upstream = upstreamTo(t, at(server.port));
  await upstream.exchange(QUESTION);
  for (const session of server.sessions) await new Promise<void>(resolve => session.close(resolve));
  assert.equal((await upstream.exchange(QUESTION)).answer.length, 1);
  assert.equal(server.opened(), 2);
});

test('on a connection that went dead without a word nothing more is asked', async t => {
  let first: http2.Http2Session | undefined;
  let dead = false;
  const server = await httpsServer(t, asked => {
    first ??= asked.stream.session;
    if (!dead || asked.stream.session !== first) honest(asked);
  });
  const times = { rounds: [400, 400, 800, 1600], total: 5000 };
  const upstream = upstreamTo(t, at(server.port), { times });
  await upstream.exchange(QUESTION);
  dead = true;
  assert.equal((await upstream.exchange(QUESTION)).answer.length, 1);
  assert.equal(server.opened(), 2);
  await upstream.exchange(QUESTION);
  assert.equal(server.opened(), 2, 'the new one is kept');
  if (!first!.destroyed) await once(first!, 'close');
});

test('the name is looked up by the bootstrap alone', async t => {
  const server = await httpsServer(t, honest);
  const upstream = upstreamTo(t, `https://dns.example:${server.port}/dns-query`, {
    bootstrap: async name => (name === 'dns.example' ? ['127.0.0.1'] : []),
  });
  assert.equal((await upstream.exchange(QUESTION)).answer.length, 1);
});

test('given up and closed, nothing is left open', async t => {
  const server = await httpsServer(t, () => {});
  const upstream = upstreamTo(t, at(server.port));
  const controller = new AbortController();
  const pending = upstream.exchange(QUESTION, controller.signal);
  setTimeout(() => controller.abort(), 100);
  await assert.rejects(pending, { code: 'aborted' });
  const second = upstream.exchange(QUESTION);
  setTimeout(() => upstream.close(), 50);
  await assert.rejects(second, { code: 'aborted' });
  for (const session of server.sessions) if (!session.destroyed) await once(session, 'close');
});
