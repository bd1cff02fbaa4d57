/** What can be known before anything is touched: may we drive the kernel, whom can we ask, who sits on our port. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { formatSocketAddress, type SocketAddress } from './address.ts';
import type { Configuration } from './config.ts';
import { StartupError } from './startup-error.ts';

/** Bits of the effective capability set (capability.h). */
const CAPABILITY = { CAP_NET_BIND_SERVICE: 10, CAP_NET_ADMIN: 12 } as const;

/** Throws StartupError for what makes a start senseless. */
export function checkBeforeStart(configuration: Configuration): void {
  if (configuration.upstream.length === 0) throw noUpstream();
  if (configuration.dataplane !== 'none' && !hasCapability('CAP_NET_ADMIN')) throw noCapability();
}

/** Whether this process has the capability; true when the system does not tell. */
export function hasCapability(capability: keyof typeof CAPABILITY): boolean {
  const status = readText('/proc/self/status');
  const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(status ?? '')?.[1];
  return mask === undefined || ((BigInt(`0x${mask}`) >> BigInt(CAPABILITY[capability])) & 1n) === 1n;
}

function noCapability(): StartupError {
  return new StartupError({
    what: 'cannot drive the data plane',
    why: 'this process lacks CAP_NET_ADMIN',
    next: 'start with sudo, or with --dataplane none to resolve without sealing',
  });
}

function noUpstream(): StartupError {
  return new StartupError({
    what: 'there is nobody to ask',
    why: 'the list of upstreams is empty',
    next: 'name a resolver with --upstream or in the configuration, or leave upstream out to ask those of the network',
  });
}

/** `why` says what to do about the kernel too. `dataplane: xfrm` was demanded and the kernel cannot; with `auto` this is a warning and not this error. */
export function noEsp(why: string): StartupError {
  return new StartupError({
    what: 'cannot drive the data plane',
    why: why.replace(/\.$/, ''),
    next: 'or start with --dataplane none to resolve without sealing',
  });
}

/** No signature of the root can be valid yet: the clock, not the zone, is wrong. Times are Unix seconds. */
export function clockBeforeSignatures(now: number, inception: number): StartupError {
  const iso = (seconds: number) => new Date(seconds * 1000).toISOString().slice(0, 19);
  return new StartupError({
    what: 'cannot validate anything',
    why: `the clock says ${iso(now)} and the root’s signatures begin at ${iso(inception)} UTC`,
    next: 'set the clock',
  });
}

/** Why a listener cannot be opened: `error` from the bind of this address. */
export function cannotListen(listen: SocketAddress, transport: 'udp' | 'tcp', error: unknown): StartupError {
  const { code, message } = error as NodeJS.ErrnoException;
  const what = `cannot listen on ${formatSocketAddress(listen)} (${transport})`;
  if (code === 'EADDRINUSE') {
    const holder = whoHolds(listen.port, transport);
    const stop = holder ? `stop ${holder.command}` : 'stop it';
    return new StartupError({
      what,
      why: holder ? `${holder.command} (process ${holder.pid}) has the port` : 'another program has the port',
      next: `${stop}, or choose another address with --listen`,
    });
  }
  if (code === 'EACCES' || code === 'EPERM') {
    const why = 'ports below 1024 need CAP_NET_BIND_SERVICE';
    return new StartupError({ what, why, next: 'start with sudo, or choose a higher port with --listen' });
  }
  if (code === 'EADDRNOTAVAIL') {
    return new StartupError({ what, why: 'this host has no such address', next: 'correct --listen' });
  }
  return new StartupError({ what, why: message, next: 'correct --listen' });
}

/** The process that holds a port, as far as /proc lets us see. */
export function whoHolds(
  port: number,
  transport: 'udp' | 'tcp',
): { pid: number; command: string } | undefined {
  const inodes = new Set([transport, `${transport}6`].flatMap(table => inodesOfPort(table, port, transport)));
  if (inodes.size === 0) return undefined;
  for (const pid of list('/proc').filter(name => /^\d+$/.test(name))) {
    const held = list(`/proc/${pid}/fd`).some(fd => inodes.has(readLink(`/proc/${pid}/fd/${fd}`)));
    if (held) return { pid: Number(pid), command: readText(`/proc/${pid}/comm`)?.trim() ?? 'a process' };
  }
  return undefined;
}

/** Lines of /proc/net/udp and tcp: `sl local:port remote:port st … inode`; only TCP sockets that listen (0A) count. */
function inodesOfPort(table: string, port: number, transport: 'udp' | 'tcp'): string[] {
  const hexPort = port.toString(16).toUpperCase().padStart(4, '0');
  return (readText(`/proc/net/${table}`) ?? '').split('\n').flatMap(line => {
    const fields = line.trim().split(/\s+/);
    const matches = fields[1]?.endsWith(`:${hexPort}`) && (transport === 'udp' || fields[3] === '0A');
    return matches ? [`socket:[${fields[9]}]`] : [];
  });
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function readLink(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}
