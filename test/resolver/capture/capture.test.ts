import assert from 'node:assert/strict';
import test, { describe } from 'node:test';
import { parseIpAddress } from '../../../resolver/address.ts';
import { fingerprintOf } from '../../../resolver/capture/keys.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { EDE, TYPE } from '../../../resolver/dns/types.ts';
import { addressesIn, keyNumber, type Outcome, outcomeOf, settle, World, type Zone } from './world.ts';

const K1 = keyNumber(1);
const K2 = keyNumber(2);

describe('who may speak for an address', () => {
  const bank: Zone = { a: ['192.0.2.1'], keys: [{ key: K1 }] };
  const evilIp = { kind: 'ipv4', address: parseIpAddress('203.0.113.66')!.bytes } as const;
  const evils: [string, Zone][] = [
    ['with a key of its own', { a: ['192.0.2.1'], keys: [{ key: K2 }] }],
    ['with a foreign gateway', { a: ['192.0.2.1'], keys: [{ key: K2, gateway: evilIp }] }],
    [
      'with a gateway that is another address of its own',
      { a: ['192.0.2.1', '203.0.113.66'], keys: [{ key: K2, gateway: evilIp }] },
    ],
    [
      'with a gateway by name',
      {
        a: ['192.0.2.1'],
        keys: [{ key: K2, gateway: { kind: 'name', name: Name.parseText('gw.evil.example.') } }],
      },
    ],
    ['with a malformed key', { a: ['192.0.2.1'], keys: [{ key: { algorithm: 2, data: Uint8Array.of(0) } }] }],
    ['without a key', { a: ['192.0.2.1'] }],
    ['with a bogus key', { a: ['192.0.2.1'], keys: [{ key: K2 }], keyVerdict: 'bogus' }],
    ['as an alias of it', { cname: 'bank.example.' }],
  ];
  for (const [title, evil] of evils) {
    for (const order of ['evil bank', 'bank evil', 'evil bank evil bank', 'both at once']) {
      for (const group of ['private-or-clear', 'private-if-published', 'private'] as const) {
        test(`evil.example ${title}, asked ${order}, bank in ${group}`, async () => {
          const world = new World({ groups: { [group]: { cidrs: [], namePatterns: ['bank.example'] } } });
          world.zones.set('bank.example.', bank);
          world.zones.set('evil.example.', evil);
          world.zones.set('gw.evil.example.', { a: ['203.0.113.66'] });
          world.holders.set('192.0.2.1', [K1]);
          world.holders.set('203.0.113.66', [K2]);
          const asks = order === 'both at once' ? ['evil', 'bank'] : order.split(' ');
          const pending: { who: string; outcome: Promise<Outcome> }[] = [];
          for (const who of asks) {
            const outcome = world.ask(`${who}.example.`);
            pending.push({ who, outcome });
            if (order !== 'both at once') await outcome;
          }
          for (const { who, outcome } of pending) {
            if (who !== 'bank') continue;
            const result = await outcome;
            assert.equal(outcomeOf(result), 'sealed');
            assert.equal(result.story.addresses[0]?.fingerprint, fingerprintOf(K1));
            assert.deepEqual(addressesIn(result), ['192.0.2.1']);
          }
          const carrying = [...world.children.values()].filter(child => child.address === '192.0.2.1');
          assert.deepEqual([...new Set(carrying.map(child => child.fingerprint))], [fingerprintOf(K1)]);
          assert.ok(
            !world.negotiations.some(n => n.address === '203.0.113.66' && n.asked === 'bank.example.'),
          );
        });
      }
    }
  }

  test('a foreign gateway is never negotiated with', async () => {
    const world = new World({});
    world.zones.set('evil.example.', { a: ['192.0.2.1'], keys: [{ key: K2, gateway: evilIp }] });
    world.holders.set('203.0.113.66', [K2]);
    const outcome = await world.ask('evil.example.');
    assert.equal(outcomeOf(outcome), 'clear');
    assert.equal(world.negotiations.length, 0);
    assert.match(outcome.story.addresses[0]!.why!, /gateway 203\.0\.113\.66/);
  });

  test('a gateway that is the address itself is accepted, by address and by name', async () => {
    const self = parseIpAddress('192.0.2.1')!.bytes;
    const gateways = [
      { kind: 'ipv4', address: self } as const,
      { kind: 'name', name: Name.parseText('bank.example.') } as const,
      { kind: 'name', name: Name.parseText('alias.example.') } as const,
    ];
    for (const gateway of gateways) {
      const world = new World({});
      world.zones.set('bank.example.', { a: ['192.0.2.1'], keys: [{ key: K1, gateway }] });
      world.zones.set('alias.example.', { a: ['192.0.2.1'] });
      world.holders.set('192.0.2.1', [K1]);
      assert.equal(outcomeOf(await world.ask('bank.example.')), 'sealed');
    }
  });

  test('of many keys the preferred ones are tried; where not all were, nothing goes clear', async () => {
    const many = (first: number) =>
      Array.from({ length: 12 }, (_, i) => ({ key: keyNumber(100 + i), precedence: i === 11 ? first : 50 }));
    const world = new World({});
    world.zones.set('last.example.', { a: ['192.0.2.1'], keys: many(1) });
    world.zones.set('none.example.', { a: ['192.0.2.2'], keys: many(99) });
    world.holders.set('192.0.2.1', [keyNumber(111)]);
    world.holders.set('192.0.2.2', [keyNumber(111)]);
    assert.equal(outcomeOf(await world.ask('last.example.')), 'sealed');
    assert.equal(outcomeOf(await world.ask('none.example.')), 'refuse');
  });

  test('a key denied in a way that contradicts the signed address is not absent', async () => {
    for (const [keyVerdict, keyOutcome, expected] of [
      ['insecure', undefined, 'refuse'],
      ['secure', 'nxdomain', 'refuse'],
      ['insecure', 'nxdomain', 'refuse'],
      ['secure', undefined, 'clear'],
    ] as const) {
      const world = new World({});
      world.zones.set('x.example.', { a: ['192.0.2.1'], keyVerdict, ...(keyOutcome && { keyOutcome }) });
      assert.equal(outcomeOf(await world.ask('x.example.')), expected, `${keyVerdict} ${keyOutcome}`);
    }
    const world = new World({});
    world.zones.set('x.example.', { a: ['192.0.2.1'], keyVerdict: 'insecure', keyEde: 27 });
    assert.equal(outcomeOf(await world.ask('x.example.')), 'clear', 'NSEC3 iterations beyond the limit');
  });

  test('a zone that was signed since its key was asked for: it is asked for anew, and no more often than need be', async () => {
    const world = new World({ cached: true });
    world.zones.set('x.example.', { a: ['192.0.2.1'], soa: true, keyVerdict: 'insecure' });
    await world.lookup.lookup(Name.parseText('x.example.'), TYPE.IPSECKEY);
    await world.pass(10_000);
    assert.equal(outcomeOf(await world.ask('x.example.')), 'refuse', 'still contradicted');
    world.zones.set('x.example.', { a: ['192.0.2.1'], soa: true, keys: [{ key: K1 }] });
    world.holders.set('192.0.2.1', [K1]);
    const before = world.lookups.length;
    assert.equal(outcomeOf(await world.ask('x.example.')), 'refuse');
    assert.equal(world.lookups.length, before, 'that was a moment ago');
    await world.pass(10_000);
    assert.equal(outcomeOf(await world.ask('x.example.')), 'sealed');
  });

  test('failure memory is per (address, key): a key that fails does not touch another key', async () => {
    const world = new World({ groups: { private: { cidrs: [], namePatterns: ['*.example'] } } });
    world.zones.set('evil.example.', { a: ['192.0.2.1'], keys: [{ key: K2 }] });
    world.zones.set('bank.example.', bank);
    world.holders.set('192.0.2.1', [K1]);
    assert.equal(outcomeOf(await world.ask('evil.example.')), 'refuse');
    assert.equal(outcomeOf(await world.ask('evil.example.')), 'refuse');
    assert.equal(world.negotiations.length, 1, 'the second question met the memory');
    assert.equal(outcomeOf(await world.ask('bank.example.')), 'sealed');
    await world.pass(30_001);
    await world.ask('evil.example.');
    assert.equal(
      world.negotiations.filter(n => n.keys.includes(fingerprintOf(K2))).length,
      2,
      'forgotten after its term',
    );
  });

  test('what the peer refuses to one name is not held against another name with a copy of its key', async () => {
    for (const order of ['one after the other', 'both at once']) {
      const world = new World({ groups: { private: { cidrs: [], namePatterns: ['bank.example'] } } });
      world.zones.set('bank.example.', bank);
      world.zones.set('copy.example.', bank);
      world.holders.set('192.0.2.1', [K1]);
      world.strangeNames.add('copy.example.');
      const copy = world.ask('copy.example.');
      if (order === 'one after the other') await copy;
      assert.equal(outcomeOf(await world.ask('bank.example.')), 'sealed', order);
      assert.equal(outcomeOf(await copy), 'clear');
    }
  });

  test('an IPv4-mapped IPv6 address is captured as the IPv4 address that it is', async () => {
    const world = new World({});
    world.zones.set('sly.example.', { aaaa: ['::ffff:192.0.2.1'], keys: [{ key: K1 }] });
    world.holders.set('192.0.2.1', [K1]);
    const outcome = await world.ask('sly.example.', TYPE.AAAA);
    assert.equal(outcomeOf(outcome), 'sealed');
    assert.equal(world.negotiations[0]!.address, '192.0.2.1');
  });

  test('a CNAME cannot lead a private name into a lenient group', async () => {
    const world = new World({
      groups: {
        private: { cidrs: [], namePatterns: ['bank.example'] },
        clear: { cidrs: [], namePatterns: ['*.cdn.example'] },
      },
    });
    world.zones.set('bank.example.', { cname: 'x.cdn.example.' });
    world.zones.set('x.cdn.example.', { a: ['192.0.2.1'] });
    assert.equal(outcomeOf(await world.ask('bank.example.')), 'refuse');
  });
});

