import assert from 'node:assert/strict';
import test from 'node:test';
import type { Hosts } from '../../../ike/types.ts';
import { notify } from '../../../ike/wire/notify.ts';
import { ExchangeType, NotifyType, ProtocolId } from '../../../ike/wire/numbers.ts';
import { findNotify, findPayload } from '../../../ike/wire/payloads.ts';
import { hostSelector, type TrafficSelector } from '../../../ike/wire/traffic-selectors.ts';
import { spiBytes } from '../../../ike/engine/proposals.ts';
import { fqdn, Host, ip, keys, pair } from './pair.ts';
import { ScriptedGateway } from './scripted-gateway.ts';

/*
 * The peer is a gateway: IKE and ESP go to it, the Child SA carries the traffic of the host behind it (RFC 4301 §4.1).
 *
 * HDR, SK {IDi, IDr, AUTH, SAi2, TSi = we, TSr = the host}  -->
 *                                                           <--  HDR, SK {IDr, AUTH, SAr2, TSi, TSr}
 */

const BANK = ip('10.9.3.7');
const BANK_6 = ip('fd09::7');
const WE = ip('10.9.0.1');

function begin(alice: Host, protects: Hosts, requestId = 1): void {
  const { network, address, engine } = alice;
  const gateway = ip('10.9.0.90');
  alice.run(engine.initiate({ requestId, local: address, remote: gateway, protects }, network.now));
  const expected = { keys: [keys.p256.publicKey], idr: fqdn('bank.example'), acceptableIdr: [] };
  alice.run(engine.authenticate(requestId, expected, network.now));
}

function offered(protects: Hosts = { local: WE, remote: BANK }) {
  const { alice } = pair();
  begin(alice, protects);
  const gateway = new ScriptedGateway(alice, keys.p256).answerInit();
  return { alice, gateway, asked: gateway.readAuth() };
}

const exactly = ({ local, remote }: Hosts) => ({
  tsi: [hostSelector(local.bytes)],
  tsr: [hostSelector(remote.bytes)],
});

for (const [family, protects] of [
  ['IPv4', { local: WE, remote: BANK }],
  ['IPv6 through an IPv4 gateway', { local: ip('fd09::1'), remote: BANK_6 }],
] as const) {
  test(`a gateway is asked for the host behind it, in tunnel mode: ${family}`, () => {
    const { alice, gateway, asked } = offered(protects);
    assert.deepEqual(findPayload(asked, 'TSi')!.selectors, [hostSelector(protects.local.bytes)]);
    assert.deepEqual(findPayload(asked, 'TSr')!.selectors, [hostSelector(protects.remote.bytes)]);
    assert.equal(findNotify(asked, NotifyType.USE_TRANSPORT_MODE), undefined);
    gateway.answerAuth(exactly(protects));
    const [child] = [...alice.installed.values()];
    assert.equal(child!.mode, 'tunnel');
    assert.deepEqual([child!.local, child!.remote], [alice.address, gateway.address]);
    assert.deepEqual(child!.selectors, protects);
    assert.equal(alice.of('established')[0]!.child!.id, child!.id);
  });
}

test('an answer with other selectors than exactly the two hosts, or transport mode, is not taken', () => {
  const we = hostSelector(WE.bytes);
  const bank = hostSelector(BANK.bytes);
  const net: TrafficSelector = { ...bank, start: ip('10.9.3.0').bytes, end: ip('10.9.3.255').bytes };
  const cases: [string, { tsi: TrafficSelector[]; tsr: TrafficSelector[]; transport?: boolean }][] = [
    ['the gateway itself', { tsi: [we], tsr: [hostSelector(ip('10.9.0.90').bytes)] }],
    ['a net with the host in it', { tsi: [we], tsr: [net] }],
    ['the host and another one', { tsi: [we], tsr: [bank, hostSelector(ip('10.9.3.8').bytes)] }],
    ['one port of the host', { tsi: [we], tsr: [{ ...bank, startPort: 80, endPort: 80 }] }],
    ['one protocol of the host', { tsi: [we], tsr: [{ ...bank, protocol: 6 }] }],
    ['another host of ours', { tsi: [hostSelector(ip('10.9.0.3').bytes)], tsr: [bank] }],
    ['transport mode', { tsi: [we], tsr: [bank], transport: true }],
  ];
  for (const [title, answer] of cases) {
    const { alice, gateway } = offered();
    gateway.answerAuth(answer);
    assert.equal(alice.of('failed')[0]?.reason.code, 'protocol', title);
    assert.equal(alice.of('installChildSa').length, 0, title);
    assert.deepEqual(alice.states(), ['deleting'], title);
  }
});

