/** What one question may cost, and what its zone is given afterwards. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Name } from '../../../resolver/dns/name.ts';
import { DEFAULT_LIMITS, Ledger, Work, WorkExceeded } from '../../../resolver/dnssec/work.ts';

const P256 = 13;
const P384 = 14;
const evil = Name.parseText('evil.example');
const bank = Name.parseText('bank.example');

/** How many checks a fresh question gets from one zone. */
function granted(ledger: Ledger, zone: Name, algorithm: number): number {
  const work = new Work(DEFAULT_LIMITS, ledger);
  for (let count = 0; ; count++) {
    try {
      work.verification(zone, algorithm);
    } catch (error) {
      assert.ok(error instanceof WorkExceeded);
      return count;
    }
  }
}

test('slow algorithms and long RRsets weigh more: as many checks as the budget pays for', () => {
  assert.equal(granted(new Ledger(() => 0), evil, P256), DEFAULT_LIMITS.zoneVerifications);
  assert.equal(granted(new Ledger(() => 0), evil, P384), DEFAULT_LIMITS.zoneVerifications / 6);
  const work = new Work(DEFAULT_LIMITS);
  const long = (): unknown => work.verification(evil, P256, 60_000);
  for (let i = 0; i < DEFAULT_LIMITS.zoneVerifications / 4; i++) long();
  assert.throws(long, WorkExceeded);
});

test('many zones have more together than one has, but not without end', () => {
  const work = new Work(DEFAULT_LIMITS);
  const all = (): void => {
    for (let zone = 0; zone < 100; zone++) work.verification(Name.parseText(`z${zone}`), P384);
  };
  assert.throws(all, WorkExceeded);
});

test('of failures by a slow algorithm two are all there are', () => {
  const ledger = new Ledger(() => 0);
  const work = new Work(DEFAULT_LIMITS, ledger);
  for (let i = 0; i < 2; i++) work.failure(evil, P384);
  assert.throws(() => work.failure(evil, P384), WorkExceeded);
  assert.equal(ledger.allowance(evil.key, DEFAULT_LIMITS), DEFAULT_LIMITS.costlyVerifications);
});

test('a zone that reached a limit is given little, one that does so again nothing, for five seconds', () => {
  let now = 100;
  const ledger = new Ledger(() => now);
  granted(ledger, evil, P256);
  assert.equal(granted(ledger, evil, P256), DEFAULT_LIMITS.costlyVerifications);
  assert.equal(granted(ledger, evil, P256), 0);
  assert.equal(granted(ledger, bank, P256), DEFAULT_LIMITS.zoneVerifications, 'others as before');
  now += 4;
  assert.equal(granted(ledger, evil, P256), 0);
  now += 2;
  assert.equal(
    granted(ledger, evil, P256),
    DEFAULT_LIMITS.zoneVerifications,
    'asking on does not prolong it',
  );
  now -= 50;
  assert.equal(granted(ledger, evil, P256), DEFAULT_LIMITS.zoneVerifications, 'the clock was set back');
});

test('the blame goes to the zone that took most, not to the one that an alias leads to', () => {
  const ledger = new Ledger(() => 0);
  const work = new Work({ ...DEFAULT_LIMITS, verifications: 60 }, ledger);
  for (let i = 0; i < 55; i++) work.verification(evil, P256);
  assert.throws(() => {
    for (let i = 0; i < 10; i++) work.verification(bank, P256);
  }, WorkExceeded);
  assert.equal(ledger.allowance(evil.key, DEFAULT_LIMITS), DEFAULT_LIMITS.costlyVerifications);
  assert.equal(ledger.allowance(bank.key, DEFAULT_LIMITS), Number.POSITIVE_INFINITY);
});

test('what took much and was bogus all the same is blamed though it kept below every limit', () => {
  const ledger = new Ledger(() => 0);
  const work = new Work(DEFAULT_LIMITS, ledger);
  for (let i = 0; i < 4; i++) work.verification(evil, P384);
  work.verification(bank, P384);
  work.wasted();
  assert.equal(ledger.allowance(evil.key, DEFAULT_LIMITS), DEFAULT_LIMITS.costlyVerifications);
  assert.equal(ledger.allowance(bank.key, DEFAULT_LIMITS), Number.POSITIVE_INFINITY);
});

test('hashes count for the zone too', async () => {
  const ledger = new Ledger(() => 0);
  const flood = async (): Promise<void> => {
    const work = new Work(DEFAULT_LIMITS, ledger);
    for (;;) await work.nsec3Hash(evil, 150);
  };
  await assert.rejects(flood(), /too many NSEC3 hashes/);
  for (let i = 0; i < 2; i++) await assert.rejects(flood(), /evil\.example\. has cost too much a moment ago/);
  assert.ok(
    ledger.counters().nsec3Rounds <= DEFAULT_LIMITS.nsec3Rounds + 50 * DEFAULT_LIMITS.costlyVerifications,
  );
});

test('zones that are remembered are bounded', () => {
  const ledger = new Ledger(() => 0);
  for (let i = 0; i <= 1000; i++) ledger.blame(`zone ${i}`);
  const isCostly = (key: string): boolean => Number.isFinite(ledger.allowance(key, DEFAULT_LIMITS));
  assert.deepEqual([isCostly('zone 0'), isCostly('zone 1000')], [false, true]);
});

test('what took half of what there is is not tried again', () => {
  const work = new Work(DEFAULT_LIMITS);
  for (let i = 0; i < 6; i++) work.verification(evil, P384);
  assert.ok(work.allowsRetry);
  work.verification(evil, P384);
  assert.ok(!work.allowsRetry);
  const failed = new Work(DEFAULT_LIMITS);
  failed.failure(evil, P384);
  assert.ok(failed.allowsRetry);
  failed.failure(evil, P256);
  assert.ok(!failed.allowsRetry);
});
