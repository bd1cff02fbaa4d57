/** What the kernel tells: ACQUIRE, EXPIRE, POLEXPIRE, MAPPING, and what others did to SAs and policies, decoded. */
import { constants } from 'node:os';
import { KernelError } from './error.ts';
import { native } from './native/binding.ts';
import { NETLINK_XFRM, type NetlinkMessage, openNetlink, parseAttributes, parseMessages } from './netlink.ts';
import {
  XFRM_MSG_ACQUIRE,
  XFRM_MSG_DELPOLICY,
  XFRM_MSG_DELSA,
  XFRM_MSG_EXPIRE,
  XFRM_MSG_FLUSHPOLICY,
  XFRM_MSG_FLUSHSA,
  XFRM_MSG_MAPPING,
  XFRM_MSG_NEWPOLICY,
  XFRM_MSG_NEWSA,
  XFRM_MSG_POLEXPIRE,
  XFRM_MSG_UPDPOLICY,
  XFRM_MSG_UPDSA,
  XFRMA_POLICY,
  XFRMA_TMPL,
} from './xfrm-messages.ts';
import {
  parsePolicyInfo,
  parseSaId,
  parseSaInfo,
  parseTemplates,
  readFamilyAddress,
  readSelector,
  SIZE,
  viewOf,
} from './xfrm-structs.ts';
import type { Direction, Mode, Selector } from './xfrm-types.ts';

export type KernelEvent =
  /** A packet met a policy whose SA is missing. `selector` is the packet's own flow. */
  | {
      kind: 'acquire';
      source: Uint8Array;
      destination: Uint8Array;
      selector?: Selector;
      policyIndex: number;
      reqid: number;
      mode: Mode | 'other';
      /** Names the kernel's place holder (`Xfrm.removeLarval`). */
      sequence: number;
    }
  /** An SA met its soft limit, or its hard one and is gone. Place holders of unanswered ACQUIREs expire with SPI 0. */
  | {
      kind: 'expire';
      spi: number;
      source: Uint8Array;
      destination: Uint8Array;
      protocol: number;
      reqid: number;
      hard: boolean;
    }
  | { kind: 'policyExpire'; index: number; direction: Direction; selector: Selector; hard: boolean }
  /** A peer behind a NAT sends from a new address or port. */
  | {
      kind: 'mapping';
      spi: number;
      destination: Uint8Array;
      reqid: number;
      oldSource: Uint8Array;
      newSource: Uint8Array;
      oldPort: number;
      newPort: number;
    }
  /** Somebody else removed or replaced an SA. */
  | { kind: 'saChanged'; spi: number; destination: Uint8Array; protocol: number }
  /** Somebody else removed or replaced a policy. */
  | { kind: 'policyChanged'; index: number; direction: Direction }
  /** Somebody else removed all SAs, or all policies: compare with a dump. */
  | { kind: 'flushed'; what: 'sas' | 'policies' }
  /** Events were lost (ENOBUFS): compare with a dump. */
  | { kind: 'overflow' };

export type Events = {
  /** Messages dropped because they could not be read. */
  readonly dropped: number;
  close(): void;
};

const XFRMNLGRP_ACQUIRE = 1;
const XFRMNLGRP_EXPIRE = 2;
const XFRMNLGRP_SA = 3;
const XFRMNLGRP_POLICY = 4;
const XFRMNLGRP_MAPPING = 8;
const RECEIVE_SIZE = 32 * 1024;
/** The kernel's default holds 201 events; this some ten thousand. */
const DEFAULT_BUFFER_OCTETS = 8 * 1024 * 1024;
/** Datagrams read in one turn, so that a flood of events does not keep DNS waiting. */
const READS_PER_TURN = 256;

/** What there is nothing to say of: what somebody adds takes nothing from us. */
const ADDED = new Set([XFRM_MSG_NEWSA, XFRM_MSG_NEWPOLICY]);

/**
 * Listens until closed, and keeps the process alive as long. Throws KernelError where it cannot.
 *
 * `own`: port ids of our sockets (`Xfrm.portId`), whose requests are not told of.
 */
export function openEvents(
  handler: (event: KernelEvent) => void,
  {
    own = [],
    receiveBufferOctets = DEFAULT_BUFFER_OCTETS,
  }: { own?: readonly number[]; receiveBufferOctets?: number } = {},
): Events {
  const calls = native();
  const groups = [XFRMNLGRP_ACQUIRE, XFRMNLGRP_EXPIRE, XFRMNLGRP_SA, XFRMNLGRP_POLICY, XFRMNLGRP_MAPPING];
  const mask = groups.reduce((bits, group) => bits | (1 << (group - 1)), 0);
  const fd = openNetlink(calls, NETLINK_XFRM, mask, receiveBufferOctets);
  const into = new Uint8Array(RECEIVE_SIZE);
  let dropped = 0;
  let closed = false;

  const read = () => {
    for (let i = 0; i < READS_PER_TURN && !closed; i++) {
      const length = calls.receiveNetlink(fd, into);
      if (length === -constants.errno.EAGAIN) return;
      if (length === -constants.errno.ENOBUFS) handler({ kind: 'overflow' });
      else if (length < 0 || length > RECEIVE_SIZE) dropped++;
      else {
        const { messages, malformed } = parseMessages(into.subarray(0, length));
        dropped += malformed;
        for (const message of messages) {
          if (ADDED.has(message.type) || own.includes(message.portId)) continue;
          const event = parseEvent(message);
          if (event) handler(event);
          else dropped++;
        }
      }
    }
  };

  const started = calls.pollStart(fd, read);
  if (started < 0) {
    calls.close(fd);
    throw new KernelError('poll(AF_NETLINK)', -started);
  }
  return {
    get dropped() {
      return dropped;
    },
    close() {
      if (closed) return;
      closed = true;
      calls.close(fd);
    },
  };
}

