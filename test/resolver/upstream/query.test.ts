import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { parseMessage } from '../../../resolver/dns/message.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { TYPE } from '../../../resolver/dns/types.ts';
import { composeQuery, judge } from '../../../resolver/upstream/query.ts';

const OPT_OCTETS = 11;

test('a query is composed as our own parser reads it', () => {
  const message = parseMessage(composeQuery(Name.parseText('www.example.com'), TYPE.IPSECKEY, 0xbeef));
  assert.equal(message.id, 0xbeef);
  assert.deepEqual(
    [message.response, message.recursionDesired, message.checkingDisabled],
    [false, true, true],
  );
  assert.deepEqual(message.edns, { udpSize: 1232, version: 0, dnssecOk: true, options: [] });
  assert.equal(message.questions[0]!.type, TYPE.IPSECKEY);
});

/** The answer that echoes the question, with one change. */
function echo(query: Uint8Array, change: (bytes: Uint8Array) => void = () => {}): Uint8Array {
  const bytes = query.slice(0, query.length - OPT_OCTETS);
  bytes[2]! |= 0x80;
  bytes[11] = 0;
  change(bytes);
  return bytes;
}

test('nothing in header or question may differ but flags, counts and the case of letters', () => {
  // '@' and '`', '[' and '{' differ in the same bit as letters do and are no letters.
  // Type 65 is the letter A, had it been part of the name.
  const query = composeQuery(Name.parseText('@[aZ`{9.example'), TYPE.HTTPS, 0x4142);
  assert.equal(judge(echo(query), query), 'answer');
  for (let at = 0; at < query.length - OPT_OCTETS; at++) {
    for (let bit = 0; bit < 8; bit++) {
      const flipped = echo(query, bytes => {
        bytes[at]! ^= 1 << bit;
      });
      const octet = query[at]!;
      const letter =
        at > 12 && at < query.length - OPT_OCTETS - 4 && /[a-z]/i.test(String.fromCharCode(octet));
      const expected =
        at === 2
          ? bit === 1
            ? 'truncated'
            : bit === 0 || bit === 2
              ? 'answer'
              : 'foreign'
          : at === 3 || (at >= 6 && at < 12) || (letter && bit === 5)
            ? 'answer'
            : 'foreign';
      assert.equal(judge(flipped, query), expected, `octet ${at}, bit ${bit}`);
    }
  }
});

test('a bare header is a rejection when it says no, and never an answer', () => {
  const query = composeQuery(Name.parseText('www.example.com'), TYPE.A, 7);
  for (let rcode = 0; rcode < 16; rcode++) {
    const bare = echo(query, bytes => {
      bytes[3] = 0x80 | rcode;
      bytes[5] = 0;
    }).subarray(0, 12);
    assert.equal(judge(bare, query), [1, 2, 4, 5].includes(rcode) ? 'rejection' : 'foreign');
  }
});

test('whatever comes, judging does not throw', () => {
  const query = composeQuery(Name.parseText('www.example.com'), TYPE.A, 0);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), bytes => {
      judge(bytes, query);
    }),
  );
});
