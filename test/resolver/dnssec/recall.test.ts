/**
 * What is kept never says anything else than the zone would: generated zones, signed by BIND's tools and served by nsd,
 * asked with and without a cache of RRsets.
 */
import assert from 'node:assert/strict';
import test, { after, before } from 'node:test';
import fc from 'fast-check';
import { RrsetCache } from '../../../resolver/cache/rrsets.ts';
import type { Message } from '../../../resolver/dns/message.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { RCODE, TYPE, typeFromText, typeToText } from '../../../resolver/dns/types.ts';
import { parseTrustAnchors } from '../../../resolver/dnssec/anchors.ts';
import { ValidatingResolver } from '../../../resolver/dnssec/resolver.ts';
import type { Exchange, Resolution } from '../../../resolver/dnssec/types.ts';
import { exchangeWith } from '../../rpl/validator.ts';
import { missingTools, startWorld, type World, type ZoneSpec } from './zones.ts';

const LABELS = ['a', 'b', 'm', 'z', '*', '_x', '0', 'B1'];
/**
 * They sort before the asterisk. In the zones nothing stands below them: for the denial of a wildcard nsd takes the last
 * child before it, not the last name, and where that child has names below it the proof is none.
 */
const BEFORE_ASTERISK = ['!', '\\000', '\\001'];
const labels = (from: readonly string[], maxLength: number): fc.Arbitrary<string> =>
  fc.array(fc.constantFrom(...from), { minLength: 1, maxLength }).map(parts => parts.join('.'));
const owners: fc.Arbitrary<string> = fc
  .tuple(fc.constantFrom(undefined, undefined, ...BEFORE_ASTERISK), labels(LABELS, 3))
  .map(([first, rest]) => (first === undefined ? rest : [first, ...rest.split('.').slice(1)].join('.')));

const DATA = [
  'A 192.0.2.1',
  'AAAA 2001:db8::1',
  'TXT "here"',
  'IPSECKEY 10 0 2 . AQNRU3mG7TVTO2BkR47usntb102uFJtugbo6BSGvgqt4AQ==',
];
/** Plain data with some aliases and unsigned delegations; what may not stand together or below them is left out. */
const zoneArbitrary = fc
  .array(
    fc.record({
      owner: owners,
      kind: fc.constantFrom('data', 'data', 'data', 'data', 'cname', 'dname', 'ns'),
      data: fc.uniqueArray(fc.constantFrom(...DATA), { minLength: 1, maxLength: 3 }),
      target: labels(LABELS.slice(0, 4), 2),
    }),
    { minLength: 4, maxLength: 14 },
  )
  .map(entries => {
    const kinds = new Map<string, string>();
    const lines: string[] = [];
    for (const { owner, kind, data, target } of entries) {
      const below = (a: string, b: string): boolean => a.endsWith(`.${b}`);
      const clash = [...kinds].some(
        ([other, what]) =>
          other === owner ||
          (below(owner, other) && (what === 'dname' || what === 'ns')) ||
          (below(other, owner) && (kind === 'dname' || kind === 'ns')),
      );
      if (clash || (owner.startsWith('*') && (kind === 'dname' || kind === 'ns'))) continue;
      kinds.set(owner, kind);
      if (kind === 'data') lines.push(...data.map(text => `${owner} ${text}`));
      else if (kind === 'ns') lines.push(`${owner} NS ns.nic.`);
      else lines.push(`${owner} ${kind.toUpperCase()} ${target}`);
    }
    return `${lines.join('\n')}\n`;
  });

const DENIALS = ['nsec', 'nsec', 'nsec3', 'nsec3', 'nsec3-optout'] as const;
const specs: ZoneSpec[] = fc.sample(zoneArbitrary, { numRuns: 10, seed: 20_260_101 }).map((records, i) => ({
  name: `g${i}.`,
  algorithm: 'ECDSAP256SHA256',
  denial: DENIALS[i % DENIALS.length]!,
  records,
}));

const usual: ZoneSpec[] = (['nsec', 'nsec3', 'nsec3-optout'] as const).map(denial => ({
  name: `${denial.replace('nsec3-', '')}.`,
  algorithm: 'ECDSAP256SHA256',
  denial,
}));

const why = missingTools();
const now = (): number => Math.floor(Date.now() / 1000);
let world: World;
let recorded: Exchange;
before(async () => {
  if (why !== undefined) return;
  world = await startWorld([...specs, ...usual]);
  const messages = new Map<string, Promise<Message>>();
  const exchange = exchangeWith('127.0.0.1', world.port);
  recorded = ({ name, type }) => {
    const key = `${type} ${name.key}`;
    const known = messages.get(key) ?? exchange({ name, type });
    messages.set(key, known);
    return known;
  };
});
after(() => world?.stop());

