import assert from 'node:assert/strict';
import test from 'node:test';
import { advance, permits, type Event, type State, transitions } from '../../../ike/engine/states.ts';

const roles = ['initiator', 'responder'] as const;
const start = { initiator: 'init-sent', responder: 'init-answered' } as const;

function reachable(role: (typeof roles)[number], from: State): Set<State> {
  const seen = new Set<State>([from]);
  for (const state of seen) for (const next of Object.values(transitions[role][state] ?? {})) seen.add(next);
  return seen;
}

test('every state of the table can be reached, and from every state there is a way to the end', () => {
  for (const role of roles) {
    const states = Object.keys(transitions[role]) as State[];
    const seen = reachable(role, start[role]);
    assert.deepEqual([...seen].sort(), [...states, 'closed'].sort());
    for (const state of states) assert.ok(reachable(role, state).has('closed'), `${role} ${state}`);
  }
});

test('only proof leads to established', () => {
  for (const role of roles) {
    const into = Object.entries(transitions[role]).flatMap(([from, row]) =>
      Object.entries(row)
        .filter(([, to]) => to === 'established' && from !== 'established')
        .map(([event]) => `${from} ${event}`),
    );
    const expected = {
      initiator: ['installing installed'],
      responder: ['lookup verifiedChildless', 'installing installed', 'installing installFailed'],
    };
    assert.deepEqual(into, expected[role]);
  }
});

test('a missing entry is the error, and changes nothing', () => {
  const sa = { role: 'initiator' as const, state: 'init-sent' as State };
  for (const event of ['authAnswer', 'installed', 'peerDelete', 'verified'] satisfies Event[]) {
    assert.equal(permits(sa, event), false);
    assert.throws(() => advance(sa, event), /no transition/);
  }
  assert.equal(sa.state, 'init-sent');
  const closed = { role: 'responder' as const, state: 'closed' as State };
  assert.throws(() => advance(closed, 'expire'));
});
