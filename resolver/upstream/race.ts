/** One question, several servers: who is asked when, and which answer counts. */
import { formatUpstreamServer } from './server.ts';
import { UpstreamError, type UpstreamErrorCode } from './error.ts';
import type { ServerHealth, ServerState } from './server-health.ts';

/**
 * Milliseconds. `rounds`: in each round every server left is asked in turn and given so long before the next is asked
 * too; `total`: the end.
 */
export type RaceTimes = { rounds: readonly number[]; total: number };

export type RaceConfig<Answer> = {
  health: ServerHealth;
  times: RaceTimes;
  now: () => number;
  /** Asked last: its answer was no good. */
  avoid: ServerState | undefined;
  /** Fires when the question is no longer of interest. */
  nobodyWaits: AbortSignal;
  /** Asks one server; rejects with UpstreamError. The signal fires when the race is over. */
  ask: (state: ServerState, signal: AbortSignal) => Promise<Answer>;
  /** A server let its time pass. */
  onSilent: () => void;
  /** One that failed before and may have recovered: to be tried on the side, so that nobody waits for the outcome. */
  probe: (state: ServerState) => void;
};

/**
 * Asks servers one after the other without hanging up on the earlier ones: a late answer still wins.
 *
 * A server that said no, or that cannot be reached, is not asked again in this race; a silent one is, in the next round.
 */
export class Race<Answer> {
  readonly #config: RaceConfig<Answer>;
  readonly #servers: ServerState[];
  readonly #over = new AbortController();
  readonly #dismissed = new Set<ServerState>();
  readonly #tried: string[] = [];
  #lastNo: UpstreamError | undefined;
  #launched = 0;
  /** The one whose patience is running. */
  #current: ServerState | undefined;
  #step: NodeJS.Timeout | undefined;
  #settle!: { resolve: (answer: Answer) => void; reject: (error: unknown) => void };

  constructor(config: RaceConfig<Answer>) {
    this.#config = config;
    const ordered = config.health.order(config.now());
    this.#servers = ordered.filter(state => state !== config.avoid);
    if (this.#servers.length < ordered.length) this.#servers.push(config.avoid!);
  }

  async run(): Promise<Answer> {
    const { nobodyWaits, times } = this.#config;
    if (this.#servers.length === 0) throw new UpstreamError('no-servers', 'no upstream server is configured');
    const onAbort = () => this.#settle.reject(new UpstreamError('aborted', 'nobody waits any more'));
    const end = setTimeout(() => this.#giveUp(), times.total);
    try {
      return await new Promise<Answer>((resolve, reject) => {
        this.#settle = { resolve, reject };
        nobodyWaits.addEventListener('abort', onAbort, { once: true });
        this.#launchNext();
        const probed = this.#config.health.takeProbe(this.#current!, this.#config.now());
        if (probed !== undefined) this.#config.probe(probed);
      });
    } finally {
      clearTimeout(end);
      clearTimeout(this.#step);
      nobodyWaits.removeEventListener('abort', onAbort);
      this.#over.abort();
    }
  }

  /** False when nobody is left to be asked; earlier questions may still be answered. */
  #launchNext(): boolean {
    clearTimeout(this.#step);
    const next = this.#next();
    if (next === undefined) return false;
    const { state, patience } = next;
    this.#current = state;
    this.#launch(state);
    // A server known to be far away is not called silent before it can have answered.
    const stepMillis = Math.max(patience, 2 * (state.smoothedMillis ?? 0));
    this.#step = setTimeout(() => this.#silent(state), stepMillis);
    return true;
  }

  #launch(state: ServerState): void {
    this.#config.ask(state, this.#over.signal).then(
      answer => this.#settle.resolve(answer),
      (error: unknown) => this.#saidNo(state, error),
    );
  }

  #next(): { state: ServerState; patience: number } | undefined {
    const { rounds } = this.#config.times;
    while (this.#launched < rounds.length * this.#servers.length) {
      const state = this.#servers[this.#launched % this.#servers.length]!;
      const patience = rounds[Math.floor(this.#launched / this.#servers.length)]!;
      this.#launched++;
      if (!this.#dismissed.has(state)) return { state, patience };
    }
    return undefined;
  }

  #silent(state: ServerState): void {
    this.#config.health.failed(state, this.#config.now());
    this.#config.onSilent();
    this.#tried.push(`${formatUpstreamServer(state.server)}: no answer`);
    if (!this.#launchNext()) this.#giveUp();
  }

  #saidNo(state: ServerState, error: unknown): void {
    if (this.#over.signal.aborted || this.#dismissed.has(state)) return;
    if (!(error instanceof UpstreamError)) {
      // A defect of ours, not to be mistaken for a server's.
      this.#settle.reject(error);
      return;
    }
    this.#dismissed.add(state);
    this.#lastNo = error;
    this.#tried.push(`${formatUpstreamServer(state.server)}: ${error.text}`);
    if (error.code === 'network') this.#config.health.failed(state, this.#config.now());
    if (this.#dismissed.size === this.#servers.length) this.#giveUp();
    else if (state === this.#current) this.#launchNext();
  }

  #giveUp(): void {
    const said = this.#lastNo;
    const code: UpstreamErrorCode = said?.code ?? 'timeout';
    const text = said === undefined ? 'no upstream server answered in time' : `upstream ${said.text}`;
    this.#settle.reject(new UpstreamError(code, text, this.#tried));
  }
}
