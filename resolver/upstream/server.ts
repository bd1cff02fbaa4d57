/** A resolver to ask, as the configuration writes it: where it is, how it is asked, and who it has to prove to be. */
import { isIP } from 'node:net';
import { formatSocketAddress, parseSocketAddress, type SocketAddress } from '../address.ts';
import { canonicalAddress } from './resolv-conf.ts';

/**
 * - `udp`: UDP, and TCP after truncation. `tcp`: TCP alone (RFC 7766).
 * - `tls`: RFC 7858, strict: the certificate is for `name`, or its key is one of `pins` (base64 of the SHA-256 of the
 *   SPKI, RFC 7858 section 4.2), or both where both are given.
 * - `https`: RFC 8484, HTTP/2; the certificate is for `name`, and for a key of `pins` where there are any.
 *
 * `addresses` (literals) empty: `name` is looked up through the network's plain resolvers, never through ourselves.
 */
export type UpstreamServer = PlainServer | TlsServer | HttpsServer;

export type PlainServer = { transport: 'udp' | 'tcp'; address: SocketAddress };

export type TlsServer = {
  transport: 'tls';
  addresses: readonly string[];
  port: number;
  name?: string;
  pins: readonly string[];
};

export type HttpsServer = {
  transport: 'https';
  addresses: readonly string[];
  port: number;
  name: string;
  pins: readonly string[];
  /** Path, from the first slash on. */
  path: string;
};

/** The word in the list of servers that stands for the resolvers which the network gave. */
export const NETWORK = 'network';

/** An entry of `upstream`: a server, or whatever the network names at the time. */
export type UpstreamChoice = UpstreamServer | typeof NETWORK;

const PIN = /^pin-sha256=([A-Za-z0-9+/]{43}=)$/;

/**
 * Parses `192.0.2.1`, `[2001:db8::1]:5353`, `tcp://192.0.2.1`, `tls://192.0.2.1#dns.example`,
 * `tls://192.0.2.1:8853#pin-sha256=BASE64`, `tls://dns.example` or `https://dns.example/dns-query#192.0.2.1#2001:db8::1`.
 *
 * After each `#` stands one thing more: a name, a pin, an address. Undefined for anything else; a TLS server that
 * could not be authenticated is nothing else.
 */
export function parseUpstreamServer(text: string): UpstreamServer | undefined {
  const [, scheme, rest] = /^(?:([a-z]+):\/\/)?(.+)$/.exec(text) ?? [];
  if (rest === undefined) return undefined;
  if (scheme === undefined || scheme === 'tcp') {
    const address = parseSocketAddress(rest, 53);
    return address && { transport: scheme === 'tcp' ? 'tcp' : 'udp', address };
  }
  const [place, ...attributes] = rest.split('#');
  const more = parseAttributes(attributes);
  if (more === undefined) return undefined;
  if (scheme === 'tls') return parseTls(place!, more);
  return scheme === 'https' ? parseHttps(place!, more) : undefined;
}

/** Formats so that it reads back to the same; equal servers have equal texts. */
export function formatUpstreamServer(server: UpstreamServer): string {
  if ('address' in server) {
    return `${server.transport === 'tcp' ? 'tcp://' : ''}${formatSocketAddress(server.address)}`;
  }
  const { addresses, port, name, pins } = server;
  const pinned = pins.map(pin => `#pin-sha256=${pin}`).join('');
  if (server.transport === 'https') {
    const at = port === 443 ? '' : `:${port}`;
    return `https://${name}${at}${server.path}${addresses.map(address => `#${address}`).join('')}${pinned}`;
  }
  const [first, ...others] = addresses;
  if (first === undefined) return `tls://${name}${port === 853 ? '' : `:${port}`}${pinned}`;
  const place = port === 853 ? first : formatSocketAddress({ address: first, port });
  const named = [...(name === undefined ? [] : [name]), ...others].map(part => `#${part}`).join('');
  return `tls://${place}${named}${pinned}`;
}

/** Where packets to it may go: nothing while its addresses are still to be looked up. */
export function addressesOf(server: UpstreamServer): SocketAddress[] {
  if ('address' in server) return [server.address];
  return server.addresses.map(address => ({ address, port: server.port }));
}

type Attributes = { names: string[]; addresses: string[]; pins: string[] };

function parseAttributes(texts: readonly string[]): Attributes | undefined {
  const found: Attributes = { names: [], addresses: [], pins: [] };
  for (const text of texts) {
    const pin = PIN.exec(text)?.[1];
    const name = parseHostName(text);
    if (pin !== undefined) found.pins.push(pin);
    else if (isIP(text) !== 0) found.addresses.push(canonicalAddress(text));
    else if (name !== undefined) found.names.push(name);
    else return undefined;
  }
  return found;
}

function parseTls(place: string, { names, addresses, pins }: Attributes): TlsServer | undefined {
  const literal = parseSocketAddress(place, 853);
  if (literal !== undefined) {
    if (names.length > 1 || names.length + pins.length === 0) return undefined;
    const all = [canonicalAddress(literal.address), ...addresses];
    const base = { transport: 'tls', addresses: all, port: literal.port, pins } as const;
    return names[0] === undefined ? base : { ...base, name: names[0] };
  }
  const named = parseNamed(place, 853);
  if (named === undefined || names.length > 0) return undefined;
  return { transport: 'tls', addresses, port: named.port, name: named.name, pins };
}

function parseHttps(place: string, { names, addresses, pins }: Attributes): HttpsServer | undefined {
  const [, authority, path] = /^([^/?]+)(\/[\x21-\x7e]*)$/.exec(place) ?? [];
  if (authority === undefined || path === undefined || names.length > 0) return undefined;
  const named = parseNamed(authority, 443);
  return named && { transport: 'https', addresses, port: named.port, name: named.name, pins, path };
}

function parseNamed(text: string, defaultPort: number): { name: string; port: number } | undefined {
  const [, host, digits] = /^([^:]+)(?::(\d{1,5}))?$/.exec(text) ?? [];
  const name = parseHostName(host ?? '');
  const port = digits === undefined ? defaultPort : Number(digits);
  return name === undefined || port < 1 || port > 65535 ? undefined : { name, port };
}

/** A host name with a dot, in A-labels, as certificates carry it; lower case, without the final dot. */
function parseHostName(text: string): string | undefined {
  const name = text.toLowerCase().replace(/\.$/, '');
  const isName = name.length <= 253 && /^([a-z0-9_-]{1,63}\.)+[a-z0-9_-]{1,63}$/.test(name);
  return isName && !/\.\d+$/.test(name) ? name : undefined;
}
