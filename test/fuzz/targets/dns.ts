import assert from 'node:assert/strict';
import fc from 'fast-check';
import { composeMessage } from '../../../resolver/dns/compose.ts';
import {
  parseDnskey,
  parseDs,
  parseNsec,
  parseNsec3,
  parseRrsig,
} from '../../../resolver/dns/dnssec-rdata.ts';
import { composeOptions, parseOptions } from '../../../resolver/dns/edns.ts';
import { composeIpseckey, parseIpseckey } from '../../../resolver/dns/ipseckey.ts';
import { type Message, parseHeader, parseMessage } from '../../../resolver/dns/message.ts';
import { DnsFormatError, Name } from '../../../resolver/dns/name.ts';
import { canonicalRdata, readRdata } from '../../../resolver/dns/rdata-form.ts';
import { rdataToText } from '../../../resolver/dns/rdata-text.ts';
import { parseMx, parseSoa, parseSrv, parseTarget, parseTxt } from '../../../resolver/dns/rdata.ts';
import { groupRrsets } from '../../../resolver/dns/rrset.ts';
import { addressHints, composeSvcb, parseSvcb, withoutAddressHints } from '../../../resolver/dns/svcb.ts';
import { TYPE } from '../../../resolver/dns/types.ts';
import { messageArbitrary } from '../../resolver/dns/arbitraries.ts';
import { recordedAnswers } from '../answers.ts';
import type { Target } from '../target.ts';
import { octets, unless } from '../target.ts';

const PARSED_TYPES = Object.values(TYPE);

/** nsd's answers, and messages of our own making with whatever they may hold. */
export function messages(): Uint8Array[] {
  const made = fc.sample(messageArbitrary, { seed: 1, numRuns: 60 }).map(message => composeMessage(message));
  return [...recordedAnswers().exchanges.map(({ answer }) => answer), ...made];
}

/** RDATA of every type that somebody recorded or that the RFCs print. */
function rdatas(): Uint8Array[] {
  const recorded = recordedAnswers().exchanges.flatMap(({ answer }) => {
    const { answer: records, authority } = parseMessage(answer);
    return [...records, ...authority].map(({ rdata }) => rdata);
  });
  const hex = (text: string) => Uint8Array.from(Buffer.from(text, 'hex'));
  return [
    ...recorded,
    // RFC 9460 appendix D.2, figures 3, 5 and 7: foo.example.com. port=53; ipv6hint; alpn and mandatory.
    hex('001003666f6f076578616d706c6503636f6d00000300020035'),
    hex(
      '000103666f6f076578616d706c6503636f6d000006002020010db800000000000000000000000120010db8000000000000000000530001',
    ),
    hex(
      '001003666f6f076578616d706c65036f72670000000004000100040001000902683205683 2d3139'.replace(' ', '') +
        '00040004c0000201',
    ),
    // RFC 4025 section 3.2: gateway none, IPv4, name, IPv6.
    ...[
      '0a0002',
      '0a0102c0000226',
      '0a03020967617465776179076578616d706c6503636f6d00',
      '0a020220010db80000800200000000000000 01',
    ].map(head =>
      hex(`${head.replace(' ', '')}01035151537986ed35533b6064478eeeb27b5bd74dae149b6e81ba3a0521af82ab7801`),
    ),
    octets('\x04text\x05other'),
    Uint8Array.of(0, 10, 0, 20, 0, 53, ...octets('\x04host\x07example'), 0),
  ];
}

const message: Target = {
  name: 'dns/message',
  open: () => ({
    corpus: messages(),
    check(bytes) {
      const parsed = unless(() => parseMessage(bytes), DnsFormatError);
      if (parsed === undefined) return;
      for (const records of [parsed.answer, parsed.authority, parsed.additional]) {
        for (const rrset of groupRrsets(records)) {
          assert.ok(rrset.rdatas.length > 0 && rrset.ttlSeconds <= 0x7fffffff);
        }
        for (const { type, rdata, name } of records) {
          rdataToText(type, rdata);
          assert.ok(name.wire.length <= 255 && name.labelCount <= 127);
        }
      }
      // What was read can be written, and says the same. Malformed RDATA is kept as found, and its pointers lead elsewhere
      // then; names that were compressed may have become too much for one message.
      if ([...parsed.answer, ...parsed.authority, ...parsed.additional].some(one => one.malformed)) return;
      const composed = composeMessage(parsed);
      if (!parseHeader(composed)!.truncated || parsed.truncated)
        assert.deepEqual(essence(parseMessage(composed)), essence(parsed));
    },
  }),
};

