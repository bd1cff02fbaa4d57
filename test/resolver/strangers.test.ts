/** Whose key a peer may prove that began itself. */
import assert from 'node:assert/strict';
import test, { describe } from 'node:test';
import type { Identity } from '../../ike/types.ts';
import { parseIpAddress } from '../../resolver/address.ts';
import { PolicyGroups } from '../../resolver/capture/groups.ts';
import type { PublicKey } from '../../resolver/capture/interfaces.ts';
import { StrangerLookup } from '../../resolver/strangers.ts';
import { keyNumber, World, type Zone } from './capture/world.ts';

const K1 = keyNumber(1);
const REMOTE = parseIpAddress('192.0.2.1')!;

function lookUp(
  zones: Record<string, Zone>,
  identity: Identity,
  groups: ConstructorParameters<typeof PolicyGroups>[0]['groups'] = {},
) {
  const world = new World({});
  for (const [name, zone] of Object.entries(zones)) world.zones.set(name, zone);
  const strangers = new StrangerLookup(
    world.lookup,
    new PolicyGroups({ default: 'private-or-clear', groups }),
  );
  return strangers.lookUp(identity, REMOTE);
}

const fqdn = (text: string): Identity => ({ type: 'fqdn', data: Buffer.from(text, 'latin1') });
const keysOf = (found: object): PublicKey[] => ('keys' in found ? (found.keys as PublicKey[]) : []);

describe('a stranger with a name', () => {
  const alice: Zone = { a: ['192.0.2.1'], keys: [{ key: K1 }] };
  test('proves the key at that name; that the name has the address makes the address nobody’s', async () => {
    const found = await lookUp({ 'alice.example.': alice }, fqdn('Alice.example'));
    assert.deepEqual(found, { keys: [K1], name: 'alice.example', ownsAddress: false });
  });

  test('owns the address that it comes from when the reverse zone has the same keys', async () => {
    for (const [reverse, ownsAddress] of [
      [{ keys: [{ key: K1 }] }, true],
      [{ keys: [{ key: keyNumber(2) }] }, false],
      [{ keys: [{ key: K1 }], verdict: 'insecure' }, false],
    ] as [Zone, boolean][]) {
      const zones = { 'alice.example.': alice, '1.2.0.192.in-addr.arpa.': reverse };
      assert.deepEqual(await lookUp(zones, fqdn('alice.example')), {
        keys: [K1],
        name: 'alice.example',
        ownsAddress,
      });
    }
  });

  for (const [title, zone] of [
    ['an unsigned zone', { a: ['192.0.2.1'], keys: [{ key: K1 }], verdict: 'insecure' }],
    ['a bogus key', { a: ['192.0.2.1'], keys: [{ key: K1 }], keyVerdict: 'bogus' }],
    ['a key that cannot be looked up', { a: ['192.0.2.1'], keyVerdict: 'timeout' }],
    ['no key', { a: ['192.0.2.1'] }],
    [
      'a key for another gateway only',
      {
        a: ['192.0.2.1'],
        keys: [{ key: K1, gateway: { kind: 'ipv4', address: Uint8Array.of(203, 0, 113, 9) } }],
      },
    ],
  ] as [string, Zone][]) {
    test(`is refused for ${title}, with the reason`, async () => {
      const found = await lookUp({ 'alice.example.': zone }, fqdn('alice.example'));
      assert.ok('error' in found && found.error.length > 10, JSON.stringify(found));
    });
  }

  test('is refused when the name is hostile bytes', async () => {
    for (const text of [
      '',
      '.',
      'a..b',
      'x'.repeat(300),
      'alice.example\0',
      'alice example',
      '\xff.example',
      '-',
      'a'.repeat(64),
    ]) {
      const found = await lookUp({}, fqdn(text));
      assert.ok('error' in found, JSON.stringify(text));
    }
  });

  test('is refused in the groups where nothing is to be private', async () => {
    for (const group of ['clear', 'block'] as const) {
      const zones = { 'alice.example.': { a: ['192.0.2.1'], keys: [{ key: K1 }] } };
      const found = await lookUp(zones, fqdn('alice.example'), {
        [group]: { cidrs: [], namePatterns: ['*.example'] },
      });
      assert.ok('error' in found);
    }
  });
});

describe('a stranger with an address', () => {
  const reverse = { '1.2.0.192.in-addr.arpa.': { keys: [{ key: K1 }] } };

  test('proves the key in the reverse zone of the address it comes from', async () => {
    const found = await lookUp(reverse, { type: 'ipv4', data: REMOTE.bytes });
    assert.deepEqual(keysOf(found), [K1]);
  });

  test('does not prove the key of a gateway that protects the address: that is somebody else', async () => {
    const gateway = { kind: 'ipv4', address: Uint8Array.of(198, 51, 100, 1) } as const;
    const both = { '1.2.0.192.in-addr.arpa.': { keys: [{ key: keyNumber(2), gateway }, { key: K1 }] } };
    assert.deepEqual(keysOf(await lookUp(both, { type: 'ipv4', data: REMOTE.bytes })), [K1]);
    const only = { '1.2.0.192.in-addr.arpa.': { keys: [{ key: keyNumber(2), gateway }] } };
    assert.ok('error' in (await lookUp(only, { type: 'ipv4', data: REMOTE.bytes })));
    const named = { ...only, 'alice.example.': only['1.2.0.192.in-addr.arpa.'] };
    assert.ok('error' in (await lookUp(named, fqdn('alice.example'))));
  });

  test('is refused when it comes from another address', async () => {
    const other = { '9.113.0.203.in-addr.arpa.': { keys: [{ key: K1 }] } };
    const found = await lookUp(other, { type: 'ipv4', data: Uint8Array.of(203, 0, 113, 9) });
    assert.ok('error' in found);
  });

  test('other kinds of identity have no keys in DNS', async () => {
    for (const type of ['keyid', 'dn', 'rfc822', 'null'] as const) {
      assert.ok('error' in (await lookUp(reverse, { type, data: REMOTE.bytes })));
    }
  });
});
