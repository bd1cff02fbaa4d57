/** The capture over the real cache: what is renewed with its seal, and what is answered past its time (RFC 8767). */
import assert from 'node:assert/strict';
import test, { describe } from 'node:test';
import { parseIpAddress } from '../../../resolver/address.ts';
import type { CachedResolver } from '../../../resolver/cache/answers.ts';
import { reverseName } from '../../../resolver/capture/keys.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { EDE, RCODE, TYPE } from '../../../resolver/dns/types.ts';
import { keyNumber, settle, World, type Zone } from './world.ts';

const K1 = keyNumber(1);
const K2 = keyNumber(2);
const SEALED: Zone = { a: ['192.0.2.1'], keys: [{ key: K1 }] };
/** Zones of the world have TTLs of 300 s. */
const TTL_MILLIS = 300_000;

/** A world whose bank.example was asked for once; its addresses hold K1 where nothing else is said. */
async function asked(zone: Zone = SEALED, options: ConstructorParameters<typeof World>[0] = {}) {
  const world = new World({ cached: true, ...options });
  world.zones.set('bank.example.', zone);
  for (const address of zone.a ?? []) world.holders.set(address, [K1]);
  await world.ask('bank.example');
  return world;
}

/** What is answered when the TTLs are over and upstream says nothing, in one word. */
async function afterTheEnd(world: World, name = 'bank.example', type: number = TYPE.A): Promise<string> {
  await world.pass(TTL_MILLIS);
  world.upstream = 'silent';
  const begun = world.negotiations.length;
  const answer = await world.capture.answer({
    name: Name.parseText(name),
    type,
    dnssecOk: false,
    checkingDisabled: false,
  });
  if (answer.rcode !== RCODE.NOERROR) return 'refused';
  const isStale = answer.ede?.[0]?.code === EDE.STALE_ANSWER;
  assert.equal(world.negotiations.length, begun, 'nothing is negotiated for a stale answer');
  if (isStale) {
    assert.equal(answer.authenticated, false);
    assert.equal(answer.ttlCapSeconds, 30);
    assert.equal(answer.lease, undefined, 'it goes the whole way each time');
  }
  return isStale ? 'stale' : 'answered';
}

