import { createHmac, createSecretKey, type KeyObject } from 'node:crypto';
import type { SaKeys } from '../types.ts';
import { concat, plain } from '../wire/bytes.ts';
import {
  type ChildSuite,
  type EncrAlgorithm,
  encrAlgorithm,
  type Hash,
  type IkeSuite,
  type IntegAlgorithm,
  integAlgorithm,
  type PrfAlgorithm,
  prfAlgorithm,
  required,
} from './algorithms.ts';

/** Key derivation: prf, prfPlus, skeyseed, skeyseedRekey, deriveIkeKeys, deriveChildKeys; algorithmsOf checks a suite. */

/** All keys of an IKE SA, RFC 7296 §2.14: SK_d, and per direction SK_a (none with AEAD), SK_e with its salt, SK_p. */
export type IkeKeys = { skD: KeyObject; initiator: DirectionKeys; responder: DirectionKeys };

/** Keys of what the original initiator (or responder) sends. */
export type DirectionKeys = {
  integrity?: KeyObject;
  encryption: KeyObject;
  /** 4 bytes with AEAD, else empty. */
  salt: Uint8Array;
  skP: KeyObject;
};

/** Keys of one ESP SA in the form the kernel takes. */
export type ChildCipher = SaKeys['cipher'];

/** prf(key, data): HMAC with the negotiated hash, RFC 7296 §2.13. */
export function prf(prfId: number, key: KeyObject, ...data: Uint8Array[]): Uint8Array {
  const hmac = createHmac(hashOf(prfId).hash, key);
  for (const part of data) hmac.update(part);
  return plain(hmac.digest());
}

/**
 * prf+(key, seed) cut to `length` bytes, RFC 7296 §2.13.
 *
 * T1 = prf (K, S | 0x01), Tn = prf (K, T(n-1) | S | n). Throws RangeError beyond 255 blocks.
 */
export function prfPlus(prfId: number, key: KeyObject, seed: Uint8Array, length: number): Uint8Array {
  const { bytes } = hashOf(prfId);
  const blocks = Math.ceil(length / bytes);
  if (blocks > 255) throw new RangeError(`prf+ cannot give ${length} bytes`);
  const output = new Uint8Array(blocks * bytes);
  let block: Uint8Array = new Uint8Array(0);
  for (let index = 1; index <= blocks; index++) {
    block = prf(prfId, key, block, seed, Uint8Array.of(index));
    output.set(block, (index - 1) * bytes);
  }
  return output.subarray(0, length);
}

/** SKEYSEED = prf(Ni | Nr, g^ir), RFC 7296 §2.14. */
export function skeyseed(prfId: number, ni: Uint8Array, nr: Uint8Array, shared: Uint8Array): KeyObject {
  return createSecretKey(prf(prfId, createSecretKey(concat([ni, nr])), shared));
}

/** SKEYSEED of a rekeyed IKE SA = prf(SK_d (old), g^ir (new) | Ni | Nr), with the old SA's PRF, RFC 7296 §2.18. */
export function skeyseedRekey(
  oldPrfId: number,
  oldSkD: KeyObject,
  shared: Uint8Array,
  ni: Uint8Array,
  nr: Uint8Array,
): KeyObject {
  return createSecretKey(prf(oldPrfId, oldSkD, shared, ni, nr));
}

/**
 * {SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr} = prf+ (SKEYSEED, Ni | Nr | SPIi | SPIr), RFC 7296 §2.14.
 *
 * With AEAD there is no SK_a, and SK_e carries its 4 bytes of salt (RFC 5282 §7.1).
 */
export function deriveIkeKeys(
  suite: IkeSuite,
  seed: KeyObject,
  exchange: { ni: Uint8Array; nr: Uint8Array; spiInitiator: bigint; spiResponder: bigint },
): IkeKeys {
  const { encr, integ } = algorithmsOf(suite);
  const prfBytes = hashOf(suite.prf).bytes;
  const spis = new Uint8Array(16);
  const view = new DataView(spis.buffer);
  view.setBigUint64(0, exchange.spiInitiator);
  view.setBigUint64(8, exchange.spiResponder);
  const integBytes = integ?.keyBytes ?? 0;
  const encrBytes = encr.keyBytes + encr.saltBytes;
  const material = prfPlus(
    suite.prf,
    seed,
    concat([exchange.ni, exchange.nr, spis]),
    3 * prfBytes + 2 * integBytes + 2 * encrBytes,
  );
  const take = cutter(material);
  const skD = createSecretKey(take(prfBytes));
  const [ai, ar] = [take(integBytes), take(integBytes)];
  const [ei, er] = [take(encrBytes), take(encrBytes)];
  const [pi, pr] = [take(prfBytes), take(prfBytes)];
  const keys = {
    skD,
    initiator: directionKeys(encr, ai, ei, pi),
    responder: directionKeys(encr, ar, er, pr),
  };
  material.fill(0);
  return keys;
}

