/** Verdicts over zones signed by BIND's tools and served by nsd. What others say of such zones: test/second-opinion/. */
import assert from 'node:assert/strict';
import test, { after, before } from 'node:test';
import { Name } from '../../../resolver/dns/name.ts';
import { EDE, RCODE, TYPE, typeFromText } from '../../../resolver/dns/types.ts';
import { parseTrustAnchors } from '../../../resolver/dnssec/anchors.ts';
import { ValidatingResolver } from '../../../resolver/dnssec/resolver.ts';
import type { Resolution, Verdict } from '../../../resolver/dnssec/types.ts';
import { exchangeWith } from '../../rpl/validator.ts';
import { missingTools, startWorld, type World, type ZoneSpec } from './zones.ts';

const ALGORITHMS = {
  8: 'RSASHA256',
  10: 'RSASHA512',
  13: 'ECDSAP256SHA256',
  14: 'ECDSAP384SHA384',
  15: 'ED25519',
  16: 'ED448',
};

const P256 = { algorithm: 'ECDSAP256SHA256', denial: 'nsec' } as const;
const specs: ZoneSpec[] = [
  ...Object.entries(ALGORITHMS).flatMap(([number, algorithm]): ZoneSpec[] => [
    { name: `nsec-${number}.`, algorithm, denial: 'nsec' },
    { name: `nsec3-${number}.`, algorithm, denial: 'nsec3' },
  ]),
  { ...P256, name: 'optout.', denial: 'nsec3-optout' },
  { ...P256, name: 'iterations.', denial: 'nsec3-120' },
  { ...P256, name: 'expired.', signing: ['-s', 'now-30d', '-e', 'now-1d'] },
  { ...P256, name: 'future.', signing: ['-s', 'now+1d', '-e', 'now+30d'] },
  {
    ...P256,
    name: 'wrongkey.',
    ds: ds => ds.replace(/ 13 2 ./, ' 13 2 0').replace(/[0-9A-F]{8}$/m, '00000000'),
  },
  { ...P256, name: 'stripped.', spoil: (_, unsigned) => unsigned },
  { ...P256, name: 'forged.', spoil: signed => signed.replace('192.0.2.2', '192.0.2.66') },
  { ...P256, name: 'unknown-algorithm.', ds: ds => ds.replace(' 13 2 ', ' 200 2 ') },
  { ...P256, name: 'unknown-digest.', ds: ds => ds.replace(' 13 2 ', ' 13 99 ') },
];

const why = missingTools();
let world: World;
let resolver: ValidatingResolver;
before(async () => {
  if (why !== undefined) return;
  world = await startWorld(specs);
  resolver = new ValidatingResolver({
    exchange: exchangeWith('127.0.0.1', world.port),
    anchors: parseTrustAnchors(world.anchors),
    now: () => Math.floor(Date.now() / 1000),
    limits: { nsec3Iterations: 100 }, // BIND's tools sign with no more than 150
  });
});
after(() => world?.stop());

const ask = (name: string, type: string): Promise<Resolution> =>
  resolver.lookup(Name.parseText(name), typeFromText(type)!);

type Expectation = [name: string, type: string, verdict: Verdict, outcome: Resolution['outcome']];

