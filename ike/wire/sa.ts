import { concat, readU16, writeU16 } from './bytes.ts';
import { invalidSyntax } from './error.ts';
import { ProtocolId } from './numbers.ts';

export type SaPayload = { kind: 'SA'; proposals: Proposal[] };

export type Proposal = {
  /** 1, 2, 3 …; an answer repeats the number of the chosen proposal. */
  number: number;
  protocol: number;
  /** Empty in IKE_SA_INIT, 8 bytes when an IKE SA is rekeyed, 4 bytes for ESP and AH. */
  spi: Uint8Array;
  transforms: Transform[];
};

export type Transform = {
  type: number;
  id: number;
  /** The Key Length attribute, in bits. */
  keyBits?: number;
  /** Attributes other than Key Length: a transform that has any must not be chosen (RFC 7296 §3.3.6). */
  attributes?: TransformAttribute[];
};

export type TransformAttribute = { type: number; value: Uint8Array };

const keyLengthAttribute = 14;
const maximumProposals = 64;
const maximumTransforms = 512;
const maximumAttributes = 8;

/**
 * Parse the body of an SA payload, RFC 7296 §3.3.
 *
 * Proposal substructure, §3.3.1:
 *
 *                      1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * | Last Substruc |   RESERVED    |         Proposal Length       |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * | Proposal Num  |  Protocol ID  |    SPI Size   |Num  Transforms|
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * ~                        SPI (variable)                         ~
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * ~                        <Transforms>                           ~
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 *
 * At most 64 proposals and 512 transforms in all. INVALID_SYNTAX for lengths and counts that do not agree, an SPI of
 * zero or of a size that its protocol does not have.
 */
export function parseSa(body: Uint8Array): SaPayload {
  const proposals: Proposal[] = [];
  let transformsLeft = maximumTransforms;
  let at = 0;
  for (let more = true; more; ) {
    if (body.length - at < 8) throw invalidSyntax('SA: proposal is cut short');
    const last = body[at]!;
    if (last !== 0 && last !== 2) throw invalidSyntax(`SA: last substructure is ${last}`);
    more = last === 2;
    const length = readU16(body, at + 2);
    if (length < 8 || length > body.length - at) throw invalidSyntax(`SA: proposal length ${length}`);
    if (proposals.length === maximumProposals) throw invalidSyntax('SA: too many proposals');
    const proposal = parseProposal(body.subarray(at, at + length), transformsLeft);
    transformsLeft -= proposal.transforms.length;
    proposals.push(proposal);
    at += length;
  }
  if (at !== body.length) throw invalidSyntax('SA: bytes after the last proposal');
  return { kind: 'SA', proposals };
}

function parseProposal(bytes: Uint8Array, transformsLeft: number): Proposal {
  const protocol = bytes[5]!;
  const spiSize = bytes[6]!;
  const count = bytes[7]!;
  if (spiSize > bytes.length - 8) throw invalidSyntax(`SA: SPI size ${spiSize}`);
  const spi = bytes.subarray(8, 8 + spiSize);
  checkSpi(protocol, spi);
  if (count > transformsLeft) throw invalidSyntax('SA: too many transforms');
  const transforms: Transform[] = [];
  let at = 8 + spiSize;
  for (let more = count > 0; more; ) {
    if (bytes.length - at < 8) throw invalidSyntax('SA: transform is cut short');
    const last = bytes[at]!;
    if (last !== 0 && last !== 3) throw invalidSyntax(`SA: last substructure of a transform is ${last}`);
    more = last === 3;
    const length = readU16(bytes, at + 2);
    if (length < 8 || length > bytes.length - at) throw invalidSyntax(`SA: transform length ${length}`);
    if (transforms.length === count) throw invalidSyntax('SA: more transforms than announced');
    transforms.push(parseTransform(bytes.subarray(at, at + length)));
    at += length;
  }
  if (transforms.length !== count) throw invalidSyntax('SA: fewer transforms than announced');
  if (at !== bytes.length) throw invalidSyntax('SA: bytes after the last transform');
  return { number: bytes[4]!, protocol, spi, transforms };
}

