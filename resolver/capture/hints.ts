/**
 * Address hints in HTTPS and SVCB records (RFC 9460 §7.3): a door past the capture, closed here.
 *
 * A client may connect to an ipv4hint or ipv6hint without ever asking for A or AAAA.
 */
import type { Name } from '../dns/name.ts';
import type { Rrset } from '../dns/rrset.ts';
import { addressHints, composeSvcb, parseSvcb, type Svcb, withoutAddressHints } from '../dns/svcb.ts';
import { TYPE } from '../dns/types.ts';

/** More targets than this in one answer are not captured: their hints are taken out. */
const MAX_TARGETS = 4;

/** Whether any record holds an address, or cannot be read and so might. */
export function carriesHints(answer: readonly Rrset[]): boolean {
  return servicesOf(answer).some(({ service }) => service === undefined || hintCount(service) > 0);
}

export type HintedTarget = { target: Name; family: 4 | 6; hints: Uint8Array[] };

/**
 * Each (target, family) with its hints; a target of "." is the owner (RFC 9460 §2.5).
 * Undefined when there are too many, or a record cannot be read: then the hints can only be taken out.
 */
export function hintedTargets(answer: readonly Rrset[]): HintedTarget[] | undefined {
  const found = new Map<string, HintedTarget>();
  for (const { owner, service } of servicesOf(answer)) {
    if (service === undefined) return undefined;
    const target = service.target.labelCount === 0 ? owner : service.target;
    const { ipv4, ipv6 } = addressHints(service);
    for (const [family, hints] of [[4, ipv4] as const, [6, ipv6] as const]) {
      if (hints.length === 0) continue;
      const key = `${family} ${target.key}`;
      const known = found.get(key) ?? { target, family, hints: [] };
      known.hints.push(...hints);
      found.set(key, known);
    }
  }
  return found.size > MAX_TARGETS ? undefined : [...found.values()];
}

/** The answer with every hint taken out, and so without the signatures that covered it; unreadable records go too. */
export function withoutHints(answer: readonly Rrset[]): Rrset[] {
  return answer.map(rrset => {
    if (!isService(rrset)) return rrset;
    const services = rrset.rdatas.map(parseSvcb).filter(service => service !== undefined);
    return {
      ...rrset,
      rdatas: services.map(service => composeSvcb(withoutAddressHints(service))),
      signatures: [],
    };
  });
}

function servicesOf(answer: readonly Rrset[]): { owner: Name; service: Svcb | undefined }[] {
  return answer
    .filter(isService)
    .flatMap(rrset => rrset.rdatas.map(rdata => ({ owner: rrset.name, service: parseSvcb(rdata) })));
}

function hintCount(service: Svcb): number {
  const { ipv4, ipv6 } = addressHints(service);
  return ipv4.length + ipv6.length;
}

function isService(rrset: Rrset): boolean {
  return rrset.type === TYPE.HTTPS || rrset.type === TYPE.SVCB;
}
