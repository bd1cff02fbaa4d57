// What Holdfast promises, against real components in a real kernel: strongSwan as the peer, nsd and unbound for the names,
// the C library's resolver in the app, and captures beside the peer as the proof.
import assert from 'node:assert/strict';
import test from 'node:test';
import { runStory } from './story.ts';
import { manyAddresses } from './topology.ts';
import type { Try, TryCount } from './tries.ts';
import type { WireCount } from './wire.ts';

test('a thousand connections to fifty names, cold and warm: nothing lost, nothing in clear', async () => {
  type Told = {
    rounds: { name: string; count: TryCount; bad: Try[] }[];
    wire: WireCount;
    sealed: { address: string; assurance: string }[];
  };
  const { rounds, wire, sealed } = await runStory<Told>('thousand.guest.ts', [], 480);
  for (const { name, count, bad } of rounds) {
    assert.deepEqual(bad, [], name);
    assert.deepEqual(count, { tries: 200, eagain: 0, lostSyn: 0, failed: 0 }, name);
  }
  assert.equal(rounds.length, 5);
  assert.deepEqual(wire.clearPackets, []);
  assert.equal(wire.dns, 0);
  // TCP takes four packets or more, UDP two.
  assert.ok(wire.esp >= 500 * 4 + 500 * 2, `${wire.esp} ESP packets`);
  const addresses = manyAddresses.flatMap(last => [`10.9.0.${last}`, `fd09::${last}`]);
  const authenticated = sealed.filter(peer => peer.assurance === 'authenticated').map(peer => peer.address);
  assert.deepEqual(new Set(authenticated), new Set(addresses));
});

for (const [part, title] of [
  ['responder', 'strongSwan answers, with an RSA, an ECDSA and an Ed25519 key'],
  ['initiator', 'strongSwan starts, with an RSA, an ECDSA and an Ed25519 key, by IPv4 and IPv6'],
  ['holdfast', 'two Holdfasts find each other by the DNS'],
] as const) {
  test(title, async () => {
    type Told = { told: { what: string; ok: boolean; detail: unknown }[]; wire: WireCount };
    const { told, wire } = await runStory<Told>('interop.guest.ts', [part]);
    for (const { what, ok, detail } of told) assert.ok(ok, `${what}: ${JSON.stringify(detail, null, 2)}`);
    assert.ok(told.length > 0);
    assert.deepEqual(wire.clearPackets, []);
    assert.ok(wire.esp > 0);
  });
}

test("no name of evil.example changes the bank's traffic or assurance, in any order of asking", async () => {
  type Seen = { address: string; keyFingerprint?: string; assurance: string };
  type Told = { evil: string; order: string; seen: Seen[]; bad: Try[]; esp: number; clearToBank: string[] };
  const stories = await runStory<Told[]>('attack.guest.ts', [], 480);
  assert.equal(stories.length, 7 * 3);
  const fingerprint = stories[0]!.seen[0]!.keyFingerprint;
  assert.ok(fingerprint);
  for (const { evil, order, seen, bad, esp, clearToBank } of stories) {
    const which = `${evil}, ${order}`;
    assert.deepEqual(bad, [], which);
    assert.deepEqual(clearToBank, [], which);
    assert.ok(esp > 0, which);
    assert.equal(seen.length, 2, which);
    for (const { assurance, keyFingerprint } of seen) {
      assert.deepEqual(
        { assurance, keyFingerprint },
        { assurance: 'authenticated', keyFingerprint: fingerprint },
        which,
      );
    }
  }
});
