// The figures of the bench: samples in, summaries, ratios and text out. Pure; milliseconds throughout.
import type { Explanation } from '../../resolver/control/api.ts';
import type { KeyKind } from '../lab/keys.ts';
import type { ExchangeCount } from './exchanges.ts';

/** What an app saw of one name: getaddrinfo, connect() and the first byte, by guest/connect.c. */
export type AppView = { resolveMs: number; connectMs: number; totalMs: number; retransmits: number };

/** One cold capture, as the daemon tells it. Moments count from the question. */
export type CaptureTimes = {
  answerMs: number;
  dnsMs: number; // question to validated addresses and key
  ikeMs: number; // what the answer waited for after that, without the kernel
  kernelMs: number; // verbs that install SAs and policies
  initSentAt: number;
  initAnsweredAt: number;
  authSentAt: number;
  authAnsweredAt: number;
  installedAt: number;
};

/** The three measured in one round, in rotating order: the same name, or in cold rounds names with keys of one kind. */
export type Round = {
  kind: KeyKind;
  floor: AppView; // unbound asked straight, connection in clear
  strongSwanMs: number; // vici `initiate` sent to event `child-updown` received
  charonMs: number; // the same by charon's own log, in whole milliseconds
  holdfast: CaptureTimes;
  app: AppView; // the app that asked Holdfast
};

export type Situation = 'warm' | 'cold';
export type Series = { delayMs: number; situation: Situation; roundTripMs: number; rounds: Round[] };

export type BenchResult = {
  kernel: string;
  versions: Record<string, string>;
  series: Series[];
  /** Of captures beside the peer, made in rounds of their own that no time was taken of. */
  exchanges: { names: number; holdfast: ExchangeCount; strongSwan: ExchangeCount };
  failures: string[];
};

/** min, median, max. */
export type Summary = { min: number; median: number; max: number };

/** The p-th percentile (0 to 1) of at least one value, linear between neighbours. */
export function percentile(values: number[], p: number): number {
  if (values.length === 0) throw new RangeError('a percentile of no values');
  const sorted = values.toSorted((a, b) => a - b);
  const at = (sorted.length - 1) * p;
  const below = sorted[Math.floor(at)]!;
  const above = sorted[Math.ceil(at)]!;
  return below + (above - below) * (at - Math.floor(at));
}

export function summarize(values: number[]): Summary {
  return { min: percentile(values, 0), median: percentile(values, 0.5), max: percentile(values, 1) };
}

/** The times of a capture that negotiated; throws with what the story lacks when it is not the story of one. */
export function captureTimes(told: Explanation): CaptureTimes {
  const at = (what: string) => {
    const step = told.steps.find(one => one.what === what);
    if (!step) throw new Error(`${told.name}: no step "${what}" (${told.rcode}, ${told.assurance})`);
    return step.at;
  };
  const { answerMs, dnsMs, ikeMs, kernelMs } = told;
  if (dnsMs === undefined || ikeMs === undefined || kernelMs === undefined)
    throw new Error(`${told.name}: its answer waited for no negotiation (${told.rcode}, ${told.assurance})`);
  return {
    ...{ answerMs, dnsMs, ikeMs, kernelMs },
    initSentAt: at('IKE_SA_INIT sent'),
    initAnsweredAt: at('IKE_SA_INIT answered'),
    authSentAt: at('IKE_AUTH sent'),
    authAnsweredAt: at('IKE_AUTH answered'),
    installedAt: at('SAs and policies in the kernel'),
  };
}

/**
 * The last negotiation in a log of charon's (`time_format = %H:%M:%S`, `time_add_ms = yes`): from "initiating IKE_SA" to
 * "CHILD_SA … established", which comes once its SAs are installed. Throws when there is none.
 */
export function lastNegotiationMs(log: string): number {
  const started = log.lastIndexOf('initiating IKE_SA');
  const rest = log.slice(log.lastIndexOf('\n', started) + 1).split('\n');
  const installed = rest.find(line => /CHILD_SA \S+ established/.test(line));
  if (started < 0 || installed === undefined) throw new Error('no negotiation at the end of the log');
  const took = timeOfDay(installed) - timeOfDay(rest[0]!);
  return took < 0 ? took + 24 * 3_600_000 : took;
}

