import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import test from 'node:test';
import fc from 'fast-check';
import {
  keyTag,
  parseDnskey,
  parseNsec,
  parseNsec3,
  parseRrsig,
  parseTypeBitmap,
} from '../../../resolver/dns/dnssec-rdata.ts';
import { composeIpseckey, parseIpseckey } from '../../../resolver/dns/ipseckey.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { parseMx, parseSoa, parseSrv, parseTxt } from '../../../resolver/dns/rdata.ts';
import { canonicalRdata } from '../../../resolver/dns/rdata-form.ts';
import { ipv6ToText, rdataToText } from '../../../resolver/dns/rdata-text.ts';
import { groupRrsets } from '../../../resolver/dns/rrset.ts';
import { addressHints, composeSvcb, parseSvcb, withoutAddressHints } from '../../../resolver/dns/svcb.ts';
import { TYPE, typeFromText, typeToText } from '../../../resolver/dns/types.ts';

const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replace(/\s+/g, ''), 'hex'));
const base64 = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, 'base64'));

test('IPSECKEY: the examples of RFC 4025 §3.2', () => {
  const key = 'AQNRU3mG7TVTO2BkR47usntb102uFJtugbo6BSGvgqt4AQ==';
  const examples: [string, Parameters<typeof composeIpseckey>[0]['gateway']][] = [
    [`10 1 2 192.0.2.38 ${key}`, { kind: 'ipv4', address: Uint8Array.of(192, 0, 2, 38) }],
    [`10 0 2 . ${key}`, { kind: 'none' }],
    [`10 3 2 mygateway.example.com. ${key}`, { kind: 'name', name: Name.parseText('mygateway.example.com') }],
    [
      `10 2 2 2001:db8:0:8002::2000:1 ${key}`,
      { kind: 'ipv6', address: hex('20010db8000080020000000020000001') },
    ],
  ];
  for (const [text, gateway] of examples) {
    const rdata = composeIpseckey({ precedence: 10, algorithm: 2, gateway, publicKey: base64(key) });
    assert.equal(rdataToText(TYPE.IPSECKEY, rdata), text);
    assert.deepEqual(parseIpseckey(rdata)?.publicKey, base64(key));
  }
});

test('IPSECKEY: gateways that do not fit, and unknown gateway types, are no record', () => {
  for (const text of [
    '0a',
    '0a 01 02 c00002',
    '0a 02 02 20010db8',
    '0a 03 02 07 6578',
    '0a 04 02 00',
    '0a 03 02 c000 aa',
  ]) {
    assert.equal(parseIpseckey(hex(text)), undefined, text);
  }
  assert.deepEqual(parseIpseckey(hex('0a 00 00'))?.publicKey.length, 0);
});

test('SVCB: test vectors of RFC 9460 App. D', () => {
  const port = hex('0001 03666f6f 076578616d706c65 03636f6d 00 0003 0002 0035'); // figure 4
  assert.equal(rdataToText(TYPE.SVCB, port), '1 foo.example.com. port=53');
  const hints = hex(`0001 03666f6f 076578616d706c65 03636f6d 00 0006 0020
    20010db8000000000000000000000001 20010db8000000000000000000530001`); // figure 7
  assert.equal(rdataToText(TYPE.HTTPS, hints), '1 foo.example.com. ipv6hint=2001:db8::1,2001:db8::53:1');
  const alias = hex('0000 03666f6f 076578616d706c65 03636f6d 00'); // figure 2
  assert.deepEqual([parseSvcb(alias)?.priority, parseSvcb(alias)?.params.length], [0, 0]);
  const unordered = hex('0001 00 0003 0002 0035 0001 0003 026832');
  assert.equal(parseSvcb(unordered), undefined);
  assert.deepEqual(Buffer.from(composeSvcb(parseSvcb(hints)!)), Buffer.from(hints));
});

test('SVCB: hints leave the record, and the list of mandatory keys', () => {
  const rdata = hex(
    '0001 00 0000 0004 0001 0004 0001 0003 026832 0004 0004 c0000201 0006 0010 20010db8000000000000000000000001',
  );
  const svcb = parseSvcb(rdata)!;
  assert.deepEqual(
    addressHints(svcb).ipv4.map(a => [...a]),
    [[192, 0, 2, 1]],
  );
  assert.deepEqual(
    Buffer.from(composeSvcb(withoutAddressHints(svcb))),
    Buffer.from(hex('0001 00 0000 0002 0001 0001 0003 026832')),
  );
  const only = parseSvcb(hex('0001 00 0000 0002 0004 0004 0004 c0000201'))!;
  assert.equal(withoutAddressHints(only).params.length, 0);
});

