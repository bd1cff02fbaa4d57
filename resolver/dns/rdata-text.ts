/** Presentation form of RDATA for people: `record`, `explain`, logs (RFC 1035 §5, RFC 3597 §5 for the rest). */
import { parseDnskey, parseDs, parseNsec, parseNsec3, parseRrsig, type TypeBitmap } from './dnssec-rdata.ts';
import { type Ipseckey, parseIpseckey } from './ipseckey.ts';
import { parseA, parseAaaa, parseMx, parseSoa, parseSrv, parseTarget, parseTxt } from './rdata.ts';
import { addressHints, parseSvcb, SVC_PARAM, type Svcb } from './svcb.ts';
import { TYPE, typeToText } from './types.ts';

/** One line without owner, TTL, class and type. RDATA that does not fit its type, or an unknown type, as `\# n hex`. */
export function rdataToText(type: number, rdata: Uint8Array): string {
  return (FORMATS.get(type)?.(rdata) ?? undefined) || genericText(rdata);
}

/** RFC 3597 §5. */
function genericText(rdata: Uint8Array): string {
  return rdata.length === 0 ? '\\# 0' : `\\# ${rdata.length} ${hex(rdata)}`;
}

/** RFC 4025 §3.1: precedence, gateway type, algorithm, gateway, Base64 key. */
export function ipseckeyToText({ precedence, algorithm, gateway, publicKey }: Ipseckey): string {
  const [type, target] =
    gateway.kind === 'none'
      ? [0, '.']
      : gateway.kind === 'ipv4'
        ? [1, ipv4ToText(gateway.address)]
        : gateway.kind === 'ipv6'
          ? [2, ipv6ToText(gateway.address)]
          : [3, gateway.name.toText()];
  return [precedence, type, algorithm, target, base64(publicKey)].join(' ').trimEnd();
}

function ipv4ToText(address: Uint8Array): string {
  return address.join('.');
}

/** RFC 5952: lower case, the longest run of two or more zero groups as `::`, the first of equals. */
export function ipv6ToText(address: Uint8Array): string {
  const groups = Array.from({ length: 8 }, (_, i) =>
    ((address[2 * i]! << 8) | address[2 * i + 1]!).toString(16),
  );
  let best = { start: -1, length: 1 };
  for (let start = 0; start < 8; start++) {
    let length = 0;
    while (groups[start + length] === '0') length++;
    if (length > best.length) best = { start, length };
  }
  if (best.start === -1) return groups.join(':');
  const tail = groups.slice(best.start + best.length);
  return `${groups.slice(0, best.start).join(':')}::${tail.join(':')}`;
}

type Format = (rdata: Uint8Array) => string | undefined;

function format<T>(parse: (rdata: Uint8Array) => T | undefined, toText: (value: T) => string): Format {
  return rdata => {
    const value = parse(rdata);
    return value === undefined ? undefined : toText(value);
  };
}

