// Inside the lab: the demo's story (see demo.ts). Everything it says was measured in this run.
import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import type { Explanation } from '../../resolver/control/api.ts';
import { peerNames } from './names.ts';
import {
  type Holdfast,
  on,
  startCapture,
  startDns,
  startEcho,
  startHoldfast,
  startStrongSwan,
  stopAll,
} from './servers.ts';
import { hosts, plainAddress } from './topology.ts';
import { connectAll, countTries, everyWay, type TryCount } from './tries.ts';
import { countWire, type WireCount } from './wire.ts';

const world = process.env.LAB_OUT!;
const json = process.argv.includes('--json');
const tell = (line = '') => {
  if (!json) console.log(line);
};
const progress = (line: string) => console.error(line);

const cast: { name: string; why: string }[] = [
  { name: 'bob.example', why: 'a good key is published' },
  { name: 'plain.example', why: 'no key is published, and the zone proves it' },
  { name: 'wrong.example', why: "the published key is not the peer's; group private" },
  { name: 'broken.example', why: 'its signatures are spoilt' },
];

const addressesOf = (host: string) =>
  hosts.find(({ name }) => name === host)!.addresses.map(a => a.split('/')[0]!);
const plainAddresses = [`10.9.0.${plainAddress}`, `fd09::${plainAddress}`];
/** bob's addresses at which a good key is published. */
const sealedAddresses = addressesOf('bob').filter(address => !plainAddresses.includes(address));

progress('starting nsd, unbound and strongSwan');
await startDns(world);
await startStrongSwan(world, 'bob');
await startEcho(world, 'bob', 80);
progress('starting Holdfast');
const capture = await startCapture(world, 'bob', 'wire');
const holdfast = await startHoldfast(world, 'alice');

const { dataplane, upstreams, listen } = await holdfast.control.status();
const kernel = `Linux ${release()}${process.env.LAB_KERNEL === 'uml' ? ' (User-Mode Linux)' : ''}`;
tell(
  `\nHoldfast listens on ${listen.join(' and ')} of alice, asks ${upstreams[0]?.address}, and drives ${dataplane.kind} of`,
);
tell(`${kernel}. The peer, bob, is strongSwan with keys from files.`);
if (process.env.LAB_KERNEL === 'uml')
  tell('(User-Mode Linux is many times slower than a kernel on the machine itself.)');

const captures: Explanation[] = [];
for (const member of cast) captures.push(await ask(holdfast, member));
const many = await connectMany();
await capture.stop('SIGINT');
const pcap = readFileSync(capture.file);
const sealed = countWire(pcap, addressesOf('alice'), sealedAddresses);
tellWire(sealed, countWire(pcap, addressesOf('alice'), plainAddresses));
await tellKernel(holdfast);
await holdfast.stop();
await tellLeftovers();
await stopAll();

if (json) {
  const figures = captures.map(({ name, group, assurance, answerMs, dnsMs, ikeMs, kernelMs, rcode, ede }) => {
    const millis = { answerMs, dnsMs: dnsMs ?? null, ikeMs: ikeMs ?? null, kernelMs: kernelMs ?? null };
    return { name, group, assurance, ...millis, rcode, ede };
  });
  const wire = { esp: sealed.esp, clear: sealed.clear };
  console.log(JSON.stringify({ dataplane: dataplane.kind, kernel, captures: figures, wire, connect: many }));
}

/** Asks by dig, lets the daemon explain, and tries to fetch a page by curl. */
async function ask(daemon: Holdfast, { name, why }: { name: string; why: string }): Promise<Explanation> {
  progress(`asking for ${name}`);
  tell(`\n${name}: ${why}`);
  const dig = await on('alice', ['dig', '+tries=1', '+time=8', '+noall', '+answer', '+comments', name, 'A']);
  const told = await daemon.control.explain(name, 'A');
  for (const { at, what, detail } of told.steps) tell(`${millis(at)}  ${what}${detail ? `: ${detail}` : ''}`);
  tell(`  dig (A)      ${digSummary(dig.stdout)}`);
  tell(`  assurance    ${told.assurance}, by the group ${told.group}`);
  for (const { code, text } of told.ede) tell(`  reason       ${text} (EDE ${code})`);
  tell(`  curl         ${await fetchPage(name)}`);
  return told;
}

