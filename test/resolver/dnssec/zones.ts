/**
 * A root and zones signed for real by BIND's tools, served by nsd on loopback, for the tests of validation.
 *
 * One nsd holds all zones, so that a question to it is answered by the deepest of them, as a recursive server would.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Name } from '../../../resolver/dns/name.ts';
import { TYPE } from '../../../resolver/dns/types.ts';
import { layerEnvironment, locate } from '../../lab/packages.ts';
import { exchangeWith } from '../../rpl/validator.ts';

const run = (file: string, args: string[], options: { cwd: string }) =>
  promisify(execFile)(file, args, { ...options, env: layerEnvironment() });

const TOOLS = [
  'usr/bin/dnssec-keygen',
  'usr/bin/dnssec-signzone',
  'usr/bin/dnssec-dsfromkey',
  'usr/sbin/nsd',
];

/** Why the zones can not be made on this machine; undefined when they can. */
export function missingTools(): string | undefined {
  const missing = TOOLS.filter(tool => locate(tool) === undefined);
  return missing.length === 0
    ? undefined
    : `not installed: ${missing.join(', ')} (packages bind9-utils, nsd)`;
}

export type ZoneSpec = {
  name: string;
  algorithm: string;
  denial: 'nsec' | 'nsec3' | 'nsec3-optout' | 'nsec3-120';
  /** Records beside SOA and NS instead of the usual ones. */
  records?: string;
  /** Extra arguments for dnssec-signzone. */
  signing?: string[];
  /** Changes the signed zone file before it is served. */
  spoil?: (signed: string, unsigned: string) => string;
  /** Changes the DS that goes into the root. */
  ds?: (ds: string) => string;
};

export type World = { port: number; anchors: string; directory: string; stop: () => Promise<void> };

const SOA = '@ 3600 IN SOA ns.nic. host.nic. 1 3600 600 86400 300\n@ 3600 IN NS ns.nic.\n';

function content(zone: string): string {
  return `$ORIGIN ${zone}
$TTL 3600
${SOA}@ A 192.0.2.1
www A 192.0.2.2
www A 192.0.2.3
www AAAA 2001:db8::2
www IPSECKEY 10 0 2 . AQNRU3mG7TVTO2BkR47usntb102uFJtugbo6BSGvgqt4AQ==
mail MX 10 WWW
*.wild A 192.0.2.4
real.wild A 192.0.2.8
real.wild IPSECKEY 10 0 2 . AQNRU3mG7TVTO2BkR47usntb102uFJtugbo6BSGvgqt4AQ==
*.wildcname CNAME www
a.b.ent A 192.0.2.5
cname CNAME www
cname2 CNAME cname
cnamenx CNAME nothing
cnamewild CNAME x.wild
cnameloop CNAME cnameloop2
cnameloop2 CNAME cnameloop
cnameout CNAME www.insecure
cnamebogus CNAME www.expired.
dname DNAME target
host.target A 192.0.2.6
dot\\.ted A 192.0.2.7
insecure NS ns.nic.
child NS ns.nic.
`;
}

const INSECURE = `$TTL 3600\n${SOA}www A 192.0.2.10\n`;

