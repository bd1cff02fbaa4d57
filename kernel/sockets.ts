/** UDP sockets that know their local address, can step round IPsec policies, and move datagrams in batches. */
import { accepted, errnoName } from './error.ts';
import { type Native, native, RECORD } from './native/binding.ts';
import { composePolicyInfo, viewOf } from './xfrm-structs.ts';
import type { Direction } from './xfrm-types.ts';

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_DGRAM = 2;
const SOL_IP = 0;
const SOL_SOCKET = 1;
const SOL_UDP = 17;
const SOL_IPV6 = 41;
const SO_REUSEADDR = 2;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SO_MARK = 36;
const IP_PKTINFO = 8;
const IP_XFRM_POLICY = 17;
const IPV6_V6ONLY = 26;
const IPV6_XFRM_POLICY = 35;
const IPV6_RECVPKTINFO = 49;
const UDP_ENCAP = 100;
const UDP_ENCAP_ESPINUDP = 2;

export type SocketAddress = { family: 4 | 6; bytes: Uint8Array };
export type SocketEndpoint = {
  address: SocketAddress;
  port: number;
  /** Interface index of a link-local IPv6 address. */
  scope?: number;
};

export type UdpOptions = {
  family: 4 | 6;
  /** 4 or 16 octets; absent: any. */
  address?: Uint8Array;
  /** 0 or absent: the kernel chooses one. */
  port?: number;
  /** Interface index of a link-local IPv6 address. */
  scope?: number;
  /** This socket's packets pass in clear both ways, whatever policy covers them (needs CAP_NET_ADMIN). */
  bypassPolicy?: boolean;
  /** The kernel takes ESP in UDP (RFC 3948) out of what comes in; IKE with its non-ESP marker still arrives. */
  udpEncap?: boolean;
  reuseAddress?: boolean;
  /** SO_MARK (needs CAP_NET_ADMIN). */
  mark?: number;
  receiveBufferOctets?: number;
  sendBufferOctets?: number;
  /** Longer datagrams are dropped and counted. Default 65,535: nothing is too long. */
  maxDatagramOctets?: number;
  /** Datagrams per receiveBatch and system call, 1 to 64. Default 16. */
  batch?: number;
  /** Called while something waits; it has to call `receive` or `receiveBatch`. Keeps the process alive until close. */
  onReadable?: (socket: UdpSocket) => void;
};

export type Datagram = {
  /** A copy: it may be kept. */
  data: Uint8Array;
  remote: SocketEndpoint;
  /** The address it was sent to, and our port. */
  local: SocketEndpoint;
};

export type OutgoingDatagram = { data: Uint8Array; remote: SocketEndpoint; local?: SocketAddress };

/** Opens and binds a socket, IPv6 ones for IPv6 only; a refusal throws KernelError that names the step. */
export function openUdp(options: UdpOptions): UdpSocket {
  const calls = native();
  const fd = accepted('socket', calls.socket(options.family === 4 ? AF_INET : AF_INET6, SOCK_DGRAM, 0));
  try {
    prepare(calls, fd, options);
    return new UdpSocket(calls, fd, options);
  } catch (error) {
    calls.close(fd);
    throw error;
  }
}

export class UdpSocket {
  readonly family: 4 | 6;
  readonly port: number;
  /** Datagrams dropped: longer than `maxDatagramOctets`; and errors the kernel reported on receiving and sending. */
  readonly counters = { received: 0, sent: 0, tooLong: 0, receiveErrors: 0, sendErrors: 0 };
  readonly #native: Native;
  readonly #fd: number;
  readonly #bound: Uint8Array;
  readonly #wildcard: boolean;
  readonly #records: Uint8Array;
  readonly #view: DataView;
  /** 1 for each datagram of the batch that has its answer in its place. */
  readonly #answered = new Uint8Array(RECORD.batchLimit);
  #received = 0;
  /** Where `receive` puts datagrams: number i from `i * slotOctets` on. */
  readonly payload: Uint8Array;
  readonly slotOctets: number;
  readonly #sendRecord = new Uint8Array(RECORD.size);
  readonly #sendView = viewOf(this.#sendRecord);
  #batch: SendBatch | undefined;
  #closed = false;