function essence({ questions, answer, authority, additional, edns, ...header }: Message): unknown {
  const record = (one: Message['answer'][number]) =>
    `${one.name.toText()} ${one.type} ${one.class} ${one.ttlSeconds} ${Buffer.from(one.rdata).toString('hex')}`;
  return [
    header,
    questions.map(({ name, type }) => `${name.toText()} ${type}`),
    [answer, authority, additional].map(section => section.map(record)),
    edns === undefined
      ? undefined
      : { ...edns, options: edns.options.map(({ code, data }) => [code, ...data]) },
  ];
}

const name: Target = {
  name: 'dns/name',
  open: () => ({
    corpus: [
      ...messages(),
      octets('www.example.org.'),
      octets('dot\\.ted\\000\\255.example'),
      octets('*.a\\(b\\)\\;.\\"x.'),
      octets(`${'a'.repeat(63)}.`.repeat(3)),
    ],
    check(bytes, random) {
      const at = random.below(bytes.length);
      const read = unless(() => Name.read(bytes, at), DnsFormatError);
      if (read !== undefined) holds(read.name);
      const plain = unless(() => Name.readUncompressed(bytes, at, bytes.length), DnsFormatError);
      if (plain !== undefined) {
        holds(plain.name);
        assert.deepEqual([...plain.name.wire], [...bytes.subarray(at, plain.end)]);
      }
      const text = Buffer.from(bytes.subarray(0, 300)).toString('latin1');
      const parsed = unless(() => Name.parseText(text), DnsFormatError);
      if (parsed !== undefined) holds(parsed);
    },
  }),
};

/** What is true of every name. */
function holds(one: Name): void {
  assert.ok(one.wire.length <= 255);
  assert.ok(Name.parseText(one.toText()).wire.every((octet, i) => octet === one.wire[i]));
  assert.ok(Name.fromWire(one.wire).equals(one));
  assert.equal(one.canonical().key, one.key);
  assert.equal(one.compare(one.canonical()), 0);
  assert.equal([...one.labels()].length, one.labelCount);
  const parent = one.parent();
  if (parent !== undefined) assert.ok(one.isBelow(parent) && one.commonLabels(parent) === parent.labelCount);
}

const rdata: Target = {
  name: 'dns/rdata',
  open: () => ({
    corpus: rdatas(),
    check(bytes, random) {
      const type = random.pick(PARSED_TYPES);
      for (const parse of [
        parseSoa,
        parseMx,
        parseSrv,
        parseTxt,
        parseTarget,
        parseDs,
        parseDnskey,
        parseRrsig,
      ])
        parse(bytes);
      parseNsec(bytes)?.types.types();
      parseNsec3(bytes)?.types.types();
      assert.doesNotMatch(rdataToText(type, bytes), /undefined|NaN|\n/);
      const read = unless(() => readRdata(bytes, type, 0, bytes.length), DnsFormatError);
      if (read === undefined) return;
      const canonical = canonicalRdata(type, read);
      assert.equal(canonical.length, read.length);
      assert.deepEqual(canonicalRdata(type, canonical), canonical);
    },
  }),
};

const svcb: Target = {
  name: 'dns/svcb',
  open: () => ({
    corpus: rdatas(),
    check(bytes) {
      const parsed = parseSvcb(bytes);
      if (parsed === undefined) return;
      assert.deepEqual([...composeSvcb(parsed)], [...bytes]);
      const bare = withoutAddressHints(parsed);
      const { ipv4, ipv6 } = addressHints(bare);
      assert.deepEqual([ipv4, ipv6], [[], []]);
      assert.ok(parseSvcb(composeSvcb(bare)) !== undefined);
    },
  }),
};

const ipseckey: Target = {
  name: 'dns/ipseckey',
  open: () => ({
    corpus: rdatas(),
    check(bytes) {
      const parsed = parseIpseckey(bytes);
      if (parsed !== undefined) assert.deepEqual([...composeIpseckey(parsed)], [...bytes]);
    },
  }),
};

const edns: Target = {
  name: 'dns/edns',
  open: () => ({
    // RFC 7871 section 7.1.2 client subnet, RFC 7873 cookie, RFC 7828 keepalive, RFC 8914 extended error.
    corpus: [
      '0008000700011800c00002',
      '000a00080102030405060708',
      '000b00020064',
      '000f0010000665787069726564207369676e61',
    ].map(hex => Uint8Array.from(Buffer.from(hex, 'hex'))),
    check(bytes) {
      const options = unless(() => parseOptions(bytes), DnsFormatError);
      if (options === undefined) return;
      assert.deepEqual([...composeOptions(options)], [...bytes]);
    },
  }),
};

export const dnsTargets: readonly Target[] = [message, name, rdata, svcb, ipseckey, edns];
