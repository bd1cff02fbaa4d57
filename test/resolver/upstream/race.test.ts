import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import fc from 'fast-check';
import { UpstreamError } from '../../../resolver/upstream/error.ts';
import { Race, type RaceTimes } from '../../../resolver/upstream/race.ts';
import { byHealth, HedgeBudget, ServerHealth, takeProbe } from '../../../resolver/upstream/server-health.ts';

const TIMES: RaceTimes = { rounds: [400, 800], total: 5000 };

type Server = { text: string; health: ServerHealth };

/** Servers whose answers the test gives, on a clock that only the test moves. */
function world(t: TestContext, names: string[]) {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let now = 1_000_000;
  const servers: Server[] = names.map(text => ({ text, health: new ServerHealth() }));
  const log: string[] = [];
  const replies = new Map<Server, (outcome: string | UpstreamError) => void>();
  const hedges = new HedgeBudget();
  const pass = (millis: number) => {
    for (let i = 0; i < millis; i++) {
      now++;
      t.mock.timers.tick(1);
    }
  };
  /** Time passes without anybody doing anything. */
  const pause = (millis: number) => {
    now += millis;
    t.mock.timers.tick(millis);
  };
  const start = (order: Server[] = byHealth(servers, now)) => {
    const began = now;
    const result: { outcome?: string; error?: UpstreamError } = {};
    const race = new Race<Server, string>({
      servers: order,
      times: TIMES,
      now: () => now,
      hedges,
      ask: (server, again, reply) => {
        log.push(`${now - began} ${server.text}${again ? ' again' : ''}`);
        replies.set(server, reply);
        return () => log.push(`${now - began} leave ${server.text}`);
      },
      onSilent: () => {},
      onHedge: () => log.push(`${now - began} hedge`),
      done: outcome => {
        if (outcome instanceof UpstreamError) result.error = outcome;
        else result.outcome = outcome;
      },
    });
    race.start();
    return { race, result };
  };
  /** So that it is known and its 95th percentile is `slow`. */
  const measured = (server: Server, usual: number, slow = usual) => {
    for (let i = 0; i < 32; i++) server.health.answered(i % 10 === 0 ? slow : usual, now);
  };
  return { servers, log, replies, pass, pause, start, measured, hedges, now: () => now };
}

test('the fastest is asked first; when it is slower than its usual slowest, the second is asked too', t => {
  const { servers, log, replies, pass, start, measured } = world(t, ['far', 'near']);
  measured(servers[0]!, 80);
  measured(servers[1]!, 10, 120);
  const { result } = start();
  assert.deepEqual(log, ['0 near']);
  pass(119);
  assert.deepEqual(log, ['0 near']);
  pass(1);
  assert.deepEqual(log, ['0 near', '120 hedge', '120 far']);
  replies.get(servers[0]!)!('answer of far');
  assert.equal(result.outcome, 'answer of far');
  assert.equal(log.at(-1), '120 leave near', 'who lost is left');
  assert.ok(servers[1]!.health.smoothedMillis! > 20, 'and known to have taken longer');
});

test('a hedge goes out after 50 ms at the earliest and 400 ms at the latest', t => {
  for (const [slow, at] of [
    [3, 50],
    [200, 200],
    [900, 400],
  ] as const) {
    const { servers, log, pass, start, measured } = world(t, ['one', 'two']);
    measured(servers[0]!, slow);
    start(servers);
    pass(1000);
    assert.equal(log[1], `${at} hedge`);
    t.mock.timers.reset();
  }
});

test('what a quick server does not answer is asked again when its time is over, not after the round', t => {
  for (const [usual, slow, at] of [
    [3, 3, 100],
    [120, 120, 180],
    [10, 300, 400],
  ] as const) {
    const { servers, log, pass, start, measured } = world(t, ['only']);
    measured(servers[0]!, usual, slow);
    start();
    pass(4000);
    assert.deepEqual(log, ['0 only', `${at} only again`]);
    t.mock.timers.reset();
  }
});

