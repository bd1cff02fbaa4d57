/** A double before the honest server that alters what it says of some zones, each by one rule. */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { composeMessage } from '../../resolver/dns/compose.ts';
import { type Message, parseMessage, type ResourceRecord } from '../../resolver/dns/message.ts';
import { Name } from '../../resolver/dns/name.ts';
import { RCODE, TYPE } from '../../resolver/dns/types.ts';
import { Deframer, frame } from '../../resolver/upstream/tcp-framing.ts';
import { freePort } from '../resolver/free-port.ts';
import type { Question } from './content.ts';
import { changed, covered, TIMES, type ZonePlan } from './plans.ts';
import { makeKey, signRrset, typeBitmap, type ZoneKey } from './signer.ts';

/** What a rule sees: the question, the honest reply, how to ask for another one, the zone's own key. */
type Scene = {
  name: Name;
  type: number;
  reply: Message;
  zone: Name;
  key: ZoneKey;
  ask: (name: string, type: number) => Promise<Message>;
};
type Rule = (scene: Scene) => Message | Promise<Message>;

export type TamperedZone = {
  rule: Rule;
  questions: Question[];
  ready: (keys: ZoneKey[]) => void;
  key?: ZoneKey;
};

const isA = (record: ResourceRecord): boolean => record.type === TYPE.A;
const isSignature = (record: ResourceRecord): boolean => record.type === TYPE.RRSIG;
const isDenial = ({ type }: ResourceRecord): boolean => type === TYPE.NSEC || type === TYPE.NSEC3;
const coversDenial = (r: ResourceRecord): boolean => covered(r) === TYPE.NSEC || covered(r) === TYPE.NSEC3;
const chain = (type: number): boolean => type === TYPE.DNSKEY || type === TYPE.DS;

/** The rule for data alone: DNSKEY and DS go through as they are. */
const ofData =
  (change: (scene: Scene) => Message | Promise<Message>): Rule =>
  scene =>
    chain(scene.type) ? scene.reply : change(scene);

const mapAnswer = (change: (record: ResourceRecord) => ResourceRecord): Rule =>
  ofData(({ reply }) => ({ ...reply, answer: reply.answer.map(change) }));

const without = (section: 'answer' | 'authority', unwanted: (record: ResourceRecord) => boolean): Rule =>
  ofData(({ reply }) => ({ ...reply, [section]: reply[section].filter(record => !unwanted(record)) }));

const corrupt = (record: ResourceRecord): ResourceRecord =>
  isSignature(record)
    ? { ...record, rdata: changed(record.rdata, record.rdata.length - 2, record.rdata.at(-2)! ^ 1) }
    : record;

const address = (name: Name, last: number): ResourceRecord => ({
  name,
  type: TYPE.A,
  class: 1,
  ttlSeconds: 3600,
  rdata: Uint8Array.of(192, 0, 2, last),
});

/** The answer section of one question under the name of another. */
const renamed = (records: readonly ResourceRecord[], name: Name): ResourceRecord[] =>
  records.map(record => ({ ...record, name }));

const failing =
  (wanted: number, rcode: number): Rule =>
  ({ type, reply }) =>
    type === wanted ? { ...reply, rcode, answer: [], authority: [] } : reply;

