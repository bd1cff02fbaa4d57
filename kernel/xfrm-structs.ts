/**
 * The fixed structures of linux/xfrm.h for 64-bit little-endian Linux, composed and parsed at their own offsets.
 *
 * Addresses, SPIs, and ports are in network order, everything else in host order. Tail padding is part of each size:
 * the kernel refuses a policy of 164 octets.
 */
import type { Direction, Lifetime, Mode, Selector } from './xfrm-types.ts';

export const SIZE = {
  selector: 56,
  id: 24,
  lifetimeConfig: 64,
  lifetimeCurrent: 32,
  saInfo: 224,
  saId: 24,
  spiInfo: 232,
  policyInfo: 168,
  policyId: 64,
  template: 64,
  acquire: 280,
  expire: 232,
  policyExpire: 176,
  mapping: 64,
  encapsulation: 24,
  algorithm: 68,
  algorithmAuth: 72,
  algorithmAead: 72,
  replayEsn: 24,
} as const;

const IPPROTO_ESP = 50;
const AF_INET = 2;
const AF_INET6 = 10;
const UNLIMITED = 0xffffffffffffffffn;
const NO_TIME_LIMIT = 0n;
const ALL_ALGORITHMS = 0xffffffff;
const XFRM_STATE_ESN = 128;
const UDP_ENCAP_ESPINUDP = 2;

const MODE_NUMBER: Record<Mode, number> = { transport: 0, tunnel: 1 };
const DIRECTION_NUMBER: Record<Direction, number> = { in: 0, out: 1, fwd: 2 };
const DIRECTIONS: Direction[] = ['in', 'out', 'fwd'];

