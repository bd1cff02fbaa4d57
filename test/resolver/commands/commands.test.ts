import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { parse } from 'yaml';
import type { ForgetTarget, PortalAllowance } from '../../../resolver/control/api.ts';
import { ControlServer } from '../../../resolver/control/server.ts';
import { explanation, statusReport } from '../control/reports.ts';
import { dnsPacket } from '../dns-packet.ts';
import { holdfast, ROOT, run } from './cli.ts';

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'holdfast-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

test('--help of everything teaches with examples and costs nothing', async () => {
  const top = await holdfast(['--help']);
  assert.equal(top.code, 0);
  for (const command of ['up', 'keygen', 'record', 'status', 'explain', 'forget', 'config', 'completion']) {
    assert.match(top.stdout, new RegExp(`holdfast ${command} `));
  }
  for (const command of ['up', 'keygen', 'record', 'status', 'explain', 'forget', 'config check']) {
    const help = await holdfast([...command.split(' '), '--help']);
    assert.equal(help.code, 0);
    assert.match(help.stdout, /Examples:\n\s+(sudo )?holdfast /, command);
  }
  const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'));
  assert.equal((await holdfast(['--version'])).stdout, `${version}\n`);
});

test('what is misspelt: exit code 2 and what was meant', async () => {
  const cases: [string[], string][] = [
    [
      [],
      'holdfast: expected a command: up, keygen, record, status, explain, forget, portal, config, completion\n',
    ],
    [['statsu'], 'holdfast: unknown command or argument statsu: did you mean status?\n'],
    [['up', '--lisen', '127.0.0.1'], 'holdfast: unknown flag --lisen: did you mean --listen?\n'],
    [['status', '--colour'], 'holdfast: unknown flag --colour\n'],
    [['keygen', '--out'], 'holdfast: Not enough arguments following: out\n'],
    [['config'], 'holdfast: config: expected check or schema\n'],
    [['forget'], 'holdfast: forget: expected NAME, ADDRESS or --all, and only one of them\n'],
    [
      ['forget', 'a.example', '--all'],
      'holdfast: forget: expected NAME, ADDRESS or --all, and only one of them\n',
    ],
    [['forget', '1.2.3'], 'holdfast: forget: expected a name or an address; found "1.2.3"\n'],
    [['explain', 'a..b'], 'holdfast: NAME: expected a domain name; found "a..b"\n'],
    [['record', '--check', '--server', 'x'], 'holdfast: --server: expected an IP address; found "x"\n'],
  ];
  for (const [args, expected] of cases) {
    const { code, stdout, stderr } = await holdfast(args);
    assert.deepEqual(
      { code, stdout, stderr },
      { code: 2, stdout: '', stderr: `${expected}          see holdfast --help\n` },
    );
  }
});

test('a configuration that does not fit: exit code 2, line and key, nothing touched', async t => {
  const directory = folder(t);
  const file = join(directory, 'holdfast.yaml');
  writeFileSync(file, `state: ${directory}/state\npolicy:\n  default: privat\n`);
  for (const command of [
    ['up', '--config', file],
    ['config', 'check', file],
  ]) {
    const { code, stderr } = await holdfast(command, { HOLDFAST_PATIENCE: 'long' });
    assert.equal(code, 2);
    assert.equal(
      stderr,
      `holdfast: the configuration does not fit
${file}:3:12: policy.default: expected one of clear, clear-or-private, private-or-clear, private-if-published, private, block; found "privat" (did you mean private?)
HOLDFAST_PATIENCE: patience: expected a duration such as 2s or 500ms; found "long"
`,
    );
  }
  assert.deepEqual(readdirSync(directory), ['holdfast.yaml']);
});