function digSummary(output: string): string {
  const status = /status: (\w+)/.exec(output)?.[1] ?? 'no answer';
  const authentic = / ad[ ;]/.test(output) ? ', DNSSEC secure' : '';
  const addresses = [...output.matchAll(/\sIN\s+A\s+(\S+)/g)].map(match => match[1]);
  return `${status}${authentic}${addresses.length > 0 ? `: ${addresses.join(', ')}` : ''}`;
}

/** curl resolves by getaddrinfo, so it asks for A and AAAA and takes what the C library prefers. */
async function fetchPage(name: string): Promise<string> {
  const format =
    '%{remote_ip} name %{time_namelookup} s, connected %{time_connect} s, first byte %{time_starttransfer} s';
  const run = await on('alice', [
    'curl',
    '-sS',
    '-m',
    '10',
    '-o',
    '/dev/null',
    '-w',
    format,
    `http://${name}/`,
  ]);
  return run.status === 0 ? run.stdout : run.stderr.trim();
}

async function connectMany(): Promise<TryCount> {
  const names = ['bob.example', ...peerNames.slice(0, 12)];
  progress(`connecting to ${names.length} names, TCP and UDP, IPv4 and IPv6`);
  const tries = await connectAll('alice', everyWay(names), 80, 2);
  const count = countTries(tries);
  tell(
    `\nAn app connects to ${names.length} names with keys, each by TCP and UDP, IPv4 and IPv6, by getaddrinfo:`,
  );
  tell(`  ${count.tries} tries, ${count.eagain} EAGAIN, ${count.lostSyn} lost SYN, ${count.failed} failed`);
  const bad = tries.filter(({ error, retransmits }) => error || retransmits > 0);
  for (const one of bad.slice(0, 5)) tell(`  ${JSON.stringify(one)}`);
  return count;
}

function tellWire(toSealed: WireCount, toPlain: WireCount): void {
  tell('\nWhat the wire carried, captured beside bob:');
  tell(`  names with a good key   ${toSealed.esp} ESP, ${toSealed.clear} in clear, ${toSealed.ike} IKE`);
  for (const packet of toSealed.clearPackets.slice(0, 10)) tell(`    in clear: ${packet}`);
  tell(`  plain.example           ${toPlain.esp} ESP, ${toPlain.clear} in clear`);
}

async function tellKernel(daemon: Holdfast): Promise<void> {
  if (json) return;
  const { peers } = await daemon.control.status();
  const { sas, policies } = await kernelCounts();
  tell(
    `\nWhat alice's kernel holds: ${sas} SAs, ${policies} policies, for ${peers.length} peers. Three of them:`,
  );
  for (const { address, names, assurance, mode, suite, inBytes, outBytes } of peers.slice(0, 3)) {
    tell(
      `  ${address}  ${names.join(' ')}  ${assurance}, ${mode}, ${suite}, ${inBytes} B in, ${outBytes} B out`,
    );
  }
}

async function tellLeftovers(): Promise<void> {
  if (json) return;
  const { sas, policies } = await kernelCounts();
  tell(`After the daemon stopped: ${sas} SAs, ${policies} policies.`);
}

/** Policies that sockets carry are not counted: they go with their sockets. */
async function kernelCounts(): Promise<{ sas: number; policies: number }> {
  const state = await on('alice', ['ip', '-o', 'xfrm', 'state']);
  const policy = await on('alice', ['ip', '-o', 'xfrm', 'policy']);
  const lines = (text: string) =>
    text.split('\n').filter(line => line.startsWith('src') && !line.includes('socket '));
  return { sas: lines(state.stdout).length, policies: lines(policy.stdout).length };
}

function millis(at: number): string {
  return `${at.toFixed(1).padStart(10)} ms`;
}
