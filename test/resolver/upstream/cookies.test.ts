import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Cookies } from '../../../resolver/upstream/cookies.ts';

function counted(): (octets: number) => Uint8Array {
  let drawn = 0;
  return octets => new Uint8Array(octets).fill(++drawn);
}

const SERVER = Uint8Array.from({ length: 16 }, (_, i) => 0xa0 + i);
const joined = (client: Uint8Array, server: Uint8Array) => Uint8Array.of(...client, ...server);

test('the server part is learnt, sent back, and expected from then on', () => {
  const cookies = new Cookies(counted());
  const sent = cookies.optionFor('here');
  assert.deepEqual([...sent], [1, 1, 1, 1, 1, 1, 1, 1]);
  assert.equal(cookies.receive(sent, undefined), 'good', 'a server that knows no cookies');
  assert.equal(cookies.receive(sent, joined(sent, SERVER)), 'good');
  const again = cookies.optionFor('here');
  assert.deepEqual(again, joined(sent, SERVER));
  assert.equal(cookies.receive(again, undefined), 'missing');
  const renewed = SERVER.map(octet => octet ^ 0xff);
  assert.equal(cookies.receive(again, joined(sent, renewed)), 'good');
  assert.deepEqual(cookies.optionFor('here'), joined(sent, renewed));
  cookies.forget();
  assert.deepEqual(cookies.optionFor('here'), sent);
  assert.equal(cookies.receive(sent, undefined), 'good');
});

test('another address has another cookie, and late answers to the old one change nothing', () => {
  const cookies = new Cookies(counted());
  const old = cookies.optionFor('here');
  cookies.receive(old, joined(old, SERVER));
  const fresh = cookies.optionFor('there');
  assert.deepEqual([...fresh], [2, 2, 2, 2, 2, 2, 2, 2]);
  assert.equal(cookies.receive(old, joined(old, SERVER)), 'good');
  assert.deepEqual(cookies.optionFor('there'), fresh);
});

test('lengths that RFC 7873 does not know, and every other client part, are forged', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), octets => {
      const cookies = new Cookies(counted());
      const sent = cookies.optionFor('here');
      const ours = octets.length >= 8 && sent.every((octet, i) => octets[i] === octet);
      const fits = octets.length === 8 || (octets.length >= 16 && octets.length <= 40);
      assert.equal(cookies.receive(sent, octets), ours && fits ? 'good' : 'forged');
      assert.equal(cookies.known, ours && fits && octets.length > 8);
    }),
  );
  for (let length = 0; length <= 45; length++) {
    const cookies = new Cookies(counted());
    const sent = cookies.optionFor('here');
    const verdict = cookies.receive(sent, new Uint8Array(length).fill(1));
    assert.equal(verdict, length === 8 || (length >= 16 && length <= 40) ? 'good' : 'forged', `${length}`);
  }
});
