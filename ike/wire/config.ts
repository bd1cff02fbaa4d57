import { concat, readU16, writeU16 } from './bytes.ts';
import { invalidSyntax } from './error.ts';

export type ConfigPayload = { kind: 'CP'; configType: number; attributes: ConfigAttribute[] };
export type ConfigAttribute = { type: number; value: Uint8Array };

const maximumAttributes = 64;

/**
 * Configuration, RFC 7296 §3.15: type, three reserved bytes, then attributes (§3.15.1):
 *
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |R|         Attribute Type      |            Length             |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * ~                             Value                             ~
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 *
 * Values are opaque. INVALID_SYNTAX for lengths that do not fit and more than 64 attributes.
 */
export function parseConfig(body: Uint8Array): ConfigPayload {
  if (body.length < 4) throw invalidSyntax('CP: too short');
  const attributes: ConfigAttribute[] = [];
  let at = 4;
  while (at < body.length) {
    if (body.length - at < 4) throw invalidSyntax('CP: attribute is cut short');
    if (attributes.length === maximumAttributes) throw invalidSyntax('CP: too many attributes');
    const length = readU16(body, at + 2);
    if (length > body.length - at - 4) throw invalidSyntax(`CP: attribute length ${length}`);
    attributes.push({ type: readU16(body, at) & 0x7fff, value: body.subarray(at + 4, at + 4 + length) });
    at += 4 + length;
  }
  return { kind: 'CP', configType: body[0]!, attributes };
}

export function composeConfig(payload: ConfigPayload): Uint8Array {
  const parts: Uint8Array[] = [Uint8Array.of(payload.configType, 0, 0, 0)];
  for (const { type, value } of payload.attributes) {
    const head = new Uint8Array(4);
    writeU16(head, 0, type);
    writeU16(head, 2, value.length);
    parts.push(head, value);
  }
  return concat(parts);
}
