// What is measured, and how: servers under test on one CPU, dnsperf and the upstream on the other, all in turns.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../../resolver/free-port.ts';
import { percentile } from '../figures.ts';
import { askUntilAnswered } from './ask.ts';
import { type Contender, holdfastCounters, type Place } from './contenders.ts';
import { type DnsperfResult, type DnsperfRun, dnsperf } from './dnsperf.ts';
import type { DnsBenchResult, Figures, Scenario } from './figures.ts';
import { cpuMicros, residentMegabytes } from './process.ts';
import { type Process, startUpstream, type UpstreamWorld } from './upstream.ts';

export const parts = ['hits', 'misses', 'start', 'memory'] as const;
export type Part = (typeof parts)[number];

/** Names asked for; each has an A and an AAAA record, and no key. */
const NAMES = 50_000;
const HIT_NAMES = 1000;
const HIT_SECONDS = 4;
const RATE = 2000;
const WARM_UP_MISSES = 4000;
const DELAYS_MILLIS = [0, 20];
/** Misses in a round, one at a time and many at a time, by delay. */
const ONE_AT_A_TIME: Record<number, number> = { 0: 600, 20: 80 };
const MANY_AT_A_TIME = 3000;
const OUTSTANDING = 20;
const SERVER_CPU = 0;
const LOAD_CPU = 1;

