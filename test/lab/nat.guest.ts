// Inside the lab: carol runs Holdfast behind natr, which translates addresses and ports; bob is strongSwan on the wire.
// Through the NAT the SAs are renewed at bob's wish, and a stream of full segments goes both ways.
// natr forgets a mapping that is idle for 24 seconds, and gives ports of its own choice, so that nothing works by luck.
import { spawn } from 'node:child_process';
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
const sas = await bobSas();
const states = (await run('carol', 'ip', '-o', 'xfrm', 'state')).split('\n').filter(Boolean);

const renewed = [
  await renewedBy('--child', /^ {2}bob-for-carol: #\d+/gm),
  await renewedBy('--ike', /^bob-for-carol: #\d+/gm),
];
const streamed = await stream(300_000);
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
  bobSas: await soon(bobSas, text => text === ''),
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
    renewed,
    streamed,
    mapped,
    stillMapped,
    back,
    again,
    keepalivesSent: counters['ike.keepalives'],
    left,
    counted,
  }),
);

function bobSas(): Promise<string> {
  return swanctl(world, 'bob', '--list-sas').then(({ stdout }) => stdout);
}

/** bob renews his Child SA or his IKE SA: what `list` says of it before, and once another one has taken its place. */
async function renewedBy(
  which: '--child' | '--ike',
  line: RegExp,
): Promise<{ before: string[]; after: string[] }> {
  const before: string[] = (await bobSas()).match(line) ?? [];
  const asked = await swanctl(world, 'bob', '--rekey', which, 'bob-for-carol');
  if (asked.status !== 0) throw new Error(asked.stdout + asked.stderr);
  const text = await soon(bobSas, now => {
    const after = now.match(line) ?? [];
    return after.length === 1 && after[0] !== before[0];
  });
  return { before, after: text.match(line) ?? [] };
}

/** carol sends bob so many bytes on one TCP connection and counts those that come back as they were. */
async function stream(size: number): Promise<string> {
  const echo = 'require("net").createServer(s => s.pipe(s)).listen(8, "0.0.0.0")';
  const send = `const sent = require("crypto").randomBytes(${size}), got = [];
    require("net").connect(8, "bob.example").on("data", d => got.push(d)).on("error", e => console.log(e.code))
      .on("end", () => console.log(Buffer.concat(got).equals(sent) ? "${size} bytes" : "other bytes")).end(sent);
    setTimeout(() => process.exit(1), 20_000).unref()`;
  const server = spawn('on', ['bob', process.execPath, '-e', echo], { stdio: 'ignore' });
  await soon(
    () => run('bob', 'cat', '/proc/net/tcp'),
    table => table.includes('00000000:0008 '),
  );
  const { stdout, stderr } = await on('carol', [process.execPath, '-e', send]);
  server.kill();
  return stdout.trim() || stderr;
}

/** Asks again until the answer is as wished, for 10 seconds; answers the last one. */
async function soon(ask: () => Promise<string>, wished: (answer: string) => boolean): Promise<string> {
  const limit = Date.now() + 10_000;
  for (;;) {
    const answer = await ask();
    if (wished(answer) || Date.now() > limit) return answer;
    await sleep(100);
  }
}

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
  const text = await run('bob', 'tcpdump', '-Z', 'root', '-nr', capture.file, filter);
  return text.split('\n').filter(Boolean).length;
}

async function run(host: string, ...command: string[]): Promise<string> {
  const { status, stdout, stderr } = await on(host, command);
  if (status !== 0) throw new Error(`${command.join(' ')} on ${host}: ${stderr}`);
  return stdout;
}
