/**
 * Blocks: standing refusals below the seals. What no stronger policy takes to an address does not leave; connect(2) and
 * sendto(2) give EPERM at once.
 *
 * Equivalent to `ip xfrm policy add src 0.0.0.0/0 dst ADDRESS/32 dir out priority 2000 action block`.
 */
import { constants } from 'node:os';
import { KernelError } from './error.ts';
import type { Marks } from './marks.ts';
import { BLOCK_PRIORITY } from './pair.ts';
import type { Policy, PolicyStatus, Xfrm } from './xfrm.ts';

export class XfrmBlocks {
  readonly #xfrm: Pick<Xfrm, 'installPolicy' | 'removePolicy'>;
  readonly #marks: Marks;
  readonly #indexes = new Map<string, number>();

  constructor(xfrm: Pick<Xfrm, 'installPolicy' | 'removePolicy'>, marks: Marks) {
    this.#xfrm = xfrm;
    this.#marks = marks;
  }

  /** 4 or 16 octets. Blocked already: nothing to do. Throws KernelError. */
  block(remote: Uint8Array): void {
    const key = keyOf(remote);
    if (this.#indexes.has(key)) return;
    const index = this.#marks.takeIndex('out');
    try {
      this.#xfrm.installPolicy(blockPolicy(remote, index));
    } catch (error) {
      this.#marks.giveBackIndex(index);
      throw error;
    }
    this.#indexes.set(key, index);
  }

  unblock(remote: Uint8Array): void {
    const index = this.#indexes.get(keyOf(remote));
    if (index === undefined) return;
    this.#indexes.delete(keyOf(remote));
    this.#marks.giveBackIndex(index);
    try {
      this.#xfrm.removePolicy({ direction: 'out', index });
    } catch (error) {
      if (!(error instanceof KernelError) || error.errno !== constants.errno.ENOENT) throw error;
    }
  }

  /** Takes over a block of ours that an earlier run left; undefined when the policy is something else. */
  adopt({ action, direction, index, selector }: PolicyStatus): Uint8Array | undefined {
    if (action !== 'block' || direction !== 'out') return undefined;
    this.#marks.reserveIndex(index);
    this.#indexes.set(keyOf(selector.destination), index);
    return selector.destination;
  }

  /** Addresses whose block is not among these policies any more are blocked again; returns how many. */
  restore(policies: Map<number, PolicyStatus>): number {
    const lost = [...this.#indexes].filter(([, index]) => policies.get(index)?.action !== 'block');
    for (const [key] of lost) {
      const remote = Uint8Array.from(Buffer.from(key, 'hex'));
      this.#indexes.delete(key);
      this.block(remote);
    }
    return lost.length;
  }

  indexes(): number[] {
    return [...this.#indexes.values()];
  }

  clear(): void {
    this.#indexes.clear();
  }
}

function blockPolicy(remote: Uint8Array, index: number): Policy {
  const family = remote.length === 4 ? 4 : 6;
  const selector = {
    family,
    source: new Uint8Array(remote.length),
    sourcePrefix: 0,
    destination: remote,
    destinationPrefix: remote.length * 8,
  } as const;
  return { selector, direction: 'out', action: 'block', priority: BLOCK_PRIORITY, index };
}

function keyOf(remote: Uint8Array): string {
  return Buffer.from(remote).toString('hex');
}
