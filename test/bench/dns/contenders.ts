// The resolvers that are compared: each a validating forwarder on 127.0.0.1 with its defaults, cache sizes apart.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { stringify } from 'yaml';
import { ControlClient } from '../../../resolver/control/client.ts';
import { layerEnvironment, layerFolder, locate, projectRoot } from '../../lab/packages.ts';
import { launch, type Process, program } from './upstream.ts';

export type Place = {
  /** An empty folder of its own. */
  folder: string;
  port: number;
  upstreamPort: number;
  anchorFile: string;
  /** DS record of the root as text. */
  anchor: string;
  cpu?: number;
};

export type Contender = {
  name: string;
  /** Version, or why it cannot run here. */
  version(): string;
  missing(): string | undefined;
  start(place: Place): Process;
};

const holdfast: Contender = {
  name: 'Holdfast',
  version: () => {
    const commit = spawnSync('git', ['describe', '--always', '--dirty'], {
      cwd: projectRoot,
      encoding: 'utf8',
    });
    return `${commit.stdout?.trim() || 'no commit'}, Node ${process.versions.node}`;
  },
  missing: () => undefined,
  start(place) {
    writeHoldfastConfiguration(place, [`127.0.0.1:${place.upstreamPort}`]);
    const file = join(place.folder, 'holdfast.yaml');
    return start(place, [join(projectRoot, 'deploy', 'holdfast'), 'up', '--config', file]);
  },
};

/** Without the kernel's ESP, so that it runs anywhere; each question still asks for the name's key. */
export function writeHoldfastConfiguration(
  place: Omit<Place, 'upstreamPort' | 'anchor'>,
  upstream: string[],
): void {
  mkdirSync(place.folder, { recursive: true });
  const configuration = {
    listen: [`127.0.0.1:${place.port}`],
    upstream,
    'trust-anchors': place.anchorFile,
    identity: { name: 'bench.example' },
    control: controlPath(place),
    state: join(place.folder, 'state'),
    dataplane: 'none',
  };
  writeFileSync(join(place.folder, 'holdfast.yaml'), stringify(configuration));
}

const controlPath = ({ folder }: Pick<Place, 'folder'>) => join(folder, 'control.sock');

/** The daemon's counters, of a Holdfast started at that place. */
export async function holdfastCounters(place: Pick<Place, 'folder'>): Promise<Record<string, number>> {
  return (await new ControlClient(controlPath(place)).status()).counters;
}

const unbound: Contender = {
  name: 'unbound',
  version: () => firstMatch('usr/sbin/unbound', ['-V'], /Version (\S+)/),
  missing: () => lacks('usr/sbin/unbound', 'unbound'),
  start(place) {
    const { folder, port, upstreamPort, anchorFile } = place;
    const text = `server:
  chroot: ""
  username: ""
  directory: "${folder}"
  pidfile: "${join(folder, 'pid')}"
  use-syslog: no
  logfile: ""
  interface: 127.0.0.1@${port}
  num-threads: 1
  do-daemonize: no
  do-not-query-localhost: no
  trust-anchor-file: "${anchorFile}"
  trust-anchor-signaling: no
  msg-cache-size: 64m
  rrset-cache-size: 128m
remote-control:
  control-enable: no
forward-zone:
  name: "."
  forward-addr: 127.0.0.1@${upstreamPort}
`;
    writeFileSync(join(folder, 'unbound.conf'), text);
    return start(place, [program('usr/sbin/unbound', 'unbound'), '-d', '-c', join(folder, 'unbound.conf')]);
  },
};

const dnsmasq: Contender = {
  name: 'dnsmasq',
  version: () => firstMatch('usr/sbin/dnsmasq', ['--version'], /version (\S+)/),
  missing: () => lacks('usr/sbin/dnsmasq', 'dnsmasq-base'),
  start(place) {
    const [, keyTag, algorithm, digestType, ...digest] = /DS\s+(\d+)\s+(\d+)\s+(\d+)\s+(.*)/.exec(
      place.anchor,
    )!;
    const flags = {
      'conf-file': '/dev/null',
      port: place.port,
      'listen-address': '127.0.0.1',
      server: `127.0.0.1#${place.upstreamPort}`,
      'trust-anchor': `.,${keyTag},${algorithm},${digestType},${digest.join('').replaceAll(/\s/g, '')}`,
      'cache-size': 200_000,
      'dns-forward-max': 2000,
      'pid-file': join(place.folder, 'pid'),
    };
    const words = [
      'keep-in-foreground',
      'no-resolv',
      'no-hosts',
      'bind-interfaces',
      'dnssec',
      'log-facility=-',
    ];
    const named = Object.entries(flags).map(([flag, value]) => `--${flag}=${value}`);
    const user = process.getuid?.() === 0 ? ['--user=root'] : [];
    const command = program('usr/sbin/dnsmasq', 'dnsmasq-base');
    return start(place, [command, ...words.map(word => `--${word}`), ...named, ...user]);
  },
};

const kresd: Contender = {
  name: 'kresd',
  version: () => firstMatch('usr/sbin/kresd', ['--version'], /version (\S+)/),
  missing: () =>
    lacks('usr/sbin/kresd', 'knot-resolver') ??
    (spawnSync('unshare', [...asInstalled(), 'true']).status === 0
      ? undefined
      : 'kresd has its paths compiled in, and this user may not lay the unpacked package over /usr'),
  start(place) {
    const { folder, port, upstreamPort, anchor } = place;
    const text = `net.ipv6 = false
net.listen('127.0.0.1', ${port})
cache.open(256 * MB, 'lmdb://${join(folder, 'cache')}')
trust_anchors.add('${anchor.split('\n')[0]}')
policy.add(policy.all(policy.FORWARD({'127.0.0.1@${upstreamPort}'})))
`;
    writeFileSync(join(folder, 'kresd.conf'), text);
    const command = ['kresd', '--noninteractive', '--config', join(folder, 'kresd.conf'), folder];
    return start(place, existsSync('/usr/sbin/kresd') ? command : ['unshare', ...asInstalled(), ...command]);
  },
};

export const contenders: Contender[] = [holdfast, unbound, dnsmasq, kresd];

/** Arguments of unshare(1) under which what follows sees the unpacked packages as if they were installed. */
function asInstalled(): string[] {
  const root = process.getuid?.() === 0 ? [] : ['--map-root-user'];
  const script = `mount -t overlay -o lowerdir=${layerFolder}/usr:/usr none /usr && exec "$@"`;
  return ['--mount', ...root, 'sh', '-c', script, 'sh'];
}

function start(place: Place, command: string[]): Process {
  mkdirSync(place.folder, { recursive: true });
  const pin = place.cpu === undefined ? [] : ['taskset', '-c', String(place.cpu)];
  return launch(join(place.folder, 'log'), [...pin, ...command]);
}

function lacks(file: string, debianPackage: string): string | undefined {
  return locate(file) ? undefined : `not here (Debian package ${debianPackage})`;
}

function firstMatch(file: string, args: string[], pattern: RegExp): string {
  const path = locate(file);
  if (path === undefined) return 'missing';
  const run = spawnSync(path, args, {
    encoding: 'utf8',
    env: { ...layerEnvironment(), PATH: dirname(path) },
  });
  return pattern.exec(`${run.stdout}${run.stderr}`)?.[1] ?? 'unknown';
}
