/** DNS over TLS (RFC 7858) against a server of node:tls whose behaviour is up to the test. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo, Socket } from 'node:net';
import net from 'node:net';
import test, { type TestContext } from 'node:test';
import tls from 'node:tls';
import { Name } from '../../../resolver/dns/name.ts';
import { TYPE } from '../../../resolver/dns/types.ts';
import { UpstreamError } from '../../../resolver/upstream/error.ts';
import { parseUpstreamServer } from '../../../resolver/upstream/server.ts';
import { Deframer, frame } from '../../../resolver/upstream/tcp-framing.ts';
import { Upstream, type UpstreamConfig } from '../../../resolver/upstream/upstream.ts';
import { dnsPacket, type Packet } from '../dns-packet.ts';
import { until } from '../until.ts';
import { type Certificate, makeAuthority } from './certificates.ts';
import { respond } from './fake-server.ts';

const QUESTION = { name: Name.parseText('www.example.com'), type: TYPE.A };
const authority = makeAuthority();
const NAMED = authority.issue(['dns.example']);

type Asked = { query: Packet; length: number; socket: tls.TLSSocket; reply: (bytes: Uint8Array) => void };

async function tlsServer(t: TestContext, certificate: Certificate, answer: (asked: Asked) => unknown) {
  const asked: Asked[] = [];
  const resumed: boolean[] = [];
  const sockets = new Set<Socket>();
  const server = tls.createServer({
    key: certificate.key,
    cert: certificate.certificate,
    ALPNProtocols: ['dot'],
  });
  server.on('secureConnection', socket => {
    sockets.add(socket);
    resumed.push(socket.isSessionReused());
    socket.on('error', () => {});
    const deframer = new Deframer(65535);
    socket.on('data', chunk =>
      deframer.push(chunk, message => {
        const one: Asked = {
          query: dnsPacket.decode(Buffer.from(message)),
          length: message.length,
          socket,
          reply: bytes => socket.write(frame(bytes)),
        };
        asked.push(one);
        answer(one);
        return true;
      }),
    );
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { asked, resumed, port: (server.address() as AddressInfo).port };
}

function upstreamTo(t: TestContext, text: string, config: Partial<UpstreamConfig> = {}): Upstream {
  const server = parseUpstreamServer(text);
  assert.ok(server, text);
  const upstream = new Upstream({
    servers: [server],
    authorities: authority.pem,
    times: { rounds: [400, 800], total: 3000 },
    ...config,
  });
  t.after(() => upstream.close());
  return upstream;
}

const honest = ({ query, reply }: Asked) => reply(respond(query));

test('questions go out padded and pipelined over one connection, and answers come in any order', async t => {
  const held: Asked[] = [];
  const server = await tlsServer(t, NAMED, one => {
    held.push(one);
    if (held.length === 8) for (const each of held.splice(0).reverse()) honest(each);
  });
  const upstream = upstreamTo(t, `tls://127.0.0.1:${server.port}#dns.example`);
  const names = Array.from({ length: 8 }, (_, i) => Name.parseText(`n${i}.example`));
  const answers = await Promise.all(names.map(name => upstream.exchange({ name, type: TYPE.A })));
  for (const [i, { answer }] of answers.entries()) assert.ok(answer[0]!.name.equals(names[i]!));
  assert.equal(server.resumed.length, 1, 'one connection');
  for (const { length, query, socket } of server.asked) {
    assert.equal(length % 128, 0);
    assert.equal(socket.alpnProtocol, 'dot');
    const options = (query.additionals![0]!.options as { code: number }[]).map(({ code }) => code);
    assert.deepEqual(options, [11, 12], 'keepalive and padding, no cookie');
  }
  assert.equal(upstream.counters().tls, 8);
  assert.equal(upstream.counters().udp! + upstream.counters().tcp!, 0);
  assert.deepEqual(upstream.servers()[0]!.connections, 1);
});

test('who cannot prove to be the server is not asked', async t => {
  const strangers = makeAuthority();
  const cases: [Certificate, (port: number) => string, RegExp][] = [
    [authority.issue(['other.example']), port => `tls://127.0.0.1:${port}#dns.example`, /altnames/],
    [strangers.issue(['dns.example']), port => `tls://127.0.0.1:${port}#dns.example`, /unable to verify/],
    [authority.issue(['dns.example'], [-9, -1]), port => `tls://127.0.0.1:${port}#dns.example`, /expired/],
    [NAMED, port => `tls://127.0.0.1:${port}#pin-sha256=${authority.issue([]).pin}`, /not the one pinned/],
    [NAMED, port => `tls://127.0.0.1:${port}#dns.example#pin-sha256=${authority.issue([]).pin}`, /pinned/],
    [
      strangers.issue(['dns.example']),
      port => `tls://127.0.0.1:${port}#dns.example#pin-sha256=${NAMED.pin}`,
      /verify/,
    ],
  ];
  for (const [certificate, text, why] of cases) {
    const server = await tlsServer(t, certificate, honest);
    const upstream = upstreamTo(t, text(server.port));
    for (let i = 0; i < 2; i++) {
      await assert.rejects(upstream.exchange(QUESTION), (error: UpstreamError) => {
        assert.ok(error instanceof UpstreamError);
        assert.equal(error.code, 'network');
        assert.match(error.message, why);
        return true;
      });
    }
    assert.equal(server.asked.length, 0, 'not a question left');
    assert.match(upstream.servers()[0]!.why ?? '', why);
  }
});

test('a pin is enough, whoever signed; a pin and a name have to be right both', async t => {
  const self = makeAuthority().issue(['whatever.example']);
  const pinned = await tlsServer(t, self, honest);
  await upstreamTo(t, `tls://127.0.0.1:${pinned.port}#pin-sha256=${self.pin}`).exchange(QUESTION);
  const both = await tlsServer(t, NAMED, honest);
  await upstreamTo(t, `tls://127.0.0.1:${both.port}#dns.example#pin-sha256=${NAMED.pin}`).exchange(QUESTION);
});

test('a closed connection is opened anew, its session resumed, and nobody loses an answer', async t => {
  const server = await tlsServer(t, NAMED, one => {
    if (server.asked.length === 2) return one.socket.destroy();
    honest(one);
  });
  const upstream = upstreamTo(t, `tls://127.0.0.1:${server.port}#dns.example`);
  await upstream.exchange(QUESTION);
  assert.equal((await upstream.exchange(QUESTION)).answer.length, 1);
  assert.deepEqual(server.resumed, [false, true]);
});

test('a connection that went dead without a word costs a question its patience, not its answer', async t => {
  let first: tls.TLSSocket | undefined;
  let dead = false;
  const server = await tlsServer(t, NAMED, asked => {
    first ??= asked.socket;
    if (!dead || asked.socket !== first) honest(asked);
  });
  const times = { rounds: [400, 400, 800, 1600], total: 5000 };
  const upstream = upstreamTo(t, `tls://127.0.0.1:${server.port}#dns.example`, { times });
  await upstream.exchange(QUESTION);
  dead = true;
  assert.equal((await upstream.exchange(QUESTION)).answer.length, 1);
  assert.equal(server.resumed.length, 2, 'a second connection');
  await upstream.exchange(QUESTION);
  assert.equal(server.resumed.length, 2, 'and no third');
});

test('a server that says it keeps no idle connection is asked nothing more on it (RFC 7828)', async t => {
  const server = await tlsServer(t, NAMED, ({ query, reply }) => {
    const opt = {
      type: 'OPT',
      name: '.',
      udpPayloadSize: 1232,
      flags: 0x8000,
      options: [{ code: 11, data: Buffer.from([0, 0]) }],
    };
    reply(respond(query, { additionals: [opt] } as never));
  });
  const upstream = upstreamTo(t, `tls://127.0.0.1:${server.port}#dns.example`);
  await upstream.exchange(QUESTION);
  await until(() => upstream.servers()[0]!.connections === 0);
  await upstream.exchange(QUESTION);
  assert.equal(server.resumed.length, 2);
});

test('forged and late messages on the connection are counted and passed over', async t => {
  const server = await tlsServer(t, NAMED, ({ query, reply }) => {
    reply(respond({ ...query, id: (query.id! + 1) & 0xffff }));
    reply(respond({ ...query, questions: [{ type: 'A', name: 'www.example.net', class: 'IN' }] }));
    reply(respond(query));
  });
  const upstream = upstreamTo(t, `tls://127.0.0.1:${server.port}#dns.example`);
  await upstream.exchange(QUESTION);
  assert.equal(upstream.counters().foreign, 2);
});

test('of several addresses the one that answers is used', async t => {
  const server = await tlsServer(t, NAMED, honest);
  const upstream = upstreamTo(t, `tls://127.0.0.2:${server.port}#dns.example#127.0.0.3#127.0.0.1`);
  await upstream.exchange(QUESTION);
  assert.equal(server.asked.length, 1);
});

test('an address that is not configured is looked up before the connection is opened', async t => {
  const server = await tlsServer(t, NAMED, honest);
  const lookedUp: string[] = [];
  const upstream = upstreamTo(t, `tls://dns.example:${server.port}`, {
    bootstrap: async name => {
      lookedUp.push(name);
      return ['127.0.0.1'];
    },
  });
  await upstream.exchange(QUESTION);
  assert.deepEqual(lookedUp, ['dns.example']);
  const nobody = upstreamTo(t, 'tls://dns.example', {
    bootstrap: () => Promise.reject(new UpstreamError('network', 'no address of dns.example: nobody knows')),
  });
  await assert.rejects(nobody.exchange(QUESTION), /no address of dns\.example/);
});

test('what is no TLS, refuses, or is silent, is a server that cannot be reached', async t => {
  const mute = net.createServer(socket => socket.on('error', () => {})).listen(0, '127.0.0.1');
  const chatty = net
    .createServer(socket => socket.on('error', () => {}).end('220 mail.example ESMTP\r\n'))
    .listen(0, '127.0.0.1');
  await Promise.all([once(mute, 'listening'), once(chatty, 'listening')]);
  t.after(() => [mute, chatty].map(server => server.close()));
  const at = (server: net.Server) => `tls://127.0.0.1:${(server.address() as AddressInfo).port}#dns.example`;
  const silent = upstreamTo(t, at(mute), { times: { rounds: [50], total: 200 } });
  await assert.rejects(silent.exchange(QUESTION), { code: 'timeout' });
  await assert.rejects(upstreamTo(t, at(chatty)).exchange(QUESTION), { code: 'network' });
  await assert.rejects(upstreamTo(t, 'tls://127.0.0.1:9#dns.example').exchange(QUESTION), {
    code: 'network',
    message: /ECONNREFUSED/,
  });
});

test('one server on its own is asked for probing, configured or not', async t => {
  const server = await tlsServer(t, NAMED, ({ query, reply }) => reply(respond(query, { rcode: 2 })));
  const text = `tls://127.0.0.1:${server.port}#dns.example`;
  const upstream = upstreamTo(t, '127.0.0.1:9');
  for (let i = 0; i < 3; i++) {
    const message = await upstream.ask(parseUpstreamServer(text)!, QUESTION, { timeoutMillis: 2000 });
    assert.equal(message.rcode, 2, 'any RCODE is an answer here');
  }
  assert.equal(server.resumed.length, 1, 'over one connection');
});
