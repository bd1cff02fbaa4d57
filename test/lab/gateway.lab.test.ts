// A host that does no IPsec itself, behind a gateway that does: strongSwan, which its reverse zone names.
import assert from 'node:assert/strict';
import test from 'node:test';
import { runStory } from './story.ts';
import { carolAddress, gateAddress } from './topology.ts';
import type { Try } from './tries.ts';

test('a host behind a gateway is sealed by the word of its reverse zone, and by nobody else’s', async () => {
  type Explained = { name: string; assurance: string; via?: string; keyFingerprint?: string; why?: string };
  type Peer = { address: string; via?: string; mode?: string; inBytes: number; outBytes: number };
  type Told = {
    told: {
      order: string;
      bad: Try[];
      explained: Explained[];
      peers: Peer[];
      espToGate: number;
      clearToCarol: string[];
    }[];
    ikeToMallory: number;
    gate: string;
    forgotten: { peers: number };
    left: string;
  };
  const { told, ikeToMallory, gate, forgotten, left } = await runStory<Told>('gateway.guest.ts');
  assert.equal(told.length, 2);
  for (const { order, bad, explained, peers, espToGate, clearToCarol } of told) {
    assert.deepEqual(bad, [], order);
    assert.ok(espToGate >= 4 + 2, `${order}: ${espToGate} ESP packets`);
    assert.deepEqual(
      clearToCarol.filter(packet => /\.80 /.test(packet)),
      [],
      order,
    );
    const [gated, evil, half] = explained;
    assert.equal(gated!.assurance, 'authenticated', order);
    assert.equal(gated!.via, gateAddress, order);
    for (const refused of [evil, half]) {
      assert.equal(refused!.assurance, 'clear', `${order}: ${refused!.name}`);
      assert.equal(refused!.keyFingerprint, undefined, `${order}: ${refused!.name}`);
      assert.match(refused!.why!, /the reverse zone does not confirm it: it says otherwise/);
    }
    assert.equal(peers.length, 1, order);
    const [{ address, via, mode, inBytes, outBytes }] = peers as [Peer];
    assert.deepEqual(
      { address, via, mode },
      { address: carolAddress, via: gateAddress, mode: 'tunnel' },
      order,
    );
    assert.ok(inBytes > 0 && outBytes > 0, order);
  }
  // Before there is a seal, the names that ask for none reach the host as any name without a key does.
  assert.ok(told[1]!.clearToCarol.some(packet => /\.81 /.test(packet)));
  assert.equal(ikeToMallory, 0, 'a gateway that nobody confirms hears nothing');
  assert.match(gate, /local {2}192\.168\.9\.2\/32\n\s+remote 10\.9\.0\.1\/32/);
  assert.equal(forgotten.peers, 1);
  assert.equal(left, '');
});
