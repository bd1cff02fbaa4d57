/** The network room, opened for a configuration: whom the system names, and what follows when that changes. */
import { randomBytes } from 'node:crypto';
import { parseIpAddress, type SocketAddress } from '../address.ts';
import type { PolicyGroups } from '../capture/groups.ts';
import type { Configuration } from '../config.ts';
import { RESOLVER_FILES, systemUpstreams, thisMachine } from '../config/machine.ts';
import type { Name } from '../dns/name.ts';
import type { Logger } from '../log.ts';
import type { LinkEvent } from '../network/interfaces.ts';
import { Network } from '../network/network.ts';
import { ResolverFiles } from '../network/resolver-files.ts';
import { NETWORK } from '../upstream/server.ts';
import type { UpstreamSockets } from '../upstream/sockets.ts';
import type { Upstream } from '../upstream/upstream.ts';

export type Surroundings = { network: Network; linkEvent: (event: LinkEvent) => void; close: () => void };

/** Call `network.start()` when all is wired. */
export function openSurroundings(options: {
  configuration: Configuration;
  upstream: Upstream;
  groups: PolicyGroups;
  forgetFailures: () => void;
  forgetUnproven: () => void;
  /** They get past whatever policies stand. */
  sockets: UpstreamSockets;
  unixNow: () => number;
  log: Logger;
}): Surroundings {
  const { configuration, upstream, groups, log } = options;
  const network = new Network(
    {
      choices: configuration.upstream,
      probing: configuration.probing,
      portal: configuration.portal,
      anchors: configuration.trustAnchors,
      apart: [...configuration.negativeTrustAnchors, ...configuration.forward.map(({ zone }) => zone)],
      ask: (server, question, limits) => upstream.ask(server, question, limits),
      use: servers => upstream.setServers(servers),
      forgetFailures: options.forgetFailures,
      forgetUnproven: options.forgetUnproven,
      sockets: options.sockets,
      mayBeClear: (name, address) => mayBeClear(groups, name, address),
      log: (level, event, detail) => log[level]({ event, ...detail }),
      now: () => performance.now(),
      unixNow: options.unixNow,
      random: count => new Uint8Array(randomBytes(count)),
    },
    { named: configuration.networkServers, addresses: ownAddresses() },
  );
  const files = configuration.upstream.includes(NETWORK)
    ? new ResolverFiles({
        paths: RESOLVER_FILES,
        read: () => namedNow(configuration),
        known: configuration.networkServers,
        changed: servers => network.names(servers),
      })
    : undefined;
  return {
    network,
    linkEvent: event => {
      // Whoever tells of another network's resolvers does so about now.
      if (network.linkEvent(event)) files?.touched();
    },
    close: () => {
      files?.close();
      network.close();
    },
  };
}

/** The resolvers that the system names at this moment, without ourselves. */
export function namedNow({ listen }: Configuration): SocketAddress[] {
  return systemUpstreams(thisMachine, { listen, interfaceAddresses: thisMachine.ownAddresses() });
}

/** An answer that nobody vouches for goes only where policy asks for nothing that it could lack. */
function mayBeClear(groups: PolicyGroups, name: Name, address: string): boolean {
  const parsed = parseIpAddress(address);
  const group = parsed && groups.groupOf(name.toText().replace(/\.$/, ''), parsed);
  return group === 'clear' || group === 'clear-or-private' || group === 'private-or-clear';
}

function ownAddresses(): Uint8Array[] {
  return thisMachine.ownAddresses().flatMap(text => parseIpAddress(text.replace(/%.*$/, ''))?.bytes ?? []);
}
