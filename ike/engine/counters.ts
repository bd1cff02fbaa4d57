/** What happened, by name; every name is always there, so that a graph starts at 0. */
export const counterNames = [
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
