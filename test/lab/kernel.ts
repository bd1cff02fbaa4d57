// A throw-away world in a real kernel with ESP: the machine's own where that is possible, otherwise User-Mode Linux.
// One interface for both: the command runs in a root file system that is a copy-on-write view of the machine's own, with
// the hosts of topology.ts around it; its output streams back; when it ends, the world is gone.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { copyFileSync, renameSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cacheFolder, layerEnvironment, layerFolder, locate, projectRoot } from './packages.ts';
import { topologySteps } from './topology.ts';

export type LabKernel = 'machine' | 'uml';

export type LabOptions = {
  kernel?: LabKernel; // decided by chooseKernel when left out
  memory?: string; // of User-Mode Linux, "512M", "1G" (default)
  timeoutSeconds?: number; // default 300
  out?: string; // folder of the machine that is writable inside, under the same path; $LAB_OUT
  environment?: Record<string, string>;
  topology?: boolean; // false: no hosts, boots faster
  stdout?: (chunk: Buffer) => void; // default: this process's own
  stderr?: (chunk: Buffer) => void;
};

/** status: the command's exit status, 128 + signal, 124 out of time, 125 the lab itself failed. */
export type LabResult = { status: number; kernel: LabKernel; seconds: number };

/**
 * Runs a command in the lab, as root, in the lab's root namespace; `on HOST COMMAND` enters a host.
 *
 * Nothing on the machine is written except below `out`. Never rejects for what happens inside: see LabResult.
 */
export async function runInLab(command: string[], options: LabOptions = {}): Promise<LabResult> {
  const kernel = options.kernel ?? (await chooseKernel());
  const started = process.hrtime.bigint();
  const run = mkdtempSync(join(tmpdir(), 'holdfast-lab-'));
  try {
    const programs = compileGuest();
    copyFileSync(join(programs, 'init'), join(run, 'init'));
    writeFileSync(join(run, 'args'), command.map(arg => `${arg}\0`).join(''));
    writeFileSync(
      join(run, 'plan'),
      plan(kernel, run, programs, options)
        .map(line => `${line}\n`)
        .join(''),
    );
    const ended = await (kernel === 'uml' ? startUml(run, options) : startOnMachine(run, options));
    const status = ended ?? readStatus(run);
    if (status === 125 && !existsSync(join(run, 'started'))) (options.stderr ?? writeError)(bootLog(run));
    return { status, kernel, seconds: Number(process.hrtime.bigint() - started) / 1e9 };
  } finally {
    rmSync(run, { recursive: true, force: true });
  }
}

let chosen: LabKernel | undefined;

/** The machine's own kernel when we are root and it takes an ESP SA in a namespace of its own; else User-Mode Linux. */
export async function chooseKernel(): Promise<LabKernel> {
  const wish = process.env.HOLDFAST_LAB_KERNEL;
  if (wish === 'machine' || wish === 'uml') return wish;
  chosen ??= (await machineHasEsp()) ? 'machine' : 'uml';
  if (chosen === 'uml' && process.arch !== 'x64') {
    throw new Error(
      'This kernel has no ESP (or we are not root), and Debian has User-Mode Linux for amd64 only.',
    );
  }
  return chosen;
}

async function machineHasEsp(): Promise<boolean> {
  if (process.getuid?.() !== 0) return false;
  const key = `0x${'00'.repeat(20)}`;
  const sa = `ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 256 mode transport aead rfc4106(gcm(aes)) ${key} 128`;
  const silent = () => {};
  const probe: LabOptions = {
    kernel: 'machine',
    topology: false,
    timeoutSeconds: 10,
    stdout: silent,
    stderr: silent,
  };
  return (await runInLab(sa.split(' '), probe)).status === 0;
}

/** Kernel modules the lab needs, beyond what is built in; User-Mode Linux only. */
const modules = [
  'ipv6',
  'bridge',
  'veth',
  'tun',
  'xfrm_user',
  'esp4',
  'esp6',
  'sch_netem',
  'sch_tbf',
  'af_packet',
].concat([
  'gcm',
  'ghash_generic',
  'ctr',
  'cbc',
  'seqiv',
  'echainiv',
  'authenc',
  'chacha20poly1305',
  'sha512_generic',
]);

