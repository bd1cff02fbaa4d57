import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Name } from '../../../resolver/dns/name.ts';
import type { Rrset } from '../../../resolver/dns/rrset.ts';
import { CLASS, RCODE, TYPE } from '../../../resolver/dns/types.ts';
import type { Resolution } from '../../../resolver/dnssec/types.ts';
import { CachedResolver } from '../../../resolver/cache/answers.ts';

const NAME = Name.parseText('www.example.com');

function rrset(
  type: number,
  ttlSeconds: number,
  rdatas: Uint8Array[] = [Uint8Array.of(192, 0, 2, 1)],
): Rrset {
  return { name: NAME, type, class: CLASS.IN, ttlSeconds, rdatas, signatures: [Uint8Array.of(1, 2, 3)] };
}

function soa(ttlSeconds: number, minimum: number): Rrset {
  const rdata = new Uint8Array(22);
  new DataView(rdata.buffer).setUint32(18, minimum);
  return rrset(TYPE.SOA, ttlSeconds, [rdata]);
}

function resolution(change: Partial<Resolution> = {}): Resolution {
  return {
    question: { name: NAME, type: TYPE.A },
    rcode: RCODE.NOERROR,
    verdict: 'secure',
    answer: [rrset(TYPE.A, 300)],
    authority: [],
    canonicalName: NAME,
    outcome: 'positive',
    ttlSeconds: 300,
    ...change,
  };
}

/** A cache with clocks in milliseconds that the test moves, and a count of what went past the cache. */
function setUp(answer: (name: Name, type: number) => Resolution | Promise<Resolution>, maxBytes?: number) {
  const world = { now: 12_345.5, wall: 1_790_000_000_000, lookups: 0 };
  const inner = {
    lookup: async (name: Name, type: number) => {
      world.lookups++;
      return answer(name, type);
    },
  };
  const cache = new CachedResolver(inner, {
    now: () => world.now,
    wallClock: () => world.wall,
    ...(maxBytes === undefined ? {} : { maxBytes }),
  });
  return { world, cache };
}

test('the time that a machine sleeps counts; a clock that is set back brings nothing to life', async () => {
  const { world, cache } = setUp(() => resolution());
  await cache.lookup(NAME, TYPE.A);
  world.now += 1000;
  world.wall += 100_000;
  assert.equal(cache.peek(NAME, TYPE.A)?.ttlSeconds, 200);
  world.wall += 200_000;
  assert.equal(cache.peek(NAME, TYPE.A), undefined);
  await cache.lookup(NAME, TYPE.A);
  world.wall -= 1_000_000;
  world.now += 299_999;
  assert.equal(cache.peek(NAME, TYPE.A)?.ttlSeconds, 1);
  world.now += 1;
  assert.equal(cache.peek(NAME, TYPE.A), undefined);
});

test('TTLs count down, never run out while the answer is given, and end when they should', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 0, max: 200_000 }),
      fc.integer({ min: 0, max: 200_000 }),
      fc.array(fc.integer({ min: 0, max: 50_000_000 }), { maxLength: 12 }),
      async (ttl, whole, steps) => {
        const { world, cache } = setUp(() => resolution({ answer: [rrset(TYPE.A, ttl)], ttlSeconds: whole }));
        const start = world.now;
        const kept = Math.min(ttl, whole, 86_400);
        await cache.lookup(NAME, TYPE.A);
        for (const step of steps) {
          world.now += step;
          const elapsed = world.now - start;
          const found = cache.peek(NAME, TYPE.A);
          assert.equal(found !== undefined, elapsed < kept * 1000, `${elapsed} ms of ${kept} s`);
          if (found === undefined) continue;
          assert.equal(found.ttlSeconds, kept - Math.floor(elapsed / 1000));
          assert.ok(found.ttlSeconds > 0);
          assert.equal(found.answer[0]!.ttlSeconds, found.ttlSeconds);
        }
      },
    ),
  );
});

test('the smallest TTL of the chain rules, longer ones are cut to it', async () => {
  const { world, cache } = setUp(() =>
    resolution({ answer: [rrset(TYPE.CNAME, 20), rrset(TYPE.A, 300)], authority: [rrset(TYPE.NSEC, 900)] }),
  );
  await cache.lookup(NAME, TYPE.A);
  world.now += 5000;
  const found = cache.peek(NAME, TYPE.A)!;
  assert.deepEqual([found.answer[0]!.ttlSeconds, found.answer[1]!.ttlSeconds], [15, 15]);
  assert.equal(found.authority[0]!.ttlSeconds, 15);
  world.now += 15_000;
  assert.equal(cache.peek(NAME, TYPE.A), undefined);
});

test('negative answers are kept by the SOA, three hours at most, and not without one', async () => {
  const cases: [authority: Rrset[], ttl: number, kept: number][] = [
    [[soa(3600, 60)], 86_400, 60],
    [[soa(30, 900)], 86_400, 30],
    [[soa(500_000, 500_000)], 500_000, 10_800],
    [[soa(3600, 3600)], 7, 7],
    [[], 3600, 0],
  ];
  for (const [authority, ttlSeconds, kept] of cases) {
    const nothing = {
      outcome: 'nxdomain' as const,
      rcode: RCODE.NXDOMAIN,
      answer: [],
      authority,
      ttlSeconds,
    };
    const { world, cache } = setUp(() => resolution(nothing));
    await cache.lookup(NAME, TYPE.A);
    assert.equal(cache.peek(NAME, TYPE.A)?.ttlSeconds ?? 0, kept);
    world.now += kept * 1000;
    assert.equal(cache.peek(NAME, TYPE.A), undefined);
  }
});