function modeOf(value: number): Mode | 'other' {
  return value === 0 ? 'transport' : value === 1 ? 'tunnel' : 'other';
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** AF_INET or AF_INET6 by the length of an address; anything else is a mistake of the caller. */
function familyNumber(address: Uint8Array): number {
  if (address.length === 4) return AF_INET;
  if (address.length === 16) return AF_INET6;
  throw new RangeError(`An address has 4 or 16 octets, not ${address.length}.`);
}

function readAddress(bytes: Uint8Array, at: number, family: number): Uint8Array | undefined {
  if (family === AF_INET) return bytes.slice(at, at + 4);
  if (family === AF_INET6) return bytes.slice(at, at + 16);
  return undefined;
}

/*
 * struct xfrm_selector {            // 56
 *   xfrm_address_t daddr;           //  0  network order, IPv4 in the first 4 octets
 *   xfrm_address_t saddr;           // 16
 *   __be16 dport, dport_mask;       // 32, 34
 *   __be16 sport, sport_mask;       // 36, 38
 *   __u16  family;                  // 40
 *   __u8   prefixlen_d, prefixlen_s;// 42, 43
 *   __u8   proto;                   // 44
 *   int    ifindex;                 // 48
 *   __kernel_uid32_t user;          // 52
 * };
 */
function writeSelector(into: Uint8Array, at: number, selector: Selector): void {
  const view = viewOf(into);
  const family = familyNumber(selector.destination);
  if (familyNumber(selector.source) !== family || (family === AF_INET ? 4 : 6) !== selector.family) {
    throw new RangeError('A selector has addresses of one family.');
  }
  into.set(selector.destination, at);
  into.set(selector.source, at + 16);
  writePort(view, at + 32, selector.destinationPort);
  writePort(view, at + 36, selector.sourcePort);
  view.setUint16(at + 40, family, true);
  view.setUint8(at + 42, selector.destinationPrefix);
  view.setUint8(at + 43, selector.sourcePrefix);
  view.setUint8(at + 44, selector.protocol ?? 0);
}

function writePort(view: DataView, at: number, port: number | undefined): void {
  if (!port) return;
  view.setUint16(at, port, false);
  view.setUint16(at + 2, 0xffff, false);
}

/** Undefined for a selector of no address family (the kernel's "any"), and for prefixes that cannot be. */
export function readSelector(bytes: Uint8Array, at: number): Selector | undefined {
  const view = viewOf(bytes);
  const family = view.getUint16(at + 40, true);
  const destination = readAddress(bytes, at, family);
  const source = readAddress(bytes, at + 16, family);
  if (!destination || !source) return undefined;
  const destinationPrefix = view.getUint8(at + 42);
  const sourcePrefix = view.getUint8(at + 43);
  if (Math.max(destinationPrefix, sourcePrefix) > destination.length * 8) return undefined;
  const selector: Selector = {
    family: family === AF_INET ? 4 : 6,
    source,
    sourcePrefix,
    destination,
    destinationPrefix,
  };
  const protocol = view.getUint8(at + 44);
  const destinationPort = view.getUint16(at + 32, false);
  const sourcePort = view.getUint16(at + 36, false);
  if (protocol) selector.protocol = protocol;
  if (destinationPort) selector.destinationPort = destinationPort;
  if (sourcePort) selector.sourcePort = sourcePort;
  return selector;
}

/*
 * struct xfrm_lifetime_cfg {        // 64, all __u64
 *   soft_byte_limit, hard_byte_limit, soft_packet_limit, hard_packet_limit,       // 0, 8, 16, 24; ~0 is none
 *   soft_add_expires_seconds, hard_add_expires_seconds,                           // 32, 40; 0 is none
 *   soft_use_expires_seconds, hard_use_expires_seconds                            // 48, 56
 * };
 */
function writeLifetime(into: Uint8Array, at: number, lifetime: Lifetime = {}): void {
  const view = viewOf(into);
  const limits = [lifetime.softBytes, lifetime.hardBytes, lifetime.softPackets, lifetime.hardPackets];
  for (const [i, limit] of limits.entries()) {
    view.setBigUint64(at + i * 8, limit === undefined ? UNLIMITED : BigInt(limit), true);
  }
  for (const [i, limit] of [lifetime.softSeconds, lifetime.hardSeconds].entries()) {
    view.setBigUint64(at + 32 + i * 8, limit === undefined ? NO_TIME_LIMIT : BigInt(limit), true);
  }
}

/* struct xfrm_lifetime_cur { __u64 bytes, packets, add_time, use_time; };           // 32 */
function readUse(view: DataView, at: number) {
  return {
    bytes: Number(view.getBigUint64(at, true)),
    packets: Number(view.getBigUint64(at + 8, true)),
    addedSeconds: Number(view.getBigUint64(at + 16, true)),
    usedSeconds: Number(view.getBigUint64(at + 24, true)),
  };
}

export type SaInfo = {
  spi: number;
  source: Uint8Array;
  destination: Uint8Array;
  reqid: number;
  mode: Mode;
  esn: boolean;
  /** What the old 32-bit window field says; larger windows travel in XFRMA_REPLAY_ESN_VAL. */
  replayWindow: number;
  selector?: Selector;
  lifetime?: Lifetime;
  sequence?: number;
};

/*
 * struct xfrm_usersa_info {         // 224
 *   struct xfrm_selector sel;       //   0
 *   struct xfrm_id {                //  56
 *     xfrm_address_t daddr;         //  56
 *     __be32 spi;                   //  72
 *     __u8 proto;                   //  76
 *   } id;
 *   xfrm_address_t saddr;           //  80
 *   struct xfrm_lifetime_cfg lft;   //  96
 *   struct xfrm_lifetime_cur curlft;// 160
 *   struct xfrm_stats { __u32 replay_window, replay, integrity_failed; } stats;  // 192
 *   __u32 seq;                      // 204
 *   __u32 reqid;                    // 208
 *   __u16 family;                   // 212
 *   __u8 mode;                      // 214
 *   __u8 replay_window;             // 215
 *   __u8 flags;                     // 216
 * };
 */
export function composeSaInfo(sa: SaInfo): Uint8Array {
  const bytes = new Uint8Array(SIZE.saInfo);
  const view = viewOf(bytes);
  const family = familyNumber(sa.destination);
  if (familyNumber(sa.source) !== family) throw new RangeError('An SA has addresses of one family.');
  if (sa.selector) writeSelector(bytes, 0, sa.selector);
  bytes.set(sa.destination, 56);
  view.setUint32(72, sa.spi, false);
  view.setUint8(76, IPPROTO_ESP);
  bytes.set(sa.source, 80);
  writeLifetime(bytes, 96, sa.lifetime);
  view.setUint32(204, sa.sequence ?? 0, true);
  view.setUint32(208, sa.reqid, true);
  view.setUint16(212, family, true);
  view.setUint8(214, MODE_NUMBER[sa.mode]);
  view.setUint8(215, sa.replayWindow);
  view.setUint8(216, sa.esn ? XFRM_STATE_ESN : 0);
  return bytes;
}

/** Reads what stands at the beginning of `bytes`; undefined when too short or of an unknown family. */
export function parseSaInfo(bytes: Uint8Array) {
  if (bytes.length < SIZE.saInfo) return undefined;
  const view = viewOf(bytes);
  const family = view.getUint16(212, true);
  const destination = readAddress(bytes, 56, family);
  const source = readAddress(bytes, 80, family);
  if (!destination || !source) return undefined;
  const spi = view.getUint32(72, false);
  return {
    spi,
    source,
    destination,
    protocol: view.getUint8(76),
    reqid: view.getUint32(208, true),
    mode: modeOf(view.getUint8(214)),
    esn: (view.getUint8(216) & XFRM_STATE_ESN) !== 0,
    replayWindow: view.getUint8(215),
    selector: readSelector(bytes, 0),
    use: readUse(view, 160),
    replayDrops: view.getUint32(196, true),
    integrityFailures: view.getUint32(200, true),
    larval: spi === 0,
  };
}

/* struct xfrm_usersa_id { xfrm_address_t daddr; __be32 spi; __u16 family; __u8 proto; };   // 24: 0, 16, 20, 22 */
export function composeSaId(destination: Uint8Array, spi: number): Uint8Array {
  const bytes = new Uint8Array(SIZE.saId);
  const view = viewOf(bytes);
  bytes.set(destination);
  view.setUint32(16, spi, false);
  view.setUint16(20, familyNumber(destination), true);
  view.setUint8(22, IPPROTO_ESP);
  return bytes;
}

export function parseSaId(bytes: Uint8Array, at: number) {
  const view = viewOf(bytes);
  const family = view.getUint16(at + 20, true);
  const destination = readAddress(bytes, at, family);
  if (!destination) return undefined;
  return { destination, spi: view.getUint32(at + 16, false), protocol: view.getUint8(at + 22), family };
}

export function readFamilyAddress(bytes: Uint8Array, at: number, family: number): Uint8Array | undefined {
  return readAddress(bytes, at, family);
}

/*
 * struct xfrm_userpolicy_info {     // 168
 *   struct xfrm_selector sel;       //   0
 *   struct xfrm_lifetime_cfg lft;   //  56
 *   struct xfrm_lifetime_cur curlft;// 120
 *   __u32 priority, index;          // 152, 156
 *   __u8 dir, action, flags, share; // 160, 161, 162, 163
 * };
 */
export function composePolicyInfo(policy: {
  selector: Selector;
  direction: Direction;
  action: 'allow' | 'block';
  priority: number;
  index?: number;
  hardSeconds?: number;
}): Uint8Array {
  const bytes = new Uint8Array(SIZE.policyInfo);
  const view = viewOf(bytes);
  writeSelector(bytes, 0, policy.selector);
  writeLifetime(bytes, 56, policy.hardSeconds === undefined ? {} : { hardSeconds: policy.hardSeconds });
  view.setUint32(152, policy.priority, true);
  view.setUint32(156, policy.index ?? 0, true);
  view.setUint8(160, DIRECTION_NUMBER[policy.direction]);
  view.setUint8(161, policy.action === 'block' ? 1 : 0);
  return bytes;
}

/** Undefined when too short, of an unknown family, or of a direction that no verb takes (socket policies). */
export function parsePolicyInfo(bytes: Uint8Array, at = 0) {
  if (bytes.length < at + SIZE.policyInfo) return undefined;
  const view = viewOf(bytes);
  const selector = readSelector(bytes, at);
  const direction = DIRECTIONS[view.getUint8(at + 160)];
  if (!selector || !direction) return undefined;
  const { addedSeconds, usedSeconds } = readUse(view, at + 120);
  return {
    selector,
    direction,
    action: view.getUint8(at + 161) === 0 ? ('allow' as const) : ('block' as const),
    priority: view.getUint32(at + 152, true),
    index: view.getUint32(at + 156, true),
    addedSeconds,
    usedSeconds,
  };
}

/* struct xfrm_userpolicy_id { struct xfrm_selector sel; __u32 index; __u8 dir; };          // 64: 0, 56, 60 */
export function composePolicyId(id: {
  direction: Direction;
  index?: number;
  selector?: Selector;
}): Uint8Array {
  const bytes = new Uint8Array(SIZE.policyId);
  const view = viewOf(bytes);
  if (id.selector) writeSelector(bytes, 0, id.selector);
  view.setUint32(56, id.index ?? 0, true);
  view.setUint8(60, DIRECTION_NUMBER[id.direction]);
  return bytes;
}

/*
 * struct xfrm_user_tmpl {           // 64
 *   struct xfrm_id id;              //  0  (daddr 0, spi 16, proto 20)
 *   __u16 family;                   // 24
 *   xfrm_address_t saddr;           // 28
 *   __u32 reqid;                    // 44
 *   __u8 mode, share, optional;     // 48, 49, 50
 *   __u32 aalgos, ealgos, calgos;   // 52, 56, 60
 * };
 */
export function composeTemplate(template: {
  source: Uint8Array;
  destination: Uint8Array;
  reqid: number;
  mode: Mode;
  spi?: number;
  optional?: boolean;
}): Uint8Array {
  const bytes = new Uint8Array(SIZE.template);
  const view = viewOf(bytes);
  bytes.set(template.destination);
  view.setUint32(16, template.spi ?? 0, false);
  view.setUint8(20, IPPROTO_ESP);
  view.setUint16(24, familyNumber(template.destination), true);
  bytes.set(template.source, 28);
  view.setUint32(44, template.reqid, true);
  view.setUint8(48, MODE_NUMBER[template.mode]);
  view.setUint8(50, template.optional ? 1 : 0);
  for (const at of [52, 56, 60]) view.setUint32(at, ALL_ALGORITHMS, true);
  return bytes;
}

/** All templates of an XFRMA_TMPL attribute; undefined when one of them cannot be read. */
export function parseTemplates(bytes: Uint8Array) {
  if (bytes.length % SIZE.template !== 0) return undefined;
  const templates = [];
  for (let at = 0; at < bytes.length; at += SIZE.template) {
    const view = viewOf(bytes);
    const family = view.getUint16(at + 24, true);
    const destination = readAddress(bytes, at, family);
    const source = readAddress(bytes, at + 28, family);
    if (!destination || !source) return undefined;
    templates.push({
      source,
      destination,
      reqid: view.getUint32(at + 44, true),
      mode: modeOf(view.getUint8(at + 48)),
      spi: view.getUint32(at + 16, false),
      optional: view.getUint8(at + 50) !== 0,
    });
  }
  return templates;
}

/* struct xfrm_encap_tmpl { __u16 encap_type; __be16 encap_sport, encap_dport; xfrm_address_t encap_oa; }; // 0 2 4 8 */
export function composeEncapsulation(sourcePort: number, destinationPort: number): Uint8Array {
  const bytes = new Uint8Array(SIZE.encapsulation);
  const view = viewOf(bytes);
  view.setUint16(0, UDP_ENCAP_ESPINUDP, true);
  view.setUint16(2, sourcePort, false);
  view.setUint16(4, destinationPort, false);
  return bytes;
}

export function parseEncapsulation(bytes: Uint8Array) {
  if (bytes.length < SIZE.encapsulation) return undefined;
  const view = viewOf(bytes);
  return { sourcePort: view.getUint16(2, false), destinationPort: view.getUint16(4, false) };
}

/*
 * struct xfrm_algo      { char alg_name[64]; unsigned int alg_key_len; char alg_key[]; };                     // 68
 * struct xfrm_algo_auth { char alg_name[64]; unsigned int alg_key_len; unsigned int alg_trunc_len; … };       // 72
 * struct xfrm_algo_aead { char alg_name[64]; unsigned int alg_key_len; unsigned int alg_icv_len; … };         // 72
 * Lengths in bits; an AEAD key includes its salt.
 */
export function composeAlgorithm(name: string, key: Uint8Array, icvBits?: number): Uint8Array {
  const header = icvBits === undefined ? SIZE.algorithm : SIZE.algorithmAead;
  const bytes = new Uint8Array(header + key.length);
  const view = viewOf(bytes);
  bytes.set(Buffer.from(name, 'latin1'));
  view.setUint32(64, key.length * 8, true);
  if (icvBits !== undefined) view.setUint32(68, icvBits, true);
  bytes.set(key, header);
  return bytes;
}

export function parseAlgorithmName(bytes: Uint8Array): string | undefined {
  if (bytes.length < SIZE.algorithm) return undefined;
  const end = bytes.indexOf(0);
  return end < 0 || end >= 64 ? undefined : Buffer.from(bytes.subarray(0, end)).toString('latin1');
}

/*
 * struct xfrm_replay_state_esn { unsigned int bmp_len; __u32 oseq, seq, oseq_hi, seq_hi, replay_window; __u32 bmp[]; };
 * A new SA's bitmap may be left out: the kernel makes an empty one of bmp_len words.
 */
export function composeReplayEsn(replayWindow: number): Uint8Array {
  const bytes = new Uint8Array(SIZE.replayEsn);
  const view = viewOf(bytes);
  view.setUint32(0, Math.ceil(replayWindow / 32), true);
  view.setUint32(20, replayWindow, true);
  return bytes;
}

export function parseReplayEsnWindow(bytes: Uint8Array): number | undefined {
  return bytes.length < SIZE.replayEsn ? undefined : viewOf(bytes).getUint32(20, true);
}
