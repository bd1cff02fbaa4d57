/** `holdfast up`: runs the resolver until a signal. */
import type { Configuration } from '../config.ts';
import { createLogger, type Logger } from '../log.ts';
import { checkBeforeStart } from '../startup-checks.ts';
import { paint, print } from './terminal.ts';

/** A second signal that comes later than this after the first is a second wish. */
const INSISTING_MILLIS = 500;

/** What the daemon hands back once it listens. */
export type RunningDaemon = {
  listen: string[];
  dataplane: { kind: 'xfrm' | 'none'; kernel: string; why?: string };
  /** Orderly: Deletes are sent, everything installed is removed. Never rejects. */
  stop(reason: string): Promise<void>;
  /** Rejects when the daemon cannot go on; otherwise pending. */
  failed: Promise<never>;
};

export type StartDaemon = (
  configuration: Configuration,
  context: { log: Logger; version: string },
) => Promise<RunningDaemon>;

/** Starts, says where it listens and what it drives, and stops in order on SIGINT or SIGTERM. */
export async function up(
  configuration: Configuration,
  version: string,
  loadDaemon: () => Promise<{ startDaemon: StartDaemon }>,
): Promise<void> {
  checkBeforeStart(configuration);
  // ps, ss and our own complaint about a taken port would call it MainThread otherwise.
  process.title = 'holdfast';
  const log = createLogger(configuration.log);
  const { startDaemon } = await loadDaemon();
  const signalled = firstSignal();
  const daemon = await startDaemon(configuration, { log, version });
  print(readyLine(daemon));
  try {
    const signal = await Promise.race([signalled, daemon.failed]);
    log.info({ event: 'stopping', signal }, 'stopping');
    await daemon.stop(signal);
  } catch (error) {
    await daemon.stop('failed');
    throw error;
  }
  log.info({ event: 'stopped' }, 'stopped');
}

/**
 * The first signal asks for an orderly stop; a second one means it.
 *
 * Ctrl-C under npx arrives twice at once, from the terminal and passed on by npm: that is one wish.
 */
function firstSignal(): Promise<string> {
  return new Promise(resolve => {
    let askedAt: number | undefined;
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.on(signal, () => {
        if (askedAt !== undefined && performance.now() - askedAt > INSISTING_MILLIS) process.exit(1);
        askedAt ??= performance.now();
        resolve(signal);
      });
    }
  });
}

function readyLine({ listen, dataplane }: RunningDaemon): string {
  const where =
    listen.length < 2 ? listen.join('') : `${listen.slice(0, -1).join(', ')} and ${listen.at(-1)}`;
  const plane =
    dataplane.kind === 'xfrm'
      ? `sealing by the kernel's ESP (xfrm, ${dataplane.kernel})`
      : paint(`not sealing: ${dataplane.why ?? 'dataplane is none'}`, 'yellow');
  return `Holdfast listens on ${where}, ${plane}`;
}
