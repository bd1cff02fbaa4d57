/**
 * A signed tree with the names that the probe asks for, served for real: root, net (NSEC3), root-servers.net (unsigned)
 * and iana-servers.net as the public tree has them, and zones to ask about. nsd holds it, unbound recurses.
 *
 * The root's DNSKEY RRset has four RSA keys, so that it never fits into 1,232 octets.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Name } from '../../../resolver/dns/name.ts';
import { TYPE } from '../../../resolver/dns/types.ts';
import { layerEnvironment, locate } from '../../lab/packages.ts';
import { exchangeWith } from '../../rpl/validator.ts';
import { freePort } from '../free-port.ts';

const TOOLS = [
  'usr/bin/dnssec-keygen',
  'usr/bin/dnssec-signzone',
  'usr/bin/dnssec-dsfromkey',
  'usr/sbin/nsd',
  'usr/sbin/unbound',
];

/** Why the tree cannot be made on this machine; undefined when it can. */
export function missingTools(): string | undefined {
  const missing = TOOLS.filter(tool => locate(tool) === undefined);
  return missing.length === 0
    ? undefined
    : `not installed: ${missing.join(', ')} (bind9-utils, nsd, unbound)`;
}

export type Tree = {
  /** Where the recursive resolver of this tree answers, UDP and TCP, on 127.0.0.1. */
  port: number;
  /** A file with the trust anchor of the root. */
  anchorFile: string;
  anchors: string;
  directory: string;
  stop: () => Promise<void>;
};

type Zone = { name: string; lines: string[]; signed: boolean; nsec3?: boolean; keys?: string[] };

/** `check` is the address of the host that portal checks ask in this tree. */
const ZONES = (check: string): Zone[] => [
  { name: 'root-servers.net.', signed: false, lines: ['a A 198.51.100.4'] },
  { name: 'iana-servers.net.', signed: true, lines: ['a A 198.51.100.53'] },
  { name: 'unsigned.example.', signed: false, lines: ['www A 198.51.100.11'] },
  {
    name: 'signed.example.',
    signed: true,
    nsec3: true,
    lines: [
      'www A 198.51.100.10',
      'login A 198.51.100.12',
      ...Array.from({ length: 12 }, (_, i) => `big TXT "${String(i).padStart(3, '0')}${'x'.repeat(200)}"`),
    ],
  },
  { name: 'check.example.', signed: false, lines: [`@ A ${check}`] },
  { name: 'net.', signed: true, nsec3: true, lines: [] },
  { name: 'example.', signed: true, nsec3: true, lines: [] },
  { name: '.', signed: true, lines: [], keys: ['-f KSK', '-f KSK', '', ''] },
];

/** `also`: addresses on which it answers at port 53. `smallRoot`: the keys of the root fit into a datagram, as those of the public root do most of the time. */
export async function startTree({
  check = '192.0.2.80',
  smallRoot = false,
  also = [],
}: {
  check?: string;
  smallRoot?: boolean;
  also?: string[];
} = {}): Promise<Tree> {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-tree-'));
  const delegations = new Map<string, string[]>();
  const zones = ZONES(check).map(zone =>
    smallRoot && zone.name === '.' ? { ...zone, keys: ['-f KSK'] } : zone,
  );
  let anchors = '';
  for (const zone of zones) {
    const lines = [...zone.lines, ...(delegations.get(zone.name) ?? [])];
    const ds = await make(directory, { ...zone, lines });
    if (zone.name === '.') anchors = ds;
    const parent = zone.name.split('.').slice(1).join('.') || '.';
    const cut = [`${zone.name} NS ns.nic.`, ...ds.split('\n').filter(Boolean)];
    delegations.set(parent, [...(delegations.get(parent) ?? []), ...cut]);
  }
  const anchorFile = join(directory, 'anchor');
  writeFileSync(anchorFile, anchors);
  const nsdPort = await freePort('127.0.0.1');
  const nsd = start('nsd', [
    '-d',
    '-c',
    written(directory, 'nsd.conf', nsdConfig(directory, nsdPort, zones)),
  ]);
  const port = await freePort('127.0.0.1');
  const unbound = start('unbound', [
    '-d',
    '-c',
    written(directory, 'unbound.conf', recursorConfig(directory, port, nsdPort, zones, also)),
  ]);
  const stop = async () => {
    await Promise.all([ended(unbound), ended(nsd)]);
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    await answering(port, unbound);
  } catch (error) {
    await stop();
    throw error;
  }
  return { port, anchorFile, anchors, directory, stop };
}

