/** Where the stub's listening sockets come from. */
import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';
import type { SocketAddress } from '../address.ts';
import { literalOnly } from '../upstream/sockets.ts';

/** Opens listening sockets; the system's error when it cannot. */
export type StubSockets = {
  /** A bound UDP socket; IPv6 ones carry IPv6 alone. */
  udp(at: SocketAddress): Promise<dgram.Socket>;
  /** A listening server with `allowHalfOpen`; IPv6 ones carry IPv6 alone. */
  tcp(at: SocketAddress): Promise<net.Server>;
};

/** Bursts wait here while the event loop is busy elsewhere; the kernel gives what it allows. */
const RECEIVE_BUFFER_OCTETS = 1 << 20;

/** Plain sockets of Node. */
export const plainStubSockets: StubSockets = {
  async udp({ address, port }) {
    const type = net.isIPv4(address) ? 'udp4' : 'udp6';
    const socket = dgram.createSocket({
      type,
      ipv6Only: type === 'udp6',
      lookup: literalOnly,
      recvBufferSize: RECEIVE_BUFFER_OCTETS,
    });
    // Before bind(): with a lookup that answers at once, so does bind().
    const listening = once(socket, 'listening');
    socket.bind({ address, port, exclusive: true });
    await listening;
    return socket;
  },
  async tcp({ address, port }) {
    const server = net.createServer({ allowHalfOpen: true });
    server.listen({ host: address, port, ipv6Only: net.isIPv6(address) });
    await once(server, 'listening');
    // accept() can fail when descriptors run out; those who are connected already must not suffer.
    server.on('error', () => {});
    return server;
  },
};
