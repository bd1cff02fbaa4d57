import type { IpAddress } from '../types.ts';
import { addressKey } from './addresses.ts';

/** What happened, by name; every name is always there, so that a graph starts at 0. */
const counterNames = [
  'received',
  'sent',
  'retransmitted',
  'answerRepeated',
  'initRequests',
  'established',
  'failed',
  'closed',
  'keyRetries',
  'cookieDemanded',
  'cookieWrong',
  'cookieAnswered',
  'keyExchangeRetried',
  'fragmentsReceived',
  'errorRepliesSent',
  'errorRepliesSuppressed',
  'authenticationFailed',
  'initialContact',
  'keepalives',
  'unauthenticatedNotify',
  'droppedMalformed',
  'droppedNotIke',
  'droppedUnknownSpi',
  'droppedReflected',
  'droppedNotAuthentic',
  'droppedMessageId',
  'droppedOutOfState',
  'droppedHalfOpenLimit',
  'droppedSaLimit',
  'droppedLookupLimit',
  'droppedStranger',
  'droppedAddress',
  'stillWorking',
  'internalErrors',
] as const;

export type CounterName = (typeof counterNames)[number];

export class Counters {
  #values = new Map<CounterName, number>(counterNames.map(name => [name, 0]));

  add(name: CounterName): void {
    this.#values.set(name, this.#values.get(name)! + 1);
  }

  values(): Record<CounterName, number> {
    return Object.fromEntries(this.#values) as Record<CounterName, number>;
  }
}

/**
 * How many of something each source has. One host may have a whole IPv6 /64 to itself, a network may have no more: a /64
 * counts as four addresses.
 */
export class PerSource {
  #counts = new Map<string, number>();

  add(address: IpAddress, change: 1 | -1): void {
    for (const key of [addressKey(address), networkKey(address)]) {
      if (key === undefined) continue;
      const count = (this.#counts.get(key) ?? 0) + change;
      if (count > 0) this.#counts.set(key, count);
      else this.#counts.delete(key);
    }
  }

  of(address: IpAddress): number {
    const network = networkKey(address);
    const inNetwork = network === undefined ? 0 : (this.#counts.get(network) ?? 0);
    return Math.max(this.#counts.get(addressKey(address)) ?? 0, Math.floor(inNetwork / 4));
  }
}

function networkKey({ family, bytes }: IpAddress): string | undefined {
  return family === 6 ? addressKey({ family, bytes: bytes.subarray(0, 8) }) : undefined;
}

/** At most `perSecond` of something, with bursts of as many. */
export class RateLimit {
  #perSecond: number;
  #tokens: number;
  #at = 0;

  constructor(perSecond: number) {
    this.#perSecond = perSecond;
    this.#tokens = perSecond;
  }

  allow(now: number): boolean {
    this.#tokens = Math.min(
      this.#perSecond,
      this.#tokens + (Math.max(0, now - this.#at) * this.#perSecond) / 1000,
    );
    this.#at = now;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}
