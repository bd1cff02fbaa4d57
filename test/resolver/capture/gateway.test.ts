/** Foreign gateways: whose word it takes until a key counts at an address that does not itself hold it. */
import assert from 'node:assert/strict';
import test, { describe } from 'node:test';
import { formatIpAddress, parseIpAddress } from '../../../resolver/address.ts';
import type { PolicyGroup } from '../../../resolver/capture/groups.ts';
import { Story } from '../../../resolver/capture/journal.ts';
import { fingerprintOf, keysForAddress, readKeys, reverseName } from '../../../resolver/capture/keys.ts';
import type { Peers, Sealing } from '../../../resolver/capture/peers.ts';
import { sealByWays } from '../../../resolver/capture/ways.ts';
import type { IpseckeyGateway } from '../../../resolver/dns/ipseckey.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { TYPE } from '../../../resolver/dns/types.ts';
import { keyNumber, type Outcome, outcomeOf, World, type Zone } from './world.ts';

const K1 = keyNumber(1);
const K2 = keyNumber(2);
const HOST = '192.0.2.7';
const HOST_6 = '2001:db8::7';

function at(text: string): IpseckeyGateway {
  const address = parseIpAddress(text)!;
  return { kind: address.family === 4 ? 'ipv4' : 'ipv6', address: address.bytes };
}
const named = (text: string): IpseckeyGateway => ({ kind: 'name', name: Name.parseText(text) });
const GATE = at('198.51.100.1');

/** What counts at `address` for host.example, in words: `K1 via 198.51.100.1`. */
async function waysTo(address: string, zone: Zone, others: Record<string, Zone> = {}) {
  const world = new World({});
  world.zones.set('host.example.', zone);
  for (const [name, other] of Object.entries(others)) world.zones.set(name, other);
  const name = Name.parseText('host.example.');
  const finding = readKeys(await world.lookup.lookup(name, TYPE.IPSECKEY));
  const owner = { asked: name, canonical: name };
  const found = await keysForAddress(finding, parseIpAddress(address)!, owner, world.lookup);
  const ways = found.ways.flatMap(({ via, keys }) =>
    keys.map(key => `K${key.data[0]} ${via ? `via ${formatIpAddress(via)}` : 'itself'}`),
  );
  return { ways, refused: found.refused, unknown: found.unknown, lookups: world.lookups };
}

const reverseOf = (address: string) => reverseName(parseIpAddress(address)!).toText();
const zone = (gateway: IpseckeyGateway, key = K1): Zone => ({ keys: [{ key, gateway }] });