const rules: Record<string, [rule: Rule, questions: string]> = {
  untouched: [({ reply }) => reply, 'www A|www AAAA|x.wild A|nothing A'],
  'rrsig-stripped': [without('answer', isSignature), 'www A|www TXT|mail MX|x.wild A|cname A|host.dname A'],
  'all-rrsig-stripped': [
    ({ reply }) => ({
      ...reply,
      answer: reply.answer.filter(r => !isSignature(r)),
      authority: reply.authority.filter(r => !isSignature(r)),
    }),
    'www A|nothing A|www AAAA|@ DNSKEY|x.cut A',
  ],
  'denial-stripped': [
    without('authority', r => isDenial(r) || coversDenial(r)),
    'nothing A|www AAAA|x.wild A|x.wild TXT|ent A|cname MX',
  ],
  'denial-signatures-stripped': [
    without('authority', coversDenial),
    'nothing A|www AAAA|x.wild A|x.wild TXT',
  ],
  'authority-emptied': [
    ofData(({ reply }) => ({ ...reply, authority: [] })),
    'nothing A|www AAAA|x.wild A|www A',
  ],
  'soa-stripped': [
    without('authority', r => r.type === TYPE.SOA || covered(r) === TYPE.SOA),
    'nothing A|www AAAA|x.wild TXT|ent A',
  ],
  'signature-corrupted': [mapAnswer(corrupt), 'www A|mail MX|x.wild A|cname A|host.dname A'],
  'denial-corrupted': [
    ofData(({ reply }) => ({ ...reply, authority: reply.authority.map(corrupt) })),
    'nothing A|www AAAA|x.wild A|www A',
  ],
  'bad-signature-first': [
    ofData(({ reply }) => ({
      ...reply,
      answer: [...reply.answer.filter(isSignature).map(corrupt), ...reply.answer],
    })),
    'www A|mail MX|x.wild A|cname A|host.dname A',
  ],
  'bad-signatures-three': [
    ofData(({ reply }) => ({
      ...reply,
      answer: [
        ...reply.answer.filter(isSignature).flatMap(r =>
          [1, 2, 4].map(flip => ({
            ...r,
            rdata: changed(r.rdata, r.rdata.length - 1, r.rdata.at(-1)! ^ flip),
          })),
        ),
        ...reply.answer,
      ],
    })),
    'www A|mail MX|x.wild A',
  ],
  'unknown-algorithm-signature-added': [
    ofData(({ reply }) => ({
      ...reply,
      answer: [
        ...reply.answer.filter(isSignature).map(r => ({ ...r, rdata: changed(r.rdata, 2, 200) })),
        ...reply.answer,
      ],
    })),
    'www A|mail MX|x.wild A',
  ],
  'address-changed': [
    mapAnswer(r => (isA(r) ? { ...r, rdata: changed(r.rdata, 3, 66) } : r)),
    'www A|x.wild A|cname A|mail MX',
  ],
  'address-added': [
    ofData(({ name, type, reply }) =>
      type === TYPE.A && reply.answer.some(r => r.name.equals(name) && isA(r))
        ? { ...reply, answer: [...reply.answer, address(name, 66)] }
        : reply,
    ),
    'www A|x.wild A',
  ],
  'address-removed': [
    ofData(({ reply }) => ({ ...reply, answer: reply.answer.filter(r => !(isA(r) && r.rdata[3] === 3)) })),
    'www A|mail MX',
  ],
  'address-twice': [
    ofData(({ reply }) => ({ ...reply, answer: [...reply.answer, ...reply.answer] })),
    'www A|mail MX|cname A',
  ],
  'ttl-raised': [mapAnswer(r => ({ ...r, ttlSeconds: 500_000 })), 'www A|mail MX|x.wild A|cname A'],
  'ttl-zero': [mapAnswer(r => ({ ...r, ttlSeconds: 0 })), 'www A|mail MX|x.wild A'],
  'ttl-uneven': [mapAnswer(r => (r.rdata[3] === 3 ? { ...r, ttlSeconds: 7 } : r)), 'www A'],
  'owner-case-changed': [
    mapAnswer(r => ({ ...r, name: Name.parseText(r.name.toText().toUpperCase()) })),
    'www A|mail MX|x.wild A|cname A|host.dname A',
  ],
  'rdata-case-changed': [
    mapAnswer(r =>
      r.type === TYPE.MX || r.type === TYPE.CNAME
        ? { ...r, rdata: swapCase(r.rdata, r.type === TYPE.MX ? 2 : 0) }
        : r,
    ),
    'mail MX|cname A|cname CNAME',
  ],
  'denial-of-existing-name': [
    ofData(async ({ ask, reply, zone }) => ({
      ...(await ask(`nothing.${zone}`, TYPE.A)),
      id: reply.id,
      questions: reply.questions,
    })),
    'www A|mail MX|a.b.ent A|real.wild A',
  ],
  'nodata-by-other-name': [
    ofData(async ({ ask, reply, zone }) => ({
      ...(await ask(`mail.${zone}`, TYPE.A)),
      id: reply.id,
      questions: reply.questions,
    })),
    'www A|real.wild A|x.wild A|nothing A',
  ],
  'nodata-by-apex': [
    ofData(async ({ ask, reply, zone }) => ({
      ...(await ask(`${zone}`, TYPE.TXT)),
      id: reply.id,
      questions: reply.questions,
    })),
    'www A|nothing A',
  ],
  'nxdomain-as-noerror': [
    ofData(({ reply }) => ({ ...reply, rcode: RCODE.NOERROR })),
    'nothing A|a.nothing A|www AAAA',
  ],
  'noerror-as-nxdomain': [
    ofData(({ reply }) => ({ ...reply, rcode: RCODE.NXDOMAIN })),
    'www AAAA|ent A|x.wild TXT',
  ],
  'answer-as-nxdomain': [
    ofData(({ reply }) => ({ ...reply, rcode: RCODE.NXDOMAIN })),
    'www A|x.wild A|cname A',
  ],
  'wildcard-over-existing': [
    ofData(async ({ name, ask, reply, zone }) => {
      const wild = await ask(`x.wild.${zone}`, TYPE.A);
      return {
        ...reply,
        rcode: RCODE.NOERROR,
        answer: renamed(wild.answer, name),
        authority: wild.authority,
      };
    }),
    'real.wild A|y.wild A|www A|x.y.wild A',
  ],
  'wildcard-owner-answers': [
    ofData(async ({ name, ask, reply, zone }) => ({
      ...reply,
      rcode: RCODE.NOERROR,
      answer: renamed((await ask(`*.wild.${zone}`, TYPE.A)).answer, name),
      authority: [],
    })),
    'x.wild A|real.wild A',
  ],
  'cname-of-dname-changed': [
    ofData(({ reply }) => ({
      ...reply,
      answer: reply.answer.map(r =>
        r.type === TYPE.CNAME && reply.answer.some(d => d.type === TYPE.DNAME)
          ? { ...r, rdata: Name.parseText('www.plain.').wire }
          : r,
      ),
    })),
    'host.dname A|none.dname A|cname A',
  ],
  'cname-of-dname-missing': [
    ofData(({ reply }) => ({
      ...reply,
      answer: reply.answer.some(r => r.type === TYPE.DNAME)
        ? reply.answer.filter(r => r.type !== TYPE.CNAME)
        : reply.answer,
    })),
    'host.dname A|none.dname A',
  ],
  'dname-missing': [
    without('answer', r => r.type === TYPE.DNAME || covered(r) === TYPE.DNAME),
    'host.dname A|dname DNAME',
  ],
  'dnskey-servfail': [failing(TYPE.DNSKEY, RCODE.SERVFAIL), 'www A|nothing A'],
  'dnskey-refused': [failing(TYPE.DNSKEY, RCODE.REFUSED), 'www A'],
  'dnskey-nxdomain': [failing(TYPE.DNSKEY, RCODE.NXDOMAIN), 'www A'],
  'dnskey-empty': [failing(TYPE.DNSKEY, RCODE.NOERROR), 'www A|nothing A|cut DS'],
  'dnskey-extra': [
    ({ type, reply, zone }) =>
      type === TYPE.DNSKEY
        ? {
            ...reply,
            answer: [
              ...reply.answer,
              { name: zone, type: TYPE.DNSKEY, class: 1, ttlSeconds: 3600, rdata: makeKey(13).rdata },
            ],
          }
        : reply,
    'www A|@ DNSKEY',
  ],
  'dnskey-malformed-extra': [
    ({ type, reply, zone }) =>
      type === TYPE.DNSKEY
        ? {
            ...reply,
            answer: [
              ...reply.answer,
              {
                name: zone,
                type: TYPE.DNSKEY,
                class: 1,
                ttlSeconds: 3600,
                rdata: Uint8Array.of(1, 1, 3, 13),
              },
            ],
          }
        : reply,
    'www A|@ DNSKEY',
  ],
  'ds-servfail': [failing(TYPE.DS, RCODE.SERVFAIL), 'www A|x.cut A|nothing A'],
  'ds-empty': [failing(TYPE.DS, RCODE.NOERROR), 'www A|x.cut A'],
  'ds-nxdomain': [failing(TYPE.DS, RCODE.NXDOMAIN), 'www A|x.cut A'],
  'ds-denied-by-child': [
    async ({ type, name, zone, ask, reply }) =>
      type === TYPE.DS && name.equals(zone)
        ? { ...reply, answer: [], authority: (await ask(`${zone}`, TYPE.TXT)).authority }
        : reply,
    'www A|@ DS',
  ],
  'ds-denied-by-root': [
    async ({ type, name, zone, ask, reply }) =>
      type === TYPE.DS && name.equals(zone)
        ? { ...reply, answer: [], authority: (await ask('plain.', TYPE.DS)).authority }
        : reply,
    'www A|@ DS',
  ],
  'ds-replaced': [
    ({ type, name, zone, reply }) =>
      type === TYPE.DS && name.equals(zone)
        ? {
            ...reply,
            answer: reply.answer.map(r =>
              r.type === TYPE.DS ? { ...r, rdata: changed(r.rdata, 10, r.rdata[10]! ^ 1) } : r,
            ),
          }
        : reply,
    'www A',
  ],
  'delegation-denies-below': [
    ofData(async ({ name, zone, ask, reply }) =>
      name.isSubdomainOf(Name.parseText(`cut.${zone}`))
        ? {
            ...(await ask(`cut.${zone}`, TYPE.DS)),
            id: reply.id,
            questions: reply.questions,
            rcode: RCODE.NXDOMAIN,
          }
        : reply,
    ),
    'x.cut A|cut A|x.cut MX',
  ],
  'cut-claimed-at-www': [
    async ({ name, type, zone, ask, reply }) =>
      name.equals(Name.parseText(`www.${zone}`)) && type !== TYPE.DNSKEY
        ? type === TYPE.DS
          ? { ...reply, authority: (await ask(`cut.${zone}`, TYPE.DS)).authority }
          : {
              ...reply,
              answer: reply.answer
                .filter(r => !isSignature(r))
                .map(r => (isA(r) ? { ...r, rdata: changed(r.rdata, 3, 66) } : r)),
            }
        : reply,
    'www A|www TXT|www DS',
  ],
  'junk-in-authority': [
    ofData(({ reply, zone, name }) => ({
      ...reply,
      authority: [
        ...reply.authority,
        { name: zone, type: TYPE.NS, class: 1, ttlSeconds: 3600, rdata: Name.parseText('evil.plain.').wire },
        address(name, 67),
      ],
    })),
    'www A|nothing A|www AAAA',
  ],
  'junk-in-additional': [
    ofData(({ reply, zone, name }) => ({ ...reply, additional: [address(zone, 66), address(name, 67)] })),
    'www A|nothing A|mail MX',
  ],
  'unrelated-in-answer': [
    ofData(({ reply, zone }) => ({
      ...reply,
      answer: [...reply.answer, address(Name.parseText(`mail.${zone}`), 66)],
    })),
    'www A|x.wild A',
  ],
  'answer-of-other-name': [
    ofData(async ({ ask, reply, zone }) => ({
      ...reply,
      rcode: RCODE.NOERROR,
      answer: (await ask(`real.wild.${zone}`, TYPE.A)).answer,
      authority: [],
    })),
    'www A|nothing A',
  ],
  'answer-renamed': [
    ofData(async ({ name, ask, reply, zone }) => ({
      ...reply,
      rcode: RCODE.NOERROR,
      answer: renamed((await ask(`real.wild.${zone}`, TYPE.A)).answer, name),
      authority: [],
    })),
    'www A|nothing A',
  ],
  'cname-and-data': [
    ofData(async ({ name, type, ask, reply, zone }) =>
      type === TYPE.A
        ? {
            ...reply,
            answer: [
              ...renamed((await ask(`cname.${zone}`, TYPE.CNAME)).answer.slice(0, 1), name),
              ...reply.answer,
            ],
          }
        : reply,
    ),
    'www A|real.wild A',
  ],
  'cname-two': [
    ofData(({ name, reply }) => ({
      ...reply,
      answer: [
        ...reply.answer,
        ...reply.answer
          .filter(r => r.type === TYPE.CNAME && r.name.equals(name))
          .map(r => ({ ...r, rdata: Name.parseText('www.plain.').wire })),
      ],
    })),
    'cname A|cname CNAME',
  ],
  'cname-unsigned-to-plain': [
    ofData(({ name, type, reply }) =>
      type === TYPE.A
        ? {
            ...reply,
            rcode: 0,
            authority: [],
            answer: [
              { name, type: TYPE.CNAME, class: 1, ttlSeconds: 60, rdata: Name.parseText('www.plain.').wire },
            ],
          }
        : reply,
    ),
    'www A|nothing A',
  ],
  'signer-name-of-parent': [
    mapAnswer(r =>
      isSignature(r)
        ? {
            ...r,
            rdata: Buffer.concat([
              r.rdata.subarray(0, 18),
              Name.root.wire,
              r.rdata.subarray(18 + signerBytes(r.rdata)),
            ]),
          }
        : r,
    ),
    'www A|x.wild A',
  ],
  'signer-name-below': [
    mapAnswer(r =>
      isSignature(r)
        ? {
            ...r,
            rdata: Buffer.concat([
              r.rdata.subarray(0, 18),
              r.name.wire,
              r.rdata.subarray(18 + signerBytes(r.rdata)),
            ]),
          }
        : r,
    ),
    'www A|mail MX',
  ],
  'signature-empty': [
    mapAnswer(r => (isSignature(r) ? { ...r, rdata: r.rdata.subarray(0, 18 + signerBytes(r.rdata)) } : r)),
    'www A',
  ],
  'signature-short': [
    mapAnswer(r => (isSignature(r) ? { ...r, rdata: r.rdata.subarray(0, r.rdata.length - 1) } : r)),
    'www A',
  ],
  'signature-of-other-type': [
    ofData(async ({ name, ask, reply }) => ({
      ...reply,
      answer: [
        ...reply.answer.filter(r => !isSignature(r)),
        ...(await ask(name.toText(), TYPE.TXT)).answer.filter(isSignature),
      ],
    })),
    'www A',
  ],
  'type-covered-changed': [
    mapAnswer(r => (covered(r) === TYPE.A ? { ...r, rdata: changed(r.rdata, 1, TYPE.AAAA) } : r)),
    'www A',
  ],
  'class-chaos': [mapAnswer(r => ({ ...r, class: 3 })), 'www A'],
  'everything-servfail': [
    ofData(({ reply }) => ({ ...reply, rcode: RCODE.SERVFAIL, answer: [], authority: [] })),
    'www A|nothing A',
  ],
  'everything-refused': [
    ofData(({ reply }) => ({ ...reply, rcode: RCODE.REFUSED, answer: [], authority: [] })),
    'www A',
  ],
  'ad-set': [
    ofData(({ reply }) => ({
      ...reply,
      authenticData: true,
      answer: reply.answer.filter(r => !isSignature(r)),
    })),
    'www A|nothing A',
  ],
  'aa-cleared': [
    ofData(({ reply }) => ({ ...reply, authoritative: false, recursionAvailable: true })),
    'www A|nothing A|www AAAA',
  ],
  // RFC 9824: a denial made for the question, its owner the name itself.
  'compact-denial': [
    ofData(scene =>
      scene.reply.answer.length > 0 ? scene.reply : compact(scene, [TYPE.RRSIG, TYPE.NSEC, 128]),
    ),
    'nothing A|nothing AAAA|a.b.nothing A|www AAAA|www A',
  ],
  // RFC 4470: the smallest span around the name, and one around the wildcard.
  'minimal-denial': [
    ofData(scene => (scene.reply.rcode === RCODE.NXDOMAIN ? minimal(scene, true) : scene.reply)),
    'nothing A|a.b.nothing A',
  ],
  'minimal-denial-without-wildcard': [
    ofData(scene => (scene.reply.rcode === RCODE.NXDOMAIN ? minimal(scene, false) : scene.reply)),
    'nothing A',
  ],
  // Well-signed NSECs that do not say what they are there for.
  'nsec-has-the-type': [
    ofData(scene =>
      scene.name.key === Name.parseText(`www.${scene.zone}`).key
        ? { ...compact(scene, [TYPE.A, TYPE.RRSIG, TYPE.NSEC]), answer: [] }
        : scene.reply,
    ),
    'www A|www MX',
  ],
  'nsec-has-cname': [
    ofData(scene =>
      scene.reply.answer.length === 0 ? compact(scene, [TYPE.CNAME, TYPE.RRSIG, TYPE.NSEC]) : scene.reply,
    ),
    'www AAAA|mail A',
  ],
  'nsec-has-dname': [
    ofData(scene =>
      scene.reply.answer.length === 0 ? compact(scene, [TYPE.DNAME, TYPE.RRSIG, TYPE.NSEC]) : scene.reply,
    ),
    'www AAAA|mail A',
  ],
  'nsec-is-delegation': [
    ofData(scene =>
      scene.reply.answer.length === 0 ? compact(scene, [TYPE.NS, TYPE.RRSIG, TYPE.NSEC]) : scene.reply,
    ),
    'www AAAA|mail A',
  ],
  'nsec-says-soa': [
    ofData(scene =>
      scene.reply.answer.length === 0
        ? compact(scene, [TYPE.NS, TYPE.SOA, TYPE.RRSIG, TYPE.NSEC])
        : scene.reply,
    ),
    'www AAAA|mail A',
  ],
  'nsec-next-outside': [
    ofData(scene =>
      scene.reply.rcode === RCODE.NXDOMAIN
        ? denied(scene, [
            nsec(scene, scene.zone, Name.parseText('zzzz.'), [TYPE.SOA, TYPE.NS, TYPE.RRSIG, TYPE.NSEC]),
          ])
        : scene.reply,
    ),
    'nothing A',
  ],
  'nsec-lone': [
    ofData(scene =>
      scene.reply.rcode === RCODE.NXDOMAIN
        ? denied(scene, [nsec(scene, scene.zone, scene.zone, [TYPE.SOA, TYPE.NS, TYPE.RRSIG, TYPE.NSEC])])
        : scene.reply,
    ),
    'nothing A|a.b.nothing A',
  ],
};

