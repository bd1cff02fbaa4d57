// Inside the lab: names of evil.example that list the bank's address, asked before, after and together with bank.example.
// The bank is reached at port 80, evil's names at port 81, so that the capture tells whose packet went in clear.
import { readFileSync } from 'node:fs';
import { startCapture, startDns, startEcho, startHoldfast, startStrongSwan, stopAll } from './servers.ts';
import { bankAddress } from './topology.ts';
import { connectAll, everyWay, type Try } from './tries.ts';
import { countWire } from './wire.ts';

const world = process.env.LAB_OUT!;
const bank = ['bank.example'];
const attacks = ['own', 'gateway', 'gateway6', 'named', 'bad', 'copy', 'keyless'].map(
  name => `${name}.evil.example`,
);

await startDns(world);
await startStrongSwan(world, 'bob');
await startStrongSwan(world, 'mallory');
await startEcho(world, 'bob', 80);
await startEcho(world, 'bob', 81);
const holdfast = await startHoldfast(world, 'alice');

const reachBank = () => connectAll('alice', everyWay(bank), 80);
const reachEvil = (name: string) => connectAll('alice', everyWay([name]), 81, 4, 3000);
/** Each order answers the tries to the bank. */
const orders: Record<string, (evil: string) => Promise<Try[]>> = {
  'bank first': async evil => {
    const before = await reachBank();
    await reachEvil(evil);
    return [...before, ...(await reachBank())];
  },
  'evil first': async evil => {
    await reachEvil(evil);
    const between = await reachBank();
    await reachEvil(evil);
    return [...between, ...(await reachBank())];
  },
  'at once': async evil => {
    const [tries] = await Promise.all([reachBank(), reachEvil(evil)]);
    return [...tries, ...(await reachBank())];
  },
};

const told = [];
for (const evil of attacks) {
  for (const [order, play] of Object.entries(orders)) {
    await holdfast.control.forget({ all: true });
    const capture = await startCapture(world, 'bob', `${evil}-${order.replaceAll(' ', '-')}`);
    const tries = await play(evil);
    const seen = [];
    for (const type of ['A', 'AAAA']) {
      const { assurance, addresses } = await holdfast.control.explain('bank.example', type);
      seen.push(...addresses.map(({ address, keyFingerprint }) => ({ address, keyFingerprint, assurance })));
    }
    await capture.stop('SIGINT');
    const addresses = [`10.9.0.${bankAddress}`, `fd09::${bankAddress}`];
    const { esp, clearPackets } = countWire(readFileSync(capture.file), ['10.9.0.1', 'fd09::1'], addresses);
    told.push({
      evil,
      order,
      seen,
      bad: tries.filter(({ error, retransmits }) => error || retransmits > 0),
      esp,
      clearToBank: clearPackets.filter(text => /\.80 /.test(text)),
    });
  }
}
await stopAll();
console.log(JSON.stringify(told));
