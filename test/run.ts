// npm test: everything that CI runs, in the same order, with progress; the exit status says whether all of it passed.
//
//   npm test -- [--only check|unit|lab] [--yes] [FILTER…]
//
// check  types, lint, format
// unit   every *.test.ts that needs nothing but Node
// lab    *.guest.test.ts, each inside a lab of its own (on the host alice), and *.lab.test.ts, which start labs
// FILTER keeps the test files whose path contains it. --yes lets the lab unpack Debian packages into test/.lab.
import { spawnSync } from 'node:child_process';
import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from 'node:test';
import { parseArgs } from 'node:util';
import { chooseKernel, runInLab } from './lab/kernel.ts';
import { ensurePackages, layerEnvironment, projectRoot } from './lab/packages.ts';

/** What became of a group of tests. */
type Summary = { passed: number; failed: string[]; skipped: { test: string; reason: string }[] };
type Step = { name: string; seconds: number; summary: Summary };

const { values, positionals: filters } = parseArgs({
  allowPositionals: true,
  options: { only: { type: 'string' }, yes: { type: 'boolean' }, inside: { type: 'boolean' } },
});
const nothing = (): Summary => ({ passed: 0, failed: [], skipped: [] });
const wanted = (step: string) => values.only === undefined || values.only === step;

process.chdir(projectRoot);
if (values.inside) {
  const summary = await runFiles(filters, { concurrency: 1, timeoutSeconds: 300 });
  writeFileSync(join(process.env.LAB_OUT!, 'summary.json'), JSON.stringify(summary));
} else {
  process.exitCode = (await everything()) ? 0 : 1;
}

async function everything(): Promise<boolean> {
  const tests = globSync('test/**/*.test.ts').sort().filter(fits);
  const guest = tests.filter(file => file.endsWith('.guest.test.ts'));
  const lab = tests.filter(file => file.endsWith('.lab.test.ts'));
  const unit = tests.filter(file => !guest.includes(file) && !lab.includes(file));
  const steps: Step[] = [];
  const step = async (name: string, work: () => Promise<Summary>) => {
    const started = Date.now();
    say(`── ${name}`);
    const summary = await work();
    steps.push({ name, seconds: (Date.now() - started) / 1000, summary });
  };
  if (wanted('check') && filters.length === 0) {
    await step('types', async () => tool('tsc', ['-p', '.']));
    await step('lint', async () => tool('biome', ['lint', '--error-on-warnings', '.']));
    await step('format', async () => tool('biome', ['format', '.']));
  }
  const lacking = wanted('unit') || wanted('lab') ? await providePackages() : undefined;
  if (wanted('unit') && unit.length > 0) {
    await step('unit', () => runFiles(unit, { concurrency: availableParallelism(), timeoutSeconds: 300 }));
  }
  if (wanted('lab') && guest.length + lab.length > 0) {
    await step('lab', async () => {
      if (lacking) {
        say(lacking);
        return {
          ...nothing(),
          failed: ['the lab cannot start here; `npm test -- --only unit` leaves it out'],
        };
      }
      say(
        `kernel of the lab: ${(await chooseKernel()) === 'uml' ? 'User-Mode Linux' : "this machine's own"}`,
      );
      const summaries = [];
      for (const file of guest) summaries.push(await runGuest(file));
      if (lab.length > 0) summaries.push(await runFiles(lab, { concurrency: 1, timeoutSeconds: 600 }));
      return add(summaries);
    });
  }
  return report(steps);
}

/** Makes the lab's Debian packages available, to unit tests too (nsd, dig, ip); answers why not. */
async function providePackages(): Promise<string | undefined> {
  try {
    await ensurePackages({ ...(values.yes ? { yes: true } : {}), progress: say });
  } catch (error) {
    return (error as Error).message;
  }
  Object.assign(process.env, layerEnvironment());
  return undefined;
}

function fits(file: string): boolean {
  return filters.length === 0 || filters.some(filter => file.includes(filter));
}

