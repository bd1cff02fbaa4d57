/**
 * Which way questions go: the decision, without IO. Events and the time in, effects out.
 *
 *   unknown ──probed──▶ carries   over UDP, else TCP, else TLS or HTTPS: everything that was checked came through
 *      ▲                impaired  something came through: what validates is answered
 *      │                closed    nothing did: SERVFAIL at once, with the reason
 *      │                   └─portal found─▶ portal   time-limited; only the portal check names, unprotected
 *      └─ network changed ─┴──────────────────┘      (renewed by evidence, left as soon as a probe passes)
 *
 * No state lets an unvalidated answer pass for a validated one: the states differ in whom is asked and in what is said.
 */
import { formatUpstreamServer, type UpstreamServer } from '../upstream/server.ts';
import type { Diagnosis, Symptom } from './diagnosis.ts';

/** The report on one way: a server over its transport. `passed`: checks that came through, of `checks`. */
export type Report = {
  server: UpstreamServer;
  diagnosis: Diagnosis;
  passed: number;
  checks: number;
  keys: boolean;
};

export type PathState =
  /** Not probed yet, or never: the servers are asked over UDP, in good faith. */
  | { state: 'unknown' }
  | { state: 'carries'; diagnosis: Diagnosis }
  | { state: 'impaired'; diagnosis: Diagnosis }
  | { state: 'closed'; diagnosis: Diagnosis }
  /** `login`: the host that the portal leads to. `until`: milliseconds, monotonic. */
  | { state: 'portal'; diagnosis: Diagnosis; login: string; since: number; until: number };

/** What the check over HTTP found: `open` is the Internet, `unknown` no answer that says anything. */
export type PortalFinding = { kind: 'portal'; login: string } | { kind: 'open' } | { kind: 'unknown' };

export type PathEvent =
  /** The network may be another one. `servers`: those there are to ask, best liked first. */
  | { kind: 'changed'; servers: readonly UpstreamServer[] }
  /** Links or addresses came or went, perhaps those of a container: looked at anew, and as it is until then. */
  | { kind: 'stirred' }
  | { kind: 'probed'; round: number; reports: readonly Report[] }
  | { kind: 'portalChecked'; round: number; finding: PortalFinding }
  /** Answers keep failing although the path was good, or one came although it was closed. */
  | { kind: 'doubted' }
  /** `deadline()` has come. */
  | { kind: 'tick' };

export type PathEffect =
  | { do: 'use'; servers: readonly UpstreamServer[] }
  | { do: 'probe'; round: number }
  | { do: 'checkPortal'; round: number }
  /** What failed need not fail any more, or fails for another reason. */
  | { do: 'forgetFailures' }
  | { do: 'tell'; before: PathState };

/**
 * After a probe that failed: again after so long, doubled each time. Milliseconds. Where something works there is less of
 * a hurry, and it may be so for years; behind a portal somebody is logging in right now.
 */
const AGAIN = {
  closed: { first: 5000, most: 30_000 },
  impaired: { first: 5000, most: 300_000 },
  portal: { first: 3000, most: 20_000 },
};
/**
 * After a probe that passed, but not for every server and way that we would rather ask: again after 5 s, doubled each time
 * that the same are missing. A server less is resilience less; without a better kind, or TCP, we can live for longer.
 */
const MISSING = { first: 5000, server: 60_000, kind: 300_000, tcp: 600_000 };
/** Without new evidence of a portal its mode ends. */
const PORTAL_MILLIS = 300_000;
/** A path that was good is probed again on doubt, but not more often than this; doubled for each doubt that was wrong. */
const DOUBT_MILLIS = 30_000;
const DOUBT_AT_MOST_MILLIS = 600_000;
/** A path that was not good is doubted sooner, and one where a server is missing: it may be back. */
const DOUBT_SOON_MILLIS = 1000;
const DOUBT_MISSING_MILLIS = 5000;
/** Who says nothing is asked last by the upstream anyway, and found again by it as soon as it answers. */
const SILENT: ReadonlySet<Symptom> = new Set(['no-answer', 'fails-everything']);

const UNPROBED: Diagnosis = { symptom: 'no-answer', text: 'nothing is known yet' };

