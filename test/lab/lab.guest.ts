// Inside the lab: two strongSwans, one handshake for each kind of key, and what the wire carried. Prints one JSON object.
import { readFileSync } from 'node:fs';
import { keyKinds } from './keys.ts';
import { on, startCapture, startEcho, startStrongSwan, stopAll, swanctl } from './servers.ts';
import { countWire } from './wire.ts';

const world = process.env.LAB_OUT!;

await startStrongSwan(world, 'bob');
await startStrongSwan(world, 'alice');
await startEcho(world, 'bob', 7);
const initiated: Record<string, string> = {};
const capture = await startCapture(world, 'bob', 'lab');
for (const kind of keyKinds) {
  const done = await swanctl(world, 'alice', '--initiate', '--child', kind);
  initiated[kind] = done.status === 0 ? 'ok' : done.stdout + done.stderr;
  const reach = await on('alice', ['ping', '-c', '2', '-i', '0.2', '-W', '2', '10.9.0.2']);
  if (reach.status !== 0) initiated[kind] += reach.stdout;
  await swanctl(world, 'alice', '--terminate', '--ike', kind);
}
await capture.stop('SIGINT');
const wire = countWire(readFileSync(capture.file), ['10.9.0.1'], ['10.9.0.2']);
await stopAll();
console.log(JSON.stringify({ initiated, wire }));