describe('holding', () => {
  test('patience ends the hold, the negotiation goes on, and the next question finds it done', async () => {
    const world = new World({ default: 'private', patienceMillis: 500 });
    world.zones.set('slow.example.', { a: ['192.0.2.1'], keys: [{ key: K1 }] });
    const first = world.ask('slow.example.');
    await world.pass(500);
    const outcome = await first;
    assert.equal(outcomeOf(outcome), 'refuse');
    assert.match(outcome.answer.ede![0]!.text, /longer than 500 ms/);
    assert.equal(world.capture.peers.running, 1);
    const second = await world.ask('slow.example.');
    assert.equal(outcomeOf(second), 'refuse', 'patience counts from the beginning of the negotiation');
    assert.equal(world.negotiations.length, 1);
  });

  test('nobody waits any more: the hold ends at once, the negotiation goes on', async () => {
    const world = new World({ default: 'private' });
    world.zones.set('slow.example.', { a: ['192.0.2.1'], keys: [{ key: K1 }] });
    const client = new AbortController();
    const question = {
      name: Name.parseText('slow.example.'),
      type: TYPE.A,
      dnssecOk: false,
      checkingDisabled: false,
    };
    const asked = world.capture.capture(question, client.signal);
    await settle();
    client.abort();
    assert.equal(outcomeOf(await asked), 'refuse');
    assert.equal(world.capture.peers.running, 1);
  });

  test('A and AAAA, and every name with the same key and address, share one negotiation each', async () => {
    const world = new World({});
    const zone: Zone = { a: ['192.0.2.1'], aaaa: ['2001:db8::1'], keys: [{ key: K1 }] };
    world.zones.set('one.example.', zone);
    world.zones.set('two.example.', zone);
    world.holders.set('192.0.2.1', [K1]);
    world.holders.set('2001:db8::1', [K1]);
    const outcomes = await Promise.all([
      world.ask('one.example.'),
      world.ask('one.example.', TYPE.AAAA),
      world.ask('two.example.'),
      world.ask('one.example.'),
    ]);
    assert.deepEqual(outcomes.map(outcomeOf), ['sealed', 'sealed', 'sealed', 'sealed']);
    assert.deepEqual(world.negotiations.map(n => n.address).sort(), ['192.0.2.1', '2001:db8::1']);
  });

  test('an answer that rests on a seal has a short life; others keep theirs', async () => {
    const world = new World({});
    world.zones.set('one.example.', { a: ['192.0.2.1'], keys: [{ key: K1 }] });
    world.zones.set('plain.example.', { a: ['192.0.2.9'] });
    world.holders.set('192.0.2.1', [K1]);
    assert.equal((await world.ask('one.example.')).answer.ttlCapSeconds, 60);
    assert.equal((await world.ask('plain.example.')).answer.ttlCapSeconds, undefined);
  });

  test('a seal that is gone is not an answer', async () => {
    const world = new World({});
    world.zones.set('one.example.', { a: ['192.0.2.1'], keys: [{ key: K1 }] });
    world.holders.set('192.0.2.1', [K1]);
    await world.ask('one.example.');
    const [childId] = [...world.children.keys()];
    world.capture.peers.closed(childId!);
    assert.equal(outcomeOf(await world.ask('one.example.')), 'sealed');
    assert.equal(world.negotiations.length, 2);
  });

  test('a seal that the kernel lost behind our back is not an answer', async () => {
    const world = new World({});
    world.zones.set('one.example.', { a: ['192.0.2.1'], keys: [{ key: K1 }] });
    world.holders.set('192.0.2.1', [K1]);
    await world.ask('one.example.');
    world.children.clear();
    await world.pass(1_000);
    assert.equal(outcomeOf(await world.ask('one.example.')), 'sealed');
    assert.equal(world.negotiations.length, 2);
    assert.equal(world.capture.peers.list().length, 1);
  });

  test('a seal holds for the source address it was made for, and no other', async () => {
    const world = new World({});
    world.zones.set('one.example.', { a: ['192.0.2.1'], keys: [{ key: K1 }] });
    world.holders.set('192.0.2.1', [K1]);
    await world.ask('one.example.');
    world.source = parseIpAddress('198.51.100.2')!;
    assert.equal(outcomeOf(await world.ask('one.example.')), 'sealed');
    assert.equal(world.negotiations.length, 2);
    world.source = parseIpAddress('198.51.100.1')!;
    await world.ask('one.example.');
    assert.equal(world.negotiations.length, 2, 'both seals stand side by side');
  });

  test('a silent peer of a name that must be private is asked again soon, of another name after its term', async () => {
    for (const [group, again] of [
      ['private', 30_001],
      ['private-or-clear', 600_001],
    ] as const) {
      const world = new World({ default: group });
      world.zones.set('one.example.', { a: ['192.0.2.1'], keys: [{ key: K1 }] });
      world.holders.set('192.0.2.1', [K1]);
      world.failWith = { code: 'no-answer', text: 'no answer' };
      await world.ask('one.example.');
      await world.pass(again - 2_000);
      await world.ask('one.example.');
      assert.equal(world.negotiations.length, 1);
      await world.pass(2_000);
      world.failWith = undefined;
      assert.equal(outcomeOf(await world.ask('one.example.')), 'sealed');
    }
  });

  test('where nobody tried, nothing goes clear: too many negotiations at once', async () => {
    const world = new World({});
    for (let i = 0; i < 257; i++) {
      world.zones.set(`n${i}.example.`, {
        a: [`203.0.113.${i & 255}`, `203.0.112.${i & 255}`],
        keys: [{ key: K1 }],
      });
    }
    const asked = Array.from({ length: 128 }, (_, i) => world.ask(`n${i}.example.`));
    await settle();
    assert.equal(world.capture.peers.running, 256);
    world.zones.set('bank.example.', { a: ['192.0.2.1'], keys: [{ key: K1 }] });
    world.holders.set('192.0.2.1', [K1]);
    const outcome = await world.ask('bank.example.');
    assert.equal(outcomeOf(outcome), 'refuse');
    assert.match(outcome.answer.ede![0]!.text, /too many negotiations/);
    await world.pass(2_000);
    await Promise.all(asked);
  });

  test('an unsigned name does not wait for its key', async () => {
    const world = new World({});
    world.zones.set('old.example.', { a: ['192.0.2.1'], verdict: 'insecure', keyVerdict: 'timeout' });
    assert.equal(outcomeOf(await world.ask('old.example.')), 'clear');
  });

  test('our own fault is not held against the peer', async () => {
    const world = new World({ default: 'private' });
    world.zones.set('one.example.', { a: ['192.0.2.1'], keys: [{ key: K1 }] });
    world.holders.set('192.0.2.1', [K1]);
    world.failWith = { code: 'unable', text: 'this kernel has no ESP' };
    assert.equal(outcomeOf(await world.ask('one.example.')), 'refuse');
    world.failWith = undefined;
    assert.equal(outcomeOf(await world.ask('one.example.')), 'sealed');
  });
});

