import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { completeConfig } from '../../../ike/engine/config.ts';
import { RateLimit } from '../../../ike/engine/counters.ts';
import { Deadlines } from '../../../ike/engine/deadlines.ts';
import {
  acceptChild,
  acceptIke,
  chooseChild,
  chooseIke,
  offerChild,
  offerIke,
} from '../../../ike/engine/proposals.ts';
import { isExactly, narrow } from '../../../ike/engine/selectors.ts';
import type { Proposal, Transform } from '../../../ike/wire/sa.ts';
import { hostSelector } from '../../../ike/wire/traffic-selectors.ts';
import { fqdn, ip, keys, seeded } from './pair.ts';

const config = completeConfig({ identity: fqdn('a.example'), keys: [keys.ed25519], random: seeded('parts') });
const { ikeProposals, childProposals } = config;

test('deadlines: like a sorted list, whatever is set, moved and cleared', () => {
  const step = fc.record({
    owner: fc.nat(5),
    why: fc.constantFrom('a', 'b', 'c'),
    what: fc.constantFrom('set', 'set', 'set', 'clear', 'clearAll', 'take'),
    at: fc.nat(50),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), steps => {
      const owners = Array.from({ length: 6 }, (_, id) => ({ id, deadlines: new Map<string, number>() }));
      const deadlines = new Deadlines<(typeof owners)[number]>();
      const model = new Map<string, number>();
      for (const { owner, why, what, at } of steps) {
        const key = `${owner} ${why}`;
        if (what === 'set') {
          deadlines.set(owners[owner]!, why, at);
          model.set(key, at);
        } else if (what === 'clear') {
          deadlines.clear(owners[owner]!, why);
          model.delete(key);
        } else if (what === 'clearAll') {
          deadlines.clearAll(owners[owner]!);
          for (const one of ['a', 'b', 'c']) model.delete(`${owner} ${one}`);
        } else {
          const due = deadlines.takeDue(at);
          const earliest = Math.min(...model.values());
          assert.equal(due !== undefined, earliest <= at);
          if (due) {
            assert.equal(model.get(`${due.owner.id} ${due.why}`), earliest);
            model.delete(`${due.owner.id} ${due.why}`);
          }
        }
        assert.equal(deadlines.next()?.at, model.size > 0 ? Math.min(...model.values()) : undefined);
      }
    }),
  );
});

test('a rate limit gives its rate and no more', () => {
  const limit = new RateLimit(10);
  let allowed = 0;
  for (let now = 1_000; now < 11_000; now++) if (limit.allow(now)) allowed++;
  assert.ok(allowed >= 99 && allowed <= 110, `${allowed}`);
});

test('what we choose of any offer is in that offer, and the initiator accepts it of its own offer', () => {
  fc.assert(
    fc.property(fc.constantFrom(31, 19, 20, 14), fc.nat(), fc.nat(), (group, drop, dropProposal) => {
      const offer = offerIke(ikeProposals, group).map(proposal => without(proposal, drop));
      const some = dropProposal % 3 < 2 ? [offer[dropProposal % 3]!] : offer;
      const choice = chooseIke(some, ikeProposals, group);
      if (choice) {
        const source = some.find(proposal => proposal.number === choice.answer.number)!;
        for (const transform of choice.answer.transforms) assert.ok(contains(source, transform));
        assert.deepEqual(acceptIke([choice.answer], ikeProposals), choice.suite);
      }
      const children = offerChild(childProposals, Uint8Array.of(1, 2, 3, 4)).map(p => without(p, drop));
      const child = chooseChild(children, childProposals);
      // An offer without ESN transforms is answered without; nobody who offered them would take that.
      if (child?.answer.transforms.some(one => one.type === 5))
        assert.deepEqual(acceptChild([child.answer], childProposals), { ...child.suite, spi: 0x0102_0304 });
    }),
  );
});

function without(proposal: Proposal, drop: number): Proposal {
  const transforms = proposal.transforms.filter((_, index) => ((drop >> (index % 31)) & 1) === 0);
  return { ...proposal, transforms };
}

function contains(proposal: Proposal, { type, id, keyBits }: Transform): boolean {
  return proposal.transforms.some(one => one.type === type && one.id === id && one.keyBits === keyBits);
}

