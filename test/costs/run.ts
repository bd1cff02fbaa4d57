// npm run bench:costs [-- --count N] [--write]: what hostile zones cost the running daemon, and what others notice of it.
//
// --write keeps the table in test/bench/RESULTS.md.
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { withSection } from '../bench/results.ts';
import { projectRoot } from '../lab/packages.ts';
import { type Cost, Victim } from './measure.ts';

const { values } = parseArgs({
  options: { count: { type: 'string', default: '60' }, write: { type: 'boolean' } },
});
const count = Number(values.count);
const AT_ONCE = 10;

const victim = await Victim.start();
const costs: Cost[] = [];
try {
  await victim.calibrate(300);
  for (const attack of victim.world.attacks) {
    console.error(`… ${attack.name}`);
    costs.push(await victim.suffer(attack, count, AT_ONCE));
  }
} finally {
  await victim.stop();
}
const section = page(costs);
console.log(section);
if (values.write) {
  const file = join(projectRoot, 'test', 'bench', 'RESULTS.md');
  writeFileSync(file, withSection(readFileSync(file, 'utf8'), section));
}

function page(all: readonly Cost[]): string {
  const rows = all.map(({ name, what, cpuMillis, verifications, nsec3Rounds, honest }) =>
    [
      name,
      what,
      cpuMillis.toFixed(1),
      verifications.toFixed(1),
      nsec3Rounds.toFixed(0),
      `${honest.answered}/${honest.asked}`,
      `${honest.p50Millis.toFixed(1)} / ${honest.p99Millis.toFixed(1)}`,
    ].join(' | '),
  );
  return `# What hostile zones cost

\`npm run bench:costs -- --write\`: ${count} questions of each kind, each for a new name, ${AT_ONCE} at once, to the daemon without a data
plane (${cpus()[0]?.model ?? 'unknown CPU'}, ${process.version}). CPU is the daemon's user and system time for one such question and all
that it causes (a lookup of IPSECKEY too), what the honest questions cost left out. Meanwhile one client asks new honest names one
after the other: how many were answered, and after how many milliseconds.

| zone | what it does | CPU, ms | signatures checked | NSEC3 rounds | honest answers | p50 / p99, ms |
|---|---|---|---|---|---|---|
${rows.map(row => `| ${row} |`).join('\n')}

No lookup may cost more than the limits in \`resolver/dnssec/work.ts\`; signatures are checked and names hashed in
slices of about half a millisecond by all questions together, between which all others have their turn. A zone that made a question reach a limit is given
no more than one honest answer needs for 5 s.
`;
}
