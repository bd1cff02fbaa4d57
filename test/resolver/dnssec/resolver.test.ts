/** The resolver's own manners, with an upstream made of plain messages: retries, aliases, limits, sharing. */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { Message, ResourceRecord } from '../../../resolver/dns/message.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { EDE, RCODE, TYPE } from '../../../resolver/dns/types.ts';
import { parseTrustAnchors } from '../../../resolver/dnssec/anchors.ts';
import { ValidatingResolver } from '../../../resolver/dnssec/resolver.ts';
import type { UpstreamQuestion } from '../../../resolver/dnssec/types.ts';

const name = (text: string): Name => Name.parseText(text);
const record = (owner: string, type: number, rdata: Uint8Array): ResourceRecord => ({
  name: name(owner),
  type,
  class: 1,
  ttlSeconds: 60,
  rdata,
});
const a = (owner: string): ResourceRecord => record(owner, TYPE.A, Uint8Array.of(192, 0, 2, 1));
const cname = (owner: string, target: string): ResourceRecord => record(owner, TYPE.CNAME, name(target).wire);

function reply({ name: asked, type }: UpstreamQuestion, parts: Partial<Message>): Message {
  return {
    id: 0,
    response: true,
    opcode: 0,
    authoritative: false,
    truncated: false,
    recursionDesired: true,
    recursionAvailable: true,
    authenticData: false,
    checkingDisabled: true,
    rcode: RCODE.NOERROR,
    questions: [{ name: asked, type, class: 1 }],
    answer: [],
    authority: [],
    additional: [],
    ...parts,
  };
}

/** A resolver without anchors: everything is insecure, so that only the walking is tested. */
function unsigned(answer: (question: UpstreamQuestion) => Partial<Message>): {
  resolver: ValidatingResolver;
  asked: string[];
} {
  const asked: string[] = [];
  const resolver = new ValidatingResolver({
    exchange: async question => {
      asked.push(`${question.name.toText()} ${question.type} ${question.attempt ?? 0}`);
      return reply(question, answer(question));
    },
    anchors: [],
    now: () => 1_700_000_000,
  });
  return { resolver, asked };
}

const ANCHOR = parseTrustAnchors(`. DS 1 15 2 ${'00'.repeat(32)}`);

test('part of a CNAME chain: the rest is asked for', async () => {
  const { resolver, asked } = unsigned(({ name: n }) => ({
    answer: n.equals(name('x.test')) ? [cname('x.test', 'y.test')] : [cname('y.test', 'z.test'), a('z.test')],
  }));
  const found = await resolver.lookup(name('x.test'), TYPE.A);
  assert.deepEqual(
    [found.outcome, found.verdict, found.canonicalName.toText()],
    ['positive', 'insecure', 'z.test.'],
  );
  assert.deepEqual(
    found.answer.map(rrset => rrset.name.toText()),
    ['x.test.', 'y.test.', 'z.test.'],
  );
  assert.deepEqual(asked, ['x.test. 1 0', 'y.test. 1 0']);
});

test('alias loops and endless chains end', async () => {
  const loop = unsigned(() => ({ answer: [cname('a.test', 'b.test'), cname('b.test', 'A.test')] }));
  assert.equal((await loop.resolver.lookup(name('a.test'), TYPE.A)).outcome, 'failure');
  const endless = unsigned(({ name: n }) => ({
    answer: [record(n.toText(), TYPE.CNAME, n.prepend(Uint8Array.of(0x61))!.wire)],
  }));
  assert.equal((await endless.resolver.lookup(name('a.test'), TYPE.A)).outcome, 'failure');
  assert.equal(endless.asked.length, 12);
});

