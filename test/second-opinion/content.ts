/** What the zones hold, in a small zone-file language, and the questions that go with it. */
import { Name } from '../../resolver/dns/name.ts';
import { typeFromText } from '../../resolver/dns/types.ts';
import type { ZoneRecord } from './signer.ts';

export type Question = { name: string; type: string };

export const SOA = '@ SOA ns.nic. host.nic. 1 3600 600 86400 300\n@ NS ns.nic.\n';

const LONG_LABEL = 'l'.repeat(63);

/** Every kind of answer that an honest zone can give. `child`, `insecure` and `island.insecure` are zones of their own. */
export const FULL = `${SOA}@ A 192.0.2.1
@ MX 10 mail
www A 192.0.2.2
www A 192.0.2.3
www AAAA 2001:db8::2
www TXT one "two words"
www TYPE45 0a000200
mail MX 10 WWW.Mixed.CASE
mail A 192.0.2.20
_srv._tcp SRV 1 2 443 Target
unknown TYPE65280 c0ffee
dot\\.ted A 192.0.2.7
high\\200 A 192.0.2.71
zero\\000byte A 192.0.2.72
UPPER A 192.0.2.73
${LONG_LABEL} A 192.0.2.74
${LONG_LABEL}.${LONG_LABEL} A 192.0.2.75
*.wild A 192.0.2.4
*.wild TXT wild
real.wild A 192.0.2.8
below.real.wild A 192.0.2.81
*.wildcname CNAME www
*.wildout CNAME www.plain.
*.wildloop CNAME x.wildloop
ent-under.*.wildent A 192.0.2.82
a.b.ent A 192.0.2.5
*.c.ent A 192.0.2.51
cname CNAME www
cname2 CNAME cname
cnamenx CNAME nothing
cnamenodata CNAME mail
cnamewild CNAME x.wild
cnameloop CNAME cnameloop2
cnameloop2 CNAME cnameloop
cnameself CNAME cnameself
cnameplain CNAME www.plain.
cnameback CNAME back.plain.
cnamebogus CNAME www.expired.
cnameother CNAME www.nsec-13.
cnameinsecure CNAME www.insecure
cnamechild CNAME www.child
cnamedname CNAME host.dname
${Array.from({ length: 16 }, (_, i) => `hop${i} CNAME hop${i + 1}`).join('\n')}
hop16 A 192.0.2.16
dname DNAME target
dname TXT "beside the DNAME"
host.target A 192.0.2.6
dname2 DNAME dname
dnameplain DNAME plain.
dnamebogus DNAME expired.
dnameself DNAME sub.dnameself
dnamelong DNAME ${LONG_LABEL}.${LONG_LABEL}.${LONG_LABEL}
insecure NS ns.nic.
insecure2 NS ns.insecure2
ns.insecure2 A 127.0.0.1
child NS ns.child
ns.child A 127.0.0.1
`;

/** A smaller zone for what differs in keys, times or signatures alone. */
export const SHORT = `${SOA}@ A 192.0.2.1
www A 192.0.2.2
www A 192.0.2.3
www TXT one
mail MX 10 WWW.Mixed.CASE
*.wild A 192.0.2.4
real.wild A 192.0.2.8
a.b.ent A 192.0.2.5
cname CNAME www
dname DNAME target
host.target A 192.0.2.6
cut NS ns.nic.
`;

const LONG_NAME_HEAD = `${'x'.repeat(60)}.`;