test('our order decides, except for the group that the peer already computed', () => {
  const offer = offerIke(ikeProposals, 14).toReversed();
  assert.deepEqual(chooseIke(offer, ikeProposals, 14)?.suite, {
    encr: 20,
    keyBits: 256,
    integ: 0,
    prf: 5,
    group: 14,
  });
  assert.equal(chooseIke(offer, ikeProposals, 2)?.suite.group, 31);
});

test('a proposal with a transform type we do not know, or an attribute, is not for us', () => {
  const [aead, cbc] = offerIke(ikeProposals, 31) as [Proposal, Proposal];
  const odd = { ...aead, transforms: [...aead.transforms, { type: 6, id: 35 }] };
  assert.equal(chooseIke([odd], ikeProposals, 31), undefined);
  assert.equal(chooseIke([odd, cbc], ikeProposals, 31)?.suite.encr, 12);
  const attributes = [{ type: 99, value: Uint8Array.of(1) }];
  const strange = {
    ...aead,
    transforms: aead.transforms.map(one => (one.type === 1 ? { ...one, attributes } : one)),
  };
  assert.equal(chooseIke([strange], ikeProposals, 31), undefined);
});

test('AEAD takes INTEG NONE along, CBC never goes without integrity', () => {
  const [aead, cbc] = offerIke(ikeProposals, 31) as [Proposal, Proposal];
  const none = { ...aead, transforms: [...aead.transforms, { type: 3, id: 0 }] };
  const choice = chooseIke([none], ikeProposals, 31);
  assert.ok(contains(choice!.answer, { type: 3, id: 0 }));
  const bare = { ...cbc, transforms: cbc.transforms.filter(one => one.type !== 3) };
  assert.equal(chooseIke([bare], ikeProposals, 31), undefined);
  const nullIntegrity = { ...bare, transforms: [...bare.transforms, { type: 3, id: 0 }] };
  assert.equal(chooseIke([nullIntegrity], ikeProposals, 31), undefined);
});

test('an answer with two of a kind, another number, or nothing of ours is not accepted', () => {
  const [aead] = offerIke(ikeProposals, 31) as [Proposal];
  const answer = chooseIke([aead], ikeProposals, 31)!.answer;
  assert.ok(acceptIke([answer], ikeProposals));
  assert.equal(acceptIke([aead], ikeProposals), undefined);
  assert.equal(acceptIke([answer, answer], ikeProposals), undefined);
  assert.equal(acceptIke([{ ...answer, number: 9 }], ikeProposals), undefined);
  assert.equal(acceptIke([], ikeProposals), undefined);
  const gone = {
    ...answer,
    transforms: answer.transforms.map(one => (one.type === 1 ? { ...one, id: 3 } : one)),
  };
  assert.equal(acceptIke([gone], ikeProposals), undefined);
});

test('no extended sequence numbers when the peer does not offer them, as strongSwan', () => {
  const [offer] = offerChild([{ ...childProposals[0]!, esn: [0] }], Uint8Array.of(9, 9, 9, 9));
  assert.equal(chooseChild([offer!], childProposals)?.suite.esn, false);
});

test('selectors: exactly the host, of its own family', () => {
  const host = ip('10.9.0.1');
  const exact = hostSelector(host.bytes);
  const range = { ...exact, start: ip('10.0.0.0').bytes, end: ip('10.255.255.255').bytes };
  assert.deepEqual(narrow([range], host, false), [exact]);
  assert.equal(narrow([{ ...exact, protocol: 6 }], host, false), undefined);
  assert.equal(narrow([{ ...exact, startPort: 1 }], host, false), undefined);
  assert.equal(narrow([hostSelector(ip('10.9.0.2').bytes)], host, false), undefined);
  assert.deepEqual(narrow([hostSelector(ip('192.168.1.2').bytes)], host, true), [exact]);
  assert.equal(narrow([hostSelector(ip('fd09::1').bytes)], host, true), undefined);
  assert.equal(
    narrow([{ ...range, start: ip('192.0.2.0').bytes, end: ip('192.0.2.9').bytes }], host, true),
    undefined,
  );
  assert.equal(isExactly([exact], host, false), true);
  assert.equal(isExactly([range], host, false), false);
  assert.equal(isExactly([exact, exact], host, false), false);
  assert.equal(isExactly([], host, true), false);
});
