import assert from 'node:assert/strict';
import test from 'node:test';
import { Keeper } from '../../../resolver/dnssec/keeper.ts';

test('made once for all who ask meanwhile, kept for its TTL, at most for the limit', async () => {
  let now = 100;
  let made = 0;
  const keeper = new Keeper(() => now, 10, 60);
  const make = async (): Promise<{ value: number; ttlSeconds: number }> => ({
    value: ++made,
    ttlSeconds: 1000,
  });
  assert.deepEqual(await Promise.all([keeper.get('a', make), keeper.get('a', make)]), [1, 1]);
  now = 159;
  assert.equal(await keeper.get('a', make), 1);
  now = 160;
  assert.equal(await keeper.get('a', make), 2);
});

test('a failure ends its own question; those who waited make it for themselves', async () => {
  const keeper = new Keeper(() => 0, 10, 60);
  const failing = keeper.get('a', () => Promise.reject(new Error('limit')));
  const waiting = keeper.get('a', async () => ({ value: 'made', ttlSeconds: 1 }));
  await assert.rejects(failing, /limit/);
  assert.equal(await waiting, 'made');
});

test('bounded: the oldest goes first', async () => {
  const keeper = new Keeper(() => 0, 2, 60);
  for (const key of ['a', 'b', 'c']) await keeper.get(key, async () => ({ value: key, ttlSeconds: 1 }));
  assert.deepEqual(
    ['a', 'b', 'c'].map(key => keeper.peek(key) !== undefined),
    [false, true, true],
  );
});

test('bounded in octets: who brings large values drives out the oldest, and gets them back when forgotten', async () => {
  const keeper = new Keeper(() => 0, 100, 60, 10);
  const put = (key: string, octets: number) =>
    keeper.get(key, async () => ({ value: key, ttlSeconds: 1, octets }));
  const kept = () => ['a', 'b', 'c', 'd'].filter(key => keeper.peek(key) !== undefined).join('');
  for (const key of ['a', 'b', 'c']) await put(key, 5);
  assert.equal(kept(), 'bc');
  keeper.delete('b');
  await put('a', 5);
  assert.equal(kept(), 'ac');
  assert.equal(await put('d', 11), 'd', 'too large to be kept');
  assert.equal(kept(), '');
  await put('a', 10);
  assert.equal(kept(), 'a');
});

test('a clock that is set back ends what was made by the wrong time', async () => {
  let now = 1_900_000_000;
  let made = 0;
  const keeper = new Keeper(() => now, 10, 60);
  const make = async (): Promise<{ value: number; ttlSeconds: number }> => ({ value: ++made, ttlSeconds: 5 });
  assert.equal(await keeper.get('a', make), 1);
  now = 1_790_000_000;
  assert.equal(await keeper.get('a', make), 2);
  now += 4;
  assert.equal(await keeper.get('a', make), 2);
});