/** One event; undefined for a message of another type or one that cannot be read. Addresses are copies. */
export function parseEvent(message: NetlinkMessage): KernelEvent | undefined {
  switch (message.type) {
    case XFRM_MSG_ACQUIRE:
      return parseAcquire(message.payload);
    case XFRM_MSG_EXPIRE:
      return parseExpire(message.payload);
    case XFRM_MSG_POLEXPIRE:
      return parsePolicyExpire(message.payload);
    case XFRM_MSG_MAPPING:
      return parseMapping(message.payload);
    case XFRM_MSG_DELSA:
    case XFRM_MSG_UPDSA:
      return parseSaChange(message);
    case XFRM_MSG_DELPOLICY:
    case XFRM_MSG_UPDPOLICY:
      return parsePolicyChange(message);
    case XFRM_MSG_FLUSHSA:
      return { kind: 'flushed', what: 'sas' };
    case XFRM_MSG_FLUSHPOLICY:
      return { kind: 'flushed', what: 'policies' };
    default:
      return undefined;
  }
}

/*
 * struct xfrm_user_acquire {              // 280
 *   struct xfrm_id id;                    //   0
 *   xfrm_address_t saddr;                 //  24
 *   struct xfrm_selector sel;             //  40
 *   struct xfrm_userpolicy_info policy;   //  96
 *   __u32 aalgos, ealgos, calgos;         // 264
 *   __u32 seq;                            // 276
 * };                                      // and XFRMA_TMPL
 */
function parseAcquire(payload: Uint8Array): KernelEvent | undefined {
  if (payload.length < SIZE.acquire) return undefined;
  const view = viewOf(payload);
  const policy = parsePolicyInfo(payload, 96);
  const list = parseAttributes(payload, SIZE.acquire)?.get(XFRMA_TMPL);
  const template = list && parseTemplates(list)?.[0];
  if (!policy || !template) return undefined;
  const family = view.getUint16(40 + 40, true);
  const source = readFamilyAddress(payload, 24, family);
  const destination = readFamilyAddress(payload, 0, family);
  if (!source || !destination) return undefined;
  const selector = readSelector(payload, 40);
  return {
    kind: 'acquire',
    source,
    destination,
    ...(selector && { selector }),
    policyIndex: policy.index,
    reqid: template.reqid,
    mode: template.mode,
    sequence: view.getUint32(276, true),
  };
}

/* struct xfrm_user_expire { struct xfrm_usersa_info state; __u8 hard; };             // 232: 0, 224 */
function parseExpire(payload: Uint8Array): KernelEvent | undefined {
  if (payload.length < SIZE.expire) return undefined;
  const info = parseSaInfo(payload);
  if (!info) return undefined;
  const { spi, source, destination, protocol, reqid } = info;
  return { kind: 'expire', spi, source, destination, protocol, reqid, hard: payload[224] !== 0 };
}

/* struct xfrm_user_polexpire { struct xfrm_userpolicy_info pol; __u8 hard; };        // 176: 0, 168 */
function parsePolicyExpire(payload: Uint8Array): KernelEvent | undefined {
  if (payload.length < SIZE.policyExpire) return undefined;
  const policy = parsePolicyInfo(payload);
  if (!policy) return undefined;
  const { index, direction, selector } = policy;
  return { kind: 'policyExpire', index, direction, selector, hard: payload[168] !== 0 };
}

/*
 * struct xfrm_user_mapping {              // 64
 *   struct xfrm_usersa_id id;             //  0
 *   __u32 reqid;                          // 24
 *   xfrm_address_t old_saddr, new_saddr;  // 28, 44
 *   __be16 old_sport, new_sport;          // 60, 62
 * };
 */
function parseMapping(payload: Uint8Array): KernelEvent | undefined {
  if (payload.length < SIZE.mapping) return undefined;
  const view = viewOf(payload);
  const id = parseSaId(payload, 0);
  const oldSource = id && readFamilyAddress(payload, 28, id.family);
  const newSource = id && readFamilyAddress(payload, 44, id.family);
  if (!id || !oldSource || !newSource) return undefined;
  return {
    kind: 'mapping',
    spi: id.spi,
    destination: id.destination,
    reqid: view.getUint32(24, true),
    oldSource,
    newSource,
    oldPort: view.getUint16(60, false),
    newPort: view.getUint16(62, false),
  };
}

/* XFRM_MSG_DELSA: struct xfrm_usersa_id, XFRM_MSG_UPDSA: struct xfrm_usersa_info; and attributes. */
function parseSaChange({ type, payload }: NetlinkMessage): KernelEvent | undefined {
  if (payload.length < (type === XFRM_MSG_DELSA ? SIZE.saId : SIZE.saInfo)) return undefined;
  const sa = type === XFRM_MSG_DELSA ? parseSaId(payload, 0) : parseSaInfo(payload);
  if (!sa) return undefined;
  const { spi, destination, protocol } = sa;
  return { kind: 'saChanged', spi, destination, protocol };
}

/* XFRM_MSG_DELPOLICY: struct xfrm_userpolicy_id and XFRMA_POLICY, XFRM_MSG_UPDPOLICY: struct xfrm_userpolicy_info. */
function parsePolicyChange({ type, payload }: NetlinkMessage): KernelEvent | undefined {
  const info =
    type === XFRM_MSG_DELPOLICY ? parseAttributes(payload, SIZE.policyId)?.get(XFRMA_POLICY) : payload;
  const policy = info && parsePolicyInfo(info);
  return policy && { kind: 'policyChanged', index: policy.index, direction: policy.direction };
}
