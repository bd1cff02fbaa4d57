/** Stub, cache and upstream in a row between dig and a real authoritative server (nsd). */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type TestContext } from 'node:test';
import { openUdp } from '../../../kernel/sockets.ts';
import { parseCidr } from '../../../resolver/address.ts';
import { parseMessage } from '../../../resolver/dns/message.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { groupRrsets } from '../../../resolver/dns/rrset.ts';
import { RCODE, TYPE } from '../../../resolver/dns/types.ts';
import type { Resolution } from '../../../resolver/dnssec/types.ts';
import { CachedResolver } from '../../../resolver/cache/answers.ts';
import { Stub } from '../../../resolver/stub/stub.ts';
import { Upstream } from '../../../resolver/upstream/upstream.ts';
import { freePort } from '../free-port.ts';
import { composeQuery } from '../../../resolver/upstream/query.ts';
import { runDaemon } from '../running-daemon.ts';
import { dig, overUdp } from './clients.ts';

const ZONE = `
$ORIGIN zone.example.
$TTL 300
@ SOA ns hostmaster 1 3600 600 86400 120
@ NS ns
@ MX 10 mail
ns A 192.0.2.53
mail A 192.0.2.25
mail AAAA 2001:db8::25
www CNAME mail
dot\\.ted A 192.0.2.77
high\\200 TXT "bytes"
zero\\000byte A 192.0.2.78
odd CNAME Zero\\000Byte
odd2 MX 10 high\\200
odd2 MX 20 dot\\.ted
svc HTTPS 1 . alpn=h2 ipv4hint=192.0.2.1
key IPSECKEY 10 0 2 . AQNRU3mG7TVTO2BkR47usntb102uFJtugbo6BSGvgqt4AQ==
*.wild A 192.0.2.99
${Array.from({ length: 40 }, (_, i) => `big TXT "${String(i).padStart(2, '0')}${'x'.repeat(200)}"`).join('\n')}
`;