describe('past its time, upstream silent', () => {
  test('a name whose seal stands is answered, and said to be stale', async () => {
    const world = await asked();
    assert.equal(await afterTheEnd(world), 'stale');
    const story = world.capture.journal.find('bank.example', TYPE.A)!;
    assert.equal(story.assurance(), 'authenticated');
    assert.match(story.steps.map(({ what, detail }) => `${what}: ${detail}`).join('\n'), /stale: .*sealed/);
    world.upstream = 'answers';
    await world.pass(30_000);
    const { answer } = await world.ask('bank.example');
    assert.deepEqual([answer.ede, answer.authenticated], [undefined, true]);
  });

  test('by its aliases too, and in a group that guards it', async () => {
    const world = await asked(SEALED, { default: 'private-if-published' });
    world.zones.set('www.bank.example.', { cname: 'bank.example.' });
    await world.ask('www.bank.example');
    assert.equal(await afterTheEnd(world, 'www.bank.example'), 'stale');
    assert.ok(world.blocked.has('192.0.2.1'));
  });

  test('with a gateway that only the reverse zone makes count', async () => {
    const gateway = { kind: 'ipv4', address: parseIpAddress('203.0.113.1')!.bytes } as const;
    const zone: Zone = { a: ['192.0.2.1'], keys: [{ key: K1, gateway }] };
    const world = new World({ cached: true });
    world.zones.set('bank.example.', zone);
    world.zones.set(reverseName(parseIpAddress('192.0.2.1')!).toText(), { keys: [{ key: K1, gateway }] });
    world.holders.set('203.0.113.1', [K1]);
    await world.ask('bank.example');
    assert.equal([...world.children.values()][0]?.via, '203.0.113.1');
    assert.equal(await afterTheEnd(world), 'stale');
  });

  test('for the family that it has no addresses of as well, by the seals of the other', async () => {
    const world = await asked({ ...SEALED, soa: true });
    assert.equal(await afterTheEnd(world, 'bank.example', TYPE.AAAA), 'stale');
    const { answer } = await world.ask('bank.example', TYPE.AAAA);
    assert.deepEqual(answer.answer, []);
    world.children.clear();
    await world.pass(1_000);
    assert.equal((await world.ask('bank.example', TYPE.AAAA)).answer.rcode, RCODE.SERVFAIL);
  });

  test('not when its key was withdrawn, and the denial of it is past its time too', async () => {
    const world = await asked();
    await world.pass(TTL_MILLIS);
    world.zones.set('bank.example.', { a: ['192.0.2.1'], soa: true });
    await world.ask('bank.example');
    assert.equal(await afterTheEnd(world), 'refused');
  });

  test('when it is only the key that cannot be had any more', async () => {
    const world = await asked();
    world.zones.set('bank.example.', { ...SEALED, keyVerdict: 'timeout' });
    await world.pass(TTL_MILLIS);
    const { answer } = await world.ask('bank.example');
    assert.equal(answer.ede?.[0]?.code, EDE.STALE_ANSWER);
    assert.equal(answer.answer[0]!.rdatas.length, 1);
  });

  const refused: [string, (world: World) => unknown, Zone?][] = [
    ['its seal is gone', world => world.children.clear()],
    [
      'one address of two is not sealed',
      () => {},
      { a: ['192.0.2.1', '192.0.2.2'], keys: [{ key: K1, gateway: named('192.0.2.1') }] },
    ],
    ['it never had a key', () => {}, { a: ['192.0.2.1'] }],
    ['its zone is unsigned', () => {}, { ...SEALED, verdict: 'insecure' }],
    ['the peer proved another key than the one that DNS had', world => replaceKey(world)],
    [
      'its key was withdrawn before',
      async world => {
        await world.pass(TTL_MILLIS);
        world.zones.set('bank.example.', { a: ['192.0.2.1'] });
        await world.ask('bank.example');
      },
    ],
    [
      'DNS denied the whole name before',
      async world => {
        await world.pass(TTL_MILLIS);
        world.zones.set('bank.example.', { keyOutcome: 'nxdomain' });
        await world.ask('bank.example');
      },
    ],
    [
      'its key was bogus before',
      async world => {
        await world.pass(TTL_MILLIS);
        world.zones.set('bank.example.', { ...SEALED, keyVerdict: 'bogus' });
        await world.ask('bank.example');
        await world.pass(60_000);
      },
    ],
    ['its signatures are no longer in force', world => world.pass(5 * 86_400_000)],
    ['more than a day has passed', world => world.pass(86_400_001)],
  ];
  for (const [why, change, zone] of refused) {
    test(`not answered when ${why}`, async () => {
      const world = await asked(zone);
      await change(world);
      assert.equal(await afterTheEnd(world), 'refused');
    });
  }

  test('a group that asks for no seal gets no stale answer', async () => {
    for (const group of ['clear', 'clear-or-private', 'block'] as const) {
      const world = await asked(SEALED, { default: group });
      assert.equal(await afterTheEnd(world), 'refused', group);
    }
  });

  test('other types are not answered: no seal speaks for them', async () => {
    const world = await asked({ ...SEALED, https: [Uint8Array.of(0, 1, 0)] });
    await world.ask('bank.example', TYPE.HTTPS);
    assert.equal(await afterTheEnd(world, 'bank.example', TYPE.HTTPS), 'refused');
    assert.equal(await afterTheEnd(world, 'bank.example', TYPE.IPSECKEY), 'refused');
  });
});

test('bogus is never glossed over, whatever stands', async () => {
  const bogus: Partial<Zone>[] = [{ verdict: 'bogus' }, { keyVerdict: 'bogus' }, { keyOutcome: 'nxdomain' }];
  for (const change of bogus) {
    const world = await asked();
    await world.pass(TTL_MILLIS);
    world.zones.set('bank.example.', { ...SEALED, ...change });
    const { answer } = await world.ask('bank.example');
    assert.equal(answer.rcode, RCODE.SERVFAIL, JSON.stringify(change));
    assert.notEqual(answer.ede?.[0]?.code, EDE.STALE_ANSWER);
  }
});