export class Path {
  #state: PathState = { state: 'unknown' };
  #servers: readonly UpstreamServer[] = [];
  #using: readonly UpstreamServer[] = [];
  #reports: readonly Report[] = [];
  #round = 0;
  /** What is under way in this round. */
  #pending: 'probe' | 'portal check' | undefined;
  #failedRounds = 0;
  /** What the last probe that failed left, should there be no portal. */
  #withoutPortal: PathState & { state: 'impaired' | 'closed' } = { state: 'closed', diagnosis: UNPROBED };
  /** Probes in a row that each of the servers has failed, and how many rounds the same ones have been missing. */
  readonly #failures = new Map<string, number>();
  #missing = '';
  #missingRounds = 0;
  #probeAt: number | undefined;
  #doubtFrom = Number.NEGATIVE_INFINITY;
  #doubtMillis = DOUBT_MILLIS;

  get state(): PathState {
    return this.#state;
  }

  /** Those in use now. */
  get using(): readonly UpstreamServer[] {
    return this.#using;
  }

  get reports(): readonly Report[] {
    return this.#reports;
  }

  /** When `tick` is due, and why; milliseconds, monotonic. */
  deadline(): { at: number; why: 'probe again' | 'the portal mode ends' } | undefined {
    const end = this.#state.state === 'portal' ? this.#state.until : undefined;
    // Whoever is still looking is let finish first.
    const next = this.#pending === undefined ? this.#probeAt : undefined;
    if (next !== undefined && (end === undefined || next <= end)) return { at: next, why: 'probe again' };
    return end === undefined ? undefined : { at: end, why: 'the portal mode ends' };
  }

  handle(event: PathEvent, now: number): PathEffect[] {
    switch (event.kind) {
      case 'changed':
        return this.#changed(event.servers);
      case 'stirred':
        return [this.#use(this.#using), { do: 'forgetFailures' }, this.#probe()];
      case 'probed':
        return this.#awaits('probe', event.round) ? this.#probed(event.reports, now) : [];
      case 'portalChecked':
        return this.#awaits('portal check', event.round) ? this.#portalChecked(event.finding, now) : [];
      case 'doubted':
        return this.#doubted(now);
      case 'tick':
        return this.#tick(now);
    }
  }

  /** What an earlier network or round still sends counts no more. */
  #awaits(what: 'probe' | 'portal check', round: number): boolean {
    return this.#pending === what && this.#round === round;
  }

  #changed(servers: readonly UpstreamServer[]): PathEffect[] {
    this.#servers = servers;
    this.#reports = [];
    this.#failedRounds = 0;
    this.#failures.clear();
    this.#missing = '';
    this.#doubtMillis = DOUBT_MILLIS;
    const told = this.#become({ state: 'unknown' });
    const forget: PathEffect[] = told.length > 0 ? [] : [{ do: 'forgetFailures' }];
    return [this.#use(servers), ...forget, ...told, this.#probe()];
  }

  #probed(reports: readonly Report[], now: number): PathEffect[] {
    this.#reports = reports;
    this.#countFailures();
    const best = choose(reports);
    this.#doubtFrom = now + (best?.whole ? this.#doubtMillis : DOUBT_SOON_MILLIS);
    if (best === undefined) return this.#failed(closedBy(reports), this.#servers, 'closed', now);
    const { servers, diagnosis, whole } = best;
    if (!whole) return this.#failed(diagnosis, servers, 'impaired', now);
    this.#pending = undefined;
    this.#failedRounds = 0;
    this.#scheduleMissing(servers, now);
    if (this.#missing !== '') this.#doubtFrom = now + DOUBT_MISSING_MILLIS;
    return this.#move({ state: 'carries', diagnosis }, this.#withUnlucky(servers));
  }

