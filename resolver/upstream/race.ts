/** One question, several servers: who is asked when, and which answer counts. */
import { UpstreamError, type UpstreamErrorCode } from './error.ts';
import type { HedgeBudget, ServerHealth } from './server-health.ts';

/**
 * Milliseconds. `rounds`: in each round every server left is asked in turn and given so long before the next is asked
 * too, in the first one less where a server is known to be quick; `total`: the end.
 */
export type RaceTimes = { rounds: readonly number[]; total: number };

/** A server in a race. */
export type Runner = { readonly text: string; readonly health: ServerHealth };

export type RaceConfig<R extends Runner, Answer> = {
  /** In the order to ask. */
  servers: readonly R[];
  times: RaceTimes;
  now: () => number;
  hedges: HedgeBudget;
  /** Asks one server, `again` when it was asked before; calls back at most once. Returns how to give up. */
  ask: (server: R, again: boolean, reply: (outcome: Answer | UpstreamError) => void) => () => void;
  /** A server let its time pass; a second question goes out early. */
  onSilent: () => void;
  onHedge: () => void;
  /** Called once. */
  done: (outcome: Answer | UpstreamError, by: R | undefined) => void;
};

type Attempt<R> = { server: R; askedAt: number; giveUp: () => void };

/** A second question goes out when the first is slower than 95 of 100, but neither at once nor never. */
const MIN_HEDGE_MILLIS = 50;
const MAX_HEDGE_MILLIS = 400;
/** No datagram is called lost before: also a quick server has to look things up now and then. */
const MIN_TIMEOUT_MILLIS = 100;
/** When our timers are so late, answers wait to be read. */
const BUSY_MILLIS = 10;
/** Timers are kept in few lists when their times are round. */
const TIMER_STEP_MILLIS = 10;

/**
 * Asks servers one after the other without hanging up on the earlier ones: a late answer still wins.
 *
 * A server that said no, or that cannot be reached, is not asked again in this race; a silent one is, in the next round.
 */
export class Race<R extends Runner, Answer> {
  readonly #config: RaceConfig<R, Answer>;
  #servers: readonly R[];
  readonly #attempts: Attempt<R>[] = [];
  readonly #dismissed = new Set<R>();
  readonly #tried: string[] = [];
  #lastNo: UpstreamError | undefined;
  #launched = 0;
  #startedAt = 0;
  /** The one whose patience is running, until when, and whether the next is only to be hedged by then. */
  #current: { server: R; until: number } | undefined;
  #hedged = false;
  #timer: NodeJS.Timeout | undefined;
  #afterReading: NodeJS.Immediate | undefined;
  #over = false;

  constructor(config: RaceConfig<R, Answer>) {
    this.#config = config;
    this.#servers = config.servers;
  }

  get askedTwice(): boolean {
    return this.#launched > 1;
  }

  start(): void {
    this.#startedAt = this.#config.now();
    if (this.#servers.length === 0) this.stop(noServers());
    else this.#launchNext();
  }

  /** Ends the race without an answer. */
  stop(error: UpstreamError): void {
    this.#settle(error, undefined);
  }

  /**
   * Other servers count from now on: those gone are given up, and the first of the others is asked at once, even if it said
   * no before: the network may be another.
   */
  replace(servers: readonly R[]): void {
    if (this.#over) return;
    this.#stopWaiting();
    this.#servers = servers;
    this.#launched = 0;
    this.#current = undefined;
    this.#dismissed.clear();
    for (let i = this.#attempts.length - 1; i >= 0; i--) {
      const attempt = this.#attempts[i]!;
      if (servers.includes(attempt.server)) continue;
      this.#attempts.splice(i, 1);
      attempt.giveUp();
    }
    const kept = this.#attempts[0];
    if (servers.length === 0) {
      this.stop(noServers());
    } else if (kept !== undefined) {
      const until = this.#config.now() + this.#config.times.rounds[0]!;
      this.#current = { server: kept.server, until };
      this.#wait(until);
    } else {
      this.#launchNext();
    }
  }

  /** False when nobody is left to be asked; earlier questions may still be answered. */
  #launchNext(): boolean {
    const next = this.#next();
    if (next === undefined) return false;
    const { server, patience, again } = next;
    const now = this.#config.now();
    const until = now + patience;
    this.#current = { server, until };
    this.#hedged = false;
    this.#launch(server, again, now);
    if (!this.#over && this.#current?.server === server)
      this.#wait(Math.min(this.#hedgeAt(server, now) ?? until, until));
    return true;
  }

  #launch(server: R, again: boolean, now: number): void {
    const attempt: Attempt<R> = { server, askedAt: now, giveUp: () => {} };
    this.#attempts.push(attempt);
    server.health.askedAt = now;
    const giveUp = this.#config.ask(server, again, outcome => {
      if (this.#over) return;
      const at = this.#attempts.indexOf(attempt);
      if (at < 0) return;
      this.#attempts.splice(at, 1);
      if (outcome instanceof UpstreamError) this.#saidNo(server, outcome);
      else this.#settle(outcome, server);
    });
    attempt.giveUp = giveUp;
    if (this.#over) giveUp();
  }

  /** When to ask a second server as well, though the first is not late yet. */
  #hedgeAt(server: R, now: number): number | undefined {
    const { slowMillis } = server.health;
    if (slowMillis === undefined || this.#servers.length - this.#dismissed.size < 2) return undefined;
    return now + Math.min(Math.max(slowMillis, MIN_HEDGE_MILLIS), MAX_HEDGE_MILLIS);
  }

  #wait(until: number): void {
    this.#stopWaiting();
    const now = this.#config.now();
    const left = Math.min(until, this.#startedAt + this.#config.times.total) - now;
    const rounded = Math.max(Math.ceil(left / TIMER_STEP_MILLIS), 1) * TIMER_STEP_MILLIS;
    const due = now + rounded;
    this.#timer = setTimeout(() => {
      // We were busy. What has arrived in the meantime is read before anybody is called late.
      if (this.#config.now() - due >= BUSY_MILLIS) this.#afterReading = setImmediate(() => this.#tick());
      else this.#tick();
    }, rounded);
  }