test('what is slow gets 1.8 s before the stale answer goes out, and goes on', async () => {
  const world = await asked();
  await world.pass(TTL_MILLIS);
  world.upstream = 'slow';
  const codes: (number | undefined)[] = [];
  void world.ask('bank.example').then(({ answer }) => codes.push(answer.ede?.[0]?.code));
  await world.pass(1_799);
  assert.deepEqual(codes, []);
  await world.pass(1);
  assert.deepEqual(codes, [EDE.STALE_ANSWER]);
});

test('what is slow and not sealed is waited for as ever', async () => {
  const world = await asked();
  await world.pass(TTL_MILLIS);
  world.children.clear();
  world.upstream = 'slow';
  let settled = false;
  void world.ask('bank.example').then(() => {
    settled = true;
  });
  await world.pass(4_000);
  assert.equal(settled, false);
});

test('a question that nobody waits for any more is given up, and nothing is told of it', async () => {
  const world = new World({ cached: true });
  world.upstream = 'slow';
  const waiting = [new AbortController(), new AbortController()];
  const question = {
    name: Name.parseText('bank.example'),
    type: TYPE.A,
    dnssecOk: false,
    checkingDisabled: false,
  };
  const answers = waiting.map(({ signal }) => world.capture.answer(question, signal));
  await settle();
  const cache = world.lookup as CachedResolver;
  assert.equal(cache.counters().inFlight, 2);
  waiting[0]!.abort();
  await answers[0];
  assert.equal(cache.counters().inFlight, 2, 'the other one still waits');
  waiting[1]!.abort();
  await answers[1];
  assert.deepEqual([cache.counters().inFlight, cache.counters().failures], [0, 0]);
  assert.equal(world.capture.journal.find('bank.example', TYPE.A), undefined);
});

describe('in the last tenth of its life', () => {
  async function popular(): Promise<World> {
    const world = await asked();
    for (const millis of [100_000, 100_000]) {
      await world.pass(millis);
      await world.ask('bank.example');
    }
    await world.pass(75_000);
    world.lookups.length = 0;
    return world;
  }

  test('a question renews addresses and key, and the seal is looked at', async () => {
    const world = await popular();
    const { answer, story } = await world.ask('bank.example');
    assert.equal(answer.answer[0]!.ttlSeconds, 25, 'whoever asks does not wait');
    assert.equal(story.assurance(), 'authenticated');
    await new Promise(setImmediate);
    await settle();
    assert.ok(world.lookups.includes(`bank.example. ${TYPE.A}`));
    assert.ok(world.lookups.includes(`bank.example. ${TYPE.IPSECKEY}`));
    await world.pass(100_000);
    world.upstream = 'silent';
    const later = await world.ask('bank.example');
    assert.deepEqual([later.answer.ede, later.story.assurance()], [undefined, 'authenticated']);
    assert.equal(world.negotiations.length, 1);
  });

  test('a seal that is gone is made anew by the question', async () => {
    const world = await popular();
    world.children.clear();
    const { story } = await world.ask('bank.example');
    assert.equal(story.assurance(), 'authenticated');
    assert.equal(world.negotiations.length, 2);
    assert.equal(world.children.size, 1);
  });

  test('a key that the renewal finds changed counts from then on', async () => {
    const world = await popular();
    world.zones.set('bank.example.', { a: ['192.0.2.1'], keys: [{ key: K2 }] });
    world.holders.set('192.0.2.1', [K1, K2]);
    await world.ask('bank.example');
    await new Promise(setImmediate);
    await settle();
    const { story } = await world.ask('bank.example');
    assert.equal(story.assurance(), 'authenticated');
    assert.equal(world.children.size, 2);
  });
});

function named(address: string) {
  return { kind: 'ipv4', address: parseIpAddress(address)!.bytes } as const;
}

/** The peer stays, and has proved K2 instead of K1. */
async function replaceKey(world: World): Promise<void> {
  world.zones.set('other.example.', { a: ['192.0.2.1'], keys: [{ key: K2 }] });
  world.holders.set('192.0.2.1', [K2]);
  const [first] = world.children.keys();
  world.children.delete(first!);
  world.capture.peers.closed(first!);
  await world.ask('other.example');
}