/** Asked of every full zone; `zone` has its final dot. */
export function fullQuestions(zone: string): Question[] {
  const rows = `@ A|@ AAAA|@ SOA|@ NS|@ MX|@ DNSKEY|@ DS|@ TXT|@ NSEC|@ NSEC3PARAM|@ ANY|@ RRSIG|@ CDS
www A|www AAAA|WwW A|www TXT|www TYPE45|www MX|www DS|www DNSKEY|www NSEC|www RRSIG|www ANY|www TYPE65281
mail MX|mail A|mail AAAA|_srv._tcp SRV|_tcp SRV|_srv._tcp A|unknown TYPE65280
dot\\.ted A|dot.ted A|high\\200 A|zero\\000byte A|zero A|upper A|UPPER TXT
${LONG_LABEL} A|${LONG_LABEL} TXT|${LONG_LABEL}.${LONG_LABEL} A|x.${LONG_LABEL}.${LONG_LABEL} A|${'m'.repeat(63)} A
nothing A|nothing AAAA|nothing DS|nothing MX|a.b.c.nothing A|a\\.b A|\\000 A|0 A|zzzz A|*.nothing A|nothing ANY|nothing NSEC
a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s.t.u.v.w.x.y.z A
ent A|b.ent A|b.ent DS|a.b.ent A|a.b.ent TXT|x.b.ent A|c.ent A|x.c.ent A|x.c.ent TXT|x.y.c.ent A|z.ent A
x.wild A|x.wild TXT|x.wild AAAA|x.wild DS|x.y.wild A|*.wild A|*.wild AAAA|wild A|real.wild A|real.wild TXT|x.real.wild A|below.real.wild A|x.below.real.wild A|x.wild ANY|*.x.wild A
x.wildent A|*.wildent A|y.*.wildent A|ent-under.*.wildent A
x.wildcname A|x.wildcname CNAME|x.wildcname TXT|x.wildcname MX|*.wildcname A|x.wildout A|x.wildloop A
cname A|cname CNAME|cname AAAA|cname MX|cname DS|cname2 A|cname2 TXT|cnamenx A|cnamenx CNAME|cnamenodata TXT|cnamewild A|cnamewild AAAA
cnameloop A|cnameloop CNAME|cnameself A|cnameself CNAME|hop16 A|hop10 A|hop0 CNAME
cnameplain A|cnameplain AAAA|cnameback A|cnamebogus A|cnamebogus CNAME|cnameother A|cnameinsecure A|cnamechild A|cnamedname A
host.dname A|host.dname TXT|host.dname CNAME|dname DNAME|dname TXT|dname A|none.dname A|host.dname2 A|a.b.dname A
www.dnameplain A|www.dnamebogus A|x.dnameself A|x.dnamelong A|${LONG_NAME_HEAD}dnamelong A
insecure NS|insecure A|insecure DS|www.insecure A|www.insecure AAAA|nothing.insecure A|ns.insecure2 A|insecure2 DS|www.insecure2 A
www.island.insecure A|island.insecure DS|island.insecure DNSKEY|nothing.island.insecure A
child DS|child DNSKEY|child NS|child A|child TXT|www.child A|www.child AAAA|nothing.child A|x.nothing.child A|ns.child A|www.child DS|x.wild.child A`;
  return rows.split(/[\n|]/).map(row => {
    const [name, type] = row.split(' ') as [string, string];
    return { name: absolute(name, zone), type };
  });
}

/** Asked of every short zone. */
export function shortQuestions(zone: string): Question[] {
  const rows =
    '@ SOA|@ DNSKEY|@ DS|@ TXT|www A|www AAAA|mail MX|nothing A|x.wild A|x.wild TXT|ent A|cname A|host.dname A|cut DS|x.cut A';
  return rows.split('|').map(row => {
    const [name, type] = row.split(' ') as [string, string];
    return { name: absolute(name, zone), type };
  });
}

/** Records of the small language: `owner type rdata`, names relative to `zone`, TTL 3600. */
export function records(zone: string, text: string): ZoneRecord[] {
  return text
    .split('\n')
    .filter(line => line !== '')
    .map(line => {
      const [owner, type, ...words] = line.match(/"[^"]*"|\S+/g) as [string, string, ...string[]];
      const name = Name.parseText(absolute(owner, zone));
      const number = typeFromText(type);
      if (number === undefined) throw new Error(`unknown type in: ${line}`);
      return { name, type: number, ttlSeconds: 3600, rdata: rdataOf(type, words, zone) };
    });
}

function absolute(name: string, zone: string): string {
  if (name === '@') return zone;
  if (name.endsWith('.')) return name;
  return zone === '.' ? `${name}.` : `${name}.${zone}`;
}

function rdataOf(type: string, words: readonly string[], zone: string): Uint8Array {
  const target = (text: string) => Name.parseText(absolute(text, zone)).wire;
  const numbers = (bytes: 2 | 4, texts: readonly string[]) =>
    Buffer.concat(
      texts.map(text => {
        const buffer = Buffer.alloc(bytes);
        buffer.writeUIntBE(Number(text), 0, bytes);
        return buffer;
      }),
    );
  switch (type) {
    case 'A':
      return Uint8Array.from(words[0]!.split('.').map(Number));
    case 'AAAA':
      return ipv6(words[0]!);
    case 'NS':
    case 'CNAME':
    case 'DNAME':
      return target(words[0]!);
    case 'MX':
      return Buffer.concat([numbers(2, [words[0]!]), target(words[1]!)]);
    case 'SRV':
      return Buffer.concat([numbers(2, words.slice(0, 3)), target(words[3]!)]);
    case 'SOA':
      return Buffer.concat([target(words[0]!), target(words[1]!), numbers(4, words.slice(2))]);
    case 'TXT':
      return Buffer.concat(
        words.map(word => {
          const bytes = Buffer.from(word.replaceAll('"', ''), 'latin1');
          return Buffer.concat([Uint8Array.of(bytes.length), bytes]);
        }),
      );
    default:
      return Buffer.from(words[0]!, 'hex');
  }
}

function ipv6(text: string): Uint8Array {
  const [head, tail] = text.split('::').map(half => half.split(':').filter(Boolean)) as [string[], string[]];
  const groups = [...head, ...Array(8 - head.length - tail.length).fill('0'), ...tail];
  return Uint8Array.from(
    groups.flatMap(group => [Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 0xff]),
  );
}
