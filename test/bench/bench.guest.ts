// npm run bench, inside the lab: measures and leaves LAB_OUT/result.json. run.ts starts it.
//
// Three take turns, round by round, so that whatever else the machine does hits all of them:
//   floor       an app on natr that asks unbound straight and connects in clear
//   strongSwan  charon on natr, keys from files, told to initiate
//   Holdfast    an app on alice that asks Holdfast there
// natr stands on the same wire as alice and its port has the same delay; two IKE daemons cannot share one host's ports.
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { kindOf, peerNames } from '../lab/names.ts';
import * as lab from '../lab/servers.ts';
import { manyAddresses } from '../lab/topology.ts';
import { connectAll, type Try } from '../lab/tries.ts';
import { countExchanges } from './exchanges.ts';
import {
  type AppView,
  type BenchResult,
  type CaptureTimes,
  captureTimes,
  lastNegotiationMs,
  type Round,
  type Series,
} from './figures.ts';
import type { BenchPlan } from './run.ts';
import { Vici } from './vici.ts';

const world = process.env.LAB_OUT!;
const plan: BenchPlan = JSON.parse(readFileSync(join(world, 'plan.json'), 'utf8'));
const progress = (line: string) => console.error(line);
const failures: string[] = [];
/** Between two measurements: what the one before closes must be over. */
let settleMillis = 60;

/** Names for the warm rounds, and names that are used once, in pairs of one key kind: p31 and p34, p32 and p35, … */
const warmNames = peerNames.slice(0, 30);
const onceNames = peerNames.slice(30, 48);

progress('starting nsd, unbound, strongSwan and Holdfast');
let dns = await lab.startDns(world);
await lab.startStrongSwan(world, 'bob');
await lab.startEcho(world, 'bob', 80);
let rival = await startRival();
let holdfast = await startHoldfast();
progress('every host learns the link addresses, every program its way');
await meetNeighbours();
for (const name of warmNames) await measure(name, name, 0);
if (failures.length > 0) throw new Error(`before anything was measured:\n${failures.join('\n')}`);

const series: Series[] = [];
for (const delay of plan.delays) series.push(await warmSeries(delay));
for (const delay of plan.delays) series.push(await coldSeries(delay));
await setDelay(0);
const exchanges = await countOnTheWire(warmNames.slice(0, 6));
const result: BenchResult = {
  kernel: `Linux ${release()}${process.env.LAB_KERNEL === 'uml' ? ' (User-Mode Linux)' : ''}`,
  versions: await versions(),
  series,
  exchanges,
  failures,
};
writeFileSync(join(world, 'result.json'), JSON.stringify(result));
rival.vici.close();
await lab.stopAll();

async function warmSeries(delayMs: number): Promise<Series> {
  progress(`delay ${delayMs} ms, warm: ${plan.count} rounds`);
  const roundTripMs = await setDelay(delayMs);
  const rounds: Round[] = [];
  for (let turn = 0; turn < plan.count; turn++) {
    const name = warmNames[turn % warmNames.length]!;
    rounds.push(...(await measure(name, name, turn)));
  }
  return { delayMs, situation: 'warm', roundTripMs, rounds };
}

/** Each round has a fresh daemon and a fresh charon; the upstream knows the zone's keys but neither of the names. */
async function coldSeries(delayMs: number): Promise<Series> {
  progress(`delay ${delayMs} ms, cold: ${plan.coldCount} rounds`);
  await Promise.all(dns.map(server => server.stop()));
  dns = await lab.startDns(world);
  const roundTripMs = await setDelay(delayMs);
  const rounds: Round[] = [];
  for (let turn = 0; turn < plan.coldCount; turn++) {
    await Promise.all([holdfast.stop(), stopRival()]);
    rival = await startRival();
    holdfast = await startHoldfast();
    await sleep(300);
    const first = Math.floor(turn / 3) * 6 + (turn % 3);
    rounds.push(...(await measure(onceNames[first]!, onceNames[first + 3]!, turn)));
  }
  return { delayMs, situation: 'cold', roundTripMs, rounds };
}

/** One round, beginning with another of the three each turn; no round and a line in `failures` when one of them failed. */
async function measure(name: string, floorName: string, turn: number): Promise<Round[]> {
  const round: Partial<Round> = { kind: kindOf(name) };
  const three = [
    async () => {
      round.floor = await connectFrom('natr', floorName);
    },
    async () => {
      Object.assign(round, await initiate(name));
    },
    async () => Object.assign(round, await capture(name)),
  ];
  try {
    for (let i = 0; i < three.length; i++) {
      await three[(turn + i) % three.length]!();
      await sleep(settleMillis);
    }
    return [round as Round];
  } catch (error) {
    failures.push(`${name}: ${(error as Error).message}`);
    return [];
  }
}

