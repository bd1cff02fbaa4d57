// The Debian packages the lab is made of, and how the missing ones come: downloaded by apt (signatures checked) and
// unpacked into test/.lab/layer, which the lab lays over the machine's own root file system. Nothing is installed, no
// maintainer script runs, no service starts, and no root is needed. What the machine already has is used as it is.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { fileURLToPath } from 'node:url';

export const projectRoot: string = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
/** Everything the lab keeps between runs; ignored by git, safe to delete. */
export const cacheFolder: string = join(projectRoot, 'test', '.lab');
/** Root of the file system layer that holds the unpacked packages. */
export const layerFolder: string = join(cacheFolder, 'layer');

/** A package, and one file by which it is known to be there. */
export type DebianPackage = { name: string; file: string; for: string };

/** What the lab and the tests are made of. */
export const labPackages: DebianPackage[] = [
  { name: 'user-mode-linux', file: 'usr/bin/linux.uml', for: 'a kernel with ESP that runs as a program' },
  { name: 'iproute2', file: 'usr/bin/ip', for: 'links, addresses and delays of the lab network' },
  { name: 'kmod', file: 'usr/bin/kmod', for: 'ciphers the lab kernel loads on demand' },
  { name: 'nsd', file: 'usr/sbin/nsd', for: 'the authoritative server' },
  { name: 'unbound', file: 'usr/sbin/unbound', for: 'the recursive server that Holdfast asks' },
  { name: 'bind9', file: 'usr/sbin/named', for: 'a server that takes part in DNS cookies' },
  { name: 'bind9-utils', file: 'usr/bin/dnssec-signzone', for: 'signing the zones' },
  { name: 'bind9-dnsutils', file: 'usr/bin/dig', for: 'a client' },
  { name: 'curl', file: 'usr/bin/curl', for: 'a client' },
  { name: 'iputils-ping', file: 'usr/bin/ping', for: 'a client' },
  { name: 'iptables', file: 'usr/sbin/xtables-legacy-multi', for: 'the NAT before carol' },
  { name: 'tcpdump', file: 'usr/bin/tcpdump', for: 'the captures' },
  { name: 'strongswan-charon', file: 'usr/lib/ipsec/charon', for: 'the IKEv2 peer' },
  { name: 'strongswan-swanctl', file: 'usr/sbin/swanctl', for: 'its configuration' },
  {
    name: 'libstrongswan-standard-plugins',
    file: 'usr/lib/ipsec/plugins/libstrongswan-openssl.so',
    for: 'its ciphers and keys',
  },
];

/** What `npm run bench:dns` needs besides; no test does. */
export const benchPackages: DebianPackage[] = [
  { name: 'dnsperf', file: 'usr/bin/dnsperf', for: 'the questions' },
  { name: 'dnsmasq-base', file: 'usr/sbin/dnsmasq', for: 'a resolver to compare with' },
  { name: 'knot-resolver', file: 'usr/sbin/kresd', for: 'a resolver to compare with' },
];

/** What the comparison on broken networks (test/resolver/network/compare.ts) needs besides; no test does. */
export const comparisonPackages: DebianPackage[] = [
  { name: 'systemd-resolved', file: 'usr/lib/systemd/systemd-resolved', for: 'a resolver to compare with' },
];

/** Debian packages of which neither the machine nor the layer has the file. */
function missingPackages(packages: DebianPackage[] = labPackages): string[] {
  return packages.filter(p => locate(p.file) === undefined).map(p => p.name);
}