/** What every good zone says, and how sure that is; `zone` has its final dot. */
function expectations(zone: string, optOut: boolean): Expectation[] {
  const proven = optOut ? 'insecure' : 'secure';
  return [
    [zone, 'A', 'secure', 'positive'],
    [zone, 'SOA', 'secure', 'positive'],
    [zone, 'DNSKEY', 'secure', 'positive'],
    [zone, 'DS', 'secure', 'positive'],
    [zone, 'TXT', 'secure', 'nodata'],
    [`www.${zone}`, 'A', 'secure', 'positive'],
    [`WWW.${zone}`, 'AAAA', 'secure', 'positive'],
    [`www.${zone}`, 'IPSECKEY', 'secure', 'positive'],
    [`www.${zone}`, 'TXT', 'secure', 'nodata'],
    [`www.${zone}`, 'DS', 'secure', 'nodata'],
    [`mail.${zone}`, 'MX', 'secure', 'positive'],
    [`dot\\.ted.${zone}`, 'A', 'secure', 'positive'],
    [`nothing.${zone}`, 'A', proven, 'nxdomain'],
    [`a.b.c.nothing.${zone}`, 'A', proven, 'nxdomain'],
    [`a\\.b.${zone}`, 'A', proven, 'nxdomain'],
    [`ent.${zone}`, 'A', 'secure', 'nodata'],
    [`b.ent.${zone}`, 'A', 'secure', 'nodata'],
    [`x.b.ent.${zone}`, 'A', proven, 'nxdomain'],
    [`x.wild.${zone}`, 'A', proven, 'positive'],
    [`x.y.wild.${zone}`, 'A', proven, 'positive'],
    [`x.wild.${zone}`, 'TXT', proven, 'nodata'],
    [`*.wild.${zone}`, 'A', 'secure', 'positive'],
    [`x.wildcname.${zone}`, 'A', proven, 'positive'],
    [`cname.${zone}`, 'A', 'secure', 'positive'],
    [`cname.${zone}`, 'CNAME', 'secure', 'positive'],
    [`cname2.${zone}`, 'AAAA', 'secure', 'positive'],
    [`cname2.${zone}`, 'TXT', 'secure', 'nodata'],
    [`cnamenx.${zone}`, 'A', proven, 'nxdomain'],
    [`cnamewild.${zone}`, 'A', proven, 'positive'],
    [`cnameloop.${zone}`, 'A', 'indeterminate', 'failure'],
    [`cnameout.${zone}`, 'A', 'insecure', 'positive'],
    [`cnamebogus.${zone}`, 'A', 'bogus', 'positive'],
    [`host.dname.${zone}`, 'A', 'secure', 'positive'],
    [`host.dname.${zone}`, 'CNAME', 'secure', 'positive'],
    [`dname.${zone}`, 'DNAME', 'secure', 'positive'],
    [`none.dname.${zone}`, 'A', proven, 'nxdomain'],
    [`www.insecure.${zone}`, 'A', 'insecure', 'positive'],
    [`www.insecure.${zone}`, 'IPSECKEY', 'insecure', 'nodata'],
    [`nothing.insecure.${zone}`, 'A', 'insecure', 'nxdomain'],
    [`insecure.${zone}`, 'DS', proven, 'nodata'],
    [`www.child.${zone}`, 'A', 'secure', 'positive'],
    [`child.${zone}`, 'DS', 'secure', 'positive'],
    [`nothing.child.${zone}`, 'A', proven, 'nxdomain'],
  ];
}

for (const { name } of specs.slice(0, 13)) {
  test(`${name} every kind of answer has its verdict`, { skip: why }, async () => {
    for (const [asked, type, verdict, outcome] of expectations(name, name === 'optout.')) {
      const found = await ask(asked, type);
      assert.deepEqual(
        [asked, type, found.verdict, found.outcome, found.ede?.text],
        [asked, type, verdict, outcome, found.ede?.text],
      );
    }
  });
}

test('spoiled zones are bogus, each for its reason', { skip: why }, async () => {
  const expected: [string, string, Verdict, number | undefined][] = [
    ['www.expired.', 'A', 'bogus', EDE.SIGNATURE_EXPIRED],
    ['nothing.expired.', 'A', 'bogus', EDE.SIGNATURE_EXPIRED],
    ['www.future.', 'A', 'bogus', EDE.SIGNATURE_NOT_YET_VALID],
    ['www.wrongkey.', 'A', 'bogus', EDE.DNSKEY_MISSING],
    ['www.stripped.', 'A', 'bogus', EDE.DNSKEY_MISSING],
    ['nothing.stripped.', 'A', 'bogus', EDE.DNSKEY_MISSING],
    ['www.forged.', 'A', 'bogus', EDE.DNSSEC_BOGUS],
    ['www.forged.', 'AAAA', 'secure', undefined],
    ['www.unknown-algorithm.', 'A', 'insecure', EDE.UNSUPPORTED_DNSKEY_ALGORITHM],
    ['www.unknown-digest.', 'A', 'insecure', EDE.UNSUPPORTED_DS_DIGEST],
    ['nothing.', 'A', 'secure', undefined],
  ];
  for (const [name, type, verdict, code] of expected) {
    const found = await ask(name, type);
    assert.deepEqual(
      [name, type, found.verdict, found.ede?.code],
      [name, type, verdict, code],
      found.ede?.text,
    );
  }
  assert.match((await ask('www.future.', 'A')).ede!.text, /is the clock right/);
});

