/** A short run of each target, and that the runner finds what is there to be found. `npm run fuzz` runs for longer. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { mutate, randomOf } from './mutate.ts';
import { Finding, runCases } from './session.ts';
import type { Target } from './target.ts';
import { targets } from './targets.ts';

const CASES = 3000;
const seed = Date.now() % 1_000_000;

for (const target of targets) {
  test(`${target.name}: seed ${seed}`, async () => {
    const { cases } = await runCases(target, { seed, from: 0, to: Math.ceil(CASES / (target.oneIn ?? 1)) });
    assert.ok(cases > 0);
  });
}

test('the same seed, target and case make the same input', () => {
  const corpus = [Uint8Array.of(1, 2, 3, 4, 5, 6), new Uint8Array(50)];
  const input = (seed: number, name: string, index: number) =>
    [...mutate(corpus, randomOf(seed, name, index))].join();
  const inputs = Array.from({ length: 500 }, (_, index) => input(7, 'a', index));
  assert.deepEqual(
    Array.from({ length: 500 }, (_, index) => input(7, 'a', index)),
    inputs,
  );
  assert.ok(new Set(inputs).size > 400, 'few are alike');
  const others = Array.from({ length: 500 }, (_, index) => [input(8, 'a', index), input(7, 'b', index)]);
  assert.ok(others.every(([seeded, named], index) => seeded !== inputs[index] || named !== inputs[index]));
});

test('a parser that trusts a length is found, and told so that it can be found again', async () => {
  const trusting: Target = {
    name: 'test/trusting',
    open: () => ({
      corpus: [Uint8Array.of(3, 7, 8, 9)],
      check(bytes) {
        const length = bytes[0] ?? 0;
        for (let at = 1; at <= length; at++) assert.notEqual(bytes[at], undefined);
      },
    }),
  };
  const finding = await runCases(trusting, { seed: 1, from: 0, to: 1000 }).then(
    () => assert.fail('nothing found'),
    (error: unknown) => error,
  );
  assert.ok(finding instanceof Finding);
  const [, again] = /--seed 1 --case (\d+) test\/trusting/.exec(finding.message) ?? [];
  const from = Number(again);
  await assert.rejects(runCases(trusting, { seed: 1, from, to: from + 1 }), { message: finding.message });
});
