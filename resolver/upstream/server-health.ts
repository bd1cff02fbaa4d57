/** Who answers fastest, and who should be left alone for a while. Pure; the clock is the caller's, in milliseconds. */

/** What is known about one server. */
export class ServerHealth {
  /** Smoothed round trip time (RFC 6298's gain of 1/8), undefined before the first answer. */
  smoothedMillis: number | undefined;
  #deviationMillis = 0;
  /** Back-offs in a row without an answer. */
  failures = 0;
  /** Until then others are preferred. */
  backOffUntil = Number.NEGATIVE_INFINITY;
  /** It rejected EDNS, and with it DNSSEC; asked only when all others failed. */
  rejectsEdns = false;
  /** What it was last charged with; empty while it answers. */
  why = '';
  answeredAt = Number.NEGATIVE_INFINITY;
  askedAt = Number.NEGATIVE_INFINITY;
  /** Questions that went unanswered since its last answer. */
  unanswered = 0;
  readonly #times = new Float64Array(TIMES);
  #measured = 0;
  #slowMillis: number | undefined;

  /** It answered, whatever it said. */
  answered(millis: number, now: number): void {
    this.failures = 0;
    this.unanswered = 0;
    this.why = '';
    this.backOffUntil = Number.NEGATIVE_INFINITY;
    this.answeredAt = now;
    const before = this.smoothedMillis;
    this.smoothedMillis = before === undefined ? millis : before + (millis - before) / 8;
    const deviation = before === undefined ? millis / 2 : Math.abs(millis - before);
    this.#deviationMillis += before === undefined ? deviation : (deviation - this.#deviationMillis) / 4;
    this.#times[this.#measured++ % TIMES] = millis;
    if (this.#measured % 8 === 0) this.#slowMillis = this.#percentile95();
  }

  /** The network is another: what kept it from answering may be gone. */
  forgive(): void {
    this.failures = 0;
    this.unanswered = 0;
    this.why = '';
    this.backOffUntil = Number.NEGATIVE_INFINITY;
  }

  /** Another answered the same question `millis` after this one was asked, and it had not yet. */
  outrun(millis: number): void {
    const before = this.smoothedMillis;
    if (before !== undefined && millis > before) this.smoothedMillis = before + (millis - before) / 8;
  }

  /** After so long an answer is rather lost than late (as RFC 6298 has it); undefined before the first answer. */
  get timeoutMillis(): number | undefined {
    const smoothed = this.smoothedMillis;
    return smoothed === undefined ? undefined : smoothed + Math.max(4 * this.#deviationMillis, smoothed / 2);
  }

  /** What 95 of 100 of its latest answers came within; undefined before the eighth. */
  get slowMillis(): number | undefined {
    return this.#slowMillis;
  }

  /**
   * A question that left at `askedAt` has had no answer in time.
   *
   * That may be the name's fault, whose own servers are slow or dead. It is the server's when it answered nothing else
   * meanwhile, and either another server knew the answer or several questions in a row got none.
   */
  silent(askedAt: number, anotherAnswered: boolean, now: number): void {
    if (this.answeredAt >= askedAt) return;
    if (!anotherAnswered && ++this.unanswered < UNANSWERED) return;
    this.failed('no answer', now);
  }

  /**
   * It cannot be reached, or is silent: 1 s of back-off, doubled each time, at most a minute. What else fails while it
   * backs off is of the same failure.
   */
  failed(why: string, now: number): void {
    this.why = why;
    if (now < this.backOffUntil) return;
    this.backOffUntil =
      now + Math.min(FIRST_BACK_OFF_MILLIS * 2 ** Math.min(this.failures, 10), LONGEST_BACK_OFF_MILLIS);
    this.failures++;
  }

  #percentile95(): number {
    const times = this.#times.slice(0, Math.min(this.#measured, TIMES)).sort();
    return times[Math.ceil(times.length * 0.95) - 1]!;
  }
}

const TIMES = 32;
const FIRST_BACK_OFF_MILLIS = 1000;
const LONGEST_BACK_OFF_MILLIS = 60_000;
/** So many names in a row without an answer are no longer the names' fault. */
const UNANSWERED = 3;
/** Whoever was not asked for so long is measured again by a question on the side. */
const REMEASURE_MILLIS = 60_000;

type Measured = { readonly health: ServerHealth };

/**
 * The order to ask in: those that speak EDNS, then those not failing, then by smoothed time; servers not yet measured
 * come after those that are, all in configured order where nothing else decides.
 */
export function byHealth<S extends Measured>(servers: readonly S[], now: number): S[] {
  if (servers.length < 2) return [...servers];
  const left = ({ health }: S) => Math.max(health.backOffUntil - now, 0);
  const time = ({ health }: S) => health.smoothedMillis ?? Number.MAX_VALUE;
  return [...servers].sort(
    (a, b) =>
      Number(a.health.rejectsEdns) - Number(b.health.rejectsEdns) ||
      Number(a.health.failures > 0) - Number(b.health.failures > 0) ||
      left(a) - left(b) ||
      time(a) - time(b),
  );
}

/**
 * A server to be asked on the side, so that nobody waits for the outcome: one that failed and whose back-off has ended,
 * or one that was not measured for a minute. It counts as asked at once, so that only one question does so. `asked` is
 * the one that is asked in any case.
 */
export function takeProbe<S extends Measured>(servers: readonly S[], asked: S, now: number): S | undefined {
  for (const server of servers) {
    const { health } = server;
    if (server === asked) continue;
    if (health.failures > 0 ? health.backOffUntil > now : now - health.askedAt < REMEASURE_MILLIS) continue;
    if (health.failures > 0) health.failed(health.why, now);
    health.askedAt = now;
    return server;
  }
  return undefined;
}

/**
 * How many second questions may go out before the first server has had its time: one in ten, so that a slow server
 * never makes us ask twice as much. Some are saved up for a bad moment.
 */
export class HedgeBudget {
  #tokens = MAX_HEDGES;

  earn(): void {
    this.#tokens = Math.min(this.#tokens + HEDGES_PER_QUESTION, MAX_HEDGES);
  }

  spend(): boolean {
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}

const HEDGES_PER_QUESTION = 0.1;
const MAX_HEDGES = 10;