  #countFailures(): void {
    for (const report of this.#reports) {
      const text = formatUpstreamServer(report.server);
      if (isSound(report)) this.#failures.delete(text);
      else this.#failures.set(text, (this.#failures.get(text) ?? 0) + 1);
    }
  }

  /** Of servers as they are configured; a plain one is probed over TCP as well. */
  #reportsOfServers(): readonly Report[] {
    const texts = new Set(this.#servers.map(formatUpstreamServer));
    return this.#reports.filter(({ server }) => texts.has(formatUpstreamServer(server)));
  }

  /**
   * With those of the same kind that are silent, or failed once, which may have been a bad moment: what they answer is
   * validated, and the next server asked where it is bogus, so that one too many costs less than one too few. Not with
   * those who lie.
   */
  #withUnlucky(chosen: readonly UpstreamServer[]): UpstreamServer[] {
    const { transport } = chosen[0]!;
    const unlucky = this.#reportsOfServers().filter(
      ({ server, diagnosis }) =>
        server.transport === transport &&
        !chosen.includes(server) &&
        diagnosis.symptom !== 'rewrites' &&
        (SILENT.has(diagnosis.symptom) || this.#failures.get(formatUpstreamServer(server)) === 1),
    );
    return [...chosen, ...unlucky.map(({ server }) => server)];
  }

  /** Whoever failed though we would rather ask it, or ask it as well, is probed again. */
  #scheduleMissing(chosen: readonly UpstreamServer[], now: number): void {
    const kind = kindOf(chosen[0]!);
    const missing = this.#reportsOfServers()
      .filter(report => kindOf(report.server) <= kind && !isSound(report))
      .map(({ server }) => server);
    this.#missingRounds = listText(missing) === this.#missing ? this.#missingRounds + 1 : 0;
    this.#missing = listText(missing);
    if (missing.length === 0) return;
    const unused = missing.filter(server => !chosen.includes(server));
    const lacking = unused.some(server => kindOf(server) === kind) ? 'server' : 'kind';
    const most = MISSING[unused.length === 0 ? 'tcp' : lacking];
    this.#probeAt = now + Math.min(MISSING.first * 2 ** Math.min(this.#missingRounds, 10), most);
  }

  #failed(
    diagnosis: Diagnosis,
    servers: readonly UpstreamServer[],
    state: 'impaired' | 'closed',
    now: number,
  ): PathEffect[] {
    const inPortal = this.#state.state === 'portal';
    this.#missing = '';
    this.#pending = 'portal check';
    this.#failedRounds++;
    this.#schedule(now, inPortal ? 'portal' : state);
    // Whether the portal's mode goes on is for the check to say; until then it stands.
    this.#withoutPortal = { state, diagnosis };
    const moved = this.#move(inPortal ? this.#state : { state, diagnosis }, servers);
    return [...moved, { do: 'checkPortal', round: this.#round }];
  }

  #portalChecked(finding: PortalFinding, now: number): PathEffect[] {
    this.#pending = undefined;
    const state = this.#state;
    if (finding.kind === 'portal') {
      const { diagnosis } = this.#withoutPortal;
      const since = state.state === 'portal' ? state.since : now;
      if (state.state !== 'portal') this.#failedRounds = 1;
      this.#schedule(now, 'portal');
      const until = now + PORTAL_MILLIS;
      return this.#become({ state: 'portal', diagnosis, login: finding.login, since, until });
    }
    // No answer is no evidence, neither for the portal nor against it: its mode runs out.
    if (state.state === 'portal' && finding.kind === 'unknown' && now < state.until) return [];
    return state.state === 'portal' ? this.#become(this.#withoutPortal) : [];
  }

  #doubted(now: number): PathEffect[] {
    const { state } = this.#state;
    if (this.#pending !== undefined || now < this.#doubtFrom) return [];
    if (state === 'unknown' || state === 'portal') return [];
    if (state === 'carries' && this.#missing === '')
      this.#doubtMillis = Math.min(2 * this.#doubtMillis, DOUBT_AT_MOST_MILLIS);
    return [this.#probe()];
  }

  #tick(now: number): PathEffect[] {
    const effects: PathEffect[] = [];
    if (this.#state.state === 'portal' && now >= this.#state.until)
      effects.push(...this.#become(this.#withoutPortal));
    const due = this.#pending === undefined && this.#probeAt !== undefined && now >= this.#probeAt;
    if (due) effects.push(this.#probe());
    return effects;
  }

  #probe(): PathEffect {
    this.#probeAt = undefined;
    this.#pending = 'probe';
    return { do: 'probe', round: ++this.#round };
  }

  #schedule(now: number, state: keyof typeof AGAIN): void {
    const { first, most } = AGAIN[state];
    this.#probeAt = now + Math.min(first * 2 ** Math.min(this.#failedRounds - 1, 6), most);
  }

  #use(servers: readonly UpstreamServer[]): PathEffect {
    this.#using = servers;
    return { do: 'use', servers };
  }

  /** Who is asked already goes on being asked without a word. */
  #move(next: PathState, servers: readonly UpstreamServer[]): PathEffect[] {
    const asBefore = next.state === this.#state.state && listText(servers) === listText(this.#using);
    return [...(asBefore ? [] : [this.#use(servers)]), ...this.#become(next)];
  }

  #become(next: PathState): PathEffect[] {
    const before = this.#state;
    this.#state = next;
    if (same(before, next)) return [];
    // What was hoped for came true: nothing has failed for a reason that is gone.
    const asHoped =
      before.state === 'unknown' && next.state === 'carries' && next.diagnosis.symptom === 'none';
    return asHoped ? [{ do: 'tell', before }] : [{ do: 'forgetFailures' }, { do: 'tell', before }];
  }
}

/**
 * The best way there is; undefined when not even the keys of the trust anchor came through on any.
 *
 * UDP where TCP stands by for large answers, then TCP alone, then TLS and HTTPS, then UDP without TCP. Of one kind all
 * that pass are used: the upstream asks the fastest. A server that passes over UDP is not asked over TCP as well.
 */
export function choose(
  reports: readonly Report[],
): { servers: UpstreamServer[]; diagnosis: Diagnosis; whole: boolean } | undefined {
  const whole = reports.filter(isWhole);
  const sound = reports.filter(isSound);
  for (const kind of [0, 1, 2]) {
    const found = sound.filter(({ server }) => kindOf(server) === kind);
    if (found.length > 0) return { ...used(found, why(reports, found[0]!)), whole: true };
  }
  if (whole.length > 0) return { ...used(whole, whole[0]!.diagnosis), whole: true };
  const some = reports.filter(({ keys }) => keys).toSorted((a, b) => b.passed - a.passed);
  if (some.length === 0) return undefined;
  const equal = some.filter(({ passed, server }) => {
    return passed === some[0]!.passed && server.transport === some[0]!.server.transport;
  });
  return { ...used(equal, some[0]!.diagnosis), whole: false };
}

const isWhole = ({ passed, checks }: Report) => checks > 0 && passed === checks;
const isSound = (report: Report) => isWhole(report) && report.diagnosis.symptom === 'none';

/** The kinds of ways, best liked first. */
function kindOf({ transport }: UpstreamServer): number {
  return transport === 'udp' ? 0 : transport === 'tcp' ? 1 : 2;
}

const listText = (servers: readonly UpstreamServer[]) => servers.map(formatUpstreamServer).join(' ');

/** A way that is not the first choice says what was wrong with that. */
function why(reports: readonly Report[], chosen: Report): Diagnosis {
  const first = reports[0]!.diagnosis;
  if (chosen.server.transport === 'udp' || first.symptom === 'none') return chosen.diagnosis;
  return first;
}

const used = (reports: readonly Report[], diagnosis: Diagnosis) => ({
  servers: reports.map(({ server }) => server),
  diagnosis,
});

/** Why everything failed: the most telling diagnosis, which is that of a server that answers. */
function closedBy(reports: readonly Report[]): Diagnosis {
  const telling = reports.find(({ diagnosis }) => diagnosis.symptom !== 'no-answer') ?? reports[0];
  return telling?.diagnosis ?? { symptom: 'no-answer', text: 'the network names no resolver' };
}

function same(a: PathState, b: PathState): boolean {
  if (a.state !== b.state) return false;
  if (a.state === 'unknown' || b.state === 'unknown') return true;
  if (a.state === 'portal' && b.state === 'portal' && a.login !== b.login) return false;
  return a.diagnosis.text === b.diagnosis.text;
}
