/**
 * Questions over UDP to one server, from ports that change often.
 *
 * What a forger off the path has to guess (RFC 5452): the port, which the kernel draws for each socket from its ephemeral
 * range (28,232 ports by default, 14.8 bits), the ID (16 bits), and the case of the letters of the question (one bit
 * each). A port serves at most 16 questions begun within half a second, so that neither scanning for it nor learning it
 * from one question pays; a fresh one for each costs more than all the rest of asking. Who guesses is heard: after 8
 * messages that answer nothing, the questions of that port move to TCP.
 */
import type { SocketAddress } from '../address.ts';
import { UpstreamError } from './error.ts';
import { idOf, type Judgement, judge } from './query.ts';
import type { RandomSource } from './random.ts';
import type { UdpSocket, UpstreamSockets } from './sockets.ts';

const MAX_QUESTIONS = 16;
const MAX_AGE_MILLIS = 500;
/** So many messages that are not the answer, and we stop listening for it where anyone can shout: TCP is next. */
const MAX_FOREIGN = 8;

/** A question on a port. */
export type UdpQuestion = {
  /** With the ID that `Port.freeId` gave. */
  query: Uint8Array;
  /** Where its question section ends. */
  end: number;
  /**
   * Called with what answers the question by its header; `message` may be overwritten after the call. Returns false for
   * what turns out to be a forgery: the question then stays open.
   */
  answered(message: Uint8Array, judgement: Exclude<Judgement, 'foreign'>): boolean;
  /** Nothing will come: somebody floods the port, or the server cannot be reached. */
  lost(why: 'flooded' | UpstreamError): void;
};

export type UdpCounters = { foreign: number; late: number; flooded: number };

/** The UDP side of one server. */
export class UdpPorts {
  readonly #open: (receive: Parameters<UpstreamSockets['udp']>[1]) => UdpSocket;
  readonly #random: RandomSource;
  readonly #counters: UdpCounters;
  readonly #ports = new Set<Port>();
  #current: Port | undefined;

  constructor(server: SocketAddress, sockets: UpstreamSockets, random: RandomSource, counters: UdpCounters) {
    this.#open = receive => sockets.udp(server, receive);
    this.#random = random;
    this.#counters = counters;
  }

  /** The port for the next question. Throws UpstreamError `network`. */
  port(): Port {
    if (this.#current?.takesMore) return this.#current;
    try {
      this.#current = new Port(this.#open, this.#random, this.#counters, port => this.#ports.delete(port));
    } catch (cause) {
      throw unreachable((cause as NodeJS.ErrnoException).code ?? String(cause));
    }
    this.#ports.add(this.#current);
    return this.#current;
  }

  /** Closes all ports without a word to those who wait. */
  close(): void {
    this.#current = undefined;
    for (const port of this.#ports) port.close();
  }
}

/** One socket and the questions that left by it. */
class Port {
  readonly #socket: UdpSocket;
  readonly #random: RandomSource;
  readonly #counters: UdpCounters;
  readonly #onClose: (port: Port) => void;
  readonly #byId = new Map<number, UdpQuestion>();
  /** IDs that had their answer, or whose question was given up: a second copy or a late answer is no forgery. */
  readonly #past = new Set<number>();
  readonly #retirement: NodeJS.Timeout;
  #asked = 0;
  #foreign = 0;
  #retired = false;
  #closed = false;

  constructor(
    open: (receive: Parameters<UpstreamSockets['udp']>[1]) => UdpSocket,
    random: RandomSource,
    counters: UdpCounters,
    onClose: (port: Port) => void,
  ) {
    this.#random = random;
    this.#counters = counters;
    this.#onClose = onClose;
    this.#socket = open({
      message: octets => this.#receive(octets),
      error: code => this.#fail(unreachable(code)),
    });
    this.#retirement = setTimeout(() => this.#retire(), MAX_AGE_MILLIS);
  }

  get takesMore(): boolean {
    return !this.#retired;
  }

  /** The address that questions leave from, as far as it is known. */
  get local(): string {
    return this.#socket.local;
  }

  /** An ID that no question on this port has had. */
  freeId(): number {
    for (;;) {
      const id = this.#random.uint16();
      if (!this.#byId.has(id) && !this.#past.has(id)) return id;
    }
  }

  /** Sends the question; `lost` may be called before this returns. */
  ask(question: UdpQuestion): void {
    this.#byId.set(idOf(question.query), question);
    if (++this.#asked === MAX_QUESTIONS) this.#retire();
    const refused = this.#socket.send(question.query);
    if (refused !== undefined) this.#fail(unreachable(refused));
  }

  /** The question is no longer of interest. */
  giveUp({ query }: UdpQuestion): void {
    const id = idOf(query);
    if (this.#byId.delete(id)) this.#done(id);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#retired = true;
    clearTimeout(this.#retirement);
    this.#socket.close();
    this.#byId.clear();
    this.#onClose(this);
  }

  #receive(message: Uint8Array): void {
    if (this.#closed) return;
    const id = message.length < 2 ? -1 : idOf(message);
    const question = this.#byId.get(id);
    if (question === undefined) {
      if (this.#past.has(id)) this.#counters.late++;
      else this.#heardForeign();
      return;
    }
    const judgement = judge(message, question.query, question.end);
    if (judgement === 'foreign' || !question.answered(message, judgement)) {
      this.#heardForeign();
      return;
    }
    this.#byId.delete(id);
    this.#done(id);
  }

  #heardForeign(): void {
    this.#counters.foreign++;
    if (++this.#foreign < MAX_FOREIGN) return;
    const questions = [...this.#byId.values()];
    this.#counters.flooded += questions.length;
    this.close();
    for (const question of questions) question.lost('flooded');
  }

  #fail(error: UpstreamError): void {
    const questions = [...this.#byId.values()];
    this.close();
    for (const question of questions) question.lost(error);
  }

  #done(id: number): void {
    this.#past.add(id);
    if (this.#retired && this.#byId.size === 0) this.close();
  }

  #retire(): void {
    this.#retired = true;
    clearTimeout(this.#retirement);
    if (this.#byId.size === 0) this.close();
  }
}

function unreachable(code: string): UpstreamError {
  return new UpstreamError('network', `cannot be reached: ${code}`);
}
