import type { ChildSuite } from '../crypto/algorithms.ts';
import { deriveChildKeys } from '../crypto/prf.ts';
import type { ChildSa, Hosts } from '../types.ts';
import type { Core } from './core.ts';
import type { IkeSa } from './sa.ts';

/** Everything that was agreed about a new Child SA; `initiator`: we initiated the exchange that made it. */
export type Agreement = {
  suite: ChildSuite;
  mode: 'transport' | 'tunnel';
  inboundSpi: number;
  outboundSpi: number;
  ni: Uint8Array;
  nr: Uint8Array;
  shared?: Uint8Array;
  initiator: boolean;
};

/** Derive a Child SA's keys (RFC 7296 §2.17) and give it to the caller to be installed. */
export function install(core: Core, sa: IkeSa, agreed: Agreement): ChildSa {
  const { suite, keys } = sa.secure!;
  const ciphers = deriveChildKeys(suite.prf, keys.skD, agreed.suite, agreed.ni, agreed.nr, agreed.shared);
  const [inbound, outbound] = agreed.initiator
    ? [ciphers.responder, ciphers.initiator]
    : [ciphers.initiator, ciphers.responder];
  const translated = sa.nat.us || sa.nat.peer;
  const child: ChildSa = {
    id: core.newId(),
    ikeSaId: sa.id,
    mode: agreed.mode,
    local: sa.local.address,
    remote: sa.remote.address,
    selectors: hostsOf(sa),
    inbound: { spi: agreed.inboundSpi, cipher: inbound },
    outbound: { spi: agreed.outboundSpi, cipher: outbound },
    esn: agreed.suite.esn,
    ...(translated ? { encapsulation: { localPort: sa.local.port, remotePort: sa.remote.port } } : {}),
    initiator: agreed.initiator,
  };
  core.installing.set(child.id, sa);
  core.emit({
    kind: 'installChildSa',
    child,
    remoteKey: sa.remoteKey!,
    remoteIdentity: sa.remoteIdentity!,
    ...(sa.handshake && sa.requestId !== undefined ? { requestId: sa.requestId } : {}),
  });
  return child;
}

/** The hosts whose traffic the Child SAs of this IKE SA carry: its own two ends, unless the peer is a gateway. */
export function hostsOf(sa: IkeSa): Hosts {
  return sa.protects ?? { local: sa.local.address, remote: sa.remote.address };
}

/** Whether we take part in transport mode on this path; never with a gateway, which is not the end of the traffic. */
export function transportAllowed(core: Core, sa: IkeSa): boolean {
  const translated = sa.nat.us || sa.nat.peer;
  return core.config.transportMode && !sa.protects && (!translated || core.config.transportThroughNat);
}
