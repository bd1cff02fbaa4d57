import type { Identity } from '../types.ts';
import { concat } from './bytes.ts';
import { invalidSyntax } from './error.ts';
import { IdType } from './numbers.ts';

export type IdPayload = {
  kind: 'IDi' | 'IDr';
  idType: number;
  data: Uint8Array;
  /** RestOfIDPayload (RFC 7296 §2.15) as it is on the wire, reserved bytes included: what AUTH covers. */
  body: Uint8Array;
};

/** Longer identities are refused: a name has at most 255 bytes, a DN or key ID hardly more. */
const maximumIdentity = 1024;

const typeNames = new Map<number, Identity['type']>([
  [IdType.IPV4_ADDR, 'ipv4'],
  [IdType.FQDN, 'fqdn'],
  [IdType.RFC822_ADDR, 'rfc822'],
  [IdType.IPV6_ADDR, 'ipv6'],
  [IdType.DER_ASN1_DN, 'dn'],
  [IdType.KEY_ID, 'keyid'],
  [IdType.NULL, 'null'],
]);

const typeNumbers = new Map([...typeNames].map(([number, name]) => [name, number]));

/**
 * Identification, RFC 7296 §3.5:
 *
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |   ID Type     |                 RESERVED                      |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * ~                   Identification Data                         ~
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 *
 * INVALID_SYNTAX for an address of the wrong size, more than 1024 bytes, and an empty identity that is not ID_NULL
 * (or an ID_NULL that is not empty, RFC 7619 §2.2).
 */
export function parseId(kind: 'IDi' | 'IDr', body: Uint8Array): IdPayload {
  if (body.length < 4) throw invalidSyntax(`${kind}: too short`);
  const idType = body[0]!;
  const data = body.subarray(4);
  if (data.length > maximumIdentity) throw invalidSyntax(`${kind}: ${data.length} bytes`);
  if (idType === IdType.IPV4_ADDR && data.length !== 4) throw invalidSyntax(`${kind}: IPv4 address`);
  if (idType === IdType.IPV6_ADDR && data.length !== 16) throw invalidSyntax(`${kind}: IPv6 address`);
  if ((idType === IdType.NULL) !== (data.length === 0))
    throw invalidSyntax(`${kind}: empty, or ID_NULL is not`);
  return { kind, idType, data, body };
}

/** An ID payload to send; `body` is ready for signedOctets. */
export function idPayload(kind: 'IDi' | 'IDr', idType: number, data: Uint8Array): IdPayload {
  const body = concat([Uint8Array.of(idType, 0, 0, 0), data]);
  return { kind, idType, data: body.subarray(4), body };
}

/** An ID payload for an identity by name. */
export function identityPayload(kind: 'IDi' | 'IDr', identity: Identity): IdPayload {
  return idPayload(kind, typeNumbers.get(identity.type)!, identity.data);
}

/** The identity in a payload; undefined for ID types that we have no name for. */
export function identityOf(payload: IdPayload): Identity | undefined {
  const type = typeNames.get(payload.idType);
  return type === undefined ? undefined : { type, data: payload.data };
}