/** Signs everything, starts nsd, and resolves when it answers. `directory` is removed by `stop`. */
export async function startWorld(specs: readonly ZoneSpec[]): Promise<World> {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-zones-'));
  const served: string[] = [];
  const serve = (zone: string, text: string): void => {
    const file = `${zone === '.' ? 'root' : zone.slice(0, -1)}.served`;
    writeFileSync(join(directory, file), text);
    served.push(`zone:\n  name: "${zone}"\n  zonefile: "${file}"\n`);
  };
  let root = `$TTL 3600\n${SOA}nic NS ns.nic.\nns.nic A 127.0.0.1\n`;
  for (const spec of specs) {
    if (spec.records !== undefined) {
      const text = `$ORIGIN ${spec.name}\n$TTL 3600\n${SOA}${spec.records}`;
      const { signed, ds } = await sign(directory, spec, text);
      serve(spec.name, signed);
      root += `${spec.name} NS ns.nic.\n${ds}`;
      continue;
    }
    const child = await sign(
      directory,
      { ...spec, name: `child.${spec.name}` },
      `$TTL 3600\n${SOA}www A 192.0.2.11\n`,
    );
    const { signed, unsigned, ds } = await sign(directory, spec, content(spec.name) + child.ds);
    serve(spec.name, spec.spoil?.(signed, unsigned) ?? signed);
    serve(`child.${spec.name}`, child.signed);
    serve(`insecure.${spec.name}`, INSECURE);
    root += `${spec.name} NS ns.nic.\n${spec.ds?.(ds) ?? ds}`;
  }
  const top = await sign(directory, { name: '.', algorithm: 'ECDSAP256SHA256', denial: 'nsec' }, root);
  serve('.', top.signed);
  serve('nic.', `$TTL 3600\n${SOA}ns A 127.0.0.1\n`);
  const { nsd, port } = await startNsd(directory, served);
  const stop = async (): Promise<void> => {
    await ended(nsd);
    rmSync(directory, { recursive: true, force: true });
  };
  return { port, anchors: top.ds, directory, stop };
}

/** nsd with the zones' `served` lines. A port found free may be taken before nsd has it: then another. */
export async function startNsd(
  directory: string,
  served: readonly string[],
): Promise<{ nsd: ChildProcess; port: number }> {
  for (let tries = 1; ; tries++) {
    const port = await freePort();
    writeFileSync(join(directory, 'nsd.conf'), nsdConfig(directory, port, served));
    const nsd = spawn('nsd', ['-d', '-c', join(directory, 'nsd.conf')], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: layerEnvironment(),
    });
    const complaint: string[] = [];
    nsd.stderr!.on('data', data => complaint.push(String(data)));
    try {
      await answering(port, nsd, complaint);
      return { nsd, port };
    } catch (error) {
      await ended(nsd);
      if (tries === 3) throw error;
    }
  }
}

function nsdConfig(directory: string, port: number, served: readonly string[]): string {
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

async function sign(
  directory: string,
  spec: ZoneSpec,
  text: string,
): Promise<{ signed: string; unsigned: string; ds: string }> {
  const { name, algorithm, denial, signing = [] } = spec;
  const size = algorithm.startsWith('RSA') ? ['-b', '1280'] : [];
  const cwd = { cwd: directory };
  const { stdout } = await run('dnssec-keygen', ['-q', '-a', algorithm, ...size, '-f', 'KSK', name], cwd);
  const key = stdout.trim();
  const file = `zone${name.replaceAll('/', '_')}txt`;
  writeFileSync(join(directory, file), `${text}${readFileSync(join(directory, `${key}.key`), 'utf8')}`);
  const how = {
    nsec: [],
    nsec3: ['-3', 'abcd', '-H', '0'],
    'nsec3-optout': ['-3', '-', '-A', '-H', '2'],
    'nsec3-120': ['-3', 'ab', '-H', '120'],
  };
  const args = ['-q', '-P', '-z', '-o', name, ...how[denial], ...signing, '-f', `${file}.signed`, file, key];
  await run('dnssec-signzone', args, cwd);
  const { stdout: ds } = await run('dnssec-dsfromkey', ['-2', `${key}.key`], cwd);
  return { signed: readFileSync(join(directory, `${file}.signed`), 'utf8'), unsigned: text, ds };
}

async function freePort(): Promise<number> {
  const socket = createSocket('udp4');
  await new Promise<void>(resolve => socket.bind(0, '127.0.0.1', resolve));
  const { port } = socket.address();
  await new Promise<void>(resolve => socket.close(resolve));
  return port;
}

async function answering(port: number, nsd: ChildProcess, complaint: string[]): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    if (nsd.exitCode !== null) throw new Error(`nsd ended: ${complaint.join('')}`);
    const asked = exchangeWith('127.0.0.1', port, 200)({ name: Name.root, type: TYPE.SOA });
    if (await asked.then(message => message.answer.length > 0).catch(() => false)) return;
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  throw new Error(`nsd does not answer: ${complaint.join('')}`);
}

export async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return;
  const exit = new Promise(resolve => child.once('exit', resolve));
  child.kill('SIGTERM');
  await exit;
}
