import { constants, type KeyObject, createSecretKey, sign, timingSafeEqual, verify } from 'node:crypto';
import type { LocalKey, PublicKey } from '../types.ts';
import { concat, equalBytes, plain } from '../wire/bytes.ts';
import { AuthMethod, HashAlgorithm } from '../wire/numbers.ts';
import type { AuthPayload } from '../wire/opaque.ts';
import type { Hash } from './algorithms.ts';
import { prf } from './prf.ts';
import { publicKeyObject } from './public-key.ts';

/** AUTH payloads: signedOctets, chooseSigner, usableSigners, signAuth, verifyAuth, nullAuth, verifyNullAuth; what we announce. */

/** How a signature was (or will be) made. PKCS1 is RSASSA-PKCS1-v1_5; ECDSA's hash is independent of its curve. */
export type Scheme =
  | 'rsa-pss-sha2-256'
  | 'rsa-pss-sha2-384'
  | 'rsa-pss-sha2-512'
  | 'rsa-pkcs1-sha2-256'
  | 'rsa-pkcs1-sha2-384'
  | 'rsa-pkcs1-sha2-512'
  | 'ecdsa-sha2-256'
  | 'ecdsa-sha2-384'
  | 'ecdsa-sha2-512'
  | 'ed25519'
  | 'ed448';

/** One of our keys, and how to sign with it so that this peer can verify. */
export type Signer = { key: LocalKey; scheme: Scheme; method: number };

export type SignerOptions = {
  /** RSASSA-PSS (default) or PKCS1-v1_5. */
  rsa?: 'pss' | 'pkcs1';
  /** IPSECKEY algorithm numbers in the order wanted; keys of the others follow in their own order. */
  prefer?: readonly number[];
};

export type Verified = { verified: true; key: PublicKey; scheme: Scheme } | { verified: false; why: string };

/** More candidate keys than this are not tried: each costs a signature check that a stranger can ask for. */
export const maximumCandidateKeys = 16;

/** What we announce in SIGNATURE_HASH_ALGORITHMS and accept: SHA-2 and Identity (RFC 8420). Never SHA-1. */
export const ourHashAlgorithms: readonly number[] = [
  HashAlgorithm.SHA2_256,
  HashAlgorithm.SHA2_384,
  HashAlgorithm.SHA2_512,
  HashAlgorithm.IDENTITY,
];

/**
 * What an AUTH payload covers: RealMessage | Nonce | prf(SK_p, RestOfIDPayload), RFC 7296 §2.15.
 *
 * `realMessage` is the signer's own IKE_SA_INIT message as sent (the last one, after COOKIE or INVALID_KE), `nonce` the
 * other side's, `skP` SK_pi or SK_pr of the signer, `idBody` the body of the signer's ID payload.
 */
export function signedOctets(parts: {
  realMessage: Uint8Array;
  nonce: Uint8Array;
  prfId: number;
  skP: KeyObject;
  idBody: Uint8Array;
}): Uint8Array {
  return concat([parts.realMessage, parts.nonce, prf(parts.prfId, parts.skP, parts.idBody)]);
}

/** Sign: method 14 (RFC 7427 §3), or 9 and 10 (RFC 4754) for peers that never heard of it. */
export function signAuth({ key, scheme, method }: Signer, octets: Uint8Array): AuthPayload {
  if (method !== AuthMethod.SIGNATURE) {
    const hash = method === AuthMethod.ECDSA_256 ? 'sha256' : 'sha384';
    const data = sign(hash, octets, { key: key.privateKey, dsaEncoding: 'ieee-p1363' });
    return { kind: 'AUTH', method, data: plain(data) };
  }
  const identifier = identifiers.get(scheme)!;
  const { hash, options } = signatureParameters(scheme);
  const signature = sign(hash, octets, { key: key.privateKey, ...options });
  return { kind: 'AUTH', method, data: concat([Uint8Array.of(identifier.length), identifier, signature]) };
}

/**
 * Verify the peer's AUTH payload with any of the keys published for it; never throws.
 *
 * Accepted: method 14 with RSASSA-PSS (hash and MGF alike, salt as long as the hash, with or without explicit trailer field),
 * PKCS1-v1_5, ECDSA with any SHA-2, Ed25519, Ed448; methods 9 and 10. Refused: method 1 (SHA-1), every other method, and
 * AlgorithmIdentifiers that are not byte for byte one of RFC 7427 appendix A or RFC 8420 appendix A.
 */
