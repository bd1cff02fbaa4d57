/** Policy entries from the configuration and from libreswan-style policy files, gathered by group. */
import { join } from 'node:path';
import { type GroupEntries, POLICY_GROUPS, type PolicyGroup } from '../capture/groups.ts';
import type { Machine } from './machine.ts';
import { type Problem, show } from './sources.ts';
import { type PolicyEntry, parsePolicyEntry } from './values.ts';

export type Groups = Record<PolicyGroup, GroupEntries>;

export function noEntries(): Groups {
  return Object.fromEntries(
    POLICY_GROUPS.map(group => [group, { cidrs: [], namePatterns: [] }]),
  ) as unknown as Groups;
}

export function addEntry(groups: Groups, group: PolicyGroup, entry: PolicyEntry): void {
  if ('cidr' in entry) groups[group].cidrs.push(entry.cidr);
  else groups[group].namePatterns.push(entry.namePattern);
}

/**
 * Reads the files of the directory that are named as the groups: one entry a line, `#` begins a comment.
 * Other files are left alone. Returns what does not fit; a line with more than one word is refused, because libreswan
 * reads protocol and ports there, and an entry without them would say something else.
 */
export function readPolicyDirectory(machine: Machine, directory: string, groups: Groups): Problem[] {
  const problems: Problem[] = [];
  for (const group of POLICY_GROUPS) {
    const file = join(directory, group);
    for (const [index, raw] of (machine.readText(file) ?? '').split('\n').entries()) {
      const words = raw.replace(/#.*$/, '').trim().split(/\s+/);
      if (words[0] === '') continue;
      const entry = words.length === 1 ? parsePolicyEntry(words[0]!) : undefined;
      if (entry) addEntry(groups, group, entry);
      else {
        problems.push({
          place: `${file}:${index + 1}`,
          expected: 'an address, a prefix, a name or a pattern such as *.example.org, alone on its line',
          found: show(words.join(' ')),
          hint: words.length > 1 ? 'protocols and ports are not supported' : undefined,
        } as Problem);
      }
    }
  }
  return problems;
}
