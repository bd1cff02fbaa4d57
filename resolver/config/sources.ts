/**
 * Where settings come from: the file, the environment, the flags; and where each was found, for error messages.
 */
import { createRequire } from 'node:module';
import type { Node } from 'yaml';
import { SETTINGS, type Setting } from './schema.ts';

/** Loaded where there is a file to read: most have none, and it is not small. */
const yaml = () => createRequire(import.meta.url)('yaml') as typeof import('yaml');

/** One thing that does not fit: where, which key, what was expected and found. */
export type Problem = { place: string; key?: string; expected?: string; found?: string; hint?: string };

/** The configuration does not fit; nothing was touched. Exit code 2. */
export class ConfigurationError extends Error {
  readonly problems: Problem[];

  constructor(problems: Problem[]) {
    const ordered = problems.toSorted((a, b) => a.place.localeCompare(b.place, 'en', { numeric: true }));
    super(ordered.map(describeProblem).join('\n'));
    this.name = 'ConfigurationError';
    this.problems = ordered;
  }
}

function describeProblem({ place, key, expected, found, hint }: Problem): string {
  const where = key ? `${place}: ${key}` : place;
  const parts = [expected && `expected ${expected}`, found && `found ${found}`].filter(Boolean);
  return `${where}: ${parts.join('; ')}${hint ? ` (${hint})` : ''}`;
}

/** Raw values as a tree shaped like the file, and the place of every value in it. */
export type Sources = {
  tree: Record<string, unknown>;
  placeOf(path: readonly PropertyKey[], what?: 'value' | 'key'): string;
  /** Whether the value came from the file: then a relative path in it starts at the file. */
  inFile(path: readonly PropertyKey[]): boolean;
};

/** A YAML file read: its tree and the line and column of each key path. Throws ConfigurationError. */
export function readYaml(file: string, content: string): Sources {
  const { LineCounter, parseDocument, visit } = yaml();
  const lines = new LineCounter();
  const document = parseDocument(content, { lineCounter: lines, prettyErrors: false, logLevel: 'error' });
  const at = (offset: number) => {
    const { line, col } = lines.linePos(offset);
    return `${file}:${line}:${col}`;
  };
  const faults = [...document.errors, ...document.warnings];
  if (faults.length > 0) {
    throw new ConfigurationError(
      faults.map(fault => ({
        place: at(fault.pos[0]),
        found: `YAML that cannot be read: ${fault.message}`,
        hint: /alias|anchor/i.test(fault.message) ? 'quote what begins with *: "*.example.org"' : undefined,
      })) as Problem[],
    );
  }
  const placeOf: Sources['placeOf'] = (path, what) => at(offsetOf(document.contents, path, what === 'key'));
  let tree: unknown;
  try {
    tree = document.toJS() ?? {};
  } catch (error) {
    // What begins with * is an alias to YAML, and here it is always meant as a name.
    let start = 0;
    visit(document, {
      Alias: (_, node) => {
        start = node.range?.[0] ?? 0;
        return visit.BREAK;
      },
    });
    throw new ConfigurationError([
      {
        place: at(start),
        found: `YAML that cannot be read: ${(error as Error).message}`,
        hint: 'quote what begins with *: "*.example.org"',
      },
    ]);
  }
  if (typeof tree !== 'object' || Array.isArray(tree)) {
    throw new ConfigurationError([
      { place: at(0), expected: 'a mapping of keys to values', found: show(tree) },
    ]);
  }
  return { tree: tree as Record<string, unknown>, placeOf, inFile: () => true };
}

/** Offset of the value at a path, of its key (asked for, or the value is no scalar), or of what is nearest above. */
function offsetOf(root: unknown, path: readonly PropertyKey[], ofKey: boolean): number {
  const { isMap, isScalar } = yaml();
  let node = root as Node | null;
  let offset = node?.range?.[0] ?? 0;
  for (const step of path) {
    if (isMap(node)) {
      const pair = node.items.find(item => isScalar(item.key) && String(item.key.value) === String(step));
      if (!pair) break;
      const value = pair.value as Node | null;
      const shown = isScalar(value) && value.value !== null && !ofKey ? value : (pair.key as Node);
      offset = shown.range?.[0] ?? offset;
      node = value;
    } else {
      const value = (node as { get?(key: unknown, keep: boolean): unknown } | null)?.get?.(step, true);
      if (!value) break;
      node = value as Node;
      offset = node.range?.[0] ?? offset;
    }
  }
  return offset;
}

/** Flags over environment over file. Flags by their long name; lists given as text are separated by commas. */
export function combine(
  file: Sources | undefined,
  environment: Record<string, string | undefined>,
  flags: Record<string, unknown>,
): Sources {
  const tree = withoutNulls(file?.tree ?? {}) as Record<string, unknown>;
  const places = new Map<string, string>();
  for (const setting of SETTINGS) {
    const fromFlag = flags[setting.flag];
    const variable = environment[setting.variable];
    const given = fromFlag !== undefined ? fromFlag : variable === '' ? undefined : variable;
    if (given !== undefined) {
      put(tree, setting.path, givenValue(setting, given));
      places.set(setting.key, fromFlag !== undefined ? `--${setting.flag}` : setting.variable);
    } else if (setting.list) {
      const value = get(tree, setting.path);
      if (typeof value === 'string') put(tree, setting.path, [value]);
    }
  }
  const outside = (path: readonly PropertyKey[]) =>
    [...places].find(([key]) => key === path.join('.') || path.join('.').startsWith(`${key}.`))?.[1];
  return {
    tree,
    placeOf: (path, what) => outside(path) ?? file?.placeOf(path, what) ?? 'default',
    inFile: path => outside(path) === undefined && file !== undefined,
  };
}

function givenValue(setting: Setting, given: unknown): unknown {
  const words = (Array.isArray(given) ? given : [given]).map(String);
  if (!setting.list) return words.length === 1 ? textOrList(setting, words[0]!) : words;
  return words
    .flatMap(word => word.split(','))
    .map(word => word.trim())
    .filter(word => word !== '');
}

/** Keys that take one path or a list (`identity.keys`, `trust-anchors`) become a list by a comma. */
function textOrList(setting: Setting, word: string): unknown {
  return /^(identity\.keys|trust-anchors)$/.test(setting.key) && word.includes(',')
    ? word.split(',').map(part => part.trim())
    : word;
}

/** A key with nothing behind it, such as a list whose entries are all commented out, is a key left out. */
function withoutNulls(value: unknown): unknown {
  if (!isTree(value)) return value;
  const kept = Object.entries(value).filter(([, child]) => child !== null);
  return Object.fromEntries(kept.map(([key, child]) => [key, withoutNulls(child)]));
}

function get(tree: unknown, path: string[]): unknown {
  return path.reduce<unknown>((node, key) => (isTree(node) ? node[key] : undefined), tree);
}

function put(tree: Record<string, unknown>, path: string[], value: unknown): void {
  let node = tree;
  for (const key of path.slice(0, -1)) {
    node[key] ??= {};
    if (!isTree(node[key])) return; // the file has something else there, which the schema will refuse
    node = node[key];
  }
  node[path.at(-1)!] = value;
}

const isTree = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** A value as an error message quotes it: one line, bounded. */
export function show(value: unknown): string {
  if (value === undefined || value === null) return 'nothing';
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}
