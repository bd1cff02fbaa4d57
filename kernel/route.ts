/** What the kernel would do with a packet to an address (rtnetlink RTM_GETROUTE). */
import { constants } from 'node:os';
import { KernelError } from './error.ts';
import { composeBody, NetlinkSocket, parseAttributes } from './netlink.ts';

const NETLINK_ROUTE = 0;
const RTM_GETROUTE = 26;
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_PREFSRC = 7;
const AF_INET = 2;
const AF_INET6 = 10;
const RTN_UNICAST = 1;
const RTN_LOCAL = 2;
const RTMSG_SIZE = 12;
const RTMSG_TYPE = 7;

export type Route =
  /** `source`: the address that a packet leaves from. */
  | { kind: 'unicast'; source: Uint8Array; interfaceIndex: number }
  /** The address is one of this host's own. */
  | { kind: 'local' }
  /** Broadcast, multicast, blackhole, or no route at all. */
  | { kind: 'none' };

/** A request socket to the routing tables. One question takes about 10 µs. */
export class Routes {
  readonly #socket = new NetlinkSocket(NETLINK_ROUTE);

  /** Equivalent to `ip route get ADDRESS`. 4 or 16 bytes. Throws KernelError for anything but a missing route. */
  to(address: Uint8Array): Route {
    const family = address.length === 4 ? AF_INET : AF_INET6;
    const message = new Uint8Array(RTMSG_SIZE);
    message[0] = family;
    message[1] = address.length * 8;
    let answer: ReturnType<NetlinkSocket['request']>;
    try {
      answer = this.#socket.request(
        'GETROUTE',
        RTM_GETROUTE,
        0,
        composeBody(message, [{ type: RTA_DST, value: address }]),
      );
    } catch (error) {
      if (error instanceof KernelError && MISSING.has(error.errno)) return { kind: 'none' };
      throw error;
    }
    if (!answer || answer.payload.length < RTMSG_SIZE) return { kind: 'none' };
    const type = answer.payload[RTMSG_TYPE];
    if (type === RTN_LOCAL) return { kind: 'local' };
    const attributes = parseAttributes(answer.payload, RTMSG_SIZE);
    const source = attributes?.get(RTA_PREFSRC);
    const index = attributes?.get(RTA_OIF);
    if (type !== RTN_UNICAST || source?.length !== address.length) return { kind: 'none' };
    const interfaceIndex = index ? new DataView(index.buffer, index.byteOffset).getUint32(0, true) : 0;
    return { kind: 'unicast', source: source.slice(), interfaceIndex };
  }

  close(): void {
    this.#socket.close();
  }
}

const { ENETUNREACH, EHOSTUNREACH, EACCES, EINVAL, EAFNOSUPPORT } = constants.errno;
/** An unreachable, prohibited or blackhole route, or an address that no packet can be sent to. */
const MISSING = new Set([ENETUNREACH, EHOSTUNREACH, EACCES, EINVAL, EAFNOSUPPORT]);
