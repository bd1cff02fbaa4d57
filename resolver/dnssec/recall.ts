/** Answers out of what was judged before: kept RRsets and aliases, and denials put to wider use (RFC 6672 §3.4, RFC 8198). */
import { parseRrsig } from '../dns/dnssec-rdata.ts';
import { Name } from '../dns/name.ts';
import { TYPE } from '../dns/types.ts';
import type { ChainOfTrust } from './chain.ts';
import { Denial } from './denial.ts';
import { absenceStep, cnameStep, dnameStep, type Judgement, positiveStep, type Step } from './judge.ts';
import type { KeptAnswers, KeptRrset } from './kept.ts';
import { type Limits, Work, WorkExceeded } from './work.ts';

/** Asking costs less than more of this: a name is looked for with a few hashes, or not at all. */
const NSEC3_ROUNDS = 500;

/** The step from `name` that what is kept allows, asking nobody; undefined when it does not say. */
export async function recall(
  kept: KeptAnswers,
  chain: ChainOfTrust,
  name: Name,
  type: number,
  limits: Limits,
): Promise<Step | undefined> {
  if (type === TYPE.ANY || type === TYPE.RRSIG) return undefined; // no set of them is known to be whole
  const dname = kept.dnameAbove(name);
  if (dname !== undefined) return dnameStep(dname, name, type);
  const exact = kept.rrset(name, type);
  if (exact !== undefined) return positiveStep([exact]);
  const cname = mayBeAliased(type) ? kept.rrset(name, TYPE.CNAME) : undefined;
  if (cname !== undefined) return cnameStep(cname);
  const absence = kept.absence(name, type);
  if (absence !== undefined) {
    const step = absenceStep(absence.outcome, absence.verdict, absence.authority, absence.ede);
    return { ...step, ttlSeconds: Math.min(step.ttlSeconds, absence.ttlSeconds) };
  }
  return denied(kept, chain, name, type, limits);
}

/**
 * What the parent's kept denials say of a zone cut at `name`; undefined when they do not say.
 *
 * An opt-out span counts here: it shows that there is no signed delegation (RFC 5155 §8.9).
 */
export async function recallCut(
  kept: KeptAnswers,
  zone: Name,
  name: Name,
  limits: Limits,
): Promise<{ kind: 'noDs' | 'notCut' | 'nothing'; ttlSeconds: number } | undefined> {
  const denials = kept.denialsOf(zone);
  if (denials === undefined) return undefined;
  return affordable(async () => {
    const denial = Denial.recall(denials, name, recallWork(limits));
    const kind = await denial.ofDs(name);
    if (typeof kind !== 'string') return undefined;
    return { kind, ttlSeconds: Math.min(...denial.rrsets.map(({ ttlSeconds }) => ttlSeconds)) };
  });
}

/** RFC 8198 §5: only what is proven securely, and below no anchor of its own. */
async function denied(
  kept: KeptAnswers,
  chain: ChainOfTrust,
  name: Name,
  type: number,
  limits: Limits,
): Promise<Step | undefined> {
  const governed = type === TYPE.DS ? (name.parent() ?? Name.root) : name;
  const denials = kept.denialsAbove(governed);
  if (denials === undefined) return undefined;
  // Most names that are asked for are not denied; to see that costs little.
  if (denials.nsec3Chains.length === 0 && denials.nsecFor(name) === undefined) return undefined;
  if (!chain.mayJudge(denials.zone, governed)) return undefined;
  return affordable(async () => {
    const denial = Denial.recall(denials, name, recallWork(limits));
    if (denials.soa() !== undefined) {
      const found = await denial.ofAnswer(name, type, true);
      if (found.status === 'secure') return absenceStep(found.outcome, 'secure', denial.rrsets);
    }
    return fromWildcard(kept, denial, denials.zone, name, type);
  });
}

/** §5.3: a wildcard that is kept, and the denial of everything closer to the name. */
async function fromWildcard(
  kept: KeptAnswers,
  denial: Denial,
  zone: Name,
  name: Name,
  type: number,
): Promise<Step | undefined> {
  if (type === TYPE.DS || type === TYPE.NSEC) return undefined;
  for (let labels = name.labelCount - 1; labels >= zone.labelCount; labels--) {
    const closest = name.suffix(labels);
    const wildcard = closest.wildcard();
    if (wildcard === undefined) continue;
    const found = kept.rrset(wildcard, type) ?? (mayBeAliased(type) && kept.rrset(wildcard, TYPE.CNAME));
    if (!found || !isSignedBy(found, zone)) continue;
    const { status } = await denial.ofCloserName(name, closest);
    if (status !== 'secure') return undefined;
    const proofs = denial.rrsets.filter(rrset => rrset.type !== TYPE.SOA);
    const judgement: Judgement = { verdict: 'secure', rrset: { ...found.rrset, name }, proofs };
    const isAlias = found.rrset.type === TYPE.CNAME && type !== TYPE.CNAME;
    return isAlias ? cnameStep(judgement) : positiveStep([judgement]);
  }
  return undefined;
}

function isSignedBy({ verdict, rrset }: KeptRrset, zone: Name): boolean {
  return verdict === 'secure' && rrset.signatures.some(rdata => parseRrsig(rdata)?.signer.equals(zone));
}

/** NSEC stands beside a CNAME (RFC 4034 §4.1.1); all else is elsewhere. */
function mayBeAliased(type: number): boolean {
  return type !== TYPE.NSEC && type !== TYPE.CNAME;
}

function recallWork(limits: Limits): Work {
  return new Work({ ...limits, nsec3Rounds: NSEC3_ROUNDS });
}

async function affordable<T>(look: () => Promise<T | undefined>): Promise<T | undefined> {
  try {
    return await look();
  } catch (error) {
    if (error instanceof WorkExceeded) return undefined;
    throw error;
  }
}