/** Runs the wanted parts and stops everything it started. */
export async function measure(
  rounds: number,
  wanted: Part[],
  chosen: Contender[],
  progress: (line: string) => void,
): Promise<DnsBenchResult> {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'holdfast-bench-dns-')));
  const bench = new DnsBench(folder, rounds, chosen, progress);
  try {
    await bench.open();
    for (const part of wanted) await bench[part]();
    return bench.result();
  } finally {
    await bench.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

type Running = { contender: Contender; server: Process; place: Place };

/** One run: the upstream stands all the time, the servers under test are started anew for each part. */
class DnsBench {
  readonly #folder: string;
  readonly #rounds: number;
  readonly #contenders: Contender[];
  readonly #progress: (line: string) => void;
  readonly #scenarios: Scenario[] = [];
  readonly #missing: Record<string, string> = {};
  readonly #running: Running[] = [];
  #upstream!: UpstreamWorld;
  #started = 0;

  constructor(folder: string, rounds: number, chosen: Contender[], progress: (line: string) => void) {
    this.#folder = folder;
    this.#rounds = rounds;
    this.#progress = progress;
    this.#contenders = chosen.filter(contender => {
      const why = contender.missing();
      if (why !== undefined) this.#missing[contender.name] = why;
      return why === undefined;
    });
  }

  async open(): Promise<void> {
    this.#progress(`signing ${NAMES + HIT_NAMES} names`);
    const zone = { origin: 'example', signed: true, lines: ['ns A 192.0.2.53', ...zoneLines()] };
    const folder = join(this.#folder, 'upstream');
    this.#upstream = await startUpstream(folder, [zone], {
      probe: 'h0.example',
      cpu: LOAD_CPU,
      leastTtlSeconds: 86_400,
    });
    this.#progress('filling the cache of the upstream');
    const file = this.#questions(0, NAMES, ['A', 'AAAA', 'IPSECKEY']);
    await dnsperf({ port: this.#upstream.port, file, outstanding: 100, dnssecOk: true }, 120);
  }

  async close(): Promise<void> {
    await this.#stopAll();
    await this.#upstream?.stop();
  }

  result(): DnsBenchResult {
    const versions = this.#contenders.map(({ name, version }) => [name, version()] as const);
    const [cpu] = cpus();
    return {
      machine: `Linux ${release()}, ${cpus().length} × ${cpu?.model.trim() ?? 'unknown CPU'}`,
      versions: Object.fromEntries(versions),
      missing: this.#missing,
      rounds: this.#rounds,
      scenarios: this.#scenarios,
    };
  }

  /** Answers from the cache: as many as go, and the latency at a moderate rate. */
  async hits(): Promise<void> {
    const lines = Array.from({ length: HIT_NAMES }, (_, i) => `h${i}.example A`);
    const file = this.#file('hits', lines);
    for (const one of this.#contenders) await this.#start(one, this.#upstream.port, SERVER_CPU);
    const warmUp = async () => {
      for (const { place } of this.#running)
        await dnsperf({ port: place.port, file, outstanding: 20, seconds: 3 });
    };
    await warmUp();
    const single = this.#scenario(
      'cached answers, one process',
      'A without EDNS, 1000 names, 100 outstanding',
    );
    await this.#inTurns(single, this.#running, async ({ place, server }) => {
      const run = { port: place.port, file, cpu: LOAD_CPU, outstanding: 100 };
      const load = await this.#load(server.pid, { ...run, seconds: HIT_SECONDS });
      const calm = await dnsperf({ ...run, seconds: 2, rate: RATE, latencies: true });
      return { ...load, ...latencies(calm) };
    });
    const first = [...this.#running];
    for (const one of this.#contenders) await this.#start(one, this.#upstream.port, LOAD_CPU);
    const second = this.#running.slice(first.length);
    await warmUp();
    const double = this.#scenario(
      'cached answers, two processes of each',
      'one on each CPU, each asked by a dnsperf of its own that runs wherever there is room',
    );
    await this.#inTurns(double, first, async running => {
      const pair = [running, second.find(({ contender }) => contender === running.contender)!];
      const both = await Promise.all(
        pair.map(({ place, server }) =>
          this.#load(server.pid, { port: place.port, file, outstanding: 100, seconds: HIT_SECONDS }),
        ),
      );
      return {
        questionsPerSecond: both[0]!.questionsPerSecond + both[1]!.questionsPerSecond,
        cpuMicros: (both[0]!.cpuMicros + both[1]!.cpuMicros) / 2,
        lost: both[0]!.lost + both[1]!.lost,
      };
    });
    await this.#stopAll();
  }

  /** Names that the server does not know and its upstream does, with DO. */
  async misses(): Promise<void> {
    for (const delay of DELAYS_MILLIS) {
      const way = await openWay(delay, this.#upstream.port);
      try {
        for (const one of this.#contenders) await this.#start(one, way.port, SERVER_CPU);
        const warm = this.#questions(0, WARM_UP_MISSES);
        for (const { place } of this.#running)
          await dnsperf({ port: place.port, file: warm, outstanding: OUTSTANDING, dnssecOk: true });
        await this.#missesOneAtATime(delay, way);
        await this.#missesManyAtATime(delay);
        await this.#stopAll();
      } finally {
        way.close();
      }
    }
  }

  async #missesOneAtATime(delay: number, way: Way): Promise<void> {
    const count = ONE_AT_A_TIME[delay]!;
    const scenario = this.#scenario(
      `misses at ${delay} ms, one at a time`,
      `${count} names a round; "added" is the median over that of asking the upstream itself`,
    );
    for (let round = 0; round < this.#rounds; round++) {
      const file = this.#questions(WARM_UP_MISSES + round * count, count);
      const run = { file, outstanding: 1, dnssecOk: true, latencies: true, cpu: LOAD_CPU };
      const direct = await dnsperf({ ...run, port: way.port });
      const floor = percentile(direct.latencies, 0.5);
      this.#keep(scenario, 'upstream itself', latencies(direct));
      for (const { contender, place, server } of this.#turn(this.#running, round)) {
        const before = await way.asked();
        const load = await this.#load(server.pid, { ...run, port: place.port });
        const told = { ...latencies(load), cpuMicros: load.cpuMicros, lost: load.lost, failed: load.failed };
        const upstreamQuestions = ((await way.asked()) - before) / Math.max(1, load.completed);
        this.#keep(scenario, contender.name, {
          ...told,
          addedMillis: told.p50Millis! - floor,
          ...(way.counts && { upstreamQuestions }),
        });
      }
    }
  }

  async #missesManyAtATime(delay: number): Promise<void> {
    const scenario = this.#scenario(
      `misses at ${delay} ms, ${OUTSTANDING} at a time`,
      `${MANY_AT_A_TIME} names a round; the rate includes a tenth of a second that dnsperf waits at its end`,
    );
    const start = WARM_UP_MISSES + this.#rounds * ONE_AT_A_TIME[delay]!;
    for (let round = 0; round < this.#rounds; round++) {
      const file = this.#questions(start + round * MANY_AT_A_TIME, MANY_AT_A_TIME);
      for (const { contender, place, server } of this.#turn(this.#running, round)) {
        const run = { port: place.port, file, outstanding: OUTSTANDING, dnssecOk: true, cpu: LOAD_CPU };
        const { latencies: _, completed: __, ...load } = await this.#load(server.pid, run);
        this.#keep(scenario, contender.name, load);
      }
    }
  }

  /** From the start of the process to the first validated answer. */
  async start(): Promise<void> {
    const scenario = this.#scenario(
      'start to first answer',
      'spawn to the first answer of a signed name, not pinned',
    );
    await this.#inTurns(
      scenario,
      this.#contenders.map(contender => ({ contender })),
      async ({ contender }) => {
        const place = await this.#place(this.#upstream.port);
        const started = performance.now();
        const server = contender.start(place);
        try {
          await askUntilAnswered(place.port, 'h1.example', 15_000);
          return { startMillis: performance.now() - started };
        } finally {
          await server.stop();
        }
      },
    );
  }

  /** Resident memory when idle and with an A and an AAAA RRset of each name asked for. */
  async memory(): Promise<void> {
    const scenario = this.#scenario(
      'resident memory',
      `idle, and after ${2 * NAMES} RRsets (A and AAAA of ${NAMES} names) were asked for; one round`,
    );
    const file = this.#questions(0, NAMES, ['A', 'AAAA']);
    for (const contender of this.#contenders) {
      const running = await this.#start(contender, this.#upstream.port, SERVER_CPU);
      const { server, place } = running;
      await sleep(3000);
      const idleMegabytes = residentMegabytes(server.pid);
      const run = { port: place.port, file, outstanding: OUTSTANDING, cpu: LOAD_CPU };
      const { completed, rcodes } = await dnsperf(run, 300);
      await sleep(3000);
      const fullMegabytes = residentMegabytes(server.pid);
      const answered = rcodes.NOERROR ?? 0;
      const cached =
        contender.name === 'Holdfast' ? (await holdfastCounters(place))['cache.entries'] : undefined;
      this.#keep(scenario, contender.name, {
        idleMegabytes,
        fullMegabytes,
        failed: completed - answered,
        ...(cached !== undefined && { entries: cached }),
      });
      await this.#stopAll();
    }
  }

  /** Asks by dnsperf and takes the CPU time of the server meanwhile. */
  async #load(pid: number, run: DnsperfRun): Promise<DnsperfResult & { cpuMicros: number; failed: number }> {
    const before = cpuMicros(pid);
    const result = await dnsperf(run);
    const spent = cpuMicros(pid) - before;
    const { rcodes, ...rest } = result;
    const failed = result.completed - (rcodes.NOERROR ?? 0);
    return { ...rest, rcodes, cpuMicros: spent / Math.max(1, result.completed), failed };
  }

  async #inTurns<T extends { contender: Contender }>(
    scenario: Scenario,
    who: T[],
    one: (each: T) => Promise<Record<string, unknown>>,
  ): Promise<void> {
    for (let round = 0; round < this.#rounds; round++) {
      for (const each of this.#turn(who, round)) this.#keep(scenario, each.contender.name, await one(each));
    }
  }

  /** Each round begins with another one. */
  #turn<T>(who: T[], round: number): T[] {
    const first = round % who.length;
    return [...who.slice(first), ...who.slice(0, first)];
  }

  #scenario(title: string, note: string): Scenario {
    this.#progress(title);
    const scenario = { title, note, samples: [] };
    this.#scenarios.push(scenario);
    return scenario;
  }

  #keep(scenario: Scenario, who: string, given: Record<string, unknown>): void {
    const numbers = Object.entries(given).filter(([, value]) => typeof value === 'number');
    const figures = Object.fromEntries(numbers.filter(([name]) => name !== 'completed')) as Figures;
    scenario.samples.push({ who, figures });
  }

  async #start(contender: Contender, upstreamPort: number, cpu: number): Promise<Running> {
    const place = { ...(await this.#place(upstreamPort)), cpu };
    const server = contender.start(place);
    const running = { contender, server, place };
    this.#running.push(running);
    await askUntilAnswered(place.port, 'h0.example', 15_000).catch(error => {
      throw new Error(
        `${contender.name}: ${error.message}\n${readFileSync(server.log, 'utf8').slice(-2000)}`,
      );
    });
    return running;
  }

  async #place(upstreamPort: number): Promise<Place> {
    const folder = join(this.#folder, `server-${++this.#started}`);
    mkdirSync(folder);
    const { anchor, anchorFile } = this.#upstream;
    return { folder, port: await freePort('127.0.0.1'), upstreamPort, anchor, anchorFile };
  }

  async #stopAll(): Promise<void> {
    await Promise.all(this.#running.splice(0).map(({ server }) => server.stop()));
  }

  #questions(from: number, count: number, types: string[] = ['A']): string {
    const lines = types.flatMap(type =>
      Array.from({ length: count }, (_, i) => `m${from + i}.example ${type}`),
    );
    return this.#file('questions', lines);
  }

  #file(name: string, lines: string[]): string {
    const path = join(this.#folder, name);
    writeFileSync(path, `${lines.join('\n')}\n`);
    return path;
  }
}

