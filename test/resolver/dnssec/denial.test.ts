/** NSEC and NSEC3 proofs on hand-made chains: what they prove, and the tricks that must not work. */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { Nsec3, TypeBitmap } from '../../../resolver/dns/dnssec-rdata.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { base32hex } from '../../../resolver/dns/rdata-text.ts';
import { TYPE } from '../../../resolver/dns/types.ts';
import {
  nsecDsStatus,
  nsecProvesNodata,
  nsecProvesNoCloser,
  nsecProvesNxdomain,
  type OwnedNsec,
} from '../../../resolver/dnssec/nsec.ts';
import { Nsec3Chain, Nsec3List, nsec3Hash, type OwnedNsec3 } from '../../../resolver/dnssec/nsec3.ts';
import { DEFAULT_LIMITS, Work, WorkExceeded } from '../../../resolver/dnssec/work.ts';

const zone = Name.parseText('example');
const name = (text: string): Name => Name.parseText(text);
const bitmap = (...types: number[]): TypeBitmap => ({
  has: type => types.includes(type),
  types: () => types,
});
const nsec = (owner: string, next: string, ...types: number[]): OwnedNsec => ({
  owner: name(owner),
  nsec: { next: name(next), types: bitmap(TYPE.NSEC, TYPE.RRSIG, ...types) },
});

const APEX = nsec('example', 'b.example', TYPE.SOA, TYPE.NS);
const B = nsec('b.example', 'd.ent.example', TYPE.A);
const SUB = nsec('sub.example', '*.w.example', TYPE.NS);
const WILD = nsec('*.w.example', 'z.example', TYPE.A);
const LAST = nsec('z.example', 'example', TYPE.DNAME);

test('NSEC: NXDOMAIN needs the name and the wildcard covered', () => {
  assert.ok(nsecProvesNxdomain([APEX, B], name('c.example'), zone));
  assert.ok(!nsecProvesNxdomain([B], name('c.example'), zone), 'the wildcard *.example is not denied');
  assert.ok(
    nsecProvesNxdomain([LAST, APEX], name('zz.example'), zone),
    'the last NSEC leads back to the apex',
  );
  assert.ok(!nsecProvesNxdomain([APEX, B], name('b.example'), zone), 'it exists');
  assert.ok(!nsecProvesNxdomain([APEX, B], name('ent.example'), zone), 'an empty non-terminal exists');
  const starEnt = [
    nsec('example', 'a.*.example', TYPE.SOA, TYPE.NS),
    nsec('a.*.example', 'z.example', TYPE.A),
  ];
  assert.ok(
    !nsecProvesNxdomain(starEnt, name('c.example'), zone),
    'the wildcard exists as an empty non-terminal',
  );
});

test('NSEC: a wildcard that is an empty non-terminal answers with no data (RFC 4592 §2.2.2)', () => {
  const around = nsec('example', 'a.*.ent.example', TYPE.SOA, TYPE.NS);
  const below = nsec('a.*.ent.example', 'z.example', TYPE.A);
  assert.ok(nsecProvesNodata([around, below], name('x.ent.example'), TYPE.A, zone));
  assert.ok(nsecProvesNodata([around, below], name('x.y.ent.example'), TYPE.A, zone));
  assert.ok(!nsecProvesNodata([around], name('x.ent.example'), TYPE.A, zone), 'x.ent may exist');
  assert.ok(!nsecProvesNodata([below], name('x.ent.example'), TYPE.A, zone), '*.ent may have data');
});

test('NSEC: nothing is proven below a zone cut or a DNAME, nor outside the zone', () => {
  assert.ok(!nsecProvesNxdomain([SUB, APEX], name('www.sub.example'), zone), 'RFC 6840 §4.1');
  assert.ok(!nsecProvesNxdomain([LAST, APEX], name('www.z.example'), zone));
  assert.ok(!nsecProvesNxdomain([APEX, B], name('c.test'), zone));
  assert.equal(nsecDsStatus([SUB], name('www.sub.example'), zone), undefined);
  const foreign = nsec('b.example', 'z.test', TYPE.A);
  assert.ok(!nsecProvesNxdomain([foreign, APEX], name('c.example'), zone), 'next lies outside the zone');
});

