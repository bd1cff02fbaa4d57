import assert from 'node:assert/strict';
import test from 'node:test';
import { parseIpAddress } from '../../../resolver/address.ts';
import { type AddressStory, Story } from '../../../resolver/capture/journal.ts';
import { adviceFor } from '../../../resolver/control/advice.ts';
import { EDE, TYPE } from '../../../resolver/dns/types.ts';

const story = () => new Story('one.example', TYPE.A, () => 0, { unixNow: 0 });
const address: AddressStory = {
  address: parseIpAddress('192.0.2.1')!,
  answered: true,
  group: 'private-or-clear',
  assurance: 'authenticated',
};

test('every way to fail has its advice', () => {
  const codes = ['no-answer', 'refused', 'not-proven', 'conflict', 'kernel', 'unable', 'busy'] as const;
  const texts = codes.map(failure => {
    const told = story();
    told.addresses = [address, { ...address, failure }];
    return adviceFor(told);
  });
  assert.equal(new Set(texts).size, codes.length);
  assert.ok(texts.every(text => text !== undefined && text.length > 20));
  assert.match(texts[0]!, /UDP 500 and 4500 reach 192\.0\.2\.1.*holdfast forget one\.example/);
});

test('DNSSEC failures have theirs, and where all is well there is none', () => {
  for (const [code, pattern] of [
    [EDE.SIGNATURE_EXPIRED, /clock/],
    [EDE.SIGNATURE_NOT_YET_VALID, /clock/],
    [EDE.DNSSEC_BOGUS, /delv one\.example/],
  ] as const) {
    const told = story();
    told.ede = [{ code, text: '' }];
    assert.match(adviceFor(told)!, pattern);
  }
  const told = story();
  told.addresses = [address];
  assert.equal(adviceFor(told), undefined);
});
