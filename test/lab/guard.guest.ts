// Inside the lab: what must be private stays so when its seal goes: deleted by the peer, from another source address,
// flushed by somebody, after a crash. An app that knows the address already goes on asking nobody.
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
import { bankAddress } from './topology.ts';
import { connectAll } from './tries.ts';
import { countWire } from './wire.ts';

const world = process.env.LAB_OUT!;
const bank = `10.9.0.${bankAddress}`;
const flags = ['--policy-groups-private', 'bank.example'];
const told: Record<string, string> = {};

await startDns(world);
await startStrongSwan(world, 'bob');
await startEcho(world, 'bob', 80);
let holdfast = await startHoldfast(world, 'alice', flags);
const capture = await startCapture(world, 'bob', 'guard');

const ask = () => reach('bank.example');
const go = () => reach(bank);
async function reach(name: string): Promise<string> {
  const [tried] = await connectAll('alice', [{ name, protocol: 'tcp', family: '4' }], 80, 1, 3000);
  return tried!.error ? `${tried!.stage}: ${tried!.error}` : 'reached';
}

/** Asks as an app does until answers come from kept bytes; then the next one would too, if nothing forbade it. */
async function keepBytes(): Promise<string> {
  const used = async () => (await holdfast.control.status()).counters['stub.kept.used'] ?? 0;
  const before = await used();
  const question = ['bank.example', 'A'];
  await on('alice', ['dig', '+noedns', '+short', ...question, ...question, ...question]);
  return (await used()) > before ? 'kept' : 'asked each time';
}

told.sealed = await ask();
told.byAddress = await go();

const peers = await swanctl(world, 'bob', '--list-sas');
for (const [, name] of peers.stdout.matchAll(/^(\S+): #\d+, ESTABLISHED/gm)) {
  await swanctl(world, 'bob', '--terminate', '--ike', name!);
}
told.afterDelete = await go();
told.askedAgain = await ask();

await on('alice', ['ip', 'address', 'add', '10.9.0.201/24', 'dev', 'eth0']);
const ping = (source: string) => on('alice', ['ping', '-c', '1', '-W', '1', '-I', source, bank]);
told.fromSealed = String((await ping('10.9.0.1')).status);
told.fromOther = String((await ping('10.9.0.201')).status);

// Whatever somebody does to our SAs and policies: the very next question negotiates anew, however often it was answered.
for (const [what, ...words] of [
  ['Removal', 'state', 'deleteall', 'dst', bank],
  ['Flush', 'state', 'flush'],
  ['PolicyFlush', 'policy', 'flush'],
] as const) {
  told[`before${what}`] = await keepBytes();
  await on('alice', ['ip', 'xfrm', ...words]);
  told[`askedAfter${what}`] = await ask();
}

await holdfast.stop('SIGKILL');
told.afterKill = await go();
holdfast = await startHoldfast(world, 'alice', flags);
told.afterRestart = await go();
told.askedAfterRestart = await ask();
await capture.stop('SIGINT');
const wire = countWire(readFileSync(capture.file), ['10.9.0.1', '10.9.0.201'], [bank]);

await holdfast.stop('SIGTERM');
const left = await on('alice', ['ip', 'xfrm', 'policy']);
told.leftAfterStop = String(left.stdout.split('\n').filter(line => /^src/.test(line)).length);
await stopAll();
console.log(JSON.stringify({ told, wire }));
