/**
 * The story of each answer: what was known when, what was decided and why.
 *
 * One Story per question that went through the capture; the last one of each name and type is kept, within bounds, for
 * `explain` and the log. Times are milliseconds since the question, with fractions.
 */
import { formatIpAddress, type IpAddress } from '../address.ts';
import type { Assurance, PolicyGroup } from './groups.ts';
import type { NegotiationFailure } from './interfaces.ts';

export type AddressStory = {
  address: IpAddress;
  answered: boolean;
  group: PolicyGroup;
  assurance: Assurance;
  fingerprint?: string;
  /** The gateway that holds the key. */
  via?: IpAddress;
  why?: string;
  /** How the negotiation failed, if one did. */
  failure?: NegotiationFailure['code'];
  /** The EDE code that fits `why` (RFC 8914 §4). */
  code?: number | undefined;
};

export class Story {
  readonly name: string;
  readonly type: number;
  readonly steps: { at: number; what: string; detail?: string }[] = [];
  canonicalName: string | undefined;
  group: PolicyGroup | undefined;
  addresses: AddressStory[] = [];
  rcode = 0;
  ede: { code: number; text: string }[] = [];
  /** Whether the answer waited for a negotiation. */
  held = false;
  answerMillis: number | undefined;
  dnsMillis: number | undefined;
  ikeMillis: number | undefined;
  kernelMillis: number | undefined;
  /** Unix milliseconds of the question. */
  readonly askedAt: number;
  /** Fires when nobody waits for the answer any more. */
  readonly signal: AbortSignal | undefined;
  readonly #now: () => number;
  readonly #start: number;

  constructor(
    name: string,
    type: number,
    now: () => number,
    asked: { unixNow: number; signal?: AbortSignal | undefined },
  ) {
    this.askedAt = asked.unixNow;
    this.signal = asked.signal;
    this.name = name;
    this.type = type;
    this.#now = now;
    this.#start = now();
  }

  /** Notes a step now, or at a moment of the same clock that has passed already. */
  step(what: string, detail?: string, when: number = this.#now()): void {
    const at = Math.max(0, when - this.#start);
    this.steps.push(detail === undefined ? { at, what } : { at, what, detail });
  }

  elapsed(): number {
    return this.#now() - this.#start;
  }

  /** The weakest assurance among the addresses that were answered; `blocked` when none was although there were some. */
  assurance(): Assurance {
    const answered = this.addresses.filter(address => address.answered);
    if (answered.length === 0) return this.addresses.length > 0 || this.rcode === 2 ? 'blocked' : 'clear';
    return answered.some(address => address.assurance === 'clear') ? 'clear' : answered[0]!.assurance;
  }

  /** In time order: negotiations report their moments after the fact. */
  finish(): void {
    this.answerMillis = this.elapsed();
    this.steps.sort((a, b) => a.at - b.at);
  }

  /** One line for the log. */
  summary(): Record<string, unknown> {
    return {
      name: this.name,
      type: this.type,
      group: this.group,
      assurance: this.assurance(),
      rcode: this.rcode,
      addresses: this.addresses.filter(a => a.answered).map(a => formatIpAddress(a.address)),
      answerMs: round(this.answerMillis),
      dnsMs: round(this.dnsMillis),
      ikeMs: round(this.ikeMillis),
      kernelMs: round(this.kernelMillis),
      ...(this.ede.length > 0 ? { ede: this.ede } : {}),
    };
  }
}

/** What an answer with hundreds of addresses tells of them, so that no zone can fill our memory. */
const MAX_ADDRESSES = 16;

/** The last story of each (name, type), the oldest forgotten beyond `maximum`. */
export class Journal {
  readonly #stories = new Map<string, Story>();
  readonly #maximum: number;

  constructor(maximum = 1_000) {
    this.#maximum = maximum;
  }

  keep(story: Story): void {
    if (story.addresses.length > MAX_ADDRESSES) story.addresses = story.addresses.slice(0, MAX_ADDRESSES);
    const key = `${story.name} ${story.type}`;
    this.#stories.delete(key);
    this.#stories.set(key, story);
    if (this.#stories.size > this.#maximum) this.#stories.delete(this.#stories.keys().next().value!);
  }

  /** Forgets the stories of a name and returns them. */
  forget(name: string): Story[] {
    const forgotten = [...this.#stories.values()].filter(story => story.name === name);
    for (const story of forgotten) this.#stories.delete(`${story.name} ${story.type}`);
    return forgotten;
  }

  clear(): void {
    this.#stories.clear();
  }

  find(name: string, type: number): Story | undefined {
    return this.#stories.get(`${name} ${type}`);
  }
}

export function round(millis: number | undefined): number | undefined {
  return millis === undefined ? undefined : Math.round(millis * 1000) / 1000;
}
