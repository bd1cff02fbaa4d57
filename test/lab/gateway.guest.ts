// Inside the lab: carol is reached through natr, which is strongSwan and her gateway. gated.example says so with the word
// of the reverse zone; gated.evil.example and halfgated.example say otherwise and do not have it.
// gated.example is reached at port 80, the others at port 81, so that the capture tells whose packet went in clear.
import { readFileSync } from 'node:fs';
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
import { connectAll, type Try } from './tries.ts';
import { countWire } from './wire.ts';

const world = process.env.LAB_OUT!;
const alice = ['10.9.0.1'];

await startDns(world);
await startStrongSwan(world, 'natr');
await startStrongSwan(world, 'mallory');
await startEcho(world, 'carol', 80);
await startEcho(world, 'carol', 81);
const route = await on('alice', ['ip', 'route', 'add', `${carolAddress}/32`, 'via', gateAddress]);
if (route.status !== 0) throw new Error(route.stderr);
const holdfast = await startHoldfast(world, 'alice');
const toMallory = await startCapture(world, 'mallory', 'mallory');

const reach = (name: string, port: number): Promise<Try[]> =>
  connectAll(
    'alice',
    [
      { name, protocol: 'tcp', family: '4' },
      { name, protocol: 'udp', family: '4' },
    ],
    port,
  );
const others = ['gated.evil.example', 'halfgated.example'];
const orders: [string, string[]][] = [
  ['gated first', ['gated.example', ...others, 'gated.example']],
  ['the others first', [...others, 'gated.example', ...others]],
];

const told = [];
for (const [order, names] of orders) {
  await holdfast.control.forget({ all: true });
  const capture = await startCapture(world, 'natr', order.replaceAll(' ', '-'));
  const bad = [];
  for (const name of names) {
    const tries = await reach(name, name === 'gated.example' ? 80 : 81);
    bad.push(...tries.filter(({ error, retransmits }) => error || retransmits > 0));
  }
  const explained = [];
  for (const name of ['gated.example', ...others]) explained.push(await holdfast.control.explain(name, 'A'));
  const { peers } = await holdfast.control.status();
  await capture.stop('SIGINT');
  const pcap = readFileSync(capture.file);
  told.push({
    order,
    bad,
    explained: explained.map(({ name, assurance, addresses }) => ({ name, assurance, ...addresses[0] })),
    peers: peers.map(({ address, via, mode, inBytes, outBytes }) => ({
      address,
      via,
      mode,
      inBytes,
      outBytes,
    })),
    espToGate: countWire(pcap, alice, [gateAddress]).esp,
    clearToCarol: countWire(pcap, alice, [carolAddress]).clearPackets,
  });
}
await toMallory.stop('SIGINT');
const gate = await swanctl(world, 'natr', '--list-sas');
const forgotten = await holdfast.control.forget({ all: true });
await holdfast.stop();
const left = await on('alice', ['ip', '-o', 'xfrm', 'state']);
await stopAll();
console.log(
  JSON.stringify({
    told,
    ikeToMallory: countWire(readFileSync(toMallory.file), alice, ['10.9.0.66']).ike,
    gate: gate.stdout,
    forgotten,
    left: left.stdout,
  }),
);