describe('several addresses', () => {
  const zone: Zone = { a: ['192.0.2.1', '192.0.2.2'], keys: [{ key: K1 }] };
  test('those that fail are left out while others are sealed', async () => {
    const world = new World({});
    world.zones.set('multi.example.', zone);
    world.holders.set('192.0.2.1', [K1]);
    world.holders.set('192.0.2.2', [K2]);
    const outcome = await world.ask('multi.example.');
    assert.deepEqual(addressesIn(outcome), ['192.0.2.1']);
    assert.equal(outcome.answer.authenticated, false, 'a part of an RRset is not the RRset that was signed');
  });

  test('a client that set DO gets all or nothing', async () => {
    for (const group of ['private-or-clear', 'private'] as const) {
      const world = new World({ default: group });
      world.zones.set('multi.example.', zone);
      world.holders.set('192.0.2.1', [K1]);
      world.holders.set('192.0.2.2', [K2]);
      const outcome = await world.ask('multi.example.', TYPE.A, true);
      assert.deepEqual(addressesIn(outcome), group === 'private' ? [] : ['192.0.2.1', '192.0.2.2']);
    }
  });

  test('at most eight are negotiated, and the rest is not answered', async () => {
    const world = new World({});
    const all = Array.from({ length: 12 }, (_, i) => `192.0.2.${i + 1}`);
    world.zones.set('many.example.', { a: all, keys: [{ key: K1 }] });
    for (const address of all) world.holders.set(address, [K1]);
    assert.deepEqual(addressesIn(await world.ask('many.example.')), all.slice(0, 8));
    assert.equal(world.negotiations.length, 8);
  });

  test('our own addresses are never captured', async () => {
    const world = new World({ default: 'private', own: ['192.0.2.7'] });
    world.zones.set('self.example.', { a: ['192.0.2.7', '127.0.0.1'], keys: [{ key: K1 }] });
    assert.deepEqual(addressesIn(await world.ask('self.example.')), ['192.0.2.7', '127.0.0.1']);
    assert.equal(world.negotiations.length, 0);
  });
});

