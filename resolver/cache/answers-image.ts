/**
 * Kept answers as octets, for a file that outlives the process.
 *
 *   magic(8) | era(32) | saved at, Unix ms (8) | { length(4) | answer }… | SHA-256 of all before (32)
 *
 * The digest finds what a disk or a cut did; it is no signature, and whoever may write the file may put answers in it.
 * `era`: a digest of whatever the answers depend on (trust anchors, upstream servers); under another one they count for
 * nothing. All numbers big-endian, names in wire form after their length, RRsets as `packed.ts` has them.
 */
import { createHash } from 'node:crypto';
import { Name } from '../dns/name.ts';
import type { Resolution, Verdict } from '../dnssec/types.ts';
import { pack, unpack } from './packed.ts';

/** An answer with the moment of the day (Unix ms) when it was stored, and its life from then on. */
export type KeptAnswer = {
  resolution: Resolution;
  storedAtWall: number;
  lifeMillis: number;
  contradicted: boolean;
};

const MAGIC = Buffer.from('HFansw1\n', 'latin1');
const DIGEST_OCTETS = 32;
const HEADER_OCTETS = MAGIC.length + DIGEST_OCTETS + 8;
/** Octets or answers dealt with before everything else that waits gets its turn: about a millisecond. */
const SLICE_OCTETS = 1 << 20;
const SLICE_ANSWERS = 100;
const NO_EDE = 0xffff;

const VERDICTS: readonly Verdict[] = ['secure', 'insecure'];
const OUTCOMES: readonly Resolution['outcome'][] = ['positive', 'nodata', 'nxdomain'];

export function composeImage(era: Uint8Array, savedAt: number, answers: Iterable<KeptAnswer>): Buffer {
  const header = Buffer.alloc(HEADER_OCTETS);
  header.set(MAGIC);
  header.set(era, MAGIC.length);
  header.writeDoubleBE(savedAt, MAGIC.length + DIGEST_OCTETS);
  const parts: Buffer[] = [header];
  for (const answer of answers) parts.push(composeAnswer(answer));
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return Buffer.concat([...parts, hash.digest()]);
}

/**
 * Hands each answer of the image to `take`, in slices that let everything else run; resolves with how many there were.
 *
 * Rejects with a reason in words, before anything is taken, when the image is not whole, of another era, or from the
 * future: then the clock was set back, and nobody knows how old its answers are. `take` returns false to stop.
 */
export async function readImage(
  image: Buffer,
  { era, now }: { era: Uint8Array; now: number },
  take: (answer: KeptAnswer) => boolean,
): Promise<number> {
  const end = image.length - DIGEST_OCTETS;
  if (end < HEADER_OCTETS || !image.subarray(0, MAGIC.length).equals(MAGIC)) {
    throw new Error('it holds no answers of this version');
  }
  if (!image.subarray(MAGIC.length, MAGIC.length + DIGEST_OCTETS).equals(era)) {
    throw new Error('trust anchors or upstream servers were other ones then');
  }
  if (image.readDoubleBE(MAGIC.length + DIGEST_OCTETS) > now) {
    throw new Error('it was written later than now: the clock was set back');
  }
  const hash = createHash('sha256');
  for (let at = 0; at < end; at += SLICE_OCTETS) {
    hash.update(image.subarray(at, Math.min(end, at + SLICE_OCTETS)));
    await breathe();
  }
  if (!hash.digest().equals(image.subarray(end))) throw new Error('it is damaged');
  let count = 0;
  for (let at = HEADER_OCTETS; at < end; count++) {
    const length = image.readUInt32BE(at);
    if (!take(parseAnswer(image.subarray(at + 4, at + 4 + length)))) break;
    at += 4 + length;
    if (count % SLICE_ANSWERS === 0) await breathe();
  }
  return count;
}

function breathe(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve));
}

/**
 * length(4) | stored at(8) | life, s(4) | type(2) | RCODE(2) | verdict(1) | outcome(1) | contradicted(1) |
 * EDE code(2), text(2+n) | name(1+n) | canonical name(1+n) | answer(4+n) | authority(4+n)
 */
function composeAnswer({ resolution, storedAtWall, lifeMillis, contradicted }: KeptAnswer): Buffer {
  const { question, rcode, verdict, outcome, ede, canonicalName, answer, authority } = resolution;
  const text = Buffer.from(ede?.text ?? '');
  const sections = [answer, authority].map(rrsets => Buffer.from(pack(rrsets), 'latin1'));
  const names = [question.name, canonicalName].map(({ wire }) => wire);
  const variable = [text, ...names, ...sections].reduce((sum, { length }) => sum + length, 0);
  const bytes = Buffer.allocUnsafe(4 + 19 + 4 + 2 + 8 + variable);
  let at = bytes.writeUInt32BE(bytes.length - 4, 0);
  at = bytes.writeDoubleBE(storedAtWall, at);
  at = bytes.writeUInt32BE(lifeMillis / 1000, at);
  at = bytes.writeUInt16BE(question.type, at);
  at = bytes.writeUInt16BE(rcode, at);
  at = bytes.writeUInt8(VERDICTS.indexOf(verdict), at);
  at = bytes.writeUInt8(OUTCOMES.indexOf(outcome), at);
  at = bytes.writeUInt8(contradicted ? 1 : 0, at);
  at = bytes.writeUInt16BE(ede?.code ?? NO_EDE, at);
  at = bytes.writeUInt16BE(text.length, at);
  bytes.set(text, at);
  at += text.length;
  for (const name of names) {
    at = bytes.writeUInt8(name.length, at);
    bytes.set(name, at);
    at += name.length;
  }
  for (const section of sections) {
    at = bytes.writeUInt32BE(section.length, at);
    bytes.set(section, at);
    at += section.length;
  }
  return bytes;
}

function parseAnswer(bytes: Buffer): KeptAnswer {
  const storedAtWall = bytes.readDoubleBE(0);
  const lifeSeconds = bytes.readUInt32BE(8);
  const code = bytes.readUInt16BE(19);
  let at = 21;
  const take = (length: number): Buffer => {
    at += length;
    return bytes.subarray(at - length, at);
  };
  const take16 = (): number => take(2).readUInt16BE();
  const name = (): Name => Name.fromWire(take(take(1)[0]!));
  const section = () => unpack(take(take(4).readUInt32BE()).toString('latin1'), 0);
  const text = take(take16()).toString();
  const question = { name: name(), type: bytes.readUInt16BE(12) };
  const canonicalName = name();
  const resolution: Resolution = {
    question,
    rcode: bytes.readUInt16BE(14),
    verdict: VERDICTS[bytes[16]!]!,
    outcome: OUTCOMES[bytes[17]!]!,
    ...(code !== NO_EDE && { ede: { code, text } }),
    canonicalName,
    answer: section(),
    authority: section(),
    ttlSeconds: lifeSeconds,
  };
  return { resolution, storedAtWall, lifeMillis: lifeSeconds * 1000, contradicted: bytes[18] === 1 };
}
