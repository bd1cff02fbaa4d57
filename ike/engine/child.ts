import type { ChildSuite } from '../crypto/algorithms.ts';
import { deriveChildKeys } from '../crypto/prf.ts';
import type { ChildSa } from '../types.ts';
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
    inbound: { spi: agreed.inboundSpi, cipher: inbound },
    outbound: { spi: agreed.outboundSpi, cipher: outbound },
    esn: agreed.suite.esn,
    ...(translated ? { encapsulation: { localPort: sa.local.port, remotePort: sa.remote.port } } : {}),
    initiator: agreed.initiator,
  };
  core.installing.set(child.id, sa);
  core.emit({ kind: 'installChildSa', child });
  return child;
}

/** Whether we take part in transport mode on this path. */
export function transportAllowed(core: Core, sa: IkeSa): boolean {
  const translated = sa.nat.us || sa.nat.peer;
  return core.config.transportMode && (!translated || core.config.transportThroughNat);
}
