/** IKE_SA_INIT before validation: when it goes out, and when not. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { formatIpAddress, parseIpAddress } from '../../../resolver/address.ts';
import { Speculations } from '../../../resolver/capture/speculation.ts';
import { composeIpseckey, type IpseckeyGateway } from '../../../resolver/dns/ipseckey.ts';
import type { Message } from '../../../resolver/dns/message.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { TYPE } from '../../../resolver/dns/types.ts';

const NAME = Name.parseText('one.example.');
const ONE = parseIpAddress('192.0.2.1')!;

function answer(type: number, ...rdatas: Uint8Array[]): Message {
  const records = rdatas.map(rdata => ({ name: NAME, type, class: 1, ttlSeconds: 60, rdata }));
  return { answer: records } as unknown as Message;
}

const key = (gateway: IpseckeyGateway = { kind: 'none' }) =>
  answer(
    TYPE.IPSECKEY,
    composeIpseckey({ precedence: 1, algorithm: 4, gateway, publicKey: new Uint8Array(32) }),
  );

function watched(wanted = true) {
  const world = { now: 1_000, begun: [] as string[], cancelled: 0 };
  const speculations = new Speculations({
    now: () => world.now,
    negotiator: {
      begin: address => {
        world.begun.push(formatIpAddress(address));
        return { prove: () => new Promise(() => {}), cancel: () => void world.cancelled++ };
      },
      close: () => {},
      stands: () => false,
    },
  });
  const open = () => speculations.open(NAME, TYPE.A, () => wanted);
  return { world, speculations, open };
}

test('an address and a key, in whatever order, begin one negotiation; what nobody takes is cancelled', () => {
  for (const order of [
    [0, 1],
    [1, 0],
  ]) {
    const { world, speculations, open } = watched();
    const speculation = open();
    const answers = [
      () => speculations.observe(NAME, TYPE.A, answer(TYPE.A, ONE.bytes)),
      () => speculations.observe(NAME, TYPE.IPSECKEY, key()),
    ];
    answers[order[0]!]!();
    assert.deepEqual(world.begun, []);
    answers[order[1]!]!();
    assert.deepEqual(world.begun, ['192.0.2.1']);
    speculation.close();
    assert.equal(world.cancelled, 1);
  }
});

test('what is taken is not cancelled', () => {
  const { world, speculations, open } = watched();
  const speculation = open();
  speculations.observe(NAME, TYPE.IPSECKEY, key());
  speculations.observe(NAME, TYPE.A, answer(TYPE.A, ONE.bytes));
  assert.ok(speculation.take(ONE));
  assert.equal(speculation.take(ONE), undefined);
  speculation.close();
  assert.equal(world.cancelled, 0);
});

test('nothing begins for nobody, for an address nobody wants, our own machine, a group, or a foreign gateway', () => {
  const foreign = { kind: 'ipv4', address: Uint8Array.of(203, 0, 113, 9) } as const;
  const cases: [boolean, boolean, Message, string][] = [
    [false, true, key(), '192.0.2.1'],
    [true, false, key(), '192.0.2.1'],
    [true, true, key(), '127.0.0.1'],
    [true, true, key(), '224.0.0.1'],
    [true, true, key(foreign), '192.0.2.1'],
  ];
  for (const [watching, wanted, published, address] of cases) {
    const { world, speculations, open } = watched(wanted);
    if (watching) open();
    speculations.observe(NAME, TYPE.IPSECKEY, published);
    speculations.observe(NAME, TYPE.A, answer(TYPE.A, parseIpAddress(address)!.bytes));
    assert.deepEqual(world.begun, [], address);
  }
});

test('an address hears from us once in ten seconds, whoever’s name points at it', () => {
  const { world, speculations, open } = watched();
  const ask = () => {
    const speculation = open();
    speculations.observe(NAME, TYPE.IPSECKEY, key());
    speculations.observe(NAME, TYPE.A, answer(TYPE.A, ONE.bytes));
    speculation.close();
  };
  ask();
  world.now += 9_999;
  ask();
  assert.equal(world.begun.length, 1);
  world.now += 1;
  ask();
  assert.equal(world.begun.length, 2);
});

test('few per question, and few in all', () => {
  const { world, speculations, open } = watched();
  const many = Array.from({ length: 100 }, (_, i) => Uint8Array.of(198, 51, 100, i));
  for (let i = 0; i < 100; i += 5) {
    open();
    speculations.observe(NAME, TYPE.IPSECKEY, key());
    speculations.observe(NAME, TYPE.A, answer(TYPE.A, ...many.slice(i, i + 5)));
  }
  assert.equal(world.begun.length, 64);
  assert.equal(world.begun.includes('198.51.100.4'), false, 'the fifth of one question');
});
