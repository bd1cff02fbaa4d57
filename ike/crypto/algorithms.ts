import { TransformType } from '../wire/numbers.ts';
import type { Transform } from '../wire/sa.ts';

/**
 * Every algorithm this engine can do, by its IANA number (https://www.iana.org/assignments/ikev2-parameters).
 *
 * What is not in these tables must never be chosen: no NULL, no GMAC, no SHA-1, no group below 2048 bits
 * (RFC 8221, RFC 8247, RFC 9395).
 */

/** Transform type 1. */
export const Encr = { AES_CBC: 12, AES_GCM_16: 20, CHACHA20_POLY1305: 28 } as const;
/** Transform type 2. */
export const Prf = { HMAC_SHA2_256: 5, HMAC_SHA2_384: 6, HMAC_SHA2_512: 7 } as const;
/** Transform type 3; NONE goes with AEAD ciphers. */
export const Integ = {
  NONE: 0,
  HMAC_SHA2_256_128: 12,
  HMAC_SHA2_384_192: 13,
  HMAC_SHA2_512_256: 14,
} as const;
/** Transform type 4, key exchange methods. */
export const Group = { NONE: 0, MODP_2048: 14, ECP_256: 19, ECP_384: 20, CURVE25519: 31 } as const;
/** Transform type 5, extended sequence numbers. */
export const Esn = { OFF: 0, ON: 1 } as const;

/** What an IKE SA runs on. `keyBits` is 256 for ChaCha20 too; `integ` is 0 with AEAD. */
export type IkeSuite = { encr: number; keyBits: number; prf: number; integ: number; group: number };
/** What a Child SA runs on; `group` when it was made with a key exchange of its own. */
export type ChildSuite = { encr: number; keyBits: number; integ: number; esn: boolean; group?: number };

export type EncrAlgorithm = {
  id: number;
  name: string;
  keyBits: number;
  /** Whether the transform carries a Key Length attribute (not ChaCha20, RFC 7634 §4). */
  keyLengthAttribute: boolean;
  aead: boolean;
  keyBytes: number;
  /** Salt behind the key in the keying material: RFC 5282 §7.1, RFC 7634 §4. */
  saltBytes: number;
  ivBytes: number;
  /** 0 for CBC: there the integrity algorithm says. */
  icvBytes: number;
  blockBytes: number;
  /** OpenSSL's name of the cipher. */
  cipher: 'aes-128-gcm' | 'aes-256-gcm' | 'chacha20-poly1305' | 'aes-128-cbc' | 'aes-256-cbc';
};
export type Hash = 'sha256' | 'sha384' | 'sha512';
export type PrfAlgorithm = { id: number; name: string; hash: Hash; bytes: number };
export type IntegAlgorithm = { id: number; name: string; hash: Hash; keyBytes: number; icvBytes: number };
export type GroupAlgorithm = { id: number; name: string; publicBytes: number };

const gcm = { aead: true, keyLengthAttribute: true, saltBytes: 4, ivBytes: 8, icvBytes: 16, blockBytes: 1 };
const cbc = { aead: false, keyLengthAttribute: true, saltBytes: 0, ivBytes: 16, icvBytes: 0, blockBytes: 16 };

const encrAlgorithms: readonly EncrAlgorithm[] = [
  { id: Encr.AES_GCM_16, name: 'AES_GCM_16_256', keyBits: 256, keyBytes: 32, cipher: 'aes-256-gcm', ...gcm },
  { id: Encr.AES_GCM_16, name: 'AES_GCM_16_128', keyBits: 128, keyBytes: 16, cipher: 'aes-128-gcm', ...gcm },
  {
    ...gcm,
    id: Encr.CHACHA20_POLY1305,
    name: 'CHACHA20_POLY1305',
    keyBits: 256,
    keyBytes: 32,
    cipher: 'chacha20-poly1305',
    keyLengthAttribute: false,
  },
  { id: Encr.AES_CBC, name: 'AES_CBC_256', keyBits: 256, keyBytes: 32, cipher: 'aes-256-cbc', ...cbc },
  { id: Encr.AES_CBC, name: 'AES_CBC_128', keyBits: 128, keyBytes: 16, cipher: 'aes-128-cbc', ...cbc },
];