test('config check --print shows what is in effect and reads back to the same', async t => {
  const directory = folder(t);
  const file = join(directory, 'holdfast.yaml');
  writeFileSync(
    file,
    'upstream: [192.0.2.53]\npolicy: {groups: {private: ["*.bank.example", 10.0.0.0/8]}}\nnegative-trust-anchors: [corp]\n',
  );
  assert.deepEqual(await holdfast(['config', 'check', file]), {
    code: 0,
    stdout: `${file}: ok\n`,
    stderr: '',
  });
  const environment = { HOLDFAST_VALIDATION_TIME: '20260131120000' };
  const first = await holdfast(
    ['config', 'check', '--config', file, '--print', '--patience', '90s'],
    environment,
  );
  assert.equal(first.code, 0, first.stderr);
  const printed = parse(first.stdout);
  assert.equal(printed.patience, '90s');
  assert.equal(printed['validation-time'], '2026-01-31T12:00:00Z');
  assert.deepEqual(printed.policy.groups, { private: ['*.bank.example', '10.0.0.0/8'] });
  writeFileSync(file, first.stdout);
  assert.equal((await holdfast(['config', 'check', file, '--print'])).stdout, first.stdout);
});

test('config schema is JSON and knows every key', async () => {
  const { code, stdout } = await holdfast(['config', 'schema']);
  assert.equal(code, 0);
  assert.ok(JSON.parse(stdout).properties['negative-trust-anchors']);
});

test('completion', async () => {
  assert.match((await holdfast(['completion'])).stdout, /complete .*holdfast/);
  const { stdout } = await holdfast(['--get-yargs-completions', 'holdfast', 'up', '--policy-d']);
  assert.match(stdout, /^--policy-default$/m);
});

test('keygen and record: three keys, never overwritten, the same key text in both', async t => {
  const keys = join(folder(t), 'keys');
  const made = await holdfast(['keygen', '--out', keys, '--json']);
  assert.equal(made.code, 0, made.stderr);
  assert.deepEqual(
    JSON.parse(made.stdout).map((key: { algorithm: string; file: string }) => [key.algorithm, key.file]),
    [
      ['Ed25519', join(keys, 'ed25519.pem')],
      ['P-256', join(keys, 'p-256.pem')],
      ['RSA-2048', join(keys, 'rsa-2048.pem')],
    ],
  );
  for (const name of readdirSync(keys)) assert.equal(statSync(join(keys, name)).mode & 0o777, 0o600);
  const again = await holdfast(['keygen', '--out', keys]);
  assert.equal(again.code, 1);
  assert.match(again.stderr, /^holdfast: cannot make keys in .*: ed25519\.pem is already there/);

  const printed = await holdfast([
    'record',
    '--identity-keys',
    keys,
    '--name',
    'Host.example.org',
    '--address',
    '192.0.2.7',
    '--address',
    '2001:db8::7',
  ]);
  assert.equal(printed.code, 0, printed.stderr);
  const lines = printed.stdout.split('\n').filter(line => line !== '');
  assert.deepEqual(
    lines.map(line => line.split(' ').slice(0, 7).join(' ')),
    [
      'host.example.org.',
      '7.2.0.192.in-addr.arpa.',
      '7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.',
    ].flatMap(owner => ['10 0 4 .', '20 0 3 .', '30 0 2 .'].map(rdata => `${owner} IN IPSECKEY ${rdata}`)),
  );
  const bytes = lines.slice(0, 3).map(line => Buffer.from(line.split(' ')[7]!, 'base64').length);
  assert.deepEqual(bytes, [32, 64, 1 + 3 + 256]); // RFC 8080 §3, RFC 6605 §4, RFC 3110 §2 with e = 65537
});

