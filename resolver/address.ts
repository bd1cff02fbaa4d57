/**
 * IP addresses, prefixes and socket addresses as people write them.
 *
 * Bytes are in network order; IPv6 text is printed as RFC 5952 asks.
 */
import { isIP, isIPv6 } from 'node:net';

/** An IP address: 4 or 16 bytes in network order. */
export type IpAddress = { family: 4 | 6; bytes: Uint8Array };

/** A prefix: every address whose first `prefix` bits are those of `bytes`; the bits after it are zero. */
export type Cidr = { family: 4 | 6; bytes: Uint8Array; prefix: number };

/** Where a socket listens or what it asks: the address as text (IPv6 possibly with `%zone`) and the port. */
export type SocketAddress = { address: string; port: number };

/** Parses `192.0.2.1` or `2001:db8::1` (no zone); undefined when it is neither. */
export function parseIpAddress(text: string): IpAddress | undefined {
  const kind = isIP(text);
  if (kind === 4) return { family: 4, bytes: Uint8Array.from(text.split('.'), Number) };
  if (kind !== 6 || text.includes('%')) return undefined;
  return { family: 6, bytes: parseIpv6(text) };
}

function parseIpv6(text: string): Uint8Array {
  const lastColon = text.lastIndexOf(':');
  const tail = text.slice(lastColon + 1);
  if (tail.includes('.')) {
    const [a = 0, b = 0, c = 0, d = 0] = tail.split('.').map(Number);
    return parseIpv6(`${text.slice(0, lastColon + 1)}${hex(a * 256 + b)}:${hex(c * 256 + d)}`);
  }
  const [head = '', rest] = text.split('::');
  const before = head === '' ? [] : head.split(':');
  const after = rest === undefined || rest === '' ? [] : rest.split(':');
  const zeros = rest === undefined ? 0 : 8 - before.length - after.length;
  const groups = [...before, ...Array<string>(zeros).fill('0'), ...after].map(group =>
    Number.parseInt(group, 16),
  );
  return Uint8Array.from(groups.flatMap(group => [group >> 8, group & 0xff]));
}

const hex = (value: number) => value.toString(16);

/** Formats an address: dotted quad, or IPv6 as RFC 5952 §4 (lower case, longest run of zeros as `::`). */
export function formatIpAddress({ family, bytes }: IpAddress): string {
  if (family === 4) return bytes.join('.');
  const groups = Array.from({ length: 8 }, (_, i) => hex(bytes[2 * i]! * 256 + bytes[2 * i + 1]!));
  let best = { start: -1, length: 1 };
  for (let start = 0; start < 8; start++) {
    let length = 0;
    while (groups[start + length] === '0') length++;
    if (length > best.length) best = { start, length };
  }
  if (best.start < 0) return groups.join(':');
  return `${groups.slice(0, best.start).join(':')}::${groups.slice(best.start + best.length).join(':')}`;
}

/** Parses `192.0.2.0/24`, `2001:db8::/32` or a lone address (its full length); undefined when it is neither. */
export function parseCidr(text: string): Cidr | undefined {
  const match = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(text);
  const address = match && parseIpAddress(match[1]!);
  if (!address) return undefined;
  const full = address.family === 4 ? 32 : 128;
  const prefix = match[2] === undefined ? full : Number(match[2]);
  if (prefix > full) return undefined;
  return { family: address.family, bytes: maskAddress(address.bytes, prefix), prefix };
}

/** Formats a prefix with its length, also when that is the full one. */
export function formatCidr(cidr: Cidr): string {
  return `${formatIpAddress(cidr)}/${cidr.prefix}`;
}

/** Keeps the first `prefix` bits and clears the others. */
export function maskAddress(bytes: Uint8Array, prefix: number): Uint8Array {
  return bytes.map((byte, i) => {
    const kept = Math.min(8, Math.max(0, prefix - 8 * i));
    return byte & (0xff00 >> kept);
  });
}

/** Whether the address lies within the prefix. Families never mix: an IPv4-mapped address is not IPv4 here. */
export function cidrContains(cidr: Cidr, address: IpAddress): boolean {
  if (cidr.family !== address.family) return false;
  const masked = maskAddress(address.bytes, cidr.prefix);
  return masked.every((byte, i) => byte === cidr.bytes[i]);
}

/** Parses `192.0.2.1:53`, `[2001:db8::1]:53`, or an address alone with the default port. */
export function parseSocketAddress(text: string, defaultPort: number): SocketAddress | undefined {
  if (isIPv6(text)) return { address: text, port: defaultPort };
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+))(?::(\d{1,5}))?$/.exec(text);
  if (!match) return undefined;
  const address = match[1] ?? match[2]!;
  if (isIP(address) !== (match[1] === undefined ? 4 : 6)) return undefined;
  const port = match[3] === undefined ? defaultPort : Number(match[3]);
  if (port < 1 || port > 65535) return undefined;
  return { address, port };
}

/** Formats as `192.0.2.1:53` or `[2001:db8::1]:53`. */
export function formatSocketAddress({ address, port }: SocketAddress): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}
