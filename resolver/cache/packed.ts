/** RRsets as strings of octets: what is kept for long takes a string of one byte a character and nothing else. */
import { Name } from '../dns/name.ts';
import type { Rrset } from '../dns/rrset.ts';
import { CLASS } from '../dns/types.ts';

/**
 * The RRsets in one latin1 string; class IN is understood.
 *
 * Each: length of the owner's wire form, owner, type (2), TTL (4), number of RDATAs (2) and of signatures (2), then each
 * of them after its length (2).
 */
export function pack(rrsets: readonly Rrset[]): string {
  const octets = packOctets(rrsets);
  return octets.toString('latin1', 0, octets.length);
}

/**
 * The same as octets, good until the next RRsets are packed.
 *
 * `withoutOwner`, one of them: the length of its owner is 0, and who unpacks it gives the owner.
 */
export function packOctets(
  rrsets: readonly Rrset[],
  { withoutOwner }: { withoutOwner?: Rrset } = {},
): Buffer {
  let size = 0;
  for (const { name, rdatas, signatures } of rrsets) {
    size += 11 + name.wire.length;
    for (const rdata of rdatas) size += 2 + rdata.length;
    for (const rdata of signatures) size += 2 + rdata.length;
  }
  const bytes = size <= scratch.length ? scratch : Buffer.allocUnsafe(size);
  let at = 0;
  for (const rrset of rrsets) {
    const { name, type, ttlSeconds, rdatas, signatures } = rrset;
    const owner = rrset === withoutOwner ? NO_OWNER : name.wire;
    bytes[at++] = owner.length;
    bytes.set(owner, at);
    at = bytes.writeUInt16BE(type, at + owner.length);
    at = bytes.writeUInt32BE(ttlSeconds, at);
    at = bytes.writeUInt16BE(rdatas.length, at);
    at = bytes.writeUInt16BE(signatures.length, at);
    for (const rdata of rdatas) at = writeRdata(bytes, at, rdata);
    for (const rdata of signatures) at = writeRdata(bytes, at, rdata);
  }
  return bytes.subarray(0, at);
}

/** The RRsets of `pack`, `ageSeconds` later. Their RDATA are views of one buffer of their own. */
export function unpack(packed: string | Uint8Array, ageSeconds: number, owner?: Name): Rrset[] {
  const bytes = typeof packed === 'string' ? octetsOf(packed) : new Uint8Array(packed);
  const rrsets: Rrset[] = [];
  const uint16 = (): number => {
    at += 2;
    return (bytes[at - 2]! << 8) | bytes[at - 1]!;
  };
  const rdata = (): Uint8Array => {
    const length = uint16();
    at += length;
    return bytes.subarray(at - length, at);
  };
  let at = 0;
  while (at < bytes.length) {
    const ownerBytes = bytes[at++]!;
    const name = ownerBytes === 0 ? owner! : Name.readUncompressed(bytes, at, at + ownerBytes).name;
    at += ownerBytes;
    const type = uint16();
    const ttlSeconds = Math.max(0, uint16() * 0x10000 + uint16() - ageSeconds);
    const counts = [uint16(), uint16()] as const;
    const rdatas = Array.from({ length: counts[0] }, rdata);
    const signatures = Array.from({ length: counts[1] }, rdata);
    rrsets.push({ name, type, class: CLASS.IN, ttlSeconds, rdatas, signatures });
  }
  return rrsets;
}

function octetsOf(text: string): Uint8Array {
  const buffer = Buffer.allocUnsafeSlow(text.length);
  buffer.write(text, 'latin1');
  return new Uint8Array(buffer.buffer, 0, text.length);
}

const NO_OWNER = new Uint8Array(0);
const scratch = Buffer.allocUnsafeSlow(16_384);

function writeRdata(bytes: Buffer, at: number, rdata: Uint8Array): number {
  bytes.writeUInt16BE(rdata.length, at);
  bytes.set(rdata, at + 2);
  return at + 2 + rdata.length;
}
