/** From network to network without a restart: resolvers that the system names, in files that come, go and are replaced. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import type { SocketAddress } from '../../../resolver/address.ts';
import { NetworkChanges } from '../../../resolver/network/changes.ts';
import { ResolverFiles } from '../../../resolver/network/resolver-files.ts';
import { parseResolvConf } from '../../../resolver/upstream/resolv-conf.ts';
import { readFileSync } from 'node:fs';
import { inOwnNamespace, ip } from '../../kernel/namespace.ts';
import { until } from '../until.ts';
import { ask } from './ask.ts';
import { startHoldfast } from './running.ts';
import { missingTools, startTree } from './tree.ts';

function watched(folder: string, names: string[]) {
  const paths = names.map(name => join(folder, name));
  const read = (): SocketAddress[] => {
    for (const path of paths) {
      try {
        const servers = parseResolvConf(readFileSync(path, 'utf8'), { listen: [] });
        if (servers.length > 0) return servers;
      } catch {}
    }
    return [];
  };
  const seen: string[] = [];
  const files = new ResolverFiles({
    paths,
    read,
    known: read(),
    changed: servers => seen.push(servers.map(({ address }) => address).join(' ')),
  });
  return { files, seen, last: (text: string) => until(() => seen.at(-1) === text) };
}

test('files replaced, linked elsewhere, written, removed: what they name is told when it changes, and only then', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-files-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const at = (name: string) => join(folder, name);
  const replace = (name: string, text: string) => {
    writeFileSync(at(`${name}.new`), text);
    renameSync(at(`${name}.new`), at(name));
  };
  mkdirSync(at('run'));
  writeFileSync(at('first.conf'), 'nameserver 192.0.2.1\n');
  const { files, seen, last } = watched(folder, ['first.conf', 'run/second.conf', 'later/third.conf']);
  t.after(() => files.close());

  replace('first.conf', 'nameserver 192.0.2.2\n');
  await last('192.0.2.2');
  replace('first.conf', '# another hand\nnameserver 192.0.2.2\n');
  writeFileSync(at('first.conf'), 'nameserver 192.0.2.3\n');
  await last('192.0.2.3');
  assert.deepEqual(seen, ['192.0.2.2', '192.0.2.3'], 'what names the same is no change');

  // As resolvconf and systemd-resolved do: the name becomes a link to a file elsewhere, which is then replaced there.
  writeFileSync(at('run/managed.conf'), 'nameserver 192.0.2.4\n');
  unlinkSync(at('first.conf'));
  symlinkSync('run/managed.conf', at('first.conf'));
  await last('192.0.2.4');
  replace('run/managed.conf', 'nameserver 192.0.2.5\n');
  await last('192.0.2.5');

  // The first names nobody any more: the second counts.
  writeFileSync(at('run/second.conf'), 'nameserver 192.0.2.6\n');
  replace('first.conf', 'nameserver localhost\n');
  await last('192.0.2.6');

  // A directory that comes later; told by whatever happens next.
  unlinkSync(at('run/second.conf'));
  await last('');
  mkdirSync(at('later'));
  writeFileSync(at('later/third.conf'), 'nameserver 192.0.2.7\n');
  files.touched();
  await last('192.0.2.7');
  replace('later/third.conf', 'nameserver 192.0.2.8\n');
  await last('192.0.2.8');

  // A directory that is removed and made again is another one.
  rmSync(at('later'), { recursive: true });
  await last('');
  mkdirSync(at('later'));
  writeFileSync(at('later/third.conf'), 'nameserver 192.0.2.9\n');
  files.touched();
  await last('192.0.2.9');
  replace('later/third.conf', 'nameserver 192.0.2.10\n');
  await last('192.0.2.10');
  const before = seen.length;
  files.close();
  replace('first.conf', 'nameserver 192.0.2.11\n');
  await new Promise(resolve => setTimeout(resolve, 400));
  assert.equal(seen.length, before, 'closed');
});

test('of the kernel’s events only those count that may mean another network', () => {
  const own = Uint8Array.of(192, 0, 2, 7);
  const other = Uint8Array.of(192, 0, 2, 8);
  const gateway = Uint8Array.of(192, 0, 2, 1);
  const changes = new NetworkChanges([own]);
  const address = (bytes: Uint8Array, present: boolean) =>
    changes.observe({ kind: 'address', index: 2, address: bytes, present });
  const link = (running: boolean) => changes.observe({ kind: 'link', index: 2, running });
  const route = (present: boolean) => changes.observe({ kind: 'defaultRoute', index: 2, gateway, present });
  assert.equal(address(own, true), undefined, 'its lifetime was renewed');
  assert.equal(address(other, true), 'an address came');
  assert.equal(address(other, true), undefined);
  assert.equal(address(other, false), 'an address went');
  assert.equal(address(other, false), undefined);
  assert.equal(link(true), undefined, 'told of for the first time');
  assert.equal(link(true), undefined, 'its statistics, its name');
  assert.equal(link(false), 'a link went down');
  assert.equal(link(true), 'a link came up');
  assert.equal(route(false), 'the default route changed', 'one that was there from the start');
  assert.equal(route(true), 'the default route changed');
  assert.equal(route(true), undefined);
  assert.equal(route(false), 'the default route changed');
  assert.equal(route(true), 'the default route changed');
  link(false);
  link(true);
  assert.equal(route(true), 'the default route changed', 'by the same gateway, but perhaps another’s');
  assert.equal(changes.observe({ kind: 'overflow' }), 'events of the kernel were lost');
});

if (inOwnNamespace(import.meta.url, missingTools)) {
  test('a new resolv.conf, NetworkManager’s and systemd-resolved’s resolvers, a new address: taken up without a restart', async t => {
    // A /etc and a /run of our own; the namespace of mounts ends with this process.
    const folder = mkdtempSync(join(tmpdir(), 'holdfast-roaming-'));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    const etc = join(folder, 'etc');
    mkdirSync(etc);
    for (const file of ['passwd', 'group', 'nsswitch.conf', 'hosts'])
      cpSync(join('/etc', file), join(etc, file));
    const mount = (...words: string[]) => assert.equal(spawnSync('mount', words).status, 0, words.join(' '));
    mount('--make-rprivate', '/');
    mount('--bind', etc, '/etc');
    mount('-t', 'tmpfs', 'tmpfs', '/run');
    // Three networks: their resolvers are one tree under three addresses, on the port that files cannot name.
    const networks = ['10.1.0.53', '10.2.0.53', '10.3.0.53', '10.4.0.53'];
    for (const address of networks) ip('address', 'add', `${address}/32`, 'dev', 'lo');
    const tree = await startTree({ also: networks });
    t.after(() => tree.stop());
    const replace = (path: string, address: string) => {
      writeFileSync(`${path}.new`, `nameserver ${address}\n`);
      renameSync(`${path}.new`, path);
    };
    const at = '127.0.0.1';
    replace('/etc/resolv.conf', networks[0]!);
    const running = await startHoldfast({
      listen: `${at}:53`,
      'trust-anchors': tree.anchorFile,
      'portal-check': 'none',
    });
    t.after(() => running.stop());
    let answered = 0;
    const works = async (address: string) => {
      const network = await running.until(
        ({ state, using }) => state === 'carries' && using.join() === `${address}:53`,
      );
      assert.equal(network.symptom, 'none');
      const heard = await ask({ address: at, port: 53 }, `nothing${answered++}.signed.example`);
      assert.deepEqual([heard.rcode, heard.ad], ['NXDOMAIN', true], address);
    };
    await works(networks[0]!);
    replace('/etc/resolv.conf', networks[1]!);
    await works(networks[1]!);

    // The system's own /etc/resolv.conf names us: the network's resolvers stand where NetworkManager keeps them.
    replace('/etc/resolv.conf', at);
    mkdirSync('/run/NetworkManager');
    replace('/run/NetworkManager/no-stub-resolv.conf', networks[2]!);
    ip('address', 'add', '198.18.0.1/32', 'dev', 'lo');
    await works(networks[2]!);
    mkdirSync('/run/systemd/resolve', { recursive: true });
    replace('/run/systemd/resolve/resolv.conf', networks[3]!);
    ip('address', 'add', '198.18.0.2/32', 'dev', 'lo');
    await works(networks[3]!);

    // No network at all, then one again.
    unlinkSync('/run/systemd/resolve/resolv.conf');
    unlinkSync('/run/NetworkManager/no-stub-resolv.conf');
    const closed = await running.until(({ state }) => state === 'closed');
    assert.match(closed.text!, /names no resolver/);
    const heard = await ask({ address: at, port: 53 }, 'nothing.unsigned.example');
    assert.equal(heard.rcode, 'SERVFAIL');
    assert.ok(
      heard.ede.some(({ text }) => /names no resolver/.test(text)),
      JSON.stringify(heard),
    );
    replace('/etc/resolv.conf', networks[0]!);
    await works(networks[0]!);

    const { counters } = await running.status();
    assert.ok(counters['network.probes']! <= counters['network.changes']! + 2, JSON.stringify(counters));
  });
}
