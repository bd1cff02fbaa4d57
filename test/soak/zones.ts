// The zones of the soak, as text for the server and as what every answer is held against. One source for both.
import { createHash } from 'node:crypto';
import type { ZoneText } from '../lab/names.ts';

export type ZoneRecord = { owner: string; ttlSeconds: number; type: string; data: string };

/** What the zones say to a question: the records in the order of the aliases, and whether all of it is signed. */
export type Truth = {
  rcode: 'NOERROR' | 'NXDOMAIN';
  records: ZoneRecord[];
  signed: boolean;
};

export type Question = { name: string; type: string };

const COLD = 20_000;
const HOT = 500;
const HASHED = 2000;
const UNSIGNED = 2000;
const FEW = 50;

/** All that is published, without signatures and denials. */
function records(): ZoneRecord[] {
  const list: ZoneRecord[] = [];
  const add = (owner: string, ttlSeconds: number, type: string, data: string) =>
    list.push({ owner, ttlSeconds, type, data });
  const four = (net: string, i: number) => `${net}.${(i >> 8) & 255}.${i & 255}`;
  add('ns.example', 300, 'A', '192.0.2.53');
  for (let i = 0; i < COLD; i++) {
    add(`n${i}.example`, 10, 'A', four('198.18', i));
    if (i % 2 === 0) add(`n${i}.example`, 10, 'AAAA', `2001:db8::${(i + 1).toString(16)}`);
  }
  for (let i = 0; i < HOT; i++) {
    add(`hot${i}.example`, 300, 'A', four('198.19', i));
    add(`hot${i}.example`, 300, 'AAAA', `2001:db8:1::${(i + 1).toString(16)}`);
  }
  for (let i = 0; i < FEW; i++) {
    add(`key${i}.example`, 30, 'A', four('198.20', i));
    const key = createHash('sha256').update(`key${i}`).digest('base64');
    add(`key${i}.example`, 30, 'IPSECKEY', `10 0 4 . ${key}`);
    for (let part = 0; part < 12; part++) add(`big${i}.example`, 20, 'TXT', `${part}-${'x'.repeat(240)}`);
    add(`alias${i}.example`, 15, 'CNAME', `middle${i}.example`);
    add(`middle${i}.example`, 20, 'CNAME', `hot${i}.example`);
    add(`cross${i}.example`, 20, 'CNAME', `u${i}.unsigned.example`);
  }
  add('*.wild.example', 20, 'A', '198.21.0.1');
  for (let i = 0; i < HASHED; i++) add(`s${i}.hashed.example`, 10, 'A', four('198.22', i));
  for (let i = 0; i < UNSIGNED; i++) add(`u${i}.unsigned.example`, 10, 'A', four('198.23', i));
  return list;
}

const origins = ['hashed.example', 'unsigned.example', 'example'];
const originOf = (name: string) => origins.find(origin => name.endsWith(`.${origin}`));
const below = (owner: string) => owner.replace(/\.$/, '');

/** The zones to sign and serve. */
export function soakZones(): ZoneText[] {
  const byOrigin = Map.groupBy(records(), ({ owner }) => originOf(owner)!);
  const line = ({ owner, ttlSeconds, type, data }: ZoneRecord) =>
    `${owner}. ${ttlSeconds} ${type} ${type === 'TXT' ? `"${data}"` : type === 'CNAME' ? `${data}.` : data}`;
  const lines = (origin: string) => byOrigin.get(origin)!.map(line);
  return [
    { origin: 'example', signed: true, lines: lines('example') },
    { origin: 'hashed.example', signed: true, nsec3: true, lines: lines('hashed.example') },
    { origin: 'unsigned.example', signed: false, lines: lines('unsigned.example') },
  ];
}

/** Answers by what was published. */
export class Truths {
  readonly #owners = new Map<string, ZoneRecord[]>();

  constructor() {
    for (const record of records()) {
      const owner = below(record.owner);
      const there = this.#owners.get(owner);
      if (there) there.push(record);
      else this.#owners.set(owner, [record]);
    }
  }

  of({ name, type }: Question): Truth {
    const found: ZoneRecord[] = [];
    let signed = true;
    for (let owner = name; ; ) {
      if (owner.endsWith('.unsigned.example')) signed = false;
      const here = this.#at(owner);
      if (here === undefined) return { rcode: 'NXDOMAIN', records: found, signed };
      const wanted = here.filter(record => record.type === type);
      const alias = here.find(record => record.type === 'CNAME');
      if (wanted.length > 0 || alias === undefined || type === 'CNAME')
        return { rcode: 'NOERROR', records: [...found, ...wanted], signed };
      found.push(alias);
      owner = alias.data;
    }
  }

  #at(owner: string): ZoneRecord[] | undefined {
    const here = this.#owners.get(owner);
    if (here !== undefined || !owner.endsWith('.wild.example')) return here;
    return this.#owners.get('*.wild.example')!.map(record => ({ ...record, owner }));
  }
}

/** A question of the mix: two thirds are of names that everyone asks for. `random`: from 0 up to 1. */
export function drawQuestion(random: () => number): Question {
  const below = (count: number) => Math.floor(random() * count);
  const address = random() < 0.7 ? 'A' : 'AAAA';
  const made = () => Math.floor(random() * 2 ** 40).toString(36);
  const kind = random();
  if (kind < 0.62) return { name: `hot${below(HOT)}.example`, type: address };
  if (kind < 0.76) return { name: `n${below(COLD)}.example`, type: address };
  if (kind < 0.8) return { name: `s${below(HASHED)}.hashed.example`, type: 'A' };
  if (kind < 0.85) return { name: `u${below(UNSIGNED)}.unsigned.example`, type: address };
  if (kind < 0.88) return { name: `alias${below(FEW)}.example`, type: address };
  if (kind < 0.9) return { name: `cross${below(FEW)}.example`, type: 'A' };
  if (kind < 0.92) return { name: `key${below(FEW)}.example`, type: random() < 0.5 ? 'A' : 'IPSECKEY' };
  if (kind < 0.93) return { name: `big${below(FEW)}.example`, type: 'TXT' };
  if (kind < 0.95) return { name: `${made()}.wild.example`, type: 'A' };
  if (kind < 0.96) return { name: `hot${below(HOT)}.example`, type: 'MX' };
  const zone = ['example', 'hashed.example', 'unsigned.example'][below(3)]!;
  return { name: `x${made()}.${zone}`, type: address };
}
