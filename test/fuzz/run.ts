// npm run fuzz -- [--cases N] [--seed S] [--case I] [--list] [FILTER…]
//
// Spoils real inputs at random and gives them to every parser whose target's name contains a FILTER. Each target runs
// in a process of its own, which is watched: a case that does not end is a finding like a wrong result. --seed and
// --case run one case again.
import { fork } from 'node:child_process';
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Figures, runCases } from './session.ts';
import { targets } from './targets.ts';

/** No case comes near it; a process without progress for so long hangs. */
const HANG_MILLIS = 30_000;

type Work = { target: string; seed: number; from: number; to: number };
type Told = { figures: Figures } | { finding: string };

const [job, progress] = process.argv.slice(2);
if (process.send !== undefined && job?.startsWith('{')) await work(JSON.parse(job), progress!);
else process.exitCode = await main();

async function main(): Promise<number> {
  const { values, positionals: filters } = parseArgs({
    allowPositionals: true,
    options: {
      cases: { type: 'string', default: '100000' },
      seed: { type: 'string' },
      case: { type: 'string' },
      list: { type: 'boolean' },
    },
  });
  const chosen = targets.filter(
    ({ name }) => filters.length === 0 || filters.some(filter => name.includes(filter)),
  );
  if (values.list || chosen.length === 0) {
    for (const { name } of targets) console.log(name);
    return values.list ? 0 : 2;
  }
  const seed = values.seed === undefined ? Date.now() % 1_000_000 : Number(values.seed);
  console.log(`seed ${seed}`);
  console.log('target                      cases  cases/s   max µs   heap growth');
  let total = 0;
  for (const { name, oneIn = 1 } of chosen) {
    const from = values.case === undefined ? 0 : Number(values.case);
    const to = values.case === undefined ? Math.ceil(Number(values.cases) / oneIn) : from + 1;
    const outcome = await watched({ target: name, seed, from, to });
    if (typeof outcome === 'string') {
      console.error(outcome);
      return 1;
    }
    console.log(line(outcome));
    total += outcome.cases;
  }
  console.log(`${total} cases, nothing found`);
  return 0;
}

function line({ target, cases, casesPerSecond, maxMicros, heapGrowthOctets }: Figures): string {
  const growth = `${(heapGrowthOctets / 1024).toFixed(0)} KiB`;
  const numbers = [
    String(cases).padStart(9),
    String(casesPerSecond).padStart(8),
    String(maxMicros).padStart(8),
    growth.padStart(13),
  ];
  return `${target.padEnd(24)}${numbers.join(' ')}`;
}

/** The figures, or what was found. */
async function watched(given: Work): Promise<Figures | string> {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-fuzz-'));
  const at = join(directory, 'case');
  writeFileSync(at, new Uint8Array(4));
  const child = fork(import.meta.filename, [JSON.stringify(given), at]);
  let last = -1;
  const outcome = await new Promise<Figures | string>(resolve => {
    const watch = setInterval(() => {
      const now = readFileSync(at).readUInt32LE();
      if (now === last) {
        resolve(
          `${given.target}: no end in sight\n  again: npm run fuzz -- --seed ${given.seed} --case ${now} ${given.target}`,
        );
      }
      last = now;
    }, HANG_MILLIS);
    child.once('message', (told: Told) => resolve('figures' in told ? told.figures : told.finding));
    child.once('exit', code => resolve(`${given.target}: the process ended with ${code}`));
    child.once('exit', () => clearInterval(watch));
  });
  child.kill('SIGKILL');
  rmSync(directory, { recursive: true });
  return outcome;
}

async function work({ target, ...plan }: Work, progressPath: string): Promise<void> {
  const file = openSync(progressPath, 'r+');
  const octets = Buffer.alloc(4);
  const onCase = (index: number) => {
    octets.writeUInt32LE(index);
    writeSync(file, octets, 0, 4, 0);
  };
  let told: Told;
  try {
    told = { figures: await runCases(targets.find(({ name }) => name === target)!, { ...plan, onCase }) };
  } catch (error) {
    told = { finding: String(error instanceof Error ? error.stack : error) };
  }
  process.send!(told);
}