test('record without keys makes none', async t => {
  const state = folder(t);
  const { code, stderr } = await holdfast(['record', '--state', state, '--name', 'a.example']);
  assert.equal(code, 2);
  assert.match(stderr, /holds no \.pem file\n {10}make some with `holdfast keygen/);
  assert.deepEqual(readdirSync(state), []);
});

test('record --check asks the upstream for a second opinion', async t => {
  const keys = join(folder(t), 'keys');
  assert.equal((await holdfast(['keygen', '--out', keys])).code, 0);
  const common = ['record', '--identity-keys', keys, '--name', 'a.example'];
  const printed = JSON.parse((await holdfast([...common, '--json'])).stdout) as { rdata: string }[];
  const published = printed.map(({ rdata }) => {
    const [precedence, , algorithm, , key] = rdata.split(' ');
    return Buffer.concat([
      Buffer.from([Number(precedence), 0, Number(algorithm)]),
      Buffer.from(key!, 'base64'),
    ]);
  });
  let answers = published;
  const port = await nameServer(t, () => answers);
  const check = () => holdfast([...common, '--check', '--upstream', `127.0.0.1:${port}`]);
  const good = await check();
  assert.equal(good.code, 0, good.stdout + good.stderr);
  assert.match(
    good.stdout,
    /^ok {2}a\.example: 3 of our records published, 0 missing, 0 that are not ours \(asked 127\.0\.0\.1\)/,
  );
  answers = [published[0]!, published[2]!, Buffer.from([10, 0, 4, ...new Uint8Array(32)])];
  const bad = await check();
  assert.equal(bad.code, 1);
  assert.match(
    bad.stdout,
    /^not ok {2}a\.example: 2 of our records published, 1 missing, 1 that are not ours.*\n.*missing: IPSECKEY 20 0 3 \. /s,
  );
  const silent = await holdfast([...common, '--check', '--server', '127.99.99.99']);
  assert.equal(silent.code, 1);
  assert.equal(
    silent.stdout,
    'not ok  a.example: the server cannot be reached: ECONNREFUSED (asked 127.99.99.99)\n',
    'who does not answer has not said that records are missing',
  );
});

/** A name server on UDP that truncates everything and on TCP that answers with these IPSECKEY records. */
async function nameServer(t: TestContext, rdatas: () => Buffer[]): Promise<number> {
  const answer = (query: Buffer, truncated: boolean) => {
    const { id, questions = [] } = dnsPacket.decode(query);
    const records = rdatas().map(data => ({
      type: 'IPSECKEY',
      name: questions[0]!.name,
      class: 'IN',
      ttl: 60,
      data,
    }));
    return dnsPacket.encode({
      id,
      type: 'response',
      flags: truncated ? 0x0200 : 0x0020,
      questions,
      answers: truncated ? [] : records,
    } as never);
  };
  const tcp = createServer(socket =>
    socket.once('data', query => {
      const message = answer(query.subarray(2), false);
      socket.write(Buffer.concat([Buffer.from([message.length >> 8, message.length & 0xff]), message]));
    }),
  );
  await new Promise<void>(resolve => tcp.listen(0, '127.0.0.1', resolve));
  const { port } = tcp.address() as { port: number };
  const udp = createSocket('udp4', (query, remote) =>
    udp.send(answer(query, true), remote.port, remote.address),
  );
  await new Promise<void>(resolve => udp.bind(port, '127.0.0.1', resolve));
  t.after(() => {
    udp.close();
    tcp.close();
  });
  return port;
}

test('status, explain and forget over the control socket, as text and as JSON', async t => {
  const forgotten: ForgetTarget[] = [];
  const allowed: PortalAllowance[] = [];
  const path = join(folder(t), 'control.sock');
  const backend = {
    status: () => statusReport,
    explain: async () => explanation,
    forget: (target: ForgetTarget) => {
      forgotten.push(target);
      return { peers: 1, failures: 2, answers: 0 };
    },
    allowPortal: (allowance: PortalAllowance) => {
      allowed.push(allowance);
      return statusReport.network;
    },
  };
  const server = new ControlServer({ path, backend });
  await server.start();
  t.after(() => server.close());
  const at = ['--control', path];

  const status = await holdfast(['status', ...at]);
  assert.equal(status.code, 0, status.stderr);
  assert.ok(!status.stdout.includes('\x1b'), 'no colours and no cursor movement in a pipe');
  assert.match(
    status.stdout,
    /^Holdfast 0\.1\.0, up .*, process 4711\nlistening {3}127\.0\.0\.1:53, \[::1\]:53\nupstream {4}192\.0\.2\.53:53 \(12 ms\), \[2001:db8::53\]:53 \(no answer\)\nnetwork {5}captive portal: log in at login\.hotel\.example; only the names .*, probed 2 s ago in 80 ms, again in 4 s\n(?: {12}.*\n){3}data plane {2}xfrm, Linux 6\.1\.0\nidentity {4}host\.example\.org\n/,
  );
  assert.match(
    status.stdout,
    /\n192\.0\.2\.7 +www\.example\.org example\.org +private-or-clear +authenticated +transport +1\.2 MB +999 B +1 min +lifespan in /,
  );
  assert.match(status.stdout, /\nbad\.example\ufffd\[2J +- +- +wrong key +forgotten in /);
  assert.deepEqual(JSON.parse((await holdfast(['status', '--json', ...at])).stdout), statusReport);

  const portal = await holdfast(['portal', ...at]);
  assert.match(portal.stdout, /captive portal: log in at login\.hotel\.example/);
  assert.match(portal.stdout, /login\.hotel\.example is answered unprotected for 10 min/);
  assert.equal((await holdfast(['portal', '--allow', ...at])).code, 0);
  assert.equal((await holdfast(['portal', '--allow', 'x.example', '--for', '5m', ...at])).code, 0);
  assert.deepEqual(allowed, [{ millis: 600_000 }, { millis: 300_000, name: 'x.example' }]);
  assert.equal((await holdfast(['portal', '--allow', 'not a name', ...at])).code, 2);

  const told = await holdfast(['explain', 'www.example.org', ...at]);
  assert.equal(
    told.stdout.replace(/, asked [^,]+ ago\n/, ', asked SPAN ago\n'),
    `www.example.org A (alias of web.example.net): SERVFAIL, blocked, group private, in 34.3 ms, asked SPAN ago
  EDE 0 other: peer key mismatch

  ADDRESS              GROUP    ASSURANCE      KEY
  192.0.2.7  left out  private  blocked        SHA256:def  wrong key
  192.0.2.8  answered  private  authenticated  -

    0.00 ms  question
    12.3 ms  DNSSEC: secure

Of which DNS 20.5 ms, IKE 9.13 ms; these overlap.

Ask the owner of www.example.org.
`,
  );
  assert.deepEqual(
    JSON.parse((await holdfast(['explain', 'www.example.org', '--json', ...at])).stdout),
    explanation,
  );

  assert.equal(
    (await holdfast(['forget', 'WWW.example.org.', ...at])).stdout,
    'Closed 1 peer; forgot 2 failures and 0 cached answers.\n',
  );
  await holdfast(['forget', '2001:DB8::0', ...at]);
  await holdfast(['forget', '--all', '--json', ...at]);
  assert.deepEqual(forgotten, [{ name: 'www.example.org' }, { address: '2001:db8::' }, { all: true }]);
});

test('no daemon: exit code 1 and what to do', async t => {
  const path = join(folder(t), 'control.sock');
  for (const command of [['status'], ['explain', 'a.example'], ['forget', '--all']]) {
    assert.deepEqual(await holdfast([...command, '--control', path]), {
      code: 1,
      stdout: '',
      stderr: `holdfast: cannot reach the daemon: nobody answers on ${path}\n          start it with \`holdfast up\`, or name its socket with --control\n`,
    });
  }
});