async function startNsd(t: TestContext): Promise<number> {
  const port = await freePort('127.0.0.1');
  const directory = mkdtempSync(path.join(tmpdir(), 'holdfast-nsd-'));
  writeFileSync(path.join(directory, 'zone.example'), ZONE);
  writeFileSync(
    path.join(directory, 'nsd.conf'),
    `server:
  ip-address: 127.0.0.1
  port: ${port}
  username: ""
  chroot: ""
  database: ""
  zonesdir: "${directory}"
  pidfile: "${directory}/nsd.pid"
  xfrdfile: ""
  zonelistfile: "${directory}/zone.list"
  xfrdir: "${directory}"
  server-count: 1
remote-control:
  control-enable: no
zone:
  name: zone.example
  zonefile: zone.example
`,
  );
  const nsd = spawn('nsd', ['-d', '-c', path.join(directory, 'nsd.conf')], { stdio: 'ignore' });
  t.after(async () => {
    nsd.kill();
    await once(nsd, 'exit');
    rmSync(directory, { recursive: true });
  });
  const at = { address: '127.0.0.1', port };
  for (let tries = 0; tries < 100; tries++) {
    if (/status: NOERROR/.test(await dig(at, 'zone.example', 'SOA'))) return port;
    assert.equal(nsd.exitCode, null, 'nsd did not start');
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  throw new Error('nsd does not answer');
}

/** In place of validation: everything is insecure. */
function unjudged(upstream: Upstream) {
  return {
    lookup: async (name: Name, type: number): Promise<Resolution> => {
      const message = await upstream.exchange({ name, type });
      const answer = groupRrsets(message.answer);
      const authority = groupRrsets(message.authority).filter(rrset => rrset.type === TYPE.SOA);
      const outcome =
        message.rcode === RCODE.NXDOMAIN
          ? 'nxdomain'
          : answer.some(rrset => rrset.type === type)
            ? 'positive'
            : 'nodata';
      return {
        question: { name, type },
        rcode: message.rcode,
        verdict: 'insecure',
        answer,
        authority,
        canonicalName: name,
        outcome,
        ttlSeconds: 3600,
      };
    },
  };
}

function installed(): boolean {
  try {
    execFileSync('nsd', ['-v'], { stdio: 'ignore' });
    return true;
  } catch (error) {
    return (error as { code?: string }).code !== 'ENOENT';
  }
}

/** Status and records; without the TTLs, which the cache counts down (answers.test.ts holds that). */
function essence(output: string): string[] {
  const status = /status: (\w+)/.exec(output)?.[1] ?? 'none';
  const records = output.split('\n').filter(line => line !== '' && !line.startsWith(';'));
  return [status, ...records.map(line => line.replace(/\s+/g, ' ').replace(/ \d+ IN /, ' IN ')).sort()];
}

test('dig sees through us what it sees at the server itself', {
  skip: !installed() && 'nsd is not installed',
}, async t => {
  const port = await startNsd(t);
  const upstream = new Upstream({ servers: [{ transport: 'udp', address: { address: '127.0.0.1', port } }] });
  t.after(() => upstream.close());
  const cache = new CachedResolver(unjudged(upstream));
  const stub = new Stub({
    openUdp,
    listen: [
      { address: '127.0.0.1', port: 0 },
      { address: '::1', port: 0 },
    ],
    access: [parseCidr('127.0.0.0/8')!, parseCidr('::1')!],
    handler: async ({ name, type }) => {
      const { rcode, answer, authority } = await cache.lookup(name, type);
      return { rcode, authenticated: false, answer, authority: answer.length > 0 ? [] : authority };
    },
  });
  await stub.start();
  t.after(() => stub.close());

  const questions = [
    ['mail.zone.example', 'A'],
    ['mail.zone.example', 'AAAA'],
    ['MAIL.Zone.Example', 'A'],
    ['www.zone.example', 'A'],
    ['zone.example', 'MX'],
    ['zone.example', 'NS'],
    ['zone.example', 'SOA'],
    ['dot\\.ted.zone.example', 'A'],
    ['high\\200.zone.example', 'TXT'],
    ['svc.zone.example', 'HTTPS'],
    ['key.zone.example', 'IPSECKEY'],
    ['a.b.wild.zone.example', 'A'],
    ['big.zone.example', 'TXT'],
    ['mail.zone.example', 'TXT'],
    ['nothing.zone.example', 'A'],
    ['mail.zone.example', 'TYPE65280'],
  ];
  const sections = ['+noall', '+comments', '+answer', '+norec'];
  for (const [name, type] of questions) {
    const direct = essence(await dig({ address: '127.0.0.1', port }, ...sections, name!, type!));
    assert.ok(direct[0] !== 'none');
    for (const at of stub.addresses()) {
      for (const transport of ['+notcp', '+tcp']) {
        assert.deepEqual(
          essence(await dig(at, ...sections, transport, name!, type!)),
          direct,
          `${name} ${type}`,
        );
      }
    }
  }
  // Four ways to ask each, one exchange.
  assert.equal(
    upstream.counters().questions,
    questions.length - 1,
    'two of the questions differ in case alone',
  );
  assert.equal(upstream.counters().truncated, 1);
  const negative = await dig(stub.addresses()[0]!, 'nothing.zone.example', 'A');
  assert.match(negative, /AUTHORITY: 1/);
  assert.match(negative, /zone\.example\.\s+\d+\s+IN\s+SOA/);
});

test('labels with dots, zeros and high octets pass through the whole daemon octet by octet', {
  skip: !installed() && 'nsd is not installed',
}, async t => {
  const nsd = { address: '127.0.0.1', port: await startNsd(t) };
  const daemon = await runDaemon(t, nsd);
  const questions: [string, number][] = [
    ['dot\\.ted.zone.example', TYPE.A],
    ['zero\\000byte.zone.example', TYPE.A],
    ['ZERO\\000byte.zone.example', TYPE.A],
    ['high\\200.zone.example', 16],
    ['odd.zone.example', TYPE.A],
    ['odd2.zone.example', TYPE.MX],
  ];
  for (const [name, type] of questions) {
    const query = composeQuery(Name.parseText(name), type, { id: 0x4321 });
    const records = async (at: { address: string; port: number }) => {
      const message = parseMessage(await overUdp(at, query));
      assert.deepEqual([...message.questions[0]!.name.wire], [...Name.parseText(name).wire]);
      return message.answer
        .map(one => [...one.name.canonical().wire, 0, one.type, ...one.rdata].join())
        .sort();
    };
    const direct = await records(nsd);
    assert.ok(direct.length > 0, name);
    assert.deepEqual(await records(daemon.at), direct, name);
  }
  // Two labels are not one with a dot in it.
  const two = parseMessage(
    await overUdp(daemon.at, composeQuery(Name.parseText('dot.ted.zone.example'), 1, { id: 1 })),
  );
  assert.equal(two.rcode, RCODE.NXDOMAIN);
});
