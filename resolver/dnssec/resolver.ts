/** The validating resolver: asks upstream, has each message judged, follows aliases, adds up the verdicts. */
import type { ExtendedError } from '../dns/edns.ts';
import type { Message } from '../dns/message.ts';
import type { Name } from '../dns/name.ts';
import type { Rrset } from '../dns/rrset.ts';
import { EDE, RCODE, rcodeToText, TYPE, typeToText } from '../dns/types.ts';
import type { TrustAnchor } from './anchors.ts';
import { ChainOfTrust } from './chain.ts';
import { MessageJudge, rank, type Step } from './judge.ts';
import { type KeptAnswers, NOTHING_KEPT } from './kept.ts';
import { recall } from './recall.ts';
import { type Exchange, type Resolution, type UpstreamQuestion, type Verdict, wasNotAsked } from './types.ts';
import { DEFAULT_LIMITS, Ledger, type Limits, Work, WorkExceeded } from './work.ts';

export type ValidatingResolverOptions = {
  exchange: Exchange;
  anchors: readonly TrustAnchor[];
  /** Zones taken as insecure whatever their signatures say (RFC 7646). */
  negativeAnchors?: readonly Name[];
  /** Unix seconds by which signatures are judged. */
  now: () => number;
  /** Where judged answers are kept; without it everything is asked anew. */
  kept?: KeptAnswers;
  limits?: Partial<Limits>;
  /** Whether who answers the one would be asked for the other too: what a message tells beyond that does not count. */
  sameServers?: (one: UpstreamQuestion, other: UpstreamQuestion) => boolean;
};

/** `refresh`: ask upstream even for what is kept. */
export type LookupOptions = { signal?: AbortSignal; refresh?: boolean };

/** How long what could not be proven or fetched may be kept (RFC 9520 §3.2). */
const FAILURE_TTL_SECONDS = 5;

export class ValidatingResolver {
  readonly #exchange: Exchange;
  readonly #chain: ChainOfTrust;
  readonly #now: () => number;
  readonly #kept: KeptAnswers;
  readonly #limits: Limits;
  readonly #ledger: Ledger;
  readonly #sameServers: (one: UpstreamQuestion, other: UpstreamQuestion) => boolean;

  constructor({
    exchange,
    anchors,
    negativeAnchors = [],
    now,
    kept = NOTHING_KEPT,
    limits,
    sameServers = () => true,
  }: ValidatingResolverOptions) {
    this.#exchange = exchange;
    this.#chain = new ChainOfTrust(exchange, anchors, negativeAnchors, now, kept);
    this.#now = now;
    this.#kept = kept;
    this.#limits = { ...DEFAULT_LIMITS, ...limits };
    this.#ledger = new Ledger(now);
    this.#sameServers = sameServers;
  }

  /** Signatures checked and NSEC3 rounds hashed so far, and questions that reached a limit (work.ts). */
  counters(): ReturnType<Ledger['counters']> {
    return this.#ledger.counters();
  }

  /** Other trust anchors from now on; all that was judged by the old ones is forgotten. */
  setAnchors(anchors: readonly TrustAnchor[], negativeAnchors?: readonly Name[]): void {
    this.#chain.setAnchors(anchors, negativeAnchors);
    this.flushAll();
  }

  /** Forgets all kept answers of `name`, the denials of its zone, and the chain of trust down to it. */
  flush(name: Name): number {
    this.#chain.flush(name);
    return this.#kept.flush(name);
  }

  /** Forgets where chains of trust broke, with the chains: what is kept of their RRsets builds them anew. */
  flushFailures(): void {
    this.#chain.flushAll();
  }

  /** Forgets that, and whatever else is not proven: another network may say otherwise. */
  flushUnproven(): number {
    this.#chain.flushAll();
    return this.#kept.flushInsecure();
  }

  /** Forgets everything, failures too: for another network, or other anchors. */
  flushAll(): number {
    this.#chain.flushAll();
    return this.#kept.flushAll();
  }

