import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Name } from '../../../resolver/dns/name.ts';
import type { Rrset } from '../../../resolver/dns/rrset.ts';
import { CLASS, RCODE, TYPE } from '../../../resolver/dns/types.ts';
import type { Resolution } from '../../../resolver/dnssec/types.ts';
import { rrsigRdata } from './rrsig.ts';
import { CachedResolver, type Lookup } from '../../../resolver/cache/answers.ts';

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
function setUp(
  answer: (name: Name, type: number, signal: AbortSignal) => Resolution | Promise<Resolution>,
  limits: { maxBytes?: number; maxStaleSeconds?: number } = {},
) {
  const world = { now: 12_345.5, wall: 1_790_000_000_000, lookups: 0, renewals: 0 };
  const inner: Lookup = {
    lookup: async (name, type, { signal, refresh }) => {
      world.lookups++;
      if (refresh) world.renewals++;
      return answer(name, type, signal!);
    },
  };
  const cache = new CachedResolver(inner, { now: () => world.now, wallClock: () => world.wall, ...limits });
  return { world, cache };
}

test('the time that a machine sleeps counts; a clock that is set back brings nothing to life', async () => {
  const { world, cache } = setUp(() => resolution());
  await cache.lookup(NAME, TYPE.A);
  world.now += 1000;
  world.wall += 100_000;
  assert.equal(cache.remembered(NAME, TYPE.A)?.ttlSeconds, 200);
  world.wall += 200_000;
  assert.equal(cache.remembered(NAME, TYPE.A), undefined);
  await cache.lookup(NAME, TYPE.A);
  world.wall -= 1_000_000;
  world.now += 299_999;
  assert.equal(cache.remembered(NAME, TYPE.A)?.ttlSeconds, 1);
  world.now += 1;
  assert.equal(cache.remembered(NAME, TYPE.A), undefined);
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
          const found = cache.remembered(NAME, TYPE.A);
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
  const found = cache.remembered(NAME, TYPE.A)!;
  assert.deepEqual([found.answer[0]!.ttlSeconds, found.answer[1]!.ttlSeconds], [15, 15]);
  assert.equal(found.authority[0]!.ttlSeconds, 15);
  world.now += 15_000;
  assert.equal(cache.remembered(NAME, TYPE.A), undefined);
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
    assert.equal(cache.remembered(NAME, TYPE.A)?.ttlSeconds ?? 0, kept);
    world.now += kept * 1000;
    assert.equal(cache.remembered(NAME, TYPE.A), undefined);
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
      assert.equal(cache.remembered(NAME, TYPE.A), undefined);
      const asked = world.lookups;
      world.now += kept * 1000 - 1;
      assert.equal((await cache.lookup(NAME, TYPE.A)).ttlSeconds, 1);
      assert.equal(world.lookups, asked);
      world.now += 1;
    }
    world.now += 60_000;
    assert.equal(
      (await cache.lookup(NAME, TYPE.A)).ttlSeconds,
      5,
      'a minute after the last one is not in a row',
    );
    fails = false;
    world.now += 5_000;
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
  assert.deepEqual([...cache.remembered(NAME, TYPE.A)!.answer[0]!.rdatas[0]!], [192, 0, 2, 1]);
});

test('within one second everyone gets the same object', async () => {
  const { world, cache } = setUp(() => resolution());
  await cache.lookup(NAME, TYPE.A);
  world.now += 1500;
  const first = cache.remembered(NAME, TYPE.A);
  world.now += 400;
  assert.equal(cache.remembered(NAME, TYPE.A), first);
  world.now += 200;
  assert.notEqual(cache.remembered(NAME, TYPE.A), first);
});