export const tampered: (ZonePlan & { tampered: TamperedZone })[] = Object.entries(rules).flatMap(
  ([what, [rule, questions]]) =>
    (['nsec', 'nsec3'] as const)
      .filter(kind => kind === 'nsec' || !/^(nsec|minimal|compact)-/.test(what))
      .map(kind => {
        const name = `${kind === 'nsec' ? 't' : 't3'}-${what}.`;
        const zone: TamperedZone = {
          rule,
          questions: questions.split('|').map(row => {
            const [owner, type] = row.split(' ') as [string, string];
            return { name: owner === '@' ? name : `${owner}.${name}`, type };
          }),
          ready: ([key]) => {
            zone.key = key!;
          },
        };
        const denial = kind === 'nsec' ? { kind } : { kind, iterations: 0 };
        return { name, denial, tampered: zone };
      }),
);

function compact(scene: Scene, types: readonly number[]): Message {
  const next = scene.name.prepend(Uint8Array.of(0))!;
  return { ...denied(scene, [nsec(scene, scene.name, next, types)]), rcode: RCODE.NOERROR };
}

function minimal(scene: Scene, withWildcard: boolean): Message {
  const types = [TYPE.RRSIG, TYPE.NSEC];
  const wildcard = scene.zone.wildcard()!;
  const before = (name: Name): Name =>
    Name.parseText(`${name.toText().replace(/^(\*|n)/, first => (first === '*' ? '!' : 'm~'))}`);
  const first = scene.name.suffix(scene.zone.labelCount + 1);
  const spans = [
    nsec(scene, before(first), Name.parseText(`${first.toText().replace(/^(\w+)/, '$1\\000')}`), types),
  ];
  if (withWildcard) spans.push(nsec(scene, before(wildcard), Name.parseText(`+.${scene.zone}`), types));
  return denied(scene, spans);
}