function checkSpi(protocol: number, spi: Uint8Array): void {
  const fits =
    protocol === ProtocolId.IKE
      ? spi.length === 0 || spi.length === 8
      : protocol === ProtocolId.ESP || protocol === ProtocolId.AH
        ? spi.length === 4
        : true;
  if (!fits) throw invalidSyntax(`SA: SPI of ${spi.length} bytes for protocol ${protocol}`);
  if (spi.length > 0 && spi.every(byte => byte === 0)) throw invalidSyntax('SA: SPI is zero');
}

/**
 * Transform substructure and its attributes, RFC 7296 §3.3.2, §3.3.5:
 *
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * | Last Substruc |   RESERVED    |        Transform Length       |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |Transform Type |   RESERVED    |          Transform ID         |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |A|       Attribute Type        |    AF=0  Attribute Length     |
 * |F|                             |    AF=1  Attribute Value      |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |                   AF=0  Attribute Value                       |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 */
function parseTransform(bytes: Uint8Array): Transform {
  const transform: Transform = { type: bytes[4]!, id: readU16(bytes, 6) };
  const attributes: TransformAttribute[] = [];
  let at = 8;
  let count = 0;
  while (at < bytes.length) {
    if (bytes.length - at < 4) throw invalidSyntax('SA: attribute is cut short');
    if (++count > maximumAttributes) throw invalidSyntax('SA: too many attributes');
    const word = readU16(bytes, at);
    const type = word & 0x7fff;
    const fixed = (word & 0x8000) !== 0;
    const length = fixed ? 2 : readU16(bytes, at + 2);
    const start = fixed ? at + 2 : at + 4;
    if (length > bytes.length - start) throw invalidSyntax(`SA: attribute length ${length}`);
    if (type === keyLengthAttribute) {
      if (!fixed) throw invalidSyntax('SA: Key Length must be a fixed-length attribute');
      if (transform.keyBits !== undefined) throw invalidSyntax('SA: two Key Length attributes');
      transform.keyBits = readU16(bytes, start);
    } else {
      // AF and type together, so that compose gives the same bytes again.
      attributes.push({ type: word, value: bytes.subarray(start, start + length) });
    }
    at = start + length;
  }
  if (attributes.length > 0) transform.attributes = attributes;
  return transform;
}

/** The body of an SA payload; the pictures are at parseSa. */
export function composeSa(payload: SaPayload): Uint8Array {
  return concat(
    payload.proposals.map((proposal, index) =>
      composeProposal(proposal, index === payload.proposals.length - 1),
    ),
  );
}

function composeProposal(proposal: Proposal, last: boolean): Uint8Array {
  const head = new Uint8Array(8);
  const transforms = proposal.transforms.map((transform, index) =>
    composeTransform(transform, index === proposal.transforms.length - 1),
  );
  const bytes = concat([head, proposal.spi, ...transforms]);
  bytes[0] = last ? 0 : 2;
  writeU16(bytes, 2, bytes.length);
  bytes[4] = proposal.number;
  bytes[5] = proposal.protocol;
  bytes[6] = proposal.spi.length;
  bytes[7] = proposal.transforms.length;
  return bytes;
}

function composeTransform(transform: Transform, last: boolean): Uint8Array {
  const parts: Uint8Array[] = [new Uint8Array(8)];
  if (transform.keyBits !== undefined) {
    const attribute = new Uint8Array(4);
    writeU16(attribute, 0, 0x8000 | keyLengthAttribute);
    writeU16(attribute, 2, transform.keyBits);
    parts.push(attribute);
  }
  for (const { type, value } of transform.attributes ?? []) {
    const fixed = (type & 0x8000) !== 0;
    const head = new Uint8Array(fixed ? 2 : 4);
    writeU16(head, 0, type);
    if (!fixed) writeU16(head, 2, value.length);
    parts.push(head, value);
  }
  const bytes = concat(parts);
  bytes[0] = last ? 0 : 3;
  writeU16(bytes, 2, bytes.length);
  bytes[4] = transform.type;
  writeU16(bytes, 6, transform.id);
  return bytes;
}
