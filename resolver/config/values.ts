/** How single values are written: durations, names, policy entries, times. Each returns undefined for what it is not. */
import { domainToASCII } from 'node:url';
import { type Cidr, parseCidr } from '../address.ts';

/** `500ms`, `2s`, `1.5s`, `10m`, `6h`: milliseconds. */
export function parseDuration(text: string): number | undefined {
  const match = /^(\d{1,9}(?:\.\d{1,3})?) ?(ms|s|m|h)$/.exec(text.trim());
  if (!match) return undefined;
  const unit = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[match[2] as 'ms' | 's' | 'm' | 'h'];
  return Math.round(Number(match[1]) * unit);
}

/** The reverse of parseDuration, in the largest unit that needs no fraction. */
export function formatDuration(millis: number): string {
  if (millis % 3_600_000 === 0 && millis > 0) return `${millis / 3_600_000}h`;
  if (millis % 60_000 === 0 && millis > 0) return `${millis / 60_000}m`;
  return millis % 1000 === 0 && millis > 0 ? `${millis / 1000}s` : `${millis}ms`;
}

/** `512KB`, `64MB`, `1GB`: octets, in powers of 1,024. */
export function parseSize(text: string): number | undefined {
  const match = /^(\d{1,6}) ?([KMG])B$/i.exec(text.trim());
  return match ? Number(match[1]) * SIZES[match[2]!.toUpperCase() as keyof typeof SIZES] : undefined;
}

/** The reverse of parseSize. */
export function formatSize(octets: number): string {
  const unit = (['G', 'M', 'K'] as const).find(each => octets % SIZES[each] === 0)!;
  return `${octets / SIZES[unit]}${unit}B`;
}

const SIZES = { K: 1 << 10, M: 1 << 20, G: 1 << 30 };

/** A domain name as hosts use them: lower case A-labels without the final dot; `''` is the root, written `.`. */
export function parseDomainName(text: string): string | undefined {
  if (text === '.') return '';
  const ascii = /^[\x21-\x7e]+$/.test(text) ? text : domainToASCII(text);
  const name = ascii.toLowerCase().replace(/\.$/, '');
  if (name.length > 253 || !/^([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}$/.test(name)) return undefined;
  if (/(^|\.)\d+$/.test(name)) return undefined; // 10.1.2 is a mistyped address, not a name (RFC 1123 §2.1)
  return name;
}

/** A name with at least two labels. */
export function parseFqdn(text: string): string | undefined {
  const name = parseDomainName(text);
  return name?.includes('.') ? name : undefined;
}

export type PolicyEntry = { cidr: Cidr } | { namePattern: string };

/** An entry of a policy group: an address, a prefix, a name, `*.suffix` or `*`. */
export function parsePolicyEntry(text: string): PolicyEntry | undefined {
  const cidr = parseCidr(text);
  if (cidr) return { cidr };
  if (text === '*') return { namePattern: '*' };
  const below = text.startsWith('*.');
  const name = parseDomainName(below ? text.slice(2) : text);
  if (name === undefined || (name === '' && !below)) return undefined;
  return { namePattern: below ? (name === '' ? '*' : `*.${name}`) : name };
}

/** Unix seconds from `2026-01-31`, `2026-01-31T12:00:00Z`, RRSIG form `20260131120000` (RFC 4034 §3.2) or seconds. */
export function parseTime(text: string): number | undefined {
  const stamp = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)$/.exec(text);
  if (stamp) {
    const [, year, month, day, hour, minute, second] = stamp;
    return secondsOf(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
  }
  if (/^\d{1,11}$/.test(text)) return Number(text);
  if (/^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d))?$/.test(text)) return secondsOf(text);
  return undefined;
}

function secondsOf(iso: string): number | undefined {
  const millis = Date.parse(iso);
  return Number.isNaN(millis) ? undefined : Math.floor(millis / 1000);
}

/** ISO 8601 in UTC, to the second. */
export function formatTime(seconds: number): string {
  return new Date(seconds * 1000).toISOString().replace('.000Z', 'Z');
}

/** A UDP or TCP port. */
export function parsePort(text: string): number | undefined {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  return port >= 1 && port <= 65535 ? port : undefined;
}
