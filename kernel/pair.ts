/** One address pair in the data plane's table, and the policies that follow from it. */
import type { Mode, Policy, Sa, SaCipher, SaId, Selector } from './xfrm.ts';

/** Addresses of 4 or 16 octets, both of one family. */
export type HostPair = { local: Uint8Array; remote: Uint8Array };

export type SaKeys = { spi: number; cipher: SaCipher };

export type Child = {
  id: number;
  /** Whose traffic it carries. */
  pair: HostPair;
  /** Between whom its SAs stand, where the peer is a gateway: tunnel mode only, and of either family. */
  outer?: HostPair;
  mode: Mode;
  inboundSa: SaKeys;
  outboundSa: SaKeys;
  esn: boolean;
  /** ESP in UDP (RFC 3948), as this host sees the ports. */
  encapsulation?: { localPort: number; remotePort: number };
};

/** What is kept of a child: never its keys. */
export type Installed = {
  id: number;
  mode: Mode;
  outer: HostPair;
  inbound: SaId;
  outbound: SaId;
  outReqid: number;
  /** Packets in both directions when last looked at, and since when (Unix time). */
  seenPackets: number;
  seenSeconds: number;
};

export type Pair = {
  key: string;
  hosts: HostPair;
  inReqid: number;
  inIndex: number;
  outIndex: number;
  carrying: Installed;
  children: Set<Installed>;
};

/** Stronger (smaller) than `SEALED_PRIORITY`, weaker than what an administrator adds without a priority (0). */
export const EXEMPTION_PRIORITY = 100;
export const SEALED_PRIORITY = 1000;
export const BLOCK_PRIORITY = 2000;

/** What no kernel should be asked for; undefined when there is nothing to object to. */
export function whyImpossible({ pair, outer, mode }: Child): string | undefined {
  for (const { local, remote } of [pair, outer ?? pair]) {
    const same = Buffer.compare(local, remote) === 0;
    if (local.length !== remote.length || same) return 'a pair is two different addresses of one family';
  }
  return outer && mode !== 'tunnel' ? 'only a tunnel has outer addresses of its own' : undefined;
}

export function saOf(child: Child, direction: 'in' | 'out', reqid: number, replayWindow: number): Sa {
  const { local, remote } = child.outer ?? child.pair;
  const [source, destination] = direction === 'in' ? [remote, local] : [local, remote];
  const { spi, cipher } = direction === 'in' ? child.inboundSa : child.outboundSa;
  const ports = child.encapsulation;
  const [sourcePort, destinationPort] =
    direction === 'in' ? [ports?.remotePort, ports?.localPort] : [ports?.localPort, ports?.remotePort];
  return {
    spi,
    source,
    destination,
    reqid,
    mode: child.mode,
    cipher,
    esn: child.esn,
    replayWindow,
    ...(ports && { encapsulation: { sourcePort: sourcePort!, destinationPort: destinationPort! } }),
    ...(child.mode === 'tunnel' && { selector: selectorOf(child.pair, direction) }),
  };
}

/** The sealing policy of one direction, with the reqid, mode and outer addresses of the child that carries. */
export function policyOf(pair: Pair, direction: 'in' | 'out', child: Installed): Policy {
  const { local, remote } = child.outer;
  const [source, destination] = direction === 'in' ? [remote, local] : [local, remote];
  return {
    selector: selectorOf(pair.hosts, direction),
    direction,
    action: 'allow',
    priority: SEALED_PRIORITY,
    index: direction === 'in' ? pair.inIndex : pair.outIndex,
    template: {
      source,
      destination,
      reqid: direction === 'in' ? pair.inReqid : child.outReqid,
      mode: child.mode,
    },
  };
}

/** Whether the inbound policy differs between these two, so that one cannot stand for both. */
export function differInbound(a: Installed, b: Installed): boolean {
  return a.mode !== b.mode || pairKey(a.outer) !== pairKey(b.outer);
}

function selectorOf({ local, remote }: HostPair, direction: 'in' | 'out'): Selector {
  const [source, destination] = direction === 'in' ? [remote, local] : [local, remote];
  const family = source.length === 4 ? 4 : 6;
  const prefix = source.length * 8;
  return { family, source, sourcePrefix: prefix, destination, destinationPrefix: prefix };
}

export function saKey({ spi, destination }: SaId): string {
  return `${Buffer.from(destination).toString('hex')} ${spi}`;
}

export function pairKey({ local, remote }: HostPair): string {
  return `${Buffer.from(local).toString('hex')} ${Buffer.from(remote).toString('hex')}`;
}