  #stopWaiting(): void {
    clearTimeout(this.#timer);
    clearImmediate(this.#afterReading);
  }

  #tick(): void {
    const now = this.#config.now();
    const current = this.#current!;
    if (now >= this.#startedAt + this.#config.times.total) {
      this.#giveUp();
      return;
    }
    if (now + 1 < current.until && !this.#hedged) {
      this.#hedged = true;
      const second = this.#servers.find(server => server !== current.server && !this.#dismissed.has(server));
      if (second !== undefined && second.health.failures === 0 && this.#config.hedges.spend()) {
        this.#config.onHedge();
        this.#launch(second, this.#wasAsked(second), now);
        if (this.#over) return;
      }
    }
    if (now < current.until) {
      this.#wait(current.until);
      return;
    }
    this.#config.onSilent();
    this.#tried.push(`${current.server.text}: no answer`);
    if (!this.#launchNext()) this.#wait(this.#startedAt + this.#config.times.total);
  }

  #wasAsked(server: R): boolean {
    return this.#attempts.some(attempt => attempt.server === server);
  }

  #next(): { server: R; patience: number; again: boolean } | undefined {
    const { rounds } = this.#config.times;
    while (this.#launched < rounds.length * this.#servers.length) {
      const server = this.#servers[this.#launched % this.#servers.length]!;
      const patience = this.#patience(server, Math.floor(this.#launched / this.#servers.length));
      const again = this.#launched >= this.#servers.length;
      this.#launched++;
      // Asked a moment ago as the second one: it has its own time first.
      if (!again && this.#wasAsked(server)) continue;
      if (!this.#dismissed.has(server)) return { server, patience, again };
    }
    return undefined;
  }

  /** A server known to be far away is not called silent before it can have answered. */
  #patience({ health }: R, round: number): number {
    const { rounds } = this.#config.times;
    const usual = Math.max(rounds[round]!, 2 * (health.smoothedMillis ?? 0));
    if (round > 0 || health.timeoutMillis === undefined) return usual;
    return Math.min(Math.max(health.timeoutMillis, MIN_TIMEOUT_MILLIS), usual);
  }

  #saidNo(server: R, error: UpstreamError): void {
    if (this.#dismissed.has(server)) return;
    this.#dismissed.add(server);
    this.#lastNo = error;
    this.#tried.push(`${server.text}: ${error.text}`);
    if (error.code === 'network') server.health.failed(error.text, this.#config.now());
    if (this.#servers.every(one => this.#dismissed.has(one))) this.#giveUp();
    else if (server === this.#current?.server && !this.#launchNext())
      this.#wait(this.#startedAt + this.#config.times.total);
  }

  #giveUp(): void {
    const said = this.#lastNo;
    const code: UpstreamErrorCode = said?.code ?? 'timeout';
    const text = said === undefined ? 'no upstream server answered in time' : `upstream ${said.text}`;
    this.#settle(new UpstreamError(code, text, this.#tried), undefined);
  }

  #settle(outcome: Answer | UpstreamError, by: R | undefined): void {
    if (this.#over) return;
    this.#over = true;
    this.#stopWaiting();
    const given = outcome instanceof UpstreamError && outcome.code === 'aborted';
    if (!given) this.#chargeSilent(by);
    for (const { giveUp } of this.#attempts) giveUp();
    this.#config.done(outcome, by);
  }

  /** Who was given its time and has not answered. */
  #chargeSilent(by: R | undefined): void {
    const now = this.#config.now();
    const first = this.#config.times.rounds[0]!;
    const charged = new Set<R>();
    for (const { server, askedAt } of this.#attempts) {
      if (by !== undefined && server !== by) server.health.outrun(now - askedAt);
      const patience = Math.max(first, 2 * (server.health.smoothedMillis ?? 0));
      if (server === by || charged.has(server) || now - askedAt < patience) continue;
      charged.add(server);
      server.health.silent(askedAt, by !== undefined, now);
    }
  }
}

function noServers(): UpstreamError {
  return new UpstreamError('no-servers', 'there is no upstream server to ask');
}