test('failures and bogus answers are kept for seconds, longer while they last, and a success ends that', async () => {
  for (const change of [
    { outcome: 'failure', verdict: 'indeterminate' },
    { outcome: 'positive', verdict: 'bogus' },
  ] as const) {
    let fails = true;
    const { world, cache } = setUp(() => resolution(fails ? { ...change, ttlSeconds: 4000 } : {}));
    for (const kept of [5, 10, 20, 30, 30]) {
      const found = await cache.lookup(NAME, TYPE.A);
      assert.equal(found.ttlSeconds, kept);
      world.now += kept * 1000 - 1;
      assert.ok(cache.peek(NAME, TYPE.A));
      world.now += 1;
      assert.equal(cache.peek(NAME, TYPE.A), undefined);
    }
    fails = false;
    await cache.lookup(NAME, TYPE.A);
    world.now += 300_000;
    fails = true;
    assert.equal((await cache.lookup(NAME, TYPE.A)).ttlSeconds, 5);
  }
});

test('equal lookups are one, other types and names are not equal', async () => {
  const { world, cache } = setUp(() => resolution());
  await Promise.all([
    cache.lookup(NAME, TYPE.A),
    cache.lookup(Name.parseText('WWW.example.COM'), TYPE.A),
    cache.lookup(NAME, TYPE.AAAA),
    cache.lookup(Name.parseText('ww.example.com'), TYPE.A),
  ]);
  assert.equal(world.lookups, 3);
  await cache.lookup(NAME, TYPE.A);
  assert.equal(world.lookups, 3);
  assert.deepEqual([cache.counters().hits, cache.counters().coalesced, cache.counters().misses], [1, 1, 3]);
});

test('a TTL of zero serves those who wait and nobody after', async () => {
  const { world, cache } = setUp(() => resolution({ answer: [rrset(TYPE.A, 0)] }));
  await Promise.all([cache.lookup(NAME, TYPE.A), cache.lookup(NAME, TYPE.A)]);
  await cache.lookup(NAME, TYPE.A);
  assert.equal(world.lookups, 2);
});

test('nobody can change what others are given, nor can the one who gave it', async () => {
  const given = resolution();
  const { cache } = setUp(() => given);
  const found = await cache.lookup(NAME, TYPE.A);
  given.answer[0]!.rdatas[0]![0] = 9;
  given.answer.pop();
  assert.throws(() => found.answer.pop(), TypeError);
  assert.throws(() => Object.assign(found.answer[0]!, { ttlSeconds: 1 }), TypeError);
  assert.throws(() => found.answer[0]!.rdatas.pop(), TypeError);
  assert.deepEqual([...cache.peek(NAME, TYPE.A)!.answer[0]!.rdatas[0]!], [192, 0, 2, 1]);
});

test('within one second everyone gets the same object', async () => {
  const { world, cache } = setUp(() => resolution());
  await cache.lookup(NAME, TYPE.A);
  world.now += 1500;
  const first = cache.peek(NAME, TYPE.A);
  world.now += 400;
  assert.equal(cache.peek(NAME, TYPE.A), first);
  world.now += 200;
  assert.notEqual(cache.peek(NAME, TYPE.A), first);
});

test('bounded in octets; who is asked for stays', async () => {
  const { world, cache } = setUp(
    name => resolution({ answer: [{ ...rrset(TYPE.A, 3000), name }], ttlSeconds: 3000 }),
    50_000,
  );
  const popular = Name.parseText('popular.example');
  await cache.lookup(popular, TYPE.A);
  for (let i = 0; i < 500; i++) {
    world.now += 1000;
    await cache.lookup(Name.parseText(`n${i}.example`), TYPE.A);
    assert.ok(cache.peek(popular, TYPE.A));
    assert.ok(cache.counters().bytes! <= 50_000);
  }
  assert.ok(cache.counters().entries! < 60);
  assert.ok(cache.counters().entries! > 10);
  cache.flushAll();
  assert.deepEqual([cache.counters().entries, cache.counters().bytes], [0, 0]);
});

test('flush forgets one name in all its types, and what was in flight meanwhile is not kept', async () => {
  let release: (() => void) | undefined;
  const { world, cache } = setUp(async () => {
    if (world.lookups > 3) await new Promise<void>(resolve => (release = resolve));
    return resolution();
  });
  const other = Name.parseText('other.example.com');
  await cache.lookup(NAME, TYPE.A);
  await cache.lookup(NAME, TYPE.AAAA);
  await cache.lookup(other, TYPE.A);
  assert.equal(cache.flush(NAME), 2);
  assert.ok(cache.peek(other, TYPE.A));
  const pending = cache.lookup(NAME, TYPE.A);
  await new Promise(setImmediate);
  cache.flush(NAME);
  release!();
  assert.equal((await pending).outcome, 'positive');
  assert.equal(cache.peek(NAME, TYPE.A), undefined);
});

test('a lookup that rejects is not remembered', async () => {
  let fails = true;
  const { world, cache } = setUp(() => {
    if (fails) throw new Error('a defect');
    return resolution();
  });
  await assert.rejects(cache.lookup(NAME, TYPE.A), /a defect/);
  fails = false;
  await cache.lookup(NAME, TYPE.A);
  assert.equal(world.lookups, 2);
});
