// Holdfast behind a NAT that gives ports of its own choice, towards strongSwan: UDP encapsulation, transport mode.
import assert from 'node:assert/strict';
import test from 'node:test';
import { runStory } from './story.ts';
import { carolAddress, gateAddress } from './topology.ts';
import { countTries, type Try } from './tries.ts';
import type { WireCount } from './wire.ts';

test('Holdfast behind a NAT seals towards strongSwan, keeps its mapping, and leaves nothing', async () => {
  type Told = {
    tries: Try[];
    explained: { assurance: string };
    peers: { address: string; names: string[]; mode?: string; inBytes: number; outBytes: number }[];
    sas: string;
    states: string[];
    renewed: { before: string[]; after: string[] }[];
    streamed: string;
    mapped: string[];
    stillMapped: string[];
    back: Try[];
    again: Try[];
    keepalivesSent: number;
    left: Record<string, string>;
    counted: WireCount & { espBare: number; espInUdp: number; keepalives: number };
  };
  const told = await runStory<Told>('nat.guest.ts');
  const none = { tries: 2, eagain: 0, lostSyn: 0, failed: 0 };
  assert.deepEqual(countTries(told.tries), none, JSON.stringify(told.tries));

  assert.equal(told.explained.assurance, 'authenticated');
  assert.equal(told.peers.length, 1);
  const [{ address, names, mode, inBytes, outBytes }] = told.peers as [Told['peers'][0]];
  assert.deepEqual(
    { address, names, mode },
    { address: '10.9.0.2', names: ['bob.example'], mode: 'transport' },
  );
  assert.ok(inBytes > 0 && outBytes > 0);

  // Both sides know of the NAT, and bob's SAs end at what it made of carol.
  const mapping = told.mapped.find(entry => entry.startsWith('10.9.0.2:4500 as '));
  const port = /as (2\d{4})$/.exec(mapping ?? '')?.[1];
  assert.ok(port, `no mapping of port 4500 in ${told.mapped}`);
  assert.match(told.sas, new RegExp(`remote 'carol\\.example' @ ${gateAddress}\\[${port}\\]`));
  assert.match(told.sas, /INSTALLED, TRANSPORT-in-UDP/);
  assert.match(told.sas, new RegExp(`local {2}10\\.9\\.0\\.2/32\\n\\s+remote ${gateAddress}/32`));
  assert.equal(told.states.length, 2);
  for (const state of told.states) {
    assert.match(state, /encap type espinudp sport 4500 dport 4500/);
    assert.match(state, new RegExp(`(src|dst) ${carolAddress}\\b`));
  }

  for (const { before, after } of told.renewed) {
    assert.equal(before.length, 1);
    assert.equal(after.length, 1);
    assert.notEqual(after[0], before[0]);
  }
  assert.equal(told.streamed, '300000 bytes');

  // Nothing but the keepalives used the mapping meanwhile; those that nothing kept alive are gone.
  assert.deepEqual(told.stillMapped, [mapping]);
  assert.ok(told.keepalivesSent >= 1);
  assert.equal(told.counted.keepalives, told.keepalivesSent);
  assert.deepEqual(countTries(told.back), none, JSON.stringify(told.back));
  assert.deepEqual(countTries(told.again), none, JSON.stringify(told.again));

  assert.deepEqual(told.counted.clearPackets, []);
  assert.equal(told.counted.espBare, 0);
  assert.equal(told.counted.espInUdp, told.counted.esp);
  assert.ok(told.counted.espInUdp >= 3 * (4 + 2), `${told.counted.espInUdp} ESP packets`);
  for (const [what, rest] of Object.entries(told.left)) assert.equal(rest, '', what);
});
