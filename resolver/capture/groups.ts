/**
 * Policy groups: which group rules a name, an address, or both together.
 *
 * Within one kind the most specific entry wins: the longest prefix, or the exact name before the longest `*.suffix`.
 * Two groups listing the same entry: the stricter one wins.
 *
 * Name and address together: the stricter of the two matches, for whoever owns a name chooses the address it points
 * at, and so a name in a lenient group must never open an address that a strict group lists ("the strictest live name
 * rules the address"). An entry that matches everything (`*`, `0.0.0.0/0`, `::/0`) is a default: it yields to any
 * more specific match of the other kind. Where nothing matches, the configured default group rules.
 */
import { type Cidr, formatCidr, type IpAddress, maskAddress } from '../address.ts';

/** The groups from the most lenient to the strictest. */
export const POLICY_GROUPS = [
  'clear',
  'clear-or-private',
  'private-or-clear',
  'private-if-published',
  'private',
  'block',
] as const;
export type PolicyGroup = (typeof POLICY_GROUPS)[number];

/** How surely we know who is at the other end, weakest first. */
const ASSURANCES = [
  'blocked',
  'clear',
  'anonymous',
  'pinned',
  'server-authenticated',
  'authenticated',
] as const;
export type Assurance = (typeof ASSURANCES)[number];

/**
 * What one group lists. Name patterns are lower-case presentation form without the final dot: `example.org` is that
 * name alone, `*.example.org` every name below it but not itself, `*` every name.
 */
export type GroupEntries = { cidrs: Cidr[]; namePatterns: string[] };

/** A match and how specific it was: bits of the prefix or labels of the pattern; 0 matches everything. */
export type GroupMatch = { group: PolicyGroup; specificity: number; entry: string };

/** Decides the group of names and addresses; built once from the configuration, in time independent of its size. */
export class PolicyGroups {
  readonly default: PolicyGroup;
  readonly #exact = new Map<string, PolicyGroup>();
  readonly #below = new Map<string, PolicyGroup>();
  readonly #prefixes = { 4: new PrefixTable(), 6: new PrefixTable() };

  constructor(policy: { default: PolicyGroup; groups: Partial<Record<PolicyGroup, GroupEntries>> }) {
    this.default = policy.default;
    for (const group of POLICY_GROUPS) {
      for (const pattern of policy.groups[group]?.namePatterns ?? []) this.#addName(pattern, group);
      for (const cidr of policy.groups[group]?.cidrs ?? []) this.#prefixes[cidr.family].add(cidr, group);
    }
  }

  // Groups are added in order of strictness, so the stricter of two equal entries is the one that stays.
  #addName(pattern: string, group: PolicyGroup): void {
    if (pattern === '*') this.#below.set('', group);
    else if (pattern.startsWith('*.')) this.#below.set(pattern.slice(2), group);
    else this.#exact.set(pattern, group);
  }

  /** The group that lists this name (presentation form, any case, with or without the final dot), if one does. */
  groupOfName(name: string): GroupMatch | undefined {
    if (this.#exact.size === 0 && this.#below.size === 0) return undefined;
    const labels = splitLabels(name.toLowerCase());
    const exact = this.#exact.get(labels.join('.'));
    if (exact) return { group: exact, specificity: labels.length + 1, entry: labels.join('.') };
    for (let cut = 1; cut <= labels.length; cut++) {
      const suffix = labels.slice(cut).join('.');
      const group = this.#below.get(suffix);
      if (group)
        return { group, specificity: labels.length - cut, entry: suffix === '' ? '*' : `*.${suffix}` };
    }
    return undefined;
  }

  /** The group that lists this address, if one does. */
  groupOfAddress(address: IpAddress): GroupMatch | undefined {
    return this.#prefixes[address.family].longestMatch(address.bytes);
  }

  /** The group that rules a name at an address (either may be missing), as the head of this file says. */
  groupOf(name: string | undefined, address: IpAddress | undefined): PolicyGroup {
    const ofName = name === undefined ? undefined : this.groupOfName(name);
    const ofAddress = address === undefined ? undefined : this.groupOfAddress(address);
    if (ofName === undefined || ofAddress === undefined) return (ofName ?? ofAddress)?.group ?? this.default;
    const matches = [ofName, ofAddress];
    const specific = matches.filter(match => match.specificity > 0);
    const ruling = specific.length > 0 ? specific : matches;
    return strictest(...(ruling.map(match => match.group) as [PolicyGroup, ...PolicyGroup[]]));
  }
}

/** The strictest of the groups given. */
export function strictest(first: PolicyGroup, ...others: PolicyGroup[]): PolicyGroup {
  return others.reduce((a, b) => (POLICY_GROUPS.indexOf(b) > POLICY_GROUPS.indexOf(a) ? b : a), first);
}

/** Prefixes by length, longest first: a look-up costs one map access for each length in use. */
class PrefixTable {
  readonly #byLength = new Map<number, Map<string, { group: PolicyGroup; entry: string }>>();
  #lengths: number[] = [];

  add(cidr: Cidr, group: PolicyGroup): void {
    let table = this.#byLength.get(cidr.prefix);
    if (!table) {
      table = new Map();
      this.#byLength.set(cidr.prefix, table);
      this.#lengths = [...this.#byLength.keys()].sort((a, b) => b - a);
    }
    table.set(keyOf(cidr.bytes, cidr.prefix), { group, entry: formatCidr(cidr) });
  }

  longestMatch(bytes: Uint8Array): GroupMatch | undefined {
    for (const length of this.#lengths) {
      const found = this.#byLength.get(length)?.get(keyOf(bytes, length));
      if (found) return { ...found, specificity: length };
    }
    return undefined;
  }
}

function keyOf(bytes: Uint8Array, prefix: number): string {
  return Buffer.from(maskAddress(bytes, prefix)).toString('latin1');
}

/** Labels of a name in presentation form: an escaped dot (`\.`) is part of its label (RFC 4343 §2.1). */
function splitLabels(name: string): string[] {
  const labels: string[] = [];
  let start = 0;
  for (let i = 0; i < name.length; i++) {
    if (name[i] === '\\') i++;
    else if (name[i] === '.') {
      if (i > start) labels.push(name.slice(start, i));
      start = i + 1;
    }
  }
  if (start < name.length) labels.push(name.slice(start));
  return labels;
}
