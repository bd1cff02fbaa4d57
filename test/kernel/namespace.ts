/** Runs a test file a second time in a namespace of its own for network and mounts, where it may do what it likes. */
import { spawnSync } from 'node:child_process';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

/**
 * Says whether this process is the inner run; outside it registers one test that is the inner run, or skips with a reason.
 *
 * A test file that uses it begins with `if (inOwnNamespace(import.meta.url)) { … }`.
 */
export function inOwnNamespace(file: string, skip?: () => string | undefined): boolean {
  if (process.env.HOLDFAST_NAMESPACE === file) {
    const failed = spawnSync('ip', ['link', 'set', 'lo', 'up']).status !== 0;
    if (failed) throw new Error('`ip link set lo up` failed');
    return true;
  }
  test('in a network namespace of its own', t => {
    if (process.getuid?.() !== 0) return t.skip('needs root (a network namespace, CAP_NET_ADMIN)');
    if (spawnSync('unshare', ['-n', '-m', 'ip', 'link']).status !== 0)
      return t.skip('needs `unshare -n -m` and `ip`');
    const reason = skip?.();
    if (reason) return t.skip(reason);
    const { NODE_TEST_CONTEXT: _, ...environment } = process.env;
    const inner = spawnSync(
      'unshare',
      ['-n', '-m', process.execPath, '--test-reporter=spec', fileURLToPath(file)],
      {
        env: { ...environment, HOLDFAST_NAMESPACE: file, NO_COLOR: '1' },
        timeout: 300_000,
        encoding: 'utf8',
      },
    );
    t.diagnostic(inner.stdout.trim());
    if (inner.status !== 0) throw new Error(`${inner.stdout}\n${inner.stderr}`);
  });
  return false;
}

/** `ip` with these words; throws with what it said when it fails. */
export function ip(...words: string[]): string {
  const run = spawnSync('ip', words, { encoding: 'utf8' });
  if (run.status !== 0) throw new Error(`ip ${words.join(' ')}: ${run.stderr}`);
  return run.stdout;
}
