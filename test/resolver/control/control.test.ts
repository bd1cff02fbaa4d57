import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { Client } from 'undici';
import type { ControlBackend, ForgetTarget } from '../../../resolver/control/api.ts';
import { ControlClient } from '../../../resolver/control/client.ts';
import { ControlServer } from '../../../resolver/control/server.ts';
import { StartupError } from '../../../resolver/startup-error.ts';
import { explanation, statusReport } from './reports.ts';

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'holdfast-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

function backend(more: Partial<ControlBackend> = {}): ControlBackend {
  return {
    status: () => statusReport,
    explain: async () => explanation,
    forget: () => ({ peers: 1, failures: 2, answers: 3 }),
    allowPortal: () => statusReport.network,
    ...more,
  };
}

async function serve(t: TestContext, more: Partial<ControlBackend> = {}): Promise<string> {
  const path = join(folder(t), 'run', 'control.sock');
  const server = new ControlServer({ path, backend: backend(more) });
  await server.start();
  t.after(() => server.close());
  return path;
}

/** A request as any HTTP client could send it. */
async function raw(path: string, method: 'GET' | 'POST' | 'PUT', url: string, body?: string) {
  const client = new Client('http://control', { socketPath: path });
  try {
    const response = await client.request({ method, path: url, body: body ?? null });
    return { status: response.statusCode, body: (await response.body.json()) as Record<string, unknown> };
  } finally {
    await client.destroy();
  }
}

test('what the user allows behind a portal reaches the backend, and nothing that is no host or no time', async t => {
  const allowed: unknown[] = [];
  const path = await serve(t, {
    allowPortal: allowance => {
      allowed.push(allowance);
      return statusReport.network;
    },
  });
  const client = new ControlClient(path);
  assert.deepEqual(await client.allowPortal({ millis: 600_000 }), statusReport.network);
  await client.allowPortal({ name: 'login.hotel.example', millis: 1000 });
  assert.deepEqual(allowed, [{ millis: 600_000 }, { name: 'login.hotel.example', millis: 1000 }]);
  for (const body of [
    '{}',
    '{"millis":999}',
    '{"millis":3600001}',
    '{"millis":5000,"name":""}',
    '{"millis":5000,"all":1}',
  ]) {
    assert.equal((await raw(path, 'POST', '/portal', body)).status, 400, body);
  }
  assert.equal(allowed.length, 2);
});

test('status, explain and forget reach the backend and come back as they are', async t => {
  const asked: unknown[] = [];
  const path = await serve(t, {
    explain: async (name, type) => {
      asked.push([name, type]);
      return explanation;
    },
    forget: target => {
      asked.push(target);
      return { peers: 1, failures: 0, answers: 4 };
    },
  });
  const client = new ControlClient(path);
  assert.deepEqual(await client.status(), statusReport);
  assert.deepEqual(await client.explain('a&b=c.example', 'aaaa'), explanation);
  const targets: ForgetTarget[] = [{ name: 'a.example' }, { address: '2001:db8::1' }, { all: true }];
  for (const target of targets)
    assert.deepEqual(await client.forget(target), { peers: 1, failures: 0, answers: 4 });
  assert.deepEqual(asked, [['a&b=c.example', 'AAAA'], ...targets]);
});

test('the socket belongs to its owner alone', async t => {
  assert.equal(statSync(await serve(t)).mode & 0o777, 0o600);
});

test('what does not fit is refused with its reason', async t => {
  const path = await serve(t);
  const long = 'x'.repeat(1005);
  const refused: [Parameters<typeof raw>[1], string, string | undefined, number][] = [
    ['GET', '/explain', undefined, 400],
    ['GET', `/explain?name=${long}`, undefined, 400],
    ['GET', '/explain?name=a&type=../../x', undefined, 400],
    ['GET', '/nothing', undefined, 404],
    ['PUT', '/status', undefined, 405],
    ['GET', '/forget', undefined, 405],
    ['POST', '/forget', 'no json', 400],
    ['POST', '/forget', '{}', 400],
    ['POST', '/forget', '{"name":"a","all":true}', 400],
    ['POST', '/forget', '{"address":"300.1.1.1"}', 400],
    ['POST', '/forget', `{"name":"${'x'.repeat(5000)}"}`, 413],
  ];
  for (const [method, url, body, status] of refused) {
    const answer = await raw(path, method, url, body);
    assert.equal(answer.status, status, `${method} ${url.slice(0, 30)}`);
    assert.equal(typeof answer.body.error, 'string');
  }
});

