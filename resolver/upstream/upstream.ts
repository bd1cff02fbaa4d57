/**
 * Asks the configured servers: UDP, TCP after truncation, the next server after silence or refusal.
 *
 * Answers are not judged here beyond being answers: validation is `resolver/dnssec`'s.
 */
import { randomBytes } from 'node:crypto';
import { type Message, parseMessage } from '../dns/message.ts';
import { DnsFormatError, type Name } from '../dns/name.ts';
import { RCODE, rcodeToText } from '../dns/types.ts';
import type { Exchange, UpstreamQuestion } from '../dnssec/types.ts';
import { UpstreamError } from './error.ts';
import { composeQuery, idOf } from './query.ts';
import { Race, type RaceTimes } from './race.ts';
import { ServerHealth, type ServerState } from './server-health.ts';
import type { PlainServer, UpstreamServer } from './server.ts';
import { plainSockets, type UpstreamSockets } from './sockets.ts';
import { TcpExchange } from './tcp.ts';
import { askOverUdp } from './udp.ts';

export type UpstreamConfig = {
  servers: readonly UpstreamServer[];
  /** Zones with resolvers of their own: the longest that holds the name counts, and nobody else is asked for it. */
  forward?: readonly { zone: Name; servers: readonly UpstreamServer[] }[];
  sockets?: UpstreamSockets;
  random?: (octets: number) => Uint8Array;
  /** Milliseconds, monotonic. */
  now?: () => number;
  times?: RaceTimes;
};

/** Patience with one server before the next is asked as well, by round; and with all of them together. Milliseconds. */
const TIMES: RaceTimes = { rounds: [400, 800, 1600], total: 5000 };
/** Each question in flight holds a socket or a few; more questions than this wait their turn. */
const MAX_IN_FLIGHT = 256;
const MAX_WAITING = 2048;
/** Of so many questions we know who answered, should the validator want a second opinion. */
const MAX_REMEMBERED = 512;

