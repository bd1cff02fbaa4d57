/**
 * The front door: questions in over UDP and TCP, answers out.
 *
 * Decides nothing about names but the special ones; that is the handler's. Whatever comes in, nothing is thrown.
 */
import type dgram from 'node:dgram';
import type net from 'node:net';
import type { Cidr, SocketAddress } from '../address.ts';
import type { Name } from '../dns/name.ts';
import { EDE, RCODE } from '../dns/types.ts';
import { AccessList } from './access.ts';
import { composeError, composeHeaderError, composeResponse } from './answer.ts';
import { failure, InFlight } from './in-flight.ts';
import { parseQuery, type StubQuery, unanswerable } from './query.ts';
import { plainStubSockets, type StubSockets } from './sockets.ts';
import { specialAnswer } from './special-names.ts';
import { TcpListener } from './tcp-listener.ts';
import type { StubHandler, StubQuestion } from './types.ts';

export type StubConfig = {
  /** UDP and TCP each; specific addresses, so that answers leave from the address that was asked. */
  listen: readonly SocketAddress[];
  /** Who may ask; everyone else is REFUSED. */
  access: readonly Cidr[];
  handler: StubHandler;
  /**
   * Names that are resolved, with all below them, although they are special (special-names.ts): those with a trust
   * anchor or a server of their own. The root does not count.
   */
  notSpecial?: readonly Name[];
  /** Milliseconds, monotonic. */
  now?: () => number;
  /** The handler failed: a defect, to be logged. */
  onError?: (error: unknown, question: StubQuestion) => void;
  sockets?: StubSockets;
};

const SWEEP_MILLIS = 1000;
const PROHIBITED = [{ code: EDE.PROHIBITED, text: 'this address may not ask here (access list)' }];
const OVERLOADED = failure('too many questions are being answered already');

