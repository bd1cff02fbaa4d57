/** Waiting for what must happen, in tests. */
import assert from 'node:assert/strict';

/** Resolves when the condition holds; fails when it does not come to hold within 10 s, far more than it ever takes. */
export async function until(condition: () => boolean): Promise<void> {
  const end = performance.now() + 10_000;
  while (!condition()) {
    assert.ok(performance.now() < end, `never came true: ${condition}`);
    await new Promise(setImmediate);
  }
}
