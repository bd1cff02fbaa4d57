/** SVCB and HTTPS, RR types 64 and 65 (RFC 9460). */
import { DnsFormatError, Name } from './name.ts';
import { attempt, viewOf } from './rdata.ts';

export const SVC_PARAM = {
  MANDATORY: 0,
  ALPN: 1,
  NO_DEFAULT_ALPN: 2,
  PORT: 3,
  IPV4HINT: 4,
  ECH: 5,
  IPV6HINT: 6,
} as const;

/** `priority` 0 is AliasMode. `params` in strictly rising key order, values as bytes. */
export type Svcb = { priority: number; target: Name; params: { key: number; value: Uint8Array }[] };

/** RFC 9460 §2.2: keys must rise strictly, lengths must fit; otherwise the record is malformed: undefined. */
export function parseSvcb(rdata: Uint8Array): Svcb | undefined {
  return attempt(() => {
    if (rdata.length < 3) throw new DnsFormatError('SVCB too short');
    const view = viewOf(rdata);
    const { name: target, end } = Name.readUncompressed(rdata, 2, rdata.length);
    const params: Svcb['params'] = [];
    let last = -1;
    for (let at = end; at < rdata.length; ) {
      if (at + 4 > rdata.length) throw new DnsFormatError('SvcParam cut short');
      const key = view.getUint16(at);
      const next = at + 4 + view.getUint16(at + 2);
      if (key <= last || next > rdata.length) throw new DnsFormatError('SvcParams out of order or too long');
      params.push({ key, value: rdata.subarray(at + 4, next) });
      last = key;
      at = next;
    }
    return { priority: view.getUint16(0), target, params };
  });
}

export function composeSvcb({ priority, target, params }: Svcb): Uint8Array {
  const size = params.reduce((sum, { value }) => sum + 4 + value.length, 2 + target.wire.length);
  const rdata = new Uint8Array(size);
  const view = viewOf(rdata);
  view.setUint16(0, priority);
  rdata.set(target.wire, 2);
  let at = 2 + target.wire.length;
  for (const { key, value } of params) {
    view.setUint16(at, key);
    view.setUint16(at + 2, value.length);
    rdata.set(value, at + 4);
    at += 4 + value.length;
  }
  return rdata;
}

/** The addresses in ipv4hint and ipv6hint, as bytes; a value that is not whole addresses yields none. */
export function addressHints({ params }: Svcb): { ipv4: Uint8Array[]; ipv6: Uint8Array[] } {
  const hints = (wanted: number, size: number): Uint8Array[] => {
    const value = params.find(({ key }) => key === wanted)?.value;
    if (value === undefined || value.length % size !== 0) return [];
    return Array.from({ length: value.length / size }, (_, i) => value.subarray(i * size, (i + 1) * size));
  };
  return { ipv4: hints(SVC_PARAM.IPV4HINT, 4), ipv6: hints(SVC_PARAM.IPV6HINT, 16) };
}

/**
 * The same record without ipv4hint and ipv6hint; they also leave `mandatory`, which goes when that empties it
 * (RFC 9460 §8: a mandatory key that is not there would make the record useless).
 */
export function withoutAddressHints(svcb: Svcb): Svcb {
  const isHint = (key: number): boolean => key === SVC_PARAM.IPV4HINT || key === SVC_PARAM.IPV6HINT;
  const params = svcb.params
    .filter(({ key }) => !isHint(key))
    .map(param => {
      if (param.key !== SVC_PARAM.MANDATORY || param.value.length % 2 !== 0) return param;
      const view = viewOf(param.value);
      const keys = Array.from({ length: param.value.length / 2 }, (_, i) => view.getUint16(i * 2));
      const kept = keys.filter(key => !isHint(key));
      return { key: param.key, value: Uint8Array.from(kept.flatMap(key => [key >> 8, key & 0xff])) };
    })
    .filter(({ key, value }) => key !== SVC_PARAM.MANDATORY || value.length > 0);
  return { ...svcb, params };
}
