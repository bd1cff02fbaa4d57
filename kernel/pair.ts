/** One address pair in the data plane's table, and the policies that follow from it. */
import type { Mode, Policy, SaId, Selector } from './xfrm.ts';

/** Addresses of 4 or 16 octets, both of one family. */
export type HostPair = { local: Uint8Array; remote: Uint8Array };

/** What is kept of a child: never its keys. */
export type Installed = {
  id: number;
  mode: Mode;
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

/** The sealing policy of one direction, with the reqid and mode of the child that carries. */
export function policyOf(pair: Pair, direction: 'in' | 'out', child: Installed): Policy {
  const { local, remote } = pair.hosts;
  const [source, destination] = direction === 'in' ? [remote, local] : [local, remote];
  return {
    selector: hostSelector(source, destination),
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

export function hostSelector(source: Uint8Array, destination: Uint8Array): Selector {
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
