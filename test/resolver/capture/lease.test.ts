// What an answer may be used again on, and what ends that.
import assert from 'node:assert/strict';
import test from 'node:test';
import { parseIpAddress } from '../../../resolver/address.ts';
import type { CaptureAnswer } from '../../../resolver/capture/answers.ts';
import { jointly, leaseOf } from '../../../resolver/capture/lease.ts';
import { CachedResolver } from '../../../resolver/cache/answers.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { RCODE, TYPE } from '../../../resolver/dns/types.ts';
import type { Resolution } from '../../../resolver/dnssec/types.ts';
import { keyNumber, settle, World } from './world.ts';

const KEY = keyNumber(1);

function ask(world: World, name: string, type: number = TYPE.A): Promise<CaptureAnswer> {
  const question = { name: Name.parseText(name), type, dnssecOk: false, checkingDisabled: false };
  return world.capture.answer(question);
}

/** A world with one sealed name, and its answer. */
async function sealed() {
  const world = new World({ default: 'private-if-published' });
  world.zones.set('bank.example.', { a: ['192.0.2.1'], keys: [{ key: KEY }] });
  world.holders.set('192.0.2.1', [KEY]);
  const answer = await ask(world, 'bank.example');
  assert.equal(answer.rcode, RCODE.NOERROR);
  assert.ok(answer.lease);
  return { world, lease: answer.lease };
}

const stands = ({ grounds }: { grounds: readonly { stands: boolean }[] }) =>
  grounds.every(ground => ground.stands);

test('an answer without a key is good for a part of what addresses and key may be kept, and a quarter of a minute', async () => {
  const world = new World({});
  world.zones.set('plain.example.', { a: ['192.0.2.1'] });
  const { lease } = await ask(world, 'plain.example');
  assert.equal(lease?.seconds, 15);
  assert.equal(stands(lease!), true);
  assert.equal(leaseOf({ verdict: 'secure', ttlSeconds: 10 })?.seconds, 4);
});

test('a sealed answer is good until its peer changes, and half a second at most', async () => {
  const { world, lease } = await sealed();
  assert.equal(lease.seconds, 0.5);
  assert.equal(stands(lease), true);
  world.capture.peers.closed([...world.children.keys()][0]!);
  assert.equal(stands(lease), false);
});

test('SAs in the place of others, and one pair of two that goes, end it as well', async () => {
  const replaced = await sealed();
  const [childId] = [...replaced.world.children.keys()];
  replaced.world.capture.peers.replaced(childId!, 77);
  assert.equal(stands(replaced.lease), false);
  const { lease } = await ask(replaced.world, 'bank.example').then(answer => ({ lease: answer.lease }));
  if (lease) assert.equal(stands(lease), true);

  const { world } = await sealed();
  const [peer] = world.capture.peers.list();
  world.capture.peers.adopt(peer!.address, { ...peer!.seal, childId: 78 }, undefined, 'private');
  const second = await ask(world, 'bank.example');
  assert.equal(stands(second.lease!), true);
  world.capture.peers.closed(78);
  assert.equal(stands(second.lease!), false, 'the kernel was changed: look again');
});

test('the kernel lost the SAs: what finds it out ends the lease', async () => {
  const { world, lease } = await sealed();
  world.children.clear();
  await world.pass(600);
  void ask(world, 'bank.example');
  await settle();
  assert.equal(stands(lease), false);
});

test('forgetting the peer ends it', async () => {
  const { world, lease } = await sealed();
  world.capture.peers.forget({ address: parseIpAddress('192.0.2.1')! });
  assert.equal(stands(lease), false);
});

test('revoking ends every lease, also of answers on their way', async () => {
  const world = new World({});
  world.zones.set('plain.example.', { a: ['192.0.2.1'] });
  const before = await ask(world, 'plain.example');
  const under = ask(world, 'plain.example', TYPE.MX);
  world.capture.revoke();
  assert.equal(stands(before.lease!), false);
  assert.equal(stands((await under).lease!), false);
  assert.equal(stands((await ask(world, 'plain.example')).lease!), true);
});

