/** Trust anchors as text: DS and DNSKEY records, one a line, as a zone file or `dig` writes them. */
import type { TrustAnchor } from '../config.ts';
import { parseDomainName } from './values.ts';

/** The root's key signing keys of 2017 and 2024 (https://data.iana.org/root-anchors/root-anchors.xml, RFC 9718). */
export const IANA_ROOT_ANCHORS = [
  '. IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D',
  '. IN DS 38696 8 2 683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16',
];

/** `owner [ttl] [class] DS|DNSKEY rdata`, one line, without comment (RFC 4034 §2.2, §5.3). */
export function parseAnchor(line: string): TrustAnchor | undefined {
  const words = line.trim().split(/\s+/);
  const owner = parseDomainName(words[0] ?? '');
  let at = 1;
  while (at < 3 && /^(\d+|IN)$/i.test(words[at] ?? '')) at++;
  const type = words[at]?.toUpperCase();
  const [first, second, third, ...rest] = words.slice(at + 1);
  const numbers = [first, second, third].map(word => (/^\d{1,5}$/.test(word ?? '') ? Number(word) : -1));
  const [a = -1, b = -1, c = -1] = numbers;
  const data = rest.join('');
  if (owner === undefined || a < 0 || a > 65535 || b < 0 || b > 255 || c < 0 || c > 255) return undefined;
  if (type === 'DS') {
    if (!/^([0-9a-f]{2}){20,64}$/i.test(data)) return undefined;
    const digest = new Uint8Array(Buffer.from(data, 'hex'));
    return { owner, type, keyTag: a, algorithm: b, digestType: c, digest };
  }
  if (type === 'DNSKEY') {
    if (!/^[A-Za-z0-9+/]{16,}={0,2}$/.test(data) || b !== 3) return undefined;
    const publicKey = new Uint8Array(Buffer.from(data, 'base64'));
    return { owner, type, flags: a, protocol: b, algorithm: c, publicKey };
  }
  return undefined;
}

/** The reverse of parseAnchor. */
export function formatAnchor(anchor: TrustAnchor): string {
  const owner = `${anchor.owner}.`;
  if (anchor.type === 'DS') {
    const digest = Buffer.from(anchor.digest).toString('hex').toUpperCase();
    return `${owner} IN DS ${anchor.keyTag} ${anchor.algorithm} ${anchor.digestType} ${digest}`;
  }
  const key = Buffer.from(anchor.publicKey).toString('base64');
  return `${owner} IN DNSKEY ${anchor.flags} ${anchor.protocol} ${anchor.algorithm} ${key}`;
}

/**
 * Records of an anchor file with the line each begins on: `;` comments dropped, records in parentheses joined.
 * Root key files that unbound and BIND keep (`root.key`, `root.ds`) read so.
 */
export function recordsOfAnchorFile(text: string): { line: number; record: string }[] {
  const records: { line: number; record: string }[] = [];
  let open = false;
  for (const [index, raw] of text.split('\n').entries()) {
    const content = raw.replace(/;.*$/, '').trim();
    if (content === '') continue;
    const plain = content.replace(/[()]/g, ' ').trim();
    if (open) records[records.length - 1]!.record += ` ${plain}`;
    else records.push({ line: index + 1, record: plain });
    if (content.includes('(')) open = true;
    if (content.includes(')')) open = false;
  }
  return records;
}
