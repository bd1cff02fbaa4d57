/** Netlink: messages, attributes, and a socket for synchronous requests (linux/netlink.h). */
import { constants } from 'node:os';
import { accepted, KernelError } from './error.ts';
import { type Native, native } from './native/binding.ts';

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOL_SOCKET = 1;
const SO_RCVBUF = 8;
const SO_RCVBUFFORCE = 33;
const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;

export const NETLINK_XFRM = 6;

const NLM_F_REQUEST = 0x01;
const NLM_F_ACK = 0x04;
const NLM_F_DUMP_INTR = 0x10;
export const NLM_F_CAPPED = 0x100;
export const NLM_F_ACK_TLVS = 0x200;
export const NLM_F_EXCL = 0x200;
const NLM_F_DUMP = 0x300;
export const NLM_F_CREATE = 0x400;

export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;
const NLMSG_OVERRUN = 4;
const NLMSGERR_ATTR_MSG = 1;

const HEADER_SIZE = 16;
const ATTRIBUTE_HEADER_SIZE = 4;
/** Large enough for any datagram of a dump: the kernel sizes them by the reader's buffer, 32 KiB at most. */
const RECEIVE_SIZE = 64 * 1024;
const DUMP_TRIES = 5;

export type Attribute = { type: number; value: Uint8Array };

/** `portId`: the socket whose request this answers or tells of; 0 where the kernel acted by itself. */
export type NetlinkMessage = {
  type: number;
  flags: number;
  sequence: number;
  portId: number;
  payload: Uint8Array;
};

/** A request socket: each verb is answered before it returns, because the kernel works through a request in send(2). */
export class NetlinkSocket {
  readonly #native: Native;
  readonly #fd: number;
  readonly #into = new Uint8Array(RECEIVE_SIZE);
  /** Every request names it, so that what the kernel tells everybody of it can be told from what others did. */
  readonly portId: number;
  #sequence = 0;
  #closed = false;
  /** Datagrams and messages dropped: from a process instead of the kernel, too long, malformed, or of an older request. */
  dropped = 0;

  constructor(protocol: number, groups = 0) {
    this.#native = native();
    this.#fd = openNetlink(this.#native, protocol, groups);
    const address = new Uint8Array(12);
    accepted('getsockname(AF_NETLINK)', this.#native.getsockname(this.#fd, address));
    this.portId = viewOf(address).getUint32(4, true);
  }

  /** Sends one request and waits for its acknowledgement; the answer's message where the verb has one. */
  request(verb: string, type: number, flags: number, body: Uint8Array): NetlinkMessage | undefined {
    const sequence = this.#send(verb, type, flags | NLM_F_REQUEST | NLM_F_ACK, body);
    let answer: NetlinkMessage | undefined;
    for (;;) {
      for (const message of this.#receive(verb, sequence)) {
        if (message.type === NLMSG_ERROR) {
          this.#throwRefusal(verb, message);
          return answer;
        }
        answer = message;
      }
    }
  }

  /** Sends a dump request; again when the table changed under it (NLM_F_DUMP_INTR), EINTR when it never holds still. */
  dump(verb: string, type: number, body: Uint8Array): NetlinkMessage[] {
    for (let tries = 0; tries < DUMP_TRIES; tries++) {
      const messages = this.#dumpOnce(verb, type, body);
      if (messages) return messages;
    }
    throw new KernelError(verb, constants.errno.EINTR, 'the table kept changing during the dump');
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#native.close(this.#fd);
  }

  #dumpOnce(verb: string, type: number, body: Uint8Array): NetlinkMessage[] | undefined {
    const sequence = this.#send(verb, type, NLM_F_REQUEST | NLM_F_DUMP, body);
    const messages: NetlinkMessage[] = [];
    let interrupted = false;
    for (;;) {
      for (const message of this.#receive(verb, sequence)) {
        if ((message.flags & NLM_F_DUMP_INTR) !== 0) interrupted = true;
        if (message.type === NLMSG_ERROR || message.type === NLMSG_DONE) {
          this.#throwRefusal(verb, message);
          return interrupted ? undefined : messages;
        }
        messages.push(message);
      }
    }
  }

  #send(verb: string, type: number, flags: number, body: Uint8Array): number {
    if (this.#closed) throw new KernelError(verb, constants.errno.EBADF, 'the netlink socket is closed');
    this.#sequence = (this.#sequence + 1) >>> 0;
    const message = composeMessage(type, flags, this.#sequence, body, this.portId);
    accepted(verb, this.#native.send(this.#fd, message));
    return this.#sequence;
  }

  /** One datagram's messages of this request; throws when there is nothing to read, which ends the request. */
  #receive(verb: string, sequence: number): NetlinkMessage[] {
    const length = this.#native.receiveNetlink(this.#fd, this.#into);
    if (length === -constants.errno.EBADMSG || length > RECEIVE_SIZE) {
      this.dropped++;
      return [];
    }
    accepted(verb, length);
    // A copy: what the messages refer to has to outlive the next datagram.
    const { messages, malformed } = parseMessages(this.#into.slice(0, length));
    const current = messages.filter(message => message.sequence === sequence);
    this.dropped += malformed + messages.length - current.length;
    return current;
  }

  #throwRefusal(verb: string, message: NetlinkMessage): void {
    const refusal = parseError(message);
    if (!refusal) {
      this.dropped++;
      throw new KernelError(verb, constants.errno.EBADMSG, 'the acknowledgement is malformed');
    }
    if (refusal.errno !== 0) throw new KernelError(verb, refusal.errno, refusal.extack);
  }
}

/** Opens and binds a netlink socket; `groups` is a bit mask (group n is bit n - 1). */
export function openNetlink(calls: Native, protocol: number, groups: number, receiveBuffer?: number): number {
  const fd = accepted('socket(AF_NETLINK)', calls.socket(AF_NETLINK, SOCK_RAW, protocol));
  const address = new Uint8Array(12);
  const view = new DataView(address.buffer);
  view.setUint16(0, AF_NETLINK, true);
  view.setUint32(8, groups, true);
  calls.setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, 1);
  calls.setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);
  if (receiveBuffer !== undefined && calls.setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, receiveBuffer) < 0) {
    calls.setsockopt(fd, SOL_SOCKET, SO_RCVBUF, receiveBuffer);
  }
  const bound = calls.bind(fd, address);
  if (bound < 0) {
    calls.close(fd);
    throw new KernelError('bind(AF_NETLINK)', -bound);
  }
  return fd;
}

