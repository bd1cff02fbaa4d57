import assert from 'node:assert/strict';
import { parseMessage } from '../../../resolver/dns/message.ts';
import { CLASS, TYPE } from '../../../resolver/dns/types.ts';
import { composeError, composeHeaderError, composeResponse } from '../../../resolver/stub/answer.ts';
import { parseDohRequest } from '../../../resolver/stub/doh-request.ts';
import { parseQuery, type StubQuery } from '../../../resolver/stub/query.ts';
import { leastTtl, wishesOf, withOptions } from '../../../resolver/stub/stream-options.ts';
import type { StubAnswer } from '../../../resolver/stub/types.ts';
import { queryBytes } from '../../resolver/stub/clients.ts';
import { octets, type Target } from '../target.ts';
import { messages } from './dns.ts';

function answerTo({ name }: StubQuery, count: number): StubAnswer {
  const rdatas = Array.from({ length: count }, (_, i) => Uint8Array.of(192, 0, 2, i));
  const rrset = { name, type: TYPE.A, class: CLASS.IN, ttlSeconds: 1, rdatas, signatures: [] };
  return { rcode: 0, authenticated: true, answer: [rrset], authority: [], ede: [{ code: 3, text: 'stale' }] };
}

/** Messages as if a client had sent them, half of them without the records that no query has. */
function asQueries(all: Uint8Array[]): Uint8Array[] {
  return all.map((message, i) => {
    const query = Uint8Array.from(message);
    query[2]! &= 0x07; // QR and opcode
    if (i % 2 === 0) query.fill(0, 6, 10);
    return query;
  });
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
      ...asQueries(messages()),
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

/** Whatever a query wishes, the response stays the same message with options more, and padding makes it whole blocks. */
const options: Target = {
  name: 'stub/options',
  open: () => ({
    corpus: [
      ...['000c00040000abcd', '000b0000', '000c0000000b0000', '000a00080102030405060708'].map(hex =>
        withOpt(Buffer.from(hex, 'hex')),
      ),
      ...asQueries(messages()),
    ],
    check(bytes, random) {
      const wishes = wishesOf(bytes);
      const parsed = parseQuery(bytes);
      if (parsed.kind !== 'query') return;
      const plain = composeResponse(parsed.query, answerTo(parsed.query, random.below(60)), 'tcp');
      const dressed = withOptions(plain, wishes);
      const [before, after] = [parseMessage(plain), parseMessage(dressed)];
      assert.deepEqual({ ...after, edns: undefined }, { ...before, edns: undefined });
      const added = (after.edns?.options.length ?? 0) - (before.edns?.options.length ?? 0);
      if (parsed.query.edns === undefined) assert.equal(dressed, plain);
      else assert.equal(added, Number(wishes.padding) + Number(wishes.keepalive));
      if (wishes.padding && added > 0) assert.equal(dressed.length % 468, 0);
      assert.equal(leastTtl(dressed), before.answer.length === 0 ? 0 : 1);
    },
  }),
};

function withOpt(rdata: Uint8Array): Uint8Array {
  const query = queryBytes();
  query.writeUInt16BE(rdata.length, query.length - 2);
  return Uint8Array.from([...query, ...rdata]);
}

const doh: Target = {
  name: 'stub/doh',
  open: () => ({
    corpus: [
      'GET /dns-query?dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB',
      'GET /dns-query?ct=application/dns-message&dns=AAABAAABAAAAAAABAWE',
      'POST /dns-query application/dns-message 33',
      'POST /dns-query application/dns-message; 4096',
    ].map(octets),
    words: ['?', '&', 'dns=', '%3d', '=', '/dns-query', ' ', 'PUT', '..', '#'].map(octets),
    check(bytes) {
      const [method = '', target = '', contentType, contentLength] = Buffer.from(bytes)
        .toString('latin1')
        .split(' ');
      const parsed = parseDohRequest({ method, target, contentType, contentLength });
      if (parsed.kind === 'body') assert.equal(method, 'POST');
      if (parsed.kind !== 'question') return;
      assert.ok(parsed.bytes.length > 0 && parsed.bytes.length <= 4096);
      assert.ok(target.includes(`dns=${Buffer.from(parsed.bytes).toString('base64url').slice(0, -1)}`));
    },
  }),
};

export const stubTargets: readonly Target[] = [query, options, doh];
