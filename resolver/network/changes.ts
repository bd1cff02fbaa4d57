/** Which of the kernel's events mean that this may be another network. Pure; most events mean nothing. */
import type { LinkEvent } from './interfaces.ts';

/**
 * What is remembered of links, addresses and default routes, to tell a change from a renewal: router advertisements
 * and DHCP tell the same address again every few minutes.
 */
export class NetworkChanges {
  readonly #running = new Map<number, boolean>();
  readonly #addresses: Set<string>;
  readonly #routes = new Set<string>();

  /** `addresses`: those that this host has at the start, as bytes. */
  constructor(addresses: readonly Uint8Array[]) {
    this.#addresses = new Set(addresses.map(hex));
  }

  /** Why this may be another network; undefined when it is the same. */
  observe(event: LinkEvent): string | undefined {
    switch (event.kind) {
      case 'overflow':
        return 'events of the kernel were lost';
      case 'link': {
        const before = this.#running.get(event.index);
        remember(this.#running, event.index, event.running);
        // Its routes go with it, of which the kernel does not always tell: one that comes back is a new one.
        if (!event.running) this.#forgetRoutes(event.index);
        // First told of: a link that has been there is told of for many reasons.
        if (before === event.running || before === undefined) return undefined;
        return event.running ? 'a link came up' : 'a link went down';
      }
      case 'address':
        return this.#differs(this.#addresses, hex(event.address), event.present)
          ? addressText(event.present)
          : undefined;
      case 'defaultRoute': {
        const key = `${event.index} ${event.gateway ? hex(event.gateway) : ''}`;
        // A route that goes was there, known or not.
        const changed = this.#differs(this.#routes, key, event.present) || !event.present;
        return changed ? 'the default route changed' : undefined;
      }
    }
  }

  #forgetRoutes(index: number): void {
    for (const key of this.#routes) if (key.startsWith(`${index} `)) this.#routes.delete(key);
  }

  #differs(known: Set<string>, key: string, present: boolean): boolean {
    if (known.has(key) === present) return false;
    if (present) known.add(key);
    else known.delete(key);
    if (known.size > MAX_KNOWN) known.delete(known.values().next().value!);
    return true;
  }
}

/** A host that makes and drops links by the thousand (containers) costs no more memory than this many of each. */
const MAX_KNOWN = 4096;

function remember(running: Map<number, boolean>, index: number, value: boolean): void {
  running.delete(index);
  running.set(index, value);
  if (running.size > MAX_KNOWN) running.delete(running.keys().next().value!);
}

const addressText = (present: boolean) => (present ? 'an address came' : 'an address went');

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
