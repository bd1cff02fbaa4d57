import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { addFragment, type Fragment, type Reassembled, type Reassembly } from '../../ike/fragments.ts';

const fragment = (number: number, total: number, text = 'x', messageId = 1): Fragment => ({
  messageId,
  number,
  total,
  firstPayload: number === 1 ? 35 : 0,
  plaintext: new TextEncoder().encode(text),
});

function outcomes(fragments: Fragment[]): { outcomes: string[]; last: Reassembled | undefined } {
  let state: Reassembly | undefined;
  let last: Reassembled | undefined;
  const seen = fragments.map(one => {
    last = addFragment(state, one);
    state = last.state;
    return last.outcome;
  });
  return { outcomes: seen, last };
}

test('two fragments in any order make the message', () => {
  for (const order of [
    [1, 2],
    [2, 1],
  ]) {
    const { outcomes: seen, last } = outcomes(order.map(number => fragment(number, 2, `part${number}`)));
    assert.deepEqual(seen, ['kept', 'complete']);
    assert.ok(last?.outcome === 'complete');
    assert.equal(new TextDecoder().decode(last.plaintext), 'part1part2');
    assert.equal(last.firstPayload, 35);
    assert.equal(last.state, undefined);
  }
});

test('a single fragment of one is a message', () => {
  assert.deepEqual(outcomes([fragment(1, 1)]).outcomes, ['complete']);
});

test('a fragment seen before is a duplicate and changes nothing, whatever it holds', () => {
  const { outcomes: seen, last } = outcomes([
    fragment(1, 2, 'a'),
    fragment(1, 2, 'other'),
    fragment(2, 2, 'b'),
  ]);
  assert.deepEqual(seen, ['kept', 'duplicate', 'complete']);
  assert.ok(last?.outcome === 'complete');
  assert.equal(new TextDecoder().decode(last.plaintext), 'ab');
});

test('a greater total starts over, a smaller one is refused (RFC 7383 §2.6)', () => {
  const { outcomes: seen, last } = outcomes([
    fragment(1, 2, 'old'),
    fragment(1, 3, 'a'),
    fragment(2, 2, 'old'),
    fragment(2, 3, 'b'),
    fragment(3, 3, 'c'),
  ]);
  assert.deepEqual(seen, ['kept', 'kept', 'refused', 'kept', 'complete']);
  assert.ok(last?.outcome === 'complete');
  assert.equal(new TextDecoder().decode(last.plaintext), 'abc');
});

test('refused: fragment 0, beyond its total, empty, too many, another message', () => {
  const state = addFragment(undefined, fragment(1, 2)).state;
  const before = structuredClone(state);
  for (const wrong of [
    fragment(0, 2),
    fragment(3, 2),
    fragment(2, 2, ''),
    fragment(1, 65),
    fragment(1, 65535),
    fragment(2, 2, 'x', 2),
  ]) {
    const result = addFragment(state, wrong);
    assert.equal(result.outcome, 'refused');
    assert.equal(result.state, state);
  }
  assert.deepEqual(state, before);
  assert.equal(addFragment(undefined, fragment(1, 65)).state, undefined);
});

test('refused: more bytes than the limit, and what was there stays usable', () => {
  const limits = { fragments: 8, bytes: 10 };
  const { state } = addFragment(undefined, fragment(1, 2, '12345678'), limits);
  assert.equal(addFragment(state, fragment(2, 2, '123'), limits).outcome, 'refused');
  assert.equal(addFragment(state, fragment(2, 2, '12'), limits).outcome, 'complete');
});

test('any stream of fragments keeps memory within the limits and completes only with all parts', () => {
  const limits = { fragments: 8, bytes: 64 };
  const any = fc.record({
    messageId: fc.integer({ min: 1, max: 2 }),
    number: fc.integer({ min: 0, max: 10 }),
    total: fc.integer({ min: 0, max: 10 }),
    firstPayload: fc.constantFrom(0, 35),
    plaintext: fc.uint8Array({ maxLength: 24 }),
  });
  fc.assert(
    fc.property(fc.array(any, { maxLength: 60 }), fragments => {
      let state: Reassembly | undefined;
      for (const one of fragments) {
        const result = addFragment(state, one, limits);
        state = result.state;
        if (result.outcome === 'complete') assert.ok(result.plaintext.length <= limits.bytes);
        if (state === undefined) continue;
        const held = state.parts.filter(part => part !== undefined);
        assert.ok(state.parts.length <= limits.fragments);
        assert.equal(held.length, state.received);
        assert.equal(
          held.reduce((sum, part) => sum + part.length, 0),
          state.bytes,
        );
        assert.ok(state.bytes <= limits.bytes && state.received < state.total);
      }
    }),
    { numRuns: 500 },
  );
});
