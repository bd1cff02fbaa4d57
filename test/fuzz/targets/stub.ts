import assert from 'node:assert/strict';
import { parseMessage } from '../../../resolver/dns/message.ts';
import { CLASS, TYPE } from '../../../resolver/dns/types.ts';
import { composeError, composeHeaderError, composeResponse } from '../../../resolver/stub/answer.ts';
import { parseQuery, type StubQuery } from '../../../resolver/stub/query.ts';
import type { StubAnswer } from '../../../resolver/stub/types.ts';
import { queryBytes } from '../../resolver/stub/clients.ts';
import type { Target } from '../target.ts';
import { messages } from './dns.ts';

function answerTo({ name }: StubQuery, count: number): StubAnswer {
  const rdatas = Array.from({ length: count }, (_, i) => Uint8Array.of(192, 0, 2, i));
  const rrset = { name, type: TYPE.A, class: CLASS.IN, ttlSeconds: 1, rdatas, signatures: [] };
  return { rcode: 0, authenticated: true, answer: [rrset], authority: [], ede: [{ code: 3, text: 'stale' }] };
}

/** Whatever a client sends can be answered; the answer is a message, of the client's ID, in the client's room. */
const query: Target = {
  name: 'stub/query',
  open: () => ({
    corpus: [
      queryBytes(),
      queryBytes({ edns: false }),
      queryBytes({ edns: { do: true, udpSize: 4096 } }),
      queryBytes({ edns: { version: 1 } }),
      queryBytes({ questions: [{ type: 'TXT', name: 'version.bind', class: 'CH' }] }),
      ...messages(),
    ].map(bytes => Uint8Array.from(bytes)),
    check(bytes, random) {
      const parsed = parseQuery(bytes);
      if (parsed.kind === 'drop') {
        assert.ok(bytes.length < 12 || (bytes[2]! & 0x80) !== 0);
        return;
      }
      const transport = random.below(2) === 0 ? 'udp' : 'tcp';
      const response =
        parsed.kind === 'query'
          ? composeResponse(parsed.query, answerTo(parsed.query, random.below(120)), transport)
          : parsed.query === undefined
            ? composeHeaderError(bytes, parsed.rcode)
            : composeError(parsed.query, parsed.rcode);
      const message = parseMessage(response);
      assert.equal(message.response, true);
      assert.equal(message.id, (bytes[0]! << 8) | bytes[1]!);
      if (parsed.kind !== 'query') return;
      assert.ok(message.questions[0]!.name.equals(parsed.query.name));
      assert.equal(message.edns === undefined, parsed.query.edns === undefined);
      if (transport === 'udp')
        assert.ok(response.length <= Math.max(512, Math.min(1232, parsed.query.edns?.udpSize ?? 0)));
    },
  }),
};

export const stubTargets: readonly Target[] = [query];
