import assert from 'node:assert/strict';
import { createSecretKey, randomBytes } from 'node:crypto';
import { Writable } from 'node:stream';
import test from 'node:test';
import { createLogger } from '../../resolver/log.ts';

function capture(format: 'auto' | 'json' | 'text', tty = false) {
  let written = '';
  const sink = new Writable({
    write: (chunk, _, done) => {
      written += chunk;
      done();
    },
  });
  const output = Object.assign(sink, { isTTY: tty });
  return { log: createLogger({ level: 'debug', format }, output), text: () => written };
}

test('key material never reaches a line, however deep and in whatever form', () => {
  const secret = randomBytes(32);
  const forms = [
    secret.toString('hex'),
    secret.toString('base64'),
    secret.join(','),
    JSON.stringify(secret).slice(0, 30),
  ];
  for (const format of ['json', 'text'] as const) {
    const { log, text } = capture(format);
    log.info({ event: 'a', key: secret, cipherKey: secret.toString('hex') }, 'one');
    log.info(
      { event: 'b', child: { inbound: { cipher: { key: secret, keyObject: createSecretKey(secret) } } } },
      'two',
    );
    log.info({ event: 'c', sk: createSecretKey(secret), bytes: new Uint8Array(secret) }, 'three');
    log.child({ privateKey: secret.toString('base64') }).warn({ event: 'd' }, 'four');
    for (const form of forms) assert.ok(!text().includes(form), text());
    assert.match(text(), /three/);
  }
});

test('JSON: level, time, event and message; a fingerprint is no secret', () => {
  const { log, text } = capture('auto');
  log.warn({ event: 'peer.refused', key: 'SHA256:abc', address: '192.0.2.1', count: 1n }, 'refused');
  const line = JSON.parse(text());
  assert.match(line.time, /^\d{4}-\d\d-\d\dT/);
  delete line.time;
  assert.deepEqual(line, {
    level: 'warn',
    event: 'peer.refused',
    key: 'SHA256:abc',
    address: '192.0.2.1',
    count: '1',
    msg: 'refused',
  });
});

test('text: one line, control characters from the network are shown, not obeyed', () => {
  const { log, text } = capture('text');
  log.info({ event: 'answer', name: 'a\x1b[2J.example', group: 'private' }, 'held\nback');
  log.error({ event: 'broken', err: new Error('no\nway') }, 'failed');
  assert.match(
    text(),
    /^\d\d:\d\d:\d\d\.\d{3} info {2}answer held back name="a\\u001b\[2J\.example" group=private\n\S+ error broken failed err="no\\nway"\n$/,
  );
});

test('auto is text with colours on a terminal', () => {
  const { log, text } = capture('auto', true);
  log.warn({ event: 'x' }, 'y');
  const [colour, rest] = [text().slice(0, 5), text().slice(5)];
  assert.equal(colour, '\u001b[33m');
  assert.equal(rest.slice(12), ' warn  x y\u001b[0m\n');
});