const prfAlgorithms: readonly PrfAlgorithm[] = [
  { id: Prf.HMAC_SHA2_256, name: 'PRF_HMAC_SHA2_256', hash: 'sha256', bytes: 32 },
  { id: Prf.HMAC_SHA2_384, name: 'PRF_HMAC_SHA2_384', hash: 'sha384', bytes: 48 },
  { id: Prf.HMAC_SHA2_512, name: 'PRF_HMAC_SHA2_512', hash: 'sha512', bytes: 64 },
];

const integAlgorithms: readonly IntegAlgorithm[] = [
  { id: Integ.HMAC_SHA2_256_128, name: 'HMAC_SHA2_256_128', hash: 'sha256', keyBytes: 32, icvBytes: 16 },
  { id: Integ.HMAC_SHA2_384_192, name: 'HMAC_SHA2_384_192', hash: 'sha384', keyBytes: 48, icvBytes: 24 },
  { id: Integ.HMAC_SHA2_512_256, name: 'HMAC_SHA2_512_256', hash: 'sha512', keyBytes: 64, icvBytes: 32 },
];

const groupAlgorithms: readonly GroupAlgorithm[] = [
  { id: Group.CURVE25519, name: 'CURVE25519', publicBytes: 32 },
  { id: Group.ECP_256, name: 'ECP_256', publicBytes: 64 },
  { id: Group.ECP_384, name: 'ECP_384', publicBytes: 96 },
  { id: Group.MODP_2048, name: 'MODP_2048', publicBytes: 256 },
];

/**
 * The encryption algorithm of a transform, undefined when we do not do it.
 *
 * `keyBits` is the transform's Key Length attribute: required for AES, and refused for ChaCha20 unless it says 256.
 */
export function encrAlgorithm(id: number, keyBits: number | undefined): EncrAlgorithm | undefined {
  return encrAlgorithms.find(
    one => one.id === id && (keyBits === one.keyBits || (keyBits === undefined && !one.keyLengthAttribute)),
  );
}

export function prfAlgorithm(id: number): PrfAlgorithm | undefined {
  return prfAlgorithms.find(one => one.id === id);
}

export function integAlgorithm(id: number): IntegAlgorithm | undefined {
  return integAlgorithms.find(one => one.id === id);
}

export function groupAlgorithm(id: number): GroupAlgorithm | undefined {
  return groupAlgorithms.find(one => one.id === id);
}

/** Throws RangeError for a suite that is not in the tables: ours to get right, never a peer's doing. */
export function required<T>(algorithm: T | undefined, what: string): T {
  if (algorithm === undefined) throw new RangeError(`unsupported ${what}`);
  return algorithm;
}

/** An ENCR transform to offer; the Key Length attribute is there exactly when the algorithm has one. */
export function encrTransform(id: number, keyBits: number): Transform {
  const algorithm = required(encrAlgorithm(id, keyBits), `encryption ${id}/${keyBits}`);
  return { type: TransformType.ENCR, id, ...(algorithm.keyLengthAttribute ? { keyBits } : {}) };
}

/** For logs and status lines: "AES_GCM_16_256/PRF_HMAC_SHA2_256/CURVE25519", "AES_CBC_128/HMAC_SHA2_256_128/ESN". */
export function suiteName(suite: IkeSuite | ChildSuite): string {
  return [
    encrAlgorithm(suite.encr, suite.keyBits)?.name ?? `ENCR ${suite.encr}`,
    integAlgorithm(suite.integ)?.name,
    'prf' in suite ? (prfAlgorithm(suite.prf)?.name ?? `PRF ${suite.prf}`) : undefined,
    groupAlgorithm(suite.group ?? Group.NONE)?.name,
    'esn' in suite && suite.esn ? 'ESN' : undefined,
  ]
    .filter(part => part !== undefined)
    .join('/');
}
