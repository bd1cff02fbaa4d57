// npm run second-opinion [-- --json] [--write]: the same questions to Holdfast, unbound and delv, and where they differ.
//
// --json prints the whole report; --write puts the table of differences into test/second-opinion/DIFFERENCES.md.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { layerEnvironment } from '../lab/packages.ts';
import { compareAll, type Difference, type Report } from './compare.ts';
import { missingPrograms } from './opinions.ts';

const { values } = parseArgs({ options: { json: { type: 'boolean' }, write: { type: 'boolean' } } });
const why = missingPrograms();
if (why !== undefined) {
  console.error(`second-opinion: ${why}; \`npm test -- --only unit --yes second-opinion\` fetches them`);
  process.exit(1);
}
Object.assign(process.env, layerEnvironment());
const report = await compareAll({ delvShare: 1, progress: line => console.error(`… ${line}`) });
console.log(values.json ? JSON.stringify(report, null, 2) : summary(report));
if (values.write) writeFileSync(join(import.meta.dirname, 'DIFFERENCES.md'), markdown(report));
const unexplained = report.differences.filter(({ explanation }) => explanation === undefined);
process.exitCode = unexplained.length + report.unsteady.length === 0 ? 0 : 1;

function summary(found: Report): string {
  const { verdicts, compared, differences, unsteady } = found;
  const lines = [
    `${found.questions} questions: ${verdicts.secure} secure, ${verdicts.insecure} insecure, ${verdicts.bogus} bogus or failed`,
    `compared: ${Object.entries(compared)
      .map(([witness, count]) => `${witness} ${count}`)
      .join(', ')}`,
    `${differences.length} differences, ${differences.filter(one => one.explanation === undefined).length} of them unexplained`,
    `${unsteady.length} answers changed when asked again in another order`,
  ];
  for (const [first, ...more] of grouped(differences)) {
    const { witness, what, question, ours, theirs, explanation } = first;
    lines.push(`\n${explanation ? '' : 'UNEXPLAINED '}${witness}: ${what} (${1 + more.length} questions)`);
    lines.push(
      `  ${explanation ? `${explanation.why} [${explanation.reference}]` : `ours: ${ours.why} theirs: ${theirs.why}`}`,
    );
    const shown = explanation ? 3 : 40;
    lines.push(`  ${[question, ...more.map(one => one.question)].slice(0, shown).join('; ')}`);
  }
  for (const { question, first, again } of unsteady) {
    lines.push(`UNSTEADY ${question}: ${JSON.stringify(first)} then ${JSON.stringify(again)}`);
  }
  return lines.join('\n');
}

function markdown(found: Report): string {
  const rows = grouped(found.differences).map(([first, ...more]) => {
    const { witness, what, question, explanation } = first;
    return `| ${witness} | ${what} | ${1 + more.length} | \`${escaped(question)}\` | ${escaped(explanation?.why ?? '**unexplained**')} | ${explanation?.reference ?? ''} |`;
  });
  const { secure, insecure, bogus } = found.verdicts;
  return `# Where Holdfast, unbound and delv differ

Made by \`npm run second-opinion -- --write\`. ${found.questions} questions over generated zones: ${secure} secure, ${insecure}
insecure, ${bogus} bogus or failed by Holdfast. Compared: unbound ${found.compared.unbound}, unbound with CD ${found.compared['unbound with CD']}, delv ${found.compared.delv}.

| asked | ours, not theirs | questions | such as | why | by |
|---|---|---|---|---|---|
${rows.join('\n')}
`;
}

/** By witness, difference and explanation; the largest groups last. */
function grouped(differences: readonly Difference[]): [Difference, ...Difference[]][] {
  const groups = Map.groupBy(
    differences,
    ({ witness, what, explanation }) =>
      `${explanation === undefined ? '0' : '1'} ${witness} ${what} ${explanation?.why}`,
  );
  return [...groups.entries()]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([, group]) => group as [Difference, ...Difference[]]);
}

function escaped(text: string): string {
  return text.replaceAll('|', '\\|').replace(/([a-z])\1{40,}/g, '$1…');
}
