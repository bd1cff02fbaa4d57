/**
 * Guards: what should be private stays so when its seal goes.
 *
 * Before an address is answered for a name whose group never goes clear, a block is put under its seal: when the SAs go
 * (the peer deletes them, somebody flushes them, we crash), or when an app uses another source address than the sealed
 * one, packets do not leave at all. A guard stands as long as the seal, and an hour longer than the last answer.
 */
import { formatIpAddress, type IpAddress } from '../address.ts';
import type { Blocks } from './interfaces.ts';

const GUARD_MILLIS = 3_600_000;
const MAX_GUARDS = 20_000;

type Guard = { address: IpAddress; names: Map<string, number> };

export class Guards {
  readonly #blocks: Blocks;
  readonly #now: () => number;
  readonly #guards = new Map<string, Guard>();

  constructor(options: { blocks: Blocks; now: () => number }) {
    this.#blocks = options.blocks;
    this.#now = options.now;
  }

  /** Guards the address for this name. Undefined, or why it cannot be; then the address must not be answered. */
  hold(address: IpAddress, name: string): string | undefined {
    const text = formatIpAddress(address);
    const known = this.#guards.get(text);
    if (!known) {
      if (this.#guards.size >= MAX_GUARDS) return 'too many addresses are guarded';
      try {
        this.#blocks.block(address);
      } catch (error) {
        return error instanceof Error ? error.message : String(error);
      }
    }
    const guard = known ?? { address, names: new Map() };
    guard.names.set(name, this.#now() + GUARD_MILLIS);
    this.#guards.set(text, guard);
    return undefined;
  }

  /** The block is in the kernel already, from an earlier run. */
  adopt(address: IpAddress): void {
    this.#guards.set(formatIpAddress(address), {
      address,
      names: new Map([['', this.#now() + GUARD_MILLIS]]),
    });
  }

  /** The name's group allows this address in clear now, so it asks for no guard any more. */
  release(address: IpAddress, name: string): void {
    const guard = this.#guards.get(formatIpAddress(address));
    if (guard?.names.delete(name) && guard.names.size === 0) this.#lift(guard);
  }

  /** Lifts what has had its time; `sealed` tells where a seal stands. To be called now and then. */
  sweep(sealed: (address: IpAddress) => boolean): void {
    const now = this.#now();
    for (const guard of [...this.#guards.values()]) {
      if (sealed(guard.address)) continue;
      for (const [name, until] of guard.names) if (until <= now) guard.names.delete(name);
      if (guard.names.size === 0) this.#lift(guard);
    }
  }

  get size(): number {
    return this.#guards.size;
  }

  #lift(guard: Guard): void {
    this.#guards.delete(formatIpAddress(guard.address));
    this.#blocks.unblock(guard.address);
  }
}
