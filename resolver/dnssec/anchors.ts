/** Trust anchors: where chains of trust begin (RFC 4033 §2), and negative anchors, where they are cut (RFC 7646). */
import { parseDnskey, parseDs } from '../dns/dnssec-rdata.ts';
import { DnsFormatError, Name } from '../dns/name.ts';
import { TYPE } from '../dns/types.ts';
import { isSupportedAlgorithm, isSupportedDigest } from './algorithms.ts';

/** `records`: RDATA of DS or DNSKEY, all of them alternatives; `name` any zone, not only the root. */
export type TrustAnchor = { name: Name; type: typeof TYPE.DS | typeof TYPE.DNSKEY; records: Uint8Array[] };

/**
 * The root's anchors as IANA publishes them (https://data.iana.org/root-anchors/root-anchors.xml):
 * KSK-2017 (tag 20326) and KSK-2024 (tag 38696), SHA-256.
 */
export const IANA_ROOT_ANCHORS = `
. IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D
. IN DS 38696 8 2 683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16
`;

/**
 * Anchors from zone-file lines: `name [ttl] [class] DS|DNSKEY rdata…`, `;` comments, names absolute.
 *
 * Throws DnsFormatError naming the line. Records of one name and type make one anchor.
 */
export function parseTrustAnchors(text: string): TrustAnchor[] {
  const anchors = new Map<string, TrustAnchor>();
  for (const [index, line] of text.split('\n').entries()) {
    const words = line.replace(/;.*$/, '').replace(/[()]/g, ' ').trim().split(/\s+/);
    if (words[0] === '' || words[0] === undefined) continue;
    const read = parseLine(words);
    if (read === undefined)
      throw new DnsFormatError(`trust anchor line ${index + 1}: expected "name DS …" or "name DNSKEY …"`);
    const key = `${read.type} ${read.name.key}`;
    const anchor = anchors.get(key) ?? { name: read.name, type: read.type, records: [] };
    anchor.records.push(read.rdata);
    anchors.set(key, anchor);
  }
  return [...anchors.values()];
}

/** Zones of whose anchors none is of an algorithm and digest that we know: they count as insecure (RFC 4035 §5.2). */
export function zonesWithoutUsableAnchor(anchors: readonly TrustAnchor[]): Name[] {
  const zones = new Map<string, { name: Name; usable: boolean }>();
  for (const { name, type, records } of anchors) {
    const usable = records.some(rdata => {
      if (type === TYPE.DNSKEY) return isSupportedAlgorithm(parseDnskey(rdata)?.algorithm ?? 0);
      const ds = parseDs(rdata);
      return ds !== undefined && isSupportedAlgorithm(ds.algorithm) && isSupportedDigest(ds.digestType);
    });
    zones.set(name.key, { name, usable: usable || (zones.get(name.key)?.usable ?? false) });
  }
  return [...zones.values()].filter(({ usable }) => !usable).map(({ name }) => name);
}

function parseLine(
  words: string[],
): { name: Name; type: TrustAnchor['type']; rdata: Uint8Array } | undefined {
  const name = Name.parseText(words[0]!);
  let at = 1;
  while (/^(\d+|IN)$/i.test(words[at] ?? '')) at++;
  const type = words[at]?.toUpperCase();
  const numbers = words.slice(at + 1, at + 4).map(Number);
  if (numbers.length < 3 || numbers.some(number => !Number.isInteger(number) || number < 0)) return undefined;
  const [first, second, third] = numbers as [number, number, number];
  if (first > 0xffff || second > 0xff || third > 0xff) return undefined;
  const data = words.slice(at + 4).join('');
  if (data === '') return undefined;
  const head = [first >> 8, first & 0xff, second, third];
  if (type === 'DS') {
    if (!/^([0-9a-f]{2})+$/i.test(data)) return undefined;
    return { name, type: TYPE.DS, rdata: Uint8Array.of(...head, ...Buffer.from(data, 'hex')) };
  }
  if (type !== 'DNSKEY' || !/^[A-Za-z0-9+/]{2,}={0,2}$/.test(data)) return undefined;
  return { name, type: TYPE.DNSKEY, rdata: Uint8Array.of(...head, ...Buffer.from(data, 'base64')) };
}