test('bounded in octets; who is asked for stays', async () => {
  const { world, cache } = setUp(
    name => resolution({ answer: [{ ...rrset(TYPE.A, 3000), name }], ttlSeconds: 3000 }),
    { maxBytes: 50_000 },
  );
  const popular = Name.parseText('popular.example');
  await cache.lookup(popular, TYPE.A);
  for (let i = 0; i < 500; i++) {
    world.now += 1000;
    await cache.lookup(Name.parseText(`n${i}.example`), TYPE.A);
    assert.equal((await cache.lookup(popular, TYPE.A)).ttlSeconds, 3000 - i - 1);
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
  assert.ok(cache.remembered(other, TYPE.A));
  const pending = cache.lookup(NAME, TYPE.A);
  await new Promise(setImmediate);
  cache.flush(NAME);
  release!();
  assert.equal((await pending).outcome, 'positive');
  assert.equal(cache.remembered(NAME, TYPE.A), undefined);
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

/** The failure of a question that nobody upstream answered. */
const SILENCE: Partial<Resolution> = {
  outcome: 'failure',
  verdict: 'indeterminate',
  rcode: RCODE.SERVFAIL,
  answer: [],
};

/** Asks for NAME in seconds of its life, counted from when it was stored; whoever is to be renewed is. */
async function askAt(
  world: { now: number },
  cache: CachedResolver,
  seconds: readonly number[],
): Promise<Resolution[]> {
  const start = world.now;
  const found: Resolution[] = [];
  for (const second of seconds) {
    world.now = start + second * 1000;
    found.push(await cache.lookup(NAME, TYPE.A));
    await new Promise(setImmediate);
  }
  return found;
}

test('a popular answer is renewed once in the last tenth of its life, and whoever hits it does not wait', async () => {
  const { world, cache } = setUp(() => resolution());
  const found = await askAt(world, cache, [0, 100, 269, 270]);
  assert.equal(world.lookups, 2);
  assert.equal(world.renewals, 1);
  assert.deepEqual(
    found.map(({ ttlSeconds }) => ttlSeconds),
    [300, 200, 31, 30],
  );
  assert.equal((await cache.lookup(NAME, TYPE.A)).ttlSeconds, 300, 'the renewed one is there');
});

test('what is asked for seldom, or earlier in its life, is not renewed', async () => {
  for (const seconds of [
    [0, 280],
    [0, 0.2, 0.4, 0.6, 0.8, 280],
    [0, 10, 20, 30, 100, 200, 269],
  ]) {
    const { world, cache } = setUp(() => resolution());
    await askAt(world, cache, seconds);
    assert.equal(world.lookups, 1, seconds.join());
  }
});

test('a renewal that fails leaves the answer until its end, and is not tried again', async () => {
  for (const change of [SILENCE, { verdict: 'bogus' as const }]) {
    let fails = false;
    const { world, cache } = setUp(() => resolution(fails ? { ...change } : {}));
    await askAt(world, cache, [0, 100]);
    fails = true;
    world.now += 180_000;
    const found = await askAt(world, cache, [0, 5, 10, 19]);
    assert.equal(world.renewals, 1);
    assert.deepEqual(
      found.map(({ ttlSeconds }) => ttlSeconds),
      [20, 15, 10, 1],
    );
    assert.equal(cache.counters().renewalsFailed, 1);
    world.now += 1000;
    fails = false;
    assert.equal((await cache.lookup(NAME, TYPE.A)).ttlSeconds, 300, 'the failure was not kept');
  }
});

test('renewals at one time are bounded', async () => {
  const { world, cache } = setUp(name =>
    world.renewals > 0 ? new Promise(() => {}) : resolution({ canonicalName: name }),
  );
  const names = Array.from({ length: 50 }, (_, i) => Name.parseText(`n${i}.example`));
  for (const second of [0, 100, 280]) {
    world.now = 50_000 + second * 1000;
    for (const name of names) await cache.lookup(name, TYPE.A);
  }
  await new Promise(setImmediate);
  assert.equal(world.renewals, 32);
  assert.equal(cache.counters().renewals, 32);
});

test('who leaves gets a failure at once; the question is given up with the last of them', async () => {
  const signals: AbortSignal[] = [];
  const { world, cache } = setUp((_name, _type, signal) => {
    signals.push(signal);
    return new Promise(resolve => {
      signal.addEventListener('abort', () => resolve(resolution({ ...SILENCE, transient: true })));
    });
  });
  const [one, other] = [new AbortController(), new AbortController()];
  const first = cache.lookup(NAME, TYPE.A, one.signal);
  const second = cache.lookup(NAME, TYPE.A, other.signal);
  one.abort();
  assert.equal((await first).outcome, 'failure');
  assert.equal(signals[0]!.aborted, false);
  const third = cache.lookup(NAME, TYPE.A, AbortSignal.abort());
  assert.equal((await third).transient, true);
  assert.equal(signals[0]!.aborted, false);
  other.abort();
  assert.equal((await second).outcome, 'failure');
  assert.equal(signals[0]!.aborted, true);
  assert.equal(world.lookups, 1);
  await new Promise(setImmediate);
  assert.equal(cache.counters().failures, 0);
  void cache.lookup(NAME, TYPE.A);
  assert.equal(world.lookups, 2, 'a new question is not kept from those that come later');
  void cache.lookup(NAME, TYPE.A, AbortSignal.abort());
  assert.equal(signals[1]!.aborted, false, 'who gave no signal stays');
});

test('failures of our own are not remembered', async () => {
  const { world, cache } = setUp(() => resolution({ ...SILENCE, transient: true }));
  await cache.lookup(NAME, TYPE.A);
  await cache.lookup(NAME, TYPE.A);
  assert.equal(world.lookups, 2);
  assert.equal(cache.counters().failures, 0);
});

test('failures that the network has to answer for go with it, those under way too; answers stay', async () => {
  let release: (() => void) | undefined;
  const other = Name.parseText('other.example');
  const { world, cache } = setUp(async name => {
    if (name.equals(other)) return resolution();
    if (world.lookups > 2) await new Promise<void>(resolve => (release = resolve));
    return resolution({ ...SILENCE });
  });
  await cache.lookup(other, TYPE.A);
  await cache.lookup(NAME, TYPE.A);
  const pending = cache.lookup(NAME, TYPE.AAAA);
  assert.equal(cache.flushFailures(), 1);
  await new Promise(setImmediate);
  release!();
  assert.equal((await pending).outcome, 'failure');
  assert.equal(cache.counters().failures, 0);
  assert.ok(cache.remembered(other, TYPE.A));
});

/** A of NAME, its signature in force between these Unix seconds. */
function signed(inception: number, expiration: number): Rrset {
  return { ...rrset(TYPE.A, 300), signatures: [rrsigRdata(TYPE.A, inception, expiration)] };
}

const DAY = 86_400;
const NOW = 1_790_000_000;

test('past its time a secure answer may be shown as stale, with a TTL of 30 s, for as long as was said', async () => {
  let fails = false;
  const { world, cache } = setUp(
    () => resolution(fails ? { ...SILENCE } : { answer: [signed(NOW - 100, NOW + 9 * DAY)] }),
    { maxStaleSeconds: DAY },
  );
  await cache.lookup(NAME, TYPE.A);
  fails = true;
  world.now += 299_999;
  assert.equal(cache.remembered(NAME, TYPE.A)?.stale, undefined);
  world.now += 1;
  assert.equal((await cache.lookup(NAME, TYPE.A)).outcome, 'failure', 'a look-up never gets it unasked');
  const stale = cache.remembered(NAME, TYPE.A)!;
  assert.equal(stale.stale, true);
  assert.deepEqual([stale.ttlSeconds, stale.answer[0]!.ttlSeconds, stale.ede?.code], [30, 30, 3]);
  world.now += DAY * 1000;
  assert.ok(cache.remembered(NAME, TYPE.A));
  world.now += 1;
  assert.equal(cache.remembered(NAME, TYPE.A), undefined);
});

test('never stale: what was not proven, was denied, or has a signature out of force', async () => {
  const cases: [string, Partial<Resolution>][] = [
    ['insecure', { verdict: 'insecure', answer: [signed(NOW - 100, NOW + 9 * DAY)] }],
    ['no such name', { outcome: 'nxdomain', answer: [], authority: [soa(300, 300)] }],
    ['over soon', { answer: [signed(NOW - 100, NOW + 300)] }],
    ['not yet', { answer: [signed(NOW + 301, NOW + DAY)] }],
    ['unreadable', { answer: [rrset(TYPE.A, 300)] }],
  ];
  for (const [what, change] of cases) {
    const { world, cache } = setUp(() => resolution(change), { maxStaleSeconds: DAY });
    await cache.lookup(NAME, TYPE.A);
    assert.ok(cache.remembered(NAME, TYPE.A), what);
    world.now += 300_000;
    world.wall += 300_000;
    assert.equal(cache.remembered(NAME, TYPE.A), undefined, what);
  }
});

test('never stale: what was contradicted since, were it under another name that leads to the same', async () => {
  const good = { answer: [signed(NOW - 100, NOW + 9 * DAY)] };
  const changed = { ...good.answer[0]!, rdatas: [Uint8Array.of(192, 0, 2, 9)] };
  const alias = Name.parseText('alias.example.com');
  const alias2 = Name.parseText('alias2.example.com');
  const cases: [string, Name, Partial<Resolution>, still: boolean][] = [
    ['bogus', alias, { ...good, verdict: 'bogus' }, false],
    ['silence', alias, SILENCE, true],
    ['denied at the end', NAME, { outcome: 'nodata', answer: [], authority: [soa(300, 300)] }, false],
    ['denied without a TTL', NAME, { outcome: 'nodata', answer: [] }, false],
    ['other data at another alias', alias2, { answer: [changed] }, false],
    ['the same data at another alias', alias2, good, true],
  ];
  for (const [what, asked, change, still] of cases) {
    let later = false;
    const { world, cache } = setUp(() => resolution(later ? change : good), { maxStaleSeconds: DAY });
    await cache.lookup(alias, TYPE.A);
    world.now += 300_000;
    later = true;
    await cache.lookup(asked, TYPE.A);
    world.now += 1000_000;
    assert.equal(cache.remembered(alias, TYPE.A)?.stale, still ? true : undefined, what);
  }
});

test('a new alias costs the same however many others lead to the same name', async t => {
  const { cache } = setUp(name => {
    const target = { ...rrset(TYPE.A, 300), name: NAME };
    return resolution({ question: { name, type: TYPE.A }, answer: [target] });
  });
  const alias = (i: number) => cache.lookup(Name.parseText(`a${i}.example.net`), TYPE.A);
  for (let i = 0; i < 500; i++) await alias(i);
  const { mock } = t.mock.method(Buffer, 'from');
  for (let i = 500; i < 510; i++) await alias(i);
  assert.ok(mock.callCount() <= 40, `${mock.callCount()} conversions for ten answers`);
});

test('in another network what nobody proved is asked anew, and what is under way is not kept', async () => {
  const unsigned = Name.parseText('unsigned.example');
  let release = (): void => {};
  const { world, cache } = setUp(async (name, type) => {
    if (type === TYPE.AAAA) await new Promise<void>(resolve => (release = resolve));
    return resolution(name.equals(unsigned) ? { verdict: 'insecure', canonicalName: unsigned } : {});
  });
  await cache.lookup(NAME, TYPE.A);
  await cache.lookup(unsigned, TYPE.A);
  const pending = cache.lookup(unsigned, TYPE.AAAA);
  assert.equal(cache.flushUnproven(), 1);
  release();
  await pending;
  assert.equal(cache.remembered(unsigned, TYPE.A), undefined);
  assert.equal(cache.remembered(unsigned, TYPE.AAAA), undefined);
  await cache.lookup(NAME, TYPE.A);
  assert.equal(world.lookups, 3, 'what was proven stays');
});