describe('memory', () => {
  test('forget closes peers and clears failures, by name, by address, and all', async () => {
    const world = new World({});
    world.zones.set('one.example.', { a: ['192.0.2.1'], keys: [{ key: K1 }] });
    world.zones.set('bad.example.', { a: ['192.0.2.2'], keys: [{ key: K1 }] });
    world.holders.set('192.0.2.1', [K1]);
    world.holders.set('192.0.2.2', [K2]);
    await world.ask('one.example.');
    await world.ask('bad.example.');
    const { peers } = world.capture;
    assert.deepEqual(peers.forget({ name: 'one.example', addresses: [] }), { peers: 1, failures: 0 });
    assert.equal(world.children.size, 0);
    assert.deepEqual(peers.forget({ address: parseIpAddress('192.0.2.2')! }), { peers: 0, failures: 1 });
    await world.ask('one.example.');
    await world.ask('bad.example.');
    assert.deepEqual(peers.forget({ all: true }), { peers: 1, failures: 1 });
    assert.equal(peers.knows(parseIpAddress('192.0.2.1')!), false);
    assert.equal(peers.knows(parseIpAddress('192.0.2.2')!), false);
  });

  test('the refusal is the reason a person can act on', async () => {
    const world = new World({ default: 'private' });
    world.zones.set('wrong.example.', { a: ['192.0.2.1'], keys: [{ key: K2 }] });
    world.holders.set('192.0.2.1', [K1]);
    const { answer } = await world.ask('wrong.example.');
    assert.deepEqual(answer.ede, [
      {
        code: EDE.BLOCKED,
        text: 'wrong.example. at 192.0.2.1: the peer holds another key; see: holdfast explain wrong.example',
      },
    ]);
    await settle();
  });
});
