import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { parseMessage } from '../../../resolver/dns/message.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { TYPE } from '../../../resolver/dns/types.ts';
import { composeQuery, judge, mixCase, questionEnd, restoreCase } from '../../../resolver/upstream/query.ts';

const OPT_OCTETS = 11;

test('a query is composed as our own parser reads it', () => {
  const message = parseMessage(
    composeQuery(Name.parseText('www.example.com'), TYPE.IPSECKEY, { id: 0xbeef }),
  );
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

test('nothing in header or question may differ but flags and counts, and the case of letters is told apart', () => {
  // '@' and '`', '[' and '{' differ in the same bit as letters do and are no letters.
  // Type 65 is the letter A, had it been part of the name.
  const query = composeQuery(Name.parseText('@[aZ`{9.example'), TYPE.HTTPS, { id: 0x4142 });
  assert.equal(judge(echo(query), query, query.length - OPT_OCTETS), 'answer');
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
          : at === 3 || (at >= 6 && at < 12)
            ? 'answer'
            : letter && bit === 5
              ? 'folded'
              : 'foreign';
      assert.equal(judge(flipped, query, query.length - OPT_OCTETS), expected, `octet ${at}, bit ${bit}`);
    }
  }
});

test('a bare header is a rejection when it says no, and never an answer', () => {
  const query = composeQuery(Name.parseText('www.example.com'), TYPE.A, { id: 7 });
  for (let rcode = 0; rcode < 16; rcode++) {
    const bare = echo(query, bytes => {
      bytes[3] = 0x80 | rcode;
      bytes[5] = 0;
    }).subarray(0, 12);
    assert.equal(
      judge(bare, query, query.length - OPT_OCTETS),
      [1, 2, 4, 5].includes(rcode) ? 'rejection' : 'foreign',
    );
  }
});

test('whatever comes, judging does not throw', () => {
  const query = composeQuery(Name.parseText('www.example.com'), TYPE.A, { id: 0 });
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), bytes => {
      judge(bytes, query, query.length - OPT_OCTETS);
    }),
  );
});

test('options: cookie, keepalive, and padding to whole blocks (RFC 8467 section 4.1)', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 63 }),
      fc.option(fc.uint8Array({ minLength: 8, maxLength: 40 }), { nil: undefined }),
      fc.boolean(),
      fc.boolean(),
      (label, cookie, keepalive, padded) => {
        const name = Name.parseText(`${'x'.repeat(label)}.example`);
        const query = composeQuery(name, TYPE.A, { id: 1, cookie, keepalive, padded });
        const { edns } = parseMessage(query);
        const codes = edns!.options.map(({ code }) => code);
        assert.deepEqual(codes, [
          ...(cookie ? [10] : []),
          ...(keepalive ? [11] : []),
          ...(padded ? [12] : []),
        ]);
        if (cookie) assert.deepEqual(edns!.options[0]!.data, cookie);
        if (padded) assert.equal(query.length % 128, 0);
        if (padded) assert.ok(edns!.options.at(-1)!.data.every(octet => octet === 0));
      },
    ),
  );
});

test('the case of letters is drawn, nothing else is touched, and it can be put back', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 1, maxLength: 63 }),
      fc.uint8Array({ maxLength: 63 }),
      (one, two) => {
        const label = (octets: Uint8Array) => (octets.length === 0 ? [] : [octets.length, ...octets]);
        const name = Name.fromWire(Uint8Array.of(...label(one), ...label(two), 0));
        const query = composeQuery(name, TYPE.A, { id: 0 });
        const before = query.slice();
        mixCase(query, name, () => 0xffffffff);
        assert.equal(judge(echo(query), before, questionEnd(name)) === 'foreign', false);
        for (let at = 0; at < query.length; at++) {
          const isLetter = /[A-Za-z]/.test(String.fromCharCode(before[at]!));
          const inName = at >= 12 && at < 12 + name.wire.length;
          if (!inName || !isLetter) assert.equal(query[at], before[at]);
          else assert.equal(query[at], before[at]! & ~0x20, 'all bits set: upper case');
        }
        restoreCase(query, name);
        assert.deepEqual(query, before);
      },
    ),
  );
  const name = Name.parseText('abcdefghijklmnopqrstuvwxyz.abcdefghijklmnopqrstuvwxyz');
  const query = composeQuery(name, TYPE.A, { id: 0 });
  let draws = 0;
  mixCase(query, name, () => {
    draws++;
    return 0x55555555;
  });
  assert.equal(draws, 2, '32 letters from each draw');
  assert.equal(
    Buffer.from(query.subarray(13, 39)).toString(),
    'AbCdEfGhIjKlMnOpQrStUvWxYz'.replace(/[A-Z]/g, c => c),
  );
});
