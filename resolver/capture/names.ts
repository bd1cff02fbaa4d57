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
  return [
    ...new Set([
      textOf(asked),
      ...resolution.answer.map(r => textOf(r.name)),
      textOf(resolution.canonicalName),
    ]),
  ];
}
