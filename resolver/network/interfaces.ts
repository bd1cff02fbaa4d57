/** What this room needs from the rest of the house; the daemon supplies it. */
import type { SocketAddress } from '../address.ts';
import type { Name } from '../dns/name.ts';
import type { TrustAnchor } from '../dnssec/anchors.ts';
import type { Exchange } from '../dnssec/types.ts';
import type { UpstreamSockets } from '../upstream/sockets.ts';
import type { UpstreamChoice, UpstreamServer } from '../upstream/server.ts';
import type { PortalSetting } from './portal-mode.ts';
import type { Ask } from './probe.ts';

/** What the kernel tells of links, addresses and default routes (`kernel/links.ts`). */
export type LinkEvent =
  | { kind: 'link'; index: number; running: boolean }
  | { kind: 'address'; index: number; address: Uint8Array; present: boolean }
  | { kind: 'defaultRoute'; index: number; gateway?: Uint8Array; present: boolean }
  | { kind: 'overflow' };

export type NetworkOptions = {
  /** The servers as configured; the word `network` stands for those the network names. */
  choices: readonly UpstreamChoice[];
  /** False: nobody is probed, all servers are used as they are. */
  probing: boolean;
  portal: PortalSetting;
  anchors: readonly TrustAnchor[];
  /** Zones that need no chain of trust, or that have servers of their own. */
  apart: readonly Name[];
  ask: Ask;
  /** From now on these are asked. */
  use: (servers: readonly UpstreamServer[]) => void;
  /** Whatever failed is forgotten, whoever remembers it. */
  forgetFailures: () => void;
  /** This is another network, or was behind a portal: what nobody could prove was the word of the one before. */
  forgetUnproven: () => void;
  sockets: UpstreamSockets;
  /** Whether policy lets this address of this name be answered without any protection. */
  mayBeClear: (name: Name, address: string) => boolean;
  log: (level: 'info' | 'warn', event: string, detail: Record<string, unknown>) => void;
  /** Milliseconds, monotonic. */
  now: () => number;
  /** Unix seconds by which signatures are judged. */
  unixNow: () => number;
  random: (octets: number) => Uint8Array;
};

export type { Exchange, SocketAddress };
