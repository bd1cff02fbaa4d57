/** Who may work in which turn of the event loop. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Slices } from '../../../resolver/dnssec/slices.ts';

/** Slices of ten units whose turns come when the test says so; `begun` names those that began, in order. */
function slicesByHand() {
  const turns: (() => void)[] = [];
  const begun: string[] = [];
  const slices = new Slices(10, callback => turns.push(callback));
  return {
    begun,
    turns,
    take: (who: string, units: number): void => {
      const turn = slices.take(units);
      if (turn === undefined) begun.push(who);
      else void turn.then(() => begun.push(who));
    },
    turn: async (): Promise<string[]> => {
      begun.length = 0;
      for (const callback of turns.splice(0)) callback();
      await new Promise(setImmediate);
      return [...begun];
    },
  };
}

test('as much as fits into a turn begins at once, whoever asks, and the rest in the order of asking', async () => {
  const { take, turn, begun } = slicesByHand();
  for (const who of 'abcdefghijkl') take(who, 2);
  assert.deepEqual(begun, [...'abcde']);
  assert.deepEqual(await turn(), [...'fghij']);
  take('late', 2);
  assert.deepEqual(await turn(), ['k', 'l', 'late']);
});

test('nobody overtakes those who wait, though there were room', async () => {
  const { take, turn, begun } = slicesByHand();
  take('first', 6);
  take('large', 6);
  take('small', 1);
  assert.deepEqual(begun, ['first']);
  assert.deepEqual(await turn(), ['large', 'small']);
});

test('what is larger than a slice has one for itself', async () => {
  const { take, turn, begun } = slicesByHand();
  take('huge', 50);
  take('small', 1);
  assert.deepEqual(begun, ['huge']);
  assert.deepEqual(await turn(), ['small']);
});

test('a turn is waited for only while there was work', async () => {
  const { take, turn, turns } = slicesByHand();
  for (let i = 0; i < 20; i++) take(`${i}`, 1);
  assert.equal(turns.length, 1);
  assert.equal((await turn()).length, 10);
  assert.equal(turns.length, 1, 'the second ten count for the turn that they began in');
  assert.deepEqual(await turn(), []);
  assert.equal(turns.length, 0);
});
