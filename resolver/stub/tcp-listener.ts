/** The stub's TCP side: many questions on one connection, answered as they are ready (RFC 7766); bounded throughout. */
import type net from 'node:net';
import { Deframer, frame } from '../upstream/tcp-framing.ts';

/** Connections in all and from one address; one more costs the longest idle one its place. */
const MAX_CONNECTIONS = 512;
const MAX_CONNECTIONS_PER_CLIENT = 256;
/** Without a whole question for so long, and none outstanding, a connection is closed (RFC 7766 section 6.2.3). */
const IDLE_MILLIS = 15_000;
/** No honest question is longer, padding included (RFC 8467 pads to 128 octets). */
const MAX_QUESTION = 4096;
/** With so many questions unanswered we read no more for the time being. */
const MAX_OUTSTANDING = 128;
/** Answers that the client does not fetch. */
const MAX_UNFETCHED = 1 << 20;
/** Messages that are not questions; after these it is not a DNS client. */
const MAX_BAD_MESSAGES = 8;

/**
 * Takes a message from a client. `respond` is called once, at any time, unless the returned function, which gives the
 * question up, is called first. `answered`: it has been called already. `bad`: it never will be.
 */
export type Receive = (
  bytes: Uint8Array,
  address: string,
  respond: (response: Uint8Array) => void,
) => (() => void) | 'answered' | 'bad';

/** All TCP connections of the stub. */
export class TcpListener {
  readonly #receive: Receive;
  readonly #now: () => number;
  readonly #sessions = new Set<Session>();
  readonly counters = { connections: 0, evicted: 0, refused: 0, idle: 0, misbehaved: 0 };

  constructor(receive: Receive, now: () => number) {
    this.#receive = receive;
    this.#now = now;
  }

  get size(): number {
    return this.#sessions.size;
  }

  /** A new connection (of a server with `allowHalfOpen`). */
  accept(socket: net.Socket): void {
    this.counters.connections++;
    const address = socket.remoteAddress ?? '';
    const own = [...this.#sessions].filter(session => session.address === address);
    const roomFor = own.length >= MAX_CONNECTIONS_PER_CLIENT ? own : [...this.#sessions];
    const full = own.length >= MAX_CONNECTIONS_PER_CLIENT || this.#sessions.size >= MAX_CONNECTIONS;
    if (full && !this.#evict(roomFor)) {
      this.counters.refused++;
      socket.on('error', () => {}).destroy();
      return;
    }
    const session: Session = new Session(socket, address, this.#receive, this.#now, misbehaved => {
      this.#sessions.delete(session);
      if (misbehaved) this.counters.misbehaved++;
    });
    this.#sessions.add(session);
  }

  /** Closes idle connections; to be called about once a second. */
  sweep(): void {
    const idleSince = this.#now() - IDLE_MILLIS;
    for (const session of this.#sessions) {
      if (session.outstanding > 0 || session.lastQuestionAt > idleSince) continue;
      this.counters.idle++;
      session.destroy();
    }
  }

  close(): void {
    for (const session of this.#sessions) session.destroy();
  }

  #evict(candidates: readonly Session[]): boolean {
    let oldest: Session | undefined;
    for (const session of candidates) {
      if (session.outstanding > 0) continue;
      if (oldest === undefined || session.lastQuestionAt < oldest.lastQuestionAt) oldest = session;
    }
    if (oldest === undefined) return false;
    this.counters.evicted++;
    oldest.destroy();
    return true;
  }
}

/** One connection. */
class Session {
  readonly address: string;
  outstanding = 0;
  lastQuestionAt: number;
  readonly #socket: net.Socket;
  readonly #receive: Receive;
  readonly #now: () => number;
  readonly #onEnd: (misbehaved: boolean) => void;
  readonly #deframer = new Deframer(MAX_QUESTION);
  readonly #giveUps = new Set<() => void>();
  #badMessages = 0;
  #clientDone = false;
  #ended = false;

  constructor(
    socket: net.Socket,
    address: string,
    receive: Receive,
    now: () => number,
    onEnd: (misbehaved: boolean) => void,
  ) {
    this.#socket = socket;
    this.address = address;
    this.#receive = receive;
    this.#now = now;
    this.#onEnd = onEnd;
    this.lastQuestionAt = now();
    socket.setNoDelay(true);
    socket.on('data', chunk => this.#read(chunk));
    // It may have said all it wants to ask, and still wants the answers.
    socket.on('end', () => {
      this.#clientDone = true;
      this.#endWhenDone();
    });
    socket.on('error', () => this.destroy());
    socket.on('close', () => this.destroy());
  }

  destroy(misbehaved = false): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#socket.destroy();
    this.#onEnd(misbehaved);
    for (const giveUp of this.#giveUps) giveUp();
    this.#giveUps.clear();
  }

  #read(chunk: Uint8Array): void {
    const fits = this.#deframer.push(chunk, message => {
      this.#question(message);
      return !this.#ended;
    });
    if (!fits) this.destroy(true);
    if (this.outstanding >= MAX_OUTSTANDING) this.#socket.pause();
  }

  #question(message: Uint8Array): void {
    this.lastQuestionAt = this.#now();
    this.outstanding++;
    let giveUp: (() => void) | undefined;
    let responded = false;
    const outcome = this.#receive(message, this.address, response => {
      responded = true;
      if (giveUp !== undefined) this.#giveUps.delete(giveUp);
      this.#respond(response);
    });
    if (outcome === 'bad') {
      this.outstanding--;
      if (++this.#badMessages >= MAX_BAD_MESSAGES) this.destroy(true);
    } else if (outcome !== 'answered' && !responded) {
      giveUp = outcome;
      this.#giveUps.add(giveUp);
    }
  }

  #respond(response: Uint8Array): void {
    if (this.#ended) return;
    this.outstanding--;
    this.#socket.write(frame(response));
    if (this.#socket.writableLength > MAX_UNFETCHED) {
      this.destroy(true);
      return;
    }
    if (this.outstanding < MAX_OUTSTANDING / 2 && this.#socket.isPaused()) this.#socket.resume();
    this.#endWhenDone();
  }

  #endWhenDone(): void {
    if (this.#clientDone && this.outstanding === 0 && !this.#ended) this.#socket.end();
  }
}
