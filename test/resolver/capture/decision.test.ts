/** What becomes of a name in each group, by what is known about its key. */
import assert from 'node:assert/strict';
import test, { describe } from 'node:test';
import { POLICY_GROUPS, type PolicyGroup } from '../../../resolver/capture/groups.ts';
import { addressesIn, keyNumber, outcomeOf, World, type Zone } from './world.ts';

const K1 = keyNumber(1);
const K2 = keyNumber(2);

/** The table of DESIGN §3, written out once more and independently of the program's own. */
describe('the table of the policy groups', () => {
  const cases: [string, Zone, boolean, Record<PolicyGroup, string>][] = [
    [
      'key secure, IKE ok',
      { a: ['192.0.2.1'], keys: [{ key: K1 }] },
      true,
      row('clear', 'clear', 'sealed', 'sealed', 'sealed', 'refuse'),
    ],
    [
      'key secure, IKE refused',
      { a: ['192.0.2.1'], keys: [{ key: K2 }] },
      true,
      row('clear', 'clear', 'clear', 'refuse', 'refuse', 'refuse'),
    ],
    [
      'key secure, no answer',
      { a: ['192.0.2.1'], keys: [{ key: K1 }] },
      false,
      row('clear', 'clear', 'clear', 'refuse', 'refuse', 'refuse'),
    ],
    [
      'no key, proven',
      { a: ['192.0.2.1'] },
      true,
      row('clear', 'clear', 'clear', 'clear', 'refuse', 'refuse'),
    ],
    [
      'unsigned zone, no key',
      { a: ['192.0.2.1'], verdict: 'insecure' },
      true,
      row('clear', 'clear', 'clear', 'clear', 'refuse', 'refuse'),
    ],
    [
      'unsigned zone with a key: it counts for nothing',
      { a: ['192.0.2.1'], keys: [{ key: K1 }], verdict: 'insecure' },
      true,
      row('clear', 'clear', 'clear', 'clear', 'refuse', 'refuse'),
    ],
    [
      'IPSECKEY bogus',
      { a: ['192.0.2.1'], keys: [{ key: K1 }], keyVerdict: 'bogus' },
      true,
      row('clear', 'clear', 'refuse', 'refuse', 'refuse', 'refuse'),
    ],
    [
      'IPSECKEY unknown',
      { a: ['192.0.2.1'], keyVerdict: 'timeout' },
      true,
      row('clear', 'clear', 'refuse', 'refuse', 'refuse', 'refuse'),
    ],
    [
      'the address itself bogus',
      { a: ['192.0.2.1'], keys: [{ key: K1 }], verdict: 'bogus' },
      true,
      row('refuse', 'refuse', 'refuse', 'refuse', 'refuse', 'refuse'),
    ],
  ];
  for (const [title, zone, answers, expected] of cases) {
    for (const group of POLICY_GROUPS) {
      test(`${title}: ${group} -> ${expected[group]}`, async () => {
        const world = new World({ groups: { [group]: { cidrs: [], namePatterns: ['x.example'] } } });
        world.zones.set('x.example.', zone);
        if (answers) world.holders.set('192.0.2.1', [K1]);
        const asked = world.ask('x.example.');
        await world.pass(3_000);
        const outcome = await asked;
        assert.equal(outcomeOf(outcome), expected[group]);
        if (expected[group] === 'refuse') {
          assert.deepEqual(addressesIn(outcome), [], 'a refusal carries no address');
          assert.ok(outcome.answer.ede?.[0]?.text, 'every refusal says why');
        }
        if (group === 'clear' || group === 'block')
          assert.equal(world.negotiations.length, 0, 'no IKE tried');
      });
    }
  }
});

function row(...cells: [string, string, string, string, string, string]): Record<PolicyGroup, string> {
  return Object.fromEntries(POLICY_GROUPS.map((group, i) => [group, cells[i]])) as Record<
    PolicyGroup,
    string
  >;
}

/** evil.example points at the address of bank.example; every order of asking must leave bank.example unchanged. */
