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

test('slow algorithms weigh more: as many checks as the budget pays for', () => {
  assert.equal(granted(new Ledger(() => 0), evil, P256), DEFAULT_LIMITS.verifications);
  assert.equal(granted(new Ledger(() => 0), evil, P384), DEFAULT_LIMITS.verifications / 6);
});

test('a zone that reached a limit is given little for five seconds; others as before', () => {
  let now = 100;
  const ledger = new Ledger(() => now);
  granted(ledger, evil, P256);
  assert.equal(granted(ledger, evil, P256), DEFAULT_LIMITS.costlyVerifications);
  now += 4;
  assert.equal(granted(ledger, evil, P256), DEFAULT_LIMITS.costlyVerifications, 'asking on prolongs it');
  now += 5;
  assert.equal(granted(ledger, evil, P256), DEFAULT_LIMITS.verifications);
  assert.equal(ledger.counters().exceeded, 4);
  now -= 50;
  assert.equal(granted(ledger, evil, P256), DEFAULT_LIMITS.verifications, 'the clock was set back');
});

test('the blame goes to the zone that took most, not to the one that an alias leads to', () => {
  const ledger = new Ledger(() => 0);
  const work = new Work(DEFAULT_LIMITS, ledger);
  for (let i = 0; i < 55; i++) work.verification(evil, P256);
  assert.throws(() => {
    for (let i = 0; i < 10; i++) work.verification(bank, P256);
  }, WorkExceeded);
  assert.deepEqual([ledger.isCostly(evil.key), ledger.isCostly(bank.key)], [true, false]);
});

test('hashes count for the zone too', async () => {
  const ledger = new Ledger(() => 0);
  const flood = async (): Promise<void> => {
    const work = new Work(DEFAULT_LIMITS, ledger);
    for (;;) await work.nsec3Hash(evil, 150);
  };
  await assert.rejects(flood(), /too many NSEC3 hashes/);
  await assert.rejects(flood(), /evil\.example\. has cost too much a moment ago/);
  assert.ok(
    ledger.counters().nsec3Rounds <= DEFAULT_LIMITS.nsec3Rounds + 50 * DEFAULT_LIMITS.costlyVerifications,
  );
});

test('zones that are remembered are bounded', () => {
  const ledger = new Ledger(() => 0);
  for (let i = 0; i <= 1000; i++) ledger.blame(`zone ${i}`);
  assert.deepEqual([ledger.isCostly('zone 0'), ledger.isCostly('zone 1000')], [false, true]);
});

test('what took half of what there is is not tried again', () => {
  const work = new Work(DEFAULT_LIMITS, new Ledger(() => 0));
  for (let i = 0; i < 5; i++) work.verification(evil, P384);
  assert.ok(work.allowsRetry);
  work.verification(evil, P384);
  assert.ok(!work.allowsRetry);
});
