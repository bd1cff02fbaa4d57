// The figures of the DNS bench: samples in, medians, ratios and text out. Pure.
import { percentile } from '../figures.ts';

/** What one server did in one round; only what that scenario measures. */
export type Figures = {
  questionsPerSecond?: number;
  /** CPU time of the server for each question, all its threads. */
  cpuMicros?: number;
  p50Millis?: number;
  p99Millis?: number;
  /** p50 over that of the upstream asked directly in the same round. */
  addedMillis?: number;
  /** Asked of the upstream for one question of the client. */
  upstreamQuestions?: number;
  startMillis?: number;
  idleMegabytes?: number;
  fullMegabytes?: number;
  /** Answers in Holdfast's cache, which counts answers and not RRsets. */
  entries?: number;
  lost?: number;
  /** Answers other than NOERROR. */
  failed?: number;
};

export type Sample = { who: string; figures: Figures };
/** Samples in the order of measuring: the n-th of one server and the n-th of another are of the same round. */
export type Scenario = { title: string; note: string; samples: Sample[] };

export type DnsBenchResult = {
  machine: string;
  versions: Record<string, string>;
  /** Servers that cannot run here, and why. */
  missing: Record<string, string>;
  rounds: number;
  scenarios: Scenario[];
};

/** Column heading, decimals, and whether its ratio to unbound is of interest. */
const columns: Record<keyof Figures, { heading: string; decimals: number; ratio?: true }> = {
  questionsPerSecond: { heading: 'q/s', decimals: 0, ratio: true },
  cpuMicros: { heading: 'CPU µs/q', decimals: 1, ratio: true },
  p50Millis: { heading: 'p50 ms', decimals: 3 },
  p99Millis: { heading: 'p99 ms', decimals: 3 },
  addedMillis: { heading: 'added ms', decimals: 3 },
  upstreamQuestions: { heading: 'upstream q', decimals: 2 },
  startMillis: { heading: 'ms', decimals: 0 },
  idleMegabytes: { heading: 'idle MB', decimals: 0 },
  fullMegabytes: { heading: 'full MB', decimals: 0 },
  entries: { heading: 'answers kept', decimals: 0 },
  lost: { heading: 'lost', decimals: 0 },
  failed: { heading: 'failed', decimals: 0 },
};

/** The server that all are compared with. */
const YARDSTICK = 'unbound';

/** The result as a person reads it at the terminal. */
export function dnsReport(result: DnsBenchResult): string {
  const versions = Object.entries(result.versions).map(([who, version]) => `${who} ${version}`);
  const lines = [
    result.machine,
    versions.join(' · '),
    `Medians of ${result.rounds} rounds in which all took turns; ÷ is the median of the rounds' ratios to ${YARDSTICK}.`,
  ];
  for (const [who, why] of Object.entries(result.missing)) lines.push(`${who}: ${why}`);
  for (const scenario of result.scenarios) lines.push('', ...scenarioLines(scenario));
  return lines.join('\n');
}

function scenarioLines({ title, note, samples }: Scenario): string[] {
  const servers = [...new Set(samples.map(({ who }) => who))];
  const shown = (Object.keys(columns) as (keyof Figures)[]).filter(name =>
    samples.some(({ figures }) =>
      name === 'lost' || name === 'failed' ? figures[name] : figures[name] !== undefined,
    ),
  );
  const ratio = shown.filter(name => columns[name].ratio && servers.includes(YARDSTICK));
  const headings = shown.flatMap(name => [columns[name].heading, ...(ratio.includes(name) ? ['÷'] : [])]);
  const rows = servers.map(who => {
    const cells = shown.flatMap(name => {
      const values = valuesOf(samples, who, name);
      const cell = values.length > 0 ? percentile(values, 0.5).toFixed(columns[name].decimals) : '';
      return ratio.includes(name) ? [cell, ratioText(samples, who, name)] : [cell];
    });
    return [who, ...cells];
  });
  const table = [['', ...headings], ...rows];
  const widths = table[0]!.map((_, i) => Math.max(...table.map(row => row[i]!.length)));
  const text = table.map(row =>
    row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]! + 2))).join(''),
  );
  return [`── ${title}`, `   ${note}`, ...text.map(line => line.trimEnd())];
}

function ratioText(samples: Sample[], who: string, name: keyof Figures): string {
  const ratio = ratioToYardstick(samples, who, name);
  return ratio === undefined ? '' : ratio.toFixed(2);
}

/** Median of the rounds' ratios; undefined when one of the two has no such figure. */
export function ratioToYardstick(samples: Sample[], who: string, name: keyof Figures): number | undefined {
  const [ours, theirs] = [valuesOf(samples, who, name), valuesOf(samples, YARDSTICK, name)];
  const ratios = ours.flatMap((value, round) => (theirs[round] ? [value / theirs[round]] : []));
  return ratios.length === 0 ? undefined : percentile(ratios, 0.5);
}

function valuesOf(samples: Sample[], who: string, name: keyof Figures): number[] {
  return samples.flatMap(sample => (sample.who === who ? (sample.figures[name] ?? []) : []));
}

/** The part of RESULTS.md: the report, and every round's figures so that others can count for themselves. */
export function dnsSection(result: DnsBenchResult, date: string, command: string): string {
  const samples = result.scenarios.flatMap(({ title, samples }) => {
    const names = (Object.keys(columns) as (keyof Figures)[]).filter(name =>
      samples.some(({ figures }) => figures[name] !== undefined),
    );
    return [
      `### ${title}`,
      '',
      `| server | ${names.map(name => columns[name].heading).join(' | ')} |`,
      `|${'---|'.repeat(names.length + 1)}`,
      ...samples.map(({ who, figures }) => {
        const cells = names.map(name => figures[name]?.toFixed(columns[name].decimals) ?? '');
        return `| ${[who, ...cells].join(' | ')} |`;
      }),
      '',
    ];
  });
  const head = [
    '# DNS bench results',
    '',
    `${date}, by \`${command}\`.`,
    '',
    '```text',
    dnsReport(result),
    '```',
  ];
  return [...head, '', '## Rounds', '', 'In the order of measuring.', '', ...samples].join('\n').trimEnd();
}
