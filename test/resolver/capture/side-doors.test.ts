/** Doors through which an address could slip past the capture. */
import assert from 'node:assert/strict';
import test, { describe } from 'node:test';
import { parseCidr, parseIpAddress } from '../../../resolver/address.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { addressHints, composeSvcb, parseSvcb, SVC_PARAM } from '../../../resolver/dns/svcb.ts';
import { RCODE, TYPE } from '../../../resolver/dns/types.ts';
import { keyNumber, World } from './world.ts';

const K1 = keyNumber(1);

describe('doors past the capture', () => {
  const withHints = (hint: string): Uint8Array =>
    composeSvcb({
      priority: 1,
      target: Name.root,
      params: [
        { key: SVC_PARAM.ALPN, value: Uint8Array.of(2, 0x68, 0x32) },
        { key: SVC_PARAM.IPV4HINT, value: parseIpAddress(hint)!.bytes },
      ],
    });
  const question = (name: string, type: number) => ({
    name: Name.parseText(name),
    type,
    dnssecOk: false,
    checkingDisabled: false,
  });

  test('HTTPS hints that the capture would answer too pass, sealed', async () => {
    const world = new World({});
    world.zones.set('web.example.', {
      a: ['192.0.2.1'],
      keys: [{ key: K1 }],
      https: [withHints('192.0.2.1')],
    });
    world.holders.set('192.0.2.1', [K1]);
    const answer = await world.capture.answer(question('web.example.', TYPE.HTTPS));
    assert.equal(addressHints(parseSvcb(answer.answer[0]!.rdatas[0]!)!).ipv4.length, 1);
    assert.equal(world.children.size, 1, 'the hinted address was captured first');
  });

  test('other hints are taken out, and with them the claim to be authenticated', async () => {
    const world = new World({});
    world.zones.set('web.example.', {
      a: ['192.0.2.1'],
      keys: [{ key: K1 }],
      https: [withHints('203.0.113.5')],
    });
    world.holders.set('192.0.2.1', [K1]);
    const answer = await world.capture.answer(question('web.example.', TYPE.HTTPS));
    const service = parseSvcb(answer.answer[0]!.rdatas[0]!)!;
    assert.deepEqual(addressHints(service), { ipv4: [], ipv6: [] });
    assert.equal(service.params[0]!.key, SVC_PARAM.ALPN);
    assert.equal(answer.authenticated, false);
    assert.deepEqual(answer.answer[0]!.signatures, []);
  });

  test('ANY carries no address past the capture', async () => {
    const world = new World({
      groups: {
        clear: { cidrs: [], namePatterns: ['*.clear.example'] },
        private: { cidrs: [parseCidr('192.0.2.66')!], namePatterns: [] },
      },
    });
    world.zones.set('web.example.', { a: ['192.0.2.1'], https: [withHints('192.0.2.1')] });
    world.zones.set('lone.example.', { a: ['192.0.2.1'] });
    world.zones.set('www.clear.example.', { a: ['192.0.2.1'] });
    world.zones.set('sly.clear.example.', { a: ['192.0.2.66'] });
    world.zones.set('bad.example.', { a: ['192.0.2.1'], verdict: 'bogus' });
    const any = (name: string) => world.capture.answer(question(name, TYPE.ANY));
    const web = await any('web.example.');
    assert.deepEqual(
      web.answer.map(rrset => rrset.type),
      [TYPE.HTTPS],
    );
    assert.deepEqual(addressHints(parseSvcb(web.answer[0]!.rdatas[0]!)!), { ipv4: [], ipv6: [] });
    assert.equal(web.authenticated, false);
    assert.deepEqual(
      (await any('lone.example.')).answer.map(rrset => rrset.type),
      [TYPE.HINFO],
    );
    const clear = await any('www.clear.example.');
    assert.deepEqual([clear.answer.map(rrset => rrset.type), clear.authenticated], [[TYPE.A], true]);
    assert.deepEqual(
      (await any('sly.clear.example.')).answer.map(rrset => rrset.type),
      [TYPE.HINFO],
    );
    assert.equal((await any('bad.example.')).rcode, RCODE.SERVFAIL);
  });

  test('bogus data of other types goes to a client that checks for itself, and to nobody else', async () => {
    const world = new World({});
    world.zones.set('web.example.', {
      https: [composeSvcb({ priority: 1, target: Name.root, params: [] })],
      verdict: 'bogus',
    });
    const refused = await world.capture.answer(question('web.example.', TYPE.MX));
    assert.equal(refused.rcode, RCODE.SERVFAIL);
    const passed = await world.capture.answer({
      ...question('web.example.', TYPE.MX),
      checkingDisabled: true,
    });
    assert.equal(passed.rcode, RCODE.NOERROR);
    assert.equal(passed.authenticated, false);
  });

  test('checking disabled releases no address', async () => {
    const world = new World({});
    world.zones.set('web.example.', { a: ['192.0.2.1'], verdict: 'bogus' });
    const answer = await world.capture.answer({
      ...question('web.example.', TYPE.A),
      checkingDisabled: true,
    });
    assert.equal(answer.rcode, RCODE.SERVFAIL);
  });
});
