/** Denials made for the question and well signed: honest kinds of them, and such as prove nothing. */
import type { Message, ResourceRecord } from '../../resolver/dns/message.ts';
import { Name } from '../../resolver/dns/name.ts';
import { RCODE, TYPE } from '../../resolver/dns/types.ts';
import { covered, TIMES } from './plans.ts';
import { signRrset, typeBitmap } from './signer.ts';
import { type Scene, type Rules, ofData } from './scene.ts';

export const alteredDenials: Rules = {
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