test('up without CAP_NET_ADMIN: one sentence with what to do, exit code 1', async t => {
  if (process.getuid?.() === 0) {
    const drop = ['--bounding-set=-net_admin', '--inh-caps=-net_admin'];
    const tool = await run('setpriv', [...drop, 'true']).catch(() => undefined);
    if (tool?.code !== 0) return t.skip('setpriv cannot take the capability away here');
    const args = [...drop, join(ROOT, 'deploy', 'holdfast'), 'up', '--upstream', '192.0.2.53'];
    return assert.deepEqual(await run('setpriv', args), WITHOUT_CAPABILITY);
  }
  assert.deepEqual(await holdfast(['up', '--upstream', '192.0.2.53']), WITHOUT_CAPABILITY);
});

const WITHOUT_CAPABILITY = {
  code: 1,
  stdout: '',
  stderr:
    'holdfast: cannot drive the data plane: this process lacks CAP_NET_ADMIN\n' +
    '          start with sudo, or with --dataplane none to resolve without sealing\n',
};

test('up with nobody to ask: one sentence with what to do', async t => {
  const file = join(folder(t), 'holdfast.yaml');
  writeFileSync(file, 'upstream: []\n');
  const { code, stderr } = await holdfast(['up', '--config', file]);
  assert.equal(code, 1);
  assert.match(
    stderr,
    /^holdfast: there is nobody to ask: the list of upstreams is empty\n {10}name a resolver with --upstream/,
  );
});
