/** The whole daemon in this process, without a data plane, in front of a server of the test's own. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { SocketAddress } from '../../resolver/address.ts';
import { parseSocketAddress } from '../../resolver/address.ts';
import { loadConfiguration } from '../../resolver/config.ts';
import { ControlClient } from '../../resolver/control/client.ts';
import { startDaemon } from '../../resolver/daemon/daemon.ts';
import { createLogger } from '../../resolver/log.ts';
import { machineWith } from './config/machine.ts';
import { freePort } from './free-port.ts';

export type RunningDaemon = {
  at: SocketAddress;
  client: ControlClient;
  counters: () => Promise<Record<string, number>>;
};

/**
 * Nothing but `signed.example` has a trust anchor, so every other name is insecure and answered as it is.
 *
 * `flags` as on the command line.
 */
export async function runDaemon(
  t: TestContext,
  upstream: { address: string; port: number },
  flags: Record<string, string> = {},
): Promise<RunningDaemon> {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-daemon-'));
  const control = join(directory, 'control.sock');
  const configuration = loadConfiguration({
    environment: {},
    machine: machineWith({ '/anchors': `signed.example. IN DS 1 13 2 ${'00'.repeat(32)}` }),
    flags: {
      listen: `127.0.0.1:${await freePort('127.0.0.1')}`,
      access: '127.0.0.0/8',
      upstream: `${upstream.address}:${upstream.port}`,
      'trust-anchors': '/anchors',
      state: join(directory, 'state'),
      control,
      dataplane: 'none',
      ...flags,
    },
  });
  const log = createLogger({ level: 'silent', format: 'json' });
  const daemon = await startDaemon(configuration, { log, version: 'test' });
  t.after(async () => {
    await daemon.stop('the test is over');
    rmSync(directory, { recursive: true });
  });
  const client = new ControlClient(control);
  return {
    at: parseSocketAddress(daemon.listen[0]!, 53)!,
    client,
    counters: async () => (await client.status()).counters,
  };
}
