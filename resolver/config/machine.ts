/**
 * What the defaults take from this machine: its resolvers, its name, its addresses.
 *
 * Injected as `Machine`, so that tests need no particular host.
 */
import { readFileSync, statSync } from 'node:fs';
import { hostname, networkInterfaces } from 'node:os';
import { parseSocketAddress, type SocketAddress } from '../address.ts';
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
const RESOLVER_FILES = [
  '/etc/resolv.conf',
  '/run/systemd/resolve/resolv.conf',
  '/run/NetworkManager/no-stub-resolv.conf',
];

/** The resolvers of the first file that names any other than ourselves; empty when none does. */
export function systemUpstreams(machine: Machine, listen: SocketAddress[]): SocketAddress[] {
  for (const file of RESOLVER_FILES) {
    const servers = nameserversOf(readable(machine, file)).filter(
      server => !isOurselves(machine, server, listen),
    );
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

function nameserversOf(resolvConf: string): SocketAddress[] {
  return resolvConf
    .split('\n')
    .map(line => /^nameserver\s+(\S+)/.exec(line)?.[1])
    .flatMap(address => parseSocketAddress(address ?? '', 53) ?? []);
}

/** Whether asking this address would be asking us: the same port, and an address we listen on. */
export function isOurselves(machine: Machine, server: SocketAddress, listen: SocketAddress[]): boolean {
  return listen.some(({ address, port }) => {
    if (port !== server.port) return false;
    if (address === server.address) return true;
    if (address !== '0.0.0.0' && address !== '::') return false;
    return machine.ownAddresses().includes(server.address) || /^(127\.|::1$)/.test(server.address);
  });
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
