/** Names as policy groups, logs and `explain` write them. */
import type { Name } from '../dns/name.ts';
import type { Resolution } from '../dnssec/types.ts';

/** Lower case, no final dot. */
export function textOf(name: Name): string {
  const text = name.canonical().toText();
  return text === '.' ? '.' : text.slice(0, -1);
}

/** The asked name and every name of its CNAME chain. */
export function namesOf(asked: Name, resolution: Resolution): string[] {
  const others = [...resolution.answer.map(rrset => rrset.name), resolution.canonicalName];
  return [...new Set([asked, ...others.filter(name => !name.equals(asked))].map(textOf))];
}