/** The upstream servers together. */
export class Upstream {
  readonly #health: ServerHealth;
  readonly #forward = new Map<string, ServerHealth>();
  readonly #sockets: UpstreamSockets;
  readonly #random: (octets: number) => Uint8Array;
  readonly #now: () => number;
  readonly #times: RaceTimes;
  readonly #tcp: TcpExchange;
  /** Cancels each question that is asked or waits. */
  readonly #live = new Set<() => void>();
  readonly #answeredBy = new Map<string, ServerState>();
  readonly #waiting = new Set<() => void>();
  #inFlight = 0;
  #closed = false;
  readonly #counters = {
    questions: 0,
    answers: 0,
    failures: 0,
    udp: 0,
    tcp: 0,
    truncated: 0,
    foreign: 0,
    flooded: 0,
    malformed: 0,
    silent: 0,
    probes: 0,
    rejected: 0,
    overloaded: 0,
  };

  constructor(config: UpstreamConfig) {
    this.#health = new ServerHealth(config.servers);
    for (const { zone, servers } of config.forward ?? []) {
      this.#forward.set(zone.key, new ServerHealth(servers));
    }
    this.#sockets = config.sockets ?? plainSockets;
    this.#random = config.random ?? randomBytes;
    this.#now = config.now ?? (() => performance.now());
    this.#times = config.times ?? TIMES;
    this.#tcp = new TcpExchange(this.#sockets, this.#random, () => this.#counters.foreign++);
  }

  /**
   * Asks one question of class IN with RD, CD and DO; at most 5 s from the moment it is its turn.
   *
   * Resolves to an answer of any RCODE but SERVFAIL, REFUSED, FORMERR, NOTIMP and BADVERS: after those, as after
   * silence, the next server is asked, and when none is left the promise rejects with UpstreamError. Bound, so that
   * it can be handed on as a value.
   */
  readonly exchange: Exchange = async (question, signal) => {
    this.#counters.questions++;
    const cancelled = new AbortController();
    const cancel = () => cancelled.abort();
    if (this.#closed || signal?.aborted) cancel();
    signal?.addEventListener('abort', cancel, { once: true });
    this.#live.add(cancel);
    try {
      await this.#turn(cancelled.signal);
      try {
        const answer = await this.#race(question, cancelled.signal);
        this.#counters.answers++;
        return answer;
      } finally {
        this.#inFlight--;
        const next = this.#waiting.values().next().value;
        next?.();
      }
    } catch (error) {
      this.#counters.failures++;
      throw error;
    } finally {
      this.#live.delete(cancel);
      signal?.removeEventListener('abort', cancel);
    }
  };

  /** From now on these are asked for all that no forward zone holds; what is known of those that stay is kept. */
  setServers(servers: readonly UpstreamServer[]): void {
    this.#health.setServers(servers);
  }

  /**
   * Asks one server over its transport alone, whether it is among those configured or not: for probing.
   *
   * Resolves to whatever it answers: any RCODE, also truncated (`message.truncated`; `udp` is not followed by TCP
   * here). Rejects with UpstreamError `timeout`, `network`, `malformed` or `aborted`.
   */
  async ask(
    server: UpstreamServer,
    question: UpstreamQuestion,
    { timeoutMillis, signal }: { timeoutMillis: number; signal?: AbortSignal },
  ): Promise<Message> {
    if (!('address' in server)) throw new UpstreamError('network', `${server.transport} is not spoken yet`);
    const over = new AbortController();
    const cancel = () => over.abort();
    if (this.#closed || signal?.aborted) cancel();
    signal?.addEventListener('abort', cancel, { once: true });
    this.#live.add(cancel);
    let late = false;
    const end = setTimeout(() => {
      late = true;
      cancel();
    }, timeoutMillis);
    try {
      const query = composeQuery(question.name, question.type, idOf(this.#random(2)));
      const bytes = await this.#askOnce(server, query, over.signal);
      const message = this.#parse(bytes);
      if (message === undefined) throw new UpstreamError('malformed', 'its answer is not a DNS message');
      return message;
    } catch (error) {
      throw late ? new UpstreamError('timeout', 'no answer in time') : error;
    } finally {
      clearTimeout(end);
      this.#live.delete(cancel);
      signal?.removeEventListener('abort', cancel);
    }
  }

  async #askOnce(
    { transport, address }: PlainServer,
    query: Uint8Array,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    if (transport === 'tcp') return (await this.#tcp.ask(address, query, signal)).message;
    const onForeign = () => this.#counters.foreign++;
    const outcome = await askOverUdp(this.#sockets, address, query, onForeign, signal);
    if (outcome.kind === 'flooded') throw new UpstreamError('malformed', 'drowned in forged answers');
    return outcome.message;
  }

  /** Rejects all that is in flight with `aborted`, closes all sockets. */
  close(): void {
    this.#closed = true;
    for (const cancel of this.#live) cancel();
    this.#tcp.close();
  }

  counters(): Record<string, number> {
    return { ...this.#counters, inFlight: this.#inFlight, waiting: this.#waiting.size };
  }

  /** What is known about each server, for `status`. */
  servers(): ServerState[] {
    return [this.#health, ...this.#forward.values()].flatMap(health => health.snapshot());
  }

  #healthFor({ name }: UpstreamQuestion): ServerHealth {
    if (this.#forward.size === 0) return this.#health;
    for (let labels = name.labelCount; labels >= 0; labels--) {
      const found = this.#forward.get(name.suffix(labels).key);
      if (found !== undefined) return found;
    }
    return this.#health;
  }

  async #turn(nobodyWaits: AbortSignal): Promise<void> {
    if (nobodyWaits.aborted) throw new UpstreamError('aborted', 'nobody waits any more');
    if (this.#inFlight >= MAX_IN_FLIGHT) {
      if (this.#waiting.size >= MAX_WAITING) {
        this.#counters.overloaded++;
        throw new UpstreamError('overload', 'too many questions are waiting for the upstream servers');
      }
      await new Promise<void>((resolve, reject) => {
        const onAbort = () => {
          this.#waiting.delete(onTurn);
          reject(new UpstreamError('aborted', 'nobody waits any more'));
        };
        const onTurn = () => {
          this.#waiting.delete(onTurn);
          nobodyWaits.removeEventListener('abort', onAbort);
          // Taken here and not after the await: a newcomer must not slip in between.
          this.#inFlight++;
          resolve();
        };
        this.#waiting.add(onTurn);
        nobodyWaits.addEventListener('abort', onAbort, { once: true });
      });
    } else {
      this.#inFlight++;
    }
  }

  #race(question: UpstreamQuestion, nobodyWaits: AbortSignal): Promise<Message> {
    const health = this.#healthFor(question);
    const race = new Race<Message>({
      health,
      times: this.#times,
      now: this.#now,
      avoid: (question.attempt ?? 0) > 0 ? this.#answeredBy.get(keyOf(question)) : undefined,
      nobodyWaits,
      ask: async (state, signal) => {
        const answer = await this.#askServer(health, state, question, signal);
        this.#remember(question, state);
        return answer;
      },
      probe: state => this.#probe(health, state, question),
      onSilent: () => this.#counters.silent++,
    });
    return race.run();
  }

  #remember(question: UpstreamQuestion, state: ServerState): void {
    const key = keyOf(question);
    this.#answeredBy.delete(key);
    this.#answeredBy.set(key, state);
    if (this.#answeredBy.size > MAX_REMEMBERED)
      this.#answeredBy.delete(this.#answeredBy.keys().next().value!);
  }

  /** Asks for the sake of asking: only what it tells about the server's health is of interest. */
  #probe(health: ServerHealth, state: ServerState, question: UpstreamQuestion): void {
    this.#counters.probes++;
    const over = new AbortController();
    const cancel = () => over.abort();
    const end = setTimeout(cancel, this.#times.total);
    this.#live.add(cancel);
    this.#askServer(health, state, question, over.signal)
      .catch(() => {})
      .finally(() => {
        clearTimeout(end);
        this.#live.delete(cancel);
      });
  }

  /** One server's answer: usable, or an UpstreamError that says why not. */
  async #askServer(
    health: ServerHealth,
    state: ServerState,
    question: UpstreamQuestion,
    signal: AbortSignal,
  ): Promise<Message> {
    const { server } = state;
    if (!('address' in server)) throw new UpstreamError('network', `${server.transport} is not spoken yet`);
    const query = composeQuery(question.name, question.type, idOf(this.#random(2)));
    const sentAt = this.#now();
    if (server.transport === 'udp') {
      this.#counters.udp++;
      const onForeign = () => this.#counters.foreign++;
      const outcome = await askOverUdp(this.#sockets, server.address, query, onForeign, signal);
      if (outcome.kind === 'flooded') {
        this.#counters.flooded++;
      } else {
        health.answered(state, this.#now() - sentAt);
        if (outcome.kind === 'message') {
          const message = this.#parse(outcome.message);
          if (message !== undefined) return this.#usable(health, state, message, outcome.rejection);
        } else {
          this.#counters.truncated++;
        }
      }
    }
    // Truncated, garbled or drowned in forgeries: TCP delivers what the server really said.
    this.#counters.tcp++;
    const answer = await this.#tcp.ask(server.address, query, signal);
    if (server.transport === 'tcp') health.answered(state, this.#now() - sentAt);
    const message = this.#parse(answer.message);
    if (message === undefined) throw new UpstreamError('malformed', 'its answer is not a DNS message');
    return this.#usable(health, state, message, answer.rejection);
  }

  #parse(bytes: Uint8Array): Message | undefined {
    try {
      return parseMessage(bytes);
    } catch (error) {
      if (!(error instanceof DnsFormatError)) throw error;
      this.#counters.malformed++;
      return undefined;
    }
  }

  #usable(health: ServerHealth, state: ServerState, message: Message, rejection: boolean): Message {
    const { rcode } = message;
    // What an OPT provokes in a server or middlebox that does not know it (RFC 6891 section 7). Asking again without
    // EDNS would bring an answer, but one that nobody can validate.
    const rejectsEdns = rcode === RCODE.FORMERR || rcode === RCODE.NOTIMP || rcode === RCODE.BADVERS;
    if (rejectsEdns || message.edns !== undefined) health.rejectedEdns(state, rejectsEdns);
    if (rejectsEdns) {
      this.#counters.rejected++;
      throw new UpstreamError(
        'no-edns',
        `rejects EDNS, without which there is no DNSSEC (${rcodeToText(rcode)})`,
      );
    }
    if (rcode === RCODE.SERVFAIL || rcode === RCODE.REFUSED || rejection) {
      this.#counters.rejected++;
      throw new UpstreamError(
        rcode === RCODE.REFUSED ? 'refused' : 'servfail',
        `answers ${rcodeToText(rcode)}`,
      );
    }
    return message;
  }
}

function keyOf({ name, type }: UpstreamQuestion): string {
  return `${type} ${name.key}`;
}
