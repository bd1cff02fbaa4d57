/**
 * Two self-signed certificates for dns.example and 127.0.0.1, with their keys, good for a hundred years. Made by
 *
 *   openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 -subj /CN=dns.example \\
 *     -addext subjectAltName=DNS:dns.example,IP:127.0.0.1
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

export type CertificatePair = { certificate: string; key: string };

export const first: CertificatePair = {
  certificate: `-----BEGIN CERTIFICATE-----
MIIBoTCCAUegAwIBAgIUJyViYHoMEphpYpWZQutqwjw88WkwCgYIKoZIzj0EAwIw
FjEUMBIGA1UEAwwLZG5zLmV4YW1wbGUwIBcNMjYxMTIwMTk1MTMxWhgPMjEyNjEw
MjcxOTUxMzFaMBYxFDASBgNVBAMMC2Rucy5leGFtcGxlMFkwEwYHKoZIzj0CAQYI
KoZIzj0DAQcDQgAEfRbk3edV6fQc37SwyNjkbzQlH9Olb2JqiaRDK96gNXEhPW7J
2Ld+U6XVbHzr4CboRPRM5pzAvMwjDIlQ6zz4bqNxMG8wHQYDVR0OBBYEFCEDDzVA
67LsPLxwna8aiTzl5FwjMB8GA1UdIwQYMBaAFCEDDzVA67LsPLxwna8aiTzl5Fwj
MA8GA1UdEwEB/wQFMAMBAf8wHAYDVR0RBBUwE4ILZG5zLmV4YW1wbGWHBH8AAAEw
CgYIKoZIzj0EAwIDSAAwRQIgeSBumVjL41y0OuSynE+58BBak6AeMPGXfVG2U+Sq
pGcCIQCQkQzh2UZhilUt+iNlKl6pyeeMd6bz3tPXXhHMCB/EYg==
-----END CERTIFICATE-----
`,
  key: `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgWAPhV2cLMLzKPCeN
ymH+fTV4kSQCk+9Xrjs+Vm3zLw6hRANCAAR9FuTd51Xp9BzftLDI2ORvNCUf06Vv
YmqJpEMr3qA1cSE9bsnYt35TpdVsfOvgJuhE9EzmnMC8zCMMiVDrPPhu
-----END PRIVATE KEY-----
`,
};

export const second: CertificatePair = {
  certificate: `-----BEGIN CERTIFICATE-----
MIIBoTCCAUegAwIBAgIUZhClrUiGvLm2kPtPUOuXmhUMZV8wCgYIKoZIzj0EAwIw
FjEUMBIGA1UEAwwLZG5zLmV4YW1wbGUwIBcNMjYxMTIwMTk1MTMxWhgPMjEyNjEw
MjcxOTUxMzFaMBYxFDASBgNVBAMMC2Rucy5leGFtcGxlMFkwEwYHKoZIzj0CAQYI
KoZIzj0DAQcDQgAEkLZxa52hmLQkNG5UlbRLcAYQreucGCUMBbYu9D61a7stZ+pg
5EzDBG5Cvg4SbcsXiSX93Y+dUXG3am45pqxM46NxMG8wHQYDVR0OBBYEFOqsJsAp
ewJK3CxCQ1FBsR+R1lH0MB8GA1UdIwQYMBaAFOqsJsApewJK3CxCQ1FBsR+R1lH0
MA8GA1UdEwEB/wQFMAMBAf8wHAYDVR0RBBUwE4ILZG5zLmV4YW1wbGWHBH8AAAEw
CgYIKoZIzj0EAwIDSAAwRQIhAKI6XqouMYVRu1rmNsZr4ERYE41ustFJDEtqHL8Q
Kk5UAiAjamaWZ0aEpMPAOBgkg+x9etsNprm5TX0uxLMq/0bwpg==
-----END CERTIFICATE-----
`,
  key: `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgnL8qg9xJi/cuBUJT
Hi69XX2hCqRChjJw3H9o0byBjHShRANCAASQtnFrnaGYtCQ0blSVtEtwBhCt65wY
JQwFti70PrVruy1n6mDkTMMEbkK+DhJtyxeJJf3dj51RcbdqbjmmrEzj
-----END PRIVATE KEY-----
`,
};

/** The pair as files, the key for its owner alone. */
export function certificateFiles(t: TestContext, pair: CertificatePair): CertificatePair {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-certificate-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const files = { certificate: join(directory, 'certificate.pem'), key: join(directory, 'key.pem') };
  writeFileSync(files.certificate, pair.certificate);
  writeFileSync(files.key, pair.key, { mode: 0o600 });
  return files;
}
