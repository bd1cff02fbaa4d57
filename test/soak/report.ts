// The soak's result: what it is judged by, and how it is told. Pure.
import type { LoadReport } from './load.ts';
import type { ProxyReport } from './proxy.ts';
import { growth, type Point } from './trend.ts';

export type Sample = {
  seconds: number;
  residentMegabytes: number;
  descriptors: number;
  inFlight: number;
  cpuMicros: number;
  cpuWaitMicros: number;
};

/** One line; shorter than a minute in a short soak. Latencies are of its last second. */
export type Minute = {
  seconds: number;
  length: number;
  sent: number;
  answered: number;
  right: number;
  servfail: number;
  wrong: number;
  retried: number;
  unanswered: number;
  p50Millis: number;
  p99Millis: number;
  residentMegabytes: number;
  descriptors: number;
  inFlight: number;
  /** Of one CPU, by the daemon. */
  cpuShare: number;
  /** Of the time, that the daemon was kept waiting for a CPU by others on this machine. */
  cpuWaitShare: number;
  weather: string[];
};

export type SoakResult = {
  minutes: number;
  rate: number;
  seed: number;
  spellSeconds: number;
  /** From the first question to the last. */
  seconds: number;
  lines: Minute[];
  samples: Sample[];
  /** Live heap after each full collection, MB. */
  heap: Point[];
  load: LoadReport;
  proxy: ProxyReport;
  /** Share of SERVFAIL in the calm at the end, and how long after the last fault. */
  recovered: { servfail: number; afterSeconds: number };
  quiet: { descriptorsBefore: number; descriptors: number; inFlight: Record<string, number> };
  counters: Record<string, number>;
  daemon: { alive: boolean; end: string; cpuMicros: number; cpuWaitMicros: number };
};

/** Growth is judged when there is this much to look at. */
const JUDGED_SECONDS = 600;
const WARM_UP_SECONDS = 180;
const MEMORY_TOLERANCE_MEGABYTES = 12;
const DESCRIPTOR_TOLERANCE = 16;
/** Sockets that are kept for the next question. */
const KEPT_DESCRIPTORS = 64;
const UNANSWERED_SHARE = 1 / 10_000;
export const RECOVERED_SERVFAIL_SHARE = 1 / 500;

/** What went wrong, each in a sentence; empty when all is well. */
export function judge(result: SoakResult): string[] {
  const { load, daemon, quiet, recovered, seconds } = result;
  const failures: string[] = [];
  const fail = (when: boolean, text: string) => when && failures.push(text);
  fail(!daemon.alive, `the daemon ended: ${daemon.end}`);
  fail(load.wrong > 0, `${load.wrong} answers were wrong`);
  fail(load.right === 0, 'no answer was right');
  const share = load.unanswered / Math.max(1, load.sent);
  fail(share > UNANSWERED_SHARE, `${load.unanswered} questions were never answered`);
  fail(
    recovered.servfail > RECOVERED_SERVFAIL_SHARE,
    `${percent(recovered.servfail)} SERVFAIL in the calm at the end`,
  );
  for (const [name, count] of Object.entries(quiet.inFlight))
    fail(count > 0 && name.endsWith('inFlight'), `${name} is ${count} when nobody asks`);
  const left = quiet.descriptors - quiet.descriptorsBefore;
  fail(left > KEPT_DESCRIPTORS, `${left} descriptors more than before, when nobody asks`);
  if (seconds >= JUDGED_SECONDS)
    failures.push(...growths(result).flatMap(({ name, grows }) => (grows ? [`${name} grows`] : [])));
  return failures;
}

/** Resident memory, live heap and descriptors under load. */
function growths({ samples, heap }: SoakResult) {
  const of = (name: 'residentMegabytes' | 'descriptors' | 'inFlight') =>
    samples.map(sample => ({ seconds: sample.seconds, value: sample[name] }));
  return [
    {
      name: 'resident memory, MB',
      ...growth(of('residentMegabytes'), WARM_UP_SECONDS, MEMORY_TOLERANCE_MEGABYTES),
    },
    { name: 'live heap, MB', ...growth(heap, WARM_UP_SECONDS, MEMORY_TOLERANCE_MEGABYTES) },
    { name: 'descriptors', ...growth(of('descriptors'), WARM_UP_SECONDS, DESCRIPTOR_TOLERANCE) },
    { name: 'in flight', ...growth(of('inFlight'), WARM_UP_SECONDS, 100) },
  ];
}