/** Where a file (path without leading slash) is on this machine, or in the layer; undefined when in neither. */
export function locate(file: string): string | undefined {
  const names = [file, file.replace(/^usr\/bin\//, 'bin/'), file.replace(/^usr\/sbin\//, 'sbin/')];
  return names.flatMap(name => [join('/', name), join(layerFolder, name)]).find(existsSync);
}

/** Environment in which programs of the layer run on the machine itself, outside the lab; the machine's own come first. */
export function layerEnvironment(): NodeJS.ProcessEnv {
  const below = (...folders: string[]) => folders.map(folder => join(layerFolder, folder));
  const libraries = [process.env.LD_LIBRARY_PATH, ...below('usr/lib', `usr/lib/${debianTriplet()}`)].filter(
    Boolean,
  );
  const path = [process.env.PATH, '/usr/sbin', '/sbin', ...below('usr/bin', 'usr/sbin')];
  return { ...process.env, LD_LIBRARY_PATH: libraries.join(':'), PATH: path.join(':') };
}

/**
 * Makes sure every package is there; resolves when the lab can start.
 *
 * Downloads only with consent: `--yes`, the environment variable CI, or an answer at the terminal.
 * Rejects with an Error that names the packages and what to type otherwise.
 */
export async function ensurePackages(options: {
  yes?: boolean;
  progress: (line: string) => void;
  packages?: DebianPackage[]; // default: the lab's
}): Promise<void> {
  const missing = missingPackages(options.packages);
  if (missing.length === 0) return;
  if (!existsSync('/usr/bin/apt-get')) {
    throw new Error(`This needs ${missing.join(', ')}, and this machine has no apt-get to fetch them with.`);
  }
  if (!options.yes && !process.env.CI && !(await agreed(missing))) {
    throw new Error(
      `This needs these Debian packages: ${missing.join(' ')}\n` +
        '  Say --yes (or set CI=1) and they are unpacked into test/.lab; nothing is installed, no service starts.\n' +
        `  Or install them yourself: sudo apt-get install --no-install-recommends ${missing.join(' ')}`,
    );
  }
  options.progress(`fetching ${missing.length} Debian packages into test/.lab: ${missing.join(' ')}`);
  unpack(download(missing));
  const still = missingPackages(options.packages);
  if (still.length > 0) throw new Error(`These packages came without the expected files: ${still.join(' ')}`);
}

async function agreed(missing: string[]): Promise<boolean> {
  if (!process.stdin.isTTY || !process.stderr.isTTY) return false;
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await terminal.question(
    `This needs ${missing.join(', ')}.\nUnpack them into test/.lab (nothing is installed)? [y/N] `,
  );
  terminal.close();
  return /^y(es)?$/i.test(answer.trim());
}

/** Downloads the packages and those they depend on that the machine does not have; answers the folder of .deb files. */
function download(names: string[]): string {
  const lists = join(cacheFolder, 'apt', 'lists');
  const cache = join(cacheFolder, 'apt', 'cache');
  mkdirSync(join(lists, 'partial'), { recursive: true });
  mkdirSync(join(cache, 'archives', 'partial'), { recursive: true });
  const settings = {
    'Dir::State::lists': lists,
    'Dir::Cache': cache,
    'Debug::NoLocking': '1', // the locks are root's, and the machine's package state is only read
    'APT::Sandbox::User': process.getuid?.() === 0 ? 'root' : '',
  };
  const options = Object.entries(settings).flatMap(([key, value]) =>
    value ? ['-o', `${key}=${value}`] : [],
  );
  const apt = (...args: string[]) => command('apt-get', ['-q', ...options, ...args]);
  apt('update');
  apt('install', '--yes', '--no-install-recommends', '--download-only', ...names);
  return join(cache, 'archives');
}

function unpack(archives: string): void {
  const fresh = mkdtempSync(join(cacheFolder, 'unpack-'));
  for (const file of readdirSync(archives).filter(name => name.endsWith('.deb'))) {
    command('dpkg-deb', ['--extract', join(archives, file), fresh]);
  }
  // Debian's /bin, /sbin and /lib are links into /usr: real folders of those names would hide the links.
  for (const folder of ['bin', 'sbin', 'lib', 'lib64']) {
    const path = join(fresh, folder);
    if (!existsSync(path) || lstatSync(path).isSymbolicLink()) continue;
    cpSync(path, join(fresh, 'usr', folder), { recursive: true, verbatimSymlinks: true });
    rmSync(path, { recursive: true });
  }
  cpSync(fresh, layerFolder, { recursive: true, verbatimSymlinks: true });
  rmSync(fresh, { recursive: true });
  rmSync(archives, { recursive: true });
}

function command(program: string, args: string[]): void {
  const run = spawnSync(program, args, { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C.UTF-8' } });
  if (run.status === 0) return;
  const text = run.error
    ? String(run.error)
    : `${run.stdout}${run.stderr}`.trim().split('\n').slice(-8).join('\n');
  throw new Error(`${program} ${args.at(-1)} failed:\n${text}`);
}

function debianTriplet(): string {
  return process.arch === 'arm64' ? 'aarch64-linux-gnu' : 'x86_64-linux-gnu';
}
