/** Verdicts of the running daemon beside those of unbound and delv over generated zones; `npm run second-opinion` says more. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { compareAll } from './compare.ts';
import { missingPrograms } from './opinions.ts';

/** delv is a process for each question; the command asks it everything. */
const DELV_SHARE = 8;

test('unbound and delv agree with Holdfast, or it is explained why not', {
  skip: missingPrograms(),
}, async t => {
  const report = await compareAll({ delvShare: DELV_SHARE, progress: line => t.diagnostic(line) });
  t.diagnostic(`${report.differences.length} differences, all of them explained unless told below`);
  assert.ok(report.questions >= 500 && report.compared.delv >= 250, 'so many questions are worth asking');
  assert.ok(Math.min(...Object.values(report.verdicts)) > 100, 'enough of each verdict');
  const unexplained = report.differences.filter(({ explanation }) => explanation === undefined);
  assert.deepEqual(
    unexplained.map(({ question, witness, what, ours, theirs }) => [
      question,
      witness,
      what,
      ours.why,
      theirs.why,
    ]),
    [],
    'differences that nobody has explained',
  );
  assert.deepEqual(report.unsteady, [], 'what is cached does not change what is answered');
});