describe('a foreign gateway', () => {
  for (const [title, address, gateway, others, expected] of [
    ['by IPv4', HOST, GATE, {}, ['K1 via 198.51.100.1']],
    ['of the other family', HOST, at('2001:db8::99'), {}, ['K1 via 2001:db8::99']],
    ['of an IPv6 address', HOST_6, GATE, {}, ['K1 via 198.51.100.1']],
    [
      'by name, with the addresses of the family of the host',
      HOST,
      named('gw.example.'),
      { 'gw.example.': { a: ['198.51.100.1', '198.51.100.2'], aaaa: ['2001:db8::99'] } },
      ['K1 via 198.51.100.1', 'K1 via 198.51.100.2'],
    ],
    [
      'by name, through an alias, four addresses at most and none of them local or a group',
      HOST,
      named('GW.example.'),
      {
        'gw.example.': { cname: 'real.example.' },
        'real.example.': {
          a: ['127.0.0.1', '224.0.0.1', '0.0.0.0', ...[1, 2, 3, 4, 5].map(n => `198.51.100.${n}`)],
        },
      },
      [1, 2, 3, 4].map(n => `K1 via 198.51.100.${n}`),
    ],
    [
      'that is the host in IPv4-mapped form is the host itself',
      HOST,
      at('::ffff:192.0.2.7'),
      {},
      ['K1 itself'],
    ],
  ] as [string, string, IpseckeyGateway, Record<string, Zone>, string[]][]) {
    test(`${title}, counts when the reverse zone says the same`, async () => {
      const confirmed = { ...others, [reverseOf(address)]: zone(gateway) };
      const { ways, refused, unknown } = await waysTo(address, zone(gateway), confirmed);
      assert.deepEqual({ ways, refused, unknown }, { ways: expected, refused: [], unknown: undefined });
    });
  }

  const withGateway = { 'gw.example.': { a: ['198.51.100.1'] }, 'other.example.': { a: ['198.51.100.1'] } };
  for (const [title, forward, reverse] of [
    ['has nothing', GATE, undefined],
    ['has another key', GATE, zone(GATE, K2)],
    ['has another gateway', GATE, zone(at('198.51.100.2'))],
    [
      'has another gateway and another key beside',
      GATE,
      {
        keys: [
          { key: K1, gateway: at('198.51.100.2') },
          { key: K2, gateway: GATE },
        ],
      },
    ],
    ['has the same key without a gateway', GATE, zone({ kind: 'none' })],
    ['has the same key for the host itself', GATE, zone(at(HOST))],
    ['has the gateway by name', GATE, zone(named('gw.example.'))],
    ['has the gateway by its address', named('gw.example.'), zone(GATE)],
    ['has another name for the same address', named('gw.example.'), zone(named('other.example.'))],
    ['has the same number with another algorithm', GATE, zone(GATE, { ...K1, algorithm: 3 })],
    ['is unsigned', GATE, { ...zone(GATE), verdict: 'insecure' }],
    ['has an unsigned key', GATE, { ...zone(GATE), keyVerdict: 'insecure' }],
    ['is an alias into an unsigned zone', GATE, { cname: 'unsigned.example.' }],
  ] as [string, IpseckeyGateway, Zone | undefined][]) {
    test(`counts for nothing when the reverse zone ${title}`, async () => {
      const others: Record<string, Zone> = {
        ...withGateway,
        'unsigned.example.': { ...zone(GATE), verdict: 'insecure' },
        ...(reverse && { [reverseOf(HOST)]: reverse }),
      };
      const { ways, refused, unknown } = await waysTo(HOST, zone(forward), others);
      assert.deepEqual([ways, refused.length, unknown], [[], 1, undefined]);
      assert.match(
        refused[0]!,
        /its gateway \S+ is not 192\.0\.2\.7, and the reverse zone does not confirm it: ./,
      );
    });
  }

  for (const [title, others] of [
    [
      'the reverse zone is bogus',
      { [reverseOf(HOST)]: { ...zone(named('gw.example.')), keyVerdict: 'bogus' } },
    ],
    ['the reverse zone does not answer', { [reverseOf(HOST)]: { keyVerdict: 'timeout' } }],
    ['the gateway’s name is bogus', { 'gw.example.': { a: ['198.51.100.1'], verdict: 'bogus' } }],
  ] as [string, Record<string, Zone>][]) {
    test(`is unknown, not absent, when ${title}`, async () => {
      const { ways, unknown } = await waysTo(HOST, zone(named('gw.example.')), { ...withGateway, ...others });
      assert.deepEqual(ways, []);
      assert.ok(unknown && /gateway gw\.example\./.test(unknown.why), unknown?.why);
    });
  }

  for (const [title, gateway] of [
    ['a name without addresses', named('nowhere.example.')],
    ['a name in an unsigned zone', named('unsigned.example.')],
    ['a loopback address', at('127.0.0.1')],
    ['a multicast address', at('224.0.0.5')],
  ] as const) {
    test(`that is ${title} counts for nothing, whatever the reverse zone says`, async () => {
      const { ways, refused } = await waysTo(HOST, zone(gateway), {
        'unsigned.example.': { a: ['198.51.100.1'], verdict: 'insecure' },
        [reverseOf(HOST)]: zone(gateway),
      });
      assert.deepEqual([ways, refused.length], [[], 1]);
    });
  }

  test('the reverse zone is asked for nothing when no gateway is foreign', async () => {
    const { lookups } = await waysTo(HOST, { keys: [{ key: K1 }, { key: K2, gateway: at(HOST) }] });
    assert.deepEqual(lookups, ['host.example. 45']);
  });

  test('several keys are grouped by whom they are proved with, in the order of precedence', async () => {
    const keys = [
      { key: K1, gateway: GATE, precedence: 20 },
      { key: K2, precedence: 10 },
      { key: K2, gateway: GATE, precedence: 30 },
      { key: K2, gateway: at('203.0.113.66'), precedence: 1 },
      { key: K1, gateway: GATE, precedence: 40 },
    ];
    const reverse = { keys: keys.filter(({ gateway }) => gateway === GATE) };
    const { ways, refused } = await waysTo(HOST, { keys }, { [reverseOf(HOST)]: reverse });
    assert.deepEqual(ways, ['K2 itself', 'K1 via 198.51.100.1', 'K2 via 198.51.100.1']);
    assert.equal(refused.length, 1);
    assert.notEqual(fingerprintOf(K1), fingerprintOf(K2));
  });
});

