import { dropped, WireError } from './error.ts';
import { ExchangeType, NotifyType } from './numbers.ts';

/** What a sender decides about an IKE header; lengths and next payload follow from the payloads. */
export type Header = {
  spiInitiator: bigint;
  /** 0n in the first IKE_SA_INIT request. */
  spiResponder: bigint;
  exchangeType: number;
  /** I flag: the sender is the original initiator of this IKE SA. */
  fromInitiator: boolean;
  /** R flag: this message answers the request with the same message ID. */
  response: boolean;
  messageId: number;
};

export type ParsedHeader = Header & { nextPayload: number; minorVersion: number; length: number };

export const headerBytes = 28;

const flagInitiator = 0x08;
const flagResponse = 0x20;

/**
 * Parse the IKE header of a whole message (UDP payload, non-ESP marker already off).
 *
 * RFC 7296 §3.1:
 *
 *                      1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |                       IKE SA Initiator's SPI                  |
 * |                                                               |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |                       IKE SA Responder's SPI                  |
 * |                                                               |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |  Next Payload | MjVer | MnVer | Exchange Type |     Flags     |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |                          Message ID                           |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |                            Length                             |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 *
 * Flags: X X R V I X X X. Throws WireError: without notify for IKEv1, a length that is not the datagram's, an
 * initiator SPI of 0, a responder SPI of 0 outside IKE_SA_INIT, a nonzero message ID in IKE_SA_INIT; with
 * INVALID_MAJOR_VERSION for a request of a later major version.
 */
export function parseHeader(bytes: Uint8Array): ParsedHeader {
  if (bytes.length < headerBytes) throw dropped(`${bytes.length} bytes are no IKE header`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const major = bytes[17]! >> 4;
  const flags = bytes[19]!;
  const response = (flags & flagResponse) !== 0;
  if (major < 2) throw dropped(`IKE version ${major}`);
  const length = view.getUint32(24);
  if (length !== bytes.length) throw dropped(`header says ${length} bytes, datagram has ${bytes.length}`);
  if (major > 2) {
    throw new WireError(`IKE version ${major}`, response ? undefined : NotifyType.INVALID_MAJOR_VERSION);
  }
  const header: ParsedHeader = {
    spiInitiator: view.getBigUint64(0),
    spiResponder: view.getBigUint64(8),
    nextPayload: bytes[16]!,
    minorVersion: bytes[17]! & 0x0f,
    exchangeType: bytes[18]!,
    fromInitiator: (flags & flagInitiator) !== 0,
    response,
    messageId: view.getUint32(20),
    length,
  };
  if (header.spiInitiator === 0n) throw dropped('initiator SPI is zero');
  if (header.exchangeType !== ExchangeType.IKE_SA_INIT) {
    if (header.spiResponder === 0n) throw dropped('responder SPI is zero');
    return header;
  }
  if (header.messageId !== 0) throw dropped(`IKE_SA_INIT with message ID ${header.messageId}`);
  if (header.fromInitiator === response) throw dropped('IKE_SA_INIT flags contradict each other');
  // A responder may leave its SPI out of a COOKIE, INVALID_KE_PAYLOAD or NO_PROPOSAL_CHOSEN answer (§2.6); a request never has one.
  if (!response && header.spiResponder !== 0n) throw dropped('IKE_SA_INIT request with a responder SPI');
  return header;
}

/** The 28 header bytes; see parseHeader for the picture. Version 2.0, reserved flags zero. */
export function composeHeader(header: Header, nextPayload: number, length: number): Uint8Array {
  const bytes = new Uint8Array(headerBytes);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, header.spiInitiator);
  view.setBigUint64(8, header.spiResponder);
  bytes[16] = nextPayload;
  bytes[17] = 0x20;
  bytes[18] = header.exchangeType;
  bytes[19] = (header.fromInitiator ? flagInitiator : 0) | (header.response ? flagResponse : 0);
  view.setUint32(20, header.messageId);
  view.setUint32(24, length);
  return bytes;
}

/**
 * The header of a message in a version we do not speak: enough to answer INVALID_MAJOR_VERSION (RFC 7296 §2.5).
 *
 * Undefined when the bytes are too short or the message is a response.
 */
export function headerOfLaterVersion(bytes: Uint8Array): Header | undefined {
  if (bytes.length < headerBytes || bytes[17]! >> 4 <= 2) return undefined;
  const flags = bytes[19]!;
  if ((flags & flagResponse) !== 0) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    spiInitiator: view.getBigUint64(0),
    spiResponder: view.getBigUint64(8),
    exchangeType: bytes[18]!,
    fromInitiator: (flags & flagInitiator) !== 0,
    response: false,
    messageId: view.getUint32(20),
  };
}

/**
 * Take the non-ESP marker (four zero bytes) off a datagram of port 4500, RFC 3948 §2.2.
 *
 * Undefined for what is no IKE message: an ESP packet, a NAT keepalive, anything shorter.
 */
export function stripNonEspMarker(datagram: Uint8Array): Uint8Array | undefined {
  if (datagram.length < 4) return undefined;
  if ((datagram[0]! | datagram[1]! | datagram[2]! | datagram[3]!) !== 0) return undefined;
  return datagram.subarray(4);
}

/** Put the non-ESP marker before a message that leaves on port 4500, RFC 3948 §2.2. */
export function addNonEspMarker(message: Uint8Array): Uint8Array {
  const datagram = new Uint8Array(message.length + 4);
  datagram.set(message, 4);
  return datagram;
}
