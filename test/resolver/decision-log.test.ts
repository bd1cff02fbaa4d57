/** What of the decisions reaches the log: an outage must not fill a disk. */
import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import test from 'node:test';
import { Story } from '../../resolver/capture/journal.ts';
import { decisionLog } from '../../resolver/decision-log.ts';
import { createLogger, type LogLevel } from '../../resolver/log.ts';

function world(level: LogLevel) {
  const lines: { level: string; name: string; untold?: number }[] = [];
  const output = new Writable({
    write: (chunk, _encoding, done) => {
      lines.push(JSON.parse(String(chunk)));
      done();
    },
  });
  let millis = 0;
  const tell = decisionLog(createLogger({ level, format: 'json' }, output), () => millis);
  const decide = (rcode: number, held = false) => {
    const story = new Story('www.example', 1, () => 0, { unixNow: 0, signal: undefined });
    story.rcode = rcode;
    story.held = held;
    tell(story);
  };
  return { lines, decide, pass: (more: number) => (millis += more) };
}

test('clear answers are for debugging, sealed ones that were waited for are news, refusals are warnings', () => {
  const usual = world('info');
  for (const rcode of [0, 3]) usual.decide(rcode);
  usual.decide(0, true);
  usual.decide(2);
  assert.deepEqual(
    usual.lines.map(({ level }) => level),
    ['info', 'warn'],
  );
  const curious = world('debug');
  curious.decide(0);
  assert.deepEqual(
    curious.lines.map(({ level, name }) => [level, name]),
    [['debug', 'www.example']],
  );
});

test('in an outage ten refusals a second are told, and how many were not', () => {
  const { lines, decide, pass } = world('info');
  for (let i = 0; i < 1000; i++) decide(2);
  assert.equal(lines.length, 10);
  assert.ok(lines.every(({ untold }) => untold === undefined));
  pass(1000);
  for (let i = 0; i < 2; i++) decide(2);
  assert.deepEqual(
    lines.slice(10).map(({ untold }) => untold),
    [990, undefined],
  );
});
