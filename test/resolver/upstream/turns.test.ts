import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import fc from 'fast-check';
import { Name } from '../../../resolver/dns/name.ts';
import { TURN_LIMITS, type Turn, Turns, zoneOf } from '../../../resolver/upstream/turns.ts';

/** Turns on a clock that only the test moves. */
function world(t: TestContext, limits = TURN_LIMITS) {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let now = 0;
  const turns = new Turns(limits, () => now);
  const pass = (millis: number) => {
    for (let i = 0; i < millis; i++) {
      now++;
      t.mock.timers.tick(1);
    }
  };
  /** Asks for a name; what becomes of it is written into the result. Asked once again after `patience`. */
  const ask = (text: string, patience = 100) => {
    const asked = { state: 'waiting' as string, waited: 0, turn: undefined as Turn | undefined };
    const came = now;
    asked.turn = turns.take(zoneOf(Name.parseText(text)), {
      get askedTwice() {
        return now >= came + asked.waited + patience;
      },
      begin: () => {
        asked.state = 'begun';
        asked.waited = now - came;
      },
      evict: why => {
        asked.state = why;
        if (asked.turn !== undefined) turns.end(asked.turn);
      },
    });
    return asked;
  };
  const answer = ({ turn }: { turn: Turn | undefined }) => turns.end(turn!);
  return { turns, ask, answer, pass };
}

for (const count of [500, 5000]) {
  test(`${count} dead names of one zone, and honest names never wait`, t => {
    const { turns, ask, answer, pass } = world(t);
    const dead = Array.from({ length: count }, (_, i) => ask(`n${i}.dead.example`));
    assert.equal(turns.inFlight, Math.min(count, TURN_LIMITS.crowded), 'half of all places, and no more');
    for (let i = 0; i < 200; i++) {
      const honest = ask(`www.honest${i}.example`);
      assert.equal(honest.state, 'begun', 'at once');
      pass(5);
      answer(honest);
    }
    const states = Map.groupBy(dead, ({ state }) => state);
    if (count < TURN_LIMITS.crowded) {
      assert.equal(states.get('begun')?.length, count, 'nobody needs these places');
    } else {
      assert.ok(states.get('slow')!.length > 1000, 'each had its fair time; then the next dead name did');
      assert.equal(states.get('crowded'), undefined);
    }
  });
}

test('5,000 dead names of as many zones: the ones that come then wait for a fair time at most, the next not at all', t => {
  const { ask, answer, pass, turns } = world(t);
  const dead = Array.from({ length: 5000 }, (_, i) => ask(`www.dead${i}.example`));
  assert.equal(turns.inFlight, 4096);
  const unlucky = ask('www.honest.example');
  assert.equal(unlucky.state, 'waiting');
  pass(TURN_LIMITS.fairMillis);
  assert.equal(unlucky.state, 'begun');
  answer(unlucky);
  for (let i = 0; i < 100; i++) {
    const honest = ask(`www.honest${i}.example`);
    assert.equal(honest.state, 'begun');
    answer(honest);
  }
  assert.ok(dead.some(({ state }) => state === 'slow'));
});

test('dead names that keep coming, of ever new zones: honest names have their turn within a fair time', t => {
  const { ask, answer, pass, turns } = world(t);
  let longest = 0;
  for (let i = 0; i < 12_000; i++) {
    ask(`www.dead${i}.example`);
    if (i % 10 === 0) pass(1);
    if (i % 100 !== 99) continue;
    const honest = ask(`www.honest${i}.example`);
    if (honest.state === 'waiting') pass(TURN_LIMITS.fairMillis);
    assert.equal(honest.state, 'begun');
    longest = Math.max(longest, honest.waited);
    answer(honest);
  }
  assert.ok(longest <= TURN_LIMITS.fairMillis);
  assert.ok(turns.inFlight <= TURN_LIMITS.inFlight);
});

test('what was asked once only is not given up for others, however busy we are', t => {
  const limits = { ...TURN_LIMITS, inFlight: 2, crowded: 2 };
  const { ask, pass } = world(t, limits);
  const patient = [ask('a.example', 400), ask('b.example', 400)];
  const next = ask('c.example');
  pass(399);
  assert.deepEqual(
    [...patient, next].map(({ state }) => state),
    ['begun', 'begun', 'waiting'],
  );
  pass(1 + 20);
  assert.deepEqual(
    [...patient, next].map(({ state }) => state),
    ['slow', 'begun', 'begun'],
  );
});

test('while nobody needs the place, a slow question keeps it', t => {
  const { ask, pass } = world(t);
  const slow = ask('slow.example');
  pass(4000);
  assert.equal(slow.state, 'begun');
});

