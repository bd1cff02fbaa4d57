/** Names that never leave the machine: RFC 6761, 6303, 7686, 7793, 9462, 9476, and the canary of DNS over HTTPS. */
import { Name } from '../dns/name.ts';
import type { Rrset } from '../dns/rrset.ts';
import { CLASS, RCODE, TYPE } from '../dns/types.ts';
import type { StubAnswer } from './types.ts';

/** What RFC 6303 section 3 puts into zones that are served locally. */
const ZONE_TTL_SECONDS = 10_800;

type Zone = {
  apex: Name;
  soa: Rrset;
  /** What the names of the zone are: every one there with no data (but see `records`), none, or none but the apex. */
  exists: 'all' | 'none' | 'private';
  records: (name: Name, type: number) => Rrset | undefined;
};

/**
 * The answer to a question about a special name, undefined for all other names.
 *
 * `localhost` and names below it are the loopback addresses (RFC 6761 section 6.3), their reverse names point back.
 * `invalid`, `test`, `onion` and `alt` do not exist (RFC 6761 sections 6.2 and 6.4, RFC 7686, RFC 9476), nor does
 * `use-application-dns.net`, whose existence would tell browsers to pass us by. The reverse names of addresses that are
 * private, link-local, shared or for documentation do not exist either (RFC 6303, RFC 7793): nobody beyond the network
 * knows them, and asking tells of the network; who has such names forwards or anchors their zone. `resolver.arpa` is empty: we announce no
 * encrypted resolver (RFC 9462 section 6.4). `home.arpa` is the network's own (RFC 8375) and not special here.
 */
export function specialAnswer(name: Name, type: number): StubAnswer | undefined {
  const candidates = ZONES.get(topLabel(name));
  if (candidates === undefined) return undefined;
  const zone = candidates.find(({ apex }) => name.isSubdomainOf(apex));
  if (zone === undefined) return undefined;
  const atApex = name.labelCount === zone.apex.labelCount;
  if (type === TYPE.SOA && atApex && zone.exists !== 'none') return positive(zone.soa);
  const found = zone.records(name, type);
  if (found !== undefined) return positive(found);
  const exists = zone.exists === 'all' || (zone.exists === 'private' && atApex);
  return exists ? noData(zone) : noSuchName(zone);
}

const nothing = () => undefined;

const localhost = (name: Name, type: number): Rrset | undefined => {
  if (type === TYPE.A) return rrset(name, type, Uint8Array.of(127, 0, 0, 1));
  if (type === TYPE.AAAA)
    return rrset(name, type, Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1));
  return undefined;
};

const pointsToLocalhost =
  (reverse: string) =>
  (name: Name, type: number): Rrset | undefined =>
    type === TYPE.PTR && name.equals(Name.parseText(reverse))
      ? rrset(name, type, Name.parseText('localhost').wire)
      : undefined;

const REVERSE_OF_LOOPBACK_6 = `1${'.0'.repeat(31)}.ip6.arpa`;
const REVERSE_OF_UNSPECIFIED_6 = `0${'.0'.repeat(31)}.ip6.arpa`;

/** Zones by the last label of their names. */
const ZONES = byTopLabel([
  zone('localhost', 'all', localhost),
  zone('invalid', 'none'),
  zone('test', 'none'),
  zone('onion', 'none'),
  zone('alt', 'none'),
  zone('use-application-dns.net', 'none'),
  zone('resolver.arpa', 'all'),
  zone('127.in-addr.arpa', 'all', pointsToLocalhost('1.0.0.127.in-addr.arpa')),
  zone('0.in-addr.arpa', 'none'),
  zone('255.255.255.255.in-addr.arpa', 'none'),
  zone(REVERSE_OF_LOOPBACK_6, 'all', pointsToLocalhost(REVERSE_OF_LOOPBACK_6)),
  zone(REVERSE_OF_UNSPECIFIED_6, 'none'),
  ...privateReverse().map(text => zone(text, 'private')),
]);

/** RFC 6303 sections 4.1 to 4.5, RFC 7793 section 2.1: zones that every resolver is to have, empty. */
function privateReverse(): string[] {
  const ranges = (from: number, to: number): number[] =>
    Array.from({ length: to - from + 1 }, (_, i) => from + i);
  const v4 = [
    '10',
    '168.192',
    '254.169',
    '2.0.192',
    '100.51.198',
    '113.0.203',
    ...ranges(16, 31).map(n => `${n}.172`),
    ...ranges(64, 127).map(n => `${n}.100`),
  ];
  const v6 = ['d.f', '8.e.f', '9.e.f', 'a.e.f', 'b.e.f', '8.b.d.0.1.0.0.2'];
  return [...v4.map(text => `${text}.in-addr.arpa`), ...v6.map(text => `${text}.ip6.arpa`)];
}

function zone(text: string, exists: Zone['exists'], records: Zone['records'] = nothing): Zone {
  const apex = Name.parseText(text);
  const numbers = new DataView(new ArrayBuffer(20));
  [1, 3600, 1200, 604_800, ZONE_TTL_SECONDS].forEach((value, i) => {
    numbers.setUint32(4 * i, value);
  });
  // MNAME is the zone itself, RNAME goes nowhere (RFC 6303 section 3).
  const rdata = Buffer.concat([
    apex.wire,
    Name.parseText('nobody.invalid').wire,
    Buffer.from(numbers.buffer),
  ]);
  return { apex, soa: rrset(apex, TYPE.SOA, new Uint8Array(rdata)), exists, records };
}

function byTopLabel(zones: readonly Zone[]): Map<string, Zone[]> {
  const map = new Map<string, Zone[]>();
  for (const one of zones) {
    const top = topLabel(one.apex);
    map.set(top, [...(map.get(top) ?? []), one]);
  }
  return map;
}

/** The last label in lower case, `''` for the root. Asked for every question, so without intermediate names. */
function topLabel({ wire }: Name): string {
  let top = 0;
  for (let at = 0; wire[at] !== 0; at += 1 + wire[at]!) top = at;
  let text = '';
  for (let i = 1; i <= wire[top]!; i++) text += String.fromCharCode(wire[top + i]!);
  return text.toLowerCase();
}

function rrset(name: Name, type: number, rdata: Uint8Array): Rrset {
  return { name, type, class: CLASS.IN, ttlSeconds: ZONE_TTL_SECONDS, rdatas: [rdata], signatures: [] };
}

function positive(found: Rrset): StubAnswer {
  return { rcode: RCODE.NOERROR, authenticated: false, answer: [found], authority: [] };
}

function noData({ soa }: Zone): StubAnswer {
  return { rcode: RCODE.NOERROR, authenticated: false, answer: [], authority: [soa] };
}

function noSuchName({ soa }: Zone): StubAnswer {
  return { rcode: RCODE.NXDOMAIN, authenticated: false, answer: [], authority: [soa] };
}
