/** Gateways that the administrator lets speak for hosts. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { formatIpAddress, parseIpAddress } from '../../../resolver/address.ts';
import { formatGatewayRule, parseGatewayRule } from '../../../resolver/capture/gateways.ts';
import { keysForAddress, readKeys } from '../../../resolver/capture/keys.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { TYPE } from '../../../resolver/dns/types.ts';
import { keyNumber, World } from './world.ts';

const NAME = Name.parseText('host.example.');

async function waysTo(host: string, gateway: string, rules: string[]) {
  const world = new World({});
  const address = parseIpAddress(gateway)!.bytes;
  world.zones.set('host.example.', { keys: [{ key: keyNumber(1), gateway: { kind: 'ipv4', address } }] });
  const finding = readKeys(await world.lookup.lookup(NAME, TYPE.IPSECKEY));
  const owner = { asked: NAME, canonical: NAME };
  const allowed = rules.map(rule => parseGatewayRule(rule)!);
  const { ways } = await keysForAddress(finding, parseIpAddress(host)!, owner, world.lookup, allowed);
  return ways.map(({ via }) => via && formatIpAddress(via));
}

test('a rule lets this gateway speak for these hosts, and nobody else for anybody else', async () => {
  const rules = ['198.51.100.1 for 192.0.2.0/24'];
  assert.deepEqual(await waysTo('192.0.2.7', '198.51.100.1', rules), ['198.51.100.1']);
  assert.deepEqual(await waysTo('192.0.2.7', '198.51.100.2', rules), []);
  assert.deepEqual(await waysTo('203.0.113.7', '198.51.100.1', rules), []);
  assert.deepEqual(await waysTo('192.0.2.7', '198.51.100.1', []), []);
});

test('rules are read as they are written', () => {
  for (const text of [
    '198.51.100.1 for 10.0.0.0/8',
    '2001:db8::1 for 2001:db8:1::/48',
    '198.51.100.1 for ::/0',
  ]) {
    assert.equal(formatGatewayRule(parseGatewayRule(text)!), text);
  }
  for (const text of [
    '',
    '198.51.100.1',
    '198.51.100.1 for',
    'gw.example for 10.0.0.0/8',
    '10.0.0.0/8 for 10.0.0.1',
    '1.2.3.4 10.0.0.0/8',
  ]) {
    assert.equal(parseGatewayRule(text), undefined, text);
  }
});