const told = ({ outcome, verdict, rcode, canonicalName, answer }: Resolution): string =>
  JSON.stringify([
    outcome,
    verdict,
    rcode,
    canonicalName.key,
    answer.map(r => [r.type, r.name.key, r.rdatas.map(rdata => rdata.join()).sort()]).sort(),
  ]);

function resolverWith(exchange: Exchange, kept?: RrsetCache): ValidatingResolver {
  return new ValidatingResolver({
    exchange,
    anchors: parseTrustAnchors(world.anchors),
    now,
    ...(kept && { kept }),
  });
}

test('with a cache of RRsets every answer is the same, and most are not asked for', {
  skip: why,
}, async t => {
  const types = ['A', 'TXT', 'IPSECKEY', 'CNAME', 'DNAME', 'DS', 'NSEC'].map(text => typeFromText(text)!);
  const question = fc.record({
    label: fc.oneof(fc.constant(''), labels([...LABELS, ...BEFORE_ASTERISK], 4)),
    type: fc.constantFrom(...types),
  });
  const counts = { questions: 0, 'asked without': 0, 'asked with': 0 };
  const counted =
    (what: keyof typeof counts): Exchange =>
    asked => {
      counts[what]++;
      return recorded(asked);
    };
  const run = fc.record({
    zone: fc.constantFrom(...specs.map(({ name }) => name)),
    questions: fc.array(question, { minLength: 20, maxLength: 60 }),
  });
  await fc.assert(
    fc.asyncProperty(run, async ({ zone, questions }) => {
      const plain = resolverWith(counted('asked without'));
      const keeping = resolverWith(counted('asked with'), new RrsetCache());
      for (const { label, type } of questions) {
        const name = Name.parseText(label === '' ? zone : `${label}.${zone}`);
        counts.questions++;
        const expected = told(await plain.lookup(name, type));
        assert.equal(told(await keeping.lookup(name, type)), expected, `${name.toText()} ${type}`);
      }
    }),
    { numRuns: 100 },
  );
  t.diagnostic(JSON.stringify(counts));
  assert.ok(counts['asked with'] < counts['asked without'] / 2, 'denials and aliases were put to use');
});

/** The usual zone: what is asked upstream for each question, by a resolver that keeps. */
function watched(kept: RrsetCache): {
  ask: (text: string, type: string, refresh?: boolean) => Promise<Resolution>;
  asked: string[];
  resolver: ValidatingResolver;
} {
  const asked: string[] = [];
  const resolver = resolverWith(question => {
    asked.push(`${question.name.toText()} ${typeToText(question.type)}`);
    return recorded(question);
  }, kept);
  return {
    resolver,
    asked,
    ask: (text, type, refresh = false) =>
      resolver.lookup(Name.parseText(text), typeFromText(type)!, { refresh }),
  };
}

test('one denial answers for all names and types that it covers (RFC 8198 §5)', { skip: why }, async () => {
  for (const zone of ['nsec.', 'nsec3.']) {
    const { ask, asked } = watched(new RrsetCache());
    await ask(`www.${zone}`, 'TXT');
    await ask(`nothing.${zone}`, 'A');
    asked.length = 0;
    const nodata = await ask(`www.${zone}`, 'SSHFP');
    const nxdomain = await ask(`nothing.${zone}`, 'IPSECKEY');
    assert.deepEqual([nodata.outcome, nodata.verdict], ['nodata', 'secure']);
    assert.deepEqual(
      [nxdomain.outcome, nxdomain.verdict, nxdomain.rcode],
      ['nxdomain', 'secure', RCODE.NXDOMAIN],
    );
    assert.ok(nxdomain.authority.some(({ type }) => type === TYPE.SOA));
    assert.ok(nxdomain.ttlSeconds <= 300, 'the SOA minimum');
    assert.ok(nxdomain.authority.every(({ signatures }) => signatures.length > 0));
    if (zone === 'nsec.') {
      assert.equal((await ask('nothinh.nsec.', 'A')).outcome, 'nxdomain');
      assert.equal((await ask('a.b.c.nothing.nsec.', 'AAAA')).outcome, 'nxdomain');
    }
    assert.deepEqual(asked, [], zone);
    assert.equal((await ask(`www.${zone}`, 'A')).outcome, 'positive');
    assert.equal((await ask(`real.wild.${zone}`, 'A')).outcome, 'positive');
  }
});

test('an opt-out span denies nothing beyond the name that was asked for (RFC 8198 §5.2)', {
  skip: why,
}, async () => {
  const { ask, asked } = watched(new RrsetCache());
  assert.equal((await ask('nothing.optout.', 'A')).verdict, 'insecure');
  asked.length = 0;
  await ask('nothing.optout.', 'A');
  assert.deepEqual(asked, [], 'the same question is not asked twice');
  await ask('nothing.optout.', 'AAAA');
  assert.deepEqual(asked, ['nothing.optout. AAAA']);
});