test('our own engine is no gateway: it grants nobody but itself', () => {
  const { network, alice } = pair();
  const gateway = new Host(network, '10.9.0.90', 'bank.example', [keys.p256]);
  gateway.trust(alice);
  begin(alice, { local: WE, remote: BANK });
  network.settle();
  assert.deepEqual(alice.of('failed')[0]?.reason.notify, NotifyType.TS_UNACCEPTABLE);
  assert.equal(gateway.installed.size, 0);
});

test('a gateway may rekey for the same two hosts, in tunnel mode, and for nobody else', () => {
  const { alice, gateway } = offered();
  gateway.answerAuth(exactly({ local: WE, remote: BANK }));
  const rekey = (messageId: number, theirs: TrafficSelector[], transport = false) =>
    gateway.request(
      ExchangeType.CREATE_CHILD_SA,
      [
        notify(NotifyType.REKEY_SA, undefined, { protocol: ProtocolId.ESP, spi: spiBytes(0xaaaa_0001) }),
        ...(transport ? [notify(NotifyType.USE_TRANSPORT_MODE)] : []),
        { kind: 'NONCE', data: gateway.random(32) },
        ...gateway.childPayloads(0xaaaa_0002 + messageId, theirs, [hostSelector(WE.bytes)]),
      ],
      messageId,
    );
  const refused = rekey(0, [hostSelector(gateway.address.bytes)]);
  assert.ok(findNotify(refused, NotifyType.TS_UNACCEPTABLE));
  const answer = rekey(1, [hostSelector(BANK.bytes)], true);
  assert.equal(findNotify(answer, NotifyType.USE_TRANSPORT_MODE), undefined);
  assert.deepEqual(findPayload(answer, 'TSi')!.selectors, [hostSelector(BANK.bytes)]);
  const fresh = [...alice.installed.values()].at(-1)!;
  assert.equal(fresh.mode, 'tunnel');
  assert.deepEqual(fresh.selectors, { local: WE, remote: BANK });
  assert.deepEqual(fresh.remote, gateway.address);
});

test('INITIAL_CONTACT goes to a gateway once, not again for the next host behind it', () => {
  const { alice, gateway, asked } = offered();
  assert.ok(findNotify(asked, NotifyType.INITIAL_CONTACT));
  gateway.answerAuth(exactly({ local: WE, remote: BANK }));
  begin(alice, { local: WE, remote: ip('10.9.3.8') }, 2);
  const second = new ScriptedGateway(alice, keys.p256).answerInit();
  assert.equal(findNotify(second.readAuth(), NotifyType.INITIAL_CONTACT), undefined);
});

test('INITIAL_CONTACT goes to a gateway once when two hosts behind it are asked for at the same time', () => {
  const { alice } = pair();
  const gateways = [BANK, ip('10.9.3.8')].map((remote, i) => {
    const { network, address, engine } = alice;
    const request = {
      requestId: i,
      local: address,
      remote: ip('10.9.0.90'),
      protects: { local: WE, remote },
    };
    alice.run(engine.initiate(request, network.now));
    return new ScriptedGateway(alice, keys.p256).answerInit();
  });
  const contacts = gateways.map((gateway, requestId) => {
    const expected = { keys: [keys.p256.publicKey], idr: fqdn('bank.example'), acceptableIdr: [] };
    alice.run(alice.engine.authenticate(requestId, expected, alice.network.now));
    return findNotify(gateway.readAuth(), NotifyType.INITIAL_CONTACT) !== undefined;
  });
  assert.deepEqual(contacts, [true, false]);
});
