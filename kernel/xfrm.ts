/** The kernel's SAD and SPD: every verb is acknowledged by the kernel before it returns, or throws KernelError. */
import { constants } from 'node:os';
import { KernelError } from './error.ts';
import {
  NETLINK_XFRM,
  type NetlinkMessage,
  NetlinkSocket,
  NLM_F_CREATE,
  NLM_F_EXCL,
  parseAttributes,
} from './netlink.ts';
import {
  composePolicy,
  composePolicyName,
  composeSa,
  parsePolicy,
  parseSa,
  XFRM_MSG_ALLOCSPI,
  XFRM_MSG_DELPOLICY,
  XFRM_MSG_DELSA,
  XFRM_MSG_GETPOLICY,
  XFRM_MSG_GETSA,
  XFRM_MSG_GETSPDINFO,
  XFRM_MSG_NEWPOLICY,
  XFRM_MSG_NEWSA,
  XFRM_MSG_NEWSPDINFO,
  XFRM_MSG_UPDPOLICY,
  XFRM_MSG_UPDSA,
} from './xfrm-messages.ts';
import { composeSaId, composeSaInfo, SIZE, viewOf } from './xfrm-structs.ts';
import type { Mode, Policy, PolicyId, PolicyStatus, Sa, SaId, SaStatus } from './xfrm-types.ts';

export { KernelError } from './error.ts';
export type * from './xfrm-types.ts';

const XFRMA_SPD_IPV4_HTHRESH = 3;
const XFRMA_SPD_IPV6_HTHRESH = 4;

/** From which prefix lengths on policies are hashed, [local, remote]; the kernel's own are [32, 32] and [128, 128]. */
export type HashThresholds = { ipv4: [number, number]; ipv6: [number, number] };

/** A request socket to XFRM. One operation takes about 10 µs. */
export class Xfrm {
  readonly #socket: NetlinkSocket;
  #malformed = 0;

  private constructor(socket: NetlinkSocket) {
    this.#socket = socket;
  }

  /** Throws EPROTONOSUPPORT in a kernel without XFRM over netlink. Verbs throw EPERM without CAP_NET_ADMIN. */
  static open(): Xfrm {
    return new Xfrm(new NetlinkSocket(NETLINK_XFRM));
  }

  /** For `openEvents`, which has no need to tell what we did ourselves. */
  get portId(): number {
    return this.#socket.portId;
  }

  /** Messages of the kernel that could not be read and were dropped. */
  get dropped(): number {
    return this.#socket.dropped + this.#malformed;
  }

  /**
   * Adds an SA; EEXIST when its destination and SPI are taken.
   *
   * Equivalent to `ip xfrm state add src … dst … proto esp spi 0x… reqid … mode transport replay-window 128
   * flag esn aead 'rfc4106(gcm(aes))' 0x… 128 [encap espinudp 4500 4500 0.0.0.0] [sel …]`.
   */
  installSa(sa: Sa): void {
    this.#socket.request('NEWSA', XFRM_MSG_NEWSA, NLM_F_CREATE | NLM_F_EXCL, composeSa(sa));
  }

  /**
   * Replaces what an SA says, such as its encapsulation after a NAT mapped anew; ESRCH when there is none.
   *
   * Equivalent to `ip xfrm state update …`.
   */
  updateSa(sa: Sa): void {
    this.#socket.request('UPDSA', XFRM_MSG_UPDSA, 0, composeSa(sa));
  }

  /** Equivalent to `ip xfrm state delete dst … proto esp spi 0x…`; ESRCH when there is none. */
  removeSa(id: SaId): void {
    this.#socket.request('DELSA', XFRM_MSG_DELSA, 0, composeSaId(id.destination, id.spi));
  }

  /** Equivalent to `ip -s xfrm state get dst … proto esp spi 0x…`; ESRCH when there is none. */
  getSa(id: SaId): SaStatus {
    const message = this.#socket.request('GETSA', XFRM_MSG_GETSA, 0, composeSaId(id.destination, id.spi));
    return this.#read('GETSA', message, parseSa);
  }

  /** Equivalent to `ip -s xfrm state list`, with place holders of unanswered ACQUIREs and other users' SAs. */
  dumpSas(): SaStatus[] {
    return this.#readAll(this.#socket.dump('GETSA', XFRM_MSG_GETSA, new Uint8Array(0)), parseSa);
  }

