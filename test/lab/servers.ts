// Inside the lab: starts and stops the servers of a world (see world.ts), each on its host, and waits until it serves.
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { ControlClient } from '../../resolver/control/client.ts';
import { projectRoot } from './packages.ts';

const execute = promisify(execFile);

/** A running server or capture. */
export type Server = { pid: number; log: string; stop(signal?: NodeJS.Signals): Promise<number | undefined> };

/** The daemon, and its control socket as seen from outside its host. */
export type Holdfast = Server & { control: ControlClient };

export type Outcome = { status: number; stdout: string; stderr: string };

/** Runs a command on a host to its end. Never rejects; a status other than 0 is for the caller to judge. */
export async function on(host: string, command: string[], environment?: NodeJS.ProcessEnv): Promise<Outcome> {
  try {
    const options = { env: { ...process.env, ...environment }, maxBuffer: 64 * 1024 * 1024 };
    const { stdout, stderr } = await execute('on', [host, ...command], options);
    return { status: 0, stdout, stderr };
  } catch (error) {
    const failure = error as { code?: number; stdout?: string; stderr?: string; message: string };
    const status = typeof failure.code === 'number' ? failure.code : 1;
    return { status, stdout: failure.stdout ?? '', stderr: failure.stderr || failure.message };
  }
}

/** nsd on 10.9.0.53 and unbound on 10.9.0.54, both on the host dns. */
export async function startDns(world: string): Promise<Server[]> {
  const nsd = launch(world, 'nsd', ['on', 'dns', 'nsd', '-d', '-c', join(world, 'nsd.conf')]);
  const unbound = launch(world, 'unbound', ['on', 'dns', 'unbound', '-d', '-c', join(world, 'unbound.conf')]);
  for (const [server, address] of [
    [nsd, '10.9.0.53'],
    [unbound, '10.9.0.54'],
  ] as const) {
    const ask = ['dig', `@${address}`, '+tries=1', '+time=2', '+short', 'ns.example', 'A'];
    await until(server, async () => (await on('dns', ask)).stdout.includes('10.9.0.53'));
  }
  return [nsd, unbound];
}

/** charon on a host, with the connections of WORLD/HOST/swanctl loaded. */
export async function startStrongSwan(world: string, host: string): Promise<Server> {
  const folder = join(world, host);
  const server = launch(world, `charon-${host}`, ['on', host, '/usr/lib/ipsec/charon'], {
    STRONGSWAN_CONF: join(folder, 'strongswan.conf'),
  });
  await until(server, () => existsSync(`/proc/${server.pid}/root/run/charon.vici`));
  const load = await swanctl(world, host, '--load-all');
  if (load.status !== 0) throw new Error(`swanctl --load-all on ${host}:\n${load.stdout}${load.stderr}`);
  return server;
}

export function swanctl(world: string, host: string, ...args: string[]): Promise<Outcome> {
  const folder = join(world, host);
  return on(host, ['swanctl', ...args], {
    STRONGSWAN_CONF: join(folder, 'strongswan.conf'),
    SWANCTL_DIR: join(folder, 'swanctl'),
  });
}

/** Holdfast on a host, by WORLD/HOST.yaml; the host's resolv.conf names it once it answers. */
export async function startHoldfast(world: string, host: string, flags: string[] = []): Promise<Holdfast> {
  const command = [
    join(projectRoot, 'deploy', 'holdfast'),
    'up',
    '--config',
    join(world, `${host}.yaml`),
    ...flags,
  ];
  const server = launch(world, `holdfast-${host}`, ['on', host, ...command]);
  const process = `/proc/${server.pid}`;
  const socket = `${process}/root/run/holdfast/control.sock`;
  const serves = (protocol: 'udp' | 'tcp') =>
    readFileSync(`${process}/net/${protocol}`, 'utf8').includes('0100007F:0035');
  await until(server, () => existsSync(socket) && serves('udp') && serves('tcp'), 60);
  writeFileSync(`/run/hosts/${host}/resolv.conf`, 'nameserver 127.0.0.1\noptions timeout:5 attempts:1\n');
  return { ...server, control: new ControlClient(socket) };
}