test('a DNAME makes its own CNAME; a name that grows too long is YXDOMAIN', async () => {
  const dname = (target: string): ResourceRecord => record('old.test', TYPE.DNAME, name(target).wire);
  const lying = unsigned(() => ({
    answer: [dname('new.test'), cname('www.old.test', 'evil.test'), a('evil.test'), a('www.new.test')],
  }));
  const found = await lying.resolver.lookup(name('www.old.test'), TYPE.A);
  assert.equal(found.canonicalName.toText(), 'www.new.test.');
  const long = unsigned(() => ({ answer: [dname(`${'x'.repeat(63)}.`.repeat(3))], rcode: RCODE.YXDOMAIN }));
  const grown = await long.resolver.lookup(name(`${'y'.repeat(63)}.old.test`), TYPE.A);
  assert.deepEqual([grown.rcode, grown.outcome], [RCODE.YXDOMAIN, 'positive']);
  const silent = unsigned(() => ({ answer: [dname(`${'x'.repeat(63)}.`.repeat(3))] }));
  const unsaid = await silent.resolver.lookup(name(`${'y'.repeat(63)}.old.test`), TYPE.A);
  assert.deepEqual([unsaid.rcode, unsaid.ede?.code], [RCODE.SERVFAIL, EDE.INVALID_DATA]);
});

test('noise in the answer is left out', async () => {
  const { resolver } = unsigned(() => ({
    answer: [a('www.test'), a('bank.test'), record('www.test', TYPE.TXT, Uint8Array.of(1, 0x61))],
    authority: [record('test', TYPE.NS, name('ns.evil.test').wire)],
    additional: [a('ns.evil.test')],
  }));
  const found = await resolver.lookup(name('www.test'), TYPE.A);
  assert.deepEqual(
    [...found.answer, ...found.authority].map(rrset => `${rrset.name.toText()} ${rrset.type}`),
    ['www.test. 1'],
  );
});

test('malformed data of the asked type is an error, not an absence', async () => {
  const { resolver } = unsigned(() => ({
    answer: [{ ...a('www.test'), rdata: Uint8Array.of(1), malformed: true }],
  }));
  const found = await resolver.lookup(name('www.test'), TYPE.A);
  assert.deepEqual(
    [found.outcome, found.verdict, found.ede?.code],
    ['failure', 'indeterminate', EDE.INVALID_DATA],
  );
});

test('upstream failures are failures, never absence; lookup never rejects', async () => {
  const refusing = unsigned(() => ({ rcode: RCODE.REFUSED }));
  const refused = await refusing.resolver.lookup(name('www.test'), TYPE.A);
  assert.deepEqual(
    [refused.outcome, refused.verdict, refused.ede?.code],
    ['failure', 'indeterminate', EDE.NO_REACHABLE_AUTHORITY],
  );
  const silent = new ValidatingResolver({
    exchange: () => Promise.reject(new Error('no answer within 2 s')),
    anchors: ANCHOR,
    now: () => 0,
  });
  const lost = await silent.lookup(name('www.test'), TYPE.A);
  assert.deepEqual(
    [lost.outcome, lost.verdict, lost.ede],
    ['failure', 'indeterminate', { code: EDE.NETWORK_ERROR, text: 'no answer within 2 s' }],
  );
  const broken = new ValidatingResolver({
    exchange: async () => ({}) as Message,
    anchors: ANCHOR,
    now: () => 0,
  });
  assert.equal((await broken.lookup(name('www.test'), TYPE.A)).outcome, 'failure');
});

test('what is bogus is asked for once more, of another server, and keys three times more', async () => {
  const asked: string[] = [];
  const resolver = new ValidatingResolver({
    exchange: async question => {
      asked.push(`${question.type} ${question.attempt ?? 0}`);
      return reply(question, question.type === TYPE.A ? { answer: [a('www.test')] } : {});
    },
    anchors: ANCHOR,
    now: () => 1_700_000_000,
  });
  const found = await resolver.lookup(name('www.test'), TYPE.A);
  assert.deepEqual([found.verdict, found.ede?.code], ['bogus', EDE.DNSKEY_MISSING]);
  assert.deepEqual(asked, ['1 0', '48 0', '48 1', '48 2', '48 3', '1 1']);
  assert.equal(found.answer.length, 1, 'what came is kept for clients that check for themselves');
});