/** Runs test files in processes of their own; prints a line for each file, and the error of each failed test. */
async function runFiles(
  files: string[],
  limits: { concurrency: number; timeoutSeconds: number },
): Promise<Summary> {
  const summary = nothing();
  const stream = run({ files, concurrency: limits.concurrency, timeout: limits.timeoutSeconds * 1000 });
  stream.on('test:pass', test => {
    if (test.details.type === 'suite') return;
    if (test.skip === undefined && test.todo === undefined) {
      summary.passed++;
      return;
    }
    const reason = [test.skip, test.todo].find(given => typeof given === 'string') ?? 'no reason given';
    summary.skipped.push({ test: `${relative(test.file)}: ${test.name}`, reason });
  });
  stream.on('test:fail', test => {
    const error = test.details.error as Error & { failureType?: string };
    if (error.failureType === 'subtestsFailed') return; // they have been told
    const name = `${relative(test.file ?? test.name)}: ${test.name}`;
    summary.failed.push(name);
    say(`✖ ${name}\n${errorText(error)}`);
  });
  stream.on('test:stderr', ({ message }) => process.stderr.write(message));
  stream.on('test:summary', ({ file, counts, duration_ms, success }) => {
    if (file === undefined) return; // the sum of all, which `report` prints
    const failed = counts.tests - counts.passed - counts.skipped - counts.todo;
    const notes = [failed && `${failed} failed`, counts.skipped && `${counts.skipped} skipped`].filter(
      Boolean,
    );
    const line = [`${counts.passed} passed`, ...notes].join(', ');
    say(`${success ? '✔' : '✖'} ${relative(file)}  ${line}  ${(duration_ms / 1000).toFixed(1)} s`);
  });
  for await (const _ of stream) {
    // the listeners have seen it
  }
  return summary;
}

function relative(file: string | undefined): string {
  return (file ?? 'unknown file').replace(`${projectRoot}/`, '');
}

function errorText(error: Error): string {
  const cause = (error.cause ?? error) as Error;
  const text = cause.stack ?? String(cause);
  return text
    .split('\n')
    .filter(line => !/\(node:internal|at node:internal/.test(line))
    .map(line => `    ${line}`)
    .join('\n');
}

async function runGuest(file: string): Promise<Summary> {
  const out = mkdtempSync(join(tmpdir(), 'holdfast-test-'));
  try {
    const command = [
      'on',
      'alice',
      join(projectRoot, 'node_modules/.bin/node'),
      'test/run.ts',
      '--inside',
      file,
    ];
    const { status } = await runInLab(command, { out, timeoutSeconds: 300 });
    if (status !== 0)
      return { ...nothing(), failed: [`${file}: the run in the lab ended with status ${status}`] };
    return JSON.parse(readFileSync(join(out, 'summary.json'), 'utf8'));
  } finally {
    rmSync(out, { recursive: true });
  }
}

function tool(program: string, args: string[]): Summary {
  const { status } = spawnSync(join('node_modules/.bin', program), args, { stdio: 'inherit' });
  return status === 0
    ? { ...nothing(), passed: 1 }
    : { ...nothing(), failed: [`${program} ${args.join(' ')}`] };
}

function add(summaries: Summary[]): Summary {
  return {
    passed: summaries.reduce((sum, { passed }) => sum + passed, 0),
    failed: summaries.flatMap(({ failed }) => failed),
    skipped: summaries.flatMap(({ skipped }) => skipped),
  };
}

function report(steps: Step[]): boolean {
  const total = add(steps.map(({ summary }) => summary));
  say('── summary');
  for (const { name, seconds, summary } of steps) {
    const { passed, failed, skipped } = summary;
    say(
      `${failed.length ? '✖' : '✔'} ${name}: ${passed} passed, ${failed.length} failed, ${skipped.length} skipped, ${seconds.toFixed(0)} s`,
    );
  }
  const reasons = Map.groupBy(total.skipped, ({ reason }) => reason.split(': ')[0]); // what comes after is a detail
  for (const [first, ...more] of reasons.values()) {
    say(`skipped ${1 + more.length}: ${first!.reason} (${first!.test}${more.length > 0 ? ', …' : ''})`);
  }
  for (const name of total.failed) say(`failed: ${name}`);
  if (steps.length === 0) say('no test file fits the filter');
  say(total.failed.length === 0 && steps.length > 0 ? 'all passed' : 'NOT passed');
  return total.failed.length === 0 && steps.length > 0;
}

function say(line: string): void {
  console.log(line);
}
