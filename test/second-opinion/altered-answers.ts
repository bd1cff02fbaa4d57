/** Lies about data: signatures stripped or spoiled, records changed, added, replayed under other names. */
import { Name } from '../../resolver/dns/name.ts';
import { RCODE, TYPE } from '../../resolver/dns/types.ts';
import { changed, covered } from './plans.ts';
import {
  type Rules,
  isA,
  isSignature,
  isDenial,
  coversDenial,
  ofData,
  mapAnswer,
  without,
  corrupt,
  address,
  renamed,
} from './scene.ts';

export const alteredAnswers: Rules = {
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
};

function swapCase(rdata: Uint8Array, from: number): Uint8Array {
  return Uint8Array.from(rdata, (byte, i) =>
    i >= from && /[a-z]/i.test(String.fromCharCode(byte)) ? byte ^ 0x20 : byte,
  );
}

function signerBytes(rdata: Uint8Array): number {
  return Name.readUncompressed(rdata, 18, rdata.length).name.wire.length;
}
