/** Where the sockets to the upstream servers come from; the daemon puts in its own, exempt from IPsec policy. */
import dgram from 'node:dgram';
import net from 'node:net';
import type { SocketAddress } from '../address.ts';

/** Opens sockets. A throw counts as a server that cannot be reached. */
export type UpstreamSockets = {
  /**
   * A UDP socket connected to the server, so that the kernel drops what others send, on a port that nobody can foresee:
   * the kernel's choice is random.
   */
  udp(server: SocketAddress, receive: UdpReceiver): UdpSocket;
  /** A TCP socket connecting to the server. */
  tcp(server: SocketAddress): net.Socket;
};

export type UdpReceiver = {
  /** The octets may be overwritten after the call. */
  message(octets: Uint8Array): void;
  /** What the network said, as an errno name: ECONNREFUSED for a closed port. */
  error(code: string): void;
};

export type UdpSocket = {
  /** The address that questions leave from, as far as it is known. */
  readonly local: string;
  /** The errno name when the kernel refuses. */
  send(octets: Uint8Array): string | undefined;
  close(): void;
};

/** Plain sockets of Node. */
export const plainSockets: UpstreamSockets = {
  udp: openPlainUdp,
  tcp: server => net.connect({ host: server.address, port: server.port }),
};

function openPlainUdp(server: SocketAddress, receive: UdpReceiver): UdpSocket {
  const type = net.isIPv4(server.address) ? 'udp4' : 'udp6';
  const socket = dgram.createSocket({ type, lookup: literalOnly });
  const early: Uint8Array[] = [];
  let state: 'connecting' | 'connected' | 'closed' = 'connecting';
  const fail = (error: Error) => {
    if (state !== 'closed') receive.error((error as NodeJS.ErrnoException).code ?? error.message);
  };
  const send = (octets: Uint8Array) => socket.send(octets, error => error && fail(error));
  socket.on('error', fail);
  socket.on('message', message => state !== 'closed' && receive.message(message));
  socket.connect(server.port, server.address, (error?: Error) => {
    if (error) return fail(error);
    if (state === 'closed') return;
    state = 'connected';
    early.forEach(send);
  });
  return {
    local: '',
    send: octets => {
      if (state === 'connecting') early.push(octets);
      else if (state === 'connected') send(octets);
      return undefined;
    },
    close: () => {
      if (state === 'closed') return;
      state = 'closed';
      socket.close();
    },
  };
}

/** Stands in for dns.lookup: addresses are literals already, and answering at once saves a turn of the event loop. */
function literalOnly(
  address: string,
  _options: unknown,
  callback: (error: NodeJS.ErrnoException | null, address: string, family: number) => void,
): void {
  callback(null, address, net.isIPv6(address) ? 6 : 4);
}
