/** The cache of RRsets: time, rank, bounds and forgetting; the order of denials; the clock. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { orderKey } from '../../../resolver/cache/denials.ts';
import { elapsedSeconds } from '../../../resolver/cache/elapsed.ts';
import { pack, packOctets, unpack } from '../../../resolver/cache/packed.ts';
import { RrsetCache, type RrsetCacheConfig } from '../../../resolver/cache/rrsets.ts';
import { Name } from '../../../resolver/dns/name.ts';
import type { Rrset } from '../../../resolver/dns/rrset.ts';
import { TYPE } from '../../../resolver/dns/types.ts';
import type { KeptRrset } from '../../../resolver/dnssec/kept.ts';
import { nameArbitrary } from '../dns/arbitraries.ts';

const name = (text: string): Name => Name.parseText(text);

function rrset(owner: string, type: number, ttlSeconds: number, ...rdatas: Uint8Array[]): Rrset {
  return { name: name(owner), type, class: 1, ttlSeconds, rdatas, signatures: [Uint8Array.of(1, 2, 3)] };
}

function address(owner: string, last: number, verdict: KeptRrset['verdict'] = 'secure', ttl = 60): KeptRrset {
  return { rrset: rrset(owner, TYPE.A, ttl, Uint8Array.of(192, 0, 2, last)), verdict, proofs: [] };
}

function nsec(owner: string, next: string, ttlSeconds: number = 60): Rrset {
  return rrset(owner, TYPE.NSEC, ttlSeconds, Uint8Array.of(...name(next).wire, 0, 1, 0x40));
}

function soa(owner: string, ttlSeconds: number, minimum: number): Rrset {
  const numbers = [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, minimum >> 8, minimum & 0xff];
  return rrset(owner, TYPE.SOA, ttlSeconds, Uint8Array.of(0, 0, ...numbers));
}

/** A cache whose clock the test turns. */
function cacheAt(config: RrsetCacheConfig = {}): { cache: RrsetCache; pass: (seconds: number) => void } {
  let now = 1000;
  return {
    cache: new RrsetCache({ now: () => now, ...config }),
    pass: seconds => {
      now += seconds;
    },
  };
}

test('what is packed comes back, its TTL less its age', () => {
  const octets = fc.uint8Array({ maxLength: 300 });
  fc.assert(
    fc.property(
      nameArbitrary,
      fc.integer({ min: 1, max: 0xffff }),
      fc.integer({ min: 0, max: 0x7fffffff }),
      fc.array(octets, { minLength: 1, maxLength: 20 }),
      fc.array(octets, { maxLength: 4 }),
      fc.integer({ min: 0, max: 10_000 }),
      (owner, type, ttlSeconds, rdatas, signatures, age) => {
        const first: Rrset = { name: owner, type, class: 1, ttlSeconds, rdatas, signatures };
        const second = { ...first, rdatas: signatures, signatures: rdatas };
        const later = (set: Rrset): Rrset => ({ ...set, ttlSeconds: Math.max(0, ttlSeconds - age) });
        const plain = (sets: Rrset[]): unknown =>
          sets.map(set => ({ ...set, name: Buffer.from(set.name.wire).toString('hex') }));
        assert.deepEqual(plain(unpack(pack([first, second]), age)), plain([later(first), later(second)]));
        assert.deepEqual(
          plain(unpack(packOctets([first], { withoutOwner: first }), 0, owner)),
          plain([first]),
        );
      },
    ),
  );
});

test('an RRset is there until its TTL has passed, counted down, with its verdict and the name it is asked by', () => {
  const { cache, pass } = cacheAt();
  cache.keepRrset(address('www.example', 1));
  pass(20);
  const found = cache.rrset(name('WWW.example'), TYPE.A)!;
  assert.deepEqual([found.verdict, found.rrset.ttlSeconds], ['secure', 40]);
  assert.equal(found.rrset.name.toText(), 'WWW.example.');
  assert.deepEqual([...found.rrset.rdatas[0]!], [192, 0, 2, 1]);
  assert.equal(cache.rrset(name('www.example'), TYPE.AAAA), undefined);
  assert.equal(cache.rrset(name('example'), TYPE.A), undefined);
  pass(40);
  assert.equal(cache.rrset(name('www.example'), TYPE.A), undefined);
  assert.equal(cache.counters().entries, 0);
});

test('the proofs of an RRset end it too; nothing stays longer than a day, and no denial longer than three hours', () => {
  const { cache, pass } = cacheAt();
  cache.keepRrset({ ...address('a.example', 1), proofs: [nsec('a.example', 'b.example', 10)] });
  cache.keepRrset(address('b.example', 1, 'secure', 1_000_000));
  const authority = [soa('example', 100_000, 60_000)];
  const absence = { outcome: 'nodata', verdict: 'insecure', authority, ttlSeconds: 60_000 } as const;
  cache.keepAbsence(name('c.example'), TYPE.A, absence);
  pass(10);
  assert.equal(cache.rrset(name('a.example'), TYPE.A), undefined);
  pass(10_789);
  assert.equal(cache.absence(name('c.example'), TYPE.A)?.ttlSeconds, 1);
  pass(1);
  assert.equal(cache.absence(name('c.example'), TYPE.A), undefined);
  pass(86_400 - 10_801);
  assert.ok(cache.rrset(name('b.example'), TYPE.A));
  pass(1);
  assert.equal(cache.rrset(name('b.example'), TYPE.A), undefined);
});

