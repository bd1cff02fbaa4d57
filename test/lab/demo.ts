// npm run demo: Holdfast against a peer that it did not bring, in a world made for the occasion, told as a story.
//
//   npm run demo -- [--json] [--yes] [--keep FOLDER]
//
// --json  one JSON object on standard output instead of the story
// --yes   unpack missing Debian packages into test/.lab without asking
// --keep  leave the world (logs, captures, configurations) in FOLDER
import { mkdirSync, mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { chooseKernel, runInLab } from './kernel.ts';
import { ensurePackages, projectRoot } from './packages.ts';
import { writeWorld } from './world.ts';

const progress = (line: string) => console.error(line);

try {
  const { values } = parseArgs({
    options: { json: { type: 'boolean' }, yes: { type: 'boolean' }, keep: { type: 'string' } },
  });
  await ensurePackages({ ...(values.yes ? { yes: true } : {}), progress });
  if (values.keep) mkdirSync(values.keep, { recursive: true });
  const world = realpathSync(values.keep ?? mkdtempSync(join(tmpdir(), 'holdfast-demo-')));
  try {
    progress('making keys and signing zones');
    writeWorld(world);
    const kernel = await chooseKernel();
    progress(`starting ${kernel === 'uml' ? 'User-Mode Linux' : "namespaces on this machine's kernel"}`);
    const node = join(projectRoot, 'node_modules/.bin/node');
    const story = [node, 'test/lab/demo.guest.ts', ...(values.json ? ['--json'] : [])];
    const { status } = await runInLab(story, { kernel, out: world, timeoutSeconds: 240 });
    process.exitCode = status;
  } finally {
    if (!values.keep) rmSync(world, { recursive: true, force: true });
  }
} catch (error) {
  console.error(`demo: ${(error as Error).message}`);
  process.exitCode = 1;
}
