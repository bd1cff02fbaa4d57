import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type JsonWebKey,
  type KeyObject,
} from 'node:crypto';
import type { LocalKey, PublicKey } from '../types.ts';
import { concat, equalBytes } from '../wire/bytes.ts';
import { invalidSyntax } from '../wire/error.ts';

/**
 * Keys between DNS form, KeyObject and PEM.
 *
 * publicKeyObject, publicKeyOf, localKey; generateKey, loadPrivateKey, privateKeyPem; fingerprint, samePublicKey, keyName.
 */

/** Kinds of keys that we can make and use. */
export type KeyKind = 'rsa-2048' | 'rsa-3072' | 'p-256' | 'p-384' | 'ed25519' | 'ed448';

const rsa = 2;
const ecdsa = 3;
const eddsa = 4;

/**
 * The KeyObject of a public key as DNS carries it.
 *
 * RSA (RFC 3110 §2): modulus of 2048 to 8192 bits, odd exponent from 3 to 2^32; ECDSA (RFC 6605 §4): a point on P-256
 * or P-384; EdDSA (RFC 8080 §3): Ed25519 or Ed448. Throws WireError for anything else: a record nobody can use.
 */
export function publicKeyObject(key: PublicKey): KeyObject {
  const jwk = key.algorithm === rsa ? rsaJwk(key.data) : curveJwk(key);
  try {
    // OpenSSL refuses points that are not on their curve.
    return createPublicKey({ key: jwk, format: 'jwk' });
  } catch {
    throw invalidSyntax(`public key of algorithm ${key.algorithm} is not valid`);
  }
}

/**
 * RFC 3110 §2: exponent length (one byte, or zero and two bytes), exponent, modulus.
 *
 * A few implementations put zeros before exponent or modulus: they do not change the number and are taken off.
 */
function rsaJwk(data: Uint8Array): JsonWebKey {
  const { exponent, modulus } = rsaNumbers(data);
  checkRsa(exponent, modulus);
  return { kty: 'RSA', e: base64url(exponent), n: base64url(modulus) };
}

function rsaNumbers(data: Uint8Array): { exponent: Uint8Array; modulus: Uint8Array } {
  if (data.length < 3) throw invalidSyntax('RSA key: too short');
  const long = data[0] === 0;
  const exponentBytes = long ? (data[1]! << 8) | data[2]! : data[0]!;
  const start = long ? 3 : 1;
  if (exponentBytes === 0 || start + exponentBytes >= data.length) {
    throw invalidSyntax(`RSA key: exponent of ${exponentBytes} bytes`);
  }
  return {
    exponent: withoutLeadingZeros(data.subarray(start, start + exponentBytes)),
    modulus: withoutLeadingZeros(data.subarray(start + exponentBytes)),
  };
}

function checkRsa(exponent: Uint8Array, modulus: Uint8Array): void {
  const bits = modulus.length * 8 - Math.clz32(modulus[0] ?? 0) + 24;
  if (modulus.length === 0 || bits < 2048 || bits > 8192) {
    throw invalidSyntax(`RSA key: modulus of ${modulus.length === 0 ? 0 : bits} bits`);
  }
  if ((modulus[modulus.length - 1]! & 1) === 0) throw invalidSyntax('RSA key: even modulus');
  const tooLong = exponent.length > 5 || (exponent.length === 5 && exponent[0] !== 1);
  const value = tooLong ? 0 : exponent.reduce((sum, byte) => sum * 256 + byte, 0);
  if (value < 3 || value > 2 ** 32 || value % 2 === 0) throw invalidSyntax('RSA key: bad exponent');
}

function curveJwk({ algorithm, data }: PublicKey): JsonWebKey {
  if (algorithm === ecdsa && (data.length === 64 || data.length === 96)) {
    const half = data.length / 2;
    const crv = half === 32 ? 'P-256' : 'P-384';
    return { kty: 'EC', crv, x: base64url(data.subarray(0, half)), y: base64url(data.subarray(half)) };
  }
  if (algorithm === eddsa && (data.length === 32 || data.length === 57)) {
    return { kty: 'OKP', crv: data.length === 32 ? 'Ed25519' : 'Ed448', x: base64url(data) };
  }
  throw invalidSyntax(`public key of algorithm ${algorithm} with ${data.length} bytes`);
}

