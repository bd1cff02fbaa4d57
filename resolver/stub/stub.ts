/**
 * The front door: questions in over UDP and TCP, answers out.
 *
 * Decides nothing about names but the special ones; that is the handler's. Whatever comes in, nothing is thrown.
 */
import { getRandomValues } from 'node:crypto';
import type net from 'node:net';
import type { SecureContextOptions } from 'node:tls';
import type { Cidr, SocketAddress } from '../address.ts';
import type { Name } from '../dns/name.ts';
import { EDE, RCODE } from '../dns/types.ts';
import { AccessList } from './access.ts';
import { composeError, composeHeaderError, composeResponse, composeWhole, udpLimit } from './answer.ts';
import { Connections, type Receive } from './connections.ts';
import { serveFramed } from './framed.ts';
import { failure, InFlight } from './in-flight.ts';
import { KeptResponses, MAX_KEPT_OCTETS } from './kept.ts';
import { parseQuery, type StubQuery, unanswerable } from './query.ts';
import { type OpenDatagramSocket, openServer } from './sockets.ts';
import { SecureListener } from './secure-listener.ts';
import { specialAnswer } from './special-names.ts';
import { withOptions, wishesOf } from './stream-options.ts';
import type { StubAnswer, StubHandler, StubQuestion } from './types.ts';
import { UdpListener } from './udp-listener.ts';

