// The package's install script: puts Node 24 where npm scripts look for it, compiles the native addon, and has Node
// compile the sources, so that the first start is as quick as any.
// It runs under whatever Node the machine has, so it is plain JavaScript without imports from the project.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const modules = join(root, 'node_modules');

function fail(what, why, next) {
  console.error(`holdfast: ${what}: ${why}\n          ${next}`);
  process.exit(1);
}

/** Where the Node package of this architecture lies, and the version it holds. */
function bundledNode() {
  const name = `node-linux-${process.arch}`;
  const folder = join(modules, name);
  if (!existsSync(join(folder, 'bin', 'node'))) return undefined;
  const { version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  return { folder, name, version };
}

/** npm 9 and 10 leave out `.bin/node` when several architectures are listed as optional, so it is linked here. */
function linkNode(target, version) {
  const link = join(modules, '.bin', 'node');
  mkdirSync(dirname(link), { recursive: true });
  const present = spawnSync(link, ['--version'], { encoding: 'utf8' });
  if (present.status === 0 && present.stdout.trim() === version) return;
  rmSync(link, { force: true });
  symlinkSync(target, link);
}

function compileAddon(headers) {
  const source = join(root, 'kernel', 'native', 'addon.c');
  const folder = join(root, 'kernel', 'native', 'build');
  const target = join(folder, 'holdfast.node');
  if (!existsSync(join(headers, 'node_api.h'))) {
    fail('cannot compile the native addon', `no node_api.h in ${headers}`, 'Install again with `npm ci`.');
  }
  const compiler = ['cc', 'gcc', 'clang'].find(cc => spawnSync(cc, ['--version']).status === 0);
  if (!compiler) {
    fail(
      'cannot compile the native addon',
      'no C compiler found (tried cc, gcc, clang)',
      'Install one and try again: apt-get install gcc libc6-dev',
    );
  }
  mkdirSync(folder, { recursive: true });
  const fresh = `${target}.${process.pid}`;
  const flags = ['-O2', '-g', '-shared', '-fPIC', '-Wall', '-Wextra', '-fvisibility=hidden', `-I${headers}`];
  const run = spawnSync(compiler, [...flags, '-o', fresh, source], { encoding: 'utf8' });
  if (run.status !== 0) {
    const text = run.stderr || String(run.error ?? '');
    const missing = /fatal error: ([\w./-]+): No such file/.exec(text)?.[1];
    fail(
      'the native addon did not compile',
      missing ? `the header ${missing} is missing` : text.trim(),
      missing
        ? 'Install the C library headers: apt-get install libc6-dev linux-libc-dev'
        : `compiler: ${compiler}`,
    );
  }
  renameSync(fresh, target);
}

/**
 * Fills the compile cache that `deploy/holdfast` uses. Node keeps one for each user: who starts Holdfast as another one
 * has the first start fill his. A failure costs nothing but that, so it is no failure of the installation.
 */
function compileSources() {
  const main = join(root, 'resolver', 'main.ts');
  if (!existsSync(main)) return;
  const daemon = ['commands/up.ts', 'daemon/daemon.ts'].map(file => join(root, 'resolver', file));
  const loadDaemon = `for (const file of ${JSON.stringify(daemon)}) await import(file)`;
  const env = { ...process.env, NODE_COMPILE_CACHE: join(modules, '.cache', 'holdfast') };
  for (const words of [
    [main, '--version'],
    ['--input-type=module', '--eval', loadDaemon],
  ]) {
    spawnSync(join(modules, '.bin', 'node'), words, { env, stdio: 'ignore' });
  }
}

const bundled = bundledNode();
if (bundled) {
  linkNode(join('..', bundled.name, 'bin', 'node'), `v${bundled.version}`);
  compileAddon(join(bundled.folder, 'include', 'node'));
} else if (Number(process.versions.node.split('.')[0]) >= 24) {
  // Installed without the optional packages, by a Node that is new enough: that one is used.
  linkNode(process.execPath, process.version);
  compileAddon(join(dirname(process.execPath), '..', 'include', 'node'));
} else {
  fail(
    `Node ${process.version} is too old`,
    `Holdfast needs Node 24, and the package node-linux-${process.arch} that brings it was not installed`,
    'Install without --omit=optional, or install Node 24 or newer yourself.',
  );
}
compileSources();
