/** EDNS(0): the OPT pseudo-record (RFC 6891 §6.1) and Extended DNS Errors (RFC 8914). */
import { copyBytes, DnsFormatError } from './name.ts';

export type EdnsOption = { code: number; data: Uint8Array };

/** What OPT says. `udpSize` in bytes as advertised (values under 512 mean 512); `version` above 0 wants BADVERS. */
export type Edns = { udpSize: number; version: number; dnssecOk: boolean; options: EdnsOption[] };

export type ExtendedError = { code: number; text: string };

export const EDNS_OPTION = {
  NSID: 3,
  CLIENT_SUBNET: 8,
  COOKIE: 10,
  KEEPALIVE: 11,
  PADDING: 12,
  EDE: 15,
} as const;

/** OPT's RDATA: options of (code, length, data). Throws DnsFormatError when a length lies. */
export function parseOptions(rdata: Uint8Array): EdnsOption[] {
  const options: EdnsOption[] = [];
  let at = 0;
  while (at < rdata.length) {
    if (at + 4 > rdata.length) throw new DnsFormatError('EDNS option cut short');
    const code = (rdata[at]! << 8) | rdata[at + 1]!;
    const length = (rdata[at + 2]! << 8) | rdata[at + 3]!;
    at += 4;
    if (at + length > rdata.length) throw new DnsFormatError('EDNS option runs past its end');
    options.push({ code, data: copyBytes(rdata, at, at + length) });
    at += length;
  }
  return options;
}

export function composeOptions(options: readonly EdnsOption[]): Uint8Array {
  const size = options.reduce((sum, option) => sum + 4 + option.data.length, 0);
  const rdata = new Uint8Array(size);
  let at = 0;
  for (const { code, data } of options) {
    rdata.set([code >> 8, code & 0xff, data.length >> 8, data.length & 0xff], at);
    rdata.set(data, at + 4);
    at += 4 + data.length;
  }
  return rdata;
}

/** An EDE option (RFC 8914 §2); the text is cut to 200 bytes so that it never crowds out an answer. */
export function composeEde({ code, text }: ExtendedError): EdnsOption {
  let bytes = new TextEncoder().encode(text);
  if (bytes.length > 200) {
    let cut = 200;
    while (cut > 0 && (bytes[cut]! & 0xc0) === 0x80) cut--;
    bytes = bytes.subarray(0, cut);
  }
  const data = new Uint8Array(2 + bytes.length);
  data[0] = code >> 8;
  data[1] = code & 0xff;
  data.set(bytes, 2);
  return { code: EDNS_OPTION.EDE, data };
}
