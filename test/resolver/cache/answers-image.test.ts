import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { CachedResolver } from '../../../resolver/cache/answers.ts';
import { composeImage, type KeptAnswer, readImage } from '../../../resolver/cache/answers-image.ts';
import { Name } from '../../../resolver/dns/name.ts';
import type { Rrset } from '../../../resolver/dns/rrset.ts';
import { CLASS, RCODE, TYPE } from '../../../resolver/dns/types.ts';
import type { Resolution } from '../../../resolver/dnssec/types.ts';
import { rrsigRdata } from './rrsig.ts';

const ERA = new Uint8Array(32).fill(7);
const SAVED = 1_790_000_000_000;
const NOW = SAVED / 1000;

function rrset(owner: Name, type: number, rdatas: Uint8Array[], signatures: Uint8Array[] = []): Rrset {
  return { name: owner, type, class: CLASS.IN, ttlSeconds: 300, rdatas, signatures };
}

/** One answer of each kind: signed with an alias, denied, unsigned with an EDE. */
function answers(): KeptAnswer[] {
  const [alias, name] = [Name.parseText('www.example'), Name.parseText('host.example')];
  const common = { storedAtWall: SAVED - 60_000, lifeMillis: 300_000, contradicted: false };
  const signature = rrsigRdata(TYPE.A, NOW - 1000, NOW + 86_400);
  const positive: Resolution = {
    question: { name: alias, type: TYPE.A },
    rcode: RCODE.NOERROR,
    verdict: 'secure',
    answer: [
      rrset(alias, TYPE.CNAME, [name.wire], [signature]),
      rrset(name, TYPE.A, [Uint8Array.of(192, 0, 2, 1)], [signature]),
    ],
    authority: [],
    canonicalName: name,
    outcome: 'positive',
    ttlSeconds: 300,
  };
  const soa = rrset(Name.parseText('example'), TYPE.SOA, [new Uint8Array(22)], [signature]);
  const denied: Resolution = {
    ...positive,
    question: { name: Name.root, type: TYPE.IPSECKEY },
    canonicalName: Name.root,
    rcode: RCODE.NXDOMAIN,
    outcome: 'nxdomain',
    answer: [],
    authority: [soa],
  };
  const unsigned: Resolution = {
    ...positive,
    question: { name, type: TYPE.AAAA },
    verdict: 'insecure',
    answer: [rrset(name, TYPE.AAAA, [new Uint8Array(16)])],
    ede: { code: 1, text: 'no supported algorithm, é' },
  };
  return [
    { resolution: positive, ...common },
    { resolution: denied, ...common, contradicted: true },
    { resolution: unsigned, ...common, lifeMillis: 30_000 },
  ];
}

async function read(image: Buffer, now = SAVED, era = ERA): Promise<KeptAnswer[]> {
  const found: KeptAnswer[] = [];
  await readImage(image, { era, now }, answer => found.push(answer) > 0);
  return found;
}

const plain = (value: unknown): unknown =>
  JSON.parse(JSON.stringify(value, (_, v) => (v instanceof Uint8Array ? Buffer.from(v).toString('hex') : v)));

test('what is written is read', async () => {
  const written = answers();
  const found = await read(composeImage(ERA, SAVED, written));
  written[2]!.resolution.ttlSeconds = 30;
  assert.deepEqual(plain(found), plain(written));
});

test('whoever has had enough gets no more', async () => {
  let taken = 0;
  await readImage(composeImage(ERA, SAVED, answers()), { era: ERA, now: SAVED }, () => ++taken < 2);
  assert.equal(taken, 2);
});

test('an image of other anchors, or from the future, is refused as a whole', async () => {
  const image = composeImage(ERA, SAVED, answers());
  await assert.rejects(read(image, SAVED, new Uint8Array(32)), /other ones then/);
  await assert.rejects(read(image, SAVED - 1), /clock was set back/);
  await assert.rejects(read(Buffer.alloc(0)), /no answers of this version/);
  await assert.rejects(read(Buffer.alloc(200)), /no answers of this version/);
});

test('an image that was changed or cut anywhere gives nothing', async () => {
  const image = composeImage(ERA, SAVED, answers());
  await fc.assert(
    fc.asyncProperty(fc.nat(image.length - 1), fc.integer({ min: 1, max: 255 }), async (at, change) => {
      const changed = Buffer.from(image);
      changed[at]! ^= change;
      await assert.rejects(read(changed));
      await assert.rejects(read(image.subarray(0, at)));
    }),
  );
});

/** A cache that asks nobody, at so many milliseconds after the image was written. */
function cacheAt(later: number, change: { maxStaleSeconds?: number; maxBytes?: number } = {}) {
  const clocks = { now: () => 5_000 + later, wallClock: () => SAVED + later };
  return new CachedResolver({ lookup: () => Promise.reject(new Error('asked')) }, { ...clocks, ...change });
}

test('restored answers have aged as the day tells, and end when they would have', async () => {
  const [signed, denied, unsigned] = answers();
  const cache = cacheAt(100_000);
  assert.equal(cache.restore(signed!), true);
  assert.equal(cache.restore(denied!), true);
  assert.equal(cache.restore(unsigned!), false, 'its time was over');
  assert.equal((await cache.lookup(Name.parseText('www.example'), TYPE.A)).ttlSeconds, 140);
  assert.equal((await cache.lookup(Name.root, TYPE.IPSECKEY)).outcome, 'nxdomain');
  assert.equal(cacheAt(240_000).restore(signed!), false);
  assert.deepEqual(plain([...cache.kept()].map(({ storedAtWall }) => storedAtWall)), [
    SAVED - 60_000,
    SAVED - 60_000,
  ]);
});

test('not restored: signatures out of force, the future, what is known better, what has no room', async () => {
  const [signed] = answers();
  assert.equal(cacheAt(0).restore({ ...signed!, lifeMillis: 86_400_000, storedAtWall: SAVED + 1 }), false);
  const long = { ...signed!, lifeMillis: 86_400_000, storedAtWall: SAVED + 1000 };
  assert.equal(cacheAt(86_390_000).restore(long), true);
  assert.equal(cacheAt(86_400_500).restore(long), false, 'signatures ended');
  const cache = cacheAt(0);
  assert.equal(cache.restore(signed!), true);
  assert.equal(cache.restore(signed!), false);
  assert.equal(cacheAt(0, { maxBytes: 500 }).restore(signed!), false);
});

test('a stale answer stays one over a restart, for as long as was said and unless it was contradicted', () => {
  const [signed] = answers();
  const name = Name.parseText('www.example');
  const cache = cacheAt(300_000, { maxStaleSeconds: 3600 });
  assert.equal(cache.restore(signed!), true);
  assert.equal(cache.remembered(name, TYPE.A)?.stale, true);
  assert.equal(
    cacheAt(300_000, { maxStaleSeconds: 3600 }).restore({ ...signed!, contradicted: true }),
    false,
  );
  assert.equal(cacheAt(299_999, { maxStaleSeconds: 60 }).restore(signed!), true);
  assert.equal(cacheAt(300_000, { maxStaleSeconds: 60 }).restore(signed!), false);
});
