/**
 * The direction of dependencies, read from the imports themselves: who may know whom in this house.
 */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import test from 'node:test';

const ROOT = join(import.meta.dirname, '..');

/** `target`: a file of the house, or a package by its name. `eager`: loaded together with the file (no `import()`). */
type Import = { target: string; eager: boolean; typeOnly: boolean };

const house = new Map<string, Import[]>();
for (const folder of ['resolver', 'ike', 'kernel', 'deploy']) {
  for (const entry of readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })) {
    const path = relative(ROOT, join(entry.parentPath, entry.name));
    if (entry.isFile() && /\.(ts|mjs)$/.test(path)) house.set(path, importsOf(path));
  }
}

function importsOf(path: string): Import[] {
  const text = readFileSync(join(ROOT, path), 'utf8');
  const found: Import[] = [];
  const statement = /^(?:import|export)\s+(type\s)?(?:[^'";]*?\sfrom\s+)?'([^']+)'/gm;
  for (const [, type, target] of text.matchAll(statement)) {
    found.push({ target: resolveTarget(path, target!), eager: true, typeOnly: type !== undefined });
  }
  for (const [, target] of text.matchAll(/\bimport\('([^']+)'\)/g)) {
    found.push({ target: resolveTarget(path, target!), eager: false, typeOnly: false });
  }
  for (const [, target] of text.matchAll(/(?:\brequire|createRequire\([^)]*\))\('([^']+)'\)/g)) {
    found.push({ target: resolveTarget(path, target!), eager: true, typeOnly: false });
  }
  return found;
}

function resolveTarget(from: string, target: string): string {
  if (target.startsWith('.')) return join(dirname(from), target);
  return target.startsWith('@') ? target.split('/').slice(0, 2).join('/') : target.split('/')[0]!;
}

/**
 * The room of a file: `ike`, `kernel`, `resolver/dns` …; a file that stands in resolver/ is a room of its own, except
 * that config.ts and config/ are one.
 */
function roomOf(path: string): string {
  const [top, second, third] = path.split('/');
  if (top !== 'resolver') return top!;
  return third === undefined ? `resolver/${second!.replace(/\.ts$/, '')}` : `resolver/${second}`;
}

function* edges(): Generator<{ from: string; to: string } & Import> {
  for (const [from, imports] of house) for (const one of imports) yield { from, to: one.target, ...one };
}

const isOfTheHouse = (target: string) => /^(resolver|ike|kernel|deploy|test)\//.test(target);

function violations(forbidden: (from: string, to: string) => boolean): string[] {
  return [...edges()]
    .filter(({ from, to }) => forbidden(from, to))
    .map(({ from, to }) => `${from} imports ${to}`);
}

test('the reader of imports sees what is there', () => {
  assert.ok(house.size > 50, `only ${house.size} files`);
  const known = (from: string, target: string) => house.get(from)?.some(one => one.target === target);
  assert.ok(known('resolver/main.ts', 'yargs'));
  assert.ok(known('resolver/commands/second-opinion.ts', 'dns-packet'));
  assert.ok(known('resolver/main.ts', 'resolver/daemon/daemon.ts'));
  assert.ok(known('resolver/config.ts', 'resolver/capture/groups.ts'));
});

test('every import is written with its ending and leads somewhere', () => {
  assert.deepEqual(
    violations((_from, to) => isOfTheHouse(to) && !existsSync(join(ROOT, to))),
    [],
  );
});

test('ike/ and kernel/ know nothing but themselves', () => {
  for (const room of ['ike', 'kernel']) {
    assert.deepEqual(
      violations((from, to) => roomOf(from) === room && isOfTheHouse(to) && roomOf(to) !== room),
      [],
    );
  }
});

test('the program does not lean on its tests', () => {
  assert.deepEqual(
    violations((_from, to) => to.startsWith('test/')),
    [],
  );
});

test('the capture knows names, verdicts and addresses, and neither engine nor network nor files', () => {
  const allowed = ['resolver/capture', 'resolver/address', 'resolver/dns', 'resolver/dnssec'];
  assert.deepEqual(
    violations(
      (from, to) =>
        roomOf(from) === 'resolver/capture' &&
        (isOfTheHouse(to) ? !allowed.includes(roomOf(to)) : !/^node:(crypto|timers)$/.test(to)),
    ),
    [],
  );
});

test('bytes in, values out: the DNS codec and the validation read no sockets and no files', () => {
  const pure = ['resolver/dns', 'resolver/dnssec'];
  const allowed = [...pure, 'resolver/address'];
  assert.deepEqual(
    violations(
      (from, to) =>
        pure.includes(roomOf(from)) &&
        (isOfTheHouse(to) ? !allowed.includes(roomOf(to)) : !/^node:(crypto|buffer|util)$/.test(to)),
    ),
    [],
  );
});

test('the cache knows names and verdicts, and neither who asks nor who is asked', () => {
  const allowed = ['resolver/cache', 'resolver/dns', 'resolver/dnssec'];
  assert.deepEqual(
    violations(
      (from, to) => roomOf(from) === 'resolver/cache' && isOfTheHouse(to) && !allowed.includes(roomOf(to)),
    ),
    [],
  );
});

test('only the room of the daemon knows kernel/, and of ike/ more than its types and its form of keys', () => {
  assert.deepEqual(
    [...edges()]
      .filter(({ from }) => !['ike', 'kernel', 'resolver/daemon'].includes(roomOf(from)))
      .filter(({ to, typeOnly }) => {
        if (roomOf(to) === 'ike') return !typeOnly && to !== 'ike/crypto/public-key.ts';
        return roomOf(to) === 'kernel';
      })
      .map(({ from, to }) => `${from} imports ${to}`),
    [],
  );
});

test('dns2 and dns-packet never meet the network in a process that lives on', () => {
  const codecs = ['dns2', 'dns-packet'];
  assert.deepEqual(
    violations((from, to) => codecs.includes(to) && roomOf(from) !== 'resolver/commands'),
    [],
  );
  for (const start of ['resolver/main.ts', 'resolver/commands/up.ts', 'resolver/daemon/daemon.ts']) {
    const loaded = closure(start);
    for (const codec of codecs)
      assert.ok(!loaded.has(codec), `${start} loads ${codec} by way of ${loaded.get(codec)}`);
  }
});

/** Everything that loading a file loads, with who asked for it. */
function closure(start: string): Map<string, string> {
  const seen = new Map<string, string>();
  const pending = [start];
  for (let file = pending.pop(); file !== undefined; file = pending.pop()) {
    for (const { target, eager, typeOnly } of house.get(file) ?? []) {
      if (!eager || typeOnly || seen.has(target)) continue;
      seen.set(target, file);
      pending.push(target);
    }
  }
  return seen;
}

test('no cycle among the rooms', () => {
  const graph = new Map<string, Set<string>>();
  for (const { from, to } of edges()) {
    if (!isOfTheHouse(to) || roomOf(from) === roomOf(to)) continue;
    graph.set(roomOf(from), (graph.get(roomOf(from)) ?? new Set()).add(roomOf(to)));
  }
  const done = new Set<string>();
  const walk = (room: string, path: string[]): void => {
    assert.ok(!path.includes(room), `cycle: ${[...path.slice(path.indexOf(room)), room].join(' -> ')}`);
    if (done.has(room)) return;
    for (const next of graph.get(room) ?? []) walk(next, [...path, room]);
    done.add(room);
  };
  for (const room of graph.keys()) walk(room, []);
});

test('the top level holds what it should and nothing else', () => {
  const expected = [
    'deploy',
    'ike',
    'kernel',
    'resolver',
    'test',
    'package.json',
    'tsconfig.json',
    'Dockerfile',
  ];
  const customary = [
    'README.md',
    'ARCHITECTURE.md',
    'CHANGELOG.md',
    'CONTRIBUTING.md',
    'LICENSE',
    '.ci',
    'package-lock.json',
    'biome.json',
    '.dockerignore',
    '.editorconfig',
    '.gitattributes',
    '.gitignore',
    '.npmrc',
  ];
  const ignored = /^(\.git|node_modules)$|\.(tgz|pcap)$/;
  const present = readdirSync(ROOT).filter(name => !ignored.test(name));
  assert.deepEqual(
    present.filter(name => !expected.includes(name) && !customary.includes(name)),
    [],
  );
  assert.deepEqual(
    expected.filter(name => !present.includes(name)),
    [],
  );
});
