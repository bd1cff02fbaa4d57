// Inside the lab: who shakes hands with whom. Argument: `responder`, `initiator` (strongSwan's part) or `holdfast`.
import { readFileSync } from 'node:fs';
import { keyKinds } from './keys.ts';
import {
  startCapture,
  startDns,
  startEcho,
  startHoldfast,
  startStrongSwan,
  stopAll,
  swanctl,
} from './servers.ts';
import { connectAll, everyWay, type Try } from './tries.ts';
import { countWire } from './wire.ts';

const world = process.env.LAB_OUT!;
const part = process.argv[2];
const [alice, bob] = [
  ['10.9.0.1', 'fd09::1'],
  ['10.9.0.2', 'fd09::2'],
];
const told: { what: string; ok: boolean; detail: unknown }[] = [];
const note = (what: string, ok: boolean, detail: unknown) => told.push({ what, ok, detail });
const noteTries = (what: string, tries: Try[]) => {
  const bad = tries.filter(({ error, retransmits }) => error || retransmits > 0);
  note(what, bad.length === 0, bad);
};

await startDns(world);
await startEcho(world, 'bob', 7);
await startEcho(world, 'alice', 7);
const holdfast = await startHoldfast(world, 'alice');
const capture = await startCapture(world, 'bob', 'wire');
if (part === 'responder') await strongSwanAnswers();
else if (part === 'initiator') await strongSwanStarts();
else await twoHoldfasts();
await capture.stop('SIGINT');
const wire = countWire(readFileSync(capture.file), alice, bob);
await stopAll();
console.log(JSON.stringify({ told, wire }));

async function strongSwanAnswers(): Promise<void> {
  await startStrongSwan(world, 'bob');
  for (const kind of keyKinds) {
    const name = `${kind}.example`;
    noteTries(`connect to ${name}`, await connectAll('alice', everyWay([name]), 7));
    for (const type of ['A', 'AAAA']) {
      const { assurance, rcode, addresses } = await holdfast.control.explain(name, type);
      note(`explain ${name} ${type}`, assurance === 'authenticated' && rcode === 'NOERROR', {
        assurance,
        rcode,
        addresses,
      });
    }
  }
}

/** bob starts, by each kind of key and each address family; Holdfast looks his keys up in the DNS. */
async function strongSwanStarts(): Promise<void> {
  await startStrongSwan(world, 'bob');
  for (const kind of keyKinds) {
    for (const family of ['4', '6'] as const) {
      const child = `to-alice-${kind}-${family}`;
      const started = await swanctl(world, 'bob', '--initiate', '--child', child);
      note(`initiate ${child}`, started.status === 0, started.stdout + started.stderr);
      const name = family === '4' ? alice[0]! : alice[1]!;
      noteTries(
        `connect by ${child}`,
        await connectAll(
          'bob',
          everyWay([name]).filter(w => w.family === family),
          7,
        ),
      );
      const ended = await swanctl(world, 'bob', '--terminate', '--ike', child);
      note(`terminate ${child}`, ended.status === 0, ended.stdout + ended.stderr);
    }
  }
}

/** Keys from the DNS on both sides: each asks for the other. p3 is a name of bob's by which he does not introduce himself. */
async function twoHoldfasts(): Promise<void> {
  const other = await startHoldfast(world, 'bob');
  noteTries('alice connects to bob.example', await connectAll('alice', everyWay(['bob.example']), 7));
  noteTries('bob connects to alice.example', await connectAll('bob', everyWay(['alice.example']), 7));
  noteTries('alice connects to p3.example', await connectAll('alice', everyWay(['p3.example']), 7));
  for (const [side, control, name] of [
    ['alice', holdfast.control, 'bob.example'],
    ['alice', holdfast.control, 'p3.example'],
    ['bob', other.control, 'alice.example'],
  ] as const) {
    const { assurance, steps, ede } = await control.explain(name, 'A');
    note(`${side} explains ${name}`, assurance === 'authenticated', { assurance, steps, ede });
  }
}