  /**
   * The judged answer (RFC 4035 §4.3): each alias and the final data have their own verdict, the weakest is the whole's.
   *
   * Never rejects. `signal` ends the questions for the answer itself; DS and DNSKEY are shared and go on.
   * A message that is bogus is asked for once more, of another server when there is one.
   */
  async lookup(name: Name, type: number, options: LookupOptions = {}): Promise<Resolution> {
    const progress = new Progress(name, type);
    const work = new Work(this.#limits, this.#ledger);
    try {
      const resolution = await this.#follow(progress, work, options);
      if (resolution.verdict === 'bogus') work.wasted();
      return resolution;
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      if (error instanceof WorkExceeded) return progress.ended('bogus', { code: EDE.DNSSEC_BOGUS, text });
      if (wasNotAsked(error)) {
        return { ...progress.ended('indeterminate', { code: EDE.NETWORK_ERROR, text }), transient: true };
      }
      return progress.ended('indeterminate', { code: EDE.OTHER, text: `internal error: ${text}` });
    }
  }

  async #follow(
    progress: Progress,
    work: Work,
    { signal, refresh = false }: LookupOptions,
  ): Promise<Resolution> {
    const { type } = progress;
    const seen = new Set<string>();
    const { era } = this.#chain;
    let judge: MessageJudge | undefined;
    let asked = progress.name;
    while (!seen.has(progress.current.key) && seen.size <= this.#limits.aliases) {
      const name = progress.current;
      seen.add(name.key);
      let step: Step | undefined;
      if (!refresh) step = await recall(this.#kept, this.#chain, name, type, this.#limits);
      const mayTell = this.#sameServers({ name: asked, type }, { name, type });
      if (step === undefined && mayTell && judge?.speaksOf(name, type)) {
        step = await judge.judge(name, type);
        // What a message tells beyond the name it was asked for counts for others only with a signature (RFC 2181 §5.4.1).
        if (era === this.#chain.era) this.#keep(step, name, type, false);
      }
      for (let attempt = 0; attempt < 2 && (step === undefined || step.verdict === 'bogus'); attempt++) {
        if (step !== undefined && !work.allowsRetry) break;
        const message = await this.#ask(name, type, attempt, signal);
        if (!('questions' in message)) {
          if (step !== undefined) break; // no second opinion: the first stands
          return progress.ended('indeterminate', message);
        }
        asked = name;
        judge = new MessageJudge(message, this.#chain, this.#now, work);
        step = await judge.judge(name, type);
        if (era === this.#chain.era) this.#keep(step, name, type, true);
      }
      progress.add(step!);
      if (step!.kind === 'invalid') return progress.ended('indeterminate', step!.ede!);
      if (step!.kind === 'end') return progress.finished(step!.outcome);
      if (step!.verdict === 'bogus') return progress.finished('positive');
      if (step!.target === undefined) return progress.tooLong();
      progress.current = step!.target;
    }
    const text = `aliases of ${progress.name.toText()} go in circles or on for too long`;
    return progress.ended('indeterminate', { code: EDE.OTHER, text });
  }

  /** Keeps what a message said of `name`; unsigned data only when `asked`, that is as the answer to the question itself. */
  #keep(step: Step, name: Name, type: number, asked: boolean): void {
    for (const { rrset, verdict, ede, proofs, source } of step.judged) {
      if (verdict !== 'secure' && (verdict !== 'insecure' || !asked || type === TYPE.ANY)) continue;
      if (verdict === 'insecure' && !rrset.name.equals(name)) continue; // a DNAME above speaks for too many
      const found = { rrset, verdict, proofs, ...(ede && { ede }) };
      const synthesizable = source !== undefined && this.#kept.keepDenials(source.zone, source.denials);
      const wildcard = verdict === 'secure' ? source?.closest.wildcard() : undefined;
      if (wildcard !== undefined)
        this.#kept.keepRrset({ rrset: { ...rrset, name: wildcard }, verdict, proofs: [] });
      if (wildcard === undefined || !synthesizable) this.#kept.keepRrset(found);
    }
    if (step.kind !== 'end' || step.outcome === 'positive') return;
    const { outcome, verdict, ede, answer, authority, ttlSeconds, denial } = step;
    const synthesizable = denial !== undefined && this.#kept.keepDenials(denial.zone, denial.rrsets);
    if (answer.length > 0) return; // it is the target of the name that is not there
    if ((verdict === 'secure' && synthesizable) || (verdict !== 'secure' && verdict !== 'insecure')) return;
    if (verdict === 'insecure' && !asked) return;
    this.#kept.keepAbsence(name, type, { outcome, verdict, authority, ttlSeconds, ...(ede && { ede }) });
  }

  /** The message, or why there is none to judge. */
  async #ask(
    name: Name,
    type: number,
    attempt: number,
    signal: AbortSignal | undefined,
  ): Promise<Message | ExtendedError> {
    try {
      const message = await this.#exchange(attempt === 0 ? { name, type } : { name, type, attempt }, signal);
      const { rcode } = message;
      if (rcode === RCODE.NOERROR || rcode === RCODE.NXDOMAIN || rcode === RCODE.YXDOMAIN) return message;
      const text = `upstream answered ${rcodeToText(rcode)} for ${typeToText(type)} of ${name.toText()}`;
      return { code: EDE.NO_REACHABLE_AUTHORITY, text };
    } catch (error) {
      // A second opinion that could not be asked for leaves the first as it is.
      if (attempt === 0 && wasNotAsked(error)) throw error;
      return { code: EDE.NETWORK_ERROR, text: error instanceof Error ? error.message : String(error) };
    }
  }
}

/** What has been found so far on the way from the asked name to its end. */
class Progress {
  readonly name: Name;
  readonly type: number;
  current: Name;
  #verdict: Verdict = 'secure';
  #ede: ExtendedError | undefined;
  #ttlSeconds = Number.POSITIVE_INFINITY;
  readonly #answer: Rrset[] = [];
  readonly #authority = new Set<Rrset>();

  constructor(name: Name, type: number) {
    this.name = name;
    this.type = type;
    this.current = name;
  }

  add(step: Step): void {
    if (rank(step.verdict) > rank(this.#verdict)) {
      this.#verdict = step.verdict;
      this.#ede = step.ede;
    }
    this.#ede ??= step.ede;
    this.#answer.push(...step.answer);
    for (const rrset of step.authority) this.#authority.add(rrset);
    this.#ttlSeconds = Math.min(this.#ttlSeconds, step.ttlSeconds);
  }

  finished(outcome: 'positive' | 'nodata' | 'nxdomain'): Resolution {
    return this.#resolution(
      outcome,
      outcome === 'nxdomain' ? RCODE.NXDOMAIN : RCODE.NOERROR,
      this.#verdict,
      this.#ede,
    );
  }

  /** RFC 6672 §2.2: the DNAME stands, the name it makes does not fit. */
  tooLong(): Resolution {
    return this.#resolution('positive', RCODE.YXDOMAIN, this.#verdict, this.#ede);
  }

  ended(verdict: Verdict, ede: ExtendedError): Resolution {
    return this.#resolution('failure', RCODE.SERVFAIL, verdict, ede);
  }

  #resolution(
    outcome: Resolution['outcome'],
    rcode: number,
    verdict: Verdict,
    ede: ExtendedError | undefined,
  ): Resolution {
    const failed = outcome === 'failure' || verdict === 'bogus';
    return {
      question: { name: this.name, type: this.type },
      rcode,
      verdict,
      ...(ede !== undefined && { ede }),
      answer: this.#answer,
      authority: [...this.#authority],
      canonicalName: this.current,
      outcome,
      ttlSeconds: failed ? FAILURE_TTL_SECONDS : this.#ttlSeconds,
    };
  }
}
