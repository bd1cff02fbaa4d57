/** Who answers fastest, and who should be left alone for a while. Pure; the clock is the caller's, in milliseconds. */
import { formatUpstreamServer, type UpstreamServer } from './server.ts';

/** What is known about one server. */
export type ServerState = {
  readonly server: UpstreamServer;
  /** Smoothed round trip time (RFC 6298's gain of 1/8), undefined before the first answer. */
  smoothedMillis: number | undefined;
  /** Questions in a row that it left unanswered. */
  failures: number;
  /** Until then others are preferred. */
  backOffUntil: number;
  /** It rejected EDNS, and with it DNSSEC; asked only when all others failed. */
  rejectsEdns: boolean;
};

const FIRST_BACK_OFF_MILLIS = 1000;
const LONGEST_BACK_OFF_MILLIS = 60_000;
/** An unchosen server's time shrinks by this at each question, so that it is measured again some day. */
const FADE = 0.98;

/** The servers, the one to be asked first in front. */
export class ServerHealth {
  #states: ServerState[] = [];

  constructor(servers: readonly UpstreamServer[]) {
    this.setServers(servers);
  }

  /** From now on these; what is known of those that stay is kept. */
  setServers(servers: readonly UpstreamServer[]): void {
    const known = new Map(this.#states.map(state => [formatUpstreamServer(state.server), state]));
    const wanted = new Map(servers.map(server => [formatUpstreamServer(server), server]));
    this.#states = [...wanted].map(([text, server]) => known.get(text) ?? newState(server));
  }

  /**
   * The order to ask in: those that speak EDNS, then those not failing, then by smoothed time; servers not yet
   * measured come first, in configured order. Whoever is not first fades towards being measured again.
   */
  order(now: number): ServerState[] {
    if (this.#states.length < 2) return [...this.#states];
    const ordered = [...this.#states].sort(
      (a, b) =>
        Number(a.rejectsEdns) - Number(b.rejectsEdns) ||
        Number(a.failures > 0) - Number(b.failures > 0) ||
        Math.max(a.backOffUntil - now, 0) - Math.max(b.backOffUntil - now, 0) ||
        (a.smoothedMillis ?? 0) - (b.smoothedMillis ?? 0),
    );
    for (let i = 1; i < ordered.length; i++) {
      const other = ordered[i]!;
      if (other.smoothedMillis !== undefined) other.smoothedMillis *= FADE;
    }
    return ordered;
  }

  /**
   * A failing server whose back-off has ended: one question may go to it as well. It backs off anew at once, so that
   * only one does. `asked` is the one that is asked in any case.
   */
  takeProbe(asked: ServerState, now: number): ServerState | undefined {
    const due = this.#states.find(
      state => state !== asked && state.failures > 0 && state.backOffUntil <= now,
    );
    if (due !== undefined) this.failed(due, now);
    return due;
  }

  /** It answered, whatever it said. */
  answered(state: ServerState, millis: number): void {
    state.failures = 0;
    state.backOffUntil = Number.NEGATIVE_INFINITY;
    const before = state.smoothedMillis;
    state.smoothedMillis = before === undefined ? millis : before + (millis - before) / 8;
  }

  /** It did not answer in time or could not be reached: 1 s of back-off, doubled each time, at most a minute. */
  failed(state: ServerState, now: number): void {
    state.backOffUntil =
      now + Math.min(FIRST_BACK_OFF_MILLIS * 2 ** Math.min(state.failures, 10), LONGEST_BACK_OFF_MILLIS);
    state.failures++;
  }

  /** It rejected EDNS; `recovered` once it answers with an OPT again. */
  rejectedEdns(state: ServerState, rejects: boolean): void {
    state.rejectsEdns = rejects;
  }

  /** What is known of one of them. */
  stateOf(server: UpstreamServer): ServerState | undefined {
    const text = formatUpstreamServer(server);
    return this.#states.find(state => formatUpstreamServer(state.server) === text);
  }

  /** A copy for `status`. */
  snapshot(): ServerState[] {
    return this.#states.map(state => ({ ...state }));
  }
}

function newState(server: UpstreamServer): ServerState {
  return {
    server,
    smoothedMillis: undefined,
    failures: 0,
    backOffUntil: Number.NEGATIVE_INFINITY,
    rejectsEdns: false,
  };
}
