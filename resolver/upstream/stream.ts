/** Questions over TCP or TLS to one server: few connections, pipelined, kept open for a while (RFC 7766, RFC 7858). */
import type { Socket } from 'node:net';
import { UpstreamError } from './error.ts';
import { idOf, type Judgement, judge, withId } from './query.ts';
import type { RandomSource } from './random.ts';
import { Deframer, frame } from './tcp-framing.ts';

const MAX_MESSAGE = 65535;
/** RFC 7766 section 6.2.1.1 wants few connections; a second one only when so many questions wait on the first. */
const MAX_OUTSTANDING = 512;
const MAX_CONNECTIONS = 2;
/** An idle connection is kept so long, unless the server says otherwise (RFC 7828); at most `MAX_IDLE_MILLIS`. */
const IDLE_MILLIS = 10_000;
const MAX_IDLE_MILLIS = 120_000;
/** A question that waited so long while nothing at all was heard: the connection is dead, not the answer slow. */
const SILENCE_MILLIS = 1000;

/** A question on a connection. */
export type StreamQuestion = {
  /** Its ID is replaced. */
  query: Uint8Array;
  end: number;
  /** Called with a message that is ours to keep. */
  answered(message: Uint8Array, judgement: Exclude<Judgement, 'foreign'>): void;
  lost(error: UpstreamError): void;
};

/** Opens a connection; `ready` is called when it may be written to, `failed` when it never will. Returns how to stop. */
export type Dial = (ready: (socket: Socket) => void, failed: (why: string) => void) => () => void;

/** A place on a connection. */
export type StreamAsking = {
  /** The question is no longer of interest. */
  giveUp(): void;
  /** What the server said about how long an idle connection may be kept (RFC 7828 section 3.2.2). */
  keepFor(millis: number): void;
};

export type StreamConfig = {
  dial: Dial;
  random: RandomSource;
  now: () => number;
  counters: { foreign: number; connections: number };
};

/** The connections to one server. */
export class Streams {
  readonly #config: StreamConfig;
  readonly #connections = new Set<Connection>();

  constructor(config: StreamConfig) {
    this.#config = config;
  }

  get open(): number {
    return this.#connections.size;
  }

  /**
   * Asks. A connection that the server closed while it rested says nothing about the server, so the question is asked
   * once more on a new one (RFC 7766 section 6.2.4).
   */
  ask(question: StreamQuestion): StreamAsking {
    const connection = this.#pick();
    if (connection === undefined) {
      question.lost(new UpstreamError('overload', 'too many questions wait on its TCP connections'));
      return { giveUp: () => {}, keepFor: () => {} };
    }
    let current = connection;
    let outstanding: Outstanding;
    const put = (on: Connection, mayRepeat: boolean) => {
      current = on;
      outstanding = {
        ...question,
        query: question.query.slice(),
        lost: error => {
          const fresh = mayRepeat ? this.#pick() : undefined;
          if (fresh === undefined) question.lost(error);
          else put(fresh, false);
        },
        askedAt: this.#config.now(),
      };
      on.ask(outstanding);
    };
    put(connection, connection.hasAnswered);
    return {
      giveUp: () => current.giveUp(outstanding),
      keepFor: millis => current.keepFor(millis),
    };
  }

