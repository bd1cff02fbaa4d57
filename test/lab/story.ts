// One run of a guest script in a world of its own, for lab tests: the script prints one JSON object, the test judges it.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runInLab } from './kernel.ts';
import { projectRoot } from './packages.ts';
import { writeWorld } from './world.ts';

/**
 * Makes a world, boots a lab, runs test/lab/SCRIPT in it and answers what it printed.
 *
 * Rejects with the script's errors and the ends of the servers' logs when it fails. HOLDFAST_LAB_KEEP=1 keeps the world.
 */
export async function runStory<Told>(
  script: string,
  args: string[] = [],
  timeoutSeconds = 240,
): Promise<Told> {
  const world = mkdtempSync(join(tmpdir(), 'holdfast-story-'));
  const output: { stdout: Buffer[]; stderr: Buffer[] } = { stdout: [], stderr: [] };
  try {
    writeWorld(world);
    const command = [join(projectRoot, 'node_modules/.bin/node'), join('test/lab', script), ...args];
    const { status } = await runInLab(command, {
      out: world,
      timeoutSeconds,
      stdout: chunk => output.stdout.push(chunk),
      stderr: chunk => output.stderr.push(chunk),
    });
    const stderr = Buffer.concat(output.stderr).toString();
    if (status !== 0) throw new Error(`${script} ended with status ${status}\n${stderr}\n${logs(world)}`);
    return JSON.parse(Buffer.concat(output.stdout).toString());
  } finally {
    if (process.env.HOLDFAST_LAB_KEEP) console.error(`kept ${world}`);
    else rmSync(world, { recursive: true, force: true });
  }
}

function logs(world: string): string {
  const tail = (name: string) =>
    readFileSync(join(world, name), 'utf8').trim().split('\n').slice(-12).join('\n');
  return readdirSync(world)
    .filter(name => name.endsWith('.log'))
    .map(name => `--- ${name}\n${tail(name)}`)
    .join('\n');
}
