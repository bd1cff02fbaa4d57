import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import test from 'node:test';
import fc from 'fast-check';
import { composeMessage } from '../../../resolver/dns/compose.ts';
import { composeEde } from '../../../resolver/dns/edns.ts';
import { type Message, parseHeader, parseMessage } from '../../../resolver/dns/message.ts';
import { DnsFormatError, Name } from '../../../resolver/dns/name.ts';
import { parseRrsig } from '../../../resolver/dns/dnssec-rdata.ts';
import { parseTarget } from '../../../resolver/dns/rdata.ts';
import { canonicalRdata } from '../../../resolver/dns/rdata-form.ts';
import { TYPE } from '../../../resolver/dns/types.ts';
import { messageArbitrary } from './arbitraries.ts';
import { extendedErrors } from './extended-errors.ts';

const dnsPacket = createRequire(import.meta.url)('dns-packet'); // has no types

const fromHex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replace(/\s+/g, ''), 'hex'));

/** RFC 1035 §4.1.4 layout: F.ISI.ARPA at 20 as in the RFC, FOO.F.ISI.ARPA, ARPA and root after it, as owners of A records. */
const RFC1035_NAMES = `
  1234 8180 0000 0004 0000 0000
  01 46 03 495349 04 41525041 00  0001 0001 00000e10 0004 01020304
  03 464f4f c00c                  0001 0001 00000e10 0004 01020305
  c012                            0001 0001 00000e10 0004 01020306
  00                              0001 0001 00000e10 0004 01020307`;

test('compressed owners as RFC 1035 §4.1.4 draws them', () => {
  const message = parseMessage(fromHex(RFC1035_NAMES));
  assert.deepEqual(
    message.answer.map(record => record.name.toText()),
    ['F.ISI.ARPA.', 'FOO.F.ISI.ARPA.', 'ARPA.', '.'],
  );
  assert.deepEqual([...message.answer[1]!.rdata], [1, 2, 3, 5]);
  assert.deepEqual(
    Buffer.from(composeMessage(message)),
    Buffer.from(fromHex(RFC1035_NAMES)),
    'and we compress alike',
  );
});

test('names in RDATA of well-known types come out whole; of other types they are bytes', () => {
  const message = parseMessage(
    fromHex(`0000 8000 0000 0003 0000 0000
      01 61 00        0005 0001 00000001 0004 0162 c00c
      c00c            000f 0001 00000001 0004 000a c00c
      c00c            ff00 0001 00000001 0002 c00c`),
  );
  assert.equal(parseTarget(message.answer[0]!.rdata)?.toText(), 'b.a.');
  assert.deepEqual([...message.answer[1]!.rdata], [0, 10, 1, 0x61, 0]);
  assert.deepEqual([...message.answer[2]!.rdata], [0xc0, 0x0c]);
});

test('one odd record harms only itself', () => {
  const message = parseMessage(
    fromHex(`0000 8000 0000 0004 0000 0000
      01 61 00  0001 0001 00000001 0003 010203
      c00c      0005 0001 00000001 0002 c0ff
      c00c      0030 0001 00000001 0005 0100 02 08 aa
      c00c      0001 0001 ffffffff 0004 01020304`),
  );
  assert.deepEqual(
    message.answer.map(record => record.malformed ?? false),
    [true, true, false, false],
  );
  assert.equal(message.answer[3]!.ttlSeconds, 0, 'RFC 2181 §8: top bit set counts as zero');
});

test('messages whose structure lies are refused', () => {
  const bad: [string, string][] = [
    ['', 'empty'],
    ['1234 8180 0001 0000 0000 0000', 'a question that is not there'],
    ['1234 8180 0000 ffff 0000 0000', 'counts beyond the bytes'],
    ['1234 8180 0000 0000 0000 0000 00', 'a byte after the end'],
    ['1234 8180 0000 0001 0000 0000 00 0001 0001 00000000 0005 01020304', 'RDLENGTH beyond the end'],
    ['1234 8180 0000 0001 0000 0000 00 0029 0200 00000000 0000', 'OPT in the answer'],
    ['1234 8180 0000 0000 0000 0002 00 0029 0200 00000000 0000 00 0029 0200 00000000 0000', 'two OPTs'],
    ['1234 8180 0000 0000 0000 0001 0161 00 0029 0200 00000000 0000', 'OPT not at the root'],
    ['1234 8180 0000 0000 0000 0001 00 0029 0200 00000000 0004 0003 0005', 'an option that is too long'],
  ];
  for (const [text, why] of bad) assert.throws(() => parseMessage(fromHex(text)), DnsFormatError, why);
});

test('EDNS: extended RCODE, version, DO, options, EDE (RFC 6891 §6.1.3, RFC 8914 §2)', () => {
  const wire = fromHex('1234 8180 0000 0000 0000 0001 00 0029 04d0 01008000 000b 000f 0007 0006 626f677573');
  const message = parseMessage(wire);
  assert.equal(message.rcode, 16);
  assert.equal(message.edns?.udpSize, 1232);
  assert.ok(message.edns?.dnssecOk);
  assert.deepEqual(extendedErrors(message.edns), [{ code: 6, text: 'bogus' }]);
  assert.deepEqual(Buffer.from(composeMessage(message)), Buffer.from(wire));
  assert.equal(composeEde({ code: 0, text: 'ä'.repeat(150) }).data.length, 202, 'cut between characters');
});

