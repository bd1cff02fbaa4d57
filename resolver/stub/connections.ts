/** The stub's connections, whatever is spoken over them: who gets a place, and who loses it. */
import type { Duplex } from 'node:stream';
import type net from 'node:net';
import { clientOf } from './access.ts';

/** Connections in all and of one client; one more costs an idle one its place. */
const MAX_CONNECTIONS = 512;
const MAX_CONNECTIONS_PER_CLIENT = 256;
/**
 * Without a whole question for so long, and none outstanding, a connection is closed (RFC 7766 section 6.2.3); also one
 * whose handshake or question never ends. What edns-tcp-keepalive promises (RFC 7828).
 */
export const IDLE_MILLIS = 15_000;
/** Questions of one connection that are being answered; over TCP and TLS no more are read until there are fewer. */
export const MAX_OUTSTANDING = 128;
/** Answers that the client does not fetch. */
export const MAX_UNFETCHED = 1 << 20;
/** Messages that are not questions; after these it is not a DNS client. */
const MAX_BAD_MESSAGES = 8;
/** No honest question is longer, padding included (RFC 8467 pads to 128 octets). */
export const MAX_QUESTION = 4096;

/**
 * Takes a message from a client. `respond` is called once, at any time, unless the returned function, which gives the
 * question up, is called first. `answered`: it has been called already. `bad`: it never will be.
 */
export type Receive = (
  bytes: Uint8Array,
  address: string,
  respond: (response: Uint8Array) => void,
) => (() => void) | 'answered' | 'bad';

/** All connections of the stub. */
export class Connections {
  readonly #now: () => number;
  readonly #places = new Map<string, Set<Place>>();
  #size = 0;
  readonly counters = { connections: 0, evicted: 0, refused: 0, idle: 0, misbehaved: 0 };

  constructor(now: () => number) {
    this.#now = now;
  }

  get size(): number {
    return this.#size;
  }

  /** A place for a new connection; undefined, and the connection closed, when there is none. */
  admit(socket: net.Socket): Place | undefined {
    this.counters.connections++;
    const address = socket.remoteAddress ?? '';
    const client = clientOf(address);
    const own = this.#places.get(client)?.size ?? 0;
    const from =
      own >= MAX_CONNECTIONS_PER_CLIENT
        ? client
        : this.#size >= MAX_CONNECTIONS
          ? this.#greediest()
          : undefined;
    if (from !== undefined && !this.#evict(from)) {
      this.counters.refused++;
      socket.on('error', () => {}).destroy();
      return undefined;
    }
    const place = new Place(socket, address, this.#now, misbehaved => {
      const places = this.#places.get(client)!;
      places.delete(place);
      if (places.size === 0) this.#places.delete(client);
      this.#size--;
      if (misbehaved) this.counters.misbehaved++;
    });
    const places = this.#places.get(client);
    if (places === undefined) this.#places.set(client, new Set([place]));
    else places.add(place);
    this.#size++;
    return place;
  }

  /** Closes idle connections; to be called about once a second. */
  sweep(): void {
    const idleSince = this.#now() - IDLE_MILLIS;
    for (const place of this.#all()) {
      if (place.outstanding > 0 || place.lastQuestionAt > idleSince) continue;
      this.counters.idle++;
      place.end();
    }
  }

  close(): void {
    for (const place of this.#all()) place.end();
  }

  #all(): Place[] {
    return [...this.#places.values()].flatMap(places => [...places]);
  }

  /** Who has the most connections pays for one more, so that a flood of them displaces itself. */
  #greediest(): string {
    let most = '';
    let count = -1;
    for (const [client, places] of this.#places) {
      if (places.size <= count) continue;
      most = client;
      count = places.size;
    }
    return most;
  }

  /** Closes this client's longest idle connection; false when all wait for answers. */
  #evict(client: string): boolean {
    let oldest: Place | undefined;
    for (const place of this.#places.get(client) ?? []) {
      if (place.outstanding > 0) continue;
      if (oldest === undefined || place.lastQuestionAt < oldest.lastQuestionAt) oldest = place;
    }
    if (oldest === undefined) return false;
    this.counters.evicted++;
    oldest.end();
    return true;
  }
}

/** One connection, as far as limits go. */
export class Place {
  readonly address: string;
  /** Questions that are neither answered nor given up. */
  outstanding = 0;
  lastQuestionAt: number;
  ended = false;
  readonly #now: () => number;
  readonly #onEnd: (misbehaved: boolean) => void;
  readonly #giveUps = new Set<() => void>();
  #stream: Duplex;
  #badMessages = 0;

  constructor(socket: net.Socket, address: string, now: () => number, onEnd: (misbehaved: boolean) => void) {
    this.address = address;
    this.#now = now;
    this.#onEnd = onEnd;
    this.lastQuestionAt = now();
    this.#stream = socket;
    socket.setNoDelay(true);
    this.over(socket);
  }

  /** What is spoken over from now on: the socket itself, or TLS on it. Errors end the connection, no more. */
  over(stream: Duplex): void {
    this.#stream = stream;
    stream.on('error', () => this.end());
    stream.on('close', () => this.end());
  }

  /**
   * Hands a whole question over; `respond` is called once or never. What is returned gives the question up.
   *
   * Too many messages that are no questions end the connection.
   */
  ask(
    receive: Receive,
    message: Uint8Array,
    respond: (response: Uint8Array) => void,
    onBad?: () => void,
  ): () => void {
    this.lastQuestionAt = this.#now();
    this.outstanding++;
    let open = true;
    const close = (): boolean => {
      if (!open) return false;
      open = false;
      this.outstanding--;
      this.#giveUps.delete(giveUp);
      return !this.ended;
    };
    let abandon: (() => void) | undefined;
    const giveUp = (): void => {
      if (!open) return;
      close();
      abandon?.();
    };
    const outcome = receive(message, this.address, response => {
      if (close()) respond(response);
    });
    if (outcome === 'bad') {
      if (close()) onBad?.();
      if (++this.#badMessages >= MAX_BAD_MESSAGES) this.end(true);
    } else if (outcome !== 'answered' && open) {
      abandon = outcome;
      this.#giveUps.add(giveUp);
    }
    return giveUp;
  }

  end(misbehaved = false): void {
    if (this.ended) return;
    this.ended = true;
    this.#stream.destroy();
    this.#onEnd(misbehaved);
    for (const giveUp of this.#giveUps) giveUp();
    this.#giveUps.clear();
  }
}
