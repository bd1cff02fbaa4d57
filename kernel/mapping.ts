/** A peer behind a NAT whose mapping changed: its SAs follow to the new port (RFC 7296 §2.23, RFC 3948). */
import { KernelError } from './error.ts';
import type { KernelEvent } from './events.ts';
import type { Installed } from './pair.ts';
import type { Mode, SaCipher, SaId, Xfrm } from './xfrm.ts';

export type Mapping = Extract<KernelEvent, { kind: 'mapping' }>;

/** UPDSA leaves keys as they are, but wants some: so ours need not be kept for it. */
const unusedCipher: SaCipher = { kind: 'aead', name: 'aes-gcm-16', key: new Uint8Array(20), icvBits: 128 };

/**
 * Both SAs of a child take the port that MAPPING told; the kernel tells it only of packets that proved authentic.
 *
 * False where it cannot be followed: another address, which the policies of the pair do not have, or SAs that are gone.
 */
export function followMapping(
  xfrm: Pick<Xfrm, 'getSa' | 'updateSa'>,
  child: Pick<Installed, 'inbound' | 'outbound' | 'outer' | 'mode'>,
  { newSource, newPort }: Mapping,
): boolean {
  if (Buffer.compare(newSource, child.outer.remote) !== 0) return false;
  try {
    update(xfrm, child.outbound, child.mode, { destinationPort: newPort });
    update(xfrm, child.inbound, child.mode, { sourcePort: newPort });
    return true;
  } catch (error) {
    if (error instanceof KernelError) return false;
    throw error;
  }
}

function update(
  xfrm: Pick<Xfrm, 'getSa' | 'updateSa'>,
  id: SaId,
  mode: Mode,
  port: { sourcePort: number } | { destinationPort: number },
): void {
  const { spi, source, destination, reqid, esn, replayWindow, encapsulation } = xfrm.getSa(id);
  if (!encapsulation) return;
  const sa = { spi, source, destination, reqid, mode, esn, replayWindow, cipher: unusedCipher };
  xfrm.updateSa({ ...sa, encapsulation: { ...encapsulation, ...port } });
}
