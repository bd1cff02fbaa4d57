/** The portal check against real HTTP servers, honest and hostile; what is answered behind a portal; the diagnosis of anything. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import test, { type TestContext } from 'node:test';
import fc from 'fast-check';
import { Name } from '../../../resolver/dns/name.ts';
import { diagnose } from '../../../resolver/network/diagnosis.ts';
import { checkPortal, judge } from '../../../resolver/network/portal.ts';
import { PORTAL_CHECK_NAMES, PortalMode } from '../../../resolver/network/portal-mode.ts';
import type { Check, Findings, Seen } from '../../../resolver/network/probe.ts';
import { askUnprotected } from '../../../resolver/network/unprotected.ts';
import { plainSockets } from '../../../resolver/upstream/sockets.ts';
import { fakeServer, respond } from '../upstream/fake-server.ts';

const RESPONSE = 'known answer';
const forever = new AbortController().signal;
const nobody = async () => [];
const random = (octets: number) => new Uint8Array(octets).fill(7);

async function serve(t: TestContext, listener: RequestListener): Promise<{ url: URL; response: string }> {
  const server = createServer(listener);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { url: new URL(`http://check.example:${port}/page?x=1`), response: RESPONSE };
}

test('the check: by status and body, one request to the address that was looked up, nothing followed', async t => {
  const cases: [status: number, headers: Record<string, string>, body: string, expected: string][] = [
    [200, {}, `${RESPONSE}\n`, 'open'],
    [204, {}, '', 'open'],
    [302, { location: 'http://login.hotel.example/a' }, '', 'login.hotel.example'],
    [307, { location: 'https://192.0.2.8:8443/' }, '', '192.0.2.8'],
    [302, { location: '//other.example/x' }, '', 'other.example'],
    [301, { location: '/elsewhere' }, '', 'unknown'],
    [302, { location: 'javascript:alert(1)' }, '', 'unknown'],
    [302, { location: `http://${'a'.repeat(4000)}/` }, '', 'unknown'],
    [302, {}, '', 'unknown'],
    [511, {}, '', 'check.example'],
    [200, {}, '<html>please log in', 'check.example'],
    [404, {}, '', 'unknown'],
    [503, {}, '', 'unknown'],
  ];
  for (const [status, headers, body, expected] of cases) {
    const asked: string[] = [];
    const check = await serve(t, (request, response) => {
      asked.push(`${request.headers.host} ${request.url}`);
      response.writeHead(status, headers).end(body);
    });
    const finding = await checkPortal(
      check,
      async host => (host === 'check.example' ? ['127.0.0.1'] : []),
      forever,
    );
    assert.equal(finding.kind === 'portal' ? finding.login : finding.kind, expected, `${status} ${body}`);
    assert.deepEqual(asked, [`${check.url.host} /page?x=1`]);
  }
});

test('a page without end, headers without end, no HTTP at all, nobody: no finding, or a bounded one', async t => {
  let sent = 0;
  const endless = await serve(t, (_, response) => {
    response.on('error', () => {});
    const write = () => {
      if (response.destroyed) return;
      sent += 1024;
      response.write('x'.repeat(1024), () => setImmediate(write));
    };
    write();
  });
  assert.equal((await checkPortal(endless, async () => ['127.0.0.1'], forever)).kind, 'portal');
  assert.ok(sent < 1 << 22, `${sent} octets were taken`);
  const rude = createTcpServer(socket => {
    socket.on('error', () => {});
    socket.write(`HTTP/1.1 200 OK\r\n${'x-y: z\r\n'.repeat(10_000)}`);
  });
  rude.listen(0, '127.0.0.1');
  await once(rude, 'listening');
  t.after(() => rude.close());
  const url = new URL(`http://127.0.0.1:${(rude.address() as AddressInfo).port}/`);
  assert.deepEqual(await checkPortal({ url, response: RESPONSE }, nobody, forever), { kind: 'unknown' });
  assert.deepEqual(await checkPortal(endless, nobody, forever), { kind: 'unknown' });
  assert.deepEqual(await checkPortal(endless, async () => ['127.0.0.1'], AbortSignal.abort()), {
    kind: 'unknown',
  });
});

test('whatever a page says, the login host is a host and nothing else', () => {
  const check = { url: new URL('http://check.example/'), response: RESPONSE };
  fc.assert(
    fc.property(
      fc.integer({ min: 100, max: 999 }),
      fc.option(fc.string({ unit: 'binary' }), { nil: undefined }),
      fc.string(),
      (status, location, body) => {
        const finding = judge({ status, location, body }, check);
        if (finding.kind === 'portal') assert.match(finding.login, /^[a-z0-9._:-]{1,253}$/i);
      },
    ),
  );
});

/** Behind a portal at `address`. */
async function mode(t: TestContext, address: string, mayBeClear = (_name: Name, _address: string) => true) {
  const server = await fakeServer(({ query, reply }) =>
    reply(
      respond(query, {
        answers: [{ type: 'A', name: query.questions![0]!.name, ttl: 3600, data: address }],
        edns: false,
      }),
    ),
  );
  t.after(() => server.close());
  const clock = { now: 0 };
  const portal = new PortalMode({
    setting: { check: undefined, names: PORTAL_CHECK_NAMES.map(name => Name.parseText(`${name}.`)) },
    unprotected: { sockets: plainSockets, random },
    mayBeClear,
    now: () => clock.now,
  });
  const answer = (name: string, type = 1) =>
    portal.answer({ name: Name.parseText(name), type }, [{ address: '127.0.0.1', port: server.port }]);
  return { portal, clock, answer, server };
}

