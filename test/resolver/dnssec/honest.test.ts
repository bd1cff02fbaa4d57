/** The worst that honest zones may ask of a validator stays below every limit, with nothing known beforehand. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import type { Message, ResourceRecord } from '../../../resolver/dns/message.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { base32hex } from '../../../resolver/dns/rdata-text.ts';
import { RCODE, TYPE } from '../../../resolver/dns/types.ts';
import { parseTrustAnchors } from '../../../resolver/dnssec/anchors.ts';
import { nsec3Hash } from '../../../resolver/dnssec/nsec3.ts';
import { ValidatingResolver } from '../../../resolver/dnssec/resolver.ts';
import type { UpstreamQuestion } from '../../../resolver/dnssec/types.ts';
import {
  anchorOf,
  type Denial,
  dsOf,
  makeKey,
  signZone,
  type ZoneKey,
  type ZoneRecord,
} from '../../second-opinion/signer.ts';

const NOW = 1_700_000_000;
const TIMES = { inception: NOW - 1000, expiration: NOW + 1000 };
const P384 = 14;
const RSA = 8;

type Zone = { apex: Name; records: ZoneRecord[]; denial: Denial };

/** Made once: keys of RSA-4096 take a second each. Zones may share them. */
const keys = new Map<number, ZoneKey[]>(
  [P384, RSA, 16].map(algorithm => [
    algorithm,
    [makeKey(algorithm, { bits: 4096 }), makeKey(algorithm, { bits: 4096, flags: 256 })],
  ]),
);

/**
 * Trees of `depth` zones, `trees` of them side by side below the root. In the deepest of each a wildcard alias leads to
 * the next tree; in the last there is nothing where it leads to. `hops` aliases more in each of these zones.
 */
function build(depth: number, trees: number, hops: number, algorithm: number, denial: Denial): Zone[] {
  const [keySigner, signer] = keys.get(algorithm)!;
  const zones: { apex: Name; content: ZoneRecord[] }[] = [];
  const record = (name: Name, type: number, rdata: Uint8Array): ZoneRecord => {
    return { name, type, ttlSeconds: 3600, rdata };
  };
  const soa = Buffer.concat([Uint8Array.of(0, 0), Buffer.alloc(20, 1)]);
  const open = (apex: Name): ZoneRecord[] => {
    const content = [record(apex, TYPE.SOA, soa), record(apex, TYPE.NS, Name.root.wire)];
    zones.push({ apex, content });
    return content;
  };
  const root = open(Name.root);
  for (let tree = 0; tree < trees; tree++) {
    let above = root;
    let apex = Name.root;
    for (let level = 0; level < depth; level++) {
      apex = apex.prepend(Buffer.from(level === 0 ? `tree${tree}` : `zone${level}`))!;
      above.push(record(apex, TYPE.NS, Name.root.wire), record(apex, TYPE.DS, dsOf(apex, keySigner!)));
      above = open(apex);
    }
    const cname = (from: string, to: Name): void => {
      above.push(record(Name.parseText(`${from}.${apex.toText()}`), TYPE.CNAME, to.wire));
    };
    for (let hop = 1; hop < hops; hop++)
      cname(`*.hop${hop}`, Name.parseText(`x.hop${hop + 1}.${apex.toText()}`));
    if (tree < trees - 1) {
      const next = apex.toText().replace(`tree${tree}`, `tree${tree + 1}`);
      cname(`*.hop${hops}`, Name.parseText(`x.hop1.${next}`));
    }
  }
  return zones.map(({ apex, content }) => {
    const all = [keySigner!, signer!];
    const records = signZone(apex, content, {
      keys: all,
      keySigners: [keySigner!],
      signers: [signer!],
      denial,
      times: TIMES,
    });
    return { apex, records, denial };
  });
}

/** An authoritative server of all the zones, that follows no alias. */
function answer(zones: readonly Zone[], { name, type }: UpstreamQuestion): Message {
  const holds = (zone: Zone): boolean =>
    name.isSubdomainOf(zone.apex) && (type !== TYPE.DS || !name.equals(zone.apex));
  const zone = zones.filter(holds).sort((a, b) => b.apex.labelCount - a.apex.labelCount)[0]!;
  const at = (owner: Name, wanted: number): ZoneRecord[] =>
    zone.records.filter(r => r.name.equals(owner) && (r.type === wanted || covers(r) === wanted));
  const covers = ({ type: own, rdata }: ZoneRecord): number | undefined =>
    own === TYPE.RRSIG ? (rdata[0]! << 8) | rdata[1]! : undefined;
  const exists = (owner: Name): boolean =>
    zone.records.some(r => r.type !== TYPE.NSEC3 && r.name.isSubdomainOf(owner));
  const found = [...at(name, type), ...at(name, TYPE.CNAME)];
  let closest = name;
  while (!exists(closest)) closest = closest.parent()!;
  const next = name.suffix(closest.labelCount + 1);
  const wildcard = closest.wildcard()!;
  const expanded = exists(name) ? [] : at(wildcard, TYPE.CNAME).map(record => ({ ...record, name }));
  const denied = exists(name) ? [name] : expanded.length > 0 ? [next] : [closest, next, wildcard];
  const proofs = found.length > 0 ? [] : denied.flatMap(owner => proof(zone, owner, at));
  const positive = found.length > 0 || expanded.length > 0;
  const authority = positive ? proofs : [...at(zone.apex, TYPE.SOA), ...proofs];
  return message(
    { name, type },
    positive || exists(name) ? RCODE.NOERROR : RCODE.NXDOMAIN,
    [...found, ...expanded],
    [...new Set(authority)],
  );
}

