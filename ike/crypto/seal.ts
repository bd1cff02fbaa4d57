import { createCipheriv, createDecipheriv, createHmac, type KeyObject, timingSafeEqual } from 'node:crypto';
import { concat, plain, writeU16 } from '../wire/bytes.ts';
import { invalidSyntax } from '../wire/error.ts';
import { composeHeader, type Header, headerBytes } from '../wire/header.ts';
import { PayloadType } from '../wire/numbers.ts';
import { composePayloads, type Encrypted, type Message, type Payload } from '../wire/payloads.ts';
import type { EncrAlgorithm, IkeSuite, IntegAlgorithm } from './algorithms.ts';
import type { Random } from './key-exchange.ts';
import { algorithmsOf, type DirectionKeys } from './prf.ts';

/** SK and SKF payloads: sealMessage, sealFragments, openMessage over a Sealer or Opener per direction of an IKE SA. */

/** More fragments than this are neither sent nor taken. */
const maximumFragments = 64;

/**
 * A whole message with its payloads in one SK payload, RFC 7296 §3.14, RFC 5282, RFC 7634.
 *
 * Every call gives other bytes (a fresh IV): keep the result for retransmission.
 */
export function sealMessage(header: Header, payloads: readonly Payload[], sealer: Sealer): Uint8Array {
  const { first, bytes } = composePayloads(payloads);
  return sealer.seal(header, first, bytes);
}

/**
 * One SK message when it fits into `maximumMessageBytes` (IKE header to ICV), else SKF fragments 1..n, RFC 7383 §2.5.
 *
 * Throws RangeError when more than 64 fragments would be needed.
 */
export function sealFragments(
  header: Header,
  payloads: readonly Payload[],
  sealer: Sealer,
  maximumMessageBytes: number,
): Uint8Array[] {
  const { first, bytes } = composePayloads(payloads);
  if (sealer.sealedBytes('SK', bytes.length) <= maximumMessageBytes)
    return [sealer.seal(header, first, bytes)];
  const room = sealer.fragmentRoom(maximumMessageBytes);
  const total = room > 0 ? Math.ceil(bytes.length / room) : Number.POSITIVE_INFINITY;
  if (total > maximumFragments) throw new RangeError(`message needs ${total} fragments`);
  return Array.from({ length: total }, (_, index) => {
    const part = bytes.subarray(index * room, (index + 1) * room);
    return sealer.seal(header, index === 0 ? first : PayloadType.NONE, part, { number: index + 1, total });
  });
}

/**
 * Verify and decrypt a message's SK or SKF payload.
 *
 * Undefined: not authentic, drop it; nothing about it may be believed. The plaintext of an SK message goes to
 * parsePayloads, that of a fragment to ike/fragments.ts. Throws WireError INVALID_SYNTAX for authentic but wrong padding.
 */
export function openMessage(
  message: Message,
  opener: Opener,
): { firstPayload: number; plaintext: Uint8Array } | undefined {
  if (message.encrypted === undefined) return undefined;
  const plaintext = opener.open(message.encrypted);
  return plaintext === undefined ? undefined : { firstPayload: message.encrypted.firstPayload, plaintext };
}

/** Seals what we send on one IKE SA. AEAD IVs count up from 0: one Sealer per key, and never two. */
export class Sealer {
  readonly #encr: EncrAlgorithm;
  readonly #integ: IntegAlgorithm | undefined;
  readonly #keys: DirectionKeys;
  readonly #random: Random;
  #counter = 0n;

  constructor(suite: IkeSuite, keys: DirectionKeys, random: Random) {
    const { encr, integ } = algorithmsOf(suite);
    this.#encr = encr;
    this.#integ = integ;
    this.#keys = keys;
    this.#random = random;
  }

  /** Length of the whole message that carries so many bytes of payloads. */
  sealedBytes(kind: 'SK' | 'SKF', plaintextBytes: number): number {
    return this.#overhead(kind) + plaintextBytes + 1 + this.#padding(plaintextBytes);
  }

  /** Bytes of payloads that fit into a fragment of this many bytes; below 1 when nothing does. */
  fragmentRoom(messageBytes: number): number {
    const { blockBytes } = this.#encr;
    const inside = messageBytes - this.#overhead('SKF');
    return inside - (inside % blockBytes) - 1;
  }

