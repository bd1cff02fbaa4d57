/**
 * The standing exemptions: what has to pass in clear so that there can be IPsec at all.
 *
 * IKE (UDP 500/4500) or it could not negotiate, nor receive ESP in UDP: the outer packet is checked too. ICMPv6 neighbour
 * discovery (135/136), without which a sealed neighbour cannot even be reached. Loopback. Questions to DNS servers pass by
 * their sockets (client-sockets.ts).
 *
 * IKE is exempt by *our* port only: out of it and into it. By the remote port, anybody could bring clear packets from
 * UDP 500 of a sealed address into any local port.
 */
import type { Policy, Selector } from './xfrm-types.ts';

export type Exemption = {
  /** What it is, and which way; unique. */
  name: string;
  selector: Selector;
  direction: 'in' | 'out';
};

const IPPROTO_UDP = 17;
const IPPROTO_ICMPV6 = 58;
const NEIGHBOUR_SOLICITATION = 135;
const NEIGHBOUR_ADVERTISEMENT = 136;

const ANY = { 4: new Uint8Array(4), 6: new Uint8Array(16) };
const LOOPBACK_4 = Uint8Array.of(127, 0, 0, 0);
const LOOPBACK_6 = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);

/** All exemptions for these IKE ports, each name once. */
export function exemptions(ikePorts: number[]): Exemption[] {
  const list: Exemption[] = [];
  for (const family of [4, 6] as const) {
    for (const port of ikePorts) {
      const local = { address: ANY[family], prefix: 0, port };
      const remote = { address: ANY[family], prefix: 0 };
      list.push(...bothWays(`IKE ${port} IPv${family}`, family, IPPROTO_UDP, local, remote));
    }
  }
  for (const type of [NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT]) {
    // The ICMP type rides in the source port, whichever way the packet goes.
    const selector: Selector = {
      family: 6,
      source: ANY[6],
      sourcePrefix: 0,
      destination: ANY[6],
      destinationPrefix: 0,
      protocol: IPPROTO_ICMPV6,
      sourcePort: type,
    };
    for (const direction of ['in', 'out'] as const)
      list.push({ name: `ICMPv6 ${type} ${direction}`, selector, direction });
  }
  const loopback4 = { address: LOOPBACK_4, prefix: 8 };
  const loopback6 = { address: LOOPBACK_6, prefix: 128 };
  list.push(...bothWays('loopback IPv4', 4, undefined, loopback4, loopback4));
  list.push(...bothWays('loopback IPv6', 6, undefined, loopback6, loopback6));
  return [...new Map(list.map(exemption => [exemption.name, exemption])).values()];
}

export function exemptionPolicy(exemption: Exemption, priority: number, index: number): Policy {
  const { selector, direction } = exemption;
  return { selector, direction, action: 'allow', priority, index };
}

type Side = { address: Uint8Array; prefix: number; port?: number };

function bothWays(
  name: string,
  family: 4 | 6,
  protocol: number | undefined,
  local: Side,
  remote: Side,
): Exemption[] {
  return [
    { name: `${name} out`, selector: selectorOf(family, protocol, local, remote), direction: 'out' },
    { name: `${name} in`, selector: selectorOf(family, protocol, remote, local), direction: 'in' },
  ];
}

function selectorOf(family: 4 | 6, protocol: number | undefined, source: Side, destination: Side): Selector {
  const selector: Selector = {
    family,
    source: source.address,
    sourcePrefix: source.prefix,
    destination: destination.address,
    destinationPrefix: destination.prefix,
  };
  if (protocol !== undefined) selector.protocol = protocol;
  if (source.port !== undefined) selector.sourcePort = source.port;
  if (destination.port !== undefined) selector.destinationPort = destination.port;
  return selector;
}
