/**
 * Questions other than for addresses: they pass with their verdict, but for what would carry an address past the capture
 * (hints of HTTPS and SVCB, ANY).
 */
import type { IpAddress } from '../address.ts';
import { TYPE } from '../dns/types.ts';
import {
  type CaptureAnswer,
  type CaptureQuestion,
  minimalAny,
  passed,
  refusedResolution,
  SEALED_TTL_SECONDS,
  strippedOfHints,
  withLease,
} from './answers.ts';
import { actionFor } from './decision.ts';
import type { PolicyGroup } from './groups.ts';
import { carriesHints, type HintedTarget, hintedTargets, withoutHints } from './hints.ts';
import type { Lookup } from './interfaces.ts';
import type { Story } from './journal.ts';
import { bytesEqual, effectiveAddress } from './keys.ts';
import { jointly, type Lease, leaseOf } from './lease.ts';
import { namesOf } from './names.ts';

export type SideDoors = {
  lookup: Lookup;
  /** The strictest group that any of the names, or the address itself, puts the address in. */
  groupOf: (names: string[], address: IpAddress) => PolicyGroup;
  /** The whole way of an address question. */
  capture: (
    question: CaptureQuestion,
    signal?: AbortSignal,
  ) => Promise<{ answer: CaptureAnswer; story: Story }>;
};

/** The answer to a question of any type but A and AAAA. */
export function answerOther(
  question: CaptureQuestion,
  doors: SideDoors,
  signal?: AbortSignal,
): Promise<CaptureAnswer> {
  switch (question.type) {
    case TYPE.ANY:
      return any(question, doors, signal);
    case TYPE.HTTPS:
    case TYPE.SVCB:
      return service(question, doors, signal);
    default:
      return passOn(question, doors, signal);
  }
}

/** HTTPS and SVCB: address hints are answered only when the capture of their target would answer them too. */
async function service(
  question: CaptureQuestion,
  doors: SideDoors,
  signal?: AbortSignal,
): Promise<CaptureAnswer> {
  const resolution = await doors.lookup.lookup(question.name, question.type, signal);
  if (resolution.outcome === 'failure' || resolution.verdict === 'bogus')
    return refusedResolution(resolution);
  if (!carriesHints(resolution.answer)) return withLease(passed(resolution), leaseOf(resolution));
  const targets = hintedTargets(resolution.answer);
  const pass = await Promise.all((targets ?? []).map(target => answersAll(question, doors, target, signal)));
  if (targets === undefined || pass.some(({ all }) => !all)) return strippedOfHints(resolution);
  const answer = { ...passed(resolution), ttlCapSeconds: SEALED_TTL_SECONDS };
  return withLease(answer, jointly([leaseOf(resolution), ...pass.map(({ lease }) => lease)]));
}

async function answersAll(
  question: CaptureQuestion,
  doors: SideDoors,
  { target, family, hints }: HintedTarget,
  signal: AbortSignal | undefined,
): Promise<{ all: boolean; lease: Lease | undefined }> {
  const type = family === 4 ? TYPE.A : TYPE.AAAA;
  const { answer, story } = await doors.capture({ ...question, name: target, type }, signal);
  const answered = story.addresses.filter(a => a.answered).map(a => a.address.bytes);
  const all = hints.every(hint => {
    const address = effectiveAddress(hint);
    return address !== undefined && answered.some(other => bytesEqual(other, address.bytes));
  });
  return { all, lease: answer.lease };
}

/** ANY carries no address past the capture (RFC 8482 §4.1: a subset will do), except where no key is asked for. */
async function any(
  question: CaptureQuestion,
  doors: SideDoors,
  signal?: AbortSignal,
): Promise<CaptureAnswer> {
  const resolution = await doors.lookup.lookup(question.name, question.type, signal);
  if (resolution.outcome === 'failure' || resolution.verdict === 'bogus')
    return refusedResolution(resolution);
  const names = namesOf(question.name, resolution);
  const mayPass = (address: IpAddress | undefined) =>
    address !== undefined && actionFor(doors.groupOf(names, address), 'unknown') === 'clear';
  const answer = withoutHints(
    resolution.answer.filter(
      ({ type, rdatas }) =>
        (type !== TYPE.A && type !== TYPE.AAAA) || rdatas.every(rdata => mayPass(effectiveAddress(rdata))),
    ),
  );
  if (answer.length === 0 && resolution.answer.length > 0) return minimalAny(question.name);
  const whole = answer.length === resolution.answer.length && !carriesHints(resolution.answer);
  const some = whole ? passed(resolution) : { ...passed(resolution), authenticated: false, answer };
  return withLease(some, leaseOf(resolution));
}

async function passOn(
  question: CaptureQuestion,
  doors: SideDoors,
  signal?: AbortSignal,
): Promise<CaptureAnswer> {
  const resolution = await doors.lookup.lookup(question.name, question.type, signal);
  if (resolution.outcome === 'failure') return refusedResolution(resolution);
  // A client that checks for itself gets what the upstream said (RFC 4035 §3.2.2); addresses never go this way.
  if (resolution.verdict === 'bogus' && !question.checkingDisabled) return refusedResolution(resolution);
  return withLease(passed(resolution), leaseOf(resolution));
}
