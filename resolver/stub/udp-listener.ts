/** The stub's UDP side: datagrams in batches; what can be answered from kept bytes is answered in its place. */
import { networkInterfaces } from 'node:os';
import { formatIpAddress, parseIpAddress, type SocketAddress } from '../address.ts';
import type { AccessList } from './access.ts';
import type { KeptResponses } from './kept.ts';
import type { DatagramSocket, OpenDatagramSocket } from './sockets.ts';

/** Bursts wait here while the event loop is busy elsewhere; the kernel gives what it allows. */
const BUFFER_OCTETS = 1 << 20;
/** No honest question is longer, padding included (RFC 8467 pads to 128 octets); and room for any answer over UDP. */
const MAX_QUESTION = 4096;
const BATCH = 64;
/** Batches read in one turn, so that a flood of questions leaves time for everything else. */
const BATCHES_PER_TURN = 8;

/** Takes a question that is not answered from kept bytes. `respond` is called once, at any time, or never. */
export type ReceiveDatagram = (
  bytes: Uint8Array,
  address: string,
  respond: (response: Uint8Array) => void,
) => void;

/** One UDP socket of the stub. */
export class UdpListener {
  readonly at: SocketAddress;
  readonly #socket: DatagramSocket;
  readonly #family: 4 | 6;
  readonly #access: AccessList;
  readonly #kept: KeptResponses;
  readonly #receive: ReceiveDatagram;
  readonly #counters = { udp: 0, dropped: 0 };

  /** Opens the socket; an error of the system carries `code`, `syscall`, `address` and `port`. */
  constructor(
    at: SocketAddress,
    options: {
      open: OpenDatagramSocket;
      access: AccessList;
      kept: KeptResponses;
      receive: ReceiveDatagram;
    },
  ) {
    this.#access = options.access;
    this.#kept = options.kept;
    this.#receive = options.receive;
    this.#socket = open(options.open, at, () => this.#read());
    this.#family = at.address.includes(':') ? 6 : 4;
    this.at = { address: at.address, port: this.#socket.port };
  }

  counters(): Record<string, number> {
    const { sendErrors, receiveErrors, tooLong } = this.#socket.counters;
    return { ...this.#counters, sendErrors, receiveErrors, tooLong };
  }

  close(): void {
    this.#socket.close();
  }

  #read(): void {
    const socket = this.#socket;
    for (let batches = 0; batches < BATCHES_PER_TURN; batches++) {
      const count = socket.receive();
      if (count === 0) return;
      this.#counters.udp += count;
      this.#kept.tick();
      for (let i = 0; i < count; i++) this.#question(i);
      socket.flush();
      if (count < BATCH) return;
    }
  }

  #question(i: number): void {
    const socket = this.#socket;
    const at = i * socket.slotOctets;
    const length = socket.lengthOf(i);
    if (length === 0 || socket.portOf(i) === 0) {
      this.#counters.dropped++;
      return;
    }
    if (this.#access.allowsAt(socket.senders, socket.senderAt(i), this.#family)) {
      const octets = this.#kept.answer(socket.payload, at, length, 'udp');
      if (octets > 0) {
        socket.answer(i, octets);
        return;
      }
    }
    const envelope = socket.envelopeOf(i);
    this.#receive(socket.payload.slice(at, at + length), this.#textOf(i), response => {
      socket.sendBack(envelope, response);
    });
  }

  #textOf(i: number): string {
    const { senders } = this.#socket;
    const at = this.#socket.senderAt(i);
    const bytes = senders.subarray(at, at + (this.#family === 4 ? 4 : 16));
    const scope = this.#socket.scopeOf(i);
    const text = formatIpAddress({ family: this.#family, bytes });
    return scope === 0 ? text : `${text}%${scope}`;
  }
}

function open(socketOf: OpenDatagramSocket, at: SocketAddress, onReadable: () => void): DatagramSocket {
  const [text, zone] = at.address.split('%');
  const parsed = parseIpAddress(text!);
  try {
    if (parsed === undefined) throw Object.assign(new Error('not an IP address'), { code: 'EINVAL' });
    return socketOf({
      family: parsed.family,
      address: parsed.bytes,
      port: at.port,
      scope: zone === undefined ? 0 : interfaceIndex(zone),
      receiveBufferOctets: BUFFER_OCTETS,
      sendBufferOctets: BUFFER_OCTETS,
      maxDatagramOctets: MAX_QUESTION,
      batch: BATCH,
      onReadable,
    });
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    throw Object.assign(new Error(message, { cause: error }), { code, syscall: 'bind', ...at });
  }
}

/** Of the interface that a zone names or numbers; 0 when there is none, which the kernel then refuses. */
function interfaceIndex(zone: string): number {
  if (/^\d+$/.test(zone)) return Number(zone);
  return networkInterfaces()[zone]?.find(({ family }) => family === 'IPv6')?.scopeid ?? 0;
}
