/** Trust anchors in the configuration: records inline or in a file, each problem with its line. */
import { DnsFormatError } from '../dns/name.ts';
import { rdataToText } from '../dns/rdata-text.ts';
import { typeToText } from '../dns/types.ts';
import { parseTrustAnchors, type TrustAnchor } from '../dnssec/anchors.ts';

/** Whether the record is one DS or DNSKEY record that fits. */
export function isAnchor(record: string): boolean {
  try {
    return parseTrustAnchors(record).length === 1;
  } catch (error) {
    if (error instanceof DnsFormatError) return false;
    throw error;
  }
}

/** The records behind anchors, as text, one a line. */
export function anchorRecords(anchors: TrustAnchor[]): string[] {
  return anchors.flatMap(({ name, type, records }) =>
    records.map(rdata => `${name.toText()} IN ${typeToText(type)} ${rdataToText(type, rdata)}`),
  );
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
