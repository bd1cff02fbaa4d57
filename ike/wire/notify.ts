import { createHash } from 'node:crypto';
import { concat, plain, readU16, writeU16 } from './bytes.ts';
import { invalidSyntax } from './error.ts';
import { NotifyType, notifyName, ProtocolId } from './numbers.ts';

export type NotifyPayload = {
  kind: 'N';
  type: number;
  /** 0 unless the notify concerns an existing Child SA; then 2 (AH) or 3 (ESP) with its SPI. */
  protocol: number;
  spi: Uint8Array;
  data: Uint8Array;
};

/** Data sizes [least, most] of notifies whose data is always read; all others are kept as they come. */
const dataSizes = new Map<number, readonly [number, number]>([
  [NotifyType.INVALID_KE_PAYLOAD, [2, 2]],
  [NotifyType.NAT_DETECTION_SOURCE_IP, [20, 20]],
  [NotifyType.NAT_DETECTION_DESTINATION_IP, [20, 20]],
  [NotifyType.COOKIE, [1, 64]],
  [NotifyType.COOKIE2, [8, 64]],
  [NotifyType.QUICK_CRASH_DETECTION, [16, 128]],
  [NotifyType.SIGNATURE_HASH_ALGORITHMS, [0, 64]],
]);

const empty = new Uint8Array(0);

/**
 * Notify, RFC 7296 §3.10:
 *
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |  Protocol ID  |   SPI Size    |      Notify Message Type      |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * ~                Security Parameter Index (SPI)                 ~
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * ~                       Notification Data                       ~
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 *
 * INVALID_SYNTAX: an SPI that is neither absent nor 4 or 8 bytes, or zero; REKEY_SA that does not name an AH or ESP SPI
 * of 4 bytes (CVE-2023-38710); data of a size its type does not have.
 */
export function parseNotify(body: Uint8Array): NotifyPayload {
  if (body.length < 4) throw invalidSyntax('N: too short');
  const protocol = body[0]!;
  const spiSize = body[1]!;
  const type = readU16(body, 2);
  if (spiSize !== 0 && spiSize !== 4 && spiSize !== 8) throw invalidSyntax(`N: SPI of ${spiSize} bytes`);
  if (spiSize > body.length - 4) throw invalidSyntax('N: SPI is cut short');
  const spi = body.subarray(4, 4 + spiSize);
  const data = body.subarray(4 + spiSize);
  if (spiSize > 0 && spi.every(byte => byte === 0)) throw invalidSyntax('N: SPI is zero');
  if (type === NotifyType.REKEY_SA) {
    const named = protocol === ProtocolId.AH || protocol === ProtocolId.ESP;
    if (!named || spiSize !== 4)
      throw invalidSyntax(`REKEY_SA: protocol ${protocol}, SPI of ${spiSize} bytes`);
  }
  const sizes = dataSizes.get(type);
  if (sizes !== undefined && (data.length < sizes[0] || data.length > sizes[1])) {
    throw invalidSyntax(`${notifyName(type)}: ${data.length} bytes of data`);
  }
  if (type === NotifyType.SIGNATURE_HASH_ALGORITHMS && data.length % 2 !== 0) {
    throw invalidSyntax('SIGNATURE_HASH_ALGORITHMS: half a number');
  }
  return { kind: 'N', type, protocol, spi, data };
}

export function composeNotify(payload: NotifyPayload): Uint8Array {
  const bytes = concat([new Uint8Array(4), payload.spi, payload.data]);
  bytes[0] = payload.protocol;
  bytes[1] = payload.spi.length;
  writeU16(bytes, 2, payload.type);
  return bytes;
}

/** A notify to send; `about` names the Child SA that it concerns. */
export function notify(
  type: number,
  data: Uint8Array = empty,
  about: { protocol: number; spi: Uint8Array } = { protocol: 0, spi: empty },
): NotifyPayload {
  return { kind: 'N', type, protocol: about.protocol, spi: about.spi, data };
}

/** The two-byte group number of INVALID_KE_PAYLOAD (RFC 7296 §1.3). */
export function invalidKeGroup(payload: NotifyPayload): number {
  return readU16(payload.data, 0);
}

/** INVALID_KE_PAYLOAD that asks for this group. */
export function invalidKePayload(group: number): NotifyPayload {
  return notify(NotifyType.INVALID_KE_PAYLOAD, Uint8Array.of(group >>> 8, group));
}

/** The hash algorithm numbers of SIGNATURE_HASH_ALGORITHMS, RFC 7427 §4. */
export function hashAlgorithmsOf(payload: NotifyPayload): number[] {
  const numbers: number[] = [];
  for (let at = 0; at + 1 < payload.data.length; at += 2) numbers.push(readU16(payload.data, at));
  return numbers;
}

/** SIGNATURE_HASH_ALGORITHMS with these numbers, RFC 7427 §4. */
export function signatureHashAlgorithms(numbers: readonly number[]): NotifyPayload {
  const data = new Uint8Array(numbers.length * 2);
  numbers.forEach((number, index) => {
    writeU16(data, index * 2, number);
  });
  return notify(NotifyType.SIGNATURE_HASH_ALGORITHMS, data);
}

/**
 * Data of NAT_DETECTION_SOURCE_IP and NAT_DETECTION_DESTINATION_IP, RFC 7296 §2.23: SHA-1 of SPIi | SPIr | address | port.
 *
 * SHA-1 is the RFC's own and guards nothing. `address` has 4 or 16 bytes.
 */
export function natDetectionHash(
  spiInitiator: bigint,
  spiResponder: bigint,
  address: Uint8Array,
  port: number,
): Uint8Array {
  const input = new Uint8Array(16 + address.length + 2);
  const view = new DataView(input.buffer);
  view.setBigUint64(0, spiInitiator);
  view.setBigUint64(8, spiResponder);
  input.set(address, 16);
  view.setUint16(16 + address.length, port);
  return plain(createHash('sha1').update(input).digest());
}