test('a wildcard answers for other names once both it and what denies them is known (RFC 8198 §5.3)', {
  skip: why,
}, async () => {
  const { ask, asked } = watched(new RrsetCache());
  await ask('x.wild.nsec.', 'A');
  asked.length = 0;
  const y = await ask('y.wild.nsec.', 'A');
  assert.deepEqual(
    [y.verdict, y.outcome, y.answer[0]!.name.toText(), [...y.answer[0]!.rdatas[0]!]],
    ['secure', 'positive', 'y.wild.nsec.', [192, 0, 2, 4]],
  );
  assert.ok(
    y.authority.some(({ type }) => type === TYPE.NSEC),
    'with the proof',
  );
  assert.equal((await ask('*.wild.nsec.', 'A')).verdict, 'secure');
  assert.deepEqual(asked, []);
  const real = await ask('real.wild.nsec.', 'A');
  assert.deepEqual([...real.answer[0]!.rdatas[0]!], [192, 0, 2, 8]);
  assert.deepEqual(asked, ['real.wild.nsec. A']);
});

test('aliases are followed from what is kept; a DNAME makes CNAMEs for names never asked', {
  skip: why,
}, async () => {
  const { ask, asked } = watched(new RrsetCache());
  await ask('cname2.nsec.', 'A');
  asked.length = 0;
  const other = await ask('cname.nsec.', 'AAAA');
  assert.deepEqual([other.verdict, other.canonicalName.toText()], ['secure', 'www.nsec.']);
  assert.deepEqual(asked, ['www.nsec. AAAA']);
  await ask('host.dname.nsec.', 'A');
  asked.length = 0;
  const made = await ask('none.dname.nsec.', 'A');
  assert.deepEqual(
    [made.verdict, made.outcome, made.canonicalName.toText()],
    ['secure', 'nxdomain', 'none.target.nsec.'],
  );
  assert.deepEqual(asked, ['none.target.nsec. A']);
  const cname = await ask('other.dname.nsec.', 'CNAME');
  assert.deepEqual(
    cname.answer.map(({ type }) => type),
    [TYPE.DNAME, TYPE.CNAME],
  );
});

test('nothing above a zone cut denies what is below it, nor past another anchor (RFC 6840 §4.1, RFC 7646)', {
  skip: why,
}, async () => {
  const { ask } = watched(new RrsetCache());
  await ask('insecure.nsec.', 'DS');
  await ask('nothing.nsec.', 'A');
  assert.equal((await ask('www.insecure.nsec.', 'A')).outcome, 'positive');
  assert.equal((await ask('nothing.insecure.nsec.', 'A')).verdict, 'insecure');
  const kept = new RrsetCache();
  await watched(kept).ask('nothing.nsec.', 'A');
  // A zone of the local network's own, which the public zone above denies.
  const own = Name.parseText('www.nothing.nsec');
  const excused = new ValidatingResolver({
    exchange: async question => {
      const message = await recorded(question);
      if (!question.name.equals(own)) return message;
      const rdata = Uint8Array.of(192, 0, 2, 9);
      const answer = [{ name: own, type: TYPE.A, class: 1, ttlSeconds: 60, rdata }];
      return { ...message, rcode: RCODE.NOERROR, answer, authority: [] };
    },
    anchors: parseTrustAnchors(world.anchors),
    negativeAnchors: [Name.parseText('nothing.nsec')],
    now,
    kept,
  });
  const found = await excused.lookup(own, TYPE.A);
  assert.deepEqual([found.verdict, found.outcome], ['insecure', 'positive']);
});

test('zone cuts too are denied by what is known: no DS is asked for twice', { skip: why }, async () => {
  const { ask, asked } = watched(new RrsetCache());
  await ask('insecure.nsec.', 'DS');
  await ask('www.insecure.nsec.', 'A');
  assert.equal(asked.filter(text => text === 'insecure.nsec. DS').length, 1, asked.join(', '));
});

test('refresh asks anew; flush and other anchors forget, also what is under way', { skip: why }, async () => {
  const kept = new RrsetCache();
  const { ask, asked, resolver } = watched(kept);
  await ask('www.nsec.', 'A');
  asked.length = 0;
  await ask('www.nsec.', 'A');
  assert.deepEqual(asked, []);
  await ask('www.nsec.', 'A', true);
  assert.deepEqual(asked, ['www.nsec. A']);
  resolver.flush(Name.parseText('www.nsec'));
  await ask('www.nsec.', 'A');
  assert.deepEqual(asked.slice(1).sort(), ['. DNSKEY', 'nsec. DNSKEY', 'nsec. DS', 'www.nsec. A']);
  resolver.flushAll();
  const underWay = ask('www.nsec.', 'A');
  await new Promise(resolve => setImmediate(resolve));
  resolver.setAnchors([]);
  assert.equal((await underWay).verdict, 'secure', 'by the anchors it began with');
  assert.equal(kept.counters().entries, 0);
  assert.equal((await ask('www.nsec.', 'A')).verdict, 'insecure');
});
