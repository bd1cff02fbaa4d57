/** Asks everybody everything and lists where they differ, each difference with its explanation or without. */
import { type Explanation, explanations } from './differences.ts';
import type { Question } from './content.ts';
import { askDelv, askServer, type Opinion, type Server, startHoldfast, startUnbound } from './opinions.ts';
import { inPairs, startTree, type Tree } from './tree.ts';

export type Witness = 'unbound' | 'delv' | 'unbound with CD';

export type Difference = {
  question: string;
  witness: Witness;
  /** Ours before theirs: `secure, not bogus`, `rcode NOERROR, not NXDOMAIN`, `answer`, `proof nsec, not none`. */
  what: string;
  ours: Opinion;
  theirs: Opinion;
  explanation: Explanation | undefined;
};

export type Report = {
  questions: number;
  /** How many comparisons were made with each. */
  compared: Record<Witness, number>;
  verdicts: Record<Opinion['verdict'], number>;
  differences: Difference[];
  /** Questions whose answer by Holdfast was another when asked again, in another order, from its caches. */
  unsteady: { question: string; first: Opinion; again: Opinion }[];
};

/**
 * The whole comparison. `delvShare`: delv, a process a question, is asked every n-th question.
 *
 * Holdfast is asked in order, then all again in another order, then with CD.
 */
export async function compareAll({
  delvShare,
  progress,
}: {
  delvShare: number;
  progress: (line: string) => void;
}): Promise<Report> {
  const tree = await startTree();
  let holdfast: Server | undefined;
  let unbound: Server | undefined;
  try {
    progress(`${tree.questions.length} questions`);
    holdfast = await startHoldfast(tree);
    unbound = await startUnbound(tree);
    return await collect(tree, holdfast, unbound, delvShare, progress);
  } finally {
    await Promise.all([holdfast?.stop(), unbound?.stop()]);
    await tree.stop();
  }
}

async function collect(
  tree: Tree,
  holdfast: Server,
  unbound: Server,
  delvShare: number,
  progress: (line: string) => void,
): Promise<Report> {
  const questions = [...new Map(tree.questions.map(question => [text(question), question])).values()];
  const report: Report = {
    questions: questions.length,
    compared: { unbound: 0, delv: 0, 'unbound with CD': 0 },
    verdicts: { secure: 0, insecure: 0, bogus: 0 },
    differences: [],
    unsteady: [],
  };
  const compare = (question: Question, witness: Witness, ours: Opinion, theirs: Opinion): void => {
    report.compared[witness]++;
    const what = differs(ours, theirs, witness, question);
    if (what === undefined) return;
    const explanation = explanations.find(
      one => explains(one, text(question), witness, what) && (one.rcode ?? ours.rcode) === ours.rcode,
    );
    report.differences.push({ question: text(question), witness, what, ours, theirs, explanation });
  };

  progress('asking Holdfast');
  const ours = await inPairs(questions, question => askServer(holdfast, question));
  for (const { verdict } of ours) report.verdicts[verdict]++;
  progress('asking Holdfast again in another order');
  const shuffled = shuffle(questions.map((question, i) => ({ question, first: ours[i]! })));
  await inPairs(shuffled, async ({ question, first }) => {
    const again = await askServer(holdfast, question);
    // What was bogus is asked for anew after a while; what came with other answers may deny it by then (RFC 8198).
    const mended = first.verdict === 'bogus' && again.rcode === 'NXDOMAIN' && again.proof !== 'none';
    if (mended || essence(again) === essence(first)) return;
    report.unsteady.push({ question: text(question), first, again });
  });
  progress('asking unbound');
  const theirs = await inPairs(questions, question => askServer(unbound, question));
  for (const [i, question] of questions.entries()) compare(question, 'unbound', ours[i]!, theirs[i]!);
  progress('asking both with CD');
  await inPairs(shuffled, async ({ question }) => {
    const [mine, unbounds] = await Promise.all([
      askServer(holdfast, question, true),
      askServer(unbound, question, true),
    ]);
    compare(question, 'unbound with CD', mine, unbounds);
  });
  progress('asking delv');
  const chosen = questions
    .map((question, i) => ({ question, mine: ours[i]! }))
    .filter(({ question }, i) => i % delvShare === 0 && question.type !== 'RRSIG'); // which delv can not ask for
  const delvs = await inPairs(chosen, ({ question }) => askDelv(tree, question));
  for (const [i, { question, mine }] of chosen.entries()) compare(question, 'delv', mine, delvs[i]!);
  return report;
}

function text({ name, type }: Question): string {
  return `${name} ${type}`;
}

function essence({ verdict, rcode, answer, proof }: Opinion): string {
  return JSON.stringify([verdict, rcode, answer, proof]);
}

/** What the two disagree in; undefined when they agree. What follows from a larger difference is not told. */
function differs(ours: Opinion, theirs: Opinion, witness: Witness, question: Question): string | undefined {
  if (witness === 'unbound with CD') {
    if (ours.rcode !== theirs.rcode) return `rcode ${ours.rcode}, not ${theirs.rcode}`;
    return sameSet(ours.answer, theirs.answer) ? undefined : 'answer';
  }
  if (ours.verdict !== theirs.verdict) return `${ours.verdict}, not ${theirs.verdict}`;
  if (ours.verdict === 'bogus') return undefined;
  if (ours.rcode !== theirs.rcode) return `rcode ${ours.rcode}, not ${theirs.rcode}`;
  // delv prints no CNAME that a DNAME makes, a DNAME under the asked name, and no proof beside a positive answer.
  const answer = witness === 'delv' ? asDelvPrints(ours.answer) : ours.answer;
  const found = witness === 'delv' ? asDelvPrints(theirs.answer) : theirs.answer;
  if (!sameSet(answer, found)) return 'answer';
  const comparable = ours.verdict === 'secure' && (witness === 'unbound' || ours.answer.length === 0);
  if (!comparable || question.type === 'ANY' || ours.proof === theirs.proof) return undefined;
  return `proof ${ours.proof}, not ${theirs.proof}`;
}

function sameSet(a: readonly string[], b: readonly string[]): boolean {
  return JSON.stringify([...new Set(a)].sort()) === JSON.stringify([...new Set(b)].sort());
}

function asDelvPrints(answer: readonly string[]): string[] {
  const dnames = answer.filter(line => line.includes(' DNAME ')).map(line => line.split(' ')[0]!);
  return answer
    .filter(line => {
      const [owner, type] = line.split(' ');
      return type !== 'CNAME' || !dnames.some(dname => owner!.endsWith(`.${dname}`));
    })
    .map(line => line.replace(/^\S+ DNAME /, 'DNAME '))
    .sort();
}

function explains(
  { witness, questions, what }: Explanation,
  question: string,
  who: Witness,
  found: string,
): boolean {
  return witness.includes(who) && questions.test(question) && what.test(found);
}

/** Always the same other order, so that a failure comes again (a linear congruential generator). */
function shuffle<T>(items: readonly T[]): T[] {
  let state = 1;
  const weighted = items.map(item => {
    state = (state * 1_103_515_245 + 12_345) % 0x80000000;
    return { item, weight: state };
  });
  return weighted.sort((a, b) => a.weight - b.weight).map(({ item }) => item);
}