test('DNSKEY: key tag of RFC 4034 §5.4', () => {
  const key =
    'AQOeiiR0GOMYkDshWoSKz9XzfwJr1AYtsmx3TGkJaNXVbfi/2pHm822aJ5iI9BMzNXxeYCmZDRD99WYwYqUSdjMmmAphXdvxegXd/M5+X7OrzKBaMbCVdFLUUh6DhweJBjEVv5f2wwjM9XzcnOf+EPbtG9DMBmADjFDc2w/rljwvFw==';
  const rdata = Uint8Array.of(1, 0, 3, 5, ...base64(key));
  assert.equal(keyTag(rdata), 60485);
  assert.equal(parseDnskey(rdata)?.keyTag, 60485);
  assert.equal(rdataToText(TYPE.DNSKEY, rdata), `256 3 5 ${key}`);
});

test('NSEC: the example of RFC 4034 §4.3', () => {
  const rdata = hex(`04 686f7374 07 6578616d706c65 03 636f6d 00 0006 400100000003
    041b 0000000000000000000000000000000000000000000000000000 20`);
  assert.equal(rdataToText(TYPE.NSEC, rdata), 'host.example.com. A MX RRSIG NSEC TYPE1234');
  const bitmap = parseNsec(rdata)!.types;
  assert.ok(bitmap.has(TYPE.A) && bitmap.has(1234) && !bitmap.has(TYPE.AAAA) && !bitmap.has(65535));
});

test('NSEC3 and RRSIG in text (RFC 5155 App. A, RFC 4034 §3.3 layout)', () => {
  const nsec3 = hex(
    '01 01 000c 04 aabbccdd 14 174eb2409fe28bcb4887a1836f957f0a8425e27b 0007 220100000002 90',
  ); // apex of App. A
  assert.equal(
    rdataToText(TYPE.NSEC3, nsec3),
    '1 1 12 AABBCCDD 2t7b4g4vsa5smi47k61mv5bv1a22bojr NS SOA MX RRSIG DNSKEY NSEC3PARAM',
  );
  assert.ok(parseNsec3(nsec3)?.optOut);
  const rrsig = hex(`0001 05 03 00015180 3e7c9dd7 3e5510d7 0a52 07 4578616d706c65 03 636f6d 00 aabb`);
  assert.equal(
    rdataToText(TYPE.RRSIG, rrsig),
    'A 5 3 86400 20030322173103 20030220173103 2642 Example.com. qrs=',
  );
  assert.ok(
    Buffer.from(parseRrsig(rrsig)!.signedPrefix).includes('example'),
    'the signer is signed in lower case',
  );
});

test('type bitmaps that lie are refused', () => {
  for (const text of [
    '00',
    '0000',
    `0021${'00'.repeat(33)}`,
    '0002 40',
    '0101 80 0001 40',
    '0001 40 0001 40',
  ]) {
    assert.equal(parseTypeBitmap(hex(text)), undefined, text);
  }
});

test('canonical RDATA lower-cases the names that RFC 4034 §6.2 and RFC 6840 §5.1 list', () => {
  const upper = hex('03 464f4f 00');
  const lower = hex('03 666f6f 00');
  for (const type of [TYPE.NS, TYPE.CNAME, TYPE.PTR, TYPE.DNAME])
    assert.deepEqual(canonicalRdata(type, upper), lower);
  assert.deepEqual(canonicalRdata(TYPE.MX, hex('000a 03464f4f 00')), hex('000a 03666f6f 00'));
  assert.deepEqual(
    canonicalRdata(TYPE.SRV, hex('000000000000 03464f4f 00')),
    hex('000000000000 03666f6f 00'),
  );
  assert.deepEqual(
    canonicalRdata(TYPE.NAPTR, hex('00010002 0141 0142 0143 03464f4f 00')),
    hex('00010002 0141 0142 0143 03666f6f 00'),
  );
  assert.deepEqual(
    canonicalRdata(TYPE.NSEC, hex('03464f4f 00 0001 40')),
    hex('03464f4f 00 0001 40'),
    'NSEC keeps its case',
  );
  assert.deepEqual(
    canonicalRdata(TYPE.HTTPS, hex('0001 03464f4f 00')),
    hex('0001 03464f4f 00'),
    'new types keep theirs',
  );
});

