/** The way to one server: what every transport offers to whoever chooses among servers. */
import type { Message } from '../dns/message.ts';
import { MAX_RECORDS, parseMessage } from '../dns/message.ts';
import { DnsFormatError, type Name } from '../dns/name.ts';
import type { Bootstrap } from './bootstrap.ts';
import type { Authorities } from './dial.ts';
import type { UpstreamError } from './error.ts';
import type { RandomSource } from './random.ts';
import { addressesOf, type HttpsServer, type TlsServer } from './server.ts';
import type { UpstreamSockets } from './sockets.ts';

export type LinkQuestion = {
  name: Name;
  type: number;
  /** The same question was asked this server before, and nothing came. */
  again: boolean;
  /** Over the transport's first way alone: a truncated answer over UDP is handed out as it is. */
  alone: boolean;
};

/** Called once: with what the server answered, whatever the RCODE, or with why there is no answer. */
export type Reply = (outcome: Message | UpstreamError) => void;

export type Link = {
  /** Asks; `reply` may be called before this returns. Returns how to give up: `reply` is not called after that. */
  ask(question: LinkQuestion, reply: Reply): () => void;
  /** Closes all sockets; those who wait are not told. */
  close(): void;
  /** What `status` tells beyond health. */
  describe(): LinkDescription;
};

export type LinkDescription = {
  /** Whether the server takes part in DNS cookies (RFC 7873), and keeps the case of questions; for UDP. */
  cookies?: 'used' | 'not offered';
  mixedCase?: 'used' | 'not kept';
  /** Open TCP or TLS connections. */
  connections?: number;
};

export type LinkCounters = {
  udp: number;
  tcp: number;
  tls: number;
  https: number;
  truncated: number;
  foreign: number;
  late: number;
  flooded: number;
  malformed: number;
  /** The case of the question was not kept, or a forger did not know it. */
  folded: number;
  forgedCookies: number;
  missingCookies: number;
  badCookies: number;
  /** Connections opened. */
  connections: number;
};

/** What all links share. */
export type LinkContext = {
  sockets: UpstreamSockets;
  random: RandomSource;
  /** Milliseconds, monotonic. */
  now: () => number;
  counters: LinkCounters;
  bootstrap: Bootstrap;
  authorities: Authorities;
};

/** Where an encrypted server is: as configured, else as the network's resolvers say now. */
export function addressesWith(context: LinkContext, server: TlsServer | HttpsServer) {
  const known = addressesOf(server);
  return async () => {
    if (known.length > 0) return known;
    const found = await context.bootstrap(server.name!);
    return found.map(address => ({ address, port: server.port }));
  };
}

/** The message, or undefined for what is none, counted. */
export function parseCounted(octets: Uint8Array, counters: LinkCounters): Message | undefined {
  try {
    return parseMessage(octets, MAX_RECORDS);
  } catch (error) {
    if (!(error instanceof DnsFormatError)) throw error;
    counters.malformed++;
    return undefined;
  }
}
