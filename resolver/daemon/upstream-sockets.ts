/** The sockets that questions leave by: in clear past our own IPsec policies, each by itself. */
import net from 'node:net';
import { networkInterfaces } from 'node:os';
import { openConnectedUdp, openTcpDescriptor } from '../../kernel/client-sockets.ts';
import type { SocketEndpoint } from '../../kernel/sockets.ts';
import { parseIpAddress, type SocketAddress } from '../address.ts';
import type { UpstreamSockets } from '../upstream/sockets.ts';

/**
 * Sockets of the native addon.
 *
 * `mayBypass`: whether there are policies to get past. What we must never need a seal for is how we learn of seals; other
 * programs' packets to the same resolver stay under the policies.
 */
export function upstreamSockets(mayBypass: () => boolean): UpstreamSockets {
  return {
    udp: (server, receive) =>
      openConnectedUdp({ remote: endpointOf(server), bypassPolicy: mayBypass() }, receive),
    tcp: server => {
      const fd = openTcpDescriptor({ remote: endpointOf(server), bypassPolicy: mayBypass() });
      // Not read before it is connected: Node would take the answer (ENOTCONN) for an end.
      const options = { fd, readable: true, writable: true, manualStart: true };
      return new net.Socket(options).connect({ host: server.address, port: server.port });
    },
  };
}

function endpointOf({ address, port }: SocketAddress): SocketEndpoint {
  const [literal, zone] = address.split('%');
  const parsed = parseIpAddress(literal!);
  if (parsed === undefined) throw new RangeError(`not an IP address: ${address}`);
  const scope = zone === undefined ? undefined : scopeOf(zone);
  return { address: parsed, port, ...(scope !== undefined && { scope }) };
}

/** The index of the interface that a link-local address names, by name or number. */
function scopeOf(zone: string): number {
  const named = networkInterfaces()[zone]?.find(({ family }) => family === 'IPv6');
  const scope = named?.scopeid ?? Number(zone);
  if (!Number.isInteger(scope)) throw new RangeError(`no interface ${zone}`);
  return scope;
}