  /**
   * Removes the place holder that an ACQUIRE left: while it stands, the kernel sends no second ACQUIRE for its template.
   *
   * The kernel gives a place holder a real SPI on demand (ALLOCSPI), and by that it can be deleted.
   */
  removeLarval(larval: {
    source: Uint8Array;
    destination: Uint8Array;
    reqid: number;
    mode: Mode;
    sequence: number;
  }): void {
    // struct xfrm_userspi_info { struct xfrm_usersa_info info; __u32 min, max; };  // 232: 0, 224, 228 (host order)
    const body = new Uint8Array(SIZE.spiInfo);
    body.set(composeSaInfo({ ...larval, spi: 0, esn: false, replayWindow: 0 }));
    viewOf(body).setUint32(SIZE.saInfo, 0x100, true);
    viewOf(body).setUint32(SIZE.saInfo + 4, 0xffffffff, true);
    const message = this.#socket.request('ALLOCSPI', XFRM_MSG_ALLOCSPI, 0, body);
    const { spi, destination } = this.#read('ALLOCSPI', message, parseSa);
    this.removeSa({ spi, destination });
  }

  /**
   * Adds a policy; EEXIST when the direction has one with this selector already, of whatever priority.
   *
   * Equivalent to `ip xfrm policy add src … dst … dir out priority … index … tmpl src … dst … proto esp reqid … mode
   * transport`. EINVAL when `index` does not carry the direction in its low bits.
   */
  installPolicy(policy: Policy): void {
    this.#socket.request('NEWPOLICY', XFRM_MSG_NEWPOLICY, NLM_F_CREATE | NLM_F_EXCL, composePolicy(policy));
  }

  /** Replaces (or adds) the policy with this selector; it keeps its index. Equivalent to `ip xfrm policy update …`. */
  updatePolicy(policy: Policy): void {
    this.#socket.request('UPDPOLICY', XFRM_MSG_UPDPOLICY, 0, composePolicy(policy));
  }

  /** Equivalent to `ip xfrm policy delete dir out index …`; ENOENT when there is none. By index is the fast way. */
  removePolicy(id: PolicyId): void {
    this.#socket.request('DELPOLICY', XFRM_MSG_DELPOLICY, 0, composePolicyName(id));
  }

  /** Equivalent to `ip -s xfrm policy get dir out index …`; ENOENT when there is none. */
  getPolicy(id: PolicyId): PolicyStatus {
    const message = this.#socket.request('GETPOLICY', XFRM_MSG_GETPOLICY, 0, composePolicyName(id));
    return this.#read('GETPOLICY', message, parsePolicy);
  }

  /** Equivalent to `ip -s xfrm policy list`. Policies of single sockets are not among them. */
  dumpPolicies(): PolicyStatus[] {
    return this.#readAll(this.#socket.dump('GETPOLICY', XFRM_MSG_GETPOLICY, new Uint8Array(0)), parsePolicy);
  }

  /** Equivalent to `ip xfrm policy set hthresh4 32 32 hthresh6 128 128`; for the whole network namespace. */
  setHashThresholds({ ipv4, ipv6 }: HashThresholds): void {
    // __u32 flags; then attributes of struct xfrmu_spdhthresh { __u8 lbits, rbits; };
    const body = Uint8Array.of(0, 0, 0, 0, 6, 0, XFRMA_SPD_IPV4_HTHRESH, 0, ...ipv4, 0, 0);
    const rest = Uint8Array.of(6, 0, XFRMA_SPD_IPV6_HTHRESH, 0, ...ipv6, 0, 0);
    this.#socket.request('NEWSPDINFO', XFRM_MSG_NEWSPDINFO, 0, Buffer.concat([body, rest]));
  }

  /** Equivalent to `ip -s -s xfrm policy count`. */
  getHashThresholds(): HashThresholds {
    const message = this.#socket.request('GETSPDINFO', XFRM_MSG_GETSPDINFO, 0, new Uint8Array(4));
    return this.#read('GETSPDINFO', message, parseHashThresholds);
  }

  close(): void {
    this.#socket.close();
  }

  #read<T>(
    verb: string,
    message: NetlinkMessage | undefined,
    parse: (message: NetlinkMessage) => T | undefined,
  ): T {
    const value = message && parse(message);
    if (value) return value;
    this.#malformed++;
    throw new KernelError(verb, constants.errno.EBADMSG, 'the answer cannot be read');
  }

  #readAll<T>(messages: NetlinkMessage[], parse: (message: NetlinkMessage) => T | undefined): T[] {
    const values: T[] = [];
    for (const message of messages) {
      const value = parse(message);
      if (value) values.push(value);
      else this.#malformed++;
    }
    return values;
  }
}

function parseHashThresholds(message: NetlinkMessage): HashThresholds | undefined {
  const attributes = message.payload.length < 4 ? undefined : parseAttributes(message.payload, 4);
  const ipv4 = attributes?.get(XFRMA_SPD_IPV4_HTHRESH);
  const ipv6 = attributes?.get(XFRMA_SPD_IPV6_HTHRESH);
  if (!ipv4 || !ipv6 || ipv4.length < 2 || ipv6.length < 2) return undefined;
  return { ipv4: [ipv4[0]!, ipv4[1]!], ipv6: [ipv6[0]!, ipv6[1]!] };
}