test('NSEC: no data by the bitmap, by an empty non-terminal, by a wildcard', () => {
  assert.ok(nsecProvesNodata([B], name('b.example'), TYPE.AAAA, zone));
  assert.ok(!nsecProvesNodata([B], name('b.example'), TYPE.A, zone));
  assert.ok(nsecProvesNodata([B], name('ent.example'), TYPE.A, zone));
  assert.ok(nsecProvesNodata([WILD], name('x.w.example'), TYPE.AAAA, zone));
  assert.ok(!nsecProvesNodata([WILD], name('x.w.example'), TYPE.A, zone));
  assert.ok(!nsecProvesNodata([nsec('c.example', 'd.example', TYPE.CNAME)], name('c.example'), TYPE.A, zone));
  assert.ok(!nsecProvesNodata([B], name('b.example'), TYPE.ANY, zone), 'it has data of some type');
});

test('NSEC: only the right side of a zone cut counts (RFC 6840 §4.4)', () => {
  assert.ok(
    !nsecProvesNodata([SUB], name('sub.example'), TYPE.A, zone),
    'the parent knows nothing of A at the child',
  );
  assert.ok(nsecProvesNodata([SUB], name('sub.example'), TYPE.DS, zone));
  assert.ok(!nsecProvesNodata([APEX], name('example'), TYPE.DS, zone), 'the child may not deny its own DS');
  assert.equal(nsecDsStatus([SUB], name('sub.example'), zone), 'noDs');
  assert.equal(nsecDsStatus([B], name('b.example'), zone), 'notCut');
  assert.equal(nsecDsStatus([B], name('ent.example'), zone), 'notCut');
  assert.equal(nsecDsStatus([B], name('c.example'), zone), 'nothing');
  assert.equal(
    nsecDsStatus([nsec('sub.example', 'z.example', TYPE.NS, TYPE.SOA)], name('sub.example'), zone),
    undefined,
  );
  assert.equal(
    nsecDsStatus([nsec('sub.example', 'z.example', TYPE.NS, TYPE.DS)], name('sub.example'), zone),
    undefined,
  );
});

test('NSEC: a wildcard may not stand in for a name that a closer one covers', () => {
  assert.ok(nsecProvesNoCloser([WILD], name('x.w.example'), name('w.example'), zone));
  assert.ok(
    !nsecProvesNoCloser([WILD], name('x.w.example'), zone, zone),
    '*.example was used where *.w.example exists',
  );
  assert.ok(!nsecProvesNoCloser([B], name('b.example'), zone, zone), 'the name itself exists');
});

/** A whole NSEC3 chain over the names given, in hash order. */
function nsec3Zone(names: Record<string, number[]>, optOut: boolean, iterations: number = 1): OwnedNsec3[] {
  const salt = Uint8Array.of(0xab);
  const hashed = Object.entries(names)
    .map(([text, types]) => ({ hash: nsec3Hash(name(text), salt, iterations), types }))
    .sort((a, b) => Buffer.compare(a.hash, b.hash));
  return hashed.map(({ hash, types }, i): OwnedNsec3 => {
    const nextHash = hashed[(i + 1) % hashed.length]!.hash;
    const nsec3: Nsec3 = {
      hashAlgorithm: 1,
      flags: optOut ? 1 : 0,
      optOut,
      iterations,
      salt,
      nextHash,
      types: bitmap(...types),
    };
    return { ownerHash: hash, nsec3 };
  });
}

const NAMES = {
  example: [TYPE.SOA, TYPE.NS],
  'b.example': [TYPE.A],
  'sub.example': [TYPE.NS, TYPE.DS],
  'plain.example': [TYPE.NS],
  'w.example': [],
  '*.w.example': [TYPE.A],
  'd.example': [TYPE.DNAME],
};
const chain = (optOut: boolean, without: string[] = []): Nsec3Chain => {
  const skip = without.map(text =>
    Buffer.from(nsec3Hash(name(text), Uint8Array.of(0xab), 1)).toString('hex'),
  );
  const entries = nsec3Zone(NAMES, optOut).filter(
    ({ ownerHash }) => !skip.includes(Buffer.from(ownerHash).toString('hex')),
  );
  return new Nsec3Chain(zone, new Nsec3List(entries), new Work(DEFAULT_LIMITS));
};