export type StubConfig = {
  /** UDP and TCP each. Answers leave from the address that was asked, on the unspecified address too. */
  listen: readonly SocketAddress[];
  /** DNS over TLS and over HTTPS, and the certificate to show there. */
  secure?: {
    tls: readonly SocketAddress[];
    https: readonly SocketAddress[];
    /** Called for each connection, so that it can be renewed. */
    certificate: () => SecureContextOptions;
  };
  /** Who may ask; everyone else is REFUSED, and over TLS hung up on. */
  access: readonly Cidr[];
  handler: StubHandler;
  /**
   * Names that are resolved, with all below them, although they are special (special-names.ts): those with a trust
   * anchor or a server of their own. The root does not count.
   */
  notSpecial?: readonly Name[];
  /** Opens UDP sockets: `openUdp` of kernel/sockets.ts. */
  openUdp: OpenDatagramSocket;
  /** Milliseconds, monotonic. */
  now?: () => number;
  /** Milliseconds, of the day. */
  wallClock?: () => number;
  /** The handler failed: a defect, to be logged. */
  onError?: (error: unknown, question: StubQuestion) => void;
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
  readonly #connections: Connections;
  readonly #receiveTcp: Receive;
  /** Of the kinds that have doors: what one of them brings into memory is more than the rest of the stub. */
  readonly #secure: Partial<Record<'tls' | 'https', SecureListener>> = {};
  readonly #secureAt: Record<'tls' | 'https', SocketAddress[]> = { tls: [], https: [] };
  readonly #kept: KeptResponses;
  readonly #udp: UdpListener[] = [];
  readonly #servers: net.Server[] = [];
  #sweeper: NodeJS.Timeout | undefined;
  readonly #counters = {
    tcp: 0,
    tls: 0,
    https: 0,
    answered: 0,
    truncated: 0,
    dropped: 0,
    formatErrors: 0,
    prohibited: 0,
    unanswerable: 0,
    special: 0,
  };

  constructor(config: StubConfig) {
    const now = config.now ?? (() => performance.now());
    this.#config = config;
    this.#access = new AccessList(config.access);
    this.#notSpecial = (config.notSpecial ?? []).filter(({ labelCount }) => labelCount > 0);
    this.#inFlight = new InFlight(config.handler, now, config.onError ?? (() => {}));
    this.#kept = new KeptResponses({
      now,
      wallClock: config.wallClock ?? Date.now,
      hashKeys: getRandomValues(new Uint32Array(2)),
    });
    this.#connections = new Connections(now);
    this.#receiveTcp = this.#receiver('tcp');
  }

  /**
   * Opens all listeners, or none: when one cannot be opened the others are closed again and the system's error is
   * thrown (`code`, `address`, `port`).
   */
  async start(): Promise<void> {
    try {
      for (const at of this.#config.listen) {
        const { listener, server } = await this.#openPair(at);
        this.#udp.push(listener);
        this.#servers.push(server);
        server.on('connection', connection => {
          const place = this.#connections.admit(connection);
          if (place !== undefined) serveFramed(connection, place, this.#receiveTcp);
        });
      }
      for (const kind of ['tls', 'https'] as const) {
        for (const at of this.#config.secure?.[kind] ?? []) await this.#openSecure(kind, at);
      }
    } catch (error) {
      await this.close();
      throw error;
    }
    this.#sweeper = setInterval(() => {
      this.#inFlight.sweep();
      this.#connections.sweep();
    }, SWEEP_MILLIS);
    this.#sweeper.unref();
  }

  /** Where it listens, with the ports that were found for port 0. */
  addresses(): SocketAddress[] {
    return this.#udp.map(({ at }) => at);
  }

  /** Where it listens with TLS. */
  secureAddresses(): Readonly<Record<'tls' | 'https', readonly SocketAddress[]>> {
    return this.#secureAt;
  }

  /** Closes all listeners and connections; questions in flight get no answer, their handlers are told. */
  async close(): Promise<void> {
    clearInterval(this.#sweeper);
    this.#inFlight.close();
    this.#connections.close();
    const closed = this.#servers.splice(0).map(server => new Promise(resolve => server.close(resolve)));
    for (const listener of this.#udp.splice(0)) listener.close();
    await Promise.all(closed);
  }

  /** Monotonic counts, and how much is in flight right now. */
  counters(): Record<string, number> {
    const counters: Record<string, number> = { ...this.#counters };
    for (const listener of this.#udp) {
      for (const [name, count] of Object.entries(listener.counters()))
        counters[name] = (counters[name] ?? 0) + count;
    }
    return {
      ...counters,
      ...this.#inFlight.counters,
      ...prefixed('tcp', this.#connections.counters),
      ...prefixed('tls', this.#secure.tls?.counters ?? {}),
      ...prefixed('https', this.#secure.https?.counters ?? {}),
      ...prefixed('kept', this.#kept.counters),
      inFlight: this.#inFlight.size,
      waiting: this.#inFlight.waiting,
      tcpConnections: this.#connections.size,
    };
  }

  /**
   * The response to a query that came over a stream, from kept bytes; undefined when it has to go the whole way.
   *
   * Whoever asks must be allowed to ask.
   */
  respondFromKept(query: Uint8Array): Uint8Array | undefined {
    if (query.length > MAX_KEPT_OCTETS) return undefined;
    streamed.set(query);
    this.#kept.tick();
    const octets = this.#kept.answer(streamed, 0, query.length, 'tcp');
    return octets === 0 ? undefined : streamed.slice(0, octets);
  }

  /** What takes questions that come over streams of one kind. */
  #receiver(transport: 'tcp' | 'tls' | 'https'): Receive {
    return (bytes, address, respond) => {
      this.#counters[transport]++;
      const { padding, keepalive } = wishesOf(bytes);
      // In clear, padding hides nothing; over HTTPS, HTTP says how long connections are kept.
      const given = {
        padding: padding && transport !== 'tcp',
        keepalive: keepalive && transport !== 'https',
      };
      const send = (response: Uint8Array): void => respond(withOptions(response, given));
      const kept = this.#access.allows(address) ? this.respondFromKept(bytes) : undefined;
      if (kept === undefined) return this.#receive(bytes, { address, transport }, send);
      send(kept);
      return 'answered';
    };
  }

  #secureListener(kind: 'tls' | 'https'): SecureListener {
    return new SecureListener(kind, {
      connections: this.#connections,
      certificate: () => this.#config.secure!.certificate(),
      receive: this.#receiver(kind),
      allows: address => this.#access.allows(address),
    });
  }

  async #openSecure(kind: 'tls' | 'https', at: SocketAddress): Promise<void> {
    const server = await openServer(at, false);
    this.#servers.push(server);
    this.#secureAt[kind].push({ address: at.address, port: (server.address() as net.AddressInfo).port });
    this.#secure[kind] ??= this.#secureListener(kind);
    const listener = this.#secure[kind];
    server.on('connection', connection => listener.accept(connection));
  }

  /** Both sockets of one address. With port 0 they find a port that is free for both. */
  async #openPair(at: SocketAddress): Promise<{ listener: UdpListener; server: net.Server }> {
    for (let tries = 1; ; tries++) {
      const listener = new UdpListener(at, {
        open: this.#config.openUdp,
        access: this.#access,
        kept: this.#kept,
        receive: (bytes, address, respond) => this.#receive(bytes, { address, transport: 'udp' }, respond),
      });
      try {
        return { listener, server: await openServer(listener.at) };
      } catch (error) {
        listener.close();
        const another = at.port === 0 && (error as NodeJS.ErrnoException).code === 'EADDRINUSE';
        if (!another || tries === 10) throw error;
      }
    }
  }

  /** What is answered without asking anybody (special-names.ts); undefined where the handler answers. */
  specialAnswer(name: Name, type: number): StubAnswer | undefined {
    return this.#notSpecial.some(above => name.isSubdomainOf(above)) ? undefined : specialAnswer(name, type);
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
    const special = this.specialAnswer(query.name, query.type);
    if (special !== undefined) {
      this.#counters.special++;
      respond(composeResponse(query, special, sizeOf(client)));
      return 'answered';
    }
    const waiter = this.#inFlight.join(query, client, answer => {
      const response = this.#compose(query, answer, sizeOf(client));
      this.#counters.answered++;
      if ((response[2]! & 0x02) !== 0) this.#counters.truncated++;
      respond(response);
    });
    if (waiter === undefined) {
      respond(composeResponse(query, OVERLOADED, sizeOf(client)));
      return 'answered';
    }
    return () => this.#inFlight.leave(waiter);
  }

  /** Composes the answer, and keeps it where it has a lease. */
  #compose(query: StubQuery, answer: StubAnswer, transport: 'udp' | 'tcp'): Uint8Array {
    const whole = answer.lease && composeWhole(query, answer, MAX_KEPT_OCTETS);
    if (whole === undefined) return composeResponse(query, answer, transport);
    this.#kept.keep(query, whole, answer.authenticated, answer.lease!);
    const limit = transport === 'tcp' ? whole.length : udpLimit(query.edns?.udpSize ?? -1);
    return whole.length <= limit ? whole : composeResponse(query, answer, transport);
  }
}

/** Streams are alike as far as room goes. */
function sizeOf({ transport }: StubQuestion['client']): 'udp' | 'tcp' {
  return transport === 'udp' ? 'udp' : 'tcp';
}

function prefixed(prefix: string, counters: Record<string, number>): Record<string, number> {
  return Object.fromEntries(Object.entries(counters).map(([name, count]) => [`${prefix}.${name}`, count]));
}

/** Where queries that came over streams are answered from kept bytes. */
const streamed = new Uint8Array(2 * MAX_KEPT_OCTETS);