/** struct nlmsghdr { u32 len; u16 type; u16 flags; u32 seq; u32 pid; } and the body, padded to 4. */
export function composeMessage(
  type: number,
  flags: number,
  sequence: number,
  body: Uint8Array,
  portId = 0,
): Uint8Array {
  const length = HEADER_SIZE + body.length;
  const message = new Uint8Array(aligned(length));
  const view = new DataView(message.buffer);
  view.setUint32(0, length, true);
  view.setUint16(4, type, true);
  view.setUint16(6, flags, true);
  view.setUint32(8, sequence, true);
  view.setUint32(12, portId, true);
  message.set(body, HEADER_SIZE);
  return message;
}

/** A fixed structure followed by attributes: struct nlattr { u16 len (without padding); u16 type; }, each 4-aligned. */
export function composeBody(structure: Uint8Array, attributes: Attribute[]): Uint8Array {
  let length = aligned(structure.length);
  for (const attribute of attributes) length += aligned(ATTRIBUTE_HEADER_SIZE + attribute.value.length);
  const body = new Uint8Array(length);
  const view = new DataView(body.buffer);
  body.set(structure);
  let at = aligned(structure.length);
  for (const { type, value } of attributes) {
    view.setUint16(at, ATTRIBUTE_HEADER_SIZE + value.length, true);
    view.setUint16(at + 2, type, true);
    body.set(value, at + ATTRIBUTE_HEADER_SIZE);
    at += aligned(ATTRIBUTE_HEADER_SIZE + value.length);
  }
  return body;
}

/** The messages of one datagram; what does not fit its own length ends the parse and counts as one malformed. */
export function parseMessages(datagram: Uint8Array): { messages: NetlinkMessage[]; malformed: number } {
  const messages: NetlinkMessage[] = [];
  const view = viewOf(datagram);
  let at = 0;
  while (at < datagram.length) {
    const left = datagram.length - at;
    const length = left < HEADER_SIZE ? 0 : view.getUint32(at, true);
    if (length < HEADER_SIZE || length > left) return { messages, malformed: 1 };
    const type = view.getUint16(at + 4, true);
    if (type > NLMSG_OVERRUN || type === NLMSG_ERROR || type === NLMSG_DONE) {
      messages.push({
        type,
        flags: view.getUint16(at + 6, true),
        sequence: view.getUint32(at + 8, true),
        portId: view.getUint32(at + 12, true),
        payload: datagram.subarray(at + HEADER_SIZE, at + length),
      });
    }
    at += aligned(length);
  }
  return { messages, malformed: 0 };
}

/** The attributes from `offset` on, the last of a type winning; undefined when a length lies. */
export function parseAttributes(payload: Uint8Array, offset: number): Map<number, Uint8Array> | undefined {
  const attributes = new Map<number, Uint8Array>();
  const view = viewOf(payload);
  let at = aligned(offset);
  while (payload.length - at >= ATTRIBUTE_HEADER_SIZE) {
    const length = view.getUint16(at, true);
    if (length < ATTRIBUTE_HEADER_SIZE || length > payload.length - at) return undefined;
    const type = view.getUint16(at + 2, true) & 0x3fff; // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
    attributes.set(type, payload.subarray(at + ATTRIBUTE_HEADER_SIZE, at + length));
    at += aligned(length);
  }
  return attributes;
}

/**
 * NLMSG_ERROR and NLMSG_DONE: the errno (0: accepted) and the kernel's text.
 *
 * struct nlmsgerr { int error; struct nlmsghdr msg; }, then the request's body unless NLM_F_CAPPED, then attributes
 * when NLM_F_ACK_TLVS. A NLMSG_DONE carries only the int.
 */
export function parseError(message: NetlinkMessage): { errno: number; extack?: string } | undefined {
  const { payload } = message;
  if (payload.length < 4) return message.type === NLMSG_DONE ? { errno: 0 } : undefined;
  const view = viewOf(payload);
  const errno = -view.getInt32(0, true);
  if (errno < 0) return undefined;
  if ((message.flags & NLM_F_ACK_TLVS) === 0) return { errno };
  let offset = 4;
  if (message.type === NLMSG_ERROR) {
    if (payload.length < 4 + HEADER_SIZE) return { errno };
    const echoed = (message.flags & NLM_F_CAPPED) !== 0 ? HEADER_SIZE : view.getUint32(4, true);
    if (echoed > payload.length) return { errno };
    offset = 4 + aligned(echoed);
  }
  const text = parseAttributes(payload, offset)?.get(NLMSGERR_ATTR_MSG);
  return text ? { errno, extack: printable(text) } : { errno };
}

function printable(text: Uint8Array): string {
  const end = text.indexOf(0);
  return Buffer.from(text.buffer, text.byteOffset, end < 0 ? text.length : end).toString('latin1');
}

function aligned(length: number): number {
  return (length + 3) & ~3;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
