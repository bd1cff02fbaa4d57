/** Lies about the chain of trust: DNSKEY and DS missing, replaced, denied by the wrong zone. */
import { Name } from '../../resolver/dns/name.ts';
import { RCODE, TYPE } from '../../resolver/dns/types.ts';
import { changed } from './plans.ts';
import { makeKey } from './signer.ts';
import { type Rules, isA, isSignature, ofData, failing } from './scene.ts';

export const alteredChain: Rules = {
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
};
