/** Questions being answered: equal ones share one answer, and there are never too many. */
import { EDE, RCODE } from '../dns/types.ts';
import { clientOf } from './access.ts';
import type { StubQuery } from './query.ts';
import type { StubAnswer, StubHandler, StubQuestion } from './types.ts';

/** Different questions at one time, in all and begun by one client. */
const MAX_FLIGHTS = 4096;
const MAX_FLIGHTS_PER_CLIENT = 1024;
/** Clients' questions waiting for those, in all and of one client. */
const MAX_WAITERS = 16_384;
const MAX_WAITERS_PER_CLIENT = 8192;
/** When the handler has not answered by then, nobody waits any more who would not rather have an error. */
const DEADLINE_MILLIS = 10_000;

/** One client's question; the handle to give it up. */
export type Waiter = { flight: Flight; sharer: string; deliver: (answer: StubAnswer) => void };

/**
 * What hangs on it is let go when it lands: when a Map grows or is tidied up, its old table, once it has grown old itself,
 * keeps what was in it until the next full collection, and at thousands of questions a second that is most of them.
 */
type Flight = {
  key: string;
  /** Whose share it counts against. */
  sharer: string;
  question: StubQuestion | undefined;
  startedAt: number;
  waiters: Set<Waiter>;
  controller: AbortController | undefined;
};

const NOBODY: Set<Waiter> = new Set();

type Share = { flights: number; waiters: number };

/** The table of questions in flight. */
export class InFlight {
  readonly #handler: StubHandler;
  readonly #now: () => number;
  readonly #onError: (error: unknown, question: StubQuestion) => void;
  /** In the order of their beginning. */
  readonly #flights = new Map<string, Flight>();
  readonly #shares = new Map<string, Share>();
  #waiters = 0;
  readonly counters = { asked: 0, coalesced: 0, abandoned: 0, expired: 0, failed: 0, overloaded: 0 };

  constructor(
    handler: StubHandler,
    now: () => number,
    onError: (error: unknown, question: StubQuestion) => void,
  ) {
    this.#handler = handler;
    this.#now = now;
    this.#onError = onError;
  }

  get size(): number {
    return this.#flights.size;
  }

  get waiting(): number {
    return this.#waiters;
  }

  /**
   * Asks the handler, or waits with those who asked the same; `deliver` is called once, unless `leave` comes first.
   *
   * Undefined when there are too many questions already; `deliver` is not called then.
   */
  join(
    query: StubQuery,
    client: StubQuestion['client'],
    deliver: (answer: StubAnswer) => void,
  ): Waiter | undefined {
    const sharer = clientOf(client.address);
    const share = this.#shares.get(sharer) ?? { flights: 0, waiters: 0 };
    const dnssecOk = query.edns?.dnssecOk === true;
    const key = keyOf(query, dnssecOk);
    let flight = this.#flights.get(key);
    const full =
      this.#waiters >= MAX_WAITERS ||
      share.waiters >= MAX_WAITERS_PER_CLIENT ||
      (flight === undefined &&
        (this.#flights.size >= MAX_FLIGHTS || share.flights >= MAX_FLIGHTS_PER_CLIENT));
    if (full) {
      this.counters.overloaded++;
      return undefined;
    }
    this.#shares.set(sharer, share);
    share.waiters++;
    this.#waiters++;
    if (flight !== undefined) {
      this.counters.coalesced++;
      const waiter = { flight, sharer, deliver };
      flight.waiters.add(waiter);
      return waiter;
    }
    this.counters.asked++;
    share.flights++;
    const { name, type, class: rrClass, checkingDisabled } = query;
    const question = { name, type, class: rrClass, dnssecOk, checkingDisabled, client };
    const controller = new AbortController();
    flight = { key, sharer, question, startedAt: this.#now(), waiters: new Set(), controller };
    this.#flights.set(key, flight);
    const waiter = { flight, sharer, deliver };
    flight.waiters.add(waiter);
    this.#ask(flight, question, controller.signal);
    return waiter;
  }

  /** The client is gone. When it was the last one, the handler hears of it. */
  leave(waiter: Waiter): void {
    const { flight } = waiter;
    if (!flight.waiters.delete(waiter)) return;
    this.#release(waiter);
    if (flight.waiters.size > 0) return;
    this.counters.abandoned++;
    const { controller } = flight;
    this.#land(flight);
    controller?.abort();
  }

  /** Answers what is overdue with SERVFAIL; to be called about once a second. */
  sweep(): void {
    const expired = this.#now() - DEADLINE_MILLIS;
    for (const flight of this.#flights.values()) {
      if (flight.startedAt > expired) return;
      this.counters.expired++;
      const { controller } = flight;
      this.#finish(flight, failure('no answer within 10 s'));
      controller?.abort();
    }
  }

  /** Ends everything; nobody gets an answer any more. */
  close(): void {
    for (const flight of this.#flights.values()) {
      for (const waiter of flight.waiters) this.leave(waiter);
    }
  }

  async #ask(flight: Flight, question: StubQuestion, signal: AbortSignal): Promise<void> {
    let answer: StubAnswer;
    try {
      answer = await this.#handler(question, signal);
    } catch (error) {
      if (signal.aborted) return;
      this.counters.failed++;
      this.#onError(error, question);
      answer = failure('internal error; the log has the details');
    }
    this.#finish(flight, answer);
  }

  #finish(flight: Flight, answer: StubAnswer): void {
    const { waiters, question } = flight;
    if (waiters.size === 0) return;
    this.#land(flight);
    for (const waiter of waiters) {
      this.#release(waiter);
      try {
        waiter.deliver(answer);
      } catch (error) {
        // One client's trouble; the others get their answer.
        this.counters.failed++;
        this.#onError(error, question!);
      }
    }
  }

  #land(flight: Flight): void {
    this.#flights.delete(flight.key);
    flight.waiters = NOBODY;
    flight.question = undefined;
    flight.controller = undefined;
    const share = this.#shares.get(flight.sharer)!;
    share.flights--;
    this.#forgetIdle(flight.sharer, share);
  }

  #release({ sharer }: Waiter): void {
    this.#waiters--;
    const share = this.#shares.get(sharer)!;
    share.waiters--;
    this.#forgetIdle(sharer, share);
  }

  #forgetIdle(sharer: string, share: Share): void {
    if (share.waiters === 0 && share.flights === 0) this.#shares.delete(sharer);
  }
}

/** SERVFAIL with a reason. */
export function failure(text: string): StubAnswer {
  const ede = [{ code: EDE.OTHER, text }];
  return { rcode: RCODE.SERVFAIL, authenticated: false, answer: [], authority: [], ede };
}

/** All that may change the answer; whose letters are large is not among it. */
function keyOf({ name, type, class: rrClass, checkingDisabled }: StubQuery, dnssecOk: boolean): string {
  return `${(type << 2) | (dnssecOk ? 2 : 0) | (checkingDisabled ? 1 : 0)} ${rrClass} ${name.key}`;
}
