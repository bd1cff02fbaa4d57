/** DNS over TLS and over HTTPS, asked by clients that we did not write: dig, undici, Node's http2 and https. */
import assert from 'node:assert/strict';
import { chmodSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import http2 from 'node:http2';
import https from 'node:https';
import net from 'node:net';
import test, { type TestContext } from 'node:test';
import tls from 'node:tls';
import type { SocketAddress } from '../../../resolver/address.ts';
import { parseCidr } from '../../../resolver/address.ts';
import { EDNS_OPTION } from '../../../resolver/dns/edns.ts';
import { parseMessage } from '../../../resolver/dns/message.ts';
import { CLASS, RCODE, TYPE } from '../../../resolver/dns/types.ts';
import { openUdp } from '../../../kernel/sockets.ts';
import { StartupError } from '../../../resolver/startup-error.ts';
import { Certificate } from '../../../resolver/stub/certificate.ts';
import { parseDohRequest } from '../../../resolver/stub/doh-request.ts';
import { Stub, type StubConfig } from '../../../resolver/stub/stub.ts';
import type { StubAnswer, StubHandler, StubQuestion } from '../../../resolver/stub/types.ts';
import { Deframer, frame } from '../../../resolver/upstream/tcp-framing.ts';
import { until } from '../until.ts';
import { certificateFiles, first, second } from './certificates.ts';
import { dig, queryBytes } from './clients.ts';

const LOOPBACK = [parseCidr('127.0.0.0/8')!, parseCidr('::1')!];
const ANYWHERE: SocketAddress = { address: '127.0.0.1', port: 0 };

function addressOf({ name, type }: StubQuestion, count = 1): StubAnswer {
  const rdatas = Array.from({ length: count }, (_, i) => Uint8Array.of(192, 0, 2, i + 1));
  const answer =
    type === TYPE.A ? [{ name, type, class: CLASS.IN, ttlSeconds: 300, rdatas, signatures: [] }] : [];
  return { rcode: RCODE.NOERROR, authenticated: true, answer, authority: [] };
}

async function setUp(t: TestContext, handler: StubHandler, config: Partial<StubConfig> = {}) {
  const certificate = new Certificate(
    certificateFiles(t, first),
    () => 0,
    error => assert.fail(String(error)),
  );
  const stub = new Stub({
    listen: [ANYWHERE],
    secure: { tls: [ANYWHERE], https: [ANYWHERE], certificate: () => certificate.current() },
    access: LOOPBACK,
    openUdp,
    handler,
    ...config,
  });
  await stub.start();
  t.after(() => stub.close());
  const { tls: dot, https: doh } = stub.secureAddresses();
  return { stub, dot: dot[0]!, doh: doh[0]! };
}

const atOnce: StubHandler = async question => addressOf(question);

test('dig asks over TLS, over HTTPS by POST and by GET, and gets answers that do not fit UDP', async t => {
  const { stub, dot, doh } = await setUp(t, async question => addressOf(question, 200));
  const kinds: [SocketAddress, string][] = [
    [dot, '+tls'],
    [doh, '+https'],
    [doh, '+https-get'],
  ];
  for (const [at, kind] of kinds) {
    const output = await dig(at, kind, '+dnssec', 'WWW.Example.com', 'A');
    assert.match(output, /status: NOERROR/, kind);
    assert.match(output, /flags: qr rd ra ad; QUERY: 1, ANSWER: 200/);
    assert.match(output, /^WWW\.Example\.com\.\s+300\s+IN\s+A\s+192\.0\.2\.1$/m);
    assert.doesNotMatch(output, /WARNING|malformed|extra bytes/i);
  }
  const {
    'tls.handshakes': overTls,
    'https.handshakes': overHttps,
    'https.requests': requests,
  } = stub.counters();
  assert.deepEqual([overTls, overHttps, requests], [1, 2, 2]);
});

/** A connection for DNS over TLS, trusting the test's certificate and nobody else. */
async function dotClient(at: SocketAddress, options: tls.ConnectionOptions = {}) {
  const socket = tls.connect({
    host: at.address,
    port: at.port,
    servername: 'dns.example',
    ca: [first.certificate],
    ALPNProtocols: ['dot'],
    ...options,
  });
  const answers: Uint8Array[] = [];
  const deframer = new Deframer(65_535);
  socket.on('data', chunk => deframer.push(chunk, message => answers.push(message) > 0));
  socket.on('error', () => {});
  await once(socket, 'secureConnect');
  return { socket, answers };
}

test('over TLS many questions stand at once and are answered as they are ready', async t => {
  const held: (() => void)[] = [];
  const { stub, dot } = await setUp(
    t,
    question => new Promise(resolve => held.push(() => resolve(addressOf(question)))),
  );
  const { socket, answers } = await dotClient(dot);
  assert.equal(socket.alpnProtocol, 'dot');
  for (let i = 0; i < 60; i++)
    socket.write(frame(queryBytes({ id: i, questions: [{ type: 'A', name: `n${i}.example` }] })));
  await until(() => held.length === 60);
  for (const answer of held.toReversed()) answer();
  await until(() => answers.length === 60);
  assert.deepEqual(
    answers.map(bytes => parseMessage(bytes).id),
    Array.from({ length: 60 }, (_, i) => 59 - i),
  );
  assert.equal(stub.counters().tls, 60);
  socket.destroy();
  await until(() => stub.counters().tcpConnections === 0);
});

const option = (code: number) => ({
  type: 'OPT',
  name: '.',
  udpPayloadSize: 1232,
  flags: 0,
  options: [{ code, data: Buffer.alloc(0) }],
});
const PADDED = queryBytes({ additionals: [option(EDNS_OPTION.PADDING)] as never });
const KEPT_ALIVE = queryBytes({ additionals: [option(EDNS_OPTION.KEEPALIVE)] as never });

test('padding and keepalive come to those who ask for them, over streams that can do with them', async t => {
  const { stub, dot, doh } = await setUp(t, atOnce);
  const { socket, answers } = await dotClient(dot);
  for (const query of [PADDED, KEPT_ALIVE, queryBytes()]) {
    const before = answers.length;
    socket.write(frame(query));
    await until(() => answers.length > before);
  }
  const codes = (bytes: Uint8Array) => parseMessage(bytes).edns!.options.map(({ code }) => code);
  assert.equal(answers[0]!.length, 468);
  assert.deepEqual(codes(answers[0]!), [EDNS_OPTION.PADDING]);
  // RFC 7828 section 3.1: units of 100 ms.
  assert.deepEqual([...parseMessage(answers[1]!).edns!.options[0]!.data], [0, 150]);
  assert.deepEqual(codes(answers[2]!), []);
  socket.destroy();
  const plain = await overHttp2(doh, PADDED);
  assert.equal(plain.body.length, 468);
  const kept = await overHttp2(doh, KEPT_ALIVE);
  assert.deepEqual(codes(kept.body), []);
  assert.equal(stub.counters()['tls.handshakes'], 1);
});

/** One request on a connection of its own, by Node's HTTP/2 client. */
async function overHttp2(
  at: SocketAddress,
  body: Uint8Array | undefined,
  headers: http2.OutgoingHttpHeaders = {},
): Promise<{ status: number; headers: http2.IncomingHttpHeaders; body: Buffer }> {
  const session = http2.connect(`https://${at.address}:${at.port}`, { ca: [first.certificate] });
  session.on('error', () => {});
  try {
    const stream = session.request({
      ':method': body === undefined ? 'GET' : 'POST',
      ':path': '/dns-query',
      ...(body && { 'content-type': 'application/dns-message' }),
      ...headers,
    });
    if (body !== undefined) stream.write(body);
    stream.end();
    const [answered] = (await once(stream, 'response')) as [
      http2.IncomingHttpHeaders & { ':status': number },
    ];
    return { status: answered[':status'], headers: answered, body: Buffer.concat(await stream.toArray()) };
  } finally {
    session.destroy();
  }
}

test('HTTP: what is no question gets the status that says why, and the connection goes on', async t => {
  const { stub, doh } = await setUp(t, atOnce);
  const target = `/dns-query?dns=${queryBytes({ id: 0 }).toString('base64url')}`;
  const good = await overHttp2(doh, undefined, { ':path': target });
  assert.deepEqual([good.status, good.headers['content-type']], [200, 'application/dns-message']);
  assert.equal(good.headers['cache-control'], 'private, max-age=300');
  assert.equal(parseMessage(good.body).answer.length, 1);
  const cases: [number, Uint8Array | undefined, http2.OutgoingHttpHeaders][] = [
    [404, undefined, { ':path': '/' }],
    [404, undefined, { ':path': `/dns-query/${target}` }],
    [400, undefined, {}],
    [400, undefined, { ':path': '/dns-query?dns=' }],
    [400, undefined, { ':path': '/dns-query?dns=AA%3D' }],
    [400, undefined, { ':path': `${target}&dns=AAAA` }],
    [400, undefined, { ':path': '/dns-query?dns=AAAA' }],
    [405, undefined, { ':method': 'PUT' }],
    [414, undefined, { ':path': `/dns-query?dns=${'A'.repeat(6000)}` }],
    [415, queryBytes(), { 'content-type': 'text/plain' }],
    [413, new Uint8Array(5000), {}],
    [400, new Uint8Array(5), {}],
  ];
  for (const [status, body, headers] of cases) {
    assert.equal((await overHttp2(doh, body, headers)).status, status, JSON.stringify(headers));
  }
  // A format error is an answer of DNS, not of HTTP.
  const twice = queryBytes();
  twice[5] = 2;
  const refused = await overHttp2(doh, twice);
  assert.deepEqual([refused.status, parseMessage(refused.body).rcode], [200, RCODE.FORMERR]);
  assert.equal(refused.headers['cache-control'], 'private, max-age=0');
  assert.equal(stub.counters()['https.refusedRequests'], cases.length);
});

test('HTTP/1.1 is served too, with many requests on one connection', async t => {
  const { stub, doh } = await setUp(t, atOnce);
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1, ca: [first.certificate] });
  t.after(() => agent.destroy());
  for (let i = 0; i < 5; i++) {
    const request = https.request({
      agent,
      host: doh.address,
      port: doh.port,
      path: '/dns-query',
      method: 'POST',
      headers: { 'content-type': 'application/dns-message' },
    });
    request.end(queryBytes({ id: i }));
    const [response] = await once(request, 'response');
    assert.deepEqual([response.statusCode, response.httpVersion], [200, '1.1']);
    assert.equal(parseMessage(Buffer.concat(await response.toArray())).id, i);
  }
  assert.deepEqual([stub.counters()['https.handshakes'], stub.counters().https], [1, 5]);
});