function latencies(result: DnsperfResult): Figures {
  if (result.latencies.length === 0) throw new Error('dnsperf told no latencies');
  return {
    p50Millis: percentile(result.latencies, 0.5),
    p99Millis: percentile(result.latencies, 0.99),
  };
}

function zoneLines(): string[] {
  const address = (i: number) => `${(i >> 8) & 255}.${i & 255}`;
  const both = (name: string, i: number) => [
    `${name} 3600 A 198.18.${address(i)}`,
    `${name} 3600 AAAA 2001:db8::${i.toString(16)}`,
  ];
  const hits = Array.from({ length: HIT_NAMES }, (_, i) => both(`h${i}`, i));
  const misses = Array.from({ length: NAMES }, (_, i) => both(`m${i}`, i));
  return [...hits, ...misses].flat();
}

/** The way to the upstream: straight, or through a process that delays and counts. */
type Way = { port: number; counts: boolean; asked(): Promise<number>; close(): void };

async function openWay(delayMillis: number, serverPort: number): Promise<Way> {
  if (delayMillis === 0) return { port: serverPort, counts: false, asked: async () => 0, close: () => {} };
  const port = await freePort('127.0.0.1');
  const script = join(import.meta.dirname, 'delay.ts');
  const child = fork(script, [port, serverPort, delayMillis].map(String));
  await once(child, 'message');
  const asked = async () => {
    child.send('count');
    const [count] = (await once(child, 'message')) as [number];
    return count;
  };
  return { port, counts: true, asked, close: () => child.disconnect() };
}