function plan(kernel: LabKernel, run: string, programs: string, options: LabOptions): string[] {
  const base = join(layerFolder, 'usr/lib/uml/modules');
  const folders = existsSync('/usr/lib/uml/modules') ? '/usr/lib/uml/modules' : base;
  const version = kernel === 'uml' ? readdirSync(folders)[0]! : '';
  const folder = join(folders, version);
  const order = (names: string[]) =>
    kernel === 'uml'
      ? moduleOrder(readFileSync(join(folder, 'modules.dep'), 'utf8'), names).map(
          path => `module ${join(folder, path)}`,
        )
      : [];
  mkdirSync(layerFolder, { recursive: true });
  const early = order(['overlay']);
  return [
    ...early,
    `root ${layerFolder}`,
    ...(kernel === 'uml' ? [`modules ${folder}`] : []),
    `keep ${projectRoot}`,
    `share ${run}`,
    ...(options.out ? [`share ${options.out}`] : []),
    ...order(modules).filter(step => !early.includes(step)),
    'enter',
    `env PATH=${programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
    `folder ${projectRoot}`,
    'env LAB=1',
    `env LAB_KERNEL=${kernel}`,
    ...(options.out ? [`env LAB_OUT=${options.out}`] : []),
    ...Object.entries(options.environment ?? {}).map(([name, value]) => `env ${name}=${value}`),
    ...(options.topology === false ? [] : topologySteps()),
  ];
}

/**
 * Paths of the named modules and all they depend on, in loading order; names not in the list are built in.
 *
 * @param dependencies text of `modules.dep`: `path/a.ko: path/b.ko path/c.ko`, each module with all its dependencies
 */
export function moduleOrder(dependencies: string, names: string[]): string[] {
  const nameOf = (path: string) => path.replace(/^.*\//, '').replace(/\.ko$/, '').replaceAll('-', '_');
  const known = new Map<string, string[]>();
  for (const line of dependencies.split('\n')) {
    const [path, ...needs] = line.split(/:?(?:\s+|$)/).filter(Boolean);
    if (path) known.set(nameOf(path), [...needs.reverse(), path]);
  }
  return [...new Set(names.flatMap(name => known.get(name) ?? []))];
}

function startUml(run: string, options: LabOptions): Promise<number | undefined> {
  const program = locate('usr/bin/linux.uml');
  if (!program) throw new Error('User-Mode Linux is missing (Debian package user-mode-linux).');
  const args = [
    `mem=${options.memory ?? '1G'}`,
    `uml_dir=${run}`,
    'umid=lab',
    'rootfstype=hostfs',
    'ro',
    `init=${join(run, 'init')}`,
    `labrun=${run}`,
    'labuml=1',
    'quiet',
    'loglevel=3',
    'random.trust_cpu=1',
    // Both save about a second of boot: measuring RAID and delay loops that nothing here uses.
    'initcall_blacklist=raid6_select_algo,raid6_init,calibrate_xor_blocks',
    'lpj=22061056',
    'con=null',
    'con0=null,fd:4',
    'con1=null,fd:1',
    'con2=null,fd:3',
  ];
  const environment = { ...layerEnvironment(), TMPDIR: memoryFolder(options.memory ?? '1G') };
  return supervise(run, [program, ...args], environment, options);
}

function startOnMachine(run: string, options: LabOptions): Promise<number | undefined> {
  const spaces = ['--mount', '--net', '--uts', '--ipc', '--pid', '--fork', '--kill-child'];
  const environment = {
    HOME: '/root',
    LANG: 'C.UTF-8',
    NO_COLOR: '1',
    TERM: 'dumb',
    PATH: process.env.PATH,
    labrun: run,
  };
  return supervise(run, ['unshare', ...spaces, join(run, 'init')], environment, options);
}

/**
 * Starts the world under coreutils `timeout`, which keeps the limit even if this process is killed.
 *
 * What it started ends when it ends, or when we do. Resolves with a status when init could not write one.
 */
function supervise(
  run: string,
  command: string[],
  environment: NodeJS.ProcessEnv,
  options: LabOptions,
): Promise<number | undefined> {
  const limit = options.timeoutSeconds ?? 300;
  const console = openSync(join(run, 'console'), 'w');
  const errors = openSync(join(run, 'errors'), 'w');
  const world = spawn('timeout', ['--kill-after=2', String(limit), ...command], {
    stdio: ['ignore', 'pipe', environment.labrun ? 'pipe' : errors, 'pipe', console],
    env: environment,
    detached: true,
  });
  closeSync(console);
  closeSync(errors);
  world.stdout?.on('data', options.stdout ?? ((chunk: Buffer) => process.stdout.write(chunk)));
  for (const stream of [world.stderr, world.stdio[3] as NodeJS.ReadableStream | null]) {
    stream?.on('data', options.stderr ?? writeError);
  }
  const end = () => {
    for (const group of [world.pid, umlProcess(run)]) {
      try {
        if (group) process.kill(-group, 'SIGKILL');
      } catch {
        // it has ended already
      }
    }
  };
  const interrupted = () => {
    end();
    rmSync(run, { recursive: true, force: true });
    process.exit(130);
  };
  process.on('exit', end);
  process.once('SIGINT', interrupted);
  process.once('SIGTERM', interrupted);
  return new Promise((resolve, reject) => {
    world.on('error', reject);
    world.on('exit', end); // threads of User-Mode Linux that outlive it keep the pipes open
    world.on('close', code => {
      end();
      process.off('exit', end);
      process.off('SIGINT', interrupted);
      process.off('SIGTERM', interrupted);
      const timedOut = !existsSync(join(run, 'status')) && (code === null || code === 124 || code === 137);
      if (timedOut) (options.stderr ?? writeError)(Buffer.from(`lab: ended after ${limit} s\n`));
      resolve(timedOut ? 124 : undefined);
    });
  });
}

/** User-Mode Linux makes a process group of its own, and says which. */
function umlProcess(run: string): number | undefined {
  const file = join(run, 'lab', 'pid');
  return existsSync(file) ? Number(readFileSync(file, 'utf8')) : undefined;
}

function readStatus(run: string): number {
  const file = join(run, 'status');
  return existsSync(file) ? Number(readFileSync(file, 'utf8')) : 125;
}

function bootLog(run: string): Buffer {
  const tail = (name: string) =>
    readFileSync(join(run, name), 'utf8').trim().split('\n').slice(-15).join('\n');
  return Buffer.from(`lab: the kernel did not come up\n${tail('errors')}\n${tail('console')}\n`);
}

/** User-Mode Linux keeps its memory in a file: in /dev/shm where that is large enough (containers often have 64 MB). */
function memoryFolder(memory: string): string {
  const wanted = Number.parseInt(memory, 10) * (memory.endsWith('G') ? 2 ** 30 : 2 ** 20);
  if (!existsSync('/dev/shm')) return tmpdir();
  const shm = statfsSync('/dev/shm');
  return shm.bavail * shm.bsize > wanted ? '/dev/shm' : tmpdir();
}

/** Compiles the C programs of guest/ once; answers the folder that holds them (it is in the PATH inside). */
function compileGuest(): string {
  const sources = join(dirname(fileURLToPath(import.meta.url)), 'guest');
  const files = readdirSync(sources).filter(name => name.endsWith('.c'));
  const hash = createHash('sha256');
  for (const file of files) hash.update(file).update(readFileSync(join(sources, file)));
  const folder = join(cacheFolder, 'bin', hash.digest('hex').slice(0, 16));
  if (existsSync(folder)) return folder;
  mkdirSync(dirname(folder), { recursive: true });
  const fresh = mkdtempSync(join(dirname(folder), 'new-'));
  for (const file of files) {
    const target = join(fresh, file.slice(0, -2));
    const cc = spawnSync('cc', ['-O2', '-Wall', '-Wextra', '-o', target, join(sources, file)], {
      encoding: 'utf8',
    });
    if (cc.status !== 0) throw new Error(`cc ${file}: ${cc.error ?? cc.stderr}`);
  }
  try {
    renameSync(fresh, folder);
  } catch {
    rmSync(fresh, { recursive: true }); // another run was faster
  }
  return folder;
}

function writeError(chunk: Buffer): void {
  process.stderr.write(chunk);
}
