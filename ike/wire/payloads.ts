import { concat, readU16, writeU16 } from './bytes.ts';
import { type ConfigPayload, composeConfig, parseConfig } from './config.ts';
import { composeDelete, type DeletePayload, parseDelete } from './delete.ts';
import { dropped, invalidSyntax, WireError } from './error.ts';
import { composeHeader, type Header, headerBytes, type ParsedHeader, parseHeader } from './header.ts';
import { type IdPayload, parseId } from './identity.ts';
import { composeNotify, hashAlgorithmsOf, type NotifyPayload, parseNotify } from './notify.ts';
import { ExchangeType, NotifyType, PayloadType } from './numbers.ts';
import {
  type AuthPayload,
  type CertPayload,
  composeAuth,
  composeCert,
  composeKe,
  type EapPayload,
  type KePayload,
  type NoncePayload,
  parseAuth,
  parseCert,
  parseKe,
  parseNonce,
  type VendorPayload,
} from './opaque.ts';
import { composeSa, parseSa, type SaPayload } from './sa.ts';
import { composeTs, parseTs, type TsPayload } from './traffic-selectors.ts';

/**
 * The door of the codec: whole messages and chains of payloads.
 *
 * parseMessage, parsePayloads, composeMessage, composePayloads; payloadType; findPayload, findNotify, notifies, hashAlgorithms;
 * types Message, Encrypted, Payload. The payloads themselves: sa.ts, opaque.ts (KE, Nonce, AUTH, CERT, CERTREQ, Vendor ID,
 * EAP), identity.ts, notify.ts, delete.ts, traffic-selectors.ts, config.ts; header.ts; numbers.ts; error.ts.
 */

/** A payload of a type we do not know, without the critical bit: kept, otherwise ignored. */
export type UnknownPayload = { kind: 'unknown'; type: number; body: Uint8Array };

export type Payload =
  | SaPayload
  | KePayload
  | IdPayload
  | CertPayload
  | AuthPayload
  | NoncePayload
  | NotifyPayload
  | DeletePayload
  | VendorPayload
  | TsPayload
  | ConfigPayload
  | EapPayload
  | UnknownPayload;

/** An SK or SKF payload, still sealed. */
export type Encrypted = {
  kind: 'SK' | 'SKF';
  /** Type of the first payload inside; 0 in fragments after the first. */
  firstPayload: number;
  /** Everything of the message before `body`: covered by the ICV. */
  associatedData: Uint8Array;
  /** IV, ciphertext, ICV. */
  body: Uint8Array;
  /** SKF only, RFC 7383 §2.5: 1 ≤ number ≤ total. */
  fragment?: { number: number; total: number };
};

/** A parsed message. When `encrypted` is there, `payloads` is empty. */
export type Message = {
  header: ParsedHeader;
  bytes: Uint8Array;
  payloads: Payload[];
  encrypted?: Encrypted;
};

const maximumPayloads = 128;
const maximumNotifies = 64;

/** At most one of these in a message. */
const single: ReadonlySet<number> = new Set([
  PayloadType.SA,
  PayloadType.KE,
  PayloadType.IDi,
  PayloadType.IDr,
  PayloadType.AUTH,
  PayloadType.NONCE,
  PayloadType.TSi,
  PayloadType.TSr,
  PayloadType.CP,
  PayloadType.EAP,
]);

/**
 * Parse a whole IKE message, RFC 7296 §3.1, §3.2; copies nothing.
 *
 * IKE_SA_INIT must be in clear. In every other exchange an SK or SKF payload is the only thing outside, and what comes
 * in clear can only be notifies about a message that nobody could open (INVALID_IKE_SPI, INVALID_SPI, §1.5): a hint, no fact.
 * Throws WireError as parseHeader and parsePayloads do; without notify for what breaks these rules.
 */
export function parseMessage(bytes: Uint8Array): Message {
  const header = parseHeader(bytes);
  const { nextPayload } = header;
  if (nextPayload === PayloadType.SK || nextPayload === PayloadType.SKF) {
    if (header.exchangeType === ExchangeType.IKE_SA_INIT) throw dropped('IKE_SA_INIT is encrypted');
    return { header, bytes, payloads: [], encrypted: parseEncrypted(nextPayload, bytes) };
  }
  const payloads = parsePayloads(nextPayload, bytes.subarray(headerBytes));
  if (header.exchangeType !== ExchangeType.IKE_SA_INIT && payloads.some(payload => payload.kind !== 'N')) {
    throw dropped('payloads in clear outside IKE_SA_INIT');
  }
  return { header, bytes, payloads };
}

