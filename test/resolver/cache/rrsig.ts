/** Signatures that nobody checks, for tests in which only their times count. */
import { Name } from '../../../resolver/dns/name.ts';

/** An RRSIG of example. over `type`, in force between these Unix seconds (RFC 4034 section 3.1). */
export function rrsigRdata(type: number, inception: number, expiration: number): Uint8Array {
  const signer = Name.parseText('example').wire;
  const rdata = new Uint8Array(18 + signer.length + 64);
  const view = new DataView(rdata.buffer);
  view.setUint16(0, type);
  rdata.set([13, 1], 2);
  view.setUint32(4, 300);
  view.setUint32(8, expiration);
  view.setUint32(12, inception);
  rdata.set(signer, 18);
  return rdata;
}
