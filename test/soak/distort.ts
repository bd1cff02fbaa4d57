// What a fault makes of an answer: the datagrams that arrive in its place, in order. Pure but for the randomness given.
import type { Kind } from './weather.ts';

export type Delivery = {
  bytes: Uint8Array;
  delayMillis: number;
  /** From a port that was not asked. */
  foreign?: true;
};

/** An address that no zone has: whoever answers it believed a forgery. */
const FORGED_ADDRESS = [203, 0, 113, 66];
const RRSIG = 46;
const DNSSEC_TYPES = new Set([RRSIG, 47, 50]);

/**
 * What arrives over UDP for the server's `answer`.
 *
 * Nobody can tell when an answer without signatures was altered on its way by one who answers for the server: `unsigned`
 * ones are cut short instead.
 */
export function distort(answer: Buffer, kind: Kind, random: () => number, unsigned = false): Delivery[] {
  const now = (bytes: Uint8Array): Delivery => ({ bytes, delayMillis: 0 });
  switch (kind) {
    case 'loss':
    case 'down':
    case 'reset':
      return [];
    case 'slow':
      return [{ bytes: answer, delayMillis: 50 + random() * 900 }];
    case 'servfail':
      return [now(failed(answer))];
    case 'truncated':
      return [now(truncated(answer))];
    case 'wrongId':
      return [1, 2, 3]
        .map(step => now(withId(forged(answer), answer.readUInt16BE(0) + step)))
        .concat(now(answer));
    case 'spoofed':
      return [{ ...now(forged(answer)), foreign: true }, now(otherQuestion(forged(answer))), now(answer)];
    case 'duplicates':
      return [now(answer), now(answer), { bytes: answer, delayMillis: 3000 }];
    case 'garbage':
      return unsigned ? [now(cut(answer, random))] : [now(noise(answer, random)), now(cut(answer, random))];
    case 'stripped':
      return [now(stripped(answer))];
    case 'tampered':
      return [now(unsigned ? cut(answer, random) : tampered(answer, random))];
    default:
      return [now(answer)];
  }
}

/** The same for a message over TCP, where nobody can forge; undefined: the connection is reset. */
export function distortStream(
  answer: Buffer,
  kind: Kind,
  random: () => number,
  unsigned = false,
): Delivery[] | undefined {
  if (kind === 'reset' || kind === 'down') return undefined;
  const alike = ['slow', 'servfail', 'stripped', 'tampered', 'garbage'];
  return alike.includes(kind) ? distort(answer, kind, random, unsigned) : [{ bytes: answer, delayMillis: 0 }];
}

/** Header and question with RCODE 2. */
function failed(answer: Buffer): Buffer {
  const bytes = questionOnly(answer);
  bytes[3] = (bytes[3]! & 0xf0) | 2;
  return bytes;
}

function truncated(answer: Buffer): Buffer {
  const bytes = questionOnly(answer);
  bytes[2]! |= 0x02;
  return bytes;
}

/** NOERROR and one address that nobody published. */
function forged(answer: Buffer): Buffer {
  const bytes = questionOnly(answer);
  bytes[3] = (bytes[3]! & 0xd0) | 0x20; // AD, as far as a liar is concerned
  bytes.writeUInt16BE(1, 6);
  const record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, ...FORGED_ADDRESS];
  return Buffer.concat([bytes, Buffer.from(record)]);
}

/** Fewer octets than its counts promise. */
function cut(answer: Buffer, random: () => number): Buffer {
  return answer.subarray(0, Math.floor(random() * questionEnd(answer)));
}

function withId(bytes: Buffer, id: number): Buffer {
  bytes.writeUInt16BE(id & 0xffff, 0);
  return bytes;
}

/** Another letter at the start of the asked name. */
function otherQuestion(bytes: Buffer): Buffer {
  bytes[13] = bytes[13] === 0x7a ? 0x79 : 0x7a;
  return bytes;
}

function noise(answer: Buffer, random: () => number): Buffer {
  const bytes = Buffer.from(answer);
  for (let i = 2; i < bytes.length; i++) if (random() < 0.1) bytes[i] = Math.floor(random() * 256);
  return bytes;
}

/** Without a signature or a denial, as a forwarder leaves it that does not know DNSSEC. */
function stripped(answer: Buffer): Buffer {
  const counts = [0, 0, 0];
  const kept: Buffer[] = [];
  for (const record of recordsOf(answer)) {
    if (DNSSEC_TYPES.has(record.type)) continue;
    counts[record.section]!++;
    kept.push(answer.subarray(record.start, record.end));
  }
  const end = questionEnd(answer);
  const out = Buffer.concat([answer.subarray(0, end), ...kept]);
  // Names that point behind what was left out would point wrong: only into the question is safe.
  for (const [section, count] of counts.entries()) out.writeUInt16BE(count, 6 + 2 * section);
  return out;
}

/** One bit of one record's data is another. */
function tampered(answer: Buffer, random: () => number): Buffer {
  const records = recordsOf(answer).filter(({ type, data, end }) => type !== 41 && end > data);
  if (records.length === 0) return answer;
  const { data, end } = records[Math.floor(random() * records.length)]!;
  const bytes = Buffer.from(answer);
  bytes[data + Math.floor(random() * (end - data))]! ^= 1 << Math.floor(random() * 8);
  return bytes;
}

function questionOnly(answer: Buffer): Buffer {
  const bytes = Buffer.from(answer.subarray(0, questionEnd(answer)));
  bytes.fill(0, 6, 12);
  return bytes;
}

function questionEnd(message: Buffer): number {
  return skipName(message, 12) + 4;
}

function skipName(message: Buffer, at: number): number {
  for (;;) {
    const length = message[at]!;
    if (length >= 0xc0) return at + 2;
    if (length === 0) return at + 1;
    at += length + 1;
  }
}

/** Of answer (0), authority (1) and additional (2); the server's messages are well-formed. */
function recordsOf(
  message: Buffer,
): { section: number; type: number; start: number; data: number; end: number }[] {
  const found = [];
  let at = questionEnd(message);
  for (let section = 0; section < 3; section++) {
    for (let left = message.readUInt16BE(6 + 2 * section); left > 0; left--) {
      const start = at;
      at = skipName(message, at);
      const type = message.readUInt16BE(at);
      const data = at + 10;
      at = data + message.readUInt16BE(at + 8);
      found.push({ section, type, start, data, end: at });
    }
  }
  return found;
}

/** The asked name as text, lower case. */
export function askedName(message: Buffer): string {
  const labels: string[] = [];
  for (let at = 12; message[at] !== undefined && message[at] !== 0; at += message[at]! + 1)
    labels.push(message.toString('latin1', at + 1, at + 1 + message[at]!));
  return labels.join('.').toLowerCase();
}