test('unsigned data never replaces secure data; everything else gives way to what is newer (RFC 2181 §5.4.1)', () => {
  const { cache, pass } = cacheAt();
  const last = (): number => cache.rrset(name('www.example'), TYPE.A)!.rrset.rdatas[0]![3]!;
  cache.keepRrset(address('www.example', 1, 'insecure'));
  cache.keepRrset(address('www.example', 2, 'insecure'));
  assert.equal(last(), 2);
  cache.keepRrset(address('www.example', 3));
  cache.keepRrset(address('www.example', 4, 'insecure'));
  assert.equal(last(), 3);
  pass(60);
  cache.keepRrset(address('www.example', 5, 'insecure'));
  assert.equal(last(), 5);
});

test('only a secure DNAME speaks for the names below it', () => {
  const { cache } = cacheAt();
  const dname = (owner: string, verdict: KeptRrset['verdict']): KeptRrset => ({
    rrset: rrset(owner, TYPE.DNAME, 60, name('new.example').wire),
    verdict,
    proofs: [],
  });
  cache.keepRrset(dname('old.example', 'secure'));
  cache.keepRrset(dname('unsigned.example', 'insecure'));
  assert.equal(cache.dnameAbove(name('a.b.old.example'))?.rrset.name.toText(), 'old.example.');
  assert.equal(cache.dnameAbove(name('old.example')), undefined);
  assert.equal(cache.dnameAbove(name('a.unsigned.example')), undefined);
});

test('the least recently used go first, and the octets are counted right', () => {
  const { cache } = cacheAt({ maxBytes: 1500 });
  for (let i = 0; i < 10; i++) {
    cache.keepRrset(address(`n${i}.example`, i));
    cache.rrset(name('n0.example'), TYPE.A);
  }
  const { entries, bytes, evicted } = cache.counters() as Record<string, number>;
  assert.ok(bytes! <= 1500 && entries! + evicted! === 10 && evicted! > 0, JSON.stringify(cache.counters()));
  assert.ok(cache.rrset(name('n0.example'), TYPE.A), 'it was in use');
  assert.equal(cache.rrset(name('n1.example'), TYPE.A), undefined);
  cache.flush(name('n0.example'));
  cache.flushAll();
  assert.deepEqual([cache.counters().entries, cache.counters().bytes], [0, 0]);
});

test('forgetting one name takes all its types and the denials of its zone, and no other name', () => {
  const { cache } = cacheAt();
  cache.keepRrset(address('www.example', 1));
  cache.keepRrset({
    ...address('www.example', 1),
    rrset: rrset('www.example', TYPE.TXT, 60, Uint8Array.of(0)),
  });
  cache.keepRrset(address('a.www.example', 1));
  cache.keepDenials(name('example'), [soa('example', 60, 60), nsec('a.example', 'z.example')]);
  cache.keepDenials(name('test'), [nsec('a.test', 'z.test')]);
  assert.equal(cache.flush(name('www.example')), 4);
  assert.ok(cache.rrset(name('a.www.example'), TYPE.A));
  assert.equal(cache.denialsAbove(name('www.example')), undefined);
  assert.ok(cache.denialsAbove(name('b.test')));
});

test('denials: the one that speaks of a name, in canonical order, of the deepest zone', () => {
  const { cache } = cacheAt();
  const zone = name('example');
  cache.keepDenials(
    zone,
    ['b', 'm', 'z.m', '*'].map(owner => nsec(`${owner}.example`, 'zz.example')).reverse(),
  );
  cache.keepDenials(zone, [nsec('b.example', 'c.example'), nsec('m.example', 'z.m.example')]);
  cache.keepDenials(name('child.example'), [nsec('child.example', 'a.child.example')]);
  const before = (text: string): string | undefined =>
    cache.denialsAbove(name(text))?.nsecFor(name(text))?.name.toText();
  assert.equal(before('bb.example'), 'b.example.');
  assert.equal(before('M.example'), 'm.example.');
  assert.equal(before('a.m.example'), 'm.example.');
  assert.equal(before('0.child.example'), 'child.example.');
  assert.equal(before('zz.child.example'), undefined, 'beyond what is known');
  assert.equal(before('example'), undefined);
  assert.equal(before('www.test'), undefined);
});

test('what nobody proved is forgotten by itself', () => {
  const { cache } = cacheAt();
  cache.keepRrset(address('a.example', 1, 'insecure'));
  cache.keepRrset(address('b.example', 2));
  cache.keepAbsence(name('c.example'), TYPE.A, {
    outcome: 'nxdomain',
    verdict: 'insecure',
    authority: [soa('example', 60, 60)],
    ttlSeconds: 60,
  });
  assert.equal(cache.flushInsecure(), 2);
  assert.equal(cache.rrset(name('a.example'), TYPE.A), undefined);
  assert.equal(cache.absence(name('c.example'), TYPE.A), undefined);
  assert.ok(cache.rrset(name('b.example'), TYPE.A));
});