/**
 * SK, RFC 7296 §3.14, and SKF, RFC 7383 §2.5:
 *
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * | Next Payload  |C|  RESERVED   |         Payload Length        |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |  SKF: Fragment Number         |        Total Fragments        |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |                     Initialization Vector                     |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * ~                      Encrypted content                        ~
 * +               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |               |             Padding (0-255 octets)            |
 * +-+-+-+-+-+-+-+-+                               +-+-+-+-+-+-+-+-+
 * |                                               |  Pad Length   |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * ~                    Integrity Checksum Data                    ~
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 */
function parseEncrypted(type: number, bytes: Uint8Array): Encrypted {
  if (bytes.length - headerBytes < 4) throw dropped('SK: too short');
  // It must be the last payload, so it ends where the message ends.
  if (readU16(bytes, headerBytes + 2) !== bytes.length - headerBytes)
    throw dropped('SK is not the last payload');
  const firstPayload = bytes[headerBytes]!;
  let start = headerBytes + 4;
  if (type === PayloadType.SK) {
    return {
      kind: 'SK',
      firstPayload,
      associatedData: bytes.subarray(0, start),
      body: bytes.subarray(start),
    };
  }
  if (bytes.length < start + 4) throw dropped('SKF: too short');
  const number = readU16(bytes, start);
  const total = readU16(bytes, start + 2);
  if (number === 0 || number > total) throw dropped(`SKF: fragment ${number} of ${total}`);
  start += 4;
  return {
    kind: 'SKF',
    firstPayload,
    associatedData: bytes.subarray(0, start),
    body: bytes.subarray(start),
    fragment: { number, total },
  };
}

/**
 * Walk a chain of payloads, RFC 7296 §3.2; `bytes` holds the chain and nothing else.
 *
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * | Next Payload  |C|  RESERVED   |         Payload Length        |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 *
 * Throws WireError: UNSUPPORTED_CRITICAL_PAYLOAD with the type for an unknown payload that is critical; INVALID_SYNTAX
 * for lengths that do not fit, bytes left over, more than 128 payloads or 64 notifies, a second SA, KE, ID, AUTH,
 * Nonce, TS, CP or EAP payload, an SK or SKF inside a chain, and whatever the payloads' own parsers refuse.
 */
export function parsePayloads(firstType: number, bytes: Uint8Array): Payload[] {
  const payloads: Payload[] = [];
  const seen = new Set<number>();
  let notifiesLeft = maximumNotifies;
  let type = firstType;
  let at = 0;
  while (type !== PayloadType.NONE) {
    if (bytes.length - at < 4) throw invalidSyntax('payload is cut short');
    const length = readU16(bytes, at + 2);
    if (length < 4 || length > bytes.length - at) throw invalidSyntax(`payload length ${length}`);
    if (payloads.length === maximumPayloads) throw invalidSyntax('too many payloads');
    if (single.has(type)) {
      if (seen.has(type)) throw invalidSyntax(`two payloads of type ${type}`);
      seen.add(type);
    }
    if (type === PayloadType.NOTIFY && notifiesLeft-- === 0) throw invalidSyntax('too many notifies');
    const critical = (bytes[at + 1]! & 0x80) !== 0;
    payloads.push(parsePayload(type, critical, bytes.subarray(at + 4, at + length)));
    type = bytes[at]!;
    at += length;
  }
  if (at !== bytes.length) throw invalidSyntax('bytes after the last payload');
  return payloads;
}

