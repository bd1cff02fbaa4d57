import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { beforeEach, afterEach } from 'node:test';
import { type AnswersFile, restoreAnswers, writeAnswers } from '../../resolver/answers-file.ts';
import { CachedResolver } from '../../resolver/cache/answers.ts';
import { loadConfiguration } from '../../resolver/config.ts';
import { Name } from '../../resolver/dns/name.ts';
import { RCODE, TYPE } from '../../resolver/dns/types.ts';
import type { Resolution } from '../../resolver/dnssec/types.ts';
import { machineWith } from './config/machine.ts';

const NAME = Name.parseText('www.example');
const ANSWER: Resolution = {
  question: { name: NAME, type: TYPE.A },
  rcode: RCODE.NOERROR,
  verdict: 'insecure',
  answer: [
    { name: NAME, type: TYPE.A, class: 1, ttlSeconds: 3600, rdatas: [new Uint8Array(4)], signatures: [] },
  ],
  authority: [],
  canonicalName: NAME,
  outcome: 'positive',
  ttlSeconds: 3600,
};

let state: string;
beforeEach(() => {
  state = mkdtempSync(join(tmpdir(), 'holdfast-answers-'));
});
afterEach(() => rmSync(state, { recursive: true }));

/** A run of the program: a cache, and what it told. */
function run(flags: Record<string, unknown> = {}) {
  const told: string[] = [];
  const log = {
    info: ({ event }: { event: string }) => told.push(event),
    warn: ({ event, why }: { event: string; why?: string }) => told.push(`${event}: ${why}`),
  } as unknown as AnswersFile['log'];
  const configuration = loadConfiguration({
    flags: { state, upstream: ['192.0.2.53'], ...flags },
    environment: {},
    machine: machineWith({ '/anchors': `example. IN DS 1 13 2 ${'00'.repeat(32)}\n` }),
  });
  const asked: string[] = [];
  const cache = new CachedResolver({
    lookup: async name => {
      asked.push(name.toText());
      return ANSWER;
    },
  });
  const anchors = () => configuration.trustAnchors;
  const named = [{ address: '192.0.2.1', port: 53 }];
  return { configuration, cache, anchors, named: () => named, log, told, asked };
}

test('answers outlive a stop, and the file is used once', async () => {
  const first = run();
  await first.cache.lookup(NAME, TYPE.A);
  writeAnswers(first);
  const second = run();
  await restoreAnswers(second);
  assert.equal((await second.cache.lookup(NAME, TYPE.A)).answer.length, 1);
  assert.deepEqual([second.asked, second.told], [[], ['answersRestored']]);
  assert.equal(existsSync(join(state, 'answers')), false);
  await restoreAnswers(second);
  assert.deepEqual(second.told, ['answersRestored'], 'that there is no file is no news');
});

test('of other upstream servers or anchors, or damaged: told of and ignored', async () => {
  const first = run();
  await first.cache.lookup(NAME, TYPE.A);
  const changes: [Record<string, unknown>, RegExp][] = [
    [{ upstream: ['192.0.2.54'] }, /other ones then/],
    [{ 'negative-trust-anchors': ['example.net'] }, /other ones then/],
    [{ 'trust-anchors': '/anchors' }, /other ones then/],
  ];
  for (const [flags, why] of changes) {
    writeAnswers(first);
    const second = run(flags);
    await restoreAnswers(second);
    assert.match(second.told[0]!, why);
    assert.equal(second.cache.counters().entries, 0);
  }
  const elsewhere = { ...first, named: () => [{ address: '198.51.100.1', port: 53 }] };
  writeAnswers(elsewhere);
  const back = run();
  await restoreAnswers(back);
  assert.match(back.told[0]!, /other ones then/, 'learnt in another network than this one');
  writeAnswers(first);
  const path = join(state, 'answers');
  const bytes = readFileSync(path);
  bytes[100]! ^= 1;
  writeFileSync(path, bytes);
  const second = run();
  await restoreAnswers(second);
  assert.match(second.told[0]!, /answersIgnored: it is damaged/);
});

test('what is forgotten while answers come back does not come back', async () => {
  const first = run();
  await first.cache.lookup(NAME, TYPE.A);
  await first.cache.lookup(Name.parseText('other.example'), TYPE.A);
  writeAnswers(first);
  const second = run();
  const restoring = restoreAnswers(second);
  second.cache.flushAll();
  await restoring;
  assert.ok(second.cache.counters().entries! <= 1);
});