test('after a moment without time for anything, what has arrived is read before anybody is called late', async t => {
  const { servers, log, replies, pause, start, measured } = world(t, ['one', 'two']);
  measured(servers[0]!, 3);
  measured(servers[1]!, 5);
  const { result } = start();
  pause(500);
  assert.deepEqual(log, ['0 one'], 'not yet');
  replies.get(servers[0]!)!('answer of one');
  await new Promise(setImmediate);
  assert.equal(result.outcome, 'answer of one');
  start();
  pause(500);
  await new Promise(setImmediate);
  assert.ok(log.includes('500 two'), 'nothing had');
});

test('other servers count from now on: also one that said no before is asked anew, and the race goes on', t => {
  const { servers, log, replies, pass, start } = world(t, ['one', 'two']);
  const { race, result } = start();
  replies.get(servers[0]!)!(new UpstreamError('servfail', 'answers SERVFAIL'));
  assert.deepEqual(log, ['0 one', '0 two']);
  race.replace([servers[0]!]);
  assert.deepEqual(log.slice(2), ['0 leave two', '0 one']);
  pass(500);
  replies.get(servers[0]!)!('answer of one');
  assert.equal(result.outcome, 'answer of one');
});

test('other servers in the moment before somebody is called late: nobody is', async t => {
  const { servers, log, pause, start } = world(t, ['one', 'two']);
  const { race } = start([servers[0]!]);
  pause(500);
  race.replace([servers[1]!]);
  await new Promise(setImmediate);
  assert.deepEqual(log, ['0 one', '500 leave one', '500 two']);
});

test('whatever happens, a race ends once, and within its time', t => {
  const no = (code: 'servfail' | 'network') => new UpstreamError(code, 'no');
  const event = fc.record({
    act: fc.constantFrom('no', 'lost', 'pass', 'replace', 'answer'),
    which: fc.nat(2),
    millis: fc.integer({ min: 1, max: 900 }),
    among: fc.subarray([0, 1, 2]),
  });
  fc.assert(
    fc.property(fc.array(event, { maxLength: 12 }), fc.subarray([0, 1, 2]), (events, first) => {
      t.mock.timers.reset();
      const { servers, replies, pass, start } = world(t, ['one', 'two', 'three']);
      const { race, result } = start(first.map(i => servers[i]!));
      for (const { act, which, millis, among } of events) {
        if (act === 'pass') pass(millis);
        else if (act === 'replace') race.replace(among.map(i => servers[i]!));
        else if (act === 'answer') {
          if (which === 0) replies.get(servers[which]!)?.('answer');
        } else replies.get(servers[which]!)?.(no(act === 'no' ? 'servfail' : 'network'));
      }
      pass(TIMES.total + 10);
      assert.equal(Number(result.outcome !== undefined) + Number(result.error !== undefined), 1);
    }),
    { numRuns: 60 },
  );
});

test('hedges are one in ten, with ten saved up: never twice the questions', t => {
  const { servers, log, pass, start, measured, hedges } = world(t, ['slow', 'other']);
  measured(servers[0]!, 60);
  const count = () => log.filter(line => line.endsWith('hedge')).length;
  for (let i = 0; i < 100; i++) {
    hedges.earn();
    const { race } = start(servers);
    pass(100);
    race.stop(new UpstreamError('aborted', 'enough'));
  }
  assert.equal(count(), 10 + 9);
});

test('a dead name is not held against a server that answers others', t => {
  const { servers, pass, start, now } = world(t, ['only']);
  const { health } = servers[0]!;
  for (let i = 0; i < 10; i++) {
    const { result } = start();
    pass(2000);
    health.answered(10, now()); // another question meanwhile
    pass(3000);
    assert.equal(result.error?.code, 'timeout');
    assert.deepEqual([health.failures, health.why], [0, '']);
  }
});

test('a server that answers nothing at all is failing after a few names', t => {
  const { servers, pass, start } = world(t, ['only']);
  const { health } = servers[0]!;
  const failures = [];
  for (let i = 0; i < 4; i++) {
    start();
    pass(5000);
    failures.push(health.failures > 0);
  }
  assert.deepEqual(failures, [false, false, true, true]);
  assert.equal(health.why, 'no answer');
});

