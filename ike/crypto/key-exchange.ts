import {
  createDiffieHellmanGroup,
  createECDH,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  type ECDH,
  type KeyObject,
} from 'node:crypto';
import { concat, plain } from '../wire/bytes.ts';
import { invalidSyntax } from '../wire/error.ts';
import { Group, groupAlgorithm, required } from './algorithms.ts';

/** The key exchange methods of ike/crypto/algorithms.ts: generateKeyShare, deriveShared; types KeyShare, Random. */

/** `length` unpredictable bytes; injected, so that a handshake can be replayed. */
export type Random = (length: number) => Uint8Array;

/** Our side of one key exchange: the KE payload's data and the private part, which stays inside OpenSSL. */
export type KeyShare = { group: number; publicValue: Uint8Array; secret: KeyObject | ECDH };

const prime2048 = createDiffieHellmanGroup('modp14').getPrime();
const generator = Uint8Array.of(2);

/**
 * A fresh key share for a group of ike/crypto/algorithms.ts; all randomness comes from `random`.
 *
 * publicValue: 32 bytes (RFC 8031), x ‖ y (RFC 5903), or 256 bytes big-endian (RFC 3526). Throws RangeError for other groups.
 */
export function generateKeyShare(group: number, random: Random): KeyShare {
  required(groupAlgorithm(group), `group ${group}`);
  if (group === Group.CURVE25519) {
    const secret = x25519PrivateKey(random(32));
    const { x } = createPublicKey(secret).export({ format: 'jwk' });
    return { group, publicValue: new Uint8Array(Buffer.from(x!, 'base64url')), secret };
  }
  if (group === Group.MODP_2048) {
    // 384 bits: beyond twice the 112 bits of strength that the group has (RFC 3526 §8).
    const secret = modpPrivateKey(concat([Uint8Array.of(1), random(48)]));
    // 2^x mod p is what a "peer" of public value 2 would share with us: no need to take our own value out of DER.
    const publicValue = diffieHellman({ privateKey: secret, publicKey: generatorKey });
    return { group, publicValue: plain(publicValue), secret };
  }
  const secret = createECDH(curveName(group));
  secret.setPrivateKey(curveScalar(group, random));
  return { group, publicValue: plain(secret.getPublicKey()).subarray(1), secret };
}

/**
 * The shared secret g^ir of our share and the peer's KE data.
 *
 * RFC 7296 §2.14, RFC 5903 §9 (x coordinate only), RFC 8031 §2; MODP padded to the prime's length. The checks of
 * RFC 6989 come first: INVALID_SYNTAX for a wrong length, a point off the curve or of low order, a MODP value outside 2..p-2.
 */
export function deriveShared(share: KeyShare, peerPublic: Uint8Array): Uint8Array {
  const { name, publicBytes } = required(groupAlgorithm(share.group), `group ${share.group}`);
  if (peerPublic.length !== publicBytes) throw invalidSyntax(`${name}: ${peerPublic.length} bytes`);
  try {
    if ('computeSecret' in share.secret) {
      // OpenSSL refuses what is not on the curve; both curves have cofactor 1.
      return plain(share.secret.computeSecret(concat([Uint8Array.of(4), peerPublic])));
    }
    if (share.group === Group.MODP_2048) checkModpRange(peerPublic);
    const publicKey =
      share.group === Group.MODP_2048 ? modpPublicKey(peerPublic) : x25519PublicKey(peerPublic);
    const shared = diffieHellman({ privateKey: share.secret, publicKey });
    if (shared.every(byte => byte === 0)) throw new Error('shared secret is zero');
    return plain(shared);
  } catch (error) {
    throw invalidSyntax(`${name}: public value refused (${error instanceof Error ? error.message : error})`);
  }
}

function x25519PrivateKey(scalar: Uint8Array): KeyObject {
  // PKCS#8 of RFC 8410 §7 up to the 32 bytes of the key.
  const head = Buffer.from('302e020100300506032b656e04220420', 'hex');
  return createPrivateKey({ key: Buffer.concat([head, scalar]), format: 'der', type: 'pkcs8' });
}

/** By JWK: importing SPKI takes ten times as long. */
function x25519PublicKey(value: Uint8Array): KeyObject {
  const x = Buffer.from(value.buffer, value.byteOffset, value.length).toString('base64url');
  return createPublicKey({ key: { kty: 'OKP', crv: 'X25519', x }, format: 'jwk' });
}

function curveName(group: number): 'prime256v1' | 'secp384r1' {
  return group === Group.ECP_256 ? 'prime256v1' : 'secp384r1';
}

/** Orders of P-256 and P-384, FIPS 186-4 D.1.2. */
const orders = new Map<number, bigint>([
  [Group.ECP_256, 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n],
  [
    Group.ECP_384,
    0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n,
  ],
]);

/** A scalar in 1..n-1, by rejection (FIPS 186-5 A.2.2); a second draw happens once in 2^32 for P-256. */
function curveScalar(group: number, random: Random): Uint8Array {
  const order = orders.get(group)!;
  for (let draws = 0; draws < 64; draws++) {
    const scalar = random(group === Group.ECP_256 ? 32 : 48);
    const value = BigInt(`0x${Buffer.from(scalar).toString('hex')}`);
    if (value > 0n && value < order) return scalar;
  }
  throw new RangeError('the random source gives no scalar');
}

function checkModpRange(value: Uint8Array): void {
  const integer = BigInt(`0x${Buffer.from(value).toString('hex')}`);
  const prime = BigInt(`0x${prime2048.toString('hex')}`);
  if (integer < 2n || integer > prime - 2n) throw new Error('out of range');
}

/** DHParameter of PKCS #3 for the 2048-bit MODP group: SEQUENCE { p, g = 2 }, in its AlgorithmIdentifier. */
const modpAlgorithm = der(
  0x30,
  Buffer.from('06092a864886f70d010301', 'hex'),
  der(0x30, derInteger(prime2048), derInteger(generator)),
);

/** The generator as a public value; kept, since every import costs as much as half a derivation. */
const generatorKey = modpPublicKey(generator);

function modpPrivateKey(exponent: Uint8Array): KeyObject {
  const version = derInteger(Uint8Array.of(0));
  const key = der(0x30, version, modpAlgorithm, der(0x04, derInteger(exponent)));
  return createPrivateKey({ key, format: 'der', type: 'pkcs8' });
}

function modpPublicKey(value: Uint8Array): KeyObject {
  const key = der(0x30, modpAlgorithm, der(0x03, Buffer.of(0), derInteger(value)));
  return createPublicKey({ key, format: 'der', type: 'spki' });
}

/** A positive INTEGER: no leading zeros but the one that keeps the sign bit clear. */
function derInteger(value: Uint8Array): Buffer {
  const start = value.findIndex(byte => byte !== 0);
  const digits = start === -1 ? Uint8Array.of(0) : value.subarray(start);
  return der(0x02, digits[0]! >= 0x80 ? Buffer.of(0) : Buffer.alloc(0), digits);
}

/** One DER element: tag, length, contents. */
function der(tag: number, ...contents: Uint8Array[]): Buffer {
  const body = Buffer.concat(contents);
  const { length } = body;
  const long = length < 0x100 ? [0x81, length] : [0x82, length >>> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...(length < 0x80 ? [length] : long)]), body]);
}