test('only the names of portal checks, only addresses, tiny TTL, no AD, said so', async t => {
  const { answer, server } = await mode(t, '10.0.0.1');
  const found = await answer('detectPortal.firefox.com.');
  assert.deepEqual([...found!.answer[0]!.rdatas[0]!], [10, 0, 0, 1]);
  assert.equal(found!.answer[0]!.ttlSeconds, 5);
  assert.equal(found!.authenticated, false);
  assert.match(found!.ede[0]!.text, /neither validated nor protected/);
  assert.equal(server.asked.length, 1);
  assert.equal(await answer('www.bank.example.'), undefined);
  assert.equal(await answer('x.detectportal.firefox.com.'), undefined, 'not those below');
  assert.equal(await answer('detectportal.firefox.com.', 65), undefined);
  assert.equal(server.asked.length, 1, 'nobody was asked');
});

test('never an address of this host, and none that policy wants protected', async t => {
  for (const address of ['127.0.0.1', '0.0.0.0', '224.0.0.1', '255.255.255.255']) {
    const { answer } = await mode(t, address);
    assert.equal(await answer('captive.apple.com.'), undefined, address);
  }
  const { answer } = await mode(t, '10.0.0.1', (_, address) => address !== '10.0.0.1');
  assert.equal(await answer('captive.apple.com.'), undefined);
});

test('what the user allows is answered until its time is over, for one portal, and not without bound', async t => {
  const { portal, clock, answer } = await mode(t, '10.0.0.1');
  portal.allow(Name.parseText('Login.hotel.example.'), 60_000);
  assert.ok(await answer('login.hotel.example.'));
  clock.now = 60_000;
  assert.equal(await answer('login.hotel.example.'), undefined);
  assert.deepEqual(portal.allowed(), []);
  for (let i = 0; i < 16; i++) portal.allow(Name.parseText(`h${i}.example.`), 60_000);
  assert.throws(() => portal.allow(Name.parseText('one-more.example.'), 60_000), RangeError);
  portal.allow(Name.parseText('h0.example.'), 60_000);
  portal.end();
  assert.equal(await answer('h0.example.'), undefined);
});

test('an unprotected question: only the answer to it counts, and it goes out again when nothing comes', async t => {
  let times = 0;
  const server = await fakeServer(({ query, reply }) => {
    if (++times === 1) return;
    reply(Buffer.from('garbage'));
    reply(respond({ ...query, id: (query.id ?? 0) ^ 1 }));
    reply(respond({ ...query, questions: [{ type: 'A', name: 'other.example' }] }));
    reply(respond(query));
  });
  t.after(() => server.close());
  const at = { address: '127.0.0.1', port: server.port };
  const setting = { sockets: plainSockets, random };
  const message = await askUnprotected(at, Name.parseText('www.example.'), 1, setting, forever);
  assert.equal(message?.questions[0]?.name.toText(), 'www.example.');
  assert.equal(server.asked[0]!.query.additionals?.length ?? 0, 0, 'without EDNS');
  assert.equal(times, 2);
  assert.equal(
    await askUnprotected(at, Name.parseText('www.example.'), 1, setting, AbortSignal.abort()),
    undefined,
  );
});

test('every set of findings has a diagnosis that fits on a line', () => {
  const seen = fc.record(
    {
      type: fc.constantFrom(1, 43, 48),
      outcome: fc.constantFrom('answer', 'silence', 'unreachable', 'garbled', 'large'),
      of: fc.constantFrom('keys', 'ds', 'denial', 'insecure', 'address'),
      rcode: fc.constantFrom(0, 1, 2, 3, 5),
      edns: fc.boolean(),
      positive: fc.boolean(),
      signed: fc.boolean(),
      proofs: fc.boolean(),
      addresses: fc.array(fc.constantFrom('10.0.0.1', '10.0.0.2'), { maxLength: 2 }),
    },
    { requiredKeys: ['type', 'outcome'] },
  ) as fc.Arbitrary<Seen>;
  const check = fc.record(
    {
      kind: fc.constantFrom('keys', 'ds', 'denial', 'insecure', 'address'),
      passed: fc.boolean(),
      why: fc.string({ unit: 'binary', maxLength: 400 }),
      ede: fc.constantFrom(6, 7, 8),
    },
    { requiredKeys: ['kind', 'passed'] },
  ) as fc.Arbitrary<Check>;
  const findings: fc.Arbitrary<Findings> = fc.record({
    server: fc.constant({ transport: 'udp', address: { address: '192.0.2.1', port: 53 } } as const),
    checks: fc.array(check, { maxLength: 5 }),
    seen: fc.array(seen, { maxLength: 12 }),
    millis: fc.constant(1),
  });
  const plain = fc.option(fc.constantFrom('answer' as const, 'truncated' as const, 'none' as const), {
    nil: undefined,
  });
  fc.assert(
    fc.property(findings, fc.option(findings, { nil: undefined }), plain, (main, tcp, control) => {
      const { symptom, text } = diagnose(main, tcp, control);
      assert.ok(text.length < 260, text);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they must not be there
      assert.doesNotMatch(text, /[\x00-\x1f\x7f-\x9f]/);
      const whole = main.checks.length > 0 && main.checks.every(({ passed }) => passed);
      assert.equal(
        symptom === 'none',
        whole && (tcp === undefined || tcp.checks.some(({ kind, passed }) => kind === 'keys' && passed)),
      );
    }),
  );
});
