// RESULTS.md: one part for each bench, each begun by a heading of the first level. Pure.

/** The page with the part of the same heading replaced, or with the part added at its end. */
export function withSection(page: string, section: string): string {
  const heading = section.slice(0, section.indexOf('\n'));
  const sections = page.split(/^(?=# )/m).filter(part => part.trim() !== '');
  const at = sections.findIndex(part => part.startsWith(`${heading}\n`));
  const fresh = `${section.trim()}\n`;
  if (at < 0) sections.push(fresh);
  else sections[at] = fresh;
  return sections.map(part => `${part.trim()}\n`).join('\n');
}