test('a backend that fails is a 500 with its words, and the server lives on', async t => {
  const path = await serve(t, { explain: () => Promise.reject(new Error('out of order')) });
  await assert.rejects(new ControlClient(path).explain('a.example', 'A'), (error: StartupError) => {
    assert.equal(error.what, 'the daemon refused');
    assert.equal(error.why, 'out of order');
    return true;
  });
  assert.deepEqual(await new ControlClient(path).status(), statusReport);
});

test('a client that goes away aborts its question', async t => {
  const { promise: aborted, resolve } = Promise.withResolvers<void>();
  const { promise: started, resolve: start } = Promise.withResolvers<void>();
  const path = await serve(t, {
    explain: (_name, _type, signal) => {
      signal.addEventListener('abort', () => resolve());
      start();
      return new Promise(() => {});
    },
  });
  const socket = connect(path, () => socket.write('GET /explain?name=a HTTP/1.1\r\nHost: c\r\n\r\n'));
  await started;
  socket.destroy();
  await aborted;
});

test('header flood: closed, not kept', async t => {
  const path = await serve(t);
  const socket = connect(path);
  const answer = new Promise<string>(resolve => {
    let text = '';
    socket.on('data', chunk => {
      text += chunk;
    });
    socket.on('close', () => resolve(text));
    socket.on('error', () => {});
  });
  socket.write(`GET /status HTTP/1.1\r\nHost: c\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`);
  assert.match(await answer, /^HTTP\/1\.1 431 /);
});

test('a socket that nobody answers on is replaced', async t => {
  const directory = folder(t);
  const path = join(directory, 'control.sock');
  // A process that dies leaves its socket file behind; a listening server whose file is moved back after closing does too.
  const dead = createServer();
  await new Promise<void>(resolve => dead.listen(path, resolve));
  renameSync(path, `${path}.kept`);
  await new Promise(resolve => dead.close(resolve));
  renameSync(`${path}.kept`, path);
  const server = new ControlServer({ path, backend: backend() });
  await server.start();
  assert.deepEqual(await new ControlClient(path).status(), statusReport);
  await server.close();
  assert.equal(existsSync(path), false);
});

test('a socket that somebody answers on stays, and so does a file', async t => {
  const path = await serve(t);
  await assert.rejects(new ControlServer({ path, backend: backend() }).start(), (error: StartupError) => {
    assert.match(error.message, /another Holdfast answers on .*; stop that one first/);
    return true;
  });
  assert.deepEqual(await new ControlClient(path).status(), statusReport);
  const file = join(folder(t), 'control.sock');
  writeFileSync(file, 'precious');
  await assert.rejects(new ControlServer({ path: file, backend: backend() }).start(), /not a socket/);
  assert.equal(readFileSync(file, 'utf8'), 'precious');
});

test('no daemon: one sentence with what to do', async t => {
  const path = join(folder(t), 'control.sock');
  await assert.rejects(new ControlClient(path).status(), (error: StartupError) => {
    assert.ok(error instanceof StartupError);
    assert.equal(
      error.message,
      `cannot reach the daemon: nobody answers on ${path}; start it with \`holdfast up\`, or name its socket with --control`,
    );
    return true;
  });
});

test('a directory that cannot be entered: run as root', {
  skip: process.getuid?.() === 0 ? 'root enters everywhere' : false,
}, async t => {
  const path = await serve(t);
  chmodSync(path, 0);
  await assert.rejects(new ControlClient(path).status(), /run this as root/);
});
