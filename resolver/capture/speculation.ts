/**
 * Speculation: IKE_SA_INIT goes out as soon as an unvalidated answer shows an address and a key.
 *
 * It reveals nothing but that we might talk to that address, and it hides one round trip behind DNSSEC validation
 * and whatever else the answer waits for. What validation then refuses is cancelled; nothing is proven before IKE_AUTH.
 */
import { formatIpAddress, type IpAddress } from '../address.ts';
import { type IpseckeyGateway, parseIpseckey } from '../dns/ipseckey.ts';
import type { Message } from '../dns/message.ts';
import type { Name } from '../dns/name.ts';
import { TYPE } from '../dns/types.ts';
import type { Negotiation, Negotiator } from './interfaces.ts';
import { bytesEqual, effectiveAddress, isGroupAddress, isHostLocal } from './keys.ts';

/** Bounds of unvalidated eagerness: per question and in all. */
const MAX_PER_QUESTION = 4;
const MAX_OPEN = 64;
/** An address that somebody else's name points at must not hear from us with every question. */
const COOL_DOWN_MILLIS = 10_000;
const MAX_COOLING = 1_000;

/** What has been seen for one question that is being answered. */
export interface Speculation {
  /** The negotiation begun with this address, if there is one; the taker uses or cancels it. */
  take(address: IpAddress): Negotiation | undefined;
  /** Cancels what nobody took. */
  close(): void;
}

type Watch = {
  type: number;
  wanted: (address: IpAddress) => boolean;
  gateways: IpseckeyGateway[];
  addresses: IpAddress[];
  begun: Map<string, Negotiation>;
};

export class Speculations {
  readonly #negotiator: Negotiator;
  readonly #now: () => number;
  readonly #watches = new Map<string, Set<Watch>>();
  readonly #cooling = new Map<string, number>();
  #open = 0;

  constructor(options: { negotiator: Negotiator; now: () => number }) {
    this.#negotiator = options.negotiator;
    this.#now = options.now;
  }

  /** Watches the upstream's answers for a question; `wanted` tells whether an address would be negotiated with at all. */
  open(name: Name, type: number, wanted: (address: IpAddress) => boolean): Speculation {
    const watch: Watch = { type, wanted, gateways: [], addresses: [], begun: new Map() };
    const watches = this.#watches.get(name.key) ?? new Set();
    this.#watches.set(name.key, watches.add(watch));
    return {
      take: address => {
        const text = formatIpAddress(address);
        const negotiation = watch.begun.get(text);
        if (negotiation) this.#release(watch, text);
        return negotiation;
      },
      close: () => {
        watches.delete(watch);
        if (watches.size === 0) this.#watches.delete(name.key);
        for (const [text, negotiation] of [...watch.begun]) {
          this.#release(watch, text);
          negotiation.cancel();
        }
      },
    };
  }

  /** An answer as the upstream gave it, before anybody validated it. */
  observe(name: Name, type: number, message: Message): void {
    const watches = this.#watches.get(name.key);
    if (!watches) return;
    for (const watch of watches) {
      if (type === TYPE.IPSECKEY) {
        watch.gateways = message.answer
          .filter(record => record.type === TYPE.IPSECKEY && !record.malformed)
          .slice(0, MAX_PER_QUESTION)
          .map(record => parseIpseckey(record.rdata)?.gateway)
          .filter(gateway => gateway !== undefined);
      }
      if (type === watch.type) {
        watch.addresses = message.answer
          .filter(record => record.type === type && !record.malformed)
          .slice(0, MAX_PER_QUESTION)
          .map(record => effectiveAddress(record.rdata))
          .filter(address => address !== undefined);
      }
      this.#begin(watch);
    }
  }

  #begin(watch: Watch): void {
    for (const address of watch.addresses) {
      // First, for most names have no key, and what follows asks the kernel for a route.
      if (!watch.gateways.some(gateway => maySpeakFor(gateway, address))) continue;
      const text = formatIpAddress(address);
      if (watch.begun.has(text) || this.#open >= MAX_OPEN) continue;
      if (isHostLocal(address) || isGroupAddress(address) || !watch.wanted(address)) continue;
      if (!this.#cooled(text)) continue;
      watch.begun.set(text, this.#negotiator.begin(address));
      this.#open++;
    }
  }

  #cooled(text: string): boolean {
    const now = this.#now();
    if ((this.#cooling.get(text) ?? 0) > now) return false;
    this.#cooling.delete(text);
    this.#cooling.set(text, now + COOL_DOWN_MILLIS);
    if (this.#cooling.size > MAX_COOLING) this.#cooling.delete(this.#cooling.keys().next().value!);
    return true;
  }

  #release(watch: Watch, text: string): void {
    watch.begun.delete(text);
    this.#open--;
  }
}

/** Whether the record is likely to lead to a negotiation with the address itself, as far as the record alone tells. */
function maySpeakFor(gateway: IpseckeyGateway, address: IpAddress): boolean {
  if (gateway.kind === 'none' || gateway.kind === 'name') return true;
  return bytesEqual(gateway.address, address.bytes);
}
