import { spawn } from 'node:child_process';
import { join } from 'node:path';

export const ROOT = join(import.meta.dirname, '..', '..', '..');

export type CliResult = { code: number | null; stdout: string; stderr: string };

/** Runs the real program, deploy/holdfast, without the environment of this machine. */
export function holdfast(args: string[], environment: Record<string, string> = {}): Promise<CliResult> {
  return run(join(ROOT, 'deploy', 'holdfast'), args, environment);
}

export function run(
  file: string,
  args: string[],
  environment: Record<string, string> = {},
  cwd = '/',
): Promise<CliResult> {
  const env = { PATH: process.env.PATH ?? '/usr/bin:/bin', ...environment };
  const child = spawn(file, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', chunk => {
    stdout += chunk;
  });
  child.stderr.setEncoding('utf8').on('data', chunk => {
    stderr += chunk;
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', code => resolve({ code, stdout, stderr }));
  });
}