/** The critical bit counts only for types we do not know (RFC 7296 §3.2). */
function parsePayload(type: number, critical: boolean, body: Uint8Array): Payload {
  switch (type) {
    case PayloadType.SA:
      return parseSa(body);
    case PayloadType.KE:
      return parseKe(body);
    case PayloadType.IDi:
      return parseId('IDi', body);
    case PayloadType.IDr:
      return parseId('IDr', body);
    case PayloadType.CERT:
      return parseCert('CERT', body);
    case PayloadType.CERTREQ:
      return parseCert('CERTREQ', body);
    case PayloadType.AUTH:
      return parseAuth(body);
    case PayloadType.NONCE:
      return parseNonce(body);
    case PayloadType.NOTIFY:
      return parseNotify(body);
    case PayloadType.DELETE:
      return parseDelete(body);
    case PayloadType.VENDOR:
      return { kind: 'V', data: body };
    case PayloadType.TSi:
      return parseTs('TSi', body);
    case PayloadType.TSr:
      return parseTs('TSr', body);
    case PayloadType.CP:
      return parseConfig(body);
    case PayloadType.EAP:
      return { kind: 'EAP', data: body };
    case PayloadType.SK:
    case PayloadType.SKF:
      throw invalidSyntax('encrypted payload inside a chain');
    default:
      if (critical) {
        throw new WireError(
          `critical payload of type ${type}`,
          NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD,
          Uint8Array.of(type),
        );
      }
      return { kind: 'unknown', type, body };
  }
}

/** A whole message in clear; sealed ones come from ike/crypto/seal.ts. */
export function composeMessage(header: Header, payloads: readonly Payload[]): Uint8Array {
  const { first, bytes } = composePayloads(payloads);
  return concat([composeHeader(header, first, headerBytes + bytes.length), bytes]);
}

/** A chain of payloads and the type of its first; see parsePayloads. Throws RangeError beyond 65535 bytes a payload. */
export function composePayloads(payloads: readonly Payload[]): { first: number; bytes: Uint8Array } {
  const parts: Uint8Array[] = [];
  payloads.forEach((payload, index) => {
    const next = payloads[index + 1];
    const body = composeBody(payload);
    if (body.length > 65531) throw new RangeError(`${payload.kind} payload of ${body.length} bytes`);
    const head = new Uint8Array(4);
    head[0] = next === undefined ? PayloadType.NONE : payloadType(next);
    writeU16(head, 2, body.length + 4);
    parts.push(head, body);
  });
  const first = payloads[0];
  return { first: first === undefined ? PayloadType.NONE : payloadType(first), bytes: concat(parts) };
}

function composeBody(payload: Payload): Uint8Array {
  switch (payload.kind) {
    case 'SA':
      return composeSa(payload);
    case 'KE':
      return composeKe(payload);
    case 'IDi':
    case 'IDr':
    case 'unknown':
      return payload.body;
    case 'CERT':
    case 'CERTREQ':
      return composeCert(payload);
    case 'AUTH':
      return composeAuth(payload);
    case 'N':
      return composeNotify(payload);
    case 'D':
      return composeDelete(payload);
    case 'TSi':
    case 'TSr':
      return composeTs(payload);
    case 'CP':
      return composeConfig(payload);
    case 'NONCE':
    case 'V':
    case 'EAP':
      return payload.data;
  }
}

/** The number of a payload's type, RFC 7296 §3.2. */
function payloadType(payload: Payload): number {
  switch (payload.kind) {
    case 'unknown':
      return payload.type;
    case 'N':
      return PayloadType.NOTIFY;
    case 'D':
      return PayloadType.DELETE;
    case 'V':
      return PayloadType.VENDOR;
    default:
      return PayloadType[payload.kind];
  }
}

type Kind = Payload['kind'];
type PayloadOf<K extends Kind, P = Payload> = P extends { kind: infer Q } ? (K extends Q ? P : never) : never;

/** The first payload of a kind; for kinds that come once at most it is the only one. */
export function findPayload<K extends Kind>(payloads: readonly Payload[], kind: K): PayloadOf<K> | undefined {
  return payloads.find(payload => payload.kind === kind) as PayloadOf<K> | undefined;
}

export function findNotify(payloads: readonly Payload[], type: number): NotifyPayload | undefined {
  return notifies(payloads).find(payload => payload.type === type);
}

export function notifies(payloads: readonly Payload[]): NotifyPayload[] {
  return payloads.filter(payload => payload.kind === 'N');
}

/** The peer's SIGNATURE_HASH_ALGORITHMS (RFC 7427 §4), undefined when it sent none. */
export function hashAlgorithms(payloads: readonly Payload[]): number[] | undefined {
  const found = findNotify(payloads, NotifyType.SIGNATURE_HASH_ALGORITHMS);
  return found === undefined ? undefined : hashAlgorithmsOf(found);
}
