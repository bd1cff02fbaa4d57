// One soak: upstream, proxy with faults, daemon, clients; sampled all the time, and once more when all is quiet.
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { askUntilAnswered } from '../bench/dns/ask.ts';
import { holdfastCounters, writeHoldfastConfiguration } from '../bench/dns/contenders.ts';
import { cpuMicros, cpuWaitMicros, openDescriptors, residentMegabytes } from '../bench/dns/process.ts';
import { launch, type Process, startUpstream, type UpstreamWorld, tail } from '../bench/dns/upstream.ts';
import { projectRoot } from '../lab/packages.ts';
import { freePort } from '../resolver/free-port.ts';
import type { LoadReport } from './load.ts';
import type { ProxyReport } from './proxy.ts';
import { type Minute, RECOVERED_SERVFAIL_SHARE, type Sample, type SoakResult } from './report.ts';
import { heapAfterCollections } from './trend.ts';
import { soakZones } from './zones.ts';

export type SoakOptions = { folder: string; minutes: number; rate: number; seed: number };

/** Where a line begins. */
type Since = Pick<Sample, 'seconds' | 'cpuMicros' | 'cpuWaitMicros'> & { load: LoadReport | undefined };

const SAMPLE_MILLIS = 5000;
/** So long after the end it may take until all is well again. */
const PATIENCE_SECONDS = 60;
const COUNTER_ATTEMPTS = 3;
const QUIET_MILLIS = 20_000;
/** Of the two servers that the daemon knows, each has a weather of its own. */
const WAYS = 2;

export class Soak {
  readonly #options: SoakOptions;
  readonly #tell: (minute: Minute) => void;
  readonly #children: ChildProcess[] = [];
  readonly #samples: Sample[] = [];
  readonly #minutes: Minute[] = [];
  #upstream: UpstreamWorld | undefined;
  #daemon!: Process;
  #load: LoadReport | undefined;
  /** As it was when all had been calm for a moment. */
  #calm: LoadReport | undefined;
  #proxy: ProxyReport | undefined;
  #startedAt = 0;

  constructor(options: SoakOptions, tell: (minute: Minute) => void) {
    this.#options = options;
    this.#tell = tell;
  }

