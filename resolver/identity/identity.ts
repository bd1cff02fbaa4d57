/**
 * Our identity: the private keys on disk and the name they speak for.
 *
 * Keys are PKCS#8 PEM files that only their owner can read. RSA-2048, P-256 and Ed25519 are made together: Ed25519 and
 * P-256 are fast and small, and libreswan takes nothing but RSA from DNS.
 */
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  fingerprint,
  generateKey,
  type KeyKind,
  keyName,
  loadPrivateKey,
  privateKeyPem,
} from '../../ike/crypto/public-key.ts';
import type { LocalKey } from '../../ike/types.ts';
import type { Configuration, KeySource } from '../config.ts';
import { StartupError } from '../startup-error.ts';

/** A private key with the file it came from; `kind` as people call it (`Ed25519`), `fingerprint` of its DNS form. */
export type IdentityKey = LocalKey & { file: string; kind: string; fingerprint: string };

/** `generated`: the keys were made just now, so nobody has published them yet. */
export type LoadedIdentity = { name: string | undefined; keys: IdentityKey[]; generated: boolean };

/** Kinds made together, in the order in which peers should prefer them. */
const GENERATED_KINDS = ['ed25519', 'p-256', 'rsa-2048'] as const satisfies KeyKind[];

/** Loads the keys, making them first where the configuration says so. Throws StartupError naming file and cure. */
export function loadIdentity(identity: Configuration['identity']): LoadedIdentity {
  const source = identity.keys;
  const found = keyFiles(source);
  if (found.length > 0) return { name: identity.name, keys: found.map(loadKeyFile), generated: false };
  if ('directory' in source && source.generate) {
    return { name: identity.name, keys: generateKeyFiles(source.directory), generated: true };
  }
  throw new StartupError({
    what: 'cannot load our keys',
    why: 'directory' in source ? `${source.directory} holds no .pem file` : 'the list identity.keys is empty',
    next: 'make some with `holdfast keygen --out DIR` and name DIR as identity.keys',
    exitCode: 2,
  });
}

function keyFiles(source: KeySource): string[] {
  if ('files' in source) return source.files;
  try {
    const names = readdirSync(source.directory).filter(name => name.endsWith('.pem'));
    return names.sort().map(name => join(source.directory, name));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw unreadable(source.directory, error);
  }
}

/** Reads one key; refuses a file that others could read, for then the key is no longer only ours. */
export function loadKeyFile(file: string): IdentityKey {
  let pem: string;
  try {
    const mode = statSync(file).mode & 0o777;
    if ((mode & 0o077) !== 0) {
      throw new StartupError({
        what: `cannot use the key ${file}`,
        why: `its mode ${mode.toString(8)} lets others at it`,
        next: `run \`chmod 600 ${file}\`, and replace the key if others could have read it`,
      });
    }
    pem = readFileSync(file, 'utf8');
  } catch (error) {
    if (error instanceof StartupError) throw error;
    throw unreadable(file, error);
  }
  try {
    return describe(file, loadPrivateKey(pem));
  } catch (error) {
    throw new StartupError({
      what: `cannot use the key ${file}`,
      why: error instanceof Error ? error.message : String(error),
      next: 'expected an unencrypted PKCS#8 PEM of RSA (2048 bits or more), P-256, P-384, Ed25519 or Ed448',
    });
  }
}

function unreadable(path: string, error: unknown): StartupError {
  const { code, message } = error as NodeJS.ErrnoException;
  const cure: Record<string, string> = {
    EACCES: 'run as root or as the owner of the file',
    ENOENT: 'correct identity.keys or make keys with `holdfast keygen --out DIR`',
  };
  return new StartupError({
    what: `cannot read ${path}`,
    why: code === 'ENOENT' ? 'no such file' : code === 'EACCES' ? 'permission denied' : message,
    next: cure[code ?? ''] ?? 'correct identity.keys',
  });
}

function describe(file: string, key: LocalKey): IdentityKey {
  return { ...key, file, kind: keyName(key.publicKey), fingerprint: fingerprint(key.publicKey) };
}

/**
 * Makes one key of each kind in the directory, mode 0600, the directory 0700 when it is made.
 *
 * Never overwrites: when any of the files is there, nothing is written and a StartupError says so.
 */
export function generateKeyFiles(directory: string): IdentityKey[] {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const present = new Set(readdirSync(directory));
    const taken = GENERATED_KINDS.map(kind => `${kind}.pem`).find(name => present.has(name));
    if (taken) {
      throw new StartupError({
        what: `cannot make keys in ${directory}`,
        why: `${taken} is already there, and a key that was published must not vanish`,
        next: 'name another directory with --out, or move the old keys away first',
      });
    }
    return GENERATED_KINDS.map(kind => {
      const file = join(directory, `${kind}.pem`);
      const key = generateKey(kind);
      writeFileSync(file, privateKeyPem(key), { mode: 0o600, flag: 'wx' });
      chmodSync(file, 0o600); // a umask can only take bits away, but this one must be exact
      return describe(file, key);
    });
  } catch (error) {
    if (error instanceof StartupError) throw error;
    throw new StartupError({
      what: `cannot make keys in ${directory}`,
      why: (error as Error).message,
      next: 'name a directory that can be written: `state` in the configuration, or --out',
    });
  }
}
