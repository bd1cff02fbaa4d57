/** One question over UDP: a fresh socket, so a fresh random port, and only the asked server's answer counts. */
import type dgram from 'node:dgram';
import type { SocketAddress } from '../address.ts';
import { UpstreamError } from './error.ts';
import { judge } from './query.ts';
import { canonicalAddress } from './resolv-conf.ts';
import type { UpstreamSockets } from './sockets.ts';

/** So many messages that are not the answer, and we stop listening for it where anyone can shout: TCP is next. */
const MAX_FOREIGN = 8;

/** What came: the message, or a reason to ask again over TCP. */
export type UdpOutcome =
  | { kind: 'message'; message: Uint8Array; rejection: boolean }
  | { kind: 'truncated'; message: Uint8Array }
  | { kind: 'flooded' };

/**
 * Sends `query` and waits for its answer until `signal` fires; the caller keeps the time.
 *
 * `onForeign` is called for each message that is not the answer. Rejects with UpstreamError `network` or `aborted`.
 */
export async function askOverUdp(
  sockets: UpstreamSockets,
  server: SocketAddress,
  query: Uint8Array,
  onForeign: () => void,
  signal: AbortSignal,
): Promise<UdpOutcome> {
  let socket: dgram.Socket;
  try {
    socket = await sockets.udp(server);
  } catch (cause) {
    throw unreachable(cause);
  }
  try {
    return await converse(socket, server, query, onForeign, signal);
  } finally {
    socket.close();
  }
}

function converse(
  socket: dgram.Socket,
  server: SocketAddress,
  query: Uint8Array,
  onForeign: () => void,
  signal: AbortSignal,
): Promise<UdpOutcome> {
  const expected = withoutZone(canonicalAddress(server.address));
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(new UpstreamError('aborted', 'nobody waits any more'));
    signal.addEventListener('abort', () => reject(new UpstreamError('aborted', 'nobody waits any more')), {
      once: true,
    });
    // Also after the end: a datagram socket without a listener for errors would take the process down.
    socket.on('error', error => reject(unreachable(error)));
    let foreign = 0;
    socket.on('message', (message, from) => {
      const judgement =
        from.port === server.port && withoutZone(from.address) === expected
          ? judge(message, query)
          : 'foreign';
      if (judgement === 'foreign') {
        onForeign();
        if (++foreign === MAX_FOREIGN) resolve({ kind: 'flooded' });
      } else {
        // A Buffer's slice() is a view; what is parsed from a plain Uint8Array are copies that keep nothing else alive.
        const bytes = new Uint8Array(message.buffer, message.byteOffset, message.length);
        if (judgement === 'truncated') resolve({ kind: 'truncated', message: bytes });
        else resolve({ kind: 'message', message: bytes, rejection: judgement === 'rejection' });
      }
    });
    // Connected, the kernel drops what others send before it costs us anything, and tells us of a closed port.
    socket.connect(server.port, server.address, (error?: Error) => {
      if (error) return reject(unreachable(error));
      if (signal.aborted) return;
      socket.send(query, sendError => {
        if (sendError) reject(unreachable(sendError));
      });
    });
  });
}

function unreachable(cause: unknown): UpstreamError {
  const code = (cause as NodeJS.ErrnoException | undefined)?.code ?? String(cause);
  return new UpstreamError('network', `cannot be reached: ${code}`);
}

function withoutZone(address: string): string {
  const zoneAt = address.indexOf('%');
  return zoneAt < 0 ? address : address.slice(0, zoneAt);
}