/** The NSEC or NSEC3 that speaks of the name, signed. */
function proof(zone: Zone, name: Name, at: (owner: Name, type: number) => ZoneRecord[]): ZoneRecord[] {
  if (zone.denial.kind === 'nsec') {
    const owners = zone.records.filter(r => r.type === TYPE.NSEC).map(r => r.name);
    const before = owners.filter(owner => owner.compare(name) <= 0).sort((a, b) => a.compare(b));
    return at(before.at(-1)!, TYPE.NSEC);
  }
  const label = base32hex(nsec3Hash(name, new Uint8Array(), zone.denial.iterations));
  const wanted = zone.apex.prepend(Buffer.from(label))!;
  const owners = zone.records
    .filter(r => r.type === TYPE.NSEC3)
    .map(r => r.name)
    .sort((a, b) => a.compare(b));
  return at(owners.filter(owner => owner.compare(wanted) <= 0).at(-1) ?? owners.at(-1)!, TYPE.NSEC3);
}

function message(
  question: UpstreamQuestion,
  rcode: number,
  answers: ZoneRecord[],
  authority: ZoneRecord[],
): Message {
  const inClass = (records: ZoneRecord[]): ResourceRecord[] => records.map(r => ({ ...r, class: 1 }));
  return {
    id: 0,
    response: true,
    opcode: 0,
    authoritative: false,
    truncated: false,
    recursionDesired: true,
    recursionAvailable: true,
    authenticData: false,
    checkingDisabled: true,
    rcode,
    questions: [{ ...question, class: 1 }],
    answer: inClass(answers),
    authority: inClass(authority),
    additional: [],
  };
}

/** A question to a resolver that knows nothing yet. */
async function ask(zones: readonly Zone[], text: string, type: number, algorithm: number) {
  const { tag, digestType, digest } = anchorOf(dsOf(Name.root, keys.get(algorithm)![0]!));
  const attempts: number[] = [];
  const resolver = new ValidatingResolver({
    exchange: async question => {
      attempts.push(question.attempt ?? 0);
      return answer(zones, question);
    },
    anchors: parseTrustAnchors(`. DS ${tag} ${algorithm} ${digestType} ${digest}`),
    now: () => NOW,
  });
  const found = await resolver.lookup(Name.parseText(text), type);
  return { found, retries: attempts.filter(attempt => attempt > 0).length, counters: resolver.counters() };
}

test('five zones deep, three such trees, a wildcard alias from each to the next, no such name at the end', async t => {
  for (const algorithm of [P384, RSA]) {
    const zones = build(5, 3, 1, algorithm, { kind: 'nsec3', iterations: 0 });
    const last = zones.at(-1)!.apex.toText();
    const { found, retries, counters } = await ask(
      zones,
      `x.hop1.${last.replace('tree2', 'tree0')}`,
      TYPE.A,
      algorithm,
    );
    t.diagnostic(`algorithm ${algorithm}: ${JSON.stringify(counters)}`);
    assert.deepEqual(
      [found.verdict, found.outcome, found.rcode],
      ['secure', 'nxdomain', RCODE.NXDOMAIN],
      found.ede?.text,
    );
    assert.deepEqual([retries, counters.exceeded, counters.failures], [0, 0, 0]);
  }
});

test('whatever the tree, the algorithm and the denial: an honest answer reaches no limit', async () => {
  const world = fc.record({
    depth: fc.integer({ min: 1, max: 5 }),
    trees: fc.integer({ min: 1, max: 3 }),
    hops: fc.integer({ min: 1, max: 3 }),
    algorithm: fc.constantFrom(P384, RSA, 16),
    denial: fc.constantFrom<Denial>(
      { kind: 'nsec' },
      { kind: 'nsec3', iterations: 0 },
      { kind: 'nsec3', iterations: 50 },
    ),
    type: fc.constantFrom(TYPE.A, TYPE.IPSECKEY, TYPE.AAAA),
  });
  await fc.assert(
    fc.asyncProperty(world, async ({ depth, trees, hops, algorithm, denial, type }) => {
      const zones = build(depth, trees, hops, algorithm, denial);
      const first = zones[depth]!.apex.toText();
      const { found, retries, counters } = await ask(zones, `x.hop1.${first}`, type, algorithm);
      assert.deepEqual([found.verdict, found.outcome], ['secure', 'nxdomain'], found.ede?.text);
      assert.deepEqual([retries, counters.exceeded, counters.failures], [0, 0, 0]);
    }),
    { numRuns: 25 },
  );
});
