/**
 * Signature algorithms and DS digests by node:crypto (IANA "DNS Security Algorithm Numbers").
 *
 * What is not here counts as unknown (RFC 4035 §5.2, RFC 6840 §5.2): a zone that only has such keys is insecure.
 * RSASHA1 (5, 7) is left out on purpose: who runs a validator must treat it as unsupported (RFC 9905 §2), and this one
 * comes ready to run. That holds for signatures: a DS by SHA-1 is validated (RFC 9905 §5 and RFC 9904: RECOMMENDED), as
 * it takes a second preimage to abuse it.
 */
import { createHash, createPublicKey, type KeyObject, verify } from 'node:crypto';
import type { Dnskey, Ds } from '../dns/dnssec-rdata.ts';
import type { Name } from '../dns/name.ts';

type Algorithm = {
  /** Null: the algorithm has its own hash. */
  hash: 'sha256' | 'sha384' | 'sha512' | null;
  importKey: (publicKey: Uint8Array) => KeyObject | undefined;
  signatureBytes?: number;
  /** DNSSEC writes r and s side by side (RFC 6605 §4), OpenSSL reads DER. */
  isEcdsa?: true;
};

const ALGORITHMS = new Map<number, Algorithm>([
  [8, { hash: 'sha256', importKey: importRsa }], // RFC 5702
  [10, { hash: 'sha512', importKey: importRsa }],
  [13, { hash: 'sha256', importKey: key => importEc('P-256', 32, key), signatureBytes: 64, isEcdsa: true }], // RFC 6605
  [14, { hash: 'sha384', importKey: key => importEc('P-384', 48, key), signatureBytes: 96, isEcdsa: true }],
  [15, { hash: null, importKey: key => importEd('Ed25519', 32, key), signatureBytes: 64 }], // RFC 8080
  [16, { hash: null, importKey: key => importEd('Ed448', 57, key), signatureBytes: 114 }],
]);

export const SHA1_DIGEST = 1;

const DIGESTS = new Map<number, { hash: string; bytes: number }>([
  [SHA1_DIGEST, { hash: 'sha1', bytes: 20 }], // RFC 4034 §5.1.4
  [2, { hash: 'sha256', bytes: 32 }], // RFC 4509
  [4, { hash: 'sha384', bytes: 48 }], // RFC 6605
]);

/** RFC 5702 §2.1. */
const MIN_RSA_BITS = 512;
/** Below it a key can be factored by whoever cares to pay: its signatures prove nothing. */
const STRONG_RSA_BITS = 1024;
const MAX_RSA_BITS = 4096;
/** 2^32 + 1 is the largest exponent seen in use; cost grows with every further bit. */
const MAX_RSA_EXPONENT_BYTES = 5;

export function isSupportedAlgorithm(algorithm: number): boolean {
  return ALGORITHMS.has(algorithm);
}

export function isSupportedDigest(digestType: number): boolean {
  return DIGESTS.has(digestType);
}

/** Whether `digest` is that of the key at its owner (RFC 4034 §5.1.4). */
export function dsMatches(ds: Ds, owner: Name, key: Dnskey): boolean {
  const digest = DIGESTS.get(ds.digestType);
  if (digest === undefined || ds.keyTag !== key.keyTag || ds.algorithm !== key.algorithm) return false;
  if (ds.digest.length !== digest.bytes) return false;
  const computed = createHash(digest.hash).update(owner.canonical().wire).update(key.rdata).digest();
  return computed.equals(ds.digest);
}

/** Imported once for each DNSKEY and forgotten with it; null for key bytes that are no key. */
const imported = new WeakMap<Dnskey, KeyObject | null>();

/** Whether `signature` over `data` was made by `key`. False for a key or signature that is malformed or of refused size. */
export function verifySignature(key: Dnskey, data: Uint8Array, signature: Uint8Array): boolean {
  const algorithm = ALGORITHMS.get(key.algorithm);
  if (algorithm === undefined) return false;
  if (algorithm.signatureBytes !== undefined && signature.length !== algorithm.signatureBytes) return false;
  let object = imported.get(key);
  if (object === undefined) {
    object = algorithm.importKey(key.publicKey) ?? null;
    imported.set(key, object);
  }
  if (object === null) return false;
  try {
    // Made here, DER costs nothing; node:crypto's own way from one form to the other takes half as long as verifying.
    return verify(algorithm.hash, data, object, algorithm.isEcdsa ? derOf(signature) : signature);
  } catch {
    return false; // OpenSSL refuses some malformed signatures by error instead of by answer
  }
}