function nsec({ key, zone }: Scene, owner: Name, next: Name, types: readonly number[]): ResourceRecord[] {
  const rdata = Buffer.concat([next.wire, typeBitmap(types)]);
  const record = { name: owner, type: TYPE.NSEC, ttlSeconds: 300, rdata };
  return [record, signRrset([record], zone, key, TIMES)].map(r => ({ ...r, class: 1 }));
}

function denied({ reply, zone }: Scene, nsecs: readonly ResourceRecord[][]): Message {
  const soa = reply.authority.filter(
    r => r.name.equals(zone) && (r.type === TYPE.SOA || covered(r) === TYPE.SOA),
  );
  return { ...reply, answer: [], authority: [...soa, ...nsecs.flat()] };
}

function swapCase(rdata: Uint8Array, from: number): Uint8Array {
  return Uint8Array.from(rdata, (byte, i) =>
    i >= from && /[a-z]/i.test(String.fromCharCode(byte)) ? byte ^ 0x20 : byte,
  );
}

function signerBytes(rdata: Uint8Array): number {
  return Name.readUncompressed(rdata, 18, rdata.length).name.wire.length;
}

/** Starts the double: bytes go through as they are unless the question lies in a zone with a rule. */
export async function startTampering(
  serverPort: number,
  zones: readonly (ZonePlan & { tampered: TamperedZone })[],
): Promise<{ port: number; stop: () => Promise<void> }> {
  const byKey = new Map(zones.map(plan => [Name.parseText(plan.name).key, plan.tampered]));
  const port = await freePort('127.0.0.1');
  const relay = async (query: Uint8Array, tcp: boolean): Promise<Uint8Array> => {
    const question = parseMessage(query);
    const { name, type } = question.questions[0]!;
    const tampering = name.labelCount === 0 ? undefined : byKey.get(name.suffix(1).key);
    if (tampering === undefined) return tcp ? overTcp(serverPort, query) : overUdp(serverPort, query);
    const fetch = async (other: Name, otherType: number): Promise<Message> => {
      const questions = [{ name: other, type: otherType, class: 1 }];
      return parseMessage(await overTcp(serverPort, composeMessage({ ...question, questions })));
    };
    const altered = await tampering.rule({
      name: name.canonical(), // who asks may mix the cases of its letters
      type,
      reply: await fetch(name, type),
      zone: name.suffix(1),
      key: tampering.key!,
      ask: (other, otherType) => fetch(Name.parseText(other), otherType),
    });
    return composeMessage(altered, tcp ? 65_535 : (question.edns?.udpSize ?? 512));
  };
  const udp = createSocket('udp4');
  udp.on('message', (query, from) => {
    relay(query, false).then(
      reply => udp.send(reply, from.port, from.address),
      () => undefined, // unanswered, as a lost datagram
    );
  });
  udp.bind(port, '127.0.0.1');
  const open = new Set<Socket>();
  const tcp = createServer(socket => {
    open.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => open.delete(socket));
    onFrames(socket, query => {
      relay(query, true).then(
        reply => socket.write(frame(reply)),
        () => socket.destroy(),
      );
    });
  });
  tcp.listen(port, '127.0.0.1');
  await Promise.all([once(udp, 'listening'), once(tcp, 'listening')]);
  return {
    port,
    stop: async () => {
      udp.close();
      for (const socket of open) socket.destroy();
      tcp.close();
      await once(tcp, 'close');
    },
  };
}

export async function overUdp(
  port: number,
  query: Uint8Array,
  timeoutMillis: number = 5000,
): Promise<Uint8Array> {
  const socket = createSocket('udp4');
  try {
    socket.connect(port, '127.0.0.1');
    await once(socket, 'connect');
    socket.send(query);
    const [reply] = (await once(socket, 'message', { signal: AbortSignal.timeout(timeoutMillis) })) as [
      Buffer,
    ];
    return reply;
  } finally {
    socket.close();
  }
}

export function overTcp(port: number, query: Uint8Array, timeoutMillis: number = 5000): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(frame(query)));
    socket.setTimeout(timeoutMillis, () => socket.destroy(new Error('no answer over TCP')));
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('closed without an answer')));
    onFrames(socket, reply => {
      resolve(reply);
      socket.destroy();
    });
  });
}

function onFrames(socket: Socket, handle: (message: Uint8Array) => void): void {
  const deframer = new Deframer(0xffff);
  socket.on('data', chunk => {
    deframer.push(chunk, message => {
      handle(message);
      return true;
    });
  });
}