  /** Ends all connections; those who wait are not told. */
  close(): void {
    for (const connection of this.#connections) connection.end(undefined);
  }

  #pick(): Connection | undefined {
    let best: Connection | undefined;
    for (const connection of this.#connections) {
      if (!connection.takesMore) continue;
      const sooner = best === undefined || (best.isSilent && !connection.isSilent);
      const emptier = best?.isSilent === connection.isSilent && connection.outstanding < best.outstanding;
      if (sooner || emptier) best = connection;
    }
    // Rather a new one than one that seems to be dead.
    const mayOpen = best?.isSilent && this.#connections.size < MAX_CONNECTIONS;
    if (best !== undefined && best.outstanding < MAX_OUTSTANDING && !mayOpen) return best;
    if (this.#connections.size >= MAX_CONNECTIONS) {
      for (const connection of this.#connections) if (!connection.takesMore) connection.end('given up');
      if (this.#connections.size >= MAX_CONNECTIONS) return undefined;
    }
    this.#config.counters.connections++;
    const made = new Connection(this.#config, () => this.#connections.delete(made));
    this.#connections.add(made);
    made.open(this.#config.dial);
    return made;
  }
}

type Outstanding = StreamQuestion & { askedAt: number };

class Connection {
  readonly #config: StreamConfig;
  readonly #onEnd: () => void;
  readonly #byId = new Map<number, Outstanding>();
  /** Given up; their answers may still come. */
  readonly #past = new Set<number>();
  readonly #deframer = new Deframer(MAX_MESSAGE);
  #socket: Socket | undefined;
  #stopDialling: (() => void) | undefined;
  #heardAt = Number.NEGATIVE_INFINITY;
  #readyAt = Number.NEGATIVE_INFINITY;
  #idleMillis = IDLE_MILLIS;
  #takesMore = true;
  #ended = false;
  #idle: NodeJS.Timeout | undefined;

  constructor(config: StreamConfig, onEnd: () => void) {
    this.#config = config;
    this.#onEnd = onEnd;
  }

  get outstanding(): number {
    return this.#byId.size;
  }

  get hasAnswered(): boolean {
    return this.#heardAt > Number.NEGATIVE_INFINITY;
  }

  /** Open, and somebody has waited long for an answer while nothing at all came. */
  get isSilent(): boolean {
    const oldest: Outstanding | undefined = this.#byId.values().next().value;
    if (oldest === undefined || this.#socket === undefined) return false;
    const since = Math.max(oldest.askedAt, this.#heardAt, this.#readyAt);
    return this.#config.now() - since >= SILENCE_MILLIS;
  }

  get takesMore(): boolean {
    return this.#takesMore && !this.#ended;
  }

  open(dial: Dial): void {
    const stop = dial(
      socket => this.#ready(socket),
      why => this.end(why),
    );
    if (!this.#ended && this.#socket === undefined) this.#stopDialling = stop;
  }

  ask(question: Outstanding): void {
    if (this.#ended) {
      question.lost(new UpstreamError('network', 'the connection is closed'));
      return;
    }
    let id = this.#config.random.uint16();
    while (this.#byId.has(id) || this.#past.has(id)) id = this.#config.random.uint16();
    withId(question.query, id);
    this.#byId.set(id, question);
    clearTimeout(this.#idle);
    this.#socket?.write(frame(question.query));
  }

  giveUp(question: Outstanding): void {
    const id = idOf(question.query);
    if (this.#byId.get(id) !== question) return;
    this.#byId.delete(id);
    if (this.#past.size < MAX_OUTSTANDING) this.#past.add(id);
    else this.#takesMore = false; // it owes us too much
    // More likely a filter, or a NAT that forgot the connection, than a slow answer: TCP itself would find out only after
    // minutes, and steady questions would keep the connection from ever resting.
    const since = Math.max(question.askedAt, this.#heardAt);
    if (this.#config.now() - since >= SILENCE_MILLIS) this.#takesMore = false;
    this.#restWhenDone();
  }

  keepFor(millis: number): void {
    this.#idleMillis = Math.min(millis, MAX_IDLE_MILLIS);
    // RFC 7828 section 3.4: a client that is told 0 closes as soon as it has all answers, and asks nothing more.
    if (millis === 0) this.#takesMore = false;
    this.#restWhenDone();
  }

  /** Closes, and tells everyone who waits why, if there is a why. */
  end(why: string | undefined): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#idle);
    this.#onEnd();
    this.#stopDialling?.();
    this.#socket?.destroy();
    const questions = [...this.#byId.values()];
    this.#byId.clear();
    if (why === undefined) return;
    for (const question of questions) question.lost(new UpstreamError('network', why));
  }

  #ready(socket: Socket): void {
    this.#stopDialling = undefined;
    this.#socket = socket;
    this.#readyAt = this.#config.now();
    socket.setNoDelay(true);
    socket.on('data', chunk => {
      if (!this.#deframer.push(chunk, message => this.#receive(message))) this.end('its message is too long');
    });
    socket.on('error', (error: NodeJS.ErrnoException) =>
      this.end(`TCP failed: ${error.code ?? error.message}`),
    );
    socket.on('close', () => this.end('the server closed the TCP connection'));
    socket.cork();
    for (const { query } of this.#byId.values()) socket.write(frame(query));
    socket.uncork();
    this.#restWhenDone();
  }

  #receive(message: Uint8Array): boolean {
    const id = message.length < 2 ? -1 : idOf(message);
    const question = this.#byId.get(id);
    const judgement = question === undefined ? 'foreign' : judge(message, question.query, question.end);
    this.#heardAt = this.#config.now();
    if (question === undefined || judgement === 'foreign') {
      if (!this.#past.delete(id)) this.#config.counters.foreign++;
      return !this.#ended;
    }
    this.#byId.delete(id);
    question.answered(message, judgement);
    this.#restWhenDone();
    return !this.#ended;
  }

  #restWhenDone(): void {
    if (this.#byId.size > 0 || this.#ended || this.#socket === undefined) return;
    clearTimeout(this.#idle);
    if (!this.#takesMore) {
      this.end('given up');
      return;
    }
    this.#idle = setTimeout(() => this.end('rested'), this.#idleMillis);
    this.#idle.unref();
  }
}
