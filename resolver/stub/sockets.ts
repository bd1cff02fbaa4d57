/** Where the stub's listening sockets come from. */
import { once } from 'node:events';
import net from 'node:net';
import type { SocketAddress } from '../address.ts';

/**
 * A bound UDP socket that hands datagrams over in batches, and takes answers back in their place.
 *
 * `kernel/sockets.ts` openUdp fits it as it is. Answers leave from the address that was asked.
 */
export type DatagramSocket = {
  readonly port: number;
  /** Datagram i of the batch lies at `i * slotOctets`, and what is left of the slot is room for its answer. */
  readonly payload: Uint8Array;
  readonly slotOctets: number;
  /** Reads what has arrived, at most one batch, in the place of the batch before; how many datagrams that are. */
  receive(): number;
  /** 0 for a datagram to drop. */
  lengthOf(i: number): number;
  portOf(i: number): number;
  /** Interface index of a link-local sender, otherwise 0. */
  scopeOf(i: number): number;
  /** Holds the senders' addresses: 4 or 16 octets, of datagram i from `senderAt(i)` on. */
  readonly senders: Uint8Array;
  senderAt(i: number): number;
  /** The answer to datagram i lies in its place; it leaves with `flush`. */
  answer(i: number, octets: number): void;
  flush(): void;
  /** What `sendBack` needs to answer datagram i later. */
  envelopeOf(i: number): Uint8Array;
  /** False when the system did not take it. */
  sendBack(envelope: Uint8Array, data: Uint8Array): boolean;
  readonly counters: {
    readonly sendErrors: number;
    readonly receiveErrors: number;
    readonly tooLong: number;
  };
  close(): void;
};

/** Opens and binds a UDP socket, IPv6 ones for IPv6 alone; throws an error with the system's `code`. */
export type OpenDatagramSocket = (options: {
  family: 4 | 6;
  address: Uint8Array;
  port: number;
  /** Interface index of a link-local address. */
  scope: number;
  receiveBufferOctets: number;
  sendBufferOctets: number;
  /** Longer datagrams have length 0. */
  maxDatagramOctets: number;
  /** Datagrams per batch. */
  batch: number;
  onReadable: (socket: DatagramSocket) => void;
}) => DatagramSocket;

/**
 * A listening server; IPv6 ones carry IPv6 alone. The system's error when it cannot be.
 *
 * `allowHalfOpen`: a client that has closed its side still gets its answers.
 */
export async function openServer(
  { address, port }: SocketAddress,
  allowHalfOpen: boolean = true,
): Promise<net.Server> {
  const server = net.createServer({ allowHalfOpen });
  server.listen({ host: address, port, ipv6Only: net.isIPv6(address) });
  await once(server, 'listening');
  // accept() can fail when descriptors run out; those who are connected already must not suffer.
  server.on('error', () => {});
  return server;
}
