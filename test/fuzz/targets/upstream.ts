import assert from 'node:assert/strict';
import { DnsFormatError, Name } from '../../../resolver/dns/name.ts';
import { parseMessage } from '../../../resolver/dns/message.ts';
import { composeQuery, judge, questionEnd } from '../../../resolver/upstream/query.ts';
import { parseResolvConf } from '../../../resolver/upstream/resolv-conf.ts';
import { formatUpstreamServer, parseUpstreamServer } from '../../../resolver/upstream/server.ts';
import { Deframer, frame } from '../../../resolver/upstream/tcp-framing.ts';
import { recordedAnswers } from '../answers.ts';
import type { Target } from '../target.ts';
import { octets, textOf, unless } from '../target.ts';
import { messages } from './dns.ts';

/** However the stream is cut, the same messages come out, and nothing is held beyond one message. */
const framing: Target = {
  name: 'upstream/framing',
  open: () => ({
    corpus: messages().map(message => frame(message)),
    check(bytes, random) {
      const limit = random.pick([512, 4096, 65_535]);
      const whole = new Deframer(limit);
      const expected: Uint8Array[] = [];
      const fits = whole.push(bytes, message => expected.push(message) > 0);
      const pieces = new Deframer(limit);
      const found: Uint8Array[] = [];
      let alive = true;
      for (let at = 0; alive && at < bytes.length; ) {
        const size = 1 + random.below(200);
        alive = pieces.push(bytes.subarray(at, at + size), message => found.push(message) > 0);
        at += size;
      }
      assert.equal(alive, fits);
      assert.deepEqual(found, expected);
      for (const message of found) assert.ok(message.length <= limit);
      if (fits) assert.equal(pieces.atBoundary, whole.atBoundary);
    },
  }),
};

/** What counts as an answer is one for our ID and question, whatever else is in it. */
const judged: Target = {
  name: 'upstream/judge',
  open() {
    const { exchanges } = recordedAnswers();
    const queries = exchanges.map(({ name: text, type }, id) => {
      const name = Name.parseText(text);
      return { query: composeQuery(name, type, { id }), end: questionEnd(name) };
    });
    return {
      corpus: exchanges.map(({ answer }) => answer),
      check(bytes, random) {
        // The recorded answers have the IDs 0, 1, 2 …, so that most mutants find their question.
        const own = queries[((bytes[0] ?? 0) << 8) | (bytes[1] ?? 0)];
        const { query, end } = own !== undefined && random.below(4) > 0 ? own : random.pick(queries);
        const judgement = judge(bytes, query, end);
        if (judgement === 'foreign') return;
        assert.deepEqual([...bytes.subarray(0, 2)], [...query.subarray(0, 2)]);
        if (judgement === 'rejection') return;
        const message = unless(() => parseMessage(bytes), DnsFormatError);
        const asked = parseMessage(query).questions[0]!;
        if (message === undefined) return;
        assert.equal(message.response, true);
        assert.ok(message.questions[0]!.name.equals(asked.name) && message.questions[0]!.type === asked.type);
        if (judgement !== 'folded') assert.equal(message.truncated, judgement === 'truncated');
      },
    };
  },
};

const resolvConf: Target = {
  name: 'upstream/resolv.conf',
  open: () => ({
    corpus: [
      'nameserver 192.0.2.53\nnameserver 2001:db8::53\noptions edns0 trust-ad\nsearch example.org\n',
      '# made by NetworkManager\n\tnameserver\t::1\nnameserver fe80::1%eth0\n; end',
      'nameserver 127.0.0.1\r\nnameserver ::ffff:192.0.2.1\nnameserver 0.0.0.0',
    ].map(octets),
    words: ['nameserver ', '127.0.0.1', '::1', '%eth0', '\n', '192.0.2.999', '0x7f.1'].map(octets),
    check(bytes) {
      const ourselves = { listen: [{ address: '127.0.0.1', port: 53 }], interfaceAddresses: ['192.0.2.7'] };
      for (const { address, port } of parseResolvConf(textOf(bytes), ourselves)) {
        assert.equal(port, 53);
        assert.ok(!['127.0.0.1', '0.0.0.0', ''].includes(address));
      }
    },
  }),
};

const server: Target = {
  name: 'upstream/server',
  open: () => ({
    corpus: [
      '192.0.2.1',
      '[2001:db8::1]:5353',
      'tcp://192.0.2.1:5353',
      'tls://192.0.2.1:8853#dns.example#2001:db8::1',
      `tls://[2001:db8::1]:853#pin-sha256=${'A'.repeat(43)}=`,
      'https://dns.example/dns-query#192.0.2.1#2001:db8::1',
    ].map(octets),
    words: ['tls://', 'https://', '#', 'pin-sha256=', ':853', '[::1]', '/', '%lo'].map(octets),
    check(bytes) {
      const parsed = parseUpstreamServer(textOf(bytes));
      if (parsed !== undefined) assert.deepEqual(parseUpstreamServer(formatUpstreamServer(parsed)), parsed);
    },
  }),
};

export const upstreamTargets: readonly Target[] = [framing, judged, resolvConf, server];
