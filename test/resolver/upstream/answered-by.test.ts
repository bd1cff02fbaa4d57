import assert from 'node:assert/strict';
import test from 'node:test';
import { Name } from '../../../resolver/dns/name.ts';
import { TYPE } from '../../../resolver/dns/types.ts';
import { AnsweredBy } from '../../../resolver/upstream/answered-by.ts';

test('who answered is known for nearly as many questions as can be in flight, and never somebody else', () => {
  const answeredBy = new AnsweredBy<string>();
  const questions = Array.from({ length: 4096 }, (_, i) => ({
    name: Name.parseText(`n${i}.example`),
    type: i % 2 === 0 ? TYPE.A : TYPE.AAAA,
  }));
  for (const [i, question] of questions.entries()) answeredBy.note(question, `server ${i}`);
  const known = questions.map(question => answeredBy.whoAnswered(question));
  for (const [i, who] of known.entries()) assert.ok(who === undefined || who === `server ${i}`);
  assert.ok(known.filter(who => who !== undefined).length > 3000);
  assert.equal(answeredBy.whoAnswered({ name: Name.parseText('n1.example'), type: TYPE.A }), undefined);
  answeredBy.clear();
  assert.ok(questions.every(question => answeredBy.whoAnswered(question) === undefined));
});
