import { readU16, readU32, writeU16, writeU32 } from './bytes.ts';
import { invalidSyntax } from './error.ts';
import { ProtocolId } from './numbers.ts';

/** protocol 1: this IKE SA, `spis` empty; 2 or 3: the sender's inbound AH or ESP SPIs. */
export type DeletePayload = { kind: 'D'; protocol: number; spis: number[] };

const maximumSpis = 256;

/**
 * Delete, RFC 7296 §3.11:
 *
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * | Protocol ID   |   SPI Size    |          Num of SPIs          |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * ~               Security Parameter Index(es) (SPI)              ~
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 *
 * INVALID_SYNTAX: sizes that do not agree, a zero SPI, more than 256 SPIs, another protocol than IKE, AH, ESP.
 */
export function parseDelete(body: Uint8Array): DeletePayload {
  if (body.length < 4) throw invalidSyntax('D: too short');
  const protocol = body[0]!;
  const spiSize = body[1]!;
  const count = readU16(body, 2);
  if (protocol === ProtocolId.IKE) {
    if (spiSize !== 0 || count !== 0 || body.length !== 4) throw invalidSyntax('D: SPIs for an IKE SA');
    return { kind: 'D', protocol, spis: [] };
  }
  if (protocol !== ProtocolId.AH && protocol !== ProtocolId.ESP)
    throw invalidSyntax(`D: protocol ${protocol}`);
  if (spiSize !== 4 || body.length !== 4 + 4 * count) throw invalidSyntax('D: sizes do not agree');
  if (count > maximumSpis) throw invalidSyntax(`D: ${count} SPIs`);
  const spis: number[] = [];
  for (let at = 4; at < body.length; at += 4) spis.push(readU32(body, at));
  if (spis.includes(0)) throw invalidSyntax('D: SPI is zero');
  return { kind: 'D', protocol, spis };
}

export function composeDelete(payload: DeletePayload): Uint8Array {
  const bytes = new Uint8Array(4 + 4 * payload.spis.length);
  bytes[0] = payload.protocol;
  bytes[1] = payload.protocol === ProtocolId.IKE ? 0 : 4;
  writeU16(bytes, 2, payload.spis.length);
  payload.spis.forEach((spi, index) => {
    writeU32(bytes, 4 + 4 * index, spi);
  });
  return bytes;
}
