/**
 * What the defaults take from this machine: its resolvers, its name, its addresses.
 *
 * Injected as `Machine`, so that tests need no particular host.
 */
import { readFileSync, statSync } from 'node:fs';
import { hostname, networkInterfaces } from 'node:os';
import type { SocketAddress } from '../address.ts';
import { type Ourselves, parseResolvConf } from '../upstream/resolv-conf.ts';
import { parseFqdn } from './values.ts';

export type Machine = {
  /** The text of a file, or undefined when there is none. Other errors are thrown. */
  readText(path: string): string | undefined;
  isDirectory(path: string): boolean;
  hostName(): string;
  ownAddresses(): string[];
};

export const thisMachine: Machine = {
  readText(path) {
    try {
      return readFileSync(path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
  },
  isDirectory: path => statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false,
  hostName: hostname,
  ownAddresses: () =>
    Object.values(networkInterfaces()).flatMap(list => (list ?? []).map(({ address }) => address)),
};

/**
 * Where resolvers are written, most authoritative first. Once /etc/resolv.conf names us, those that the network gave
 * are found where systemd-resolved and NetworkManager keep them.
 */
export const RESOLVER_FILES = [
  '/etc/resolv.conf',
  '/run/systemd/resolve/resolv.conf',
  '/run/NetworkManager/no-stub-resolv.conf',
];

/** The resolvers of the first file that names any other than ourselves; empty when none does. */
export function systemUpstreams(machine: Machine, ourselves: Ourselves): SocketAddress[] {
  for (const file of RESOLVER_FILES) {
    const servers = parseResolvConf(readable(machine, file), ourselves);
    if (servers.length > 0) return servers;
  }
  return [];
}

function readable(machine: Machine, path: string): string {
  try {
    return machine.readText(path) ?? '';
  } catch {
    return ''; // unreadable: as if it named nobody
  }
}

/** The host's name if it has a dot, else the canonical name that /etc/hosts gives it. No DNS: we are the DNS. */
export function fullyQualifiedName(machine: Machine): string | undefined {
  const name = machine.hostName();
  const own = parseFqdn(name);
  if (own) return own;
  for (const line of readable(machine, '/etc/hosts').split('\n')) {
    const [, canonical, ...aliases] = line.replace(/#.*/, '').trim().split(/\s+/);
    const fqdn = parseFqdn(canonical ?? '');
    if (fqdn && !/^localhost\./.test(fqdn) && (canonical === name || aliases.includes(name))) return fqdn;
  }
  return undefined;
}
