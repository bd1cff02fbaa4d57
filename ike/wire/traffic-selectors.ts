import { concat, readU16, writeU16 } from './bytes.ts';
import { invalidSyntax } from './error.ts';
import { TsType } from './numbers.ts';

export type TsPayload = { kind: 'TSi' | 'TSr'; selectors: TrafficSelector[] };

/** Addresses are inclusive, 4 or 16 bytes after `type`; protocol 0 and ports 0-65535 mean any. */
export type TrafficSelector = {
  type: 7 | 8;
  protocol: number;
  startPort: number;
  endPort: number;
  start: Uint8Array;
  end: Uint8Array;
};

/**
 * Traffic Selector payload, RFC 7296 §3.13: a count, three reserved bytes, then selectors (§3.13.1):
 *
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |   TS Type     |IP Protocol ID*|       Selector Length         |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |           Start Port*         |           End Port*           |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * ~                         Starting Address*                     ~
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * ~                         Ending Address*                       ~
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 *
 * Selectors of types we do not know are left out, so `selectors` may be empty: then nothing is acceptable.
 * INVALID_SYNTAX: no selector at all, lengths and count that do not agree, an end before its start
 * (65535-0, OPAQUE of RFC 4301 §4.4.1.1, excepted).
 */
export function parseTs(kind: 'TSi' | 'TSr', body: Uint8Array): TsPayload {
  if (body.length < 4) throw invalidSyntax(`${kind}: too short`);
  const count = body[0]!;
  if (count === 0) throw invalidSyntax(`${kind}: no selectors`);
  const selectors: TrafficSelector[] = [];
  let at = 4;
  for (let index = 0; index < count; index++) {
    if (body.length - at < 4) throw invalidSyntax(`${kind}: selector is cut short`);
    const length = readU16(body, at + 2);
    if (length < 4 || length > body.length - at) throw invalidSyntax(`${kind}: selector length ${length}`);
    const selector = parseSelector(kind, body.subarray(at, at + length));
    if (selector !== undefined) selectors.push(selector);
    at += length;
  }
  if (at !== body.length) throw invalidSyntax(`${kind}: bytes after the last selector`);
  return { kind, selectors };
}

function parseSelector(kind: string, bytes: Uint8Array): TrafficSelector | undefined {
  const type = bytes[0]!;
  if (type !== TsType.IPV4_ADDR_RANGE && type !== TsType.IPV6_ADDR_RANGE) return undefined;
  const size = type === TsType.IPV4_ADDR_RANGE ? 4 : 16;
  if (bytes.length !== 8 + 2 * size) throw invalidSyntax(`${kind}: selector of ${bytes.length} bytes`);
  const selector: TrafficSelector = {
    type,
    protocol: bytes[1]!,
    startPort: readU16(bytes, 4),
    endPort: readU16(bytes, 6),
    start: bytes.subarray(8, 8 + size),
    end: bytes.subarray(8 + size),
  };
  const opaquePorts = selector.startPort === 65535 && selector.endPort === 0;
  if (selector.startPort > selector.endPort && !opaquePorts) throw invalidSyntax(`${kind}: ports backwards`);
  if (compareBytes(selector.start, selector.end) > 0) throw invalidSyntax(`${kind}: addresses backwards`);
  return selector;
}

export function composeTs(payload: TsPayload): Uint8Array {
  const bytes = concat([new Uint8Array(4), ...payload.selectors.map(composeSelector)]);
  bytes[0] = payload.selectors.length;
  return bytes;
}

function composeSelector(selector: TrafficSelector): Uint8Array {
  const bytes = concat([new Uint8Array(8), selector.start, selector.end]);
  bytes[0] = selector.type;
  bytes[1] = selector.protocol;
  writeU16(bytes, 2, bytes.length);
  writeU16(bytes, 4, selector.startPort);
  writeU16(bytes, 6, selector.endPort);
  return bytes;
}

/** Exactly one host, any protocol, any port; `address` has 4 or 16 bytes. */
export function hostSelector(address: Uint8Array): TrafficSelector {
  return {
    type: address.length === 4 ? TsType.IPV4_ADDR_RANGE : TsType.IPV6_ADDR_RANGE,
    protocol: 0,
    startPort: 0,
    endPort: 65535,
    start: address,
    end: address,
  };
}

/** Whether the selector holds every protocol and port of this one address. */
export function coversHost(selector: TrafficSelector, address: Uint8Array): boolean {
  return (
    selector.start.length === address.length &&
    selector.protocol === 0 &&
    selector.startPort === 0 &&
    selector.endPort === 65535 &&
    compareBytes(selector.start, address) <= 0 &&
    compareBytes(selector.end, address) >= 0
  );
}

function compareBytes(a: Uint8Array, b: Uint8Array): number {
  for (let at = 0; at < a.length; at++) {
    const difference = a[at]! - b[at]!;
    if (difference !== 0) return difference;
  }
  return 0;
}
