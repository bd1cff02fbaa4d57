/** What the kernel tells of links, addresses and default routes as they change (rtnetlink(7)), decoded. */
import { constants } from 'node:os';
import { KernelError } from './error.ts';
import { native } from './native/binding.ts';
import { type NetlinkMessage, openNetlink, parseAttributes, parseMessages } from './netlink.ts';

export type LinkEvent =
  /** `running`: it has a carrier and can pass packets. A removed link is one that does not run. */
  | { kind: 'link'; index: number; running: boolean }
  /** An address of ours, 4 or 16 bytes; told again whenever its lifetime is renewed. */
  | { kind: 'address'; index: number; address: Uint8Array; present: boolean }
  /** A default route; other routes lead to no other network. `gateway` is missing on point-to-point links. */
  | { kind: 'defaultRoute'; index: number; gateway?: Uint8Array; present: boolean }
  /** Events were lost (ENOBUFS): anything may have changed. */
  | { kind: 'overflow' };

export type LinkEvents = {
  /** Messages dropped because they could not be read. */
  readonly dropped: number;
  close(): void;
};

const NETLINK_ROUTE = 0;
const RTM_NEWLINK = 16;
const RTM_DELLINK = 17;
const RTM_NEWADDR = 20;
const RTM_DELADDR = 21;
const RTM_NEWROUTE = 24;
const RTM_DELROUTE = 25;
const RTMGRP_LINK = 0x1;
const RTMGRP_IPV4_IFADDR = 0x10;
const RTMGRP_IPV4_ROUTE = 0x40;
const RTMGRP_IPV6_IFADDR = 0x100;
const RTMGRP_IPV6_ROUTE = 0x400;
const GROUPS = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE;
const IFF_RUNNING = 0x40;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RT_TABLE_MAIN = 254;
const SIZE = { ifinfomsg: 16, ifaddrmsg: 8, rtmsg: 12 } as const;
/** A link message carries statistics and more; the kernel sends none longer than a page or two. */
const RECEIVE_SIZE = 32 * 1024;
/** Datagrams read in one turn, so that a host that makes thousands of links does not keep DNS waiting. */
const READS_PER_TURN = 64;

/** Listens until closed, and keeps the process alive as long. Throws KernelError where it cannot. */
export function openLinkEvents(handler: (event: LinkEvent) => void): LinkEvents {
  const calls = native();
  const fd = openNetlink(calls, NETLINK_ROUTE, GROUPS);
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
          const event = parseLinkEvent(message);
          if (event === 'unreadable') dropped++;
          else if (event !== undefined) handler(event);
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

/** One event, addresses copied; undefined for what is not of interest, such as a route to a single network. */
export function parseLinkEvent(message: NetlinkMessage): LinkEvent | 'unreadable' | undefined {
  const { type, payload } = message;
  switch (type) {
    case RTM_NEWLINK:
    case RTM_DELLINK:
      return parseLink(payload, type === RTM_NEWLINK);
    case RTM_NEWADDR:
    case RTM_DELADDR:
      return parseAddress(payload, type === RTM_NEWADDR);
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
      return parseRoute(payload, type === RTM_NEWROUTE);
    default:
      return undefined;
  }
}

/* struct ifinfomsg { u8 family, pad; u16 type; int index; unsigned flags; unsigned change; };     // 16: 0, 2, 4, 8, 12 */
function parseLink(payload: Uint8Array, present: boolean): LinkEvent | 'unreadable' {
  if (payload.length < SIZE.ifinfomsg) return 'unreadable';
  const view = viewOf(payload);
  const running = present && (view.getUint32(8, true) & IFF_RUNNING) !== 0;
  return { kind: 'link', index: view.getInt32(4, true), running };
}

/* struct ifaddrmsg { u8 family, prefixlen, flags, scope; u32 index; };                             // 8: 0, 1, 2, 3, 4 */
function parseAddress(payload: Uint8Array, present: boolean): LinkEvent | 'unreadable' {
  if (payload.length < SIZE.ifaddrmsg) return 'unreadable';
  const attributes = parseAttributes(payload, SIZE.ifaddrmsg);
  // On a point-to-point link IFA_ADDRESS is the other end; IPv6 has no IFA_LOCAL otherwise.
  const address = attributes?.get(IFA_LOCAL) ?? attributes?.get(IFA_ADDRESS);
  if (address?.length !== 4 && address?.length !== 16) return 'unreadable';
  return { kind: 'address', index: viewOf(payload).getUint32(4, true), address: address.slice(), present };
}

/*
 * struct rtmsg { u8 family, dst_len, src_len, tos, table, protocol, scope, type; u32 flags; };     // 12
 *                       0        1        2    3      4         5      6     7          8
 */
function parseRoute(payload: Uint8Array, present: boolean): LinkEvent | 'unreadable' | undefined {
  if (payload.length < SIZE.rtmsg) return 'unreadable';
  if (payload[1] !== 0 || payload[4] !== RT_TABLE_MAIN) return undefined;
  const attributes = parseAttributes(payload, SIZE.rtmsg);
  if (attributes === undefined) return 'unreadable';
  const out = attributes.get(RTA_OIF);
  const gateway = attributes.get(RTA_GATEWAY)?.slice();
  const index = out?.length === 4 ? viewOf(out).getUint32(0, true) : 0;
  return { kind: 'defaultRoute', index, present, ...(gateway && { gateway }) };
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
