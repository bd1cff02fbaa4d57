// Holds an answer against the truth: right, a refusal (SERVFAIL), truncated, or wrong and why. By a codec that shares no
// code with the daemon. Pure.
import { dnsPacket, type Packet, type PacketRecord } from '../resolver/dns-packet.ts';
import type { Question, Truth, ZoneRecord } from './zones.ts';

/** How the question was asked: without EDNS, with AD, or with DO. */
export type Asked = 'plain' | 'ad' | 'do';

export type Verdict = 'right' | 'servfail' | 'truncated' | { wrong: string };

/** Stale data may live on for so long (RFC 8767 section 4), whatever its own TTL was. */
const STALE_TTL_SECONDS = 30;

export function check(bytes: Uint8Array, question: Question, asked: Asked, truth: Truth): Verdict {
  let message: Packet;
  try {
    message = dnsPacket.decode(bytes);
  } catch (error) {
    return { wrong: `cannot be read: ${(error as Error).message}` };
  }
  const [echoed] = message.questions ?? [];
  if (echoed?.name.toLowerCase() !== question.name || echoed.type !== question.type)
    return { wrong: `answers another question: ${echoed?.name} ${echoed?.type}` };
  if (!message.flag_qr || !message.flag_ra) return { wrong: 'QR or RA is not set' };
  if (message.rcode === 'SERVFAIL') {
    const empty = message.answers?.length === 0;
    return empty && !message.flag_ad ? 'servfail' : { wrong: 'SERVFAIL with records or AD' };
  }
  if (message.flag_tc)
    return message.answers?.length === 0 ? 'truncated' : { wrong: 'TC with half an answer' };
  const problem = problemOf(message, asked, truth);
  return problem === undefined ? 'right' : { wrong: problem };
}

function problemOf(message: Packet, asked: Asked, truth: Truth): string | undefined {
  if (message.rcode !== truth.rcode) return `${message.rcode} and not ${truth.rcode}`;
  const mayHaveAd = truth.signed && asked !== 'plain';
  if (message.flag_ad !== mayHaveAd)
    return `AD is ${message.flag_ad ? 'set' : 'not set'}, ${truth.signed ? '' : 'un'}signed, asked with ${asked}`;
  const answers = message.answers ?? [];
  const data = answers.filter(({ type }) => type !== 'RRSIG');
  const told = data.map(textOfAnswer).sort();
  const published = truth.records.map(textOf).sort();
  if (told.join('\n') !== published.join('\n'))
    return `says ${show(told)} where the zone has ${show(published)}`;
  const signatures = answers.length - data.length;
  if (asked !== 'do' && signatures > 0) return 'signatures for a client without DO';
  if (asked === 'do' && truth.signed && data.length > 0 && signatures === 0) return 'no signatures with DO';
  const most = Math.max(STALE_TTL_SECONDS, ...truth.records.map(({ ttlSeconds }) => ttlSeconds));
  const long = data.find(({ ttl }) => ttl! > most);
  return long && `TTL ${long.ttl} of ${long.name}, and the zone has ${most} at most`;
}

function textOf({ owner, type, data }: ZoneRecord): string {
  return `${owner} ${type} ${type === 'IPSECKEY' ? ipseckeyHex(data) : data}`;
}

function textOfAnswer({ name, type, data }: PacketRecord): string {
  const owner = name.toLowerCase();
  if (type === 'TXT')
    return `${owner} TXT ${Buffer.concat((data as Buffer[]).map(part => Buffer.from(part)))}`;
  return `${owner} ${type} ${Buffer.isBuffer(data) ? data.toString('hex') : String(data).toLowerCase()}`;
}

/** `precedence 0 algorithm . base64` as RDATA (RFC 4025 section 2). */
function ipseckeyHex(text: string): string {
  const [precedence, gatewayType, algorithm, , key] = text.split(' ') as [
    string,
    string,
    string,
    string,
    string,
  ];
  const head = Buffer.from([precedence, gatewayType, algorithm].map(Number));
  return Buffer.concat([head, Buffer.from(key, 'base64')]).toString('hex');
}

function show(list: string[]): string {
  const text = list.join(', ');
  return text === '' ? 'nothing' : text.length > 200 ? `${text.slice(0, 200)}…` : text;
}
