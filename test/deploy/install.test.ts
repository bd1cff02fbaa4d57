/** The install script, run in a copy of the house that holds only what it touches; no network. */
import assert from 'node:assert/strict';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { ROOT, run } from '../resolver/commands/cli.ts';

const NODE_PACKAGE = `node-linux-${process.arch}`;
const bundled = join(ROOT, 'node_modules', NODE_PACKAGE);
const skip = existsSync(bundled) ? false : `${NODE_PACKAGE} is not installed`;
const MINIMAL_ADDON = '#include <node_api.h>\nNAPI_MODULE_INIT() { (void)env; return exports; }\n';

/** A folder with the script, an addon to compile and, unless told otherwise, the Node package. */
async function house(t: TestContext, source = MINIMAL_ADDON, withNode = true): Promise<string> {
  const root = mkdtempSync(join(tmpdir(), 'holdfast-'));
  t.after(() => rmSync(root, { recursive: true }));
  for (const folder of ['deploy', 'kernel/native', 'node_modules'])
    mkdirSync(join(root, folder), { recursive: true });
  await copyFile(join(ROOT, 'deploy', 'install.mjs'), join(root, 'deploy', 'install.mjs'));
  writeFileSync(join(root, 'kernel', 'native', 'addon.c'), source);
  if (withNode) symlinkSync(bundled, join(root, 'node_modules', NODE_PACKAGE));
  return root;
}

/** Runs the script by this Node, or by another program in its place. */
const install = (root: string, environment: Record<string, string> = {}, node = process.execPath) =>
  run(node, [join(root, 'deploy', 'install.mjs')], environment, root);

test('links Node where npm scripts look, and compiles; with an empty HOME and a foreign nodedir', {
  skip,
}, async t => {
  const root = await house(t);
  const environment = { HOME: join(root, 'nobody'), npm_config_nodedir: '/usr' };
  const { code, stderr } = await install(root, environment);
  assert.deepEqual({ code, stderr }, { code: 0, stderr: '' });
  const link = join(root, 'node_modules', '.bin', 'node');
  assert.equal(readlinkSync(link), join('..', NODE_PACKAGE, 'bin', 'node'));
  assert.match((await run(link, ['--version'])).stdout, /^v24\./);
  assert.ok(existsSync(join(root, 'kernel', 'native', 'build', 'holdfast.node')));
  assert.equal((await install(root, environment)).code, 0, 'a second run is as good');
});

test('a link to another Node, or to nothing, is replaced', { skip }, async t => {
  const root = await house(t);
  const link = join(root, 'node_modules', '.bin', 'node');
  mkdirSync(join(root, 'node_modules', '.bin'));
  for (const wrong of ['/bin/false', '/nowhere']) {
    symlinkSync(wrong, link);
    assert.equal((await install(root)).code, 0);
    assert.equal(readlinkSync(link), join('..', NODE_PACKAGE, 'bin', 'node'));
    rmSync(link);
  }
});

test('no compiler: what is missing and how to get it', { skip }, async t => {
  const root = await house(t);
  const { code, stderr } = await install(root, { PATH: '/nowhere' });
  assert.equal(code, 1);
  assert.equal(
    stderr,
    'holdfast: cannot compile the native addon: no C compiler found (tried cc, gcc, clang)\n' +
      '          Install one and try again: apt-get install gcc libc6-dev\n',
  );
  assert.ok(lstatSync(join(root, 'node_modules', '.bin', 'node')).isSymbolicLink());
});

test('a header that is missing, and source that does not compile', { skip }, async t => {
  const header = await install(await house(t, '#include <linux/no-such.h>\n'));
  assert.equal(header.code, 1);
  assert.match(
    header.stderr,
    /the header linux\/no-such\.h is missing\n {10}Install the C library headers: apt-get install libc6-dev/,
  );
  const broken = await house(t, 'this is not C\n');
  const { code, stderr } = await install(broken);
  assert.equal(code, 1);
  assert.match(stderr, /the native addon did not compile: .*error/s);
  assert.equal(existsSync(join(broken, 'kernel', 'native', 'build', 'holdfast.node')), false);
});

test('without the Node package, a Node that is new enough is linked itself', { skip }, async t => {
  const root = await house(t, MINIMAL_ADDON, false);
  const { code, stderr } = await install(root);
  assert.equal(code, 0, stderr);
  assert.equal(readlinkSync(join(root, 'node_modules', '.bin', 'node')), process.execPath);
});

test('without the Node package, an old Node is refused by name', async t => {
  const old = await run('/usr/bin/node', ['--version']).catch(() => undefined);
  if (!old || Number(/^v(\d+)/.exec(old.stdout)?.[1]) >= 24) return t.skip('no older Node on this machine');
  const { code, stderr } = await install(await house(t, MINIMAL_ADDON, false), {}, '/usr/bin/node');
  assert.equal(code, 1);
  assert.match(
    stderr,
    /^holdfast: Node v\S+ is too old: Holdfast needs Node 24, .*\n {10}Install without --omit=optional/,
  );
});

test('the launcher without node_modules says what to run', async t => {
  const root = await house(t, MINIMAL_ADDON, false);
  await copyFile(join(ROOT, 'deploy', 'holdfast'), join(root, 'deploy', 'holdfast'));
  const { code, stderr } = await run(join(root, 'deploy', 'holdfast'), ['--version']);
  assert.equal(code, 1);
  assert.equal(stderr, `holdfast: ${root}/node_modules/.bin/node is missing; run 'npm ci' in ${root}\n`);
});
