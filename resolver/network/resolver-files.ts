/**
 * Watches the files in which the system names the network's resolvers, and reads them anew when they change.
 *
 * Those who write them replace them (rename), link them elsewhere or make their directory only later: so it is the
 * directories that are watched, those of the files and those that symbolic links lead to. What is told is a change of
 * the servers, not of the files.
 */
import { type FSWatcher, realpathSync, statSync, watch } from 'node:fs';
import { dirname } from 'node:path';
import { formatSocketAddress, type SocketAddress } from '../address.ts';

/** A file is mostly written more than once; read when nobody has touched it for so long. Milliseconds. */
const SETTLED_MILLIS = 200;
/** Under constant writing it is still read this often. */
const LONGEST_MILLIS = 2000;
/** Directories that were missing may have been made by now. */
const REARM_MILLIS = 15_000;

export class ResolverFiles {
  readonly #paths: readonly string[];
  readonly #read: () => SocketAddress[];
  readonly #changed: (servers: SocketAddress[]) => void;
  readonly #watchers = new Map<string, { watcher: FSWatcher; inode: number }>();
  /** By directory, the files in it that count; changes as links lead elsewhere. */
  #names: ReadonlyMap<string, ReadonlySet<string>> = new Map();
  #known: string;
  #timer: NodeJS.Timeout | undefined;
  #since: number | undefined;
  readonly #rearm: NodeJS.Timeout;
  #closed = false;

  /** `read` gives the servers that the files name now; `changed` gets them when they differ from those before. */
  constructor(options: {
    paths: readonly string[];
    read: () => SocketAddress[];
    known: readonly SocketAddress[];
    changed: (servers: SocketAddress[]) => void;
  }) {
    this.#paths = options.paths;
    this.#read = options.read;
    this.#changed = options.changed;
    this.#known = textOf(options.known);
    this.#arm();
    this.#rearm = setInterval(() => this.touched(), REARM_MILLIS);
    this.#rearm.unref();
  }

  /** Reads soon: a file may have changed, or the network has, and with it what they ought to say. */
  touched(): void {
    if (this.#closed) return;
    const now = performance.now();
    this.#since ??= now;
    clearTimeout(this.#timer);
    const wait = Math.max(0, Math.min(SETTLED_MILLIS, this.#since + LONGEST_MILLIS - now));
    this.#timer = setTimeout(() => this.#settled(), wait);
    this.#timer.unref();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    clearInterval(this.#rearm);
    for (const { watcher } of this.#watchers.values()) watcher.close();
    this.#watchers.clear();
  }

  #settled(): void {
    this.#since = undefined;
    this.#arm();
    const servers = this.#read();
    const text = textOf(servers);
    if (text === this.#known) return;
    this.#known = text;
    this.#changed(servers);
  }

  /** Watches each directory that is there and not watched yet, and no other. */
  #arm(): void {
    const wanted = new Map<string, Set<string>>();
    for (const path of this.#paths) {
      for (const place of [path, realPath(path)]) {
        if (place === undefined) continue;
        const directory = dirname(place);
        const names = wanted.get(directory) ?? new Set();
        names.add(place.slice(directory === '/' ? 1 : directory.length + 1));
        wanted.set(directory, names);
      }
    }
    for (const [directory, { watcher, inode }] of this.#watchers) {
      // One that was removed and made again is another one.
      if (wanted.has(directory) && inodeOf(directory) === inode) continue;
      watcher.close();
      this.#watchers.delete(directory);
    }
    this.#names = wanted;
    for (const directory of wanted.keys()) {
      if (!this.#watchers.has(directory)) this.#watch(directory);
    }
  }

  #watch(directory: string): void {
    try {
      const watcher = watch(directory, { persistent: false }, (_, name) => {
        if (name === null || this.#names.get(directory)?.has(name)) this.touched();
      });
      // The directory went: watched anew when it is back.
      watcher.on('error', () => {
        watcher.close();
        this.#watchers.delete(directory);
      });
      this.#watchers.set(directory, { watcher, inode: inodeOf(directory) });
    } catch {
      // Missing, or no watches left: then the files are read every so often all the same.
    }
  }
}

function realPath(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

function inodeOf(directory: string): number {
  return statSync(directory, { throwIfNoEntry: false })?.ino ?? 0;
}

function textOf(servers: readonly SocketAddress[]): string {
  return servers.map(formatSocketAddress).join(' ');
}