  seal(
    header: Header,
    firstPayload: number,
    plaintext: Uint8Array,
    fragment?: { number: number; total: number },
  ): Uint8Array {
    const kind = fragment === undefined ? 'SK' : 'SKF';
    const length = this.sealedBytes(kind, plaintext.length);
    const payloadHead = new Uint8Array(fragment === undefined ? 4 : 8);
    payloadHead[0] = firstPayload;
    writeU16(payloadHead, 2, length - headerBytes);
    if (fragment !== undefined) {
      writeU16(payloadHead, 4, fragment.number);
      writeU16(payloadHead, 6, fragment.total);
    }
    const associatedData = concat([composeHeader(header, PayloadType[kind], length), payloadHead]);
    const padding = new Uint8Array(this.#padding(plaintext.length) + 1);
    padding[padding.length - 1] = padding.length - 1;
    return this.#encr.aead
      ? this.#sealAead(associatedData, plaintext, padding)
      : this.#sealCbc(associatedData, plaintext, padding);
  }

  #sealAead(associatedData: Uint8Array, plaintext: Uint8Array, padding: Uint8Array): Uint8Array {
    const iv = new Uint8Array(8);
    new DataView(iv.buffer).setBigUint64(0, this.#counter);
    this.#counter += 1n;
    const nonce = concat([this.#keys.salt, iv]);
    const cipher = createAead(this.#encr, this.#keys.encryption, nonce);
    cipher.setAAD(associatedData, { plaintextLength: plaintext.length + padding.length });
    const body = [cipher.update(plaintext), cipher.update(padding), cipher.final()];
    return concat([associatedData, iv, ...body, cipher.getAuthTag()]);
  }

  #sealCbc(associatedData: Uint8Array, plaintext: Uint8Array, padding: Uint8Array): Uint8Array {
    const iv = this.#random(this.#encr.ivBytes);
    const cipher = createCipheriv(this.#encr.cipher, this.#keys.encryption, iv);
    cipher.setAutoPadding(false);
    const body = [cipher.update(plaintext), cipher.update(padding), cipher.final()];
    const covered = concat([associatedData, iv, ...body]);
    return concat([covered, icv(this.#integ!, this.#keys.integrity!, covered)]);
  }

  #overhead(kind: 'SK' | 'SKF'): number {
    const icvBytes = this.#integ?.icvBytes ?? this.#encr.icvBytes;
    return headerBytes + (kind === 'SK' ? 4 : 8) + this.#encr.ivBytes + icvBytes;
  }

  /** Pad bytes that make plaintext, padding and Pad Length a multiple of the block. */
  #padding(plaintextBytes: number): number {
    const { blockBytes } = this.#encr;
    return (blockBytes - ((plaintextBytes + 1) % blockBytes)) % blockBytes;
  }
}

/** Opens what the peer sends on one IKE SA; keeps no state, so a wrong message changes nothing. */
export class Opener {
  readonly #encr: EncrAlgorithm;
  readonly #integ: IntegAlgorithm | undefined;
  readonly #keys: DirectionKeys;

  constructor(suite: IkeSuite, keys: DirectionKeys) {
    const { encr, integ } = algorithmsOf(suite);
    this.#encr = encr;
    this.#integ = integ;
    this.#keys = keys;
  }

  /** The payloads inside, padding taken off; undefined when the ICV is wrong. See openMessage. */
  open(sealed: Encrypted): Uint8Array | undefined {
    const { ivBytes, blockBytes } = this.#encr;
    const icvBytes = this.#integ?.icvBytes ?? this.#encr.icvBytes;
    const { body } = sealed;
    const inside = body.length - ivBytes - icvBytes;
    if (inside < 1 || inside % blockBytes !== 0) return undefined;
    const iv = body.subarray(0, ivBytes);
    const ciphertext = body.subarray(ivBytes, ivBytes + inside);
    const tag = body.subarray(ivBytes + inside);
    const padded = this.#encr.aead
      ? this.#openAead(sealed.associatedData, iv, ciphertext, tag)
      : this.#openCbc(sealed.associatedData, iv, ciphertext, tag);
    if (padded === undefined) return undefined;
    // Any pad bytes are right (RFC 7296 §3.14); only their number is checked.
    const end = padded.length - 1 - padded[padded.length - 1]!;
    if (end < 0) throw invalidSyntax('SK: more padding than content');
    return padded.subarray(0, end);
  }

  #openAead(
    associatedData: Uint8Array,
    iv: Uint8Array,
    ciphertext: Uint8Array,
    tag: Uint8Array,
  ): Uint8Array | undefined {
    const decipher = createAeadOpener(this.#encr, this.#keys.encryption, concat([this.#keys.salt, iv]));
    decipher.setAAD(associatedData, { plaintextLength: ciphertext.length });
    decipher.setAuthTag(tag);
    const plaintext = decipher.update(ciphertext);
    try {
      decipher.final();
    } catch {
      return undefined;
    }
    return plain(plaintext);
  }

  #openCbc(
    associatedData: Uint8Array,
    iv: Uint8Array,
    ciphertext: Uint8Array,
    tag: Uint8Array,
  ): Uint8Array | undefined {
    const expected = icv(this.#integ!, this.#keys.integrity!, associatedData, iv, ciphertext);
    if (!timingSafeEqual(expected, tag)) return undefined;
    const decipher = createDecipheriv(this.#encr.cipher, this.#keys.encryption, iv);
    decipher.setAutoPadding(false);
    return concat([decipher.update(ciphertext), decipher.final()]);
  }
}

function createAead(encr: EncrAlgorithm, key: KeyObject, nonce: Uint8Array) {
  return encr.cipher === 'chacha20-poly1305'
    ? createCipheriv(encr.cipher, key, nonce, { authTagLength: 16 })
    : createCipheriv(encr.cipher as 'aes-256-gcm', key, nonce, { authTagLength: 16 });
}

function createAeadOpener(encr: EncrAlgorithm, key: KeyObject, nonce: Uint8Array) {
  return encr.cipher === 'chacha20-poly1305'
    ? createDecipheriv(encr.cipher, key, nonce, { authTagLength: 16 })
    : createDecipheriv(encr.cipher as 'aes-256-gcm', key, nonce, { authTagLength: 16 });
}

function icv(integ: IntegAlgorithm, key: KeyObject, ...covered: Uint8Array[]): Uint8Array {
  const hmac = createHmac(integ.hash, key);
  for (const part of covered) hmac.update(part);
  return hmac.digest().subarray(0, integ.icvBytes);
}
