/** What must be private is blocked below its seal. */
import assert from 'node:assert/strict';
import test, { describe } from 'node:test';
import { parseIpAddress } from '../../../resolver/address.ts';
import { RCODE } from '../../../resolver/dns/types.ts';
import { keyNumber, World, type Zone } from './world.ts';

const K1 = keyNumber(1);

describe('guards', () => {
  const zone: Zone = { a: ['192.0.2.1'], keys: [{ key: K1 }] };
  test('what must be private is blocked below its seal, and stays so for an hour after it', async () => {
    const world = new World({ default: 'private' });
    world.zones.set('one.example.', zone);
    world.holders.set('192.0.2.1', [K1]);
    await world.ask('one.example.');
    assert.deepEqual([...world.blocked], ['192.0.2.1']);
    await world.pass(7_200_000);
    world.capture.sweep();
    assert.equal(world.blocked.size, 1, 'while the seal stands');
    world.capture.peers.closed([...world.children.keys()][0]!);
    await world.ask('one.example.');
    world.capture.peers.forget({ all: true });
    await world.pass(3_599_000);
    world.capture.sweep();
    assert.equal(world.blocked.size, 1, 'an hour after the last answer');
    await world.pass(2_000);
    world.capture.sweep();
    assert.equal(world.blocked.size, 0);
  });

  test('what may go clear is not blocked, and a name that may go clear now lifts its own guard only', async () => {
    const world = new World({
      groups: { 'private-if-published': { cidrs: [], namePatterns: ['*.example'] } },
    });
    world.zones.set('one.example.', zone);
    world.zones.set('two.example.', zone);
    world.zones.set('free.test.', zone);
    world.holders.set('192.0.2.1', [K1]);
    await world.ask('free.test.');
    assert.equal(world.blocked.size, 0);
    await world.ask('one.example.');
    await world.ask('two.example.');
    world.zones.set('one.example.', { a: ['192.0.2.1'] });
    await world.ask('one.example.');
    assert.equal(world.blocked.size, 1);
    world.zones.set('two.example.', { a: ['192.0.2.1'] });
    await world.ask('two.example.');
    assert.equal(world.blocked.size, 0);
  });

  test('an address that cannot be guarded is not answered', async () => {
    const world = new World({ default: 'private' });
    world.zones.set('one.example.', zone);
    world.holders.set('192.0.2.1', [K1]);
    world.blocksRefused = 'NEWPOLICY: EEXIST';
    const outcome = await world.ask('one.example.');
    assert.equal(outcome.answer.rcode, RCODE.SERVFAIL);
    assert.match(outcome.answer.ede![0]!.text, /EEXIST/);
  });

  test('a block that an earlier run left stands for an hour', async () => {
    const world = new World({});
    world.blocked.add('192.0.2.1');
    world.capture.guards.adopt(parseIpAddress('192.0.2.1')!);
    await world.pass(3_599_000);
    world.capture.sweep();
    assert.equal(world.blocked.size, 1);
    await world.pass(2_000);
    world.capture.sweep();
    assert.equal(world.blocked.size, 0);
  });
});