async function capture(name: string): Promise<{ app: AppView; holdfast: CaptureTimes }> {
  const app = await connectFrom('alice', name);
  const told = await holdfast.control.explain(name, 'A');
  await holdfast.control.forget({ name });
  return { app, holdfast: captureTimes(told) };
}

/** From the command to the event that charon sends once the Child SA is installed; closed again afterwards. */
async function initiate(name: string): Promise<{ strongSwanMs: number; charonMs: number }> {
  const connection = name.replace('.example', '');
  const installed = rival.vici.event('child-updown').then(() => performance.now());
  const started = performance.now();
  await rival.vici.command('initiate', { ike: connection, child: connection, timeout: '5000' });
  const strongSwanMs = (await installed) - started;
  const charonMs = lastNegotiationMs(readFileSync(join(world, 'natr', 'charon.log'), 'utf8'));
  const closed = rival.vici.event('child-updown');
  await rival.vici.command('terminate', { ike: connection, timeout: '5000' });
  await closed;
  return { strongSwanMs, charonMs };
}

/** The C library is made to read its configuration by a name that asks nobody, then the name is tried. */
async function connectFrom(host: string, name: string): Promise<AppView> {
  const wish = (wanted: string) => ({ name: wanted, protocol: 'tcp' as const, family: '4' as const });
  const [, seen] = (await connectAll(host, [wish('localhost'), wish(name)], 80)) as [Try, Try];
  if (seen.error) throw new Error(`${host}: ${seen.stage} ${seen.error}`);
  const { resolveMs, connectMs, totalMs, retransmits } = seen;
  return { resolveMs, connectMs, totalMs, retransmits };
}

/** It logs as it does by default: the world's configuration says `debug`, which costs time. */
function startHoldfast(): Promise<lab.Holdfast> {
  return lab.startHoldfast(world, 'alice', ['--log-level', 'info']);
}

async function startRival(): Promise<{ server: lab.Server; vici: Vici }> {
  const server = await lab.startStrongSwan(world, 'natr');
  const vici = await Vici.open(viciSocket(server));
  await vici.register('child-updown');
  return { server, vici };
}

/** charon may leave its socket behind, which the next start would take for a charon that listens. */
async function stopRival(): Promise<void> {
  rival.vici.close();
  rmSync(viciSocket(rival.server));
  await rival.server.stop();
}

function viciSocket(charon: lab.Server): string {
  return `/proc/${charon.pid}/root/run/charon.vici`;
}

/** Address resolution on the lab's link is no part of what is measured. */
async function meetNeighbours(): Promise<void> {
  const wishes = manyAddresses.map(last => ({
    name: `10.9.0.${last}`,
    protocol: 'tcp' as const,
    family: '4' as const,
  }));
  for (const host of ['alice', 'natr']) await connectAll(host, wishes, 80);
}

/** The delay lies on the way towards the initiators; answers with the round trip as ping measures it. */
async function setDelay(millis: number): Promise<number> {
  for (const host of ['alice', 'natr']) await lab.setDelay(host, millis);
  settleMillis = 60 + 2 * millis;
  const ping = await lab.on('natr', ['ping', '-n', '-c', '5', '-i', '0.2', '10.9.0.2']);
  return Number(/= [\d.]+\/([\d.]+)\//.exec(ping.stdout)?.[1]);
}

/** Rounds beside a capture, which costs too much to take times along with it. */
async function countOnTheWire(names: string[]): Promise<BenchResult['exchanges']> {
  progress('counting IKE exchanges on the wire');
  const wire = await lab.startCapture(world, 'bob', 'exchanges');
  for (const name of names) await measure(name, name, 0);
  await wire.stop('SIGINT');
  const pcap = readFileSync(wire.file);
  return {
    names: names.length,
    holdfast: countExchanges(pcap, '10.9.0.1'),
    strongSwan: countExchanges(pcap, '10.9.0.90'),
  };
}

async function versions(): Promise<Record<string, string>> {
  const charon = await rival.vici.command('version', {});
  const unbound = await lab.on('dns', ['unbound', '-V']);
  return {
    Node: process.versions.node,
    strongSwan: String(charon.version),
    unbound: /Version (\S+)/.exec(unbound.stdout)?.[1] ?? 'unknown',
  };
}