test('no lease for what failed, was refused, or could not be judged', async () => {
  const world = new World({ groups: { private: { cidrs: [], namePatterns: ['strict.example'] } } });
  // Nobody answers at this address; the group goes clear.
  world.zones.set('dead.example.', { a: ['192.0.2.9'], keys: [{ key: KEY }] });
  world.zones.set('strict.example.', { a: ['192.0.2.9'], keys: [{ key: KEY }] });
  world.zones.set('unknown.example.', { a: ['192.0.2.9'], keyVerdict: 'timeout' });
  world.zones.set('bogus.example.', { a: ['192.0.2.9'], verdict: 'bogus' });
  for (const name of ['dead.example', 'strict.example', 'unknown.example', 'bogus.example']) {
    const asking = ask(world, name);
    await world.pass(2_000);
    assert.equal((await asking).lease, undefined, name);
  }
  // A client that checks for itself gets what is bogus; nobody else may, so it is asked for each time.
  const question = {
    name: Name.parseText('bogus.example'),
    type: TYPE.MX,
    dnssecOk: true,
    checkingDisabled: true,
  };
  const checked = await world.capture.answer(question);
  assert.equal(checked.rcode, RCODE.NOERROR);
  assert.equal(checked.lease, undefined);
});

test('an answer with hints rests on what its targets rest on', () => {
  const [a, b] = [{ stands: true }, { stands: true }];
  assert.deepEqual(
    jointly([
      { grounds: [a], seconds: 60 },
      { grounds: [b, a], seconds: 30 },
    ]),
    { grounds: [a, b], seconds: 30 },
  );
  assert.equal(jointly([{ grounds: [a], seconds: 60 }, undefined]), undefined);
  assert.equal(leaseOf({ verdict: 'indeterminate', ttlSeconds: 60 }), undefined);
  assert.equal(leaseOf({ verdict: 'secure', ttlSeconds: 30, stale: true }), undefined);
});

test('addresses of our own are looked at again soon: interfaces come and go', async () => {
  const world = new World({ own: ['192.0.2.1'] });
  world.zones.set('here.example.', { a: ['192.0.2.1'] });
  assert.equal((await ask(world, 'here.example')).lease?.seconds, 0.5);
});

test('a name that many ask is fetched again before its time ends, although most are answered from bytes', async () => {
  for (const ttlSeconds of [10, 30, 60, 300, 3600]) {
    const clock = { now: 0 };
    const outside = { asked: 0 };
    const name = Name.parseText('popular.example');
    const rrset = {
      name,
      type: TYPE.A,
      class: 1,
      ttlSeconds,
      signatures: [],
      rdatas: [Uint8Array.of(192, 0, 2, 1)],
    };
    const resolution: Resolution = {
      question: { name, type: TYPE.A },
      rcode: RCODE.NOERROR,
      verdict: 'secure',
      answer: [rrset],
      authority: [],
      canonicalName: name,
      outcome: 'positive',
      ttlSeconds,
    };
    const cache = new CachedResolver(
      {
        lookup: async () => {
          outside.asked++;
          return resolution;
        },
      },
      { now: () => clock.now, wallClock: () => clock.now },
    );
    let usableUntil = -1;
    for (; clock.now < 20_000 * ttlSeconds; clock.now += 250) {
      if (clock.now < usableUntil) continue;
      const { misses } = cache.counters();
      const lease = leaseOf(await cache.lookup(name, TYPE.A));
      for (let i = 0; i < 3; i++) await new Promise(setImmediate);
      if (clock.now > 0) assert.equal(cache.counters().misses, misses, `TTL ${ttlSeconds}, ${clock.now} ms`);
      usableUntil = clock.now + 1000 * lease!.seconds;
    }
    assert.ok(outside.asked >= 20 && outside.asked <= 25, `TTL ${ttlSeconds}: ${outside.asked} times`);
  }
});
