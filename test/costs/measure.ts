/** What a question costs the running daemon, and what others notice of it. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { parseMessage } from '../../resolver/dns/message.ts';
import { RCODE, TYPE } from '../../resolver/dns/types.ts';
import { projectRoot } from '../lab/packages.ts';
import { queryBytes, type Server, startHoldfast } from '../second-opinion/opinions.ts';
import { overTcp, overUdp } from '../second-opinion/tamper.ts';
import type { Attack } from './hostile.ts';
import { type HostileServer, startHostileServer } from './server.ts';

/**
 * Of one attack. `cpuMillis`: user and system time of the daemon for each question, all that it causes included, what the
 * honest questions asked meanwhile cost left out.
 * `verifications`, `nsec3Rounds`: for each question. `honest`: what a client with honest questions saw meanwhile.
 */
export type Cost = {
  name: string;
  what: string;
  questions: number;
  rcodes: Record<string, number>;
  cpuMillis: number;
  verifications: number;
  nsec3Rounds: number;
  exceeded: number;
  honest: { asked: number; answered: number; p50Millis: number; p99Millis: number; maxMillis: number };
};

/** The daemon over the hostile world. `counters` are those of `holdfast status`. */
export class Victim {
  readonly world: HostileServer;
  readonly #server: Server;
  readonly #directory: string;
  #honestNames = 0;
  #honestMillis = 0;

  private constructor(world: HostileServer, server: Server, directory: string) {
    this.world = world;
    this.#server = server;
    this.#directory = directory;
  }

  static async start(): Promise<Victim> {
    const world = await startHostileServer();
    const directory = mkdtempSync(join(tmpdir(), 'holdfast-costs-'));
    const server = await startHoldfast({ directory, port: world.port, anchor: world.anchor });
    return new Victim(world, server, directory);
  }

  async stop(): Promise<void> {
    await this.#server.stop();
    await this.world.stop();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  /** What an honest question costs, by which the costs of attacks are corrected. */
  async calibrate(count: number): Promise<void> {
    const before = this.#cpuMillis();
    for (let n = 0; n < count; n++) await this.#ask(this.#honestQuestion());
    this.#honestMillis = (this.#cpuMillis() - before) / count;
  }

  #honestQuestion(): { name: string; type: number } {
    return { name: `h${this.#honestNames++}.honest.`, type: TYPE.A };
  }

  /** Asks `count` questions of the attack, so many at once, while another client asks honest ones one by one. */
  async suffer(attack: Attack, count: number, atOnce: number): Promise<Cost> {
    const before = { cpu: this.#cpuMillis(), counters: await this.#counters() };
    const rcodes: Record<string, number> = {};
    let over = false;
    const attacked = Promise.all(
      Array.from({ length: atOnce }, async (_, worker) => {
        for (let n = worker; n < count; n += atOnce) {
          const rcode = await this.#ask({
            name: attack.pattern.replace('{n}', String(n)),
            type: attack.type,
          });
          rcodes[rcode] = (rcodes[rcode] ?? 0) + 1;
        }
      }),
    ).finally(() => {
      over = true;
    });
    const latencies: number[] = [];
    let asked = 0;
    while (!over || asked < 20) {
      asked++;
      const began = performance.now();
      if ((await this.#ask(this.#honestQuestion())) === 'NOERROR') latencies.push(performance.now() - began);
      await new Promise(resolve => setTimeout(resolve, 5));
    }
    await attacked;
    const counters = await this.#counters();
    const spent = (name: string) => ((counters[name] ?? 0) - (before.counters[name] ?? 0)) / count;
    latencies.sort((a, b) => a - b);
    const percentile = (share: number) =>
      latencies[Math.min(latencies.length - 1, Math.floor(share * latencies.length))] ?? Number.NaN;
    return {
      name: attack.name,
      what: attack.what,
      questions: count,
      rcodes,
      cpuMillis: Math.max(0, (this.#cpuMillis() - before.cpu - asked * this.#honestMillis) / count),
      verifications: spent('validation.verifications'),
      nsec3Rounds: spent('validation.nsec3Rounds'),
      exceeded: spent('validation.exceeded'),
      honest: {
        asked,
        answered: latencies.length,
        p50Millis: percentile(0.5),
        p99Millis: percentile(0.99),
        maxMillis: latencies.at(-1) ?? Number.NaN,
      },
    };
  }

  async #ask(question: { name: string; type: number }): Promise<string> {
    const query = queryBytes(question, false);
    try {
      let reply = parseMessage(await overUdp(this.#server.port, query, 10_000));
      if (reply.truncated) reply = parseMessage(await overTcp(this.#server.port, query, 10_000));
      return Object.entries(RCODE).find(([, code]) => code === reply.rcode)?.[0] ?? String(reply.rcode);
    } catch {
      return 'no answer';
    }
  }

  /** User and system time so far; the kernel counts in hundredths of a second (proc(5)). */
  #cpuMillis(): number {
    const stat = readFileSync(`/proc/${this.#server.pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) * 10;
  }

  async #counters(): Promise<Record<string, number>> {
    const args = ['status', '--json', '--control', join(this.#directory, 'control.sock')];
    const { stdout } = await promisify(execFile)(join(projectRoot, 'deploy', 'holdfast'), args);
    return JSON.parse(stdout).counters;
  }
}
