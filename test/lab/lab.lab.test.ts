// The lab itself: both kernels' ways of giving back what a command did, and real ESP between two strongSwans.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { type LabKernel, type LabOptions, runInLab } from './kernel.ts';
import { layerEnvironment, locate, projectRoot } from './packages.ts';
import { countWire } from './wire.ts';
import { writeWorld } from './world.ts';

const isRoot = process.getuid?.() === 0;
const kernels: LabKernel[] = process.arch === 'x64' ? ['uml', 'machine'] : ['machine'];

async function collect(command: string[], options: LabOptions = {}) {
  const [stdout, stderr]: [Buffer[], Buffer[]] = [[], []];
  const result = await runInLab(command, {
    timeoutSeconds: 60,
    ...options,
    stdout: chunk => stdout.push(chunk),
    stderr: chunk => stderr.push(chunk),
  });
  return { ...result, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() };
}

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'holdfast-out-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

for (const kernel of kernels) {
  const skip = kernel === 'machine' && !isRoot ? 'namespaces on this kernel need root' : false;

  test(`${kernel}: status, output and errors of the command come back, its files stay inside`, {
    skip,
  }, async t => {
    const script = 'echo out; echo err >&2; echo lost > /var/tmp/holdfast-lab-file; touch "$1"; exit 7';
    const out = folder(t);
    const kept = join(out, 'kept');
    const result = await collect(['sh', '-c', script, 'sh', kept], { kernel, out });
    assert.deepEqual([result.status, result.stdout, result.stderr], [7, 'out\n', 'err\n']);
    assert.equal(readFileSync(kept, 'utf8'), '');
    assert.throws(() => readFileSync('/var/tmp/holdfast-lab-file'), /ENOENT/);
  });

  test(`${kernel}: every byte of a long output arrives`, { skip }, async () => {
    const { status, stdout } = await collect(['seq', '1', '100000'], { kernel, topology: false });
    assert.equal(status, 0);
    assert.equal(stdout, Array.from({ length: 100_000 }, (_, i) => `${i + 1}\n`).join(''));
  });

  test(`${kernel}: a command that does not end is ended, and 124 says so`, { skip }, async () => {
    const { status, stderr } = await collect(['sleep', '1000'], {
      kernel,
      timeoutSeconds: 3,
      topology: false,
    });
    assert.equal(status, 124);
    assert.match(stderr, /ended after 3 s/);
  });

  test(`${kernel}: hosts reach each other by IPv4 and IPv6, and carol through natr`, { skip }, async () => {
    const pings = [
      ['alice', '10.9.0.2'],
      ['alice', 'fd09::150'],
      ['carol', '192.168.9.1'],
    ].map(([host, address]) => `on ${host} ping -c 1 -W 5 ${address} > /dev/null && echo ${host} ${address}`);
    const { stdout } = await collect(['sh', '-c', pings.join('\n')], { kernel });
    assert.equal(stdout, 'alice 10.9.0.2\nalice fd09::150\ncarol 192.168.9.1\n');
  });
}

test('two strongSwans: a handshake with each kind of key, then only ESP on the wire', async t => {
  const out = folder(t);
  writeWorld(out);
  const node = join(projectRoot, 'node_modules/.bin/node');
  const { status, stdout, stderr } = await collect([node, 'test/lab/lab.guest.ts'], {
    out,
    timeoutSeconds: 120,
  });
  assert.equal(status, 0, stderr);
  const { initiated, wire } = JSON.parse(stdout);
  assert.deepEqual(initiated, { ed25519: 'ok', ecdsa: 'ok', rsa: 'ok' });
  assert.deepEqual(wire.clearPackets, []);
  assert.equal(wire.esp, 3 * 4, '3 keys × 2 pings × 2 directions');

  const capture = join(out, 'lab.pcap');
  for (const [kind, filter] of [
    ['esp', 'esp'],
    ['ike', 'udp port 500 or udp port 4500'],
  ] as const) {
    assert.equal(
      countWire(readFileSync(capture))[kind],
      tcpdumpCount(capture, filter),
      `${kind} as tcpdump sees it`,
    );
  }
});

/** The second opinion: how many packets of the capture tcpdump's own filter takes. */
function tcpdumpCount(capture: string, filter: string): number {
  const args = ['-Z', 'root', '-n', '-r', capture, filter]; // its own user may not exist here
  const { stdout } = spawnSync(locate('usr/bin/tcpdump')!, args, {
    encoding: 'utf8',
    env: layerEnvironment(),
  });
  return stdout.trim().split('\n').filter(Boolean).length;
}