const target = format(parseTarget, name => name.toText());
const svcb = format(parseSvcb, svcbToText);
const FORMATS = new Map<number, Format>([
  [TYPE.A, format(parseA, ipv4ToText)],
  [TYPE.AAAA, format(parseAaaa, ipv6ToText)],
  [TYPE.NS, target],
  [TYPE.CNAME, target],
  [TYPE.PTR, target],
  [TYPE.DNAME, target],
  [TYPE.MX, format(parseMx, mx => `${mx.preference} ${mx.exchange.toText()}`)],
  [TYPE.SRV, format(parseSrv, srv => `${srv.priority} ${srv.weight} ${srv.port} ${srv.target.toText()}`)],
  [TYPE.TXT, format(parseTxt, strings => strings.map(quote).join(' '))],
  [
    TYPE.SOA,
    format(
      parseSoa,
      ({ mname, rname, serial, refreshSeconds, retrySeconds, expireSeconds, minimumSeconds }) =>
        [mname, rname, serial, refreshSeconds, retrySeconds, expireSeconds, minimumSeconds].join(' '),
    ),
  ],
  [
    TYPE.DS,
    format(parseDs, ds => `${ds.keyTag} ${ds.algorithm} ${ds.digestType} ${hex(ds.digest).toUpperCase()}`),
  ],
  [
    TYPE.DNSKEY,
    format(parseDnskey, key => `${key.flags} ${key.protocol} ${key.algorithm} ${base64(key.publicKey)}`),
  ],
  [
    TYPE.RRSIG,
    format(parseRrsig, sig =>
      [
        typeToText(sig.typeCovered),
        sig.algorithm,
        sig.labels,
        sig.originalTtlSeconds,
        timeToText(sig.expiration),
        timeToText(sig.inception),
        sig.keyTag,
        sig.signer,
        base64(sig.signature),
      ].join(' '),
    ),
  ],
  [TYPE.NSEC, format(parseNsec, nsec => `${nsec.next.toText()}${typesToText(nsec.types)}`)],
  [
    TYPE.NSEC3,
    format(parseNsec3, nsec3 => {
      const salt = nsec3.salt.length === 0 ? '-' : hex(nsec3.salt).toUpperCase();
      const head = `${nsec3.hashAlgorithm} ${nsec3.flags} ${nsec3.iterations} ${salt}`;
      return `${head} ${base32hex(nsec3.nextHash)}${typesToText(nsec3.types)}`;
    }),
  ],
  [TYPE.IPSECKEY, format(parseIpseckey, ipseckeyToText)],
  [TYPE.SVCB, svcb],
  [TYPE.HTTPS, svcb],
]);

function typesToText(bitmap: TypeBitmap): string {
  return bitmap
    .types()
    .map(type => ` ${typeToText(type)}`)
    .join('');
}

function svcbToText(record: Svcb): string {
  const hints = addressHints(record);
  const params = record.params.map(({ key, value }) => {
    if (key === SVC_PARAM.IPV4HINT && hints.ipv4.length > 0)
      return `ipv4hint=${hints.ipv4.map(ipv4ToText).join(',')}`;
    if (key === SVC_PARAM.IPV6HINT && hints.ipv6.length > 0)
      return `ipv6hint=${hints.ipv6.map(ipv6ToText).join(',')}`;
    if (key === SVC_PARAM.PORT && value.length === 2) return `port=${(value[0]! << 8) | value[1]!}`;
    if (key === SVC_PARAM.NO_DEFAULT_ALPN) return 'no-default-alpn';
    if (key === SVC_PARAM.ECH) return `ech=${base64(value)}`;
    const alpn = key === SVC_PARAM.ALPN ? parseTxt(value) : undefined;
    if (alpn !== undefined)
      return `alpn=${quote(Buffer.concat(alpn.flatMap((id, i) => (i ? [COMMA, id] : [id]))))}`;
    return value.length === 0 ? `key${key}` : `key${key}=${quote(value)}`;
  });
  return [record.priority, record.target.toText(), ...params].join(' ');
}

const COMMA = Uint8Array.of(0x2c);

/** A character-string in quotes, bytes outside printable ASCII as `\DDD`. */
function quote(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) {
    if (byte === 0x22 || byte === 0x5c) text += `\\${String.fromCharCode(byte)}`;
    else if (byte < 0x20 || byte >= 0x7f) text += `\\${String(byte).padStart(3, '0')}`;
    else text += String.fromCharCode(byte);
  }
  return `"${text}"`;
}

/** RRSIG times as YYYYMMDDHHmmSS in UTC (RFC 4034 §3.2). */
function timeToText(seconds: number): string {
  return new Date(seconds * 1000).toISOString().replace(/[-:T]|\.000Z/g, '');
}

/** Base 32 with extended hex alphabet, no padding, lower case (RFC 4648 §7 as NSEC3 owner names use it). */
export function base32hex(bytes: Uint8Array): string {
  let text = '';
  let bits = 0;
  let value = 0;
  for (const byte of bytes) {
    value = (value << 8) | byte;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += '0123456789abcdefghijklmnopqrstuv'[(value >> bits) & 31];
    }
    value &= (1 << bits) - 1;
  }
  if (bits > 0) text += '0123456789abcdefghijklmnopqrstuv'[(value << (5 - bits)) & 31];
  return text;
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64');
}