function timeOfDay(line: string): number {
  const [, hours, minutes, seconds] = /^(\d\d):(\d\d):(\d\d\.\d{3})/.exec(line) ?? [];
  return Math.round((Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds)) * 1000);
}

/** How much of IKE_SA_INIT went by before DNS was done, which is time nobody waited for: 0 none, 1 all of it. */
export function hiddenShare({ initSentAt, initAnsweredAt, dnsMs }: CaptureTimes): number {
  const took = initAnsweredAt - initSentAt;
  if (took <= 0) return initSentAt < dnsMs ? 1 : 0;
  return Math.min(1, Math.max(0, (dnsMs - initSentAt) / took));
}

/** Each figure of a series as its values, in the order of printing. */
export function figures(rounds: Round[]): Record<string, number[]> {
  const of = (read: (round: Round) => number) => rounds.map(read);
  return {
    'DNS floor: unbound straight, by the app': of(r => r.floor.resolveMs),
    'strongSwan: initiate to installed': of(r => r.strongSwanMs),
    "  the same by charon's own log": of(r => r.charonMs),
    'Holdfast: question to answer': of(r => r.holdfast.answerMs),
    '  DNS: addresses, key, validation': of(r => r.holdfast.dnsMs),
    '  IKE: waited for after DNS': of(r => r.holdfast.ikeMs),
    '  kernel: SAs and policies': of(r => r.holdfast.kernelMs),
    '  negotiation: INIT sent to installed': of(r => r.holdfast.installedAt - r.holdfast.initSentAt),
    '  IKE_SA_INIT: sent to answered': of(r => r.holdfast.initAnsweredAt - r.holdfast.initSentAt),
    '  IKE_AUTH: sent to answered': of(r => r.holdfast.authAnsweredAt - r.holdfast.authSentAt),
    'app, straight: getaddrinfo to first byte': of(r => r.floor.totalMs),
    'app, Holdfast: getaddrinfo': of(r => r.app.resolveMs),
    'app, Holdfast: connect()': of(r => r.app.connectMs),
    'app, Holdfast: getaddrinfo to first byte': of(r => r.app.totalMs),
  };
}

/** Ratios of medians; strongSwan's by its own log, as Holdfast's times are its own too. */
export type Ratios = {
  waited: number; // (IKE waited for + kernel) / strongSwan
  negotiation: number; // IKE_SA_INIT sent to installed / strongSwan, which does just that
  whole: number; // getaddrinfo through Holdfast / (getaddrinfo straight + strongSwan)
};

export function ratios(rounds: Round[]): Ratios {
  const median = (read: (round: Round) => number) => percentile(rounds.map(read), 0.5);
  const strongSwan = median(r => r.charonMs);
  const floor = median(r => r.floor.resolveMs);
  return {
    waited: median(r => r.holdfast.ikeMs + r.holdfast.kernelMs) / strongSwan,
    negotiation: median(r => r.holdfast.installedAt - r.holdfast.initSentAt) / strongSwan,
    whole: median(r => r.app.resolveMs) / (strongSwan + floor),
  };
}

export type Speculation = { rounds: number; early: number; whole: number; medianShare: number };

/** early: IKE_SA_INIT left before DNS was done; whole: it was answered before, too. */
export function speculation(rounds: Round[]): Speculation {
  const shares = rounds.map(round => hiddenShare(round.holdfast));
  return {
    rounds: rounds.length,
    early: shares.filter(share => share > 0).length,
    whole: shares.filter(share => share === 1).length,
    medianShare: percentile(shares, 0.5),
  };
}

const situations: Record<Situation, string> = {
  warm: 'warm: all has been running for a while, Holdfast does not know the name, the upstream does',
  cold: 'cold: first name after the start of the daemon (of charon, for strongSwan), new to the upstream too',
};

const legend = [
  'Milliseconds, min / median / max. Delay: what is added to each round trip between the initiator (alice, or',
  'strongSwan at another host of the same wire) and everybody else. The three take turns, round by round.',
  "strongSwan's time: from vici's command `initiate` to its event `child-updown`, over one connection that stays open;",
  'by its log from "initiating IKE_SA" to "CHILD_SA … established". Ratios are to the latter: both tell from inside.',
];

