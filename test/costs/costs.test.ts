/** Zones made to be expensive, asked of the running daemon: what they cost is bounded, and others are served meanwhile. */
import assert from 'node:assert/strict';
import test, { after, before } from 'node:test';
import { DEFAULT_LIMITS } from '../../resolver/dnssec/work.ts';
import { type Cost, Victim } from './measure.ts';

const COUNT = 30;
const AT_ONCE = 10;
/** A client's question for an address also asks for IPSECKEY, and where there is a key for the other family. */
const LOOKUPS = 3;

let victim: Victim;
const costs = new Map<string, Cost>();
before(async () => {
  victim = await Victim.start();
  for (const attack of victim.world.attacks) {
    costs.set(attack.name, await victim.suffer(attack, COUNT, AT_ONCE));
  }
});
after(() => victim?.stop());

test('every question is answered, the hostile ones by SERVFAIL', () => {
  for (const { name, rcodes } of costs.values()) {
    assert.deepEqual(rcodes, { [name.startsWith('honest') ? 'NOERROR' : 'SERVFAIL']: COUNT }, name);
  }
});

test('honest questions asked meanwhile are all answered', () => {
  for (const { name, honest } of costs.values()) {
    assert.ok(honest.asked >= 20, `${name}: ${honest.asked} asked`);
    assert.equal(honest.answered, honest.asked, name);
  }
});

test('no question has more signatures checked or hashes made than the limits say', () => {
  for (const { name, verifications, nsec3Rounds, honest } of costs.values()) {
    const forOthers = (honest.asked / COUNT) * 10;
    assert.ok(
      verifications - forOthers <= LOOKUPS * DEFAULT_LIMITS.verifications,
      `${name}: ${verifications}`,
    );
    assert.ok(nsec3Rounds <= LOOKUPS * DEFAULT_LIMITS.nsec3Rounds, `${name}: ${nsec3Rounds}`);
  }
});

test('a zone that reached a limit gets little for a while, so that a flood of its questions costs little', () => {
  const slowest = ['nsec3-150', 'nsec3-many', 'cuts-deep'].map(name => costs.get(name)!);
  for (const { name, verifications, nsec3Rounds, exceeded, honest } of slowest) {
    assert.ok(exceeded > 0.9, `${name}: a limit was reached ${exceeded} times a question`);
    const forOthers = (honest.asked / COUNT) * 10;
    // Five checks by P-384 for each lookup, of the thirty units that are left to it, and the first lookups in full.
    const first = (AT_ONCE * LOOKUPS * 10) / COUNT;
    assert.ok(
      verifications - forOthers <= LOOKUPS * 5 + first,
      `${name}: ${verifications} checks a question`,
    );
    const fullRounds = (DEFAULT_LIMITS.nsec3Rounds * LOOKUPS * AT_ONCE) / COUNT;
    assert.ok(nsec3Rounds <= fullRounds + LOOKUPS * 1500, `${name}: ${nsec3Rounds} rounds`);
  }
});

test('what is known of a trapped DNSKEY RRset is kept: the next question checks nothing', () => {
  const { verifications, honest } = costs.get('keytrap-dnskey')!;
  assert.ok(verifications <= 1 + (honest.asked / COUNT) * 10, `${verifications} checks a question`);
});
