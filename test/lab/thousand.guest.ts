// Inside the lab: a thousand connections to fifty names, each with a key and addresses of its own, cold and warm.
import { readFileSync } from 'node:fs';
import { peerNames } from './names.ts';
import { startCapture, startDns, startEcho, startHoldfast, startStrongSwan, stopAll } from './servers.ts';
import { manyAddresses } from './topology.ts';
import { connectAll, countTries, everyWay, type Try } from './tries.ts';
import { countWire } from './wire.ts';

const world = process.env.LAB_OUT!;
const alice = ['10.9.0.1', 'fd09::1'];
const peers = manyAddresses.flatMap(last => [`10.9.0.${last}`, `fd09::${last}`]);

await startDns(world);
await startStrongSwan(world, 'bob');
await startEcho(world, 'bob', 7);
const holdfast = await startHoldfast(world, 'alice', ['--log-level', 'warn']);
const capture = await startCapture(world, 'bob', 'wire');

const ways = everyWay(peerNames);
const rounds: { name: string; tries: Try[] }[] = [];
rounds.push({ name: 'cold, one after the other', tries: await connectAll('alice', ways, 7, 1) });
rounds.push({ name: 'warm, one after the other', tries: await connectAll('alice', ways, 7, 1) });
await holdfast.control.forget({ all: true });
rounds.push({ name: 'cold, sixteen at a time', tries: await connectAll('alice', ways, 7, 16) });
rounds.push({ name: 'warm, sixteen at a time', tries: await connectAll('alice', ways, 7, 16) });
rounds.push({ name: 'warm, four at a time', tries: await connectAll('alice', ways, 7, 4) });

await capture.stop('SIGINT');
const wire = countWire(readFileSync(capture.file), alice, peers);
const { peers: sealed } = await holdfast.control.status();
await stopAll();
const told = rounds.map(({ name, tries }) => ({
  name,
  count: countTries(tries),
  bad: tries.filter(({ error, retransmits }) => error || retransmits > 0).slice(0, 5),
}));
console.log(
  JSON.stringify({
    rounds: told,
    wire,
    sealed: sealed.map(({ address, assurance }) => ({ address, assurance })),
  }),
);