/** The bank's host is behind GATE, and its reverse zone says so. */
describe('a name whose address is behind a gateway', () => {
  const bank: Zone = { a: [HOST], keys: [{ key: K1, gateway: GATE }] };
  const EVIL = at('203.0.113.66');

  function worldOf(group: PolicyGroup, reverse: Zone | undefined = zone(GATE)): World {
    const world = new World({ groups: { [group]: { cidrs: [], namePatterns: ['bank.example'] } } });
    world.zones.set('bank.example.', bank);
    if (reverse) world.zones.set(reverseOf(HOST), reverse);
    world.holders.set('198.51.100.1', [K1]);
    world.holders.set('203.0.113.66', [K1, K2]);
    world.holders.set(HOST, [keyNumber(9)]);
    return world;
  }

  test('is sealed by a negotiation with the gateway, once for every name with that key', async () => {
    const world = worldOf('private');
    world.zones.set('shop.example.', bank);
    const outcome = await world.ask('bank.example.');
    assert.equal(outcomeOf(outcome), 'sealed');
    assert.equal(formatIpAddress(outcome.story.addresses[0]!.via!), '198.51.100.1');
    assert.equal(outcomeOf(await world.ask('shop.example.')), 'sealed');
    assert.deepEqual(
      world.negotiations.map(({ address, via, ended }) => [address, via, ended]),
      [[HOST, '198.51.100.1', 'sealed']],
    );
    const [peer] = world.capture.peers.list();
    assert.deepEqual(
      [formatIpAddress(peer!.address), formatIpAddress(peer!.seal.via!)],
      [HOST, '198.51.100.1'],
    );
  });

  test('what it refuses to one name is asked again for another, with the gateway', async () => {
    const world = worldOf('private');
    world.zones.set('odd.example.', bank);
    world.strangeNames.add('odd.example.');
    const odd = world.ask('odd.example.');
    const outcome = await world.ask('bank.example.');
    assert.deepEqual([outcomeOf(await odd), outcomeOf(outcome)], ['clear', 'sealed']);
    assert.deepEqual(
      world.negotiations.map(({ via, ended }) => [via, ended]),
      [
        ['198.51.100.1', 'not-proven'],
        ['198.51.100.1', 'sealed'],
      ],
    );
  });

  test('nothing is begun on suspicion, neither with the gateway nor with the address that it claims', async () => {
    const world = worldOf('private');
    const name = Name.parseText('bank.example.');
    const record = (type: number, rdata: Uint8Array) => ({ type, rdata, malformed: false });
    const message = (...answer: object[]) => ({ answer }) as never;
    const asked = world.ask('bank.example.');
    const { speculations } = world.capture;
    const published = Uint8Array.of(10, 1, 4, 198, 51, 100, 1, 1);
    speculations.observe(name, TYPE.IPSECKEY, message(record(TYPE.IPSECKEY, published)));
    speculations.observe(name, TYPE.A, message(record(TYPE.A, parseIpAddress(HOST)!.bytes)));
    assert.deepEqual(world.negotiations, []);
    assert.equal(outcomeOf(await asked), 'sealed');
    assert.deepEqual(
      world.negotiations.map(({ via, ended }) => [via, ended]),
      [['198.51.100.1', 'sealed']],
    );
  });

  const evils: [string, Zone][] = [
    ['its own key and gateway', { a: [HOST], keys: [{ key: K2, gateway: EVIL }] }],
    [
      'its own key and a gateway by name',
      { a: [HOST], keys: [{ key: K2, gateway: named('gw.evil.example.') }] },
    ],
    ['the right gateway and its own key', { a: [HOST], keys: [{ key: K2, gateway: GATE }] }],
    ['the right key and its own gateway', { a: [HOST], keys: [{ key: K1, gateway: EVIL }] }],
    [
      'its own gateway, which is another address of its own',
      { a: [HOST, '203.0.113.66'], keys: [{ key: K2, gateway: EVIL }] },
    ],
    ['a copy of the key for the host itself', { a: [HOST], keys: [{ key: K1 }] }],
    ['its own key for the host itself', { a: [HOST], keys: [{ key: K2 }] }],
    ['a copy of the whole record', { a: [HOST], keys: [{ key: K1, gateway: GATE }] }],
  ];
  for (const [title, evil] of evils) {
    for (const order of ['evil bank', 'bank evil', 'evil bank evil bank', 'both at once']) {
      for (const group of ['private-or-clear', 'private-if-published', 'private'] as const) {
        test(`evil.example with ${title}, asked ${order}, bank in ${group}`, async () => {
          const world = worldOf(group);
          world.zones.set('evil.example.', evil);
          world.zones.set('gw.evil.example.', { a: ['203.0.113.66'] });
          const asks = order === 'both at once' ? ['evil', 'bank'] : order.split(' ');
          const outcomes: { who: string; outcome: Promise<Outcome> }[] = [];
          for (const who of asks) {
            const outcome = world.ask(`${who}.example.`);
            outcomes.push({ who, outcome });
            if (order !== 'both at once') await outcome;
          }
          for (const { who, outcome } of outcomes) {
            const result = await outcome;
            if (who !== 'bank') continue;
            assert.equal(outcomeOf(result), 'sealed');
            const [address] = result.story.addresses;
            assert.equal(address!.fingerprint, fingerprintOf(K1));
            assert.equal(formatIpAddress(address!.via!), '198.51.100.1');
          }
          const ofHost = [...world.children.values()].filter(child => child.address === HOST);
          assert.deepEqual(
            [...new Set(ofHost.map(({ via, fingerprint }) => `${via} ${fingerprint}`))],
            [`198.51.100.1 ${fingerprintOf(K1)}`],
          );
          assert.ok(!world.negotiations.some(({ via }) => via === '203.0.113.66'));
        });
      }
    }
  }

  const groups = ['private-or-clear', 'private-if-published', 'private'] as const;
  const refused = ['clear', 'refuse', 'refuse'];
  const unknown = ['refuse', 'refuse', 'refuse'];
  for (const [title, reverse, expected] of [
    ['the reverse zone has another key', zone(GATE, K2), refused],
    ['the reverse zone has another gateway', zone(EVIL), refused],
    ['the reverse zone has no key', {}, refused],
    ['the reverse zone is unsigned', { ...zone(GATE), verdict: 'insecure' }, refused],
    ['the reverse zone is bogus', { ...zone(GATE), keyVerdict: 'bogus' }, unknown],
    ['the reverse zone does not answer', { keyVerdict: 'timeout' }, unknown],
  ] as [string, Zone, string[]][]) {
    for (const [i, group] of groups.entries()) {
      test(`${title}: ${group} -> ${expected[i]}, and nobody is negotiated with`, async () => {
        const world = worldOf(group, reverse);
        const outcome = await world.ask('bank.example.');
        assert.equal(outcomeOf(outcome), expected[i]);
        assert.match(outcome.story.addresses[0]!.why!, /gateway 198\.51\.100\.1 .* reverse zone/);
        assert.equal(world.negotiations.length, 0);
      });
    }
  }

  test('a key that cannot be judged is not forgotten because another one failed', async () => {
    const world = worldOf('private-or-clear', { keyVerdict: 'timeout' });
    world.zones.set('bank.example.', { a: [HOST], keys: [{ key: K2 }, { key: K1, gateway: GATE }] });
    assert.equal(outcomeOf(await world.ask('bank.example.')), 'refuse');
    world.holders.set(HOST, [K2]);
    world.capture.peers.forget({ all: true });
    assert.equal(outcomeOf(await world.ask('bank.example.')), 'sealed');
  });

  test('the next address of a gateway, and the next key, are tried when one fails; each failure is remembered alone', async () => {
    const gateway = named('gw.example.');
    const world = worldOf('private', zone(gateway));
    world.zones.set('gw.example.', { a: ['198.51.100.8', '198.51.100.9', '198.51.100.1'] });
    world.zones.set('bank.example.', {
      a: [HOST],
      keys: [
        { key: K2, precedence: 1 },
        { key: K1, gateway },
      ],
    });
    for (const last of [8, 9]) world.holders.set(`198.51.100.${last}`, [K2]);
    const outcome = await world.ask('bank.example.');
    assert.equal(outcomeOf(outcome), 'sealed');
    const tried = () => world.negotiations.map(({ via, ended }) => `${via ?? 'itself'} ${ended}`);
    const first = [
      'itself not-proven',
      '198.51.100.8 not-proven',
      '198.51.100.9 not-proven',
      '198.51.100.1 sealed',
    ];
    assert.deepEqual(tried(), first);
    world.capture.peers.closed([...world.children.keys()][0]!);
    assert.equal(outcomeOf(await world.ask('bank.example.')), 'sealed');
    assert.deepEqual(tried(), [...first, '198.51.100.1 sealed']);
    assert.deepEqual(
      world.capture.peers.failures().map(({ via }) => via && formatIpAddress(via)),
      [undefined, '198.51.100.8', '198.51.100.9'],
    );
  });

  test('a gateway that does not answer is not given up before its negotiation ends', async () => {
    const world = worldOf('private');
    const gateway = named('gw.example.');
    world.zones.set(reverseOf(HOST), zone(gateway));
    world.zones.set('gw.example.', { a: ['198.51.100.77', '198.51.100.1'] });
    world.zones.set('bank.example.', { a: [HOST], keys: [{ key: K1, gateway }] });
    const asked = world.ask('bank.example.');
    await world.pass(2_000);
    const outcome = await asked;
    assert.equal(outcomeOf(outcome), 'refuse');
    assert.match(outcome.answer.ede![0]!.text, /takes longer than 2000 ms/);
    assert.deepEqual(
      world.negotiations.map(({ via }) => via),
      ['198.51.100.77'],
    );
  });

  test('patience is counted from the first way on, however many there are', async () => {
    let now = 0;
    const slept: number[] = [];
    const refused: Sealing = { state: 'failed', failure: { code: 'refused', text: 'no' } };
    const peers = {
      knowsOther: () => false,
      find: () => undefined,
      // Each takes 700 ms to say no.
      seal: (): Sealing => ({
        state: 'pending',
        startedAt: now,
        outcome: Promise.resolve().then(() => {
          now += 700;
          return refused;
        }),
      }),
    } as unknown as Peers;
    const name = Name.parseText('bank.example.');
    const address = parseIpAddress(HOST)!;
    const story = new Story('bank.example', TYPE.A, () => now, { unixNow: 0 });
    const ways = [1, 2, 3, 4, 5].map(last => ({ via: parseIpAddress(`198.51.100.${last}`)!, keys: [K1] }));
    const job = { address, asked: name, canonical: name, strict: true, speculation: undefined, story };
    const sleep = (millis: number) => {
      slept.push(millis);
      return new Promise<void>(() => {});
    };
    const settled = await sealByWays(ways, job, peers, new World({}).lookup, {
      patienceMillis: 2_000,
      now: () => now,
      sleep,
    });
    assert.deepEqual(slept, [2_000, 1_300, 600]);
    assert.equal(settled.state, 'pending');
  });
});
