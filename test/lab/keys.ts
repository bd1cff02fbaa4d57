// Key pairs of the lab's parties, as files for strongSwan and Holdfast and as IPSECKEY records. Written apart from the
// program's own code for the same formats, so that the one can be held against the other.
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export type KeyKind = 'rsa' | 'ecdsa' | 'ed25519';
export const keyKinds: KeyKind[] = ['ed25519', 'ecdsa', 'rsa'];

export type KeyPair = { kind: KeyKind; publicKey: KeyObject; privateKey: KeyObject };
/** Key pairs of one party, one of each kind. */
export type KeyRing = Record<KeyKind, KeyPair>;

export function generateKeys(): KeyRing {
  return {
    rsa: { kind: 'rsa', ...generateKeyPairSync('rsa', { modulusLength: 2048 }) },
    ecdsa: { kind: 'ecdsa', ...generateKeyPairSync('ec', { namedCurve: 'P-256' }) },
    ed25519: { kind: 'ed25519', ...generateKeyPairSync('ed25519') },
  };
}

/** Writes `PARTY-KIND.pem` (PKCS#8) and `PARTY-KIND.pub` (SubjectPublicKeyInfo, PEM) for each kind. */
export function writeKeys(folder: string, party: string, keys: KeyRing): void {
  mkdirSync(folder, { recursive: true });
  for (const { kind, publicKey, privateKey } of Object.values(keys)) {
    const file = join(folder, `${party}-${kind}`);
    writeFileSync(`${file}.pem`, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
    writeFileSync(`${file}.pub`, publicKey.export({ type: 'spki', format: 'pem' }));
  }
}

/**
 * IPSECKEY record data in zone file form (RFC 4025 §3; algorithm 4: RFC 9373).
 *
 * @param gateway `.` for none (type 0), otherwise an IPv4 (1) or IPv6 (2) address, or a name (3)
 */
export function ipseckey(pair: KeyPair, precedence = 10, gateway = '.'): string {
  const type = gateway === '.' ? 0 : /^[\d.]+$/.test(gateway) ? 1 : gateway.includes(':') ? 2 : 3;
  const algorithm = { rsa: 2, ecdsa: 3, ed25519: 4 }[pair.kind];
  return `IPSECKEY ${precedence} ${type} ${algorithm} ${gateway} ${publicKeyField(pair).toString('base64')}`;
}

/** The public key as DNS carries it: RSA exponent and modulus (RFC 3110 §2), ECDSA x and y (RFC 6605 §4), EdDSA as it is. */
function publicKeyField(pair: KeyPair): Buffer {
  const jwk = pair.publicKey.export({ format: 'jwk' });
  const bytes = (field: 'n' | 'e' | 'x' | 'y') => Buffer.from(jwk[field] ?? '', 'base64url');
  if (pair.kind === 'ed25519') return bytes('x');
  if (pair.kind === 'ecdsa') return Buffer.concat([bytes('x'), bytes('y')]);
  return Buffer.concat([Buffer.from([bytes('e').length]), bytes('e'), bytes('n')]);
}