/** The stub resolver's listeners. */
export class Stub {
  readonly #config: StubConfig;
  readonly #access: AccessList;
  readonly #notSpecial: readonly Name[];
  readonly #inFlight: InFlight;
  readonly #tcp: TcpListener;
  readonly #datagramSockets: dgram.Socket[] = [];
  readonly #servers: net.Server[] = [];
  #sweeper: NodeJS.Timeout | undefined;
  readonly #counters = {
    udp: 0,
    tcp: 0,
    answered: 0,
    truncated: 0,
    dropped: 0,
    formatErrors: 0,
    prohibited: 0,
    unanswerable: 0,
    special: 0,
    sendErrors: 0,
  };

  constructor(config: StubConfig) {
    const now = config.now ?? (() => performance.now());
    this.#config = config;
    this.#access = new AccessList(config.access);
    this.#notSpecial = (config.notSpecial ?? []).filter(({ labelCount }) => labelCount > 0);
    this.#inFlight = new InFlight(config.handler, now, config.onError ?? (() => {}));
    this.#tcp = new TcpListener((bytes, address, respond) => {
      this.#counters.tcp++;
      return this.#receive(bytes, { address, transport: 'tcp' }, respond);
    }, now);
  }

  /**
   * Opens all listeners, or none: when one cannot be opened the others are closed again and the system's error is
   * thrown (`code`, `address`, `port`).
   */
  async start(): Promise<void> {
    const sockets = this.#config.sockets ?? plainStubSockets;
    try {
      for (const at of this.#config.listen) {
        const { socket, server } = await openPair(sockets, at);
        this.#datagramSockets.push(socket);
        this.#servers.push(server);
        this.#serveDatagrams(socket);
        server.on('connection', connection => this.#tcp.accept(connection));
      }
    } catch (error) {
      await this.close();
      throw error;
    }
    this.#sweeper = setInterval(() => {
      this.#inFlight.sweep();
      this.#tcp.sweep();
    }, SWEEP_MILLIS);
    this.#sweeper.unref();
  }

  /** Where it listens, with the ports that were found for port 0. */
  addresses(): SocketAddress[] {
    return this.#datagramSockets.map(socket => {
      const { address, port } = socket.address();
      return { address, port };
    });
  }

  /** Closes all listeners and connections; questions in flight get no answer, their handlers are told. */
  async close(): Promise<void> {
    clearInterval(this.#sweeper);
    this.#inFlight.close();
    this.#tcp.close();
    const closed = this.#servers.splice(0).map(server => new Promise(resolve => server.close(resolve)));
    for (const socket of this.#datagramSockets.splice(0)) socket.close();
    await Promise.all(closed);
  }

  /** Monotonic counts, and how much is in flight right now. */
  counters(): Record<string, number> {
    return {
      ...this.#counters,
      ...this.#inFlight.counters,
      ...Object.fromEntries(
        Object.entries(this.#tcp.counters).map(([name, count]) => [`tcp.${name}`, count]),
      ),
      inFlight: this.#inFlight.size,
      waiting: this.#inFlight.waiting,
      tcpConnections: this.#tcp.size,
    };
  }

  #serveDatagrams(socket: dgram.Socket): void {
    const onSent = (error: Error | null) => {
      if (error) this.#counters.sendErrors++;
    };
    // ICMP errors of clients that are gone come back here; they concern nobody else.
    socket.on('error', () => this.#counters.sendErrors++);
    socket.on('message', (message, { address, port }) => {
      this.#counters.udp++;
      if (port === 0) {
        this.#counters.dropped++;
        return;
      }
      // A Buffer's slice() is a view; what is parsed from a plain Uint8Array are copies that keep nothing else alive.
      const bytes = new Uint8Array(message.buffer, message.byteOffset, message.length);
      this.#receive(bytes, { address, transport: 'udp' }, response => {
        // The stub may have been closed in the meantime.
        if (this.#datagramSockets.includes(socket)) socket.send(response, port, address, onSent);
      });
    });
  }

  #receive(
    bytes: Uint8Array,
    client: StubQuestion['client'],
    respond: (response: Uint8Array) => void,
  ): (() => void) | 'answered' | 'bad' {
    const parsed = parseQuery(bytes);
    if (parsed.kind === 'drop') {
      this.#counters.dropped++;
      return 'bad';
    }
    const { query } = parsed;
    if (!this.#access.allows(client.address)) {
      this.#counters.prohibited++;
      if (query === undefined) return 'bad';
      respond(composeError(query, RCODE.REFUSED, PROHIBITED));
      return 'answered';
    }
    if (parsed.kind === 'error') {
      this.#counters.formatErrors++;
      respond(
        query === undefined ? composeHeaderError(bytes, parsed.rcode) : composeError(query, parsed.rcode),
      );
      return 'answered';
    }
    return this.#answer(parsed.query, client, respond);
  }

  #answer(
    query: StubQuery,
    client: StubQuestion['client'],
    respond: (response: Uint8Array) => void,
  ): (() => void) | 'answered' {
    const rcode = unanswerable(query);
    if (rcode !== undefined) {
      this.#counters.unanswerable++;
      respond(
        composeError(query, rcode, [
          { code: EDE.NOT_SUPPORTED, text: 'this class or type is not served here' },
        ]),
      );
      return 'answered';
    }
    const special = specialAnswer(query.name, query.type);
    if (special !== undefined && !this.#notSpecial.some(name => query.name.isSubdomainOf(name))) {
      this.#counters.special++;
      respond(composeResponse(query, special, client.transport));
      return 'answered';
    }
    const waiter = this.#inFlight.join(query, client, answer => {
      const response = composeResponse(query, answer, client.transport);
      this.#counters.answered++;
      if ((response[2]! & 0x02) !== 0) this.#counters.truncated++;
      respond(response);
    });
    if (waiter === undefined) {
      respond(composeResponse(query, OVERLOADED, client.transport));
      return 'answered';
    }
    return () => this.#inFlight.leave(waiter);
  }
}

/** Both sockets of one address. With port 0 they find a port that is free for both. */
async function openPair(
  sockets: StubSockets,
  at: SocketAddress,
): Promise<{ socket: dgram.Socket; server: net.Server }> {
  for (let tries = 1; ; tries++) {
    const socket = await sockets.udp(at);
    try {
      const server = await sockets.tcp({ address: at.address, port: socket.address().port });
      return { socket, server };
    } catch (error) {
      socket.close();
      const another = at.port === 0 && (error as NodeJS.ErrnoException).code === 'EADDRINUSE';
      if (!another || tries === 10) throw error;
    }
  }
}
