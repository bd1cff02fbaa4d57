import assert from 'node:assert/strict';
import test from 'node:test';
import { runStory } from './story.ts';
import type { WireCount } from './wire.ts';

test('what must be private stays so when its seal goes, and comes back when it is asked for', async () => {
  type Told = { told: Record<string, string>; wire: WireCount };
  const { told, wire } = await runStory<Told>('guard.guest.ts');
  assert.deepEqual(told, {
    sealed: 'reached',
    byAddress: 'reached',
    afterDelete: 'connect: EPERM',
    askedAgain: 'reached',
    fromSealed: '0',
    fromOther: '1',
    beforeRemoval: 'kept',
    askedAfterRemoval: 'reached',
    beforeFlush: 'kept',
    askedAfterFlush: 'reached',
    beforePolicyFlush: 'kept',
    askedAfterPolicyFlush: 'reached',
    afterKill: 'reached',
    afterRestart: 'connect: EPERM',
    askedAfterRestart: 'reached',
    leftAfterStop: '0',
  });
  assert.deepEqual(wire.clearPackets, []);
});