test('questions at the same time share the chain of trust', async () => {
  const asked: string[] = [];
  const resolver = new ValidatingResolver({
    exchange: async question => {
      asked.push(`${question.name.toText()} ${question.type}`);
      await new Promise(resolve => setImmediate(resolve));
      return reply(question, question.type === TYPE.DNSKEY ? {} : { answer: [a(question.name.toText())] });
    },
    anchors: ANCHOR,
    now: () => 1_700_000_000,
  });
  await Promise.all(['a.test', 'b.test', 'c.test'].map(text => resolver.lookup(name(text), TYPE.A)));
  assert.equal(asked.filter(text => text === '. 48').length, 4, 'the first and its retries, for all three');
});

test('more records than we look at are bogus, read or not', async () => {
  const { resolver } = unsigned(() => ({ answer: Array.from({ length: 513 }, () => a('www.test')) }));
  const found = await resolver.lookup(name('www.test'), TYPE.A);
  assert.deepEqual([found.verdict, found.outcome], ['bogus', 'failure']);
  assert.match(found.ede!.text, /more than 512 records/);
  const unread = unsigned(() => ({ unread: 5000 }));
  assert.equal((await unread.resolver.lookup(name('www.test'), TYPE.A)).verdict, 'bogus');
});

test('anchors of unsupported algorithms make their zones insecure', async () => {
  const resolver = new ValidatingResolver({
    exchange: async question => reply(question, { answer: [a('www.test')] }),
    anchors: parseTrustAnchors(`. DS 1 5 2 ${'00'.repeat(32)}`),
    now: () => 1_700_000_000,
  });
  const found = await resolver.lookup(name('www.test'), TYPE.A);
  assert.deepEqual([found.verdict, found.ede?.code], ['insecure', EDE.UNSUPPORTED_DNSKEY_ALGORITHM]);
});

test('an anchor that is revoked or no zone key vouches for nothing: bogus, not insecure', async () => {
  for (const flags of [385, 1]) {
    const key = Uint8Array.of(flags >> 8, flags & 0xff, 3, 15, ...new Uint8Array(32));
    const resolver = new ValidatingResolver({
      exchange: async question =>
        question.type === TYPE.DNSKEY
          ? reply(question, { answer: [record('.', TYPE.DNSKEY, key)] })
          : reply(question, { answer: [a('www.test')] }),
      anchors: [{ name: Name.root, type: TYPE.DNSKEY, records: [key] }],
      now: () => 1_700_000_000,
    });
    assert.equal((await resolver.lookup(name('www.test'), TYPE.A)).verdict, 'bogus', `flags ${flags}`);
  }
});

test('of a name that others are asked for, nothing is believed that came along with an alias to it', async () => {
  const asked: string[] = [];
  const inCorp = (question: UpstreamQuestion): boolean => question.name.isSubdomainOf(name('corp.example'));
  const resolver = new ValidatingResolver({
    exchange: async question => {
      asked.push(question.name.toText());
      if (inCorp(question)) return reply(question, { answer: [record('gw.corp.example', TYPE.A, INSIDE)] });
      return reply(question, { answer: [cname('vpn.example', 'gw.corp.example'), a('gw.corp.example')] });
    },
    anchors: [],
    now: () => 1_700_000_000,
    sameServers: (one, other) => inCorp(one) === inCorp(other),
  });
  const { answer } = await resolver.lookup(name('vpn.example'), TYPE.A);
  assert.deepEqual(asked, ['vpn.example.', 'gw.corp.example.']);
  assert.deepEqual(answer.at(-1)!.rdatas, [INSIDE]);
});

const INSIDE = Uint8Array.of(10, 0, 0, 1);
