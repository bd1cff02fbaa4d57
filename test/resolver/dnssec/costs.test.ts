/** Zones made to be expensive (CVE-2023-50387, CVE-2023-50868): they end bogus, and others are served meanwhile. */
import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import test from 'node:test';
import { parseDnskey } from '../../../resolver/dns/dnssec-rdata.ts';
import type { Message, ResourceRecord } from '../../../resolver/dns/message.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { base32hex } from '../../../resolver/dns/rdata-text.ts';
import { RCODE, TYPE } from '../../../resolver/dns/types.ts';
import { parseTrustAnchors } from '../../../resolver/dnssec/anchors.ts';
import { nsec3Hash } from '../../../resolver/dnssec/nsec3.ts';
import { ValidatingResolver } from '../../../resolver/dnssec/resolver.ts';
import type { Resolution, UpstreamQuestion } from '../../../resolver/dnssec/types.ts';

const NOW = 1_700_000_000;
const ALGORITHM = 14;
const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-384' });
const { x, y } = publicKey.export({ format: 'jwk' });
const point = Buffer.concat([Buffer.from(x!, 'base64url'), Buffer.from(y!, 'base64url')]);
const keyRdata = (bytes: Uint8Array): Uint8Array => Uint8Array.of(1, 1, 3, ALGORITHM, ...bytes);
const zoneKey = parseDnskey(keyRdata(point))!;
const digest = createHash('sha256').update(Name.root.wire).update(zoneKey.rdata).digest('hex');
const anchors = parseTrustAnchors(`. DS ${zoneKey.keyTag} ${ALGORITHM} 2 ${digest}`);

/** The tag is a sum of 16-bit words: swapping two words keeps it. */
const colliding = Array.from({ length: 40 }, (_, i) => {
  const swapped = Buffer.from(point);
  point.copy(swapped, 0, 2 * i + 2, 2 * i + 4);
  point.copy(swapped, 2 * i + 2, 0, 2);
  return keyRdata(swapped);
});

const record = (name: Name, type: number, rdata: Uint8Array): ResourceRecord => ({
  name,
  type,
  class: 1,
  ttlSeconds: 60,
  rdata,
});

/** The RRset with its signature by the root's key; `spoil` is added to the last byte. */
function rrsig(name: Name, type: number, rdatas: readonly Uint8Array[], spoil: number = 0): ResourceRecord {
  const head = Buffer.alloc(18);
  head.writeUInt16BE(type, 0);
  head[2] = ALGORITHM;
  head[3] = name.labelCount;
  head.writeUInt32BE(60, 4);
  head.writeUInt32BE(NOW + 1000, 8);
  head.writeUInt32BE(NOW - 1000, 12);
  head.writeUInt16BE(zoneKey.keyTag, 16);
  const signed = [...rdatas].sort(Buffer.compare).map(rdata => {
    const fixed = Buffer.alloc(10);
    fixed.writeUInt16BE(type, 0);
    fixed.writeUInt16BE(1, 2);
    fixed.writeUInt32BE(60, 4);
    fixed.writeUInt16BE(rdata.length, 8);
    return Buffer.concat([name.wire, fixed, rdata]);
  });
  const data = Buffer.concat([head, Name.root.wire, ...signed]);
  const signature = sign('sha384', data, { key: privateKey, dsaEncoding: 'ieee-p1363' });
  signature[95] = (signature[95]! + spoil) & 0xff;
  return record(name, TYPE.RRSIG, Uint8Array.of(...head, 0, ...signature));
}

const www = Name.parseText('www.test');
const address = Uint8Array.of(192, 0, 2, 1);
const badSignatures = Array.from({ length: 60 }, (_, i) => rrsig(www, TYPE.A, [address], i + 1));

/** Asks with all answers made beforehand; `turns` counts how often others could have been served. */
async function cost(
  name: Name,
  keys: readonly Uint8Array[],
  parts: Partial<Message>,
): Promise<{ found: Resolution; turns: number }> {
  const dnskeys = [
    ...keys.map(rdata => record(Name.root, TYPE.DNSKEY, rdata)),
    rrsig(Name.root, TYPE.DNSKEY, keys),
  ];
  const reply = (question: UpstreamQuestion, rest: Partial<Message>): Message => ({
    id: 0,
    response: true,
    opcode: 0,
    authoritative: false,
    truncated: false,
    recursionDesired: true,
    recursionAvailable: true,
    authenticData: false,
    checkingDisabled: true,
    rcode: RCODE.NOERROR,
    questions: [{ ...question, class: 1 }],
    answer: [],
    authority: [],
    additional: [],
    ...rest,
  });
  const resolver = new ValidatingResolver({
    exchange: async question => reply(question, question.type === TYPE.DNSKEY ? { answer: dnskeys } : parts),
    anchors,
    now: () => NOW,
  });
  let turns = 0;
  let done = false;
  const count = (): void => {
    turns++;
    if (!done) setImmediate(count);
  };
  setImmediate(count);
  const found = await resolver.lookup(name, TYPE.A);
  done = true;
  return { found, turns };
}

test('an honest answer by the same key is secure', async () => {
  const { found } = await cost(www, [zoneKey.rdata], {
    answer: [record(www, TYPE.A, address), rrsig(www, TYPE.A, [address])],
  });
  assert.equal(found.verdict, 'secure', found.ede?.text);
});

test('KeyTrap: 41 keys of one tag, 60 wrong signatures', async () => {
  const { found, turns } = await cost(www, [zoneKey.rdata, ...colliding], {
    answer: [record(www, TYPE.A, address), ...badSignatures],
  });
  assert.equal(found.verdict, 'bogus');
  assert.match(found.ede!.text, /too many bad signatures|too many signatures are wrong/);
  assert.ok(turns >= 2, `${turns} turns for others`);
});

test('NSEC3: 120 labels and 150 iterations', async () => {
  const hash = nsec3Hash(Name.root, Buffer.from('ab'), 150);
  const owner = Name.parseText(base32hex(hash));
  const next = hash.with(19, hash[19]! + 1); // nothing lies between
  const nsec3 = Uint8Array.of(1, 0, 0, 150, 2, 0x61, 0x62, 20, ...next, 0, 1, 0x22);
  const { found, turns } = await cost(Name.parseText('a.'.repeat(120)), [zoneKey.rdata], {
    rcode: RCODE.NXDOMAIN,
    authority: [record(owner, TYPE.NSEC3, nsec3), rrsig(owner, TYPE.NSEC3, [nsec3])],
  });
  assert.deepEqual([found.verdict, found.ede?.text], ['bogus', 'too many NSEC3 hashes to compute']);
  assert.ok(turns >= 4, `${turns} turns for others`);
});

test('a hundred well-signed NSECs are not looked at', async () => {
  const authority = Array.from({ length: 100 }, (_, i) => {
    const owner = Name.parseText(`a${i}`);
    const nsec = Uint8Array.of(1, 0x62, 0, 0, 1, 0x40);
    return [record(owner, TYPE.NSEC, nsec), rrsig(owner, TYPE.NSEC, [nsec])];
  }).flat();
  const { found } = await cost(www, [zoneKey.rdata], { rcode: RCODE.NXDOMAIN, authority });
  assert.deepEqual([found.verdict, found.ede?.text], ['bogus', 'more than 16 denials in one answer']);
});
