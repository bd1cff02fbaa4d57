/**
 * A question without EDNS to one resolver, whose answer nobody vouches for.
 *
 * For two uses only: as the control of the experiment that a probe is, and to find the way to a captive portal. What
 * comes back is never cached, never judged, and never reaches the capture.
 */
import { formatIpAddress, type SocketAddress } from '../address.ts';
import { composeMessage } from '../dns/compose.ts';
import { type Message, parseMessage } from '../dns/message.ts';
import { DnsFormatError, type Name } from '../dns/name.ts';
import { RCODE, TYPE } from '../dns/types.ts';
import type { UdpSocket, UpstreamSockets } from '../upstream/sockets.ts';

export type UnprotectedSetting = {
  sockets: UpstreamSockets;
  random: (octets: number) => Uint8Array;
};

/** Sent again after so long, while nothing has come. Milliseconds. */
const RESEND_MILLIS = 600;
/** A portal has one address, perhaps one of each family; more are not looked at. */
const MAX_ADDRESSES = 4;

/** The first message that answers; undefined when none came until the signal fired. Never rejects. */
export async function askUnprotected(
  server: SocketAddress,
  name: Name,
  type: number,
  setting: UnprotectedSetting,
  signal: AbortSignal,
): Promise<Message | undefined> {
  if (signal.aborted) return undefined;
  const [high, low] = setting.random(2);
  const id = (high! << 8) | low!;
  const query = composeQuestion(name, type, id);
  return new Promise(resolve => {
    let socket: UdpSocket | undefined;
    let again: NodeJS.Timeout | undefined;
    const done = (message: Message | undefined) => {
      clearInterval(again);
      signal.removeEventListener('abort', onAbort);
      socket?.close();
      resolve(message);
    };
    const onAbort = () => done(undefined);
    try {
      socket = setting.sockets.udp(server, {
        message: octets => {
          const message = answerTo(octets.slice(), id, name, type);
          if (message !== undefined) done(message);
        },
        // A closed port may be open a moment later; the signal ends it.
        error: () => {},
      });
    } catch {
      return resolve(undefined);
    }
    signal.addEventListener('abort', onAbort, { once: true });
    socket.send(query);
    again = setInterval(() => socket.send(query), RESEND_MILLIS);
  });
}

/** The addresses that one of these resolvers gives the name, the first that gives any; as text, at most four. */
export async function lookUpUnprotected(
  servers: readonly SocketAddress[],
  name: Name,
  type: number,
  setting: UnprotectedSetting,
  signal: AbortSignal,
): Promise<string[]> {
  const found = servers.map(async server => {
    const message = await askUnprotected(server, name, type, setting, signal);
    const addresses = message === undefined ? [] : addressesIn(message, type);
    if (addresses.length === 0) throw new Error('no address');
    return addresses;
  });
  return Promise.any(found).catch(() => []);
}

/** The records of the asked type, whatever names they belong to: an alias leads to the same host. */
function addressesIn({ rcode, answer }: Message, type: number): string[] {
  if (rcode !== RCODE.NOERROR) return [];
  const octets = type === TYPE.A ? 4 : 16;
  return answer
    .filter(record => record.type === type && record.rdata.length === octets)
    .slice(0, MAX_ADDRESSES)
    .map(({ rdata }) => formatIpAddress({ family: octets === 4 ? 4 : 6, bytes: rdata }));
}

function composeQuestion(name: Name, type: number, id: number): Uint8Array {
  return composeMessage({
    id,
    response: false,
    opcode: 0,
    authoritative: false,
    truncated: false,
    recursionDesired: true,
    recursionAvailable: false,
    authenticData: false,
    checkingDisabled: false,
    rcode: 0,
    questions: [{ name, type, class: 1 }],
    answer: [],
    authority: [],
    additional: [],
  });
}

function answerTo(bytes: Uint8Array, id: number, name: Name, type: number): Message | undefined {
  try {
    const message = parseMessage(bytes);
    const question = message.questions[0];
    if (!message.response || message.id !== id || message.opcode !== 0) return undefined;
    if (question === undefined || question.type !== type || !question.name.equals(name)) return undefined;
    return message;
  } catch (error) {
    if (error instanceof DnsFormatError) return undefined;
    throw error;
  }
}