/** The result as a person reads it at the terminal, or as the main part of RESULTS.md. */
export function report(result: BenchResult): string {
  const versions = Object.entries(result.versions).map(([what, version]) => `${what} ${version}`);
  const lines = [`${result.kernel} · ${versions.join(' · ')}`, '', ...legend];
  if (result.kernel.includes('User-Mode Linux'))
    lines.push(
      'User-Mode Linux is many times slower than a kernel on the machine itself: only compare within it.',
    );
  for (const series of result.series) lines.push('', ...seriesLines(series));
  lines.push('', ...exchangeLines(result.exchanges));
  if (result.failures.length > 0) lines.push('', `${result.failures.length} rounds failed and are left out:`);
  lines.push(...result.failures.map(failure => `  ${failure}`));
  return lines.join('\n');
}

function seriesLines({ delayMs, situation, roundTripMs, rounds }: Series): string[] {
  const head = `── delay ${delayMs} ms (ping ${roundTripMs.toFixed(1)} ms), ${rounds.length} rounds, ${situations[situation]}`;
  if (rounds.length === 0) return [head];
  const rows = Object.entries(figures(rounds)).map(([what, values]) => {
    const { min, median, max } = summarize(values);
    return `${what.padEnd(42)}${[min, median, max].map(value => value.toFixed(1).padStart(8)).join('')}`;
  });
  const { waited, negotiation, whole } = ratios(rounds);
  const { early, whole: hidden, medianShare } = speculation(rounds);
  return [
    head,
    ...rows,
    `ratio of medians: Holdfast's IKE + kernel waited for / strongSwan ${waited.toFixed(2)}, whole negotiation / strongSwan ${negotiation.toFixed(2)}`,
    `                  getaddrinfo through Holdfast / (getaddrinfo straight + strongSwan) ${whole.toFixed(2)}`,
    `speculation: IKE_SA_INIT left before DNS was done in ${early} of ${rounds.length}, was wholly hidden in ${hidden}; median share hidden ${(100 * medianShare).toFixed(0)} %`,
  ];
}

function exchangeLines({ names, holdfast, strongSwan }: BenchResult['exchanges']): string[] {
  const line = (who: string, { roundTrips, retransmitted }: ExchangeCount) => {
    const parts = Object.entries(roundTrips).map(([exchange, count]) => `${exchange} ${count}`);
    return `  ${who.padEnd(12)}${parts.join(', ')}; ${retransmitted} messages sent twice`;
  };
  return [
    `IKE round trips on the wire for ${names} names, opened and closed:`,
    line('Holdfast', holdfast),
    line('strongSwan', strongSwan),
  ];
}

/** RESULTS.md: the report, and every sample so that others can count for themselves. */
export function resultsPage(result: BenchResult, date: string, command: string): string {
  const samples = result.series.flatMap(({ delayMs, situation, rounds }) => [
    `### delay ${delayMs} ms, ${situation}`,
    '',
    '| key | floor getaddrinfo | strongSwan | by its log | answer | DNS | IKE | kernel | INIT sent | INIT answered | AUTH sent | AUTH answered | installed | app getaddrinfo | app connect | app first byte |',
    `|${'---|'.repeat(16)}`,
    ...rounds.map(sampleRow),
    '',
  ]);
  return [
    '# Bench results',
    '',
    `${date}, by \`${command}\`.`,
    '',
    '```text',
    report(result),
    '```',
    '',
    '## Samples',
    '',
    'Milliseconds. INIT sent to installed: moments since the question; the rest are durations.',
    '',
    ...samples,
  ]
    .join('\n')
    .trimEnd()
    .concat('\n');
}

function sampleRow({ kind, floor, strongSwanMs, charonMs, holdfast, app }: Round): string {
  const { answerMs, dnsMs, ikeMs, kernelMs } = holdfast;
  const { initSentAt, initAnsweredAt, authSentAt, authAnsweredAt, installedAt } = holdfast;
  const moments = [initSentAt, initAnsweredAt, authSentAt, authAnsweredAt, installedAt];
  const values = [floor.resolveMs, strongSwanMs, charonMs, answerMs, dnsMs, ikeMs, kernelMs, ...moments];
  const cells = [...values, app.resolveMs, app.connectMs, app.totalMs].map(value => value.toFixed(2));
  return `| ${[kind, ...cells].join(' | ')} |`;
}