test('HTTP: a request that is given up gives its question up, on a connection that stays', async t => {
  const signals: AbortSignal[] = [];
  const { stub, doh } = await setUp(t, ({ name }, signal) => {
    signals.push(signal);
    return name.toText().startsWith('later')
      ? new Promise(() => {})
      : Promise.resolve(addressOf({ name, type: 1 } as StubQuestion));
  });
  const session = http2.connect(`https://${doh.address}:${doh.port}`, { ca: [first.certificate] });
  t.after(() => session.destroy());
  const headers = { ':method': 'POST', ':path': '/dns-query', 'content-type': 'application/dns-message' };
  const stream = session.request(headers);
  stream.on('error', () => {});
  stream.end(queryBytes({ questions: [{ type: 'A', name: 'later.example' }] }));
  await until(() => signals.length === 1);
  stream.close(http2.constants.NGHTTP2_CANCEL);
  await until(() => signals[0]!.aborted);
  assert.deepEqual([stub.counters().inFlight, stub.counters().tcpConnections], [0, 1]);
  const again = session.request(headers);
  again.end(queryBytes());
  assert.equal(parseMessage(Buffer.concat(await again.toArray())).answer.length, 1);
});

test('TLS: a client that offers other protocols, no TLS at all, or may not ask, is let go', async t => {
  const { stub, dot, doh } = await setUp(t, atOnce, { access: [parseCidr('127.0.0.1')!] });
  const end = (socket: tls.TLSSocket) =>
    new Promise<string>(resolve => {
      socket.on('error', error => resolve((error as NodeJS.ErrnoException).code ?? ''));
      socket.on('secureConnect', () => resolve('connected'));
    });
  const base = { host: dot.address, ca: [first.certificate], servername: 'dns.example' };
  assert.match(
    await end(tls.connect({ ...base, port: dot.port, ALPNProtocols: ['h2'] })),
    /NO_APPLICATION_PROTOCOL/,
  );
  assert.match(
    await end(tls.connect({ ...base, port: doh.port, ALPNProtocols: ['dot'] })),
    /NO_APPLICATION_PROTOCOL/,
  );
  assert.match(
    await end(
      tls.connect({
        ...base,
        port: dot.port,
        maxVersion: 'TLSv1.1',
        minVersion: 'TLSv1',
        ciphers: 'ALL@SECLEVEL=0',
      }),
    ),
    /PROTOCOL_VERSION|VERSION/,
  );
  assert.equal(
    await end(tls.connect({ ...base, port: dot.port, localAddress: '127.0.0.2' } as never)),
    'ECONNRESET',
  );
  for (const at of [dot, doh]) {
    const plain = tls.connect({ ...base, port: at.port });
    await once(plain, 'secureConnect');
    plain.destroy();
  }
  const clear = net.connect(dot.port, dot.address, () => clear.write(frame(queryBytes())));
  clear.on('error', () => {}).resume();
  await once(clear, 'close');
  assert.equal(stub.counters()['tls.prohibited'], 1);
  assert.equal(stub.counters().asked, 0);
  await until(() => stub.counters().tcpConnections === 0);
});