/** One line as it is printed while the soak runs. */
export function lineOf(minute: Minute): string {
  const { seconds, length, sent, answered, servfail, wrong, retried, unanswered } = minute;
  const clock = `${String(Math.floor(seconds / 60)).padStart(3)}:${String(Math.floor(seconds % 60)).padStart(2, '0')}`;
  return [
    clock,
    `${Math.round(sent / length)} q/s asked, ${Math.round(answered / length)} answered`,
    `${percent(servfail / Math.max(1, answered))} SERVFAIL`,
    `${wrong} wrong, ${retried} asked twice, ${unanswered} unanswered`,
    `p50 ${minute.p50Millis.toFixed(2)} p99 ${minute.p99Millis.toFixed(0)} ms`,
    `${minute.residentMegabytes.toFixed(0)} MB, ${minute.descriptors} fds, ${minute.inFlight} in flight`,
    `CPU ${percent(minute.cpuShare)}, waited for one ${percent(minute.cpuWaitShare)}`,
    minute.weather.join(' | '),
  ].join(' · ');
}

/** The end of the printed report. */
export function soakReport(result: SoakResult, failures: string[]): string {
  const { load, proxy, seconds, daemon, quiet } = result;
  const share = (part: number) => percent(part / Math.max(1, load.sent));
  const faults = Object.entries(proxy.faults).map(([kind, count]) => `${kind} ${count}`);
  const lines = [
    `${(seconds / 60).toFixed(1)} minutes, ${load.sent} questions (${Math.round(load.sent / seconds)} a second, ${result.rate} wanted)`,
    `right ${load.right} (${share(load.right)}), SERVFAIL ${load.servfail} (${share(load.servfail)}), wrong ${load.wrong}`,
    `asked twice ${load.retried}, never answered ${load.unanswered}, given up by the client ${load.abandoned}, TC over UDP ${load.truncated}, unexpected ${load.unexpected}, TCP connections ended by the server with questions open ${load.dropped}`,
    `upstream: ${proxy.questions} questions, ${proxy.overTcp} TCP connections; spells of ${result.spellSeconds.toFixed(0)} s; struck: ${faults.join(', ')}`,
    `CPU of one core: daemon ${percent(daemon.cpuMicros / 1e6 / seconds)} (${(daemon.cpuMicros / load.sent).toFixed(0)} µs a question), clients ${percent(load.cpuMicros / 1e6 / seconds)}, proxy ${percent(proxy.cpuMicros / 1e6 / seconds)}; the daemon waited for a CPU for ${percent(daemon.cpuWaitMicros / 1e6 / seconds)} of the time`,
    `${percent(result.recovered.servfail)} SERVFAIL in the calm at the end, ${result.recovered.afterSeconds.toFixed(0)} s after the last fault`,
    `when nobody asks any more: ${quiet.descriptors} descriptors (${quiet.descriptorsBefore} before), in flight ${JSON.stringify(quiet.inFlight)}`,
    ...(seconds < JUDGED_SECONDS ? ['too short to judge growth by'] : growths(result).map(growthText)),
    ...load.examples.slice(0, 10),
    failures.length === 0 ? 'passed' : `FAILED: ${failures.join('; ')}`,
  ];
  return lines.join('\n');
}

function growthText({ name, middle, end, slopePerHour }: ReturnType<typeof growths>[number]): string {
  const figures = [middle, end, slopePerHour].map(value => value.toFixed(1));
  return `${name}: ${figures[0]} in the middle, ${figures[1]} at the end, slope ${figures[2]} an hour`;
}

/** The part of RESULTS.md. */
export function soakSection(result: SoakResult, failures: string[], date: string, command: string): string {
  const head = ['# Soak', '', `${date}, by \`${command}\`.`, '', '```text', soakReport(result, failures), ''];
  return [...head, ...result.lines.map(lineOf), '```'].join('\n');
}

function percent(share: number): string {
  return `${(share * 100).toFixed(share < 0.1 ? 2 : 0)} %`;
}