/** r || s as SEQUENCE of two INTEGERs (RFC 3279 §2.2.3); under 128 octets, so that each length is one octet. */
function derOf(signature: Uint8Array): Uint8Array {
  const half = signature.length / 2;
  const der = new Uint8Array(2 + 2 * (3 + half));
  der[0] = 0x30;
  const end = putInteger(der, putInteger(der, 2, signature, 0, half), signature, half, 2 * half);
  der[1] = end - 2;
  return der.subarray(0, end);
}

/** Without leading zeros, but for the one that keeps it positive; where it ends. */
function putInteger(der: Uint8Array, at: number, bytes: Uint8Array, start: number, end: number): number {
  let first = start;
  while (first < end - 1 && bytes[first] === 0) first++;
  const pad = bytes[first]! >> 7;
  der[at] = 0x02;
  der[at + 1] = pad + end - first;
  der.set(bytes.subarray(first, end), at + 2 + pad);
  return at + 2 + pad + end - first;
}

/** Whether anybody could sign in its stead: RSA of less than 1,024 bits. */
export function isTooShort({ algorithm, publicKey }: Dnskey): boolean {
  if (ALGORITHMS.get(algorithm)?.importKey !== importRsa) return false;
  const parts = rsaParts(publicKey);
  return parts !== undefined && bitsOf(parts.modulus) < STRONG_RSA_BITS;
}

function importRsa(bytes: Uint8Array): KeyObject | undefined {
  const { exponent, modulus } = rsaParts(bytes) ?? {};
  if (exponent === undefined || modulus === undefined) return undefined;
  const bits = bitsOf(modulus);
  if (exponent.length > MAX_RSA_EXPONENT_BYTES || bits < MIN_RSA_BITS || bits > MAX_RSA_BITS)
    return undefined;
  const small = exponent.every((byte, i) => (i === exponent.length - 1 ? byte <= 1 : byte === 0));
  if (small || (exponent.at(-1)! & 1) === 0) return undefined;
  return importJwk({ kty: 'RSA', n: base64url(modulus), e: base64url(exponent) });
}

/** RFC 3110 §2: exponent length in one byte, or in two after a zero byte; exponent; modulus. Neither begins with a zero. */
function rsaParts(bytes: Uint8Array): { exponent: Uint8Array; modulus: Uint8Array } | undefined {
  if (bytes.length < 3) return undefined;
  const long = bytes[0] === 0;
  const exponentAt = long ? 3 : 1;
  const exponentBytes = long ? (bytes[1]! << 8) | bytes[2]! : bytes[0]!;
  const exponent = bytes.subarray(exponentAt, exponentAt + exponentBytes);
  const modulus = bytes.subarray(exponentAt + exponentBytes);
  if (exponentBytes === 0 || modulus.length === 0 || exponent[0] === 0 || modulus[0] === 0) return undefined;
  return { exponent, modulus };
}

function bitsOf(modulus: Uint8Array): number {
  return modulus.length * 8 - Math.clz32(modulus[0]!) + 24;
}

/** RFC 6605 §4: x || y. OpenSSL checks that the point lies on the curve. */
function importEc(crv: string, size: number, bytes: Uint8Array): KeyObject | undefined {
  if (bytes.length !== 2 * size) return undefined;
  return importJwk({
    kty: 'EC',
    crv,
    x: base64url(bytes.subarray(0, size)),
    y: base64url(bytes.subarray(size)),
  });
}

function importEd(crv: string, size: number, bytes: Uint8Array): KeyObject | undefined {
  return bytes.length === size ? importJwk({ kty: 'OKP', crv, x: base64url(bytes) }) : undefined;
}

function importJwk(key: Record<string, string>): KeyObject | undefined {
  try {
    return createPublicKey({ key, format: 'jwk' });
  } catch {
    return undefined; // not a point on the curve, not a modulus
  }
}

function base64url(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64url');
}
