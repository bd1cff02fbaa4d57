/** The servers that /etc/resolv.conf names (resolv.conf(5)), without ourselves. */
import { isIP, SocketAddress as NodeSocketAddress } from 'node:net';
import type { SocketAddress } from '../address.ts';

/** glibc stops at three; a few more cost nothing, an unbounded list would. */
const MAX_SERVERS = 8;
const MAX_TEXT = 65536;

/** Who we are, so that we never ask ourselves. */
export type Ourselves = {
  /** Where the stub listens. */
  listen: SocketAddress[];
  /** All addresses of this host; a stub on the unspecified address answers on each of them. */
  interfaceAddresses?: string[];
};

/**
 * Reads the `nameserver` lines, in order, without doubles and without ourselves.
 *
 * Other keywords (search, domain, options, sortlist) are for the libc's own lookups and are left alone. Lines that do
 * not fit are skipped, as glibc does. At most 8 servers, all with port 53.
 */
export function parseResolvConf(text: string, ourselves: Ourselves): SocketAddress[] {
  const servers: SocketAddress[] = [];
  const seen = new Set<string>();
  for (const line of text.slice(0, MAX_TEXT).split('\n')) {
    // The keyword must start the line and be followed by white space (resolv.conf(5)).
    const address = /^nameserver[ \t]+([^ \t\r#;]+)/.exec(line)?.[1];
    if (address === undefined || isIP(address) === 0) continue;
    const asked = hostItself(canonicalAddress(address));
    if (seen.has(asked) || isOurselves(asked, 53, ourselves)) continue;
    seen.add(asked);
    servers.push({ address: asked, port: 53 });
    if (servers.length === MAX_SERVERS) break;
  }
  return servers;
}

/** True when a question sent to `address` and `port` would come back to our own stub. */
export function isOurselves(address: string, port: number, ourselves: Ourselves): boolean {
  const canonical = hostItself(canonicalAddress(address));
  for (const own of ourselves.listen) {
    if (own.port !== port) continue;
    const listening = canonicalAddress(own.address);
    if (listening === canonical) return true;
    if (listening === '0.0.0.0' && (canonical.startsWith('127.') || isInterface(canonical, ourselves)))
      return true;
    if (listening === '::' && (canonical === '::1' || isInterface(canonical, ourselves))) return true;
  }
  return false;
}

/** One spelling for each address: `::FFFF:192.0.2.1` → `192.0.2.1`, `2001:DB8:0::1` → `2001:db8::1`; a zone stays. */
export function canonicalAddress(address: string): string {
  const zoneAt = address.indexOf('%');
  const bare = zoneAt < 0 ? address : address.slice(0, zoneAt);
  const zone = zoneAt < 0 ? '' : address.slice(zoneAt);
  const family = isIP(bare);
  if (family === 0) return address;
  const spelt = new NodeSocketAddress({ address: bare, family: family === 6 ? 'ipv6' : 'ipv4' }).address;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(spelt);
  return mapped === null ? spelt + zone : mapped[1]!;
}

/** The unspecified address as a destination means this host (Linux sends it to loopback). */
function hostItself(address: string): string {
  return address === '0.0.0.0' ? '127.0.0.1' : address === '::' ? '::1' : address;
}

function isInterface(canonical: string, ourselves: Ourselves): boolean {
  return (ourselves.interfaceAddresses ?? []).some(address => canonicalAddress(address) === canonical);
}
