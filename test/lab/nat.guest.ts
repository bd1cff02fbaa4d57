// Inside the lab: carol runs Holdfast behind natr, which translates addresses and ports; bob is strongSwan on the wire.
// natr forgets a mapping that is idle for 24 seconds, and gives ports of its own choice, so that nothing works by luck.
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  on,
  startCapture,
  startDns,
  startEcho,
  startHoldfast,
  startStrongSwan,
  stopAll,
  swanctl,
} from './servers.ts';
import { carolAddress, gateAddress } from './topology.ts';
import { connectAll, type Wish } from './tries.ts';
import { countWire } from './wire.ts';

const world = process.env.LAB_OUT!;
const bob = '10.9.0.2';
const idleSeconds = 30;

await translate();
await startDns(world);
await startStrongSwan(world, 'bob');
await startEcho(world, 'bob', 7);
await startEcho(world, 'carol', 9);
const holdfast = await startHoldfast(world, 'carol');
const capture = await startCapture(world, 'bob', 'nat');

const bothWays = (name: string): Wish[] => [
  { name, protocol: 'tcp', family: '4' },
  { name, protocol: 'udp', family: '4' },
];
const tries = await connectAll('carol', bothWays('bob.example'), 7);
const explained = await holdfast.control.explain('bob.example', 'A');
const { peers } = await holdfast.control.status();
const sas = (await swanctl(world, 'bob', '--list-sas')).stdout;
const states = (await run('carol', 'ip', '-o', 'xfrm', 'state')).split('\n').filter(Boolean);

const mapped = await mappings();
await sleep(idleSeconds * 1000);
const stillMapped = await mappings();
// bob reaches carol at natr's address: through the mapping, if that lives, and the SAs, which know no other way.
const back = await connectAll('bob', bothWays(gateAddress), 9);
const again = await connectAll('carol', bothWays('bob.example'), 7);
const { counters } = await holdfast.control.status();

await holdfast.stop();
const left = {
  carolStates: await run('carol', 'ip', '-o', 'xfrm', 'state'),
  carolPolicies: await policies('carol'),
  bobSas: (await swanctl(world, 'bob', '--list-sas')).stdout,
  bobStates: await run('bob', 'ip', '-o', 'xfrm', 'state'),
  bobPolicies: await policies('bob'),
};
await capture.stop('SIGINT');
const counted = {
  ...countWire(readFileSync(capture.file), [gateAddress, carolAddress], [bob]),
  espBare: await countCaptured('ip proto 50'),
  espInUdp: await countCaptured('udp port 4500 and udp[4:2] > 12 and udp[8:4] != 0'),
  keepalives: await countCaptured(`src host ${gateAddress} and udp dst port 4500 and udp[4:2] = 9`),
};
await stopAll();
console.log(
  JSON.stringify({
    tries,
    explained,
    peers,
    sas,
    states,
    mapped,
    stillMapped,
    back,
    again,
    keepalivesSent: counters['ike.keepalives'],
    left,
    counted,
  }),
);

async function translate(): Promise<void> {
  const rule = [
    'iptables-legacy',
    '-t',
    'nat',
    '-A',
    'POSTROUTING',
    '-s',
    `${carolAddress}/24`,
    '-o',
    'eth0',
  ];
  await run('natr', ...rule, '-p', 'udp', '-j', 'MASQUERADE', '--to-ports', '20000-29999');
  await run('natr', ...rule, '-j', 'MASQUERADE');
  for (const timeout of ['udp_timeout', 'udp_timeout_stream']) {
    await run('natr', 'sh', '-c', `echo 24 > /proc/sys/net/netfilter/nf_conntrack_${timeout}`);
  }
}

/** What natr translates between carol and whom, by the ports: `10.9.0.2:4500 as 20017`. */
async function mappings(): Promise<string[]> {
  const table = await run('natr', 'cat', '/proc/net/nf_conntrack');
  return [
    ...table.matchAll(/udp .*?src=192\.168\.9\.2 dst=(\S+) sport=\d+ dport=(\d+) .*? dport=(\d+)/g),
  ].map(([, address, port, as]) => `${address}:${port} as ${as}`);
}

/** Policies of a host but for those that belong to one socket each. */
async function policies(host: string): Promise<string> {
  const all = await run(host, 'ip', '-o', 'xfrm', 'policy');
  return all
    .split('\n')
    .filter(line => line && !line.includes('socket'))
    .join('\n');
}

async function countCaptured(filter: string): Promise<number> {
  const text = await run('bob', 'tcpdump', '-nr', capture.file, filter);
  return text.split('\n').filter(Boolean).length;
}

async function run(host: string, ...command: string[]): Promise<string> {
  const { status, stdout, stderr } = await on(host, command);
  if (status !== 0) throw new Error(`${command.join(' ')} on ${host}: ${stderr}`);
  return stdout;
}