test('a server that was silent where another answered is failing at once', t => {
  const { servers, log, replies, pass, start } = world(t, ['dead', 'alive']);
  start(servers);
  pass(400);
  assert.deepEqual(log, ['0 dead', '400 alive']);
  replies.get(servers[1]!)!('answer');
  assert.deepEqual([servers[0]!.health.failures, servers[1]!.health.failures], [1, 0]);
});

test('questions that fail together are one failure', () => {
  const health = new ServerHealth();
  for (let i = 0; i < 16; i++) health.failed('cannot be reached: ECONNREFUSED', 0);
  assert.deepEqual([health.failures, health.backOffUntil], [1, 1000]);
  health.failed('cannot be reached: ECONNREFUSED', 1000);
  assert.deepEqual([health.failures, health.backOffUntil], [2, 3000]);
  health.forgive();
  assert.ok(health.failures === 0 && health.backOffUntil < 0);
});

test('in the second round the silent are asked again, who said no is not, and a late answer still counts', t => {
  const { servers, log, replies, pass, start } = world(t, ['silent', 'refusing']);
  const { result } = start(servers);
  pass(400);
  replies.get(servers[1]!)!(new UpstreamError('refused', 'answers REFUSED'));
  assert.deepEqual(log, ['0 silent', '400 refusing', '400 silent again']);
  pass(4000);
  assert.equal(result.error, undefined, 'it may still answer');
  replies.get(servers[0]!)!('late');
  assert.equal(result.outcome, 'late');
});

test('after five seconds it is over, and the error says what each did', t => {
  const { servers, replies, pass, start } = world(t, ['silent', 'refusing']);
  const { result } = start(servers);
  pass(400);
  replies.get(servers[1]!)!(new UpstreamError('refused', 'answers REFUSED'));
  pass(4600);
  assert.equal(result.error?.code, 'refused');
  assert.deepEqual(result.error?.tried, [
    'silent: no answer',
    'refusing: answers REFUSED',
    'silent: no answer',
  ]);
});

test('when the servers are replaced, those gone are left and the first of the new is asked at once', t => {
  const { log, replies, pass, start } = world(t, ['old']);
  const { race, result } = start();
  pass(100);
  const fresh: Server = { text: 'new', health: new ServerHealth() };
  race.replace([fresh]);
  assert.deepEqual(log, ['0 old', '100 leave old', '100 new']);
  replies.get(fresh)!('answer');
  assert.equal(result.outcome, 'answer');
  const other = start([fresh]);
  other.race.replace([]);
  assert.equal(other.result.error?.code, 'no-servers');
});

test('a server that stays keeps its question when the others are replaced', t => {
  const { servers, log, replies, pass, start } = world(t, ['stays', 'goes']);
  const { race, result } = start(servers);
  pass(400);
  race.replace([servers[0]!]);
  assert.deepEqual(log, ['0 stays', '400 goes', '400 leave goes']);
  replies.get(servers[0]!)!('answer');
  assert.equal(result.outcome, 'answer');
});

test('the order: speaks EDNS, does not fail, fast; what was not measured is measured on the side, once', () => {
  const servers = ['a', 'b', 'c', 'd'].map(text => ({ text, health: new ServerHealth() }));
  const [a, b, c, d] = servers as [Server, Server, Server, Server];
  a.health.rejectsEdns = true;
  a.health.answered(1, 0);
  b.health.failed('no answer', 0);
  c.health.answered(50, 0);
  assert.deepEqual(byHealth(servers, 0), [c, d, b, a]);
  for (const server of servers) server.health.askedAt = 0;
  d.health.askedAt = Number.NEGATIVE_INFINITY;
  assert.equal(takeProbe(servers, c, 500), d);
  assert.equal(takeProbe(servers, c, 500), undefined);
  assert.equal(takeProbe(servers, c, 1000), b, 'its back-off is over');
  assert.equal(takeProbe(servers, c, 1000), undefined, 'it backs off anew');
  assert.equal(takeProbe(servers, c, 61_000), a, 'not measured for a minute');
});