export function verifyAuth(auth: AuthPayload, octets: Uint8Array, keys: readonly PublicKey[]): Verified {
  const claim = readClaim(auth);
  if (typeof claim === 'string') return { verified: false, why: claim };
  const { scheme, signature } = claim;
  const candidates = keys.filter(key => fits(claim, key)).slice(0, maximumCandidateKeys);
  if (candidates.length === 0) return { verified: false, why: `no key for ${scheme}` };
  const { hash, options } = signatureParameters(scheme);
  const encoding = claim.plain ? { dsaEncoding: 'ieee-p1363' as const } : options;
  for (const key of candidates) {
    try {
      if (verify(hash, octets, { key: publicKeyObject(key), ...encoding }, signature)) {
        return { verified: true, key, scheme };
      }
    } catch {
      // A key or signature that OpenSSL cannot even read verifies nothing; the next key may.
    }
  }
  return { verified: false, why: `${scheme} signature does not verify` };
}

/** `plain`: r ‖ s instead of DER, as methods 9 and 10 have it; `keyBytes` then names the one curve. */
type Claim = { scheme: Scheme; signature: Uint8Array; plain: boolean; keyBytes?: number };

function readClaim({ method, data }: AuthPayload): Claim | string {
  switch (method) {
    case AuthMethod.SIGNATURE:
      return readSignature(data);
    case AuthMethod.ECDSA_256:
      return { scheme: 'ecdsa-sha2-256', signature: data, plain: true, keyBytes: 64 };
    case AuthMethod.ECDSA_384:
      return { scheme: 'ecdsa-sha2-384', signature: data, plain: true, keyBytes: 96 };
    case AuthMethod.RSA:
      return 'authentication method 1 means SHA-1';
    default:
      return `authentication method ${method} is not accepted`;
  }
}

/**
 * Authentication data of method 14, RFC 7427 §3:
 *
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * | ASN.1 Length  | AlgorithmIdentifier ASN.1 object              |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * ~                         Signature Value                       ~
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 */
function readSignature(data: Uint8Array): Claim | string {
  const length = data[0] ?? 0;
  if (length === 0 || data.length <= 1 + length) return 'signature data is cut short';
  const identifier = data.subarray(1, 1 + length);
  for (const [known, scheme] of accepted) {
    if (equalBytes(known, identifier)) return { scheme, signature: data.subarray(1 + length), plain: false };
  }
  return `signature algorithm ${Buffer.from(identifier).toString('hex')} is not accepted`;
}

function fits({ scheme, keyBytes }: Claim, { algorithm, data }: PublicKey): boolean {
  if (scheme.startsWith('rsa')) return algorithm === 2;
  if (scheme.startsWith('ecdsa')) return algorithm === 3 && (keyBytes ?? data.length) === data.length;
  return algorithm === 4 && data.length === (scheme === 'ed25519' ? 32 : 57);
}

/**
 * Our first key that this peer can verify, and how to sign with it; undefined when there is none.
 *
 * `peerHashes`: its SIGNATURE_HASH_ALGORITHMS (RFC 7427 §4), undefined when it sent none: then only ECDSA by methods 9 and 10
 * is left. For ECDSA the hash that matches the curve comes first, EdDSA needs Identity (RFC 8420).
 */
export function chooseSigner(
  keys: readonly LocalKey[],
  peerHashes: readonly number[] | undefined,
  options: SignerOptions = {},
): Signer | undefined {
  return usableSigners(keys, peerHashes, options)[0];
}

/** Every key of ours that this peer can verify, best first; see chooseSigner. */
export function usableSigners(
  keys: readonly LocalKey[],
  peerHashes: readonly number[] | undefined,
  { rsa = 'pss', prefer = [] }: SignerOptions = {},
): Signer[] {
  const rank = ({ publicKey }: LocalKey) => {
    const at = prefer.indexOf(publicKey.algorithm);
    return at === -1 ? prefer.length : at;
  };
  return keys
    .toSorted((a, b) => rank(a) - rank(b))
    .map(key => signerFor(key, peerHashes, rsa))
    .filter(signer => signer !== undefined);
}

