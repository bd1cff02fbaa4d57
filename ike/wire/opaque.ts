import { concat, readU16, writeU16 } from './bytes.ts';
import { invalidSyntax } from './error.ts';

/** Payloads whose data this room hands on as it is: KE, Nonce, AUTH, CERT, CERTREQ, Vendor ID, EAP. */

export type KePayload = { kind: 'KE'; group: number; data: Uint8Array };
export type NoncePayload = { kind: 'NONCE'; data: Uint8Array };
export type AuthPayload = { kind: 'AUTH'; method: number; data: Uint8Array };
export type CertPayload = { kind: 'CERT' | 'CERTREQ'; encoding: number; data: Uint8Array };
export type VendorPayload = { kind: 'V'; data: Uint8Array };
export type EapPayload = { kind: 'EAP'; data: Uint8Array };

/**
 * Key Exchange, RFC 7296 §3.4:
 *
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |   Key Exchange Method Num     |           RESERVED            |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * ~                       Key Exchange Data                       ~
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 *
 * Group 0 (NONE) and empty data are INVALID_SYNTAX; the length for the group is checked where the secret is derived.
 */
export function parseKe(body: Uint8Array): KePayload {
  if (body.length < 5) throw invalidSyntax('KE: too short');
  const group = readU16(body, 0);
  if (group === 0) throw invalidSyntax('KE: group NONE');
  return { kind: 'KE', group, data: body.subarray(4) };
}

export function composeKe(payload: KePayload): Uint8Array {
  const bytes = concat([new Uint8Array(4), payload.data]);
  writeU16(bytes, 0, payload.group);
  return bytes;
}

/** Nonce, RFC 7296 §3.9: 16 to 256 bytes. */
export function parseNonce(body: Uint8Array): NoncePayload {
  if (body.length < 16 || body.length > 256) throw invalidSyntax(`nonce of ${body.length} bytes`);
  return { kind: 'NONCE', data: body };
}

/**
 * Authentication, RFC 7296 §3.8:
 *
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * | Auth Method   |                RESERVED                       |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * ~                      Authentication Data                      ~
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 */
export function parseAuth(body: Uint8Array): AuthPayload {
  if (body.length < 5) throw invalidSyntax('AUTH: too short');
  return { kind: 'AUTH', method: body[0]!, data: body.subarray(4) };
}

export function composeAuth(payload: AuthPayload): Uint8Array {
  const bytes = concat([new Uint8Array(4), payload.data]);
  bytes[0] = payload.method;
  return bytes;
}

/** Certificate and Certificate Request, RFC 7296 §3.6, §3.7: one byte of encoding, then data. */
export function parseCert(kind: 'CERT' | 'CERTREQ', body: Uint8Array): CertPayload {
  if (body.length < 1) throw invalidSyntax(`${kind}: empty`);
  return { kind, encoding: body[0]!, data: body.subarray(1) };
}

export function composeCert(payload: CertPayload): Uint8Array {
  return concat([Uint8Array.of(payload.encoding), payload.data]);
}