test('denials: a new one drives out those it contradicts', () => {
  const { cache } = cacheAt();
  const zone = name('example');
  const before = (text: string): string | undefined =>
    cache.denialsOf(zone)?.nsecFor(name(text))?.name.toText();
  cache.keepDenials(zone, [nsec('a.example', 'c.example'), nsec('c.example', 'e.example')]);
  cache.keepDenials(zone, [nsec('b.example', 'c.example')]); // b is there now: a → c is out of date
  assert.equal(before('aa.example'), undefined);
  assert.equal(before('bb.example'), 'b.example.');
  cache.keepDenials(zone, [nsec('b.example', 'f.example')]); // and c is gone
  assert.equal(before('cc.example'), 'b.example.');
  cache.keepDenials(zone, [nsec('x.example', 'example'), nsec('y.example', 'z.example')]);
  assert.equal(before('yy.example'), 'y.example.');
  assert.equal(before('xx.example'), undefined, 'the last one of the zone was contradicted');
});

test('denials: SOA and its minimum bound all that came with it (RFC 9077); octets are bounded', () => {
  const { cache, pass } = cacheAt({ maxDenialBytes: 3000 });
  const zone = name('example');
  cache.keepDenials(zone, [soa('example', 900, 30), nsec('a.example', 'b.example', 3600)]);
  pass(29);
  assert.equal(cache.denialsOf(zone)!.nsecFor(name('aa.example'))!.ttlSeconds, 1);
  pass(1);
  assert.equal(cache.denialsOf(zone)!.nsecFor(name('aa.example')), undefined);
  for (let i = 100; i < 150; i++) cache.keepDenials(zone, [nsec(`a${i}.example`, `a${i + 1}.example`)]);
  const { denials, denialBytes, denialsEvicted } = cache.counters() as Record<string, number>;
  assert.ok(denialBytes! <= 3000 && denials! > 3 && denialsEvicted! > 0, JSON.stringify(cache.counters()));
});

test('order keys sort as names do (RFC 4034 §6.1)', () => {
  const label = fc.uint8Array({ minLength: 1, maxLength: 3, max: 3 }).map(bytes => Uint8Array.from(bytes));
  const odd = fc
    .array(
      fc.oneof(label, fc.constantFrom(...['a', 'A', 'z', '*', '\xff'].map(t => Buffer.from(t, 'latin1')))),
      {
        maxLength: 4,
      },
    )
    .map(labels => labels.reduceRight<Name>((tail, one) => tail.prepend(Uint8Array.from(one))!, Name.root));
  const sign = (n: number): number => Math.sign(n);
  fc.assert(
    fc.property(odd, odd, (a, b) => {
      const [x, y] = [orderKey(a), orderKey(b)];
      assert.equal(x < y ? -1 : x > y ? 1 : 0, sign(a.compare(b)));
      assert.equal(x.startsWith(y), a.isSubdomainOf(b));
    }),
    { numRuns: 2000 },
  );
});

test('the clock counts sleep, and never goes back', () => {
  let monotonic = 5000;
  let wall = 1e12;
  const now = elapsedSeconds(
    () => monotonic,
    () => wall,
  );
  const pass = (monotonicMillis: number, wallMillis: number): number => {
    monotonic += monotonicMillis;
    wall += wallMillis;
    return now();
  };
  assert.equal(pass(10_000, 10_000), 10);
  assert.equal(pass(1000, 61_000), 71, 'asleep for a minute');
  assert.equal(pass(1000, -3_600_000), 72, 'set back by an hour');
  assert.equal(pass(1000, 1000), 73);
  for (let i = 0; i < 100; i++) pass(1000, 1001);
  assert.equal(pass(0, 0), 173, 'clocks that drift apart are no sleep');
});

test('denials: one that covers thousands of others leaves it and nothing else of its zone', () => {
  const { cache } = cacheAt();
  const at = (i: number) => `n${String(i).padStart(5, '0')}.example`;
  cache.keepDenials(name('example.net'), [nsec('a.example.net', 'b.example.net')]);
  const other = cache.counters().denialBytes!;
  cache.keepDenials(name('example'), [nsec('example', 'example')]);
  const both = cache.counters().denialBytes!;
  for (let i = 0; i < 3000; i++) cache.keepDenials(name('example'), [nsec(at(2 * i), at(2 * i + 1))]);
  assert.equal(cache.counters().denials, 3001, 'the wide one was contradicted');
  cache.keepDenials(name('example'), [nsec('example', 'example')]);
  assert.deepEqual([cache.counters().denials, cache.counters().denialBytes], [2, both]);
  cache.flush(name('www.example'));
  assert.deepEqual([cache.counters().denials, cache.counters().denialBytes], [1, other]);
  assert.equal(cache.denialsOf(name('example')), undefined);
});