test('NSEC3: the hashes of RFC 5155 App. A', () => {
  const salt = Uint8Array.of(0xaa, 0xbb, 0xcc, 0xdd);
  const listed = {
    example: '0p9mhaveqvm6t7vbl5lop2u3t2rp3tom',
    'a.example': '35mthgpgcu1qg68fab165klnsnk3dpvl',
    'NS1.example': '2t7b4g4vsa5smi47k61mv5bv1a22bojr',
    '*.w.example': 'r53bq7cc2uvmubfu5ocmm6pers9tk9en',
  };
  for (const [text, hash] of Object.entries(listed))
    assert.equal(base32hex(nsec3Hash(name(text), salt, 12)), hash);
});

test('NSEC3: NXDOMAIN, no data, wildcards (RFC 5155 §8.4 to §8.8)', async () => {
  const whole = chain(false);
  assert.equal(await whole.provesNxdomain(name('c.example')), 'secure');
  assert.equal(await whole.provesNxdomain(name('x.y.c.example')), 'secure');
  assert.equal(await whole.provesNxdomain(name('x.w.example')), undefined, 'the wildcard exists');
  assert.equal(await whole.provesNodata(name('b.example'), TYPE.AAAA), 'secure');
  assert.equal(await whole.provesNodata(name('b.example'), TYPE.A), undefined);
  assert.equal(await whole.provesNodata(name('w.example'), TYPE.A), 'secure', 'an empty non-terminal');
  assert.equal(await whole.provesNodata(name('x.w.example'), TYPE.TXT), 'secure');
  assert.equal(await whole.provesNodata(name('x.w.example'), TYPE.A), undefined);
  assert.equal(await whole.provesNodata(name('c.example'), TYPE.A), undefined, 'absence is no empty answer');
  assert.equal(await whole.provesNoCloser(name('x.w.example'), name('w.example')), 'secure');
  assert.equal(await whole.provesNoCloser(name('b.example'), zone), undefined);
});

test('NSEC3: cuts, DNAMEs and missing pieces prove nothing', async () => {
  assert.equal(await chain(false).provesNxdomain(name('www.sub.example')), undefined);
  assert.equal(await chain(false).provesNxdomain(name('www.d.example')), undefined);
  assert.equal(
    await chain(false, ['example']).provesNxdomain(name('c.example')),
    undefined,
    'no closest encloser',
  );
  assert.equal(await chain(false).provesNodata(name('sub.example'), TYPE.A), undefined);
  assert.equal(await chain(false).provesNodata(name('example'), TYPE.DS), undefined);
});

test('NSEC3: delegations, and what opt-out leaves open', async () => {
  assert.equal(await chain(false).dsStatus(name('sub.example')), undefined, 'its DS is held back');
  assert.equal(await chain(false).dsStatus(name('plain.example')), 'noDs');
  assert.equal(await chain(false).dsStatus(name('b.example')), 'notCut');
  assert.equal(await chain(false).dsStatus(name('c.example')), 'nothing');
  assert.equal(await chain(true).dsStatus(name('c.example')), 'noDs');
  assert.equal(await chain(true).provesNxdomain(name('c.example')), 'insecure');
  assert.equal(await chain(true).provesNodata(name('c.example'), TYPE.DS), 'insecure');
  assert.equal(await chain(true).provesNodata(name('b.example'), TYPE.AAAA), 'secure', 'a match is a match');
  assert.equal(
    await chain(true).dsStatus(name('www.sub.example')),
    undefined,
    'below a signed cut opt-out opens nothing',
  );
});

test('NSEC3 floods end at the limit (CVE-2023-50868)', async () => {
  const deep = name(`${'a.'.repeat(120)}example`);
  const honest = nsec3Zone({ example: [TYPE.SOA] }, false, 150);
  const work = new Work(DEFAULT_LIMITS);
  assert.equal(await new Nsec3Chain(zone, new Nsec3List(honest), work).provesNxdomain(deep), 'secure');
  assert.ok(work.allowsRetry, 'what is below a name that does not exist is not hashed');
  const { ownerHash, nsec3 } = honest[0]!;
  const nextHash = ownerHash.with(19, ownerHash[19]! + 1); // nothing lies between
  const narrow = new Nsec3List([{ ownerHash, nsec3: { ...nsec3, nextHash } }]);
  const flooded = new Nsec3Chain(zone, narrow, new Work(DEFAULT_LIMITS));
  await assert.rejects(flooded.provesNxdomain(deep), WorkExceeded);
  const lone = new Nsec3List(nsec3Zone({ example: [TYPE.SOA] }, false, 0));
  const cheap = new Nsec3Chain(zone, lone, new Work(DEFAULT_LIMITS));
  assert.equal(await cheap.provesNxdomain(deep), 'secure');
});
