/** The certificate shown to clients of DNS over TLS and HTTPS: two files, read again when they change. */
import { constants, X509Certificate, createPrivateKey } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import type { SecureContextOptions } from 'node:tls';
import { StartupError } from '../startup-error.ts';

/** How often it is looked whether the files have changed. */
const LOOK_MILLIS = 5000;

export type CertificateFiles = { certificate: string; key: string };

/** A certificate with its key. */
export class Certificate {
  readonly #files: CertificateFiles;
  readonly #now: () => number;
  readonly #onProblem: (error: unknown) => void;
  #current: SecureContextOptions;
  #stamp: string;
  #lookedAt: number;

  /**
   * Reads both; throws StartupError. Later on, files that cannot be used are told to `onProblem`, once for each change,
   * and the certificate before them stays in use.
   */
  constructor(files: CertificateFiles, now: () => number, onProblem: (error: unknown) => void) {
    this.#files = files;
    this.#now = now;
    this.#onProblem = onProblem;
    this.#stamp = stampOf(files);
    this.#current = load(files);
    this.#lookedAt = now();
  }

  /** What to begin the next handshake with: another object when it has changed. */
  current(): SecureContextOptions {
    if (this.#now() - this.#lookedAt < LOOK_MILLIS) return this.#current;
    this.#lookedAt = this.#now();
    const stamp = stampOf(this.#files);
    if (stamp === this.#stamp) return this.#current;
    this.#stamp = stamp;
    try {
      this.#current = load(this.#files);
    } catch (error) {
      this.#onProblem(error);
    }
    return this.#current;
  }
}

function stampOf({ certificate, key }: CertificateFiles): string {
  return [certificate, key]
    .map(file => {
      const found = statSync(file, { throwIfNoEntry: false, bigint: true });
      return found === undefined ? 'none' : `${found.ino} ${found.mtimeNs} ${found.size} ${found.mode}`;
    })
    .join(', ');
}

/** TLS 1.2 and 1.3, without renegotiation. */
function load({ certificate, key }: CertificateFiles): SecureContextOptions {
  const chain = read(certificate, 'tls.certificate');
  const secret = read(key, 'tls.key');
  const mode = statSync(key).mode & 0o777;
  if ((mode & 0o027) !== 0) {
    throw new StartupError({
      what: `cannot use the key ${key}`,
      why: `its mode ${mode.toString(8)} lets others at it`,
      next: `run \`chmod 600 ${key}\`, and replace the key if others could have read it`,
    });
  }
  const leaf = parsed(
    certificate,
    'a PEM file of certificates, ours first',
    () => new X509Certificate(chain),
  );
  const ours = parsed(key, 'an unencrypted private key in PEM', () => createPrivateKey(secret));
  if (!leaf.checkPrivateKey(ours)) {
    throw new StartupError({
      what: `cannot use the certificate ${certificate}`,
      why: `${key} is not its key`,
      next: 'name a certificate and its own key as tls.certificate and tls.key; ours comes first in the chain',
    });
  }
  const options: SecureContextOptions = {
    cert: chain,
    key: secret,
    minVersion: 'TLSv1.2',
    secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
  };
  parsed(certificate, 'certificates that OpenSSL takes', () =>
    process.getBuiltinModule('node:tls').createSecureContext(options),
  );
  return options;
}

function read(file: string, setting: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new StartupError({
      what: `cannot read ${file}`,
      why: code === 'ENOENT' ? 'no such file' : code === 'EACCES' ? 'permission denied' : message,
      next: `correct ${setting}, or leave out listen-tls and listen-https`,
      cause: error,
    });
  }
}

function parsed<T>(file: string, expected: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new StartupError({
      what: `cannot use ${file}`,
      why: (error as Error).message,
      next: `expected ${expected}`,
      cause: error,
    });
  }
}
