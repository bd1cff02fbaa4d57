// node test/lab/run.ts [--host HOST] [--out DIR] [--memory 1G] [--timeout 300] [--kernel uml|machine] [--yes] -- COMMAND…
// Runs one command in the lab: a shell to look round with, or one test file.
import { mkdirSync, realpathSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { type LabKernel, runInLab } from './kernel.ts';
import { ensurePackages } from './packages.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    host: { type: 'string' },
    out: { type: 'string' },
    memory: { type: 'string' },
    timeout: { type: 'string' },
    kernel: { type: 'string' },
    yes: { type: 'boolean' },
  },
});

try {
  if (positionals.length === 0)
    throw new Error('usage: node test/lab/run.ts [options] -- COMMAND [ARGUMENTS]');
  await ensurePackages({ yes: values.yes, progress: line => console.error(line) });
  if (values.out) mkdirSync(values.out, { recursive: true });
  const result = await runInLab(values.host ? ['on', values.host, ...positionals] : positionals, {
    ...(values.out ? { out: realpathSync(values.out) } : {}),
    ...(values.memory ? { memory: values.memory } : {}),
    ...(values.kernel ? { kernel: values.kernel as LabKernel } : {}),
    timeoutSeconds: Number(values.timeout ?? 300),
  });
  process.exitCode = result.status;
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 125;
}
