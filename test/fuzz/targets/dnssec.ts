import assert from 'node:assert/strict';
import { type Message, parseMessage } from '../../../resolver/dns/message.ts';
import { DnsFormatError, Name } from '../../../resolver/dns/name.ts';
import { parseTrustAnchors } from '../../../resolver/dnssec/anchors.ts';
import { ValidatingResolver } from '../../../resolver/dnssec/resolver.ts';
import type { Resolution } from '../../../resolver/dnssec/types.ts';
import { recordedAnswers } from '../answers.ts';
import type { Target } from '../target.ts';
import { unless } from '../target.ts';

/**
 * Recorded answers, one of them spoilt, through the whole of the validator: what it then calls secure is what it called
 * secure before.
 */
const verdict: Target = {
  name: 'dnssec/verdict',
  oneIn: 100,
  async open() {
    const { anchors: text, unixSeconds, exchanges } = recordedAnswers();
    const anchors = parseTrustAnchors(text);
    const key = (name: Name, type: number) => `${type} ${name.key}`;
    const recorded = new Map(
      exchanges.map(({ name, type, answer }) => [key(Name.parseText(name), type), answer]),
    );
    const resolver = (spoilt: Map<string, Uint8Array>) =>
      new ValidatingResolver({
        anchors,
        now: () => unixSeconds,
        exchange: async ({ name, type }): Promise<Message> => {
          const bytes = spoilt.get(key(name, type)) ?? recorded.get(key(name, type));
          const message = bytes && unless(() => parseMessage(bytes), DnsFormatError);
          // Upstream lets nothing else through.
          if (!message?.questions[0]?.name.equals(name)) throw new Error('no answer');
          return message;
        },
      });
    const truth = new Map<string, string>();
    for (const { name, type } of exchanges) {
      const found = await resolver(new Map()).lookup(Name.parseText(name), type);
      truth.set(key(Name.parseText(name), type), told(found));
    }
    assert.ok([...truth.values()].filter(text => text.startsWith('secure')).length > 30);
    return {
      corpus: exchanges.map(({ answer }) => answer),
      async check(bytes, random) {
        const index = ((bytes[0] ?? 0) << 8) | (bytes[1] ?? 0);
        const { name, type } = exchanges[index] ?? random.pick(exchanges);
        const asked = key(Name.parseText(name), type);
        const found = await resolver(new Map([[asked, bytes]])).lookup(Name.parseText(name), type);
        if (found.verdict === 'secure') assert.equal(told(found), truth.get(asked), name);
        if (found.verdict === 'insecure')
          assert.ok(!truth.get(asked)!.startsWith('secure'), `${name} became insecure`);
      },
    };
  },
};

function told({ verdict, outcome, answer }: Resolution): string {
  const sets = answer.map(
    ({ name, type, rdatas }) => `${type} ${name.key} ${rdatas.map(String).sort().join(' ')}`,
  );
  return `${verdict} ${outcome} ${sets.sort().join('; ')}`;
}

export const dnssecTargets: readonly Target[] = [verdict];
