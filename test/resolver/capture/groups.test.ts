import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { type Cidr, cidrContains, parseCidr, parseIpAddress } from '../../../resolver/address.ts';
import {
  type GroupEntries,
  POLICY_GROUPS,
  type PolicyGroup,
  PolicyGroups,
  strictest,
} from '../../../resolver/capture/groups.ts';

function groups(lists: Partial<Record<PolicyGroup, string[]>>, fallback: PolicyGroup = 'private-or-clear') {
  const entries = Object.entries(lists).map(([group, list]) => {
    const cidrs = list.flatMap(text => parseCidr(text) ?? []);
    const namePatterns = list.filter(text => !parseCidr(text));
    return [group, { cidrs, namePatterns }] satisfies [string, GroupEntries];
  });
  return new PolicyGroups({ default: fallback, groups: Object.fromEntries(entries) });
}
const address = (text: string) => parseIpAddress(text)!;

test('the most specific name pattern wins', () => {
  const policy = groups({
    clear: ['www.example.org', '*.deep.example.org'],
    private: ['*.example.org'],
    block: ['*'],
  });
  assert.equal(policy.groupOfName('www.example.org')?.group, 'clear');
  assert.equal(policy.groupOfName('WWW.Example.ORG.')?.group, 'clear');
  assert.deepEqual(policy.groupOfName('mail.example.org'), {
    group: 'private',
    specificity: 2,
    entry: '*.example.org',
  });
  assert.equal(policy.groupOfName('x.y.deep.example.org')?.group, 'clear');
  assert.equal(policy.groupOfName('deep.example.org')?.group, 'private');
  assert.deepEqual(policy.groupOfName('example.org'), { group: 'block', specificity: 0, entry: '*' });
  assert.equal(policy.groupOfName('')?.group, undefined);
});

test('a pattern matches whole labels, and an escaped dot is no border of labels', () => {
  const policy = groups({ private: ['*.example.org'] });
  assert.equal(policy.groupOfName('badexample.org'), undefined);
  assert.equal(policy.groupOfName('bad\\.example.org'), undefined);
  assert.equal(policy.groupOfName('a\\\\.example.org')?.group, 'private');
});

test('the longest prefix wins, families apart', () => {
  const policy = groups({ clear: ['10.0.0.0/8', '10.1.2.3'], private: ['10.1.0.0/16', '2001:db8::/32'] });
  assert.equal(policy.groupOfAddress(address('10.9.9.9'))?.group, 'clear');
  assert.deepEqual(policy.groupOfAddress(address('10.1.9.9')), {
    group: 'private',
    specificity: 16,
    entry: '10.1.0.0/16',
  });
  assert.equal(policy.groupOfAddress(address('10.1.2.3'))?.group, 'clear');
  assert.equal(policy.groupOfAddress(address('2001:db8::1'))?.group, 'private');
  assert.equal(policy.groupOfAddress(address('192.0.2.1')), undefined);
});

test('the same entry in two groups: the stricter group', () => {
  const policy = groups({
    block: ['a.example', '10.0.0.0/8'],
    private: ['a.example', '10.0.0.1/8'],
    clear: ['a.example'],
  });
  assert.equal(policy.groupOfName('a.example')?.group, 'block');
  assert.equal(policy.groupOfAddress(address('10.2.2.2'))?.group, 'block');
});

test('name and address: neither lowers the other', () => {
  const policy = groups({
    clear: ['*.evil.example', '192.0.2.0/24'],
    private: ['10.0.0.0/8', 'bank.example'],
  });
  assert.equal(policy.groupOf('x.evil.example', address('10.0.0.1')), 'private');
  assert.equal(policy.groupOf('bank.example', address('192.0.2.1')), 'private');
  assert.equal(policy.groupOf('x.evil.example', address('198.51.100.1')), 'clear');
  assert.equal(policy.groupOf('other.example', address('192.0.2.1')), 'clear');
  assert.equal(policy.groupOf('other.example', address('198.51.100.1')), 'private-or-clear');
  assert.equal(policy.groupOf(undefined, address('10.0.0.1')), 'private');
  assert.equal(policy.groupOf('bank.example', undefined), 'private');
  assert.equal(policy.groupOf(undefined, undefined), 'private-or-clear');
});

test('an entry that matches everything is a default and yields to a specific match of the other kind', () => {
  const policy = groups({
    'private-if-published': ['0.0.0.0/0', '::/0'],
    clear: ['updates.example'],
    block: ['*'],
  });
  assert.equal(policy.groupOf('updates.example', address('10.0.0.1')), 'clear');
  assert.equal(policy.groupOf('other.example', address('10.0.0.1')), 'block');
  assert.equal(policy.groupOf(undefined, address('10.0.0.1')), 'private-if-published');
});

test('strictest is the last in the ladder, in any order', () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...POLICY_GROUPS), { minLength: 1 }), list => {
      const expected = POLICY_GROUPS.findLast(group => list.includes(group));
      assert.equal(strictest(...(list as [PolicyGroup])), expected);
    }),
  );
});

test('the tables find what a plain search over all prefixes finds', () => {
  const byte = fc.constantFrom(0, 1, 10, 128, 255);
  const v4 = fc
    .tuple(byte, byte, byte, byte)
    .map(bytes => ({ family: 4 as const, bytes: Uint8Array.from(bytes) }));
  const entry = fc.tuple(v4, fc.nat(32), fc.constantFrom(...POLICY_GROUPS));
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 12 }), v4, (entries, target) => {
      const parsed = entries.map(
        ([net, prefix, group]) =>
          [parseCidr(`${net.bytes.join('.')}/${prefix}`)!, group] as [Cidr, PolicyGroup],
      );
      const policy = groups({});
      const lists: Partial<Record<PolicyGroup, GroupEntries>> = {};
      for (const group of POLICY_GROUPS) {
        const cidrs = parsed.filter(([, its]) => its === group).map(([cidr]) => cidr);
        lists[group] = { cidrs, namePatterns: [] };
      }
      const found = new PolicyGroups({ default: policy.default, groups: lists }).groupOfAddress(target);
      const matching = parsed.filter(([cidr]) => cidrContains(cidr, target));
      const longest = Math.max(-1, ...matching.map(([cidr]) => cidr.prefix));
      const best = matching.filter(([cidr]) => cidr.prefix === longest).map(([, group]) => group);
      assert.equal(found?.group, best.length > 0 ? strictest(...(best as [PolicyGroup])) : undefined);
    }),
  );
});
