/** Questions over TCP: one connection per server, pipelined, closed after a short rest (RFC 7766). */
import type net from 'node:net';
import type { SocketAddress } from '../address.ts';
import { UpstreamError } from './error.ts';
import { idOf, judge, withId } from './query.ts';
import type { UpstreamSockets } from './sockets.ts';
import { Deframer, frame } from './tcp-framing.ts';

const IDLE_MILLIS = 3000;
const MAX_MESSAGE = 65535;
/** RFC 7766 section 6.2.1.1 wants few connections; a second one only when so many questions wait on the first. */
const MAX_OUTSTANDING = 100;

/** A whole message; `rejection`: a bare header that says no (query.ts). */
export type TcpAnswer = { message: Uint8Array; rejection: boolean };

type Outstanding = {
  query: Uint8Array;
  resolve: (answer: TcpAnswer) => void;
  reject: (error: UpstreamError) => void;
};

/** The TCP side of an upstream. */
export class TcpExchange {
  readonly #sockets: UpstreamSockets;
  readonly #random: (octets: number) => Uint8Array;
  readonly #onForeign: () => void;
  /** The newest connection to each server; earlier ones live until their questions are answered. */
  readonly #connections = new Map<string, Connection>();
  readonly #open = new Set<Connection>();

  constructor(sockets: UpstreamSockets, random: (octets: number) => Uint8Array, onForeign: () => void) {
    this.#sockets = sockets;
    this.#random = random;
    this.#onForeign = onForeign;
  }

  /**
   * Asks `query` (its ID is replaced) and returns the whole answer.
   *
   * A connection that the server closed while it rested says nothing about the server, so the question is asked once
   * more on a new one (RFC 7766 section 6.2.4). Rejects with UpstreamError `network` or `aborted`.
   */
  async ask(server: SocketAddress, query: Uint8Array, signal: AbortSignal): Promise<TcpAnswer> {
    const connection = await this.#connectionTo(server, signal);
    const reused = connection.hasAnswered;
    try {
      return await connection.ask(query.slice(), this.#random, signal);
    } catch (error) {
      if (!reused || signal.aborted) throw error;
      const fresh = await this.#connectionTo(server, signal);
      return fresh.ask(query.slice(), this.#random, signal);
    }
  }

  /** Ends all connections at once. */
  close(): void {
    for (const connection of this.#open) connection.end('the upstream is closed');
  }

  async #connectionTo(server: SocketAddress, signal: AbortSignal): Promise<Connection> {
    const key = `${server.address}#${server.port}`;
    const usable = this.#connections.get(key);
    if (usable !== undefined && usable.outstanding < MAX_OUTSTANDING) return usable;
    let socket: net.Socket;
    try {
      socket = await this.#sockets.tcp(server);
    } catch (cause) {
      throw new UpstreamError('network', `TCP cannot be opened: ${String(cause)}`);
    }
    if (signal.aborted) {
      socket.on('error', () => {}).destroy();
      throw new UpstreamError('aborted', 'nobody waits any more');
    }
    const replace = () => {
      if (this.#connections.get(key) === connection) this.#connections.delete(key);
    };
    const connection = new Connection(socket, this.#onForeign, replace, () => {
      this.#open.delete(connection);
      replace();
    });
    this.#open.add(connection);
    this.#connections.set(key, connection);
    return connection;
  }
}

class Connection {
  readonly #socket: net.Socket;
  readonly #onForeign: () => void;
  readonly #onSilent: () => void;
  readonly #onEnd: () => void;
  readonly #byId = new Map<number, Outstanding>();
  readonly #deframer = new Deframer(MAX_MESSAGE);
  #answers = 0;
  #ended = false;
  #idle: NodeJS.Timeout | undefined;

  /** `onSilent`: a question was given up and nothing was heard meanwhile; new ones had better go elsewhere. */
  constructor(socket: net.Socket, onForeign: () => void, onSilent: () => void, onEnd: () => void) {
    this.#socket = socket;
    this.#onForeign = onForeign;
    this.#onSilent = onSilent;
    this.#onEnd = onEnd;
    socket.setNoDelay(true);
    socket.on('data', chunk => this.#deframer.push(chunk, message => this.#receive(message)));
    socket.on('error', (error: NodeJS.ErrnoException) =>
      this.end(`TCP failed: ${error.code ?? error.message}`),
    );
    socket.on('close', () => this.end('the server closed the TCP connection'));
    socket.on('end', () => this.end('the server closed the TCP connection'));
  }

  get outstanding(): number {
    return this.#byId.size;
  }

  get hasAnswered(): boolean {
    return this.#answers > 0;
  }

  ask(query: Uint8Array, random: (octets: number) => Uint8Array, signal: AbortSignal): Promise<TcpAnswer> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(new UpstreamError('aborted', 'nobody waits any more'));
      if (this.#ended) return reject(new UpstreamError('network', 'the server closed the TCP connection'));
      let id = idOf(random(2));
      while (this.#byId.has(id)) id = (id + 1) & 0xffff;
      this.#byId.set(id, { query: withId(query, id), resolve, reject });
      clearTimeout(this.#idle);
      this.#socket.write(frame(query));
      const before = this.#answers;
      const onAbort = () => {
        if (!this.#byId.delete(id)) return;
        reject(new UpstreamError('aborted', 'nobody waits any more'));
        // More likely a filter, or a NAT that forgot the connection, than a slow answer: TCP itself would find out only
        // after minutes, and steady questions would keep the connection from ever resting.
        const silent = this.#answers === before;
        if (silent) this.#onSilent();
        if (silent && this.#byId.size === 0) this.end('no answer over TCP');
        else this.#restWhenDone();
      };
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** Closes, and tells everyone who waits why. */
  end(why: string): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#idle);
    this.#onEnd();
    this.#socket.destroy();
    for (const { reject } of this.#byId.values()) reject(new UpstreamError('network', why));
    this.#byId.clear();
  }

  #receive(message: Uint8Array): boolean {
    const outstanding = message.length < 2 ? undefined : this.#byId.get(idOf(message));
    const judgement = outstanding === undefined ? 'foreign' : judge(message, outstanding.query);
    if (outstanding === undefined || judgement === 'foreign') {
      this.#onForeign();
      return true;
    }
    this.#answers++;
    this.#byId.delete(idOf(message));
    if (judgement === 'truncated')
      outstanding.reject(new UpstreamError('malformed', 'truncated even over TCP'));
    else outstanding.resolve({ message, rejection: judgement === 'rejection' });
    this.#restWhenDone();
    return true;
  }

  #restWhenDone(): void {
    if (this.#byId.size > 0 || this.#ended) return;
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => this.end('rested'), IDLE_MILLIS);
    this.#idle.unref();
  }
}
