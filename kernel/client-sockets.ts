/** Sockets that ask others, where need be past IPsec policies: connected UDP in batches, and TCP for Node to connect. */
import { accepted, errnoName } from './error.ts';
import { type Native, native, RECORD } from './native/binding.ts';
import { passInClear, type SocketEndpoint, sockaddr } from './sockets.ts';
import { viewOf } from './xfrm-structs.ts';

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
/** Messages per system call, and the longest; what is longer comes with its beginning alone. */
const BATCH = 16;
const SLOT_OCTETS = 4096;

export type ClientOptions = {
  remote: SocketEndpoint;
  /** Its packets pass in clear both ways, whatever policy covers them (needs CAP_NET_ADMIN). */
  bypassPolicy: boolean;
};

export type ConnectedUdpEvents = {
  /** A datagram of the peer; its octets are overwritten after the call. */
  message(octets: Uint8Array): void;
  /** The errno name of what the network said: ECONNREFUSED for a closed port. */
  error(code: string): void;
};

/**
 * Opens a UDP socket to one peer on a port of the kernel's choice, which is random (`ip_local_port_range`).
 *
 * Connected: the kernel drops what others send. All such sockets share one buffer. Throws KernelError that names the step.
 */
export function openConnectedUdp(options: ClientOptions, events: ConnectedUdpEvents): ConnectedUdp {
  const { remote, bypassPolicy } = options;
  const calls = native();
  const { family, bytes } = remote.address;
  const fd = accepted('socket', calls.socket(family === 4 ? AF_INET : AF_INET6, SOCK_DGRAM, 0));
  try {
    if (bypassPolicy) passInClear(calls, fd, family);
    accepted('connect', calls.connect(fd, sockaddr(family, bytes, remote.port, remote.scope ?? 0)));
    return new ConnectedUdp(calls, fd, family, events);
  } catch (error) {
    calls.close(fd);
    throw error;
  }
}

class ConnectedUdp {
  /** Where its datagrams leave from, as hexadecimal. */
  readonly local: string;
  readonly #native: Native;
  readonly #fd: number;
  readonly #events: ConnectedUdpEvents;
  #closed = false;

  /** Use `openConnectedUdp`. */
  constructor(calls: Native, fd: number, family: 4 | 6, events: ConnectedUdpEvents) {
    this.#native = calls;
    this.#fd = fd;
    this.#events = events;
    const name = Buffer.alloc(28);
    accepted('getsockname', calls.getsockname(fd, name));
    this.local = name.toString('hex', family === 4 ? 4 : 8, family === 4 ? 8 : 24);
    accepted(
      'poll',
      calls.pollStart(fd, () => this.#readable()),
    );
  }

  /** The errno name when the kernel refuses for good; a full queue is a datagram lost on the way. */
  send(octets: Uint8Array): string | undefined {
    if (this.#closed) return 'EBADF';
    const sent = this.#native.send(this.#fd, octets);
    if (sent >= 0) return undefined;
    const code = errnoName(-sent);
    return code === 'EAGAIN' || code === 'ENOBUFS' ? undefined : code;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#native.close(this.#fd);
  }

  #readable(): void {
    const got = this.#native.receiveMessages(this.#fd, payload, SLOT_OCTETS, records);
    if (got < 0) {
      const code = errnoName(-got);
      if (code !== 'EAGAIN') this.#events.error(code);
      return;
    }
    for (let i = 0; i < got && !this.#closed; i++) {
      const length = recordsView.getUint32(i * RECORD.size + RECORD.length, true);
      const at = i * SLOT_OCTETS;
      this.#events.message(payload.subarray(at, at + Math.min(length, SLOT_OCTETS)));
    }
  }
}

/** Shared, since nothing is read from it after the call that filled it. */
const payload = new Uint8Array(SLOT_OCTETS * BATCH);
const records = new Uint8Array(RECORD.size * BATCH);
const recordsView = viewOf(records);

/**
 * The descriptor of a TCP socket that is yet to be connected; whoever asked for it closes it.
 *
 * For `new net.Socket({ fd })`, which connects it like one of its own. Throws KernelError that names the step.
 */
export function openTcpDescriptor({ remote, bypassPolicy }: ClientOptions): number {
  const calls = native();
  const { family } = remote.address;
  const fd = accepted('socket', calls.socket(family === 4 ? AF_INET : AF_INET6, SOCK_STREAM, 0));
  try {
    if (bypassPolicy) passInClear(calls, fd, family);
  } catch (error) {
    calls.close(fd);
    throw error;
  }
  calls.release(fd);
  return fd;
}