  async run(): Promise<SoakResult> {
    const { folder, minutes, rate, seed } = this.#options;
    const seconds = minutes * 60;
    this.#upstream = await startUpstream(join(folder, 'upstream'), soakZones(), { probe: 'hot0.example' });
    // Short soaks meet all weathers too; the end is calm, so that everything can be well again.
    const spellSeconds = Math.min(10, Math.max(1, seconds / 40));
    const calmFrom = seconds - Math.max(8, Math.min(30, seconds / 10));
    const ways = await Promise.all(Array.from({ length: WAYS }, () => freePort('127.0.0.1')));
    const proxy = this.#fork('proxy.ts', [this.#upstream.port, spellSeconds, calmFrom, ...ways]);
    await once(proxy, 'message');
    proxy.on('message', report => {
      this.#proxy = report as ProxyReport;
    });
    const port = await freePort('127.0.0.1');
    await this.#startDaemon(port, ways);
    const before = openDescriptors(this.#daemon.pid);
    this.#startedAt = performance.now();
    const load = this.#fork('load.ts', [port, rate, seed]);
    load.on('message', report => {
      this.#load = report as LoadReport;
      // What failed a moment ago is remembered for five seconds (RFC 9520 section 3.2).
      if (this.#elapsed() >= calmFrom + 5) this.#calm ??= this.#load;
    });
    await this.#watch(seconds);
    const recovered = await this.#recover(calmFrom);
    const loaded = this.#elapsed();
    load.send('stop');
    while (this.#load?.done !== true && this.#alive()) await sleep(500);
    if (this.#alive()) await sleep(Math.min(QUIET_MILLIS, seconds * 200));
    const counters = this.#alive() ? await this.#counters() : {};
    const inFlight = Object.fromEntries(Object.entries(counters).filter(([name]) => isInFlight(name)));
    return {
      ...{ minutes, rate, seed, spellSeconds },
      seconds: loaded,
      lines: this.#minutes,
      samples: this.#samples,
      heap: heapAfterCollections(this.#read('stdout')),
      load: this.#load!,
      proxy: this.#proxy!,
      recovered,
      quiet: { descriptorsBefore: before, descriptors: this.#descriptors(), inFlight },
      counters,
      daemon: {
        alive: this.#alive(),
        end: this.#alive() ? '' : tail(this.#daemon.log),
        cpuMicros: this.#samples.at(-1)?.cpuMicros ?? 0,
        cpuWaitMicros: this.#samples.at(-1)?.cpuWaitMicros ?? 0,
      },
    };
  }

  async stop(): Promise<void> {
    for (const child of this.#children) if (child.connected) child.disconnect();
    await this.#daemon?.stop();
    await this.#upstream?.stop();
  }

  /** With V8's trace of its collections on standard output. */
  async #startDaemon(port: number, ways: number[]): Promise<void> {
    const folder = join(this.#options.folder, 'holdfast');
    const { anchorFile } = this.#upstream!;
    const servers = ways.map(way => `127.0.0.1:${way}`);
    writeHoldfastConfiguration({ folder, port, anchorFile }, servers);
    const command = [
      join(projectRoot, 'deploy', 'holdfast'),
      'up',
      '--config',
      join(folder, 'holdfast.yaml'),
    ];
    const trace = { NODE_OPTIONS: `--import ${join(import.meta.dirname, 'trace-gc.mjs')}` };
    this.#daemon = launch(join(folder, 'log'), command, trace, join(folder, 'stdout'));
    await askUntilAnswered(port, 'hot0.example', 20_000).catch(error => {
      throw new Error(`the daemon did not start: ${error.message}\n${tail(this.#daemon.log)}`);
    });
  }

  /** Samples until the time is over or the daemon has ended. */
  async #watch(seconds: number): Promise<void> {
    const minuteSeconds = Math.min(60, Math.max(5, seconds / 10));
    const { pid } = this.#daemon;
    const start = { cpuMicros: cpuMicros(pid), cpuWaitMicros: cpuWaitMicros(pid) };
    let last: Since = { seconds: 0, load: this.#load, ...start };
    for (let next = SAMPLE_MILLIS; this.#elapsed() < seconds && this.#alive(); next += SAMPLE_MILLIS) {
      const wait = this.#startedAt + Math.min(next, seconds * 1000) - performance.now();
      await sleep(Math.max(0, wait));
      if (!this.#alive()) break;
      await this.#sample();
      const sample = this.#samples.at(-1)!;
      const over = this.#elapsed() >= seconds;
      if (sample.seconds - last.seconds < minuteSeconds - 1 && !over) continue;
      this.#closeMinute(last, sample);
      last = { ...sample, load: this.#load };
    }
    if (this.#minutes.length === 0) throw new Error(`the daemon ended at once: ${tail(this.#daemon.log)}`);
  }

  /** The load goes on until all is well again, at most a minute longer: on a busy machine that takes its time. */
  async #recover(calmFrom: number): Promise<{ servfail: number; afterSeconds: number }> {
    const longest = this.#elapsed() + PATIENCE_SECONDS;
    let since = this.#calm;
    for (;;) {
      const share = since === undefined ? 1 : servfailShare(since, this.#load!);
      const afterSeconds = this.#elapsed() - calmFrom;
      const well = share <= RECOVERED_SERVFAIL_SHARE;
      if (well || this.#elapsed() >= longest || !this.#alive()) return { servfail: share, afterSeconds };
      since = this.#load;
      await sleep(SAMPLE_MILLIS);
      if (this.#alive()) await this.#sample();
    }
  }

  async #sample(): Promise<void> {
    const { pid } = this.#daemon;
    const counters = await this.#counters();
    this.#samples.push({
      seconds: this.#elapsed(),
      residentMegabytes: residentMegabytes(pid),
      descriptors: openDescriptors(pid),
      inFlight: Object.entries(counters).reduce((sum, [name, n]) => sum + (isInFlight(name) ? n : 0), 0),
      cpuMicros: cpuMicros(pid),
      cpuWaitMicros: cpuWaitMicros(pid),
    });
  }

  #closeMinute(last: Since, sample: Sample): void {
    const load = this.#load!;
    const since = (name: 'sent' | 'right' | 'servfail' | 'wrong' | 'retried' | 'unanswered') =>
      load[name] - (last.load?.[name] ?? 0);
    const [right, servfail, wrong] = [since('right'), since('servfail'), since('wrong')];
    const minute: Minute = {
      seconds: sample.seconds,
      length: sample.seconds - last.seconds,
      sent: since('sent'),
      answered: right + servfail + wrong,
      ...{ right, servfail, wrong },
      retried: since('retried'),
      unanswered: since('unanswered'),
      p50Millis: load.p50Millis,
      p99Millis: load.p99Millis,
      residentMegabytes: sample.residentMegabytes,
      descriptors: sample.descriptors,
      inFlight: sample.inFlight,
      cpuShare: (sample.cpuMicros - last.cpuMicros) / 1e6 / (sample.seconds - last.seconds),
      cpuWaitShare: (sample.cpuWaitMicros - last.cpuWaitMicros) / 1e6 / (sample.seconds - last.seconds),
      weather: this.#proxy?.weather ?? [],
    };
    this.#minutes.push(minute);
    this.#tell(minute);
  }

  /** A daemon that is very busy may let one question for its counters pass, but not several in a row. */
  async #counters(): Promise<Record<string, number>> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await holdfastCounters({ folder: join(this.#options.folder, 'holdfast') });
      } catch (error) {
        if (attempt === COUNTER_ATTEMPTS) throw error;
      }
    }
  }

  #fork(script: string, args: number[]): ChildProcess {
    const child = fork(join(import.meta.dirname, script), args.map(String));
    this.#children.push(child);
    return child;
  }

  #alive(): boolean {
    const { child } = this.#daemon;
    return child.exitCode === null && child.signalCode === null;
  }

  #descriptors(): number {
    return this.#alive() ? openDescriptors(this.#daemon.pid) : 0;
  }

  #elapsed(): number {
    return (performance.now() - this.#startedAt) / 1000;
  }

  #read(name: string): string {
    return readFileSync(join(this.#options.folder, 'holdfast', name), 'utf8');
  }
}

/** Of the answers between two reports; all, where there was none. */
function servfailShare(from: LoadReport, to: LoadReport): number {
  const answered = to.right - from.right + to.wrong - from.wrong + to.servfail - from.servfail;
  return answered === 0 ? 1 : (to.servfail - from.servfail) / answered;
}

/** Counters of what is under way now; all others only grow. */
function isInFlight(name: string): boolean {
  return /\.(inFlight|waiting|tcpConnections)$/.test(name);
}
