/** One message, one name: what it says of the name, and how far that can be believed (RFC 4035 §5, RFC 5155 §8). */
import { parseRrsig } from '../dns/dnssec-rdata.ts';
import type { ExtendedError } from '../dns/edns.ts';
import type { Message } from '../dns/message.ts';
import { Name } from '../dns/name.ts';
import { parseTarget } from '../dns/rdata.ts';
import { groupRrsets, type Rrset } from '../dns/rrset.ts';
import { EDE, RCODE, TYPE, typeToText } from '../dns/types.ts';
import type { ChainOfTrust } from './chain.ts';
import { Denial, isProof, negativeTtl, type SecureZone } from './denial.ts';
import { verifyRrset } from './signature.ts';
import type { Verdict } from './types.ts';
import type { Work } from './work.ts';

/**
 * What one message contributes.
 *
 * `end`: the asked RRsets, or their proven or claimed absence. `alias`: a CNAME, or a DNAME with the CNAME made from
 * it; `target` undefined when the new name would be too long (YXDOMAIN, RFC 6672 §2.2). `invalid`: data that can mean nothing.
 */
export type Step = {
  verdict: Verdict;
  ede?: ExtendedError;
  answer: Rrset[];
  authority: Rrset[];
  ttlSeconds: number;
  /** What was found out, each for itself, to be kept. */
  judged: readonly Judgement[];
  /** The zone that denies, with all that it signed. */
  denial?: { zone: Name; rrsets: readonly Rrset[] };
} & (
  | { kind: 'end'; outcome: 'positive' | 'nodata' | 'nxdomain' }
  | { kind: 'alias'; target: Name | undefined }
  | { kind: 'invalid' }
);

/**
 * One RRset of an answer. `source`: the zone that signed it and its denials, where it was made from the wildcard below
 * `closest`.
 */
export type Judgement = {
  verdict: Verdict;
  ede?: ExtendedError;
  rrset: Rrset;
  proofs: Rrset[];
  source?: { zone: Name; closest: Name; denials: readonly Rrset[] };
};

/** More signers than this in one RRset or denial have no honest use. */
const MAX_SIGNERS = 3;
/** Of an answer to ANY, which may always be a subset (RFC 8482 §4.1). */
const MAX_RRSETS = 24;

/** Judges one message; made anew for each, so that its denials are verified once however many aliases need them. */
export class MessageJudge {
  readonly #message: Message;
  readonly #answer: Rrset[];
  readonly #authority: Rrset[];
  readonly #chain: ChainOfTrust;
  readonly #now: () => number;
  readonly #work: Work;
  readonly #denials = new Map<string, Promise<Denial>>();

  /** Throws WorkExceeded when the message has more records than we look at. */
  constructor(message: Message, chain: ChainOfTrust, now: () => number, work: Work) {
    work.records(message);
    this.#message = message;
    this.#answer = groupRrsets(message.answer);
    this.#authority = groupRrsets(message.authority);
    this.#chain = chain;
    this.#now = now;
    this.#work = work;
  }

