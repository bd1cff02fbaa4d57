// npm run bench:dns: Holdfast beside other validating forwarders, by dnsperf over the same signed zones. --help says how.
import { readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { benchPackages, ensurePackages, labPackages, projectRoot } from '../../lab/packages.ts';
import { withSection } from '../results.ts';
import { whole } from '../run.ts';
import { contenders } from './contenders.ts';
import { dnsReport, dnsSection } from './figures.ts';
import { measure, type Part, parts } from './measure.ts';

const usage = `npm run bench:dns -- [options]

  --rounds N       of each measurement; all servers take turns in each (5)
  --only A,B,…     of ${parts.join(', ')} (all)
  --servers A,B,…  of ${contenders.map(({ name }) => name).join(', ')} (all)
  --json           the result as one JSON object
  --write          keep the result in test/bench/RESULTS.md
  --yes            unpack missing Debian packages into test/.lab without asking
  --help

Servers run on CPU 0, dnsperf and the upstream on CPU 1. Progress goes to standard error. Five rounds of everything take
about ten minutes.`;

if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    console.error(`bench:dns: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '5' },
      only: { type: 'string', default: parts.join(',') },
      servers: { type: 'string', default: contenders.map(({ name }) => name).join(',') },
      json: { type: 'boolean' },
      write: { type: 'boolean' },
      yes: { type: 'boolean' },
      help: { type: 'boolean' },
    },
  });
  if (values.help) {
    console.log(usage);
    return;
  }
  const rounds = whole('--rounds', values.rounds, 1, 9);
  const wanted = values.only.split(',').map(text => oneOf('--only', text, parts));
  const names = values.servers.split(',').map(text => text.toLowerCase());
  const chosen = contenders.filter(({ name }) => names.includes(name.toLowerCase()));
  if (chosen.length !== names.length) throw new Error(`--servers: unknown name in "${values.servers}"`);
  if (availableParallelism() < 2)
    throw new Error('two CPUs are needed, one for the server and one for dnsperf');
  const progress = (line: string) => console.error(line);
  const packages = [...labPackages, ...benchPackages];
  await ensurePackages({ ...(values.yes ? { yes: true } : {}), progress, packages });
  const result = await measure(rounds, wanted, chosen, progress);
  console.log(values.json ? JSON.stringify(result) : dnsReport(result));
  if (values.write) {
    const file = join(projectRoot, 'test', 'bench', 'RESULTS.md');
    const only = wanted.length < parts.length ? ` --only ${wanted.join(',')}` : '';
    const command = `npm run bench:dns -- --rounds ${rounds}${only}`;
    const section = dnsSection(result, new Date().toISOString().slice(0, 10), command);
    writeFileSync(file, withSection(readFileSync(file, 'utf8'), section));
    progress('written: test/bench/RESULTS.md');
  }
}

function oneOf(option: string, text: string, allowed: readonly Part[]): Part {
  const found = allowed.find(part => part === text);
  if (found === undefined) throw new Error(`${option}: expected one of ${allowed.join(', ')}, not "${text}"`);
  return found;
}
