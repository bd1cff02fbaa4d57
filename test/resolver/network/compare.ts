/**
 * Holdfast, unbound and systemd-resolved on the same broken networks: `node test/resolver/network/compare.ts [--yes]`.
 *
 * Root, in namespaces of its own; prints the table that RESULTS.md keeps. Each resolver starts anew, with an empty
 * cache, behind each middlebox, and is asked for a signed name, an unsigned one and one that does not exist, by a client
 * that waits 8 s.
 */
import { spawn, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { comparisonPackages, ensurePackages, layerEnvironment, locate } from '../../lab/packages.ts';
import { freePort } from '../free-port.ts';
import { type Heard, ask } from './ask.ts';
import { KINDS, startMiddlebox } from './middlebox.ts';
import { startHoldfast } from './running.ts';
import { ended, start, startTree, type Tree } from './tree.ts';

const WAIT_MILLIS = 8000;
const RESOLVED = 'usr/lib/systemd/systemd-resolved';
/** These networks break something that only shows when the keys of the root are small. */
const SMALL_ROOT = ['TCP filtered'];

type Contender = {
  name: string;
  start: (upstream: number, tree: Tree, directory: string) => Promise<Started>;
};
type Started = {
  at: { address: string; port: number };
  note?: () => Promise<string>;
  stop: () => Promise<void>;
};

if (process.env.HOLDFAST_COMPARE === undefined) {
  await ensurePackages({
    yes: process.argv.includes('--yes'),
    progress: console.error,
    packages: comparisonPackages,
  });
  const inner = spawnSync('unshare', ['-n', '-m', process.execPath, fileURLToPath(import.meta.url)], {
    stdio: 'inherit',
    env: { ...process.env, HOLDFAST_COMPARE: '1' },
  });
  process.exit(inner.status ?? 1);
}

for (const words of [
  ['link', 'set', 'lo', 'up'],
  ['address', 'add', '10.0.0.1/32', 'dev', 'lo'],
  // systemd-resolved asks nobody while there is no link but loopback.
  ['link', 'add', 'one', 'type', 'veth', 'peer', 'name', 'two'],
  ['link', 'set', 'one', 'up'],
  ['link', 'set', 'two', 'up'],
  ['address', 'add', '192.0.2.7/24', 'dev', 'one'],
  ['route', 'add', 'default', 'via', '192.0.2.1'],
])
  succeed('ip', words);

const contenders: Contender[] = [
  { name: 'Holdfast', start: startOurs },
  { name: 'unbound', start: startUnbound },
  { name: 'resolved `yes`', start: (...all) => startResolved('yes', ...all) },
  { name: 'resolved `allow-downgrade`', start: (...all) => startResolved('allow-downgrade', ...all) },
];
const world = mkdtempSync(join(tmpdir(), 'holdfast-compare-'));
let portalStands = false;
const web = createServer((_, response) => {
  if (portalStands) response.writeHead(302, { location: 'http://login.hotel.example/' }).end();
  else response.writeHead(204).end();
});
web.listen(80, '10.0.0.1');
await once(web, 'listening');
const trees = { large: await startTree(), small: await startTree({ smallRoot: true }) };
const versions = [
  version('unbound', ['-V']),
  locate(RESOLVED) ? version(locate(RESOLVED)!, ['--version']) : 'no systemd-resolved',
];
console.log(
  `Measured with ${versions.join(', ')}; each cell: signed, unsigned, absent name (seconds of the slowest).\n`,
);
console.log(`| network | ${contenders.map(({ name }) => name).join(' | ')} | what Holdfast says | probe |`);
console.log(`|---|${contenders.map(() => '---|').join('')}---|---|`);
for (const kind of Object.keys(KINDS)) {
  portalStands = kind.startsWith('portal');
  const tree = SMALL_ROOT.includes(kind) ? trees.small : trees.large;
  const cells: string[] = [];
  let said = ' | ';
  for (const contender of contenders) {
    const box = await startMiddlebox(tree.port, kind);
    const started = await contender.start(box.port, tree, world);
    const names = ['www.signed.example', 'www.unsigned.example', 'nothing.signed.example'];
    const [signed, unsigned, absent] = await Promise.all(
      names.map(name => ask(started.at, name, 'A', WAIT_MILLIS)),
    );
    const slowest = Math.max(signed!.millis, unsigned!.millis, absent!.millis);
    const cell = `${told(signed!, '198.51.100.10', true)}, ${told(unsigned!, '198.51.100.11', false)}, ${toldAbsent(absent!)}`;
    cells.push(`${cell} (${(slowest / 1000).toFixed(1)})`);
    if (started.note) said = await started.note();
    await started.stop();
    await box.close();
  }
  console.log(`| ${kind} | ${cells.join(' | ')} | ${said} |`);
}
web.close();
await Promise.all([trees.large.stop(), trees.small.stop()]);
rmSync(world, { recursive: true, force: true });

/** `ok` is what a validating resolver says in a network that lets it. */
function told(heard: Heard, right: string, signed: boolean): string {
  if (heard.rcode === 'silence') return '>8 s';
  const data = heard.data.join(' ');
  if (heard.rcode !== 'NOERROR') return data === '' ? heard.rcode : `${heard.rcode} **with ${data}**`;
  if (data === '') return '**empty**';
  if (data !== right) return `**${data}**`;
  return signed && !heard.ad ? '**unvalidated**' : 'ok';
}

function toldAbsent(heard: Heard): string {
  if (heard.rcode === 'NXDOMAIN' && heard.data.length === 0) return heard.ad ? 'ok' : '**unvalidated**';
  return told(heard, '', true);
}

/** Without sealing, as the others are: an answer that has to be sealed asks for more than they can be asked. */
async function startOurs(upstream: number, tree: Tree): Promise<Started> {
  const running = await startHoldfast({
    upstream: `127.0.0.1:${upstream}`,
    'trust-anchors': tree.anchorFile,
    'policy-default': 'clear',
    'portal-check': 'http://check.example/',
  });
  await running.until(({ state, nextProbeInMs }) => state === 'carries' || nextProbeInMs !== undefined);
  const note = async () => {
    const { network } = await running.status();
    const portal = network.portal === undefined ? '' : ` log in at ${network.portal.login};`;
    return `${network.state}:${portal} ${network.text}; ${network.doing} | ${((network.probeMs ?? 0) / 1000).toFixed(1)} s`;
  };
  return { at: running.at, note, stop: running.stop };
}

async function startUnbound(upstream: number, tree: Tree, directory: string): Promise<Started> {
  const port = await freePort('127.0.0.1');
  const file = join(directory, 'unbound.conf');
  writeFileSync(
    file,
    `server:
  interface: 127.0.0.1@${port}
  do-ip6: no
  username: ""
  chroot: ""
  directory: "${directory}"
  pidfile: ""
  use-syslog: no
  logfile: "/dev/null"
  do-not-query-localhost: no
  module-config: "validator iterator"
  trust-anchor-file: "${tree.anchorFile}"
  local-zone: "example." nodefault
remote-control:
  control-enable: no
forward-zone:
  name: "."
  forward-addr: 127.0.0.1@${upstream}
`,
  );
  const unbound = start('unbound', ['-d', '-c', file]);
  const at = { address: '127.0.0.1', port };
  await listening(at);
  return { at, stop: () => ended(unbound) };
}

/** With /etc and /run of its own, and the user that it changes to. */
async function startResolved(
  mode: string,
  upstream: number,
  tree: Tree,
  directory: string,
): Promise<Started> {
  const program = locate(RESOLVED)!;
  const etc = join(directory, 'etc');
  if (!existsSync(etc)) {
    cpSync('/etc', etc, {
      recursive: true,
      verbatimSymlinks: true,
      filter: path => !path.startsWith('/etc/ssl'),
    });
    for (const [file, line] of [
      ['passwd', 'systemd-resolve:x:992:992::/:/usr/sbin/nologin'],
      ['group', 'systemd-resolve:x:992:'],
    ] as const) {
      const path = join(etc, file);
      writeFileSync(path, `${readFileSync(path, 'utf8').replace(/^systemd-resolve:.*\n/m, '')}${line}\n`);
    }
    mkdirSync(join(etc, 'dnssec-trust-anchors.d'), { recursive: true });
    mkdirSync(join(etc, 'systemd'), { recursive: true });
    succeed('mount', ['--bind', etc, '/etc']);
    succeed('mount', ['-t', 'tmpfs', 'tmpfs', '/run']);
    mkdirSync('/run/systemd/resolve', { recursive: true });
    succeed('chown', ['992:992', '/run/systemd/resolve']);
  }
  const settings = [
    `DNS=127.0.0.1:${upstream}`,
    `DNSSEC=${mode}`,
    'LLMNR=no',
    'MulticastDNS=no',
    'Domains=~.',
    'FallbackDNS=',
  ];
  writeFileSync('/etc/systemd/resolved.conf', `[Resolve]\n${settings.join('\n')}\n`);
  writeFileSync('/etc/dnssec-trust-anchors.d/root.positive', tree.anchors);
  const resolved = spawn(program, { stdio: 'ignore', env: layerEnvironment() });
  const at = { address: '127.0.0.53', port: 53 };
  await listening(at);
  return { at, stop: () => ended(resolved) };
}

/** Until it answers anything, be it an error: a question of class IN for the name localhost needs no network. */
async function listening(at: { address: string; port: number }): Promise<void> {
  for (let tries = 0; tries < 60; tries++) {
    if ((await ask(at, 'localhost', 'A', 100)).rcode !== 'silence') return;
  }
  throw new Error(`nobody answers at ${at.address}:${at.port}`);
}

function succeed(program: string, words: string[]): void {
  const run = spawnSync(program, words, { encoding: 'utf8' });
  if (run.status !== 0) throw new Error(`${program} ${words.join(' ')}: ${run.stderr}`);
}

function version(program: string, words: string[]): string {
  const run = spawnSync(program, words, { encoding: 'utf8', env: layerEnvironment() });
  return (
    /^(Version \S+|systemd \d+ \(\S+\))/m.exec(run.stdout)?.[1]?.replace('Version', 'unbound') ?? program
  );
}