test('denials with too many NSEC3 iterations only count as insecure (RFC 9276 §3.2)', {
  skip: why,
}, async () => {
  const answers = [
    await ask('www.iterations.', 'A'),
    await ask('nothing.iterations.', 'A'),
    await ask('x.wild.iterations.', 'A'),
    await ask('www.insecure.iterations.', 'A'),
  ];
  assert.deepEqual(
    answers.map(answer => answer.verdict),
    ['secure', 'insecure', 'insecure', 'insecure'],
  );
  assert.equal(answers[1]!.ede?.code, EDE.UNSUPPORTED_NSEC3_ITERATIONS);
});

test('an NSEC3 with too many iterations denies no more than it proves', { skip: why }, async () => {
  const honest = exchangeWith('127.0.0.1', world.port);
  const [www, child] = [Name.parseText('www.iterations'), Name.parseText('child.iterations')];
  const nothing = await honest({ name: Name.parseText('nothing.iterations'), type: TYPE.A });
  const lying = new ValidatingResolver({
    exchange: async question => {
      const denied = (question.name.equals(www) || question.name.equals(child)) && question.type !== TYPE.A;
      if (!denied) return honest(question);
      return { ...nothing, rcode: RCODE.NOERROR, questions: [{ ...question, class: 1 }] };
    },
    anchors: parseTrustAnchors(world.anchors),
    now: () => Math.floor(Date.now() / 1000),
    limits: { nsec3Iterations: 100 },
  });
  assert.equal((await ask('www.iterations.', 'IPSECKEY')).outcome, 'positive');
  assert.equal((await lying.lookup(www, TYPE.IPSECKEY)).verdict, 'bogus');
  assert.equal((await ask('www.child.iterations.', 'A')).verdict, 'secure');
  assert.equal((await lying.lookup(Name.parseText('www.child.iterations'), TYPE.A)).verdict, 'bogus');
});

test('an answer keeps its chain, its proofs, and TTLs within the signatures', { skip: why }, async () => {
  const dname = await ask('host.dname.nsec-13.', 'A');
  assert.deepEqual(
    dname.answer.map(rrset => rrset.type),
    [TYPE.DNAME, TYPE.CNAME, TYPE.A],
  );
  assert.equal(dname.canonicalName.toText(), 'host.target.nsec-13.');
  assert.equal(dname.ttlSeconds, 3600);
  const nothing = await ask('nothing.nsec-13.', 'A');
  assert.ok(nothing.authority.some(rrset => rrset.type === TYPE.SOA));
  assert.equal(nothing.ttlSeconds, 300, 'the SOA minimum');
});

test('negative trust anchors make insecure what is bogus (RFC 7646); nothing is secure without an anchor', {
  skip: why,
}, async () => {
  const options = {
    exchange: exchangeWith('127.0.0.1', world.port),
    now: () => Math.floor(Date.now() / 1000),
  };
  const name = Name.parseText('www.expired.');
  const excused = new ValidatingResolver({
    ...options,
    anchors: parseTrustAnchors(world.anchors),
    negativeAnchors: [Name.parseText('expired')],
  });
  assert.equal((await excused.lookup(name, TYPE.A)).verdict, 'insecure');
  assert.equal((await excused.lookup(Name.parseText('www.nsec-13'), TYPE.A)).verdict, 'secure');
  const blind = new ValidatingResolver({ ...options, anchors: [] });
  assert.equal((await blind.lookup(name, TYPE.A)).verdict, 'insecure');
});
