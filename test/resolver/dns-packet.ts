/** dns-packet, which ships no types, as an independent codec for the tests. */
import { createRequire } from 'node:module';

export type PacketQuestion = { type: string; name: string; class?: string };
export type PacketRecord = {
  type: string;
  name: string;
  ttl?: number;
  class?: string;
  /** Its shape depends on the type. */
  data?: unknown;
  [field: string]: unknown;
};
export type Packet = {
  type?: 'query' | 'response';
  id?: number;
  flags?: number;
  rcode?: string;
  opcode?: string;
  questions?: PacketQuestion[];
  answers?: PacketRecord[];
  authorities?: PacketRecord[];
  additionals?: PacketRecord[];
  flag_qr?: boolean;
  flag_aa?: boolean;
  flag_tc?: boolean;
  flag_rd?: boolean;
  flag_ra?: boolean;
  flag_ad?: boolean;
  flag_cd?: boolean;
};

const codec = createRequire(import.meta.url)('dns-packet') as {
  encode(packet: Packet): Buffer;
  decode(bytes: Buffer): Packet;
};

export const dnsPacket = {
  encode: (packet: Packet): Buffer => codec.encode(packet),
  decode: (bytes: Uint8Array): Packet => codec.decode(Buffer.from(bytes)),
};
