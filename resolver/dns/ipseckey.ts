/** IPSECKEY, RR type 45 (RFC 4025; algorithm 4 from RFC 9373). */
import { Name } from './name.ts';
import { attempt } from './rdata.ts';

/**
 * Who speaks ESP for the owner: nobody but itself (`none`), an address, or a name.
 *
 * Addresses are bytes in network order.
 */
export type IpseckeyGateway =
  | { kind: 'none' }
  | { kind: 'ipv4'; address: Uint8Array }
  | { kind: 'ipv6'; address: Uint8Array }
  | { kind: 'name'; name: Name };

/**
 * ```
 *  0                   1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |  precedence   | gateway type  |  algorithm    |     gateway   |
 * +-------------+-+---------------+---------------+               +
 * ~                            gateway                            ~
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |                          public key                           /
 * ```
 * `precedence`: lower is preferred (as MX). `algorithm`: 0 none, 1 DSA, 2 RSA (RFC 3110 form), 3 ECDSA (x||y, 64 or
 * 96 bytes), 4 EdDSA (32 or 57 bytes). `publicKey` is empty when algorithm is 0.
 */
export type Ipseckey = {
  precedence: number;
  algorithm: number;
  gateway: IpseckeyGateway;
  publicKey: Uint8Array;
};

/** Undefined for an unknown gateway type too: where its key begins can not be told. */
export function parseIpseckey(rdata: Uint8Array): Ipseckey | undefined {
  if (rdata.length < 3) return undefined;
  const read = attempt(() => readGateway(rdata[1]!, rdata));
  if (read === undefined) return undefined;
  return {
    precedence: rdata[0]!,
    algorithm: rdata[2]!,
    gateway: read.gateway,
    publicKey: rdata.subarray(read.end),
  };
}

export function composeIpseckey({ precedence, algorithm, gateway, publicKey }: Ipseckey): Uint8Array {
  const kinds = { none: 0, ipv4: 1, ipv6: 2, name: 3 } as const;
  const target = gateway.kind === 'none' ? [] : gateway.kind === 'name' ? gateway.name.wire : gateway.address;
  return Uint8Array.of(precedence, kinds[gateway.kind], algorithm, ...target, ...publicKey);
}

function readGateway(type: number, rdata: Uint8Array): { gateway: IpseckeyGateway; end: number } | undefined {
  if (type === 0) return { gateway: { kind: 'none' }, end: 3 };
  if (type === 1 || type === 2) {
    const end = type === 1 ? 7 : 19;
    if (rdata.length < end) return undefined;
    return { gateway: { kind: type === 1 ? 'ipv4' : 'ipv6', address: rdata.subarray(3, end) }, end };
  }
  if (type !== 3) return undefined;
  const { name, end } = Name.readUncompressed(rdata, 3, rdata.length);
  return { gateway: { kind: 'name', name }, end };
}
