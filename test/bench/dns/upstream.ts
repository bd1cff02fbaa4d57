// What the servers under test ask: signed zones in nsd, and an unbound before it that does not validate. Loopback only.
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../../resolver/free-port.ts';
import type { ZoneText } from '../../lab/names.ts';
import { layerEnvironment, locate } from '../../lab/packages.ts';
import { signZones } from '../../lab/zones.ts';
import { askUntilAnswered } from './ask.ts';

export type Process = { pid: number; child: ChildProcess; log: string; stop(): Promise<void> };

export type UpstreamWorld = {
  /** Where the recursive server listens, 127.0.0.1. */
  port: number;
  /** DS records of the root, in a file and as text. */
  anchorFile: string;
  anchor: string;
  stop(): Promise<void>;
};

/**
 * Signs the zones, starts both servers and waits until they answer.
 *
 * `probe` is a name with an A record; the recursive server keeps everything for at least `leastTtlSeconds`.
 */
export async function startUpstream(
  folder: string,
  zones: ZoneText[],
  { probe, cpu, leastTtlSeconds = 0 }: { probe: string; cpu?: number; leastTtlSeconds?: number },
): Promise<UpstreamWorld> {
  mkdirSync(folder, { recursive: true });
  const { served, anchor } = signZones(join(folder, 'zones'), zones);
  const anchorFile = join(folder, 'root.ds');
  writeFileSync(anchorFile, `${anchor}\n`);
  const [authority, port] = [await freePort('127.0.0.1'), await freePort('127.0.0.1')];
  const origins = served.map(({ origin }) => (origin === '.' ? '.' : `${origin}.`));
  writeFileSync(join(folder, 'nsd.conf'), nsdConfiguration(folder, authority, served));
  writeFileSync(
    join(folder, 'upstream.conf'),
    unboundConfiguration(folder, port, authority, origins, leastTtlSeconds),
  );
  const pin = cpu === undefined ? [] : ['taskset', '-c', String(cpu)];
  const nsd = launch(join(folder, 'nsd.log'), [
    ...pin,
    program('usr/sbin/nsd', 'nsd'),
    '-d',
    '-c',
    join(folder, 'nsd.conf'),
  ]);
  const unbound = launch(join(folder, 'upstream.log'), [
    ...pin,
    program('usr/sbin/unbound', 'unbound'),
    '-d',
    '-c',
    join(folder, 'upstream.conf'),
  ]);
  const stop = async () => {
    await Promise.all([unbound.stop(), nsd.stop()]);
  };
  try {
    await askUntilAnswered(authority, probe, 60_000);
    await askUntilAnswered(port, probe, 10_000);
  } catch (error) {
    await stop();
    throw new Error(`the upstream did not start: ${tail(nsd.log)}${tail(unbound.log)}`, { cause: error });
  }
  return { port, anchorFile, anchor, stop };
}

/** None outlives us. */
const running = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Starts a program; its output goes to a file, or to two. The environment is the layer's. */
export function launch(
  log: string,
  command: string[],
  environment: NodeJS.ProcessEnv = {},
  standardOutput?: string,
): Process {
  const errors = openSync(log, 'w');
  const output = standardOutput === undefined ? errors : openSync(standardOutput, 'w');
  const child = spawn(command[0]!, command.slice(1), {
    stdio: ['ignore', output, errors],
    env: { ...layerEnvironment(), ...environment },
  });
  closeSync(errors);
  if (output !== errors) closeSync(output);
  const ended = new Promise<void>(resolve => {
    child.once('exit', () => resolve());
    child.once('error', () => resolve());
  });
  const stop = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGTERM');
    const killed = sleep(5000, undefined, { ref: false }).then(() => child.kill('SIGKILL'));
    await Promise.race([ended, killed.then(() => ended)]);
  };
  running.add(child);
  child.once('exit', () => running.delete(child));
  return { pid: child.pid ?? -1, child, log, stop };
}

/** Path of a program of the machine or the layer. Throws with the Debian package to install. */
export function program(file: string, debianPackage: string): string {
  const path = locate(file);
  if (path === undefined) throw new Error(`${file} is missing (Debian package ${debianPackage})`);
  return path;
}

export function tail(log: string): string {
  return readFileSync(log, 'utf8').trim().split('\n').slice(-5).join('\n');
}

function nsdConfiguration(folder: string, port: number, served: { origin: string; file: string }[]): string {
  const list = served.map(({ origin, file }) => `zone:\n  name: "${origin}"\n  zonefile: "${file}"\n`);
  return `server:
  ip-address: 127.0.0.1@${port}
  username: ""
  zonesdir: "${join(folder, 'zones')}"
  pidfile: "${join(folder, 'nsd.pid')}"
  xfrdfile: "${join(folder, 'nsd.xfrd')}"
  zonelistfile: "${join(folder, 'nsd.zones')}"
  database: ""
  server-count: 1
remote-control:
  control-enable: no
${list.join('')}`;
}

function unboundConfiguration(
  folder: string,
  port: number,
  authority: number,
  origins: string[],
  leastTtlSeconds: number,
): string {
  const stubs = origins.map(
    origin => `stub-zone:\n  name: "${origin}"\n  stub-addr: 127.0.0.1@${authority}\n`,
  );
  return `server:
  chroot: ""
  username: ""
  directory: "${folder}"
  pidfile: "${join(folder, 'upstream.pid')}"
  use-syslog: no
  logfile: ""
  interface: 127.0.0.1@${port}
  do-ip6: no
  num-threads: 1
  do-daemonize: no
  module-config: "iterator"
  do-not-query-localhost: no
  outgoing-range: 2048
  num-queries-per-thread: 1024
  infra-host-ttl: 1
  msg-cache-size: 256m
  rrset-cache-size: 256m
  cache-min-ttl: ${leastTtlSeconds}
  local-zone: "168.192.in-addr.arpa." nodefault
remote-control:
  control-enable: no
${stubs.join('')}`;
}
