// dnsperf as the source of questions: runs it, reads what it says. Pure parsing below, bounded running above.
import { spawn } from 'node:child_process';
import { layerEnvironment } from '../../lab/packages.ts';
import { program } from './upstream.ts';

export type DnsperfRun = {
  port: number;
  /** Input of dnsperf, `NAME TYPE` a line. */
  file: string;
  /** Questions outstanding at one time. */
  outstanding: number;
  /** Stop after so many seconds, asking the file again and again; otherwise once through the file. */
  seconds?: number;
  /** Questions a second at most. */
  rate?: number;
  /** EDNS with DO. */
  dnssecOk?: boolean;
  /** Every answer's latency is told; costs dnsperf too much for a measurement of throughput. */
  latencies?: boolean;
  /** No CPU: wherever the scheduler likes. */
  cpu?: number;
};

export type DnsperfResult = {
  completed: number;
  lost: number;
  /** By RCODE. */
  rcodes: Record<string, number>;
  questionsPerSecond: number;
  /** Milliseconds, in the order of the answers; empty unless asked for. */
  latencies: number[];
};

/** dnsperf 2.10 does not always end when it should: this long after that it is interrupted, and again killed. */
const GRACE_MILLIS = 4000;

/** Runs dnsperf to its end. Rejects when it says nothing that can be used. */
export async function dnsperf(run: DnsperfRun, expectedSeconds = 20): Promise<DnsperfResult> {
  const words = ['-s', '127.0.0.1', '-p', String(run.port), '-d', run.file, '-c', '1', '-T', '1', '-t', '3'];
  words.push('-q', String(run.outstanding));
  if (run.seconds === undefined) words.push('-n', '1');
  else words.push('-l', String(run.seconds));
  if (run.rate !== undefined) words.push('-Q', String(run.rate));
  if (run.dnssecOk) words.push('-D');
  if (run.latencies) words.push('-v');
  const pin = run.cpu === undefined ? [] : ['taskset', '-c', String(run.cpu)];
  const [command, ...args] = [...pin, program('usr/bin/dnsperf', 'dnsperf'), ...words] as [
    string,
    ...string[],
  ];
  const child = spawn(command, args, { env: layerEnvironment(), stdio: ['ignore', 'pipe', 'pipe'] });
  const chunks: Buffer[] = [];
  child.stdout.on('data', chunk => chunks.push(chunk));
  child.stderr.on('data', chunk => chunks.push(chunk));
  const limit = (run.seconds ?? expectedSeconds) * 1000 + GRACE_MILLIS;
  const interrupt = setTimeout(() => child.kill('SIGINT'), limit);
  const kill = setTimeout(() => child.kill('SIGKILL'), limit + GRACE_MILLIS);
  await new Promise<void>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', () => resolve());
  });
  clearTimeout(interrupt);
  clearTimeout(kill);
  return parseDnsperf(Buffer.concat(chunks).toString());
}

/** Reads dnsperf's output. Throws when there are no statistics in it. */
export function parseDnsperf(text: string): DnsperfResult {
  const number = (pattern: RegExp): number => {
    const found = pattern.exec(text)?.[1];
    if (found === undefined)
      throw new Error(`dnsperf said: ${text.trim().split('\n').slice(-3).join(' / ')}`);
    return Number(found);
  };
  const codes = /Response codes:(.*)/.exec(text)?.[1] ?? '';
  return {
    completed: number(/Queries completed:\s+(\d+)/),
    lost: number(/Queries lost:\s+(\d+)/),
    rcodes: Object.fromEntries(
      [...codes.matchAll(/([A-Z0-9]+) (\d+) /g)].map(([, code, count]) => [code!, Number(count)]),
    ),
    questionsPerSecond: number(/Queries per second:\s+([\d.]+)/),
    latencies: [...text.matchAll(/^> \S+ \S+ \S+ ([\d.]+)$/gm)].map(([, seconds]) => Number(seconds) * 1000),
  };
}