/** Writes and signs one zone; its DS records. */
async function make(
  directory: string,
  { name, lines, signed, nsec3, keys = ['-f KSK'] }: Zone,
): Promise<string> {
  const file = fileOf(directory, name);
  const text = ['$TTL 60', '@ SOA ns.nic. host.nic. 1 3600 600 86400 60', '@ NS ns.nic.', ...lines];
  if (name === '.') text.push('ns.nic. A 127.0.0.1');
  writeFileSync(file, `$ORIGIN ${name}\n${text.join('\n')}\n`);
  if (!signed) return '';
  const made: string[] = [];
  for (const kind of keys) {
    const algorithm = keys.length > 1 ? ['-a', 'RSASHA256', '-b', '2048'] : ['-a', 'ECDSAP256SHA256'];
    const words = ['-q', '-K', directory, ...algorithm, ...kind.split(' ').filter(Boolean), name];
    made.push((await run('dnssec-keygen', words)).trim());
  }
  const form = [...(nsec3 ? ['-3', '-', '-H', '0'] : []), ...(keys.length === 1 ? ['-z'] : [])];
  await run('dnssec-signzone', [
    '-S',
    '-q',
    '-P',
    ...form,
    '-K',
    directory,
    '-d',
    directory,
    '-o',
    name,
    '-f',
    file,
    file,
  ]);
  const ksks = made.slice(0, keys.filter(kind => kind !== '').length);
  const ds = await Promise.all(
    ksks.map(key => run('dnssec-dsfromkey', ['-2', join(directory, `${key}.key`)])),
  );
  return ds.join('');
}

function nsdConfig(directory: string, port: number, zones: Zone[]): string {
  const served = zones.map(
    ({ name }) => `zone:\n  name: "${name}"\n  zonefile: "${fileOf(directory, name)}"\n`,
  );
  return `server:
  ip-address: 127.0.0.1@${port}
  username: ""
  chroot: ""
  zonesdir: "${directory}"
  pidfile: "${directory}/nsd.pid"
  database: ""
  xfrdfile: "${directory}/xfrd.state"
  zonelistfile: "${directory}/zone.list"
  rrl-ratelimit: 0
  server-count: 1
  verbosity: 0
remote-control:
  control-enable: no
${served.join('')}`;
}

/** It recurses and does not validate: a resolver as networks have them. */
function recursorConfig(
  directory: string,
  port: number,
  nsdPort: number,
  zones: Zone[],
  also: string[],
): string {
  const stubs = zones.map(({ name }) => `stub-zone:\n  name: "${name}"\n  stub-addr: 127.0.0.1@${nsdPort}\n`);
  return `server:
  interface: 127.0.0.1@${port}
${also.map(address => `  interface: ${address}@53\n`).join('')}  do-ip6: no
  username: ""
  chroot: ""
  directory: "${directory}"
  pidfile: ""
  use-syslog: no
  logfile: "/dev/null"
  num-threads: 1
  do-not-query-localhost: no
  module-config: "iterator"
  local-zone: "example." nodefault
  access-control: 0.0.0.0/0 allow
remote-control:
  control-enable: no
${stubs.join('')}`;
}

function fileOf(directory: string, zone: string): string {
  return join(directory, zone === '.' ? 'root.zone' : `${zone}zone`);
}

function written(directory: string, name: string, text: string): string {
  writeFileSync(join(directory, name), text);
  return join(directory, name);
}

async function run(program: string, words: string[]): Promise<string> {
  return (await promisify(execFile)(program, words, { env: layerEnvironment() })).stdout;
}

export function start(program: string, words: string[]): ChildProcess {
  return spawn(program, words, { stdio: ['ignore', 'ignore', 'ignore'], env: layerEnvironment() });
}

export async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = new Promise(resolve => child.once('exit', resolve));
  child.kill('SIGTERM');
  await exit;
}

async function answering(port: number, server: ChildProcess, name = 'www.signed.example.'): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    if (server.exitCode !== null) throw new Error(`${server.spawnfile} ended with ${server.exitCode}`);
    const asked = exchangeWith('127.0.0.1', port, 300)({ name: Name.parseText(name), type: TYPE.A });
    if (await asked.then(message => message.answer.length > 0).catch(() => false)) return;
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  throw new Error(`${server.spawnfile} does not answer`);
}