  /** Use `openUdp`. */
  constructor(calls: Native, fd: number, options: UdpOptions) {
    this.#native = calls;
    this.#fd = fd;
    this.family = options.family;
    const count = Math.min(Math.max(options.batch ?? 16, 1), RECORD.batchLimit);
    this.slotOctets = options.maxDatagramOctets ?? 65_535;
    this.payload = uninitialised(this.slotOctets * count);
    this.#records = new Uint8Array(RECORD.size * count);
    this.#view = viewOf(this.#records);
    const name = new Uint8Array(28);
    accepted('getsockname', calls.getsockname(fd, name));
    this.port = viewOf(name).getUint16(2, false);
    this.#bound = options.family === 4 ? name.slice(4, 8) : name.slice(8, 24);
    this.#wildcard = this.#bound.every(octet => octet === 0);
    const { onReadable } = options;
    if (onReadable)
      accepted(
        'poll',
        calls.pollStart(fd, () => onReadable(this)),
      );
  }

  /**
   * Reads what has arrived into `payload`, at most one batch, and returns how many datagrams that are.
   *
   * Nothing is allocated. What a batch holds is good until the next; each may be answered in place (`answer`), and the
   * answers leave with `flush`, from the address that was asked.
   */
  receive(): number {
    this.#received = 0;
    if (this.#closed) return 0;
    const got = this.#native.receiveMessages(this.#fd, this.payload, this.slotOctets, this.#records);
    if (got < 0) {
      if (errnoName(-got) !== 'EAGAIN') this.counters.receiveErrors++;
      return 0;
    }
    this.#received = got;
    this.#answered.fill(0);
    for (let i = 0; i < got; i++) {
      if ((this.#view.getUint32(i * RECORD.size + RECORD.flags, true) & RECORD.truncated) === 0) {
        this.counters.received++;
        continue;
      }
      this.counters.tooLong++;
      this.#view.setUint32(i * RECORD.size + RECORD.length, 0, true);
    }
    return got;
  }

  /** Octets of datagram `i`; 0 also for one that was too long. */
  lengthOf(i: number): number {
    return this.#view.getUint32(i * RECORD.size + RECORD.length, true);
  }

  portOf(i: number): number {
    return this.#view.getUint16(i * RECORD.size + RECORD.port, true);
  }

  /** Interface index of a link-local sender, otherwise 0. */
  scopeOf(i: number): number {
    return this.#view.getUint32(i * RECORD.size + RECORD.scope, true);
  }

  /** Holds the senders' addresses: 4 or 16 octets, of datagram `i` from `senderAt(i)` on. */
  get senders(): Uint8Array {
    return this.#records;
  }

  senderAt(i: number): number {
    return i * RECORD.size + RECORD.remote;
  }

  /** The first `octets` of datagram i's place are its answer. */
  answer(i: number, octets: number): void {
    this.#view.setUint32(i * RECORD.size + RECORD.length, octets, true);
    this.#view.setUint32(i * RECORD.size + RECORD.flags, this.#wildcard ? RECORD.hasLocal : 0, true);
    this.#answered[i] = 1;
  }

  /** Sends the answers of this batch; those that the kernel does not take are left out and counted. */
  flush(): void {
    if (this.#closed) return;
    for (let first = 0; first < this.#received; first++) {
      if (this.#answered[first] === 0) continue;
      let end = first + 1;
      while (end < this.#received && this.#answered[end] === 1) end++;
      this.counters.sent += this.#sendRun(this.payload, this.slotOctets, this.#records, first, end);
      first = end;
    }
    this.#received = 0;
  }

  /** A copy of who sent datagram `i`, and to which address of ours: for `sendBack` later. */
  envelopeOf(i: number): Uint8Array {
    return this.#records.slice(i * RECORD.size, (i + 1) * RECORD.size);
  }

  /** Sends an answer to whom the envelope names; false when the kernel did not take it. */
  sendBack(envelope: Uint8Array, data: Uint8Array): boolean {
    if (this.#closed) return false;
    this.#sendRecord.set(envelope);
    this.#sendView.setUint32(RECORD.length, data.length, true);
    this.#sendView.setUint32(RECORD.flags, this.#wildcard ? RECORD.hasLocal : 0, true);
    const sent = this.#native.sendMessages(this.#fd, data, data.length, this.#sendRecord, 0, 1);
    if (sent < 0) this.#notSent(errnoName(-sent));
    else this.counters.sent++;
    return sent > 0;
  }

  /** What has arrived, at most one batch; empty when nothing has. */
  receiveBatch(): Datagram[] {
    const got = this.receive();
    const datagrams: Datagram[] = [];
    for (let i = 0; i < got; i++) {
      const at = i * RECORD.size;
      if ((this.#view.getUint32(at + RECORD.flags, true) & RECORD.truncated) !== 0) continue;
      const start = i * this.slotOctets;
      const data = this.payload.slice(start, start + this.lengthOf(i));
      const scope = this.scopeOf(i);
      const remote: SocketEndpoint = {
        address: { family: this.family, bytes: this.#address(at + RECORD.remote) },
        port: this.portOf(i),
      };
      if (scope) remote.scope = scope;
      const local = {
        address: { family: this.family, bytes: this.#address(at + RECORD.local) },
        port: this.port,
      };
      datagrams.push({ data, remote, local });
    }
    return datagrams;
  }

  /** Sends one datagram, from `local` when given; the errno's name when the kernel did not take it. */
  send(data: Uint8Array, remote: SocketEndpoint, local?: SocketAddress): string | undefined {
    if (this.#closed) return 'EBADF';
    const refused = writeRecord(this.#sendRecord, this.#sendView, 0, this.family, data.length, remote, local);
    if (refused) return this.#notSent(refused);
    const sent = this.#native.sendMessages(this.#fd, data, data.length, this.#sendRecord, 0, 1);
    if (sent < 0) return this.#notSent(errnoName(-sent));
    this.counters.sent++;
    return undefined;
  }

  /** Sends many with few system calls; returns how many the kernel took. Those it refuses are left out and counted. */
  sendBatch(datagrams: OutgoingDatagram[]): number {
    if (this.#closed) return 0;
    let sent = 0;
    for (let at = 0; at < datagrams.length; at += RECORD.batchLimit) {
      sent += this.#sendSome(datagrams.slice(at, at + RECORD.batchLimit));
    }
    this.counters.sent += sent;
    return sent;
  }

  /** Where the socket is bound; all zero for any address. */
  get boundAddress(): SocketAddress {
    return { family: this.family, bytes: this.#bound };
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#native.close(this.#fd);
  }

  #sendSome(datagrams: OutgoingDatagram[]): number {
    const longest = datagrams.reduce((length, { data }) => Math.max(length, data.length), 1);
    if (!this.#batch || this.#batch.slot < longest) this.#batch = new SendBatch(longest);
    const batch = this.#batch;
    let count = 0;
    for (const { data, remote, local } of datagrams) {
      const refused = writeRecord(
        batch.records,
        batch.view,
        count * RECORD.size,
        this.family,
        data.length,
        remote,
        local,
      );
      if (refused) this.#notSent(refused);
      else batch.payload.set(data, batch.slot * count++);
    }
    return this.#sendRun(batch.payload, batch.slot, batch.records, 0, count);
  }

  /** Numbers `first` to `end` of what lies prepared; how many the kernel took. The others are counted. */
  #sendRun(payload: Uint8Array, slot: number, records: Uint8Array, first: number, end: number): number {
    let sent = 0;
    for (let at = first; at < end; ) {
      const taken = this.#native.sendMessages(this.#fd, payload, slot, records, at, end - at);
      if (taken > 0) sent += taken;
      else this.#notSent(errnoName(-taken));
      at += Math.max(taken, 1);
    }
    return sent;
  }

  #notSent(code: string): string {
    this.counters.sendErrors++;
    return code;
  }

  #address(at: number): Uint8Array {
    return this.#records.slice(at, at + (this.family === 4 ? 4 : 16));
  }
}

/** Room for one sendmmsg, as long in each slot as the longest datagram met so far (in steps of 1 KiB). */
class SendBatch {
  readonly slot: number;
  readonly payload: Uint8Array;
  readonly records = new Uint8Array(RECORD.size * RECORD.batchLimit);
  readonly view = viewOf(this.records);

  constructor(longest: number) {
    this.slot = Math.ceil(longest / 1024) * 1024;
    this.payload = uninitialised(this.slot * RECORD.batchLimit);
  }
}

function prepare(calls: Native, fd: number, options: UdpOptions): void {
  const set = (step: string, level: number, name: number, value: number | Uint8Array) =>
    accepted(step, calls.setsockopt(fd, level, name, value));
  if (options.family === 6) set('IPV6_V6ONLY', SOL_IPV6, IPV6_V6ONLY, 1);
  if (options.family === 4) set('IP_PKTINFO', SOL_IP, IP_PKTINFO, 1);
  else set('IPV6_RECVPKTINFO', SOL_IPV6, IPV6_RECVPKTINFO, 1);
  if (options.reuseAddress) set('SO_REUSEADDR', SOL_SOCKET, SO_REUSEADDR, 1);
  if (options.mark !== undefined) set('SO_MARK', SOL_SOCKET, SO_MARK, options.mark);
  const buffer = (step: string, forced: number, name: number, octets: number | undefined) => {
    if (octets === undefined || calls.setsockopt(fd, SOL_SOCKET, forced, octets) >= 0) return;
    set(step, SOL_SOCKET, name, octets);
  };
  buffer('SO_RCVBUF', SO_RCVBUFFORCE, SO_RCVBUF, options.receiveBufferOctets);
  buffer('SO_SNDBUF', SO_SNDBUFFORCE, SO_SNDBUF, options.sendBufferOctets);
  if (options.bypassPolicy) passInClear(calls, fd, options.family);
  if (options.udpEncap) set('UDP_ENCAP', SOL_UDP, UDP_ENCAP, UDP_ENCAP_ESPINUDP);
  const address = options.address ?? new Uint8Array(options.family === 4 ? 4 : 16);
  const at = sockaddr(options.family, address, options.port ?? 0, options.scope ?? 0);
  accepted('bind', calls.bind(fd, at));
}

/** Memory that the system hands out only where it is touched. A plain Uint8Array: its `slice` copies, a Buffer's does not. */
function uninitialised(octets: number): Uint8Array {
  return new Uint8Array(Buffer.allocUnsafeSlow(octets).buffer);
}

/** This socket's packets pass in clear both ways, whatever policy covers them. */
export function passInClear(calls: Native, fd: number, family: 4 | 6): void {
  const [level, name] = family === 4 ? [SOL_IP, IP_XFRM_POLICY] : [SOL_IPV6, IPV6_XFRM_POLICY];
  for (const direction of ['in', 'out'] as const) {
    const set = calls.setsockopt(fd, level, name, bypass(family, direction));
    accepted(`XFRM_POLICY bypass ${direction}`, set);
  }
}

/** A policy of the socket itself: allow all without templates. */
function bypass(family: 4 | 6, direction: Direction): Uint8Array {
  const any = new Uint8Array(family === 4 ? 4 : 16);
  const selector = { family, source: any, sourcePrefix: 0, destination: any, destinationPrefix: 0 };
  return composePolicyInfo({ selector, direction, action: 'allow', priority: 0 });
}

/*
 * struct sockaddr_in  { u16 family; be16 port; u8 addr[4]; u8 zero[8]; };                        // 16
 * struct sockaddr_in6 { u16 family; be16 port; be32 flowinfo; u8 addr[16]; u32 scope_id; };      // 28
 */
export function sockaddr(family: 4 | 6, address: Uint8Array, port: number, scope: number): Uint8Array {
  if (address.length !== (family === 4 ? 4 : 16))
    throw new RangeError('The address is not of the family asked for.');
  const bytes = new Uint8Array(family === 4 ? 16 : 28);
  const view = viewOf(bytes);
  view.setUint16(0, family === 4 ? AF_INET : AF_INET6, true);
  view.setUint16(2, port, false);
  bytes.set(address, family === 4 ? 4 : 8);
  if (family === 6) view.setUint32(24, scope, true);
  return bytes;
}

/** Fills one record to send; the reason when this socket cannot send there. */
function writeRecord(
  records: Uint8Array,
  view: DataView,
  at: number,
  family: 4 | 6,
  length: number,
  remote: SocketEndpoint,
  local: SocketAddress | undefined,
): string | undefined {
  const octets = family === 4 ? 4 : 16;
  if (remote.address.family !== family || remote.address.bytes.length !== octets) return 'EAFNOSUPPORT';
  if (local && (local.family !== family || local.bytes.length !== octets)) return 'EAFNOSUPPORT';
  view.setUint32(at + RECORD.length, length, true);
  view.setUint32(at + RECORD.flags, local ? RECORD.hasLocal : 0, true);
  view.setUint16(at + RECORD.family, family, true);
  view.setUint16(at + RECORD.port, remote.port, true);
  records.set(remote.address.bytes, at + RECORD.remote);
  if (local) records.set(local.bytes, at + RECORD.local);
  view.setUint32(at + RECORD.scope, remote.scope ?? 0, true);
  return undefined;
}