test('the waiting room: whoever comes may wait, and the zone with most makes room for others', t => {
  const limits = { inFlight: 4, crowded: 2, inFlightOfZone: 2, waiting: 6, fairMillis: 200 };
  const { turns, ask } = world(t, limits);
  const one = Array.from({ length: 9 }, (_, i) => ask(`n${i}.one.example`));
  assert.deepEqual(
    one.map(({ state }) => state),
    [...Array(2).fill('begun'), ...Array(6).fill('waiting'), 'crowded'],
  );
  const two = Array.from({ length: 4 }, (_, i) => ask(`n${i}.two.example`));
  assert.deepEqual([turns.inFlight, turns.waiting], [4, 6]);
  assert.deepEqual(
    two.map(({ state }) => state),
    ['begun', 'begun', 'waiting', 'waiting'],
  );
  const third = ask('www.three.example');
  assert.equal(third.state, 'waiting');
  assert.deepEqual(
    one.slice(4).map(({ state }) => state),
    ['waiting', 'crowded', 'crowded', 'crowded', 'crowded'],
    'the last of the zone with most',
  );
});

test('zones that wait take turns', t => {
  const limits = { inFlight: 2, crowded: 2, inFlightOfZone: 2, waiting: 20, fairMillis: 1000 };
  const { ask, answer } = world(t, limits);
  const first = [ask('a.one.example'), ask('b.one.example')];
  const many = Array.from({ length: 6 }, (_, i) => ask(`n${i}.one.example`));
  const few = ask('www.two.example');
  answer(first[0]!);
  answer(first[1]!);
  assert.equal(many[0]!.state, 'begun');
  assert.equal(few.state, 'begun', 'not after the six that came before it');
});

test('giving up a place or the wait for one lets the next in; nothing is ever lost or counted twice', t => {
  const limits = { inFlight: 5, crowded: 3, inFlightOfZone: 3, waiting: 8, fairMillis: 10 };
  fc.assert(
    fc.property(
      fc.array(fc.record({ act: fc.nat(3), zone: fc.nat(4), which: fc.nat(30) }), { maxLength: 150 }),
      steps => {
        t.mock.timers.reset();
        const { turns, ask, answer, pass } = world(t, limits);
        const all: ReturnType<typeof ask>[] = [];
        for (const { act, zone, which } of steps) {
          if (act < 2) all.push(ask(`n${all.length}.zone${zone}.example`));
          else if (act === 2) pass(which);
          else {
            const live = all.filter(({ state }) => state === 'begun' || state === 'waiting');
            const one = live[which % Math.max(live.length, 1)];
            if (one !== undefined) {
              one.state = 'answered';
              answer(one);
              answer(one); // twice is once
            }
          }
          const count = (state: string) => all.filter(one => one.state === state).length;
          assert.equal(turns.inFlight, count('begun'));
          assert.equal(turns.waiting, count('waiting'));
          assert.ok(turns.inFlight <= limits.inFlight && turns.waiting <= limits.waiting);
        }
        for (const one of all) if (one.state === 'begun' || one.state === 'waiting') answer(one);
        assert.deepEqual([turns.inFlight, turns.waiting], [0, 0]);
      },
    ),
    { numRuns: 300 },
  );
});

test('what counts as one zone', () => {
  const cases: [string, string][] = [
    ['www.example.com', 'example.com'],
    ['a.b.c.d.Example.COM', 'example.com'],
    ['example.com', 'example.com'],
    ['com', 'com'],
    ['.', '.'],
    ['www.shop.co.uk', 'shop.co.uk'],
    ['www.abc.example', 'abc.example'],
    ['4.3.2.1.in-addr.arpa', '2.1.in-addr.arpa'],
    [`${'0.'.repeat(24)}8.b.d.0.1.0.0.2.ip6.arpa`, '8.b.d.0.1.0.0.2.ip6.arpa'],
  ];
  for (const [name, zone] of cases) {
    assert.equal(zoneOf(Name.parseText(name)), Name.parseText(zone).key, name);
  }
});

test('a question that waits costs the same however many zones wait with it', t => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let looks = 0;
  const turns = new Turns(TURN_LIMITS, () => {
    looks++;
    return 0;
  });
  const asker = { begin: () => {}, evict: () => {}, askedTwice: true };
  for (let i = 0; i < TURN_LIMITS.inFlight; i++) turns.take(`dead${i}`, asker);
  for (let i = 0; i < 2000; i++) {
    looks = 0;
    turns.take(`waiting${i}`, asker);
    assert.ok(looks <= 4, `${looks} looks at the clock with ${i} zones waiting`);
  }
});