test('truncation: additional records first, then everything but question and OPT', () => {
  const record = (size: number): Message['answer'][0] => ({
    name: Name.parseText('x.example'),
    type: 16,
    class: 1,
    ttlSeconds: 1,
    rdata: new Uint8Array(size).fill(1),
  });
  const message: Message = {
    ...parseHeader(fromHex('1234 8180 0000 0000 0000 0000'))!,
    questions: [{ name: Name.parseText('x.example'), type: 16, class: 1 }],
    answer: [record(400)],
    authority: [],
    additional: [record(400)],
    edns: { udpSize: 1232, version: 0, dnssecOk: false, options: [] },
  };
  const lean = parseMessage(composeMessage(message, 512));
  assert.deepEqual([lean.truncated, lean.answer.length, lean.additional.length], [false, 1, 0]);
  const short = parseMessage(composeMessage({ ...message, answer: [record(600)] }, 512));
  assert.deepEqual([short.truncated, short.answer.length, short.questions.length], [true, 0, 1]);
  assert.equal(short.edns?.udpSize, 1232);
});

test('what is parsed owns its bytes: a receive buffer may be used again', () => {
  const wire = fromHex(`0000 8000 0001 0003 0000 0001  0577777777 61 0000 01 0001
    c00c 0001 0001 00000001 0004 01020304
    c00c 0005 0001 00000001 0003 014100
    c00c 002e 0001 00000001 0017 0001 0d 01 0000003c 00000000 00000000 0001 014100 aabb
    00 0029 04d0 00000000 0006 000a 0002 0102`);
  const plain = (m: Message): string => JSON.stringify(m, (_, v) => (v instanceof Uint8Array ? v.join() : v));
  const buffer = Buffer.from(wire);
  const message = parseMessage(buffer);
  const rrsig = parseRrsig(message.answer[2]!.rdata)!;
  canonicalRdata(TYPE.CNAME, message.answer[1]!.rdata);
  assert.equal(plain(message), plain(parseMessage(wire)), 'looking changes nothing');
  buffer.fill(0xff);
  assert.equal(plain(message), plain(parseMessage(wire)));
  assert.equal(rrsig.signer.toText(), 'A.');
});

test('property: what is composed parses to the same', () => {
  fc.assert(
    fc.property(messageArbitrary, message => {
      const back = parseMessage(composeMessage(message));
      const plain = (m: Message): unknown =>
        JSON.stringify(m, (_, v) => (v instanceof Name ? v.wire.join() : v));
      assert.equal(plain(back), plain({ ...message }));
    }),
  );
});

test('dns-packet reads what we compose, and we read what it encodes', () => {
  const query = dnsPacket.encode({
    type: 'response',
    id: 4711,
    flags: dnsPacket.RECURSION_DESIRED | dnsPacket.AUTHENTIC_DATA,
    questions: [{ type: 'A', name: 'www.example.com' }],
    answers: [
      { type: 'CNAME', name: 'www.example.com', ttl: 5, data: 'web.example.net' },
      { type: 'A', name: 'web.example.net', ttl: 60, data: '192.0.2.1' },
      {
        type: 'MX',
        name: 'web.example.net',
        ttl: 60,
        data: { preference: 10, exchange: 'mail.example.net' },
      },
      {
        type: 'DS',
        name: 'example.net',
        ttl: 60,
        data: { keyTag: 7, algorithm: 13, digestType: 2, digest: Buffer.alloc(32) },
      },
    ],
  });
  const message = parseMessage(query);
  assert.equal(parseTarget(message.answer[0]!.rdata)?.toText(), 'web.example.net.');
  const decoded = dnsPacket.decode(Buffer.from(composeMessage(message)));
  assert.deepEqual(decoded.answers, dnsPacket.decode(query).answers);
  assert.equal(decoded.id, 4711);
  assert.equal(decoded.flag_ad, true);
  assert.equal(message.answer[3]!.type, TYPE.DS);
});

test('hostile: mutants of real messages throw the format error or nothing', () => {
  const seeds = [RFC1035_NAMES].map(fromHex);
  fc.assert(
    fc.property(
      messageArbitrary,
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 8 }),
      fc.nat(),
      (m, edits, cut) => {
        for (const seed of [...seeds, composeMessage(m)]) {
          const mutant = seed.slice(0, seed.length - (cut % 3 === 0 ? cut % seed.length : 0));
          for (const [at, byte] of edits) mutant[at % seed.length] = byte;
          try {
            const parsed = parseMessage(mutant);
            composeMessage({ ...parsed, rcode: parsed.rcode & 15 });
          } catch (error) {
            assert.ok(error instanceof DnsFormatError, String(error));
          }
        }
      },
    ),
    { numRuns: 2000 },
  );
});

test('hostile: a 64 KB pointer chain costs no more than other messages', () => {
  // Pointers to pointers, 16,000 deep, then owners that all lead to its deep end.
  const bomb = new Uint8Array(65_535);
  let at = 23;
  bomb.set([0, 0], at);
  for (at += 2; at < 16_000; at += 2) bomb.set([0xc0 | ((at - 2) >> 8), (at - 2) & 0xff], at);
  assert.throws(() => Name.read(bomb, at - 2), /too many compression pointers/);
  // Each of 3,000 records points at a name of 127 labels: read once.
  const long = Name.parseText('a.'.repeat(127));
  const header = fromHex('0000 8000 0000 0bb9 0000 0000');
  const records: Uint8Array[] = [header, long.wire, fromHex('ff00 0001 00000000 0000')];
  for (let i = 0; i < 3000; i++) records.push(fromHex('c00c ff00 0001 00000000 0000'));
  const names = new Set(parseMessage(Buffer.concat(records)).answer.map(record => record.name));
  assert.equal(names.size, 1);
});