  /** Whether the message says anything of `name`, having answered for another name that leads to it. */
  speaksOf(name: Name, type: number): boolean {
    if (this.#message.rcode === RCODE.NXDOMAIN) return true;
    if (this.#dnameAbove(name) !== undefined) return true;
    const here = (rrset: Rrset): boolean => rrset.name.equals(name);
    if (this.#answer.some(r => here(r) && (r.type === type || r.type === TYPE.CNAME || type === TYPE.ANY)))
      return true;
    return this.#authority.some(rrset => rrset.type === TYPE.SOA && name.isSubdomainOf(rrset.name));
  }

  /** Throws WorkExceeded. */
  async judge(name: Name, type: number): Promise<Step> {
    if (this.#hasMalformed(name, type)) return invalid(`malformed data for ${name.toText()}`);
    const dname = this.#dnameAbove(name);
    if (dname !== undefined) return this.#withDeniedTarget(await this.#judgeDname(dname, name, type), type);
    const found = this.#answer.filter(rrset => rrset.name.equals(name) && matches(rrset.type, type));
    if (found.length > 0) {
      return this.#withDeniedTarget(await this.#judgePositive(found.slice(0, MAX_RRSETS)), type);
    }
    const cname = this.#answer.find(rrset => rrset.name.equals(name) && rrset.type === TYPE.CNAME);
    return cname === undefined ? this.#judgeAbsence(name, type) : this.#judgeCname(cname);
  }

  async #judgePositive(rrsets: readonly Rrset[]): Promise<Step> {
    const judgements: Judgement[] = [];
    for (const rrset of rrsets) judgements.push(await this.#judgeRrset(rrset));
    return positiveStep(judgements);
  }

  /**
   * RFC 6604 §3: the RCODE is that of the end of the chain, also for a server that goes on from a CNAME that was itself
   * asked for; where it proves what it says, we say so too.
   */
  async #withDeniedTarget(step: Step, type: number): Promise<Step> {
    if (this.#message.rcode !== RCODE.NXDOMAIN || type !== TYPE.CNAME) return step;
    const target = parseTarget(step.answer.at(-1)?.rdatas[0] ?? EMPTY);
    if (step.kind !== 'end' || step.verdict !== 'secure' || target === undefined) return step;
    const absence = await this.#judgeAbsence(target, type);
    if (absence.verdict !== 'secure' || absence.kind !== 'end' || absence.outcome !== 'nxdomain') return step;
    const authority = [...new Set([...step.authority, ...absence.authority])];
    const ttlSeconds = Math.min(step.ttlSeconds, absence.ttlSeconds);
    return { ...step, outcome: 'nxdomain', authority, ttlSeconds, denial: absence.denial };
  }

  async #judgeCname(rrset: Rrset): Promise<Step> {
    if (rrset.rdatas.length > 1) return invalid(`${rrset.name.toText()} has more than one CNAME`);
    const judgement = await this.#judgeRrset(rrset);
    return cnameStep(judgement);
  }

  /** RFC 6672 §5.3: the DNAME is judged, and the CNAME is made here, whatever CNAME came along. */
  async #judgeDname(rrset: Rrset, name: Name, type: number): Promise<Step> {
    if (rrset.rdatas.length > 1) return invalid(`${rrset.name.toText()} has more than one DNAME`);
    const step = dnameStep(await this.#judgeRrset(rrset), name, type);
    // RFC 6672 §3.2: a server says so when the new name is too long; one that says anything else did not do its part.
    const tooLong = step.kind === 'alias' && step.target === undefined;
    if (!tooLong || this.#message.rcode === RCODE.YXDOMAIN) return step;
    return invalid(`${rrset.name.toText()} has a DNAME that makes too long a name of ${name.toText()}`);
  }

  /** RFC 4035 §5.3 for one RRset, with the proof that a wildcard needs. */
  async #judgeRrset(rrset: Rrset): Promise<Judgement> {
    const governed = rrset.type === TYPE.DS ? (rrset.name.parent() ?? Name.root) : rrset.name;
    let best: Judgement | undefined;
    for (const signer of this.#signers([rrset], governed)) {
      const trust = await this.#chain.ofSigner(signer, this.#work);
      const judgement: Judgement =
        trust.status === 'secure'
          ? await this.#judgeSigned(rrset, trust)
          : { verdict: trust.status, ede: trust.ede, rrset, proofs: [] };
      if (best === undefined || rank(judgement.verdict) < rank(best.verdict)) best = judgement;
      if (best.verdict === 'secure') break;
    }
    if (best !== undefined) return best;
    const trust = await this.#chain.ofName(governed, this.#work);
    if (trust.status !== 'secure') return { verdict: trust.status, ede: trust.ede, rrset, proofs: [] };
    // Signatures are not signed themselves; asked for alone they can not be judged (RFC 4035 §2.2).
    if (rrset.type === TYPE.RRSIG) return { verdict: 'insecure', rrset, proofs: [] };
    const text = `no signature for ${typeToText(rrset.type)} of ${rrset.name.toText()} in signed ${trust.zone.toText()}`;
    return { verdict: 'bogus', ede: { code: EDE.RRSIGS_MISSING, text }, rrset, proofs: [] };
  }

  async #judgeSigned(rrset: Rrset, zone: SecureZone): Promise<Judgement> {
    const result = await verifyRrset(rrset, zone.zone, zone.keys, this.#now(), this.#work);
    if (result.status === 'bogus') return { verdict: 'bogus', ede: result.ede, rrset, proofs: [] };
    const verified = { ...rrset, ttlSeconds: result.ttlSeconds };
    if (result.closestEncloser === undefined) return { verdict: 'secure', rrset: verified, proofs: [] };
    if (rrset.type === TYPE.DNAME) {
      const text = `DNAME of ${rrset.name.toText()} was made from a wildcard`; // RFC 4592 §4.4: undefined, so not believed
      return { verdict: 'bogus', ede: { code: EDE.DNSSEC_BOGUS, text }, rrset, proofs: [] };
    }
    const denial = await this.#denial(zone);
    const proof = await denial.ofCloserName(rrset.name, result.closestEncloser);
    const proofs = denial.rrsets.filter(({ type }) => type !== TYPE.SOA);
    const source = { zone: zone.zone, closest: result.closestEncloser, denials: denial.rrsets };
    return { verdict: proof.status, ede: proof.ede, rrset: verified, proofs, source };
  }

  async #judgeAbsence(name: Name, type: number): Promise<Step> {
    if (this.#message.rcode === RCODE.YXDOMAIN)
      return invalid(`YXDOMAIN for ${name.toText()} without a DNAME`);
    const nxdomain = this.#message.rcode === RCODE.NXDOMAIN;
    const governed = type === TYPE.DS ? (name.parent() ?? Name.root) : name;
    const claimed = nxdomain ? 'nxdomain' : 'nodata';
    const seen = this.#authority.filter(rrset => isProof(rrset) && aboveOrProof(rrset, name));
    const unverified = { answer: [], authority: seen, ttlSeconds: negativeTtl(seen), judged: [] };
    let best: Step | undefined;
    const nsecs = seen.filter(rrset => rrset.type !== TYPE.SOA);
    for (const signer of this.#signers([...nsecs, ...seen], governed, nxdomain)) {
      const trust = await this.#chain.ofSigner(signer, this.#work);
      // RFC 6840 §5.10: a zone above the closest anchor may prove that there is nothing, no more, and only while that
      // anchor has no zone that answers: what the public says of a private zone must not deny its names.
      const above = !this.#chain.mayJudge(signer, governed);
      let step: Step;
      if (trust.status === 'secure') {
        const denial = await this.#denial(trust);
        const { status: verdict, ...rest } = await denial.ofAnswer(name, type, nxdomain);
        const outcome = 'outcome' in rest ? rest.outcome : claimed;
        const believed = verdict === 'bogus' ? seen : denial.rrsets;
        step = {
          ...absenceStep(outcome, verdict, believed, rest.ede),
          denial: { zone: trust.zone, rrsets: denial.rrsets },
        };
      } else {
        step = { kind: 'end', outcome: claimed, verdict: trust.status, ede: trust.ede, ...unverified };
      }
      if (above && (step.verdict !== 'secure' || (await this.#isSecure(governed)))) continue;
      if (best === undefined || rank(step.verdict) < rank(best.verdict)) best = step;
      if (best.verdict === 'secure') break;
    }
    if (best !== undefined) return best;
    const trust = await this.#chain.ofName(governed, this.#work);
    const step = { kind: 'end', outcome: claimed, ...unverified } as const;
    if (trust.status !== 'secure') return { ...step, verdict: trust.status, ede: trust.ede };
    const text = `no proof that ${name.toText()} has no ${typeToText(type)} in signed ${trust.zone.toText()}`;
    return { ...step, verdict: 'bogus', ede: { code: EDE.NSEC_MISSING, text } };
  }

  async #isSecure(name: Name): Promise<boolean> {
    return (await this.#chain.ofName(name, this.#work)).status === 'secure';
  }

  #denial(zone: SecureZone): Promise<Denial> {
    const known = this.#denials.get(zone.zone.key);
    if (known !== undefined) return known;
    const made = Denial.collect(this.#authority, zone, this.#now(), this.#work);
    this.#denials.set(zone.zone.key, made);
    return made;
  }

  /** The zones that sign these RRsets and may speak for `name`, in order of appearance; `all` also those above its anchor. */
  #signers(rrsets: readonly Rrset[], name: Name, all: boolean = false): Name[] {
    const found = new Map<string, Name>();
    for (const rrset of rrsets) {
      for (const rdata of rrset.signatures) {
        const signer = parseRrsig(rdata)?.signer;
        if (signer === undefined || !name.isSubdomainOf(signer)) continue;
        if (!all && !this.#chain.mayJudge(signer, name)) continue;
        if (found.size < MAX_SIGNERS) found.set(signer.key, signer);
      }
    }
    return [...found.values()];
  }

  #dnameAbove(name: Name): Rrset | undefined {
    return this.#answer.find(rrset => rrset.type === TYPE.DNAME && name.isBelow(rrset.name));
  }

  #hasMalformed(name: Name, type: number): boolean {
    return this.#message.answer.some(
      record =>
        record.malformed &&
        ((record.name.equals(name) && (matches(record.type, type) || record.type === TYPE.CNAME)) ||
          (record.type === TYPE.DNAME && name.isBelow(record.name))),
    );
  }
}

const EMPTY = new Uint8Array(0);

/** From best to worst. */
export function rank(verdict: Verdict): number {
  return ['secure', 'insecure', 'indeterminate', 'bogus'].indexOf(verdict);
}

function matches(found: number, asked: number): boolean {
  return found === asked || (asked === TYPE.ANY && found !== TYPE.RRSIG);
}

/** A SOA counts when its zone can hold the name; NSEC and NSEC3 always may. */
function aboveOrProof(rrset: Rrset, name: Name): boolean {
  return rrset.type !== TYPE.SOA || name.isSubdomainOf(rrset.name);
}

/** What a CNAME leads to. */
export function cnameStep(judgement: Judgement): Step {
  return { kind: 'alias', target: parseTarget(judgement.rrset.rdatas[0]!), ...summary([judgement]) };
}

/** RFC 6672 §5.3: the CNAME for `name` is made here, whatever CNAME came along. */
export function dnameStep(judgement: Judgement, name: Name, type: number): Step {
  const { rrset } = judgement;
  const target = name.replaceSuffix(rrset.name, parseTarget(rrset.rdatas[0]!)!);
  const sum = summary([judgement]);
  if (target !== undefined) {
    const { ttlSeconds } = rrset;
    const rdatas = [target.wire];
    sum.answer.push({ name, type: TYPE.CNAME, class: rrset.class, ttlSeconds, rdatas, signatures: [] });
    if (type === TYPE.CNAME) return { kind: 'end', outcome: 'positive', ...sum };
  }
  return { kind: 'alias', target, ...sum };
}

export function positiveStep(judgements: readonly Judgement[]): Step {
  return { kind: 'end', outcome: 'positive', ...summary(judgements) };
}

export function absenceStep(
  outcome: 'nodata' | 'nxdomain',
  verdict: Verdict,
  authority: Rrset[],
  ede?: ExtendedError,
): Step {
  const ttlSeconds = negativeTtl(authority);
  return { kind: 'end', outcome, verdict, ede, answer: [], authority, ttlSeconds, judged: [] };
}

function summary(judgements: readonly Judgement[]): Omit<Step, 'kind' | 'outcome' | 'target'> {
  const worst = judgements.reduce((a, b) => (rank(b.verdict) > rank(a.verdict) ? b : a));
  const authority = new Set(judgements.flatMap(({ proofs }) => proofs));
  const ttls = judgements.flatMap(({ rrset, proofs }) => [rrset, ...proofs]).map(rrset => rrset.ttlSeconds);
  return {
    verdict: worst.verdict,
    ede: worst.ede,
    answer: judgements.map(({ rrset }) => rrset),
    authority: [...authority],
    ttlSeconds: Math.min(...ttls),
    judged: judgements,
  };
}

function invalid(text: string): Step {
  const ede = { code: EDE.INVALID_DATA, text };
  return {
    kind: 'invalid',
    verdict: 'indeterminate',
    ede,
    answer: [],
    authority: [],
    ttlSeconds: 0,
    judged: [],
  };
}