function directionKeys(encr: EncrAlgorithm, a: Uint8Array, e: Uint8Array, p: Uint8Array): DirectionKeys {
  return {
    ...(a.length > 0 ? { integrity: createSecretKey(a) } : {}),
    encryption: createSecretKey(e.subarray(0, encr.keyBytes)),
    salt: e.slice(encr.keyBytes),
    skP: createSecretKey(p),
  };
}

/**
 * KEYMAT = prf+(SK_d, [g^ir (new)] | Ni | Nr), cut for a pair of ESP SAs, RFC 7296 §2.17.
 *
 * All keys for SAs from initiator to responder come first; within an SA encryption before integrity. `initiator` is what
 * the initiator of the exchange that creates the Child SA sends with. AEAD keys carry their salt behind them.
 */
export function deriveChildKeys(
  prfId: number,
  skD: KeyObject,
  suite: ChildSuite,
  ni: Uint8Array,
  nr: Uint8Array,
  shared: Uint8Array = new Uint8Array(0),
): { initiator: ChildCipher; responder: ChildCipher } {
  const { encr, integ } = algorithmsOf(suite);
  const each = encr.keyBytes + encr.saltBytes + (integ?.keyBytes ?? 0);
  const material = prfPlus(prfId, skD, concat([shared, ni, nr]), 2 * each);
  const initiator = childCipher(encr, integ, material.slice(0, each));
  const responder = childCipher(encr, integ, material.slice(each));
  material.fill(0);
  return { initiator, responder };
}

function childCipher(
  encr: EncrAlgorithm,
  integ: IntegAlgorithm | undefined,
  material: Uint8Array,
): ChildCipher {
  if (integ === undefined) {
    const name = encr.cipher === 'chacha20-poly1305' ? 'chacha20-poly1305' : 'aes-gcm-16';
    return { kind: 'aead', name, key: material, icvBits: 128 };
  }
  return {
    kind: 'cbc-hmac',
    cipher: 'aes-cbc',
    cipherKey: material.subarray(0, encr.keyBytes),
    integrity: integrityNames[integ.hash],
    integrityKey: material.subarray(encr.keyBytes),
    icvBits: icvBits[integ.hash],
  };
}

const integrityNames = {
  sha256: 'hmac-sha2-256',
  sha384: 'hmac-sha2-384',
  sha512: 'hmac-sha2-512',
} as const satisfies Record<Hash, string>;
const icvBits = { sha256: 128, sha384: 192, sha512: 256 } as const satisfies Record<Hash, number>;

/**
 * The encryption and integrity algorithms of a suite.
 *
 * Throws RangeError for anything unsupported, CBC without integrity, and AEAD with one: key material is never empty.
 */
export function algorithmsOf(suite: { encr: number; keyBits: number; integ: number }): {
  encr: EncrAlgorithm;
  integ: IntegAlgorithm | undefined;
} {
  const encr = required(
    encrAlgorithm(suite.encr, suite.keyBits),
    `encryption ${suite.encr}/${suite.keyBits}`,
  );
  const integ = integAlgorithm(suite.integ);
  if (encr.aead !== (integ === undefined) || (encr.aead && suite.integ !== 0)) {
    throw new RangeError(`${encr.name} with integrity algorithm ${suite.integ}`);
  }
  return { encr, integ };
}

function hashOf(prfId: number): PrfAlgorithm {
  return required(prfAlgorithm(prfId), `PRF ${prfId}`);
}

/** Gives copies of consecutive pieces. */
function cutter(material: Uint8Array): (length: number) => Uint8Array {
  let at = 0;
  return length => {
    at += length;
    return material.slice(at - length, at);
  };
}
