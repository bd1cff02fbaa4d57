// npm run bench: how long a name takes that nobody has asked before, beside strongSwan on the same link. --help says how.
import { createPrivateKey, createPublicKey } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { chooseKernel, runInLab } from '../lab/kernel.ts';
import { type KeyRing, keyKinds } from '../lab/keys.ts';
import { kindOf, peerNames } from '../lab/names.ts';
import { ensurePackages, projectRoot } from '../lab/packages.ts';
import { writeStrongSwan } from '../lab/strongswan.ts';
import { manyAddresses } from '../lab/topology.ts';
import { writeWorld } from '../lab/world.ts';
import { type BenchResult, report, resultsPage } from './figures.ts';
import { withSection } from './results.ts';

/** What the guest is to do; WORLD/plan.json. */
export type BenchPlan = { count: number; coldCount: number; delays: number[] };

const usage = `npm run bench -- [options]

  --count N        rounds of each delay with everything warm (15)
  --cold-count N   rounds of each delay with a fresh daemon, 9 at most (5)
  --delays A,B,…   milliseconds added to the round trip (0,10,50)
  --json           the result as one JSON object, with every sample
  --write          keep the result in test/bench/RESULTS.md too, if no round failed
  --yes            unpack missing Debian packages into test/.lab without asking
  --keep FOLDER    leave the world (logs, captures, configurations) there
  --help

Progress goes to standard error. The defaults take some three minutes in User-Mode Linux.`;

if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    console.error(`bench: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      count: { type: 'string', default: '15' },
      'cold-count': { type: 'string', default: '5' },
      delays: { type: 'string', default: '0,10,50' },
      json: { type: 'boolean' },
      write: { type: 'boolean' },
      yes: { type: 'boolean' },
      keep: { type: 'string' },
      help: { type: 'boolean' },
    },
  });
  if (values.help) {
    console.log(usage);
    return;
  }
  const plan: BenchPlan = {
    count: whole('--count', values.count, 1, 1000),
    coldCount: whole('--cold-count', values['cold-count'], 0, 9),
    delays: values.delays.split(',').map(text => whole('--delays', text, 0, 1000)),
  };
  const progress = (line: string) => console.error(line);
  await ensurePackages({ ...(values.yes ? { yes: true } : {}), progress });
  const result = await measure(plan, values.keep, progress);
  console.log(values.json ? JSON.stringify(result) : report(result));
  if (result.failures.length > 0)
    throw new Error(`${result.failures.length} rounds failed; nothing is written`);
  if (values.write) {
    const command = `npm run bench -- --count ${plan.count} --cold-count ${plan.coldCount} --delays ${plan.delays.join(',')}`;
    const page = resultsPage(result, new Date().toISOString().slice(0, 10), command);
    const file = join(projectRoot, 'test', 'bench', 'RESULTS.md');
    writeFileSync(file, withSection(readFileSync(file, 'utf8'), page));
    progress('written: test/bench/RESULTS.md');
  }
}

export function whole(option: string, text: string, least: number, most: number): number {
  const value = /^\d+$/.test(text.trim()) ? Number(text) : Number.NaN;
  if (value >= least && value <= most) return value;
  throw new Error(`${option}: expected a whole number from ${least} to ${most}, not "${text}"`);
}

async function measure(
  plan: BenchPlan,
  keep: string | undefined,
  progress: (line: string) => void,
): Promise<BenchResult> {
  if (keep) mkdirSync(keep, { recursive: true });
  const world = realpathSync(keep ?? mkdtempSync(join(tmpdir(), 'holdfast-bench-')));
  try {
    progress('making keys and signing zones');
    writeWorld(world);
    writeRival(world);
    writeFileSync(join(world, 'plan.json'), JSON.stringify(plan));
    const kernel = await chooseKernel();
    progress(`starting ${kernel === 'uml' ? 'User-Mode Linux' : "namespaces on this machine's kernel"}`);
    const guest = [join(projectRoot, 'node_modules/.bin/node'), 'test/bench/bench.guest.ts'];
    const rounds = plan.delays.length * (plan.count + 10 * plan.coldCount);
    const { status } = await runInLab(guest, { kernel, out: world, timeoutSeconds: 180 + 5 * rounds });
    if (status !== 0) throw new Error(`the run in the lab ended with status ${status}`);
    return JSON.parse(readFileSync(join(world, 'result.json'), 'utf8'));
  } finally {
    if (!keep) rmSync(world, { recursive: true, force: true });
  }
}

/** strongSwan in alice's name on the host natr: one connection for each of the peer's many names and addresses. */
function writeRival(world: string): void {
  const connections = peerNames.map((id, i) => ({
    name: id.replace('.example', ''),
    local: { id: 'alice.example', keys: [`alice-${kindOf(id)}` as const], addresses: ['10.9.0.90'] },
    remote: { id, keys: [`bob-${kindOf(id)}` as const], addresses: [`10.9.0.${manyAddresses[i]}`] },
  }));
  const [alice, bob] = [readRing(world, 'alice'), readRing(world, 'bob')];
  writeStrongSwan(join(world, 'natr'), { alice }, { bob }, connections);
}

/** The key pairs of a party, as the world left them. */
function readRing(world: string, party: string): KeyRing {
  const pairs = keyKinds.map(kind => {
    const pem = readFileSync(join(world, 'keys', `${party}-${kind}.pem`));
    return [kind, { kind, privateKey: createPrivateKey(pem), publicKey: createPublicKey(pem) }] as const;
  });
  return Object.fromEntries(pairs) as KeyRing;
}
