/** The resolver as a process, in front of a middlebox, with a way to wait for what its status says. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { StatusReport } from '../../../resolver/control/api.ts';
import { ControlClient } from '../../../resolver/control/client.ts';
import type { NetworkStatus } from '../../../resolver/network/status.ts';
import { ROOT } from '../commands/cli.ts';
import { freePort } from '../free-port.ts';

export type Running = {
  at: { address: string; port: number };
  client: ControlClient;
  controlPath: string;
  process: ChildProcess;
  log: () => string;
  status: () => Promise<StatusReport>;
  /** Asks for the status until it is as wanted. */
  until: (
    wanted: (network: NetworkStatus, counters: Record<string, number>) => boolean,
  ) => Promise<NetworkStatus>;
  stop: () => Promise<void>;
};

/**
 * `flags`: without `state`, `control` and `dataplane`, which are set here; `address`: where it listens; `inside`: the
 * command that brings it into another namespace.
 */
export async function startHoldfast(
  flags: Record<string, string>,
  { address = '127.0.0.1', inside = [] }: { address?: string; inside?: string[] } = {},
): Promise<Running> {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-network-'));
  const port = await freePort('127.0.0.1');
  const controlPath = join(directory, 'control.sock');
  const settings = {
    listen: `${address}:${port}`,
    state: join(directory, 'state'),
    control: controlPath,
    dataplane: 'none',
    'log-format': 'json',
    ...flags,
  };
  const words = Object.entries(settings).map(([flag, value]) => `--${flag}=${value}`);
  const [program, ...rest] = [...inside, join(ROOT, 'deploy', 'holdfast'), 'up', ...words];
  const child = spawn(program!, rest, { stdio: ['ignore', 'pipe', 'pipe'] });
  let log = '';
  child.stderr.setEncoding('utf8').on('data', chunk => {
    log += chunk;
  });
  const ended = once(child, 'close').then(([code]) =>
    Promise.reject(new Error(`it ended with ${code}: ${log}`)),
  );
  ended.catch(() => {});
  await Promise.race([once(createInterface(child.stdout), 'line'), ended]);
  const client = new ControlClient(controlPath);
  return {
    at: { address, port },
    client,
    controlPath,
    process: child,
    log: () => log,
    status: () => client.status(),
    until: async wanted => {
      let last: NetworkStatus | undefined;
      for (let tries = 0; tries < 600; tries++) {
        const { network, counters } = await client.status();
        if (wanted(network, counters)) return network;
        last = network;
        await new Promise(resolve => setTimeout(resolve, 50));
      }
      throw new Error(`the network never was as wanted, but: ${JSON.stringify(last)}\n${log}`);
    },
    stop: async () => {
      child.kill('SIGTERM');
      if (child.exitCode === null) await once(child, 'close');
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
