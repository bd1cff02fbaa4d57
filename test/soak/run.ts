// npm run soak: the real daemon for an hour at a steady rate, with faults on the way to its upstream. --help says how.
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { whole } from '../bench/run.ts';
import { withSection } from '../bench/results.ts';
import { ensurePackages, projectRoot } from '../lab/packages.ts';
import { judge, lineOf, type SoakResult, soakReport, soakSection } from './report.ts';
import { Soak } from './soak.ts';

const usage = `npm run soak -- [options]

  --minutes M      how long, fractions allowed (60); growth is judged from ten minutes on
  --rate N         questions a second (2000)
  --seed N         of the questions (1)
  --report FOLDER  soak.json, soak.txt and the daemon's log go there
  --write          keep the report in test/bench/RESULTS.md
  --yes            unpack missing Debian packages into test/.lab without asking
  --help

A line a minute. Exit status 1 when an answer was wrong, the daemon ended, memory or descriptors grow, or questions were
left without an answer.`;

if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    console.error(`soak: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '60' },
      rate: { type: 'string', default: '2000' },
      seed: { type: 'string', default: '1' },
      report: { type: 'string' },
      write: { type: 'boolean' },
      yes: { type: 'boolean' },
      help: { type: 'boolean' },
    },
  });
  if (values.help) {
    console.log(usage);
    return;
  }
  const minutes = Number(values.minutes);
  if (!(minutes >= 0.2 && minutes <= 24 * 60))
    throw new Error('--minutes: expected a number from 0.2 to 1440');
  const rate = whole('--rate', values.rate, 10, 20_000);
  const seed = whole('--seed', values.seed, 0, 2 ** 31);
  await ensurePackages({ ...(values.yes ? { yes: true } : {}), progress: line => console.error(line) });
  if (values.report) mkdirSync(values.report, { recursive: true });
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'holdfast-soak-')));
  const soak = new Soak({ folder, minutes, rate, seed }, minute => console.log(lineOf(minute)));
  try {
    const result = await soak.run();
    const failures = judge(result);
    console.log(soakReport(result, failures));
    if (values.report) keepReport(values.report, folder, result, failures);
    if (values.write) {
      const file = join(projectRoot, 'test', 'bench', 'RESULTS.md');
      const command = `npm run soak -- --minutes ${values.minutes} --rate ${rate}`;
      const date = new Date().toISOString().slice(0, 10);
      const page = readFileSync(file, 'utf8');
      writeFileSync(file, withSection(page, soakSection(result, failures, date, command)));
    }
    if (failures.length > 0) process.exitCode = 1;
  } finally {
    await soak.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

function keepReport(to: string, folder: string, result: SoakResult, failures: string[]): void {
  writeFileSync(join(to, 'soak.json'), `${JSON.stringify({ ...result, failures }, undefined, 1)}\n`);
  writeFileSync(join(to, 'soak.txt'), `${soakReport(result, failures)}\n`);
  const log = readFileSync(join(folder, 'holdfast', 'log'), 'utf8');
  writeFileSync(join(to, 'holdfast.log'), log.slice(-4_000_000));
}
