import assert from 'node:assert/strict';
import test from 'node:test';
import { Liveness } from '../../../resolver/capture/liveness.ts';
import type { ProvenPeer } from '../../../resolver/capture/peers.ts';

function watched(count: number) {
  const peers = Array.from({ length: count }, (_, i) => ({ seal: { childId: i } }) as unknown as ProvenPeer);
  const usage = peers.map(() => ({ inPackets: 0, outPackets: 0 }));
  const probed: number[] = [];
  const liveness = new Liveness({
    list: () => peers,
    usage: childId => (usage[childId] ? { ...usage[childId] } : undefined),
    probe: childId => void probed.push(childId),
  });
  return { peers, usage, probed, liveness };
}

test('only a peer to which we sent and from which nothing came is asked', () => {
  const { usage, probed, liveness } = watched(4);
  liveness.check();
  usage[1]!.outPackets = 3;
  usage[2]!.outPackets = 3;
  usage[2]!.inPackets = 1;
  usage[3]!.inPackets = 1;
  liveness.check();
  assert.deepEqual(probed, [1]);
  liveness.check();
  assert.deepEqual(probed, [1], 'silence on both sides asks nothing');
});

test('a rekeyed pair of SAs starts to count anew, a lost one is passed over', () => {
  const { peers, usage, probed, liveness } = watched(2);
  liveness.check();
  (peers[0] as { seal: { childId: number } }).seal = { childId: 7 };
  usage[7] = { inPackets: 0, outPackets: 9 };
  delete usage[1];
  liveness.check();
  assert.deepEqual(probed, []);
});

test('a round looks at a bounded number of peers, and the rounds at all of them', () => {
  const { usage, probed, liveness } = watched(450);
  for (let round = 0; round < 3; round++) liveness.check();
  for (const each of usage) each.outPackets = 1;
  const sizes = [];
  for (let round = 0; round < 3; round++) {
    const before = probed.length;
    liveness.check();
    sizes.push(probed.length - before);
  }
  assert.ok(
    sizes.every(size => size <= 200),
    String(sizes),
  );
  assert.equal(new Set(probed).size, 450);
});