test('other presentation forms', () => {
  assert.equal(rdataToText(TYPE.TXT, hex('03 612262 02 00ff')), '"a\\"b" "\\000\\255"');
  assert.equal(rdataToText(65280, hex('abcd')), '\\# 2 abcd');
  assert.equal(rdataToText(TYPE.A, hex('abcd')), '\\# 2 abcd', 'RDATA that does not fit is shown as bytes');
  assert.equal(
    rdataToText(TYPE.SOA, hex('00 00 00000001 00000002 00000003 00000004 00000005')),
    '. . 1 2 3 4 5',
  );
  assert.equal(parseSrv(hex('0001 0002 0035 00'))?.port, 53);
  assert.equal(parseMx(hex('000a'))?.preference, undefined);
  assert.equal(parseTxt(hex('05 61')), undefined);
  assert.equal(parseSoa(hex('00 00 00')), undefined);
  assert.equal(ipv6ToText(hex('00010000000000020000000000000003')), '1:0:0:2::3');
  assert.equal(ipv6ToText(new Uint8Array(16)), '::');
  assert.equal(typeFromText('type45'), 45);
  assert.equal(typeFromText('TYPE65536'), undefined);
  assert.equal(typeToText(1234), 'TYPE1234');
});

test('RRsets: grouped with their signatures, duplicates gone, least TTL, malformed and foreign classes left out', () => {
  const name = Name.parseText('a.example');
  const upper = Name.parseText('A.EXAMPLE');
  const sig = hex('0001 0d 02 0000003c 00000000 00000000 0001 00 aa');
  const record = { type: TYPE.A, class: 1, ttlSeconds: 60 };
  const sets = groupRrsets([
    { ...record, name, type: TYPE.RRSIG, rdata: sig },
    { ...record, name, rdata: hex('01020304') },
    { ...record, name: upper, ttlSeconds: 30, rdata: hex('01020305') },
    { ...record, name, rdata: hex('01020304') },
    { ...record, name, rdata: hex('010203'), malformed: true },
    { ...record, name, class: 3, rdata: hex('01020306') },
    { ...record, name, type: TYPE.RRSIG, rdata: hex('0010 0d 02 0000003c 00000000 00000000 0001 00 aa') },
  ]);
  assert.deepEqual(
    sets.map(set => [set.type, set.rdatas.length, set.signatures.length, set.ttlSeconds]),
    [
      [TYPE.A, 2, 1, 30],
      [TYPE.RRSIG, 1, 0, 60],
    ],
  );
});

test('hostile: random RDATA never throws out of any parser or printer', () => {
  const types = [...Array(70).keys(), 250, 257, 65280];
  fc.assert(
    fc.property(fc.constantFrom(...types), fc.uint8Array({ maxLength: 80 }), (type, rdata) => {
      assert.equal(typeof rdataToText(type, rdata), 'string');
      canonicalRdata(type, rdata);
    }),
    { numRuns: 5000 },
  );
});

test('root anchors of the Debian package carry the tags we name', t => {
  const file = '/usr/share/dns/root.key';
  if (!existsSync(file)) return t.skip('package dns-root-data is not installed');
  const tags = readFileSync(file, 'utf8')
    .split('\n')
    .filter(line => line.includes('DNSKEY'))
    .map(line => keyTag(Uint8Array.of(1, 1, 3, 8, ...base64(line.split(' ')[6]!))));
  assert.ok(tags.includes(20326));
});

test('however many records there are, each RDATA and each signature stands once, in the order found', () => {
  const signature = (n: number) => Uint8Array.from([0, 1, ...Array(16).fill(n), 0, n]);
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.boolean(), fc.nat(20)), { maxLength: 60 }), drawn => {
      const name = Name.parseText('a.example.');
      const records = drawn.map(([signed, n]) => ({
        name,
        type: signed ? TYPE.RRSIG : TYPE.A,
        class: 1,
        ttlSeconds: 60 + n,
        rdata: signed ? signature(n) : Uint8Array.of(192, 0, 2, n),
      }));
      const unique = (signed: boolean) => [
        ...new Set(drawn.filter(one => one[0] === signed).map(([, n]) => n)),
      ];
      const [first] = groupRrsets(records);
      if (drawn.length === 0) return;
      const addresses = unique(false);
      const signatures = unique(true).map(n => [...signature(n)]);
      assert.deepEqual(
        first!.rdatas.map(rdata => [...rdata]),
        addresses.length > 0 ? addresses.map(n => [192, 0, 2, n]) : signatures,
      );
      if (addresses.length > 0)
        assert.deepEqual(
          first!.signatures.map(rdata => [...rdata]),
          signatures,
        );
      assert.equal(first!.ttlSeconds, 60 + Math.min(...drawn.map(([, n]) => n)));
    }),
  );
});