/** A short-lived command of Holdfast that speaks to the daemon on that host. */
export function holdfast(world: string, host: string, ...args: string[]): Promise<Outcome> {
  const command = [join(projectRoot, 'deploy', 'holdfast'), ...args, '--config', join(world, `${host}.yaml`)];
  return on(host, command);
}

/** The echo service of guest/connect.c on a host, TCP and UDP, both families. */
export async function startEcho(world: string, host: string, port: number): Promise<Server> {
  const server = launch(world, `echo-${host}`, ['on', host, 'connect', 'serve', String(port)]);
  await until(server, () => readFileSync(server.log, 'utf8').includes('serving'));
  return server;
}

/** Captures what passes a host's port of the bridge, into WORLD/NAME.pcap, until stopped. */
export async function startCapture(
  world: string,
  host: string,
  name: string,
): Promise<Server & { file: string }> {
  const file = join(world, `${name}.pcap`); // by standard output: tcpdump gives a file away, which only root may
  const options = [
    '-Z',
    'root',
    '-n',
    '-U',
    '--immediate-mode',
    '-s',
    '200',
    '-B',
    '8192',
    '-i',
    `w-${host}`,
  ];
  const server = launch(world, `capture-${name}`, ['tcpdump', ...options, '-w', '-'], {}, file);
  await until(server, () => readFileSync(server.log, 'utf8').includes('listening on'));
  return { ...server, file };
}

/** Sets the delay of one direction of a host's link; two links with `millis` each make a round trip of 2 × millis. */
export async function setDelay(host: string, millis: number): Promise<void> {
  const netem =
    millis > 0 ? ['replace', 'dev', `w-${host}`, 'root', 'netem', 'delay', `${millis}ms`] : undefined;
  await execute('tc', ['qdisc', ...(netem ?? ['del', 'dev', `w-${host}`, 'root'])]).catch(error => {
    if (netem) throw error; // there was none to take away
  });
}

/** Starts a server; what it says goes to WORLD/NAME.log, its standard output to another file if one is given. */
function launch(
  world: string,
  name: string,
  command: string[],
  environment: NodeJS.ProcessEnv = {},
  outputFile?: string,
): Server {
  const log = join(world, `${name}.log`);
  const errors = openSync(log, 'w');
  const output = outputFile === undefined ? errors : openSync(outputFile, 'w');
  const child = spawn(command[0]!, command.slice(1), {
    stdio: ['ignore', output, errors],
    env: { ...process.env, ...environment },
  });
  closeSync(errors);
  if (output !== errors) closeSync(output);
  running.set(child.pid!, child);
  const stop = (signal: NodeJS.Signals = 'SIGTERM') => ended(child, () => child.kill(signal));
  return { pid: child.pid!, log, stop };
}

const running = new Map<number, ChildProcess>();

/** Ends what still runs, in reverse order of starting. */
export async function stopAll(): Promise<void> {
  for (const child of [...running.values()].reverse()) await ended(child, () => child.kill('SIGTERM'));
}

function ended(child: ChildProcess, end: () => void): Promise<number | undefined> {
  running.delete(child.pid!);
  if (child.exitCode !== null || child.signalCode !== null)
    return Promise.resolve(child.exitCode ?? undefined);
  return new Promise(resolve => {
    const force = setTimeout(() => child.kill('SIGKILL'), 10_000);
    child.on('exit', code => {
      clearTimeout(force);
      resolve(code ?? undefined);
    });
    end();
  });
}

/** Waits until a server is ready; rejects with the end of its log when it has ended or the time is over. */
async function until(server: Server, ready: () => boolean | Promise<boolean>, seconds = 30): Promise<void> {
  const limit = Date.now() + seconds * 1000;
  while (Date.now() < limit) {
    const child = running.get(server.pid);
    if (!child || child.exitCode !== null || child.signalCode !== null) break;
    if (await ready()) return;
    await sleep(30);
  }
  const tail = readFileSync(server.log, 'utf8').trim().split('\n').slice(-10).join('\n');
  throw new Error(`${server.log} did not get ready within ${seconds} s:\n${tail}`);
}
