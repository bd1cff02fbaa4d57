/** `holdfast up` as a process: what it says, what it leaves behind. Without a data plane, so that no root is needed. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test, { type TestContext } from 'node:test';
import { holdfast, ROOT } from './cli.ts';

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'holdfast-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

/** A TCP port of the loopback that we hold, and let go before somebody else is to take it. */
async function holdPort(): Promise<{ server: Server; port: number }> {
  const server = createServer();
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  return { server, port: (server.address() as { port: number }).port };
}

function flags(directory: string, port: number): string[] {
  const settings = {
    listen: `127.0.0.1:${port}`,
    upstream: '127.0.0.1:9',
    state: join(directory, 'state'),
    control: join(directory, 'run', 'control.sock'),
    dataplane: 'none',
    'log-format': 'json',
  };
  return ['up', ...Object.entries(settings).map(([flag, value]) => `--${flag}=${value}`)];
}

/** Starts the resolver; `ready` is the line it says when it listens. */
async function start(
  t: TestContext,
  args: string[],
): Promise<{ child: ChildProcess; ready: string; log: () => string }> {
  const env = { PATH: process.env.PATH ?? '/usr/bin:/bin' };
  const child = spawn(join(ROOT, 'deploy', 'holdfast'), args, {
    cwd: '/',
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  t.after(() => child.kill('SIGKILL'));
  let log = '';
  child.stderr.setEncoding('utf8').on('data', chunk => {
    log += chunk;
  });
  const lines = createInterface(child.stdout);
  const ended = once(child, 'close').then(([code]) => assert.fail(`it ended with ${code}: ${log}`));
  const [ready] = await Promise.race([once(lines, 'line'), ended]);
  ended.catch(() => {});
  return { child, ready, log: () => log };
}

test('up says where it listens, answers the control socket, and stops in order', async t => {
  const directory = folder(t);
  const { server, port } = await holdPort();
  await new Promise(resolve => server.close(resolve));
  const { child, ready, log } = await start(t, flags(directory, port));
  assert.match(ready, new RegExp(`^Holdfast listens on 127\\.0\\.0\\.1:${port}, not sealing: `));
  assert.equal(readFileSync(`/proc/${child.pid}/comm`, 'utf8'), 'holdfast\n', 'what ps and ss call it');
  const control = ['--control', join(directory, 'run', 'control.sock')];

  const status = JSON.parse((await holdfast(['status', '--json', ...control])).stdout);
  assert.equal(status.pid, child.pid);
  assert.deepEqual(status.listen, [`127.0.0.1:${port}`]);
  assert.deepEqual(
    status.upstreams.map((one: { address: string }) => one.address),
    ['127.0.0.1:9'],
  );
  assert.equal(status.dataplane.kind, 'none');
  assert.deepEqual(
    status.identity.keys.map((key: { algorithm: string }) => key.algorithm),
    ['Ed25519', 'P-256', 'RSA-2048'],
  );

  const refused = await holdfast(['explain', 'a.example', '--type', 'MX', ...control]);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /^holdfast: the daemon refused: only A and AAAA/);

  // Twice, as Ctrl-C under npx does: the stop stays orderly.
  child.kill('SIGINT');
  child.kill('SIGINT');
  // The second may find a process that has done all and is on its way out, where nobody catches signals any more.
  const [code, signal] = await once(child, 'close');
  assert.ok(code === 0 || (code === null && signal === 'SIGINT'), `${code} ${signal}`);
  assert.match(log(), /"event":"stopped"/);
  assert.equal(existsSync(join(directory, 'run', 'control.sock')), false);
  assert.deepEqual(readdirSync(join(directory, 'state', 'keys')), [
    'ed25519.pem',
    'p-256.pem',
    'rsa-2048.pem',
  ]);
  for (const line of log().trim().split('\n')) assert.equal(typeof JSON.parse(line).event, 'string', line);
  assert.ok(!log().includes('PRIVATE KEY'));
});

test('port taken: by whom and what to do; no socket is left', async t => {
  const directory = folder(t);
  const { server, port } = await holdPort();
  t.after(() => server.close());
  const { code, stdout, stderr } = await holdfast(flags(directory, port));
  assert.equal(code, 1);
  assert.equal(stdout, '');
  const complaint = stderr.slice(stderr.indexOf('holdfast: '));
  assert.match(
    complaint,
    new RegExp(
      `^holdfast: cannot listen on 127\\.0\\.0\\.1:${port} \\(tcp\\): .* \\(process ${process.pid}\\) has the port\\n {10}stop .*, or choose another address with --listen\\n$`,
    ),
  );
  assert.equal(existsSync(join(directory, 'run', 'control.sock')), false);
});

test('a second one on the same control socket is refused, and the first lives on', async t => {
  const directory = folder(t);
  const { server, port } = await holdPort();
  await new Promise(resolve => server.close(resolve));
  const first = await start(t, flags(directory, port));
  const { code, stderr } = await holdfast(flags(directory, port));
  assert.equal(code, 1);
  assert.match(
    stderr,
    /holdfast: cannot start: another Holdfast answers on .*control\.sock\n {10}stop that one first/,
  );
  assert.equal((await holdfast(['status', '--control', join(directory, 'run', 'control.sock')])).code, 0);
  first.child.kill('SIGTERM');
  assert.deepEqual(await once(first.child, 'close'), [0, null]);
});

test('a key that others can read: named, with the cure, before anything listens', async t => {
  const directory = folder(t);
  const keys = join(directory, 'keys');
  assert.equal((await holdfast(['keygen', '--out', keys])).code, 0);
  chmodSync(join(keys, 'p-256.pem'), 0o644);
  const { code, stderr } = await holdfast([...flags(directory, 5300), '--identity-keys', keys]);
  assert.equal(code, 1);
  assert.match(
    stderr,
    /holdfast: cannot use the key .*p-256\.pem: its mode 644 lets others at it\n {10}run `chmod 600 .*p-256\.pem`/,
  );
});
