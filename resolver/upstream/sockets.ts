/** Where the sockets to the upstream servers come from; the daemon puts in its own, exempt from IPsec policy. */
import dgram from 'node:dgram';
import net from 'node:net';
import type { SocketAddress } from '../address.ts';

/** Opens sockets. A rejection or a throw counts as a server that cannot be reached. */
export type UpstreamSockets = {
  /** A UDP socket for one question, not connected; bound or not. The port must be random: the kernel's choice is. */
  udp(server: SocketAddress): dgram.Socket | Promise<dgram.Socket>;
  /** A TCP socket connected or connecting to the server. */
  tcp(server: SocketAddress): net.Socket | Promise<net.Socket>;
};

/** Plain sockets of Node. */
export const plainSockets: UpstreamSockets = {
  udp: server =>
    dgram.createSocket({ type: net.isIPv4(server.address) ? 'udp4' : 'udp6', lookup: literalOnly }),
  tcp: server => net.connect({ host: server.address, port: server.port }),
};

/** Stands in for dns.lookup: addresses are literals already, and answering at once saves a turn of the event loop. */
export function literalOnly(
  address: string,
  _options: unknown,
  callback: (error: NodeJS.ErrnoException | null, address: string, family: number) => void,
): void {
  callback(null, address, net.isIPv6(address) ? 6 : 4);
}