function signerFor(
  key: LocalKey,
  peerHashes: readonly number[] | undefined,
  rsa: 'pss' | 'pkcs1',
): Signer | undefined {
  const { algorithm, data } = key.publicKey;
  if (peerHashes === undefined) {
    if (algorithm !== 3) return undefined;
    return data.length === 64
      ? { key, scheme: 'ecdsa-sha2-256', method: AuthMethod.ECDSA_256 }
      : { key, scheme: 'ecdsa-sha2-384', method: AuthMethod.ECDSA_384 };
  }
  const method = AuthMethod.SIGNATURE;
  if (algorithm === 4) {
    if (!peerHashes.includes(HashAlgorithm.IDENTITY)) return undefined;
    return { key, scheme: data.length === 32 ? 'ed25519' : 'ed448', method };
  }
  const wanted = algorithm === 3 && data.length === 96 ? ([3, 4, 2] as const) : ([2, 3, 4] as const);
  const hash = wanted.find(number => peerHashes.includes(number));
  if (hash === undefined) return undefined;
  const bits = hashBits[hash];
  return { key, scheme: algorithm === 3 ? `ecdsa-sha2-${bits}` : `rsa-${rsa}-sha2-${bits}`, method };
}

const hashBits = { 2: 256, 3: 384, 4: 512 } as const;

/**
 * AUTH data of NULL authentication (method 13), RFC 7619 §2.1: prf(prf(SK_p, "Key Pad for IKEv2"), octets).
 *
 * Proves only that the sender ran this IKE_SA_INIT; it authenticates nobody.
 */
export function nullAuth(prfId: number, skP: KeyObject, octets: Uint8Array): Uint8Array {
  const pad = new TextEncoder().encode('Key Pad for IKEv2');
  return prf(prfId, createSecretKey(prf(prfId, skP, pad)), octets);
}

export function verifyNullAuth(prfId: number, skP: KeyObject, octets: Uint8Array, data: Uint8Array): boolean {
  const expected = nullAuth(prfId, skP, octets);
  return expected.length === data.length && timingSafeEqual(expected, data);
}

/** Parameters for node:crypto; hash null lets EdDSA do its own. */
function signatureParameters(scheme: Scheme): {
  hash: Hash | null;
  options: { padding?: number; saltLength?: number; dsaEncoding?: 'der' };
} {
  if (scheme === 'ed25519' || scheme === 'ed448') return { hash: null, options: {} };
  const bits = Number(scheme.slice(-3)) as 256 | 384 | 512;
  const hash = `sha${bits}` as const;
  if (scheme.startsWith('ecdsa')) return { hash, options: { dsaEncoding: 'der' } };
  return scheme.startsWith('rsa-pss')
    ? { hash, options: { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: bits / 8 } }
    : { hash, options: { padding: constants.RSA_PKCS1_PADDING } };
}

function hex(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text.replaceAll(' ', ''), 'hex'));
}

/** RSASSA-PSS-params, RFC 7427 A.4, RFC 4055 §3.1; `trailer` is the default value written out, which DER forbids and OpenIKED sends. */
function pss(hashOid: '01' | '02' | '03', salt: '20' | '30' | '40', trailer: boolean): Uint8Array {
  const digest = `300d 06096086480165030402${hashOid} 0500`;
  return hex(
    `30${trailer ? '46' : '41'} 06092a864886f70d01010a 30${trailer ? '39' : '34'} a00f ${digest}` +
      `a11c 301a 06092a864886f70d010108 ${digest} a203 0201${salt} ${trailer ? 'a303 020101' : ''}`,
  );
}

/** AlgorithmIdentifiers that we send, RFC 7427 appendix A, RFC 8420 appendix A. libreswan compares them byte for byte. */
const identifiers = new Map<Scheme, Uint8Array>([
  ['rsa-pss-sha2-256', pss('01', '20', false)],
  ['rsa-pss-sha2-384', pss('02', '30', false)],
  ['rsa-pss-sha2-512', pss('03', '40', false)],
  ['rsa-pkcs1-sha2-256', hex('300d 06092a864886f70d01010b 0500')],
  ['rsa-pkcs1-sha2-384', hex('300d 06092a864886f70d01010c 0500')],
  ['rsa-pkcs1-sha2-512', hex('300d 06092a864886f70d01010d 0500')],
  ['ecdsa-sha2-256', hex('300a 06082a8648ce3d040302')],
  ['ecdsa-sha2-384', hex('300a 06082a8648ce3d040303')],
  ['ecdsa-sha2-512', hex('300a 06082a8648ce3d040304')],
  ['ed25519', hex('3005 06032b6570')],
  ['ed448', hex('3005 06032b6571')],
]);

const accepted: readonly (readonly [Uint8Array, Scheme])[] = [
  ...[...identifiers].map(([scheme, identifier]) => [identifier, scheme] as const),
  [pss('01', '20', true), 'rsa-pss-sha2-256'],
  [pss('02', '30', true), 'rsa-pss-sha2-384'],
  [pss('03', '40', true), 'rsa-pss-sha2-512'],
];