/** The DNS form of a key, private or public. Throws WireError for kinds and sizes that publicKeyObject refuses. */
export function publicKeyOf(key: KeyObject): PublicKey {
  const jwk = (key.type === 'private' ? createPublicKey(key) : key).export({ format: 'jwk' });
  const number = (text: string | undefined) => new Uint8Array(Buffer.from(text ?? '', 'base64url'));
  if (jwk.kty === 'RSA') {
    const [exponent, modulus] = [number(jwk.e), number(jwk.n)];
    checkRsa(exponent, modulus);
    return { algorithm: rsa, data: concat([Uint8Array.of(exponent.length), exponent, modulus]) };
  }
  if (jwk.kty === 'EC' && (jwk.crv === 'P-256' || jwk.crv === 'P-384')) {
    return { algorithm: ecdsa, data: concat([number(jwk.x), number(jwk.y)]) };
  }
  if (jwk.kty === 'OKP' && (jwk.crv === 'Ed25519' || jwk.crv === 'Ed448')) {
    return { algorithm: eddsa, data: number(jwk.x) };
  }
  throw invalidSyntax(`no DNS form for ${jwk.kty} ${jwk.crv ?? ''}`);
}

/** A private key together with its public half in DNS form. */
export function localKey(privateKey: KeyObject): LocalKey {
  return { publicKey: publicKeyOf(privateKey), privateKey };
}

/** A new key of this kind; RSA exponent 65537. */
export function generateKey(kind: KeyKind): LocalKey {
  return localKey(generatePrivateKey(kind));
}

function generatePrivateKey(kind: KeyKind): KeyObject {
  switch (kind) {
    case 'rsa-2048':
      return generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
    case 'rsa-3072':
      return generateKeyPairSync('rsa', { modulusLength: 3072 }).privateKey;
    case 'p-256':
      return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
    case 'p-384':
      return generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey;
    case 'ed25519':
      return generateKeyPairSync('ed25519').privateKey;
    case 'ed448':
      return generateKeyPairSync('ed448').privateKey;
  }
}

/** Load a private key from PEM (PKCS#8, PKCS#1 or SEC 1). Throws WireError when it is none, encrypted, or of an unusable kind. */
export function loadPrivateKey(pem: string): LocalKey {
  let privateKey: KeyObject;
  try {
    privateKey = createPrivateKey({ key: pem, format: 'pem' });
  } catch (error) {
    throw invalidSyntax(`not a private key: ${error instanceof Error ? error.message : error}`);
  }
  return localKey(privateKey);
}

/** PKCS#8 PEM, as loadPrivateKey reads it. */
export function privateKeyPem(key: LocalKey): string {
  return key.privateKey.export({ format: 'pem', type: 'pkcs8' }) as string;
}

/**
 * "SHA256:" and base64 of SHA-256 over algorithm number and key field in canonical form.
 *
 * The same key always has the same text, however its RSA numbers were padded in the record.
 */
export function fingerprint(key: PublicKey): string {
  const hash = createHash('sha256').update(Uint8Array.of(key.algorithm)).update(canonicalData(key));
  return `SHA256:${hash.digest('base64').replace(/=+$/, '')}`;
}

export function samePublicKey(a: PublicKey, b: PublicKey): boolean {
  return a.algorithm === b.algorithm && equalBytes(canonicalData(a), canonicalData(b));
}

/** For people: "RSA-2048", "P-256", "Ed448"; says the number of bytes when the length fits no kind. */
export function keyName(key: PublicKey): string {
  const { algorithm, data } = key;
  const names: Record<string, string> = {
    '3/64': 'P-256',
    '3/96': 'P-384',
    '4/32': 'Ed25519',
    '4/57': 'Ed448',
  };
  const modulusBytes = algorithm === rsa ? readRsa(data)?.modulus.length : undefined;
  if (modulusBytes !== undefined) return `RSA-${modulusBytes * 8}`;
  return names[`${algorithm}/${data.length}`] ?? `algorithm ${algorithm} with ${data.length} bytes`;
}

/** RSA with the numbers' leading zeros gone and the exponent's length in its shortest form; all else as it is. */
function canonicalData(key: PublicKey): Uint8Array {
  const numbers = key.algorithm === rsa ? readRsa(key.data) : undefined;
  if (numbers === undefined || numbers.exponent.length > 255) return key.data;
  return concat([Uint8Array.of(numbers.exponent.length), numbers.exponent, numbers.modulus]);
}

function readRsa(data: Uint8Array): { exponent: Uint8Array; modulus: Uint8Array } | undefined {
  try {
    return rsaNumbers(data);
  } catch {
    return undefined;
  }
}

function withoutLeadingZeros(bytes: Uint8Array): Uint8Array {
  const start = bytes.findIndex(byte => byte !== 0);
  return start === -1 ? bytes.subarray(bytes.length) : bytes.subarray(start);
}

function base64url(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64url');
}
