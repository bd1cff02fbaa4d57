/** Real servers: unbound over UDP, TCP, TLS and HTTPS, and named with cookies. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Name } from '../../../resolver/dns/name.ts';
import { TYPE } from '../../../resolver/dns/types.ts';
import { upstreamSockets } from '../../../resolver/daemon/upstream-sockets.ts';
import { parseUpstreamServer } from '../../../resolver/upstream/server.ts';
import { Upstream } from '../../../resolver/upstream/upstream.ts';
import { layerEnvironment, locate } from '../../lab/packages.ts';
import { freePort } from '../free-port.ts';
import { makeAuthority } from './certificates.ts';

const authority = makeAuthority();
const unbound = locate('usr/sbin/unbound');
const named = locate('usr/sbin/named');

function upstreamTo(t: TestContext, text: string): Upstream {
  const server = parseUpstreamServer(text);
  assert.ok(server, text);
  const upstream = new Upstream({
    servers: [server],
    authorities: authority.pem,
    sockets: upstreamSockets(() => false),
  });
  t.after(() => upstream.close());
  return upstream;
}

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'holdfast-peer-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

function run(t: TestContext, program: string, args: string[]): { child: ChildProcess; said: () => string } {
  const child = spawn(program, args, { env: layerEnvironment(), stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  for (const stream of [child.stdout!, child.stderr!]) stream.on('data', chunk => (text += chunk));
  t.after(async () => {
    if (child.exitCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  });
  return { child, said: () => text };
}

/** Waits until the server answers. */
async function ready(upstream: Upstream, { child, said }: ReturnType<typeof run>): Promise<void> {
  const question = { name: Name.parseText('ready.example'), type: TYPE.A };
  for (let i = 0; i < 100; i++) {
    if (child.exitCode !== null) assert.fail(`it ended: ${said()}`);
    const answered = await upstream.exchange(question).then(
      () => true,
      () => false,
    );
    if (answered) return;
    await delay(50);
  }
  assert.fail(`it does not answer: ${said()}`);
}

/** A hundred questions at once, each with the answer of its own name; one with an answer of many segments. */
async function manyQuestions(upstream: Upstream): Promise<void> {
  const answers = await Promise.all(
    Array.from({ length: 100 }, async (_, i) => {
      const name = Name.parseText(`n${i}.example`);
      const { answer } = await upstream.exchange({ name, type: TYPE.A });
      return answer.length === 1 && answer[0]!.name.equals(name) && answer[0]!.rdata[3] === i;
    }),
  );
  assert.ok(answers.every(Boolean));
  const { answer } = await upstream.exchange({ name: Name.parseText('big.example'), type: TYPE.TXT });
  assert.equal(answer.length, 60);
}

test('unbound over UDP, TCP, TLS and HTTPS', { skip: unbound ? false : 'unbound is not here' }, async t => {
  const directory = folder(t);
  const [plain, tls, https] = [
    await freePort('127.0.0.1'),
    await freePort('127.0.0.1'),
    await freePort('127.0.0.1'),
  ];
  const { certificate, key, pin } = authority.issue(['dns.example']);
  writeFileSync(join(directory, 'certificate.pem'), certificate);
  writeFileSync(join(directory, 'key.pem'), key);
  const data = [
    ...Array.from({ length: 100 }, (_, i) => `local-data: "n${i}.example. A 192.0.2.${i}"`),
    ...Array.from({ length: 60 }, (_, i) => `local-data: 'big.example. TXT "${i}${'x'.repeat(200)}"'`),
    'local-data: "ready.example. A 192.0.2.1"',
  ];
  writeFileSync(
    join(directory, 'unbound.conf'),
    `server:
  ${[plain, tls, https].map(port => `interface: 127.0.0.1@${port}`).join('\n  ')}
  tls-port: ${tls}
  https-port: ${https}
  tls-service-pem: "${directory}/certificate.pem"
  tls-service-key: "${directory}/key.pem"
  username: ""
  chroot: ""
  directory: "${directory}"
  pidfile: ""
  use-syslog: no
  num-threads: 1
  incoming-num-tcp: 20
  do-ip6: no
  module-config: "iterator"
  local-zone: "example." static
  ${data.join('\n  ')}
remote-control:
  control-enable: no
`,
  );
  const server = run(t, unbound!, ['-d', '-c', join(directory, 'unbound.conf')]);
  for (const text of [
    `127.0.0.1:${plain}`,
    `tcp://127.0.0.1:${plain}`,
    `tls://127.0.0.1:${tls}#dns.example`,
    `tls://127.0.0.1:${tls}#pin-sha256=${pin}`,
    `https://dns.example:${https}/dns-query#127.0.0.1`,
  ]) {
    const upstream = upstreamTo(t, text);
    await ready(upstream, server);
    await t.test(text, () => manyQuestions(upstream));
    const [status] = upstream.servers();
    assert.equal(status!.healthy, true, text);
    if (status!.transport !== 'udp') assert.equal(status!.connections, 1, text);
    else assert.deepEqual([status!.mixedCase, status!.cookies], ['used', 'not offered']);
  }
});

test('named takes part in cookies', { skip: named ? false : 'named is not here' }, async t => {
  const directory = folder(t);
  const port = await freePort('127.0.0.1');
  const records = [
    ...Array.from({ length: 100 }, (_, i) => `n${i} A 192.0.2.${i}`),
    ...Array.from({ length: 60 }, (_, i) => `big TXT "${i}${'x'.repeat(200)}"`),
  ];
  const zone = `$TTL 300\n@ SOA ns h 1 2 3 4 5\n@ NS ns\nns A 127.0.0.1\nready A 192.0.2.1\n${records.join('\n')}\n`;
  writeFileSync(join(directory, 'example.zone'), zone);
  writeFileSync(
    join(directory, 'named.conf'),
    `options {
  directory "${directory}";
  listen-on port ${port} { 127.0.0.1; };
  listen-on-v6 { none; };
  pid-file none;
  session-keyfile none;
  recursion no;
  require-server-cookie yes;
};
controls { };
zone "example" { type primary; file "${directory}/example.zone"; };
`,
  );
  const server = run(t, named!, ['-g', '-n', '1', '-c', join(directory, 'named.conf')]);
  const upstream = upstreamTo(t, `127.0.0.1:${port}`);
  await ready(upstream, server);
  await manyQuestions(upstream);
  assert.deepEqual(
    [upstream.servers()[0]!.cookies, upstream.servers()[0]!.mixedCase],
    ['used', 'used'],
    JSON.stringify(upstream.counters()),
  );
  assert.ok(upstream.counters().badCookies! >= 1, 'it demanded one');
  assert.equal(upstream.counters().forgedCookies, 0);
});