test('which requests carry a question', () => {
  const get = (query: string) => parseDohRequest({ method: 'GET', target: `/dns-query${query}` });
  // RFC 8484 section 4.1.1, the first example.
  const parsed = get('?dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB');
  assert.ok(parsed.kind === 'question');
  assert.equal(parseMessage(parsed.bytes).questions[0]!.name.toText(), 'www.example.com.');
  assert.equal(get('?ct&dns=AAAA').kind, 'question');
  const post = (contentType?: string, contentLength?: string) =>
    parseDohRequest({ method: 'POST', target: '/dns-query', contentType, contentLength });
  assert.equal(post('application/dns-message').kind, 'body');
  assert.equal(post('Application/DNS-Message; charset=x', '40').kind, 'body');
  for (const length of ['4097', '-', 'NaN', '1e9'])
    assert.deepEqual(
      { ...post('application/dns-message', length), why: '' },
      { kind: 'refusal', status: 413, why: '' },
    );
});

test('a certificate that cannot be used is told with its cure', t => {
  const refusal = (change: (files: { certificate: string; key: string }) => void): string => {
    const files = certificateFiles(t, first);
    change(files);
    try {
      new Certificate(
        files,
        () => 0,
        () => {},
      );
    } catch (error) {
      assert.ok(error instanceof StartupError);
      return error.message.replaceAll(/\S*\/(certificate|key)\.pem/g, '$1');
    }
    return 'taken';
  };
  assert.equal(
    refusal(() => {}),
    'taken',
  );
  assert.match(
    refusal(({ key }) => chmodSync(key, 0o644)),
    /^cannot use the key key: its mode 644 lets others at it; run `chmod 600/,
  );
  assert.equal(
    refusal(({ key }) => chmodSync(key, 0o640)),
    'taken',
  );
  assert.match(
    refusal(({ key }) => writeFileSync(key, second.key)),
    /^cannot use the certificate certificate: key is not its key; /,
  );
  assert.match(
    refusal(({ key }) => writeFileSync(key, 'nothing')),
    /^cannot use key: .*; expected an unencrypted private key in PEM$/,
  );
  assert.match(
    refusal(({ certificate }) => writeFileSync(certificate, first.key)),
    /^cannot use certificate: .*; expected a PEM file/,
  );
  assert.match(
    refusal(files => (files.certificate += '.not')),
    /^cannot read certificate\.not: no such file; correct tls\.certificate/,
  );
});

test('a renewed certificate is shown without a restart, a broken one is told and not used', async t => {
  const files = certificateFiles(t, first);
  const clock = { now: 0 };
  const problems: unknown[] = [];
  const certificate = new Certificate(
    files,
    () => clock.now,
    error => problems.push(error),
  );
  const { dot } = await setUp(t, atOnce, {
    secure: { tls: [ANYWHERE], https: [ANYWHERE], certificate: () => certificate.current() },
  });
  const shown = async () => {
    const { socket } = await dotClient(dot, { ca: [first.certificate, second.certificate] });
    const { fingerprint256 } = socket.getPeerCertificate();
    socket.destroy();
    return fingerprint256;
  };
  const before = await shown();
  writeFileSync(files.certificate, second.certificate);
  clock.now = 6000;
  assert.equal(await shown(), before, 'half a renewal');
  assert.equal(problems.length, 1);
  clock.now = 12_000;
  assert.equal(await shown(), before);
  assert.equal(problems.length, 1, 'told once');
  writeFileSync(files.key, second.key);
  clock.now = 18_000;
  assert.notEqual(await shown(), before);
});

test('over TLS a client that has closed its side still gets its answers, then the end', async t => {
  const held: (() => void)[] = [];
  const { dot } = await setUp(
    t,
    question => new Promise(resolve => held.push(() => resolve(addressOf(question)))),
  );
  const { socket, answers } = await dotClient(dot, { allowHalfOpen: true } as never);
  socket.end(frame(queryBytes()));
  await until(() => held.length === 1);
  await new Promise(resolve => setTimeout(resolve, 20));
  held[0]!();
  await once(socket, 'close');
  assert.equal(answers.length, 1);
});
