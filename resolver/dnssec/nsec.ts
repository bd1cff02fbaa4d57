/**
 * Denial by NSEC (RFC 4035 §5.4, RFC 6840 §4): pure questions to NSECs whose signatures are already verified.
 */
import type { Nsec, TypeBitmap } from '../dns/dnssec-rdata.ts';
import type { Name } from '../dns/name.ts';
import { TYPE } from '../dns/types.ts';

export type OwnedNsec = { owner: Name; nsec: Nsec };

/** Neither the name nor a wildcard that could have answered for it exists (RFC 4035 §3.1.3.2). */
export function nsecProvesNxdomain(nsecs: readonly OwnedNsec[], name: Name, zone: Name): boolean {
  const closest = closestEncloser(nsecs, name, zone);
  if (closest === undefined) return false;
  const wildcard = closest.wildcard();
  return wildcard === undefined || nsecs.some(nsec => covers(nsec, wildcard, zone));
}

/** The name exists, or a wildcard answers for it, but the type does not (§3.1.3.1, §3.1.3.4, empty non-terminals too). */
export function nsecProvesNodata(nsecs: readonly OwnedNsec[], name: Name, type: number, zone: Name): boolean {
  if (nsecs.some(({ owner, nsec }) => owner.equals(name) && lacksType(nsec.types, type, name))) return true;
  if (nsecs.some(nsec => isEmptyNonTerminal(nsec, name, zone))) return true;
  const wildcard = closestEncloser(nsecs, name, zone)?.wildcard();
  if (wildcard === undefined) return false;
  // The wildcard may itself have nothing but names below it; it answers all the same (RFC 4592 §2.2.2).
  if (nsecs.some(nsec => isEmptyNonTerminal(nsec, wildcard, zone))) return true;
  return nsecs.some(({ owner, nsec }) => owner.equals(wildcard) && lacksType(nsec.types, type, wildcard));
}

/** No name between `closest` and `name` exists, so that `*.closest` rightly answered (§3.1.3.3). */
export function nsecProvesNoCloser(
  nsecs: readonly OwnedNsec[],
  name: Name,
  closest: Name,
  zone: Name,
): boolean {
  return closestEncloser(nsecs, name, zone)?.equals(closest) ?? false;
}

/**
 * What the parent says of a zone cut at `name`: `noDs` an unsigned delegation, `notCut` no delegation here,
 * `nothing` no name here or below; undefined when nothing is proven.
 */
export function nsecDsStatus(
  nsecs: readonly OwnedNsec[],
  name: Name,
  zone: Name,
): 'noDs' | 'notCut' | 'nothing' | undefined {
  const exact = nsecs.find(({ owner }) => owner.equals(name));
  if (exact !== undefined) {
    const { types } = exact.nsec;
    if (types.has(TYPE.SOA) || types.has(TYPE.DS)) return undefined; // the child's own NSEC, or a DS that was held back
    return types.has(TYPE.NS) ? 'noDs' : 'notCut';
  }
  if (nsecs.some(nsec => isEmptyNonTerminal(nsec, name, zone))) return 'notCut';
  return nsecs.some(nsec => covers(nsec, name, zone)) ? 'nothing' : undefined;
}

/**
 * Whether a bitmap at `name` denies `type`: the bit is off, no CNAME stands there, and it is the right side of a
 * zone cut (RFC 6840 §4.4): the parent's for DS, the child's for everything else.
 */
export function lacksType(types: TypeBitmap, type: number, name: Name): boolean {
  if (types.has(type) || types.has(TYPE.CNAME)) return false;
  if (type === TYPE.ANY)
    return types.types().every(present => present === TYPE.NSEC || present === TYPE.RRSIG);
  if (type === TYPE.DS) return !types.has(TYPE.SOA) || name.labelCount === 0;
  return !isDelegation(types);
}

/** NS without SOA: the parent's side of a zone cut. */
export function isDelegation(types: TypeBitmap): boolean {
  return types.has(TYPE.NS) && !types.has(TYPE.SOA);
}

/** Whether the NSEC says anything of the name: it stands there, or nothing does. */
export function nsecSpeaksOf(entry: OwnedNsec, name: Name, zone: Name): boolean {
  return entry.owner.equals(name) || spans(entry, name, zone);
}

/** Where the name's path stops existing, told by the NSEC that covers it; undefined when none does. */
export function closestEncloser(nsecs: readonly OwnedNsec[], name: Name, zone: Name): Name | undefined {
  const covering = nsecs.find(nsec => covers(nsec, name, zone));
  if (covering === undefined) return undefined;
  const labels = Math.max(name.commonLabels(covering.owner), name.commonLabels(covering.nsec.next));
  return labels >= name.labelCount ? undefined : name.suffix(labels);
}

/** The name is strictly between owner and next, and not hidden from this zone by a cut or DNAME at the owner. */
function covers(entry: OwnedNsec, name: Name, zone: Name): boolean {
  return spans(entry, name, zone) && !entry.nsec.next.isSubdomainOf(name);
}

/** The name lies in the span only as the parent of `next`: it exists and has no records (RFC 4035 §3.1.3.1 "empty"). */
function isEmptyNonTerminal(entry: OwnedNsec, name: Name, zone: Name): boolean {
  return spans(entry, name, zone) && entry.nsec.next.isBelow(name);
}

function spans({ owner, nsec: { next, types } }: OwnedNsec, name: Name, zone: Name): boolean {
  if (!name.isSubdomainOf(zone) || !next.isSubdomainOf(zone)) return false;
  if (name.compare(owner) <= 0) return false;
  if (name.isBelow(owner) && (isDelegation(types) || types.has(TYPE.DNAME))) return false;
  return name.compare(next) < 0 || next.equals(zone); // the last NSEC leads back to the apex
}
