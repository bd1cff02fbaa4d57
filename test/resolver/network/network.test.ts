/** The rim: whom it lets ask where nothing can be validated, what it adds to refusals, which servers it takes. */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import test, { type TestContext } from 'node:test';
import type { Message } from '../../../resolver/dns/message.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { EDE, RCODE, TYPE } from '../../../resolver/dns/types.ts';
import { parseTrustAnchors } from '../../../resolver/dnssec/anchors.ts';
import type { UpstreamQuestion } from '../../../resolver/dnssec/types.ts';
import type { NetworkOptions } from '../../../resolver/network/interfaces.ts';
import { Network } from '../../../resolver/network/network.ts';
import { UpstreamError } from '../../../resolver/upstream/error.ts';
import { formatUpstreamServer, parseUpstreamServer } from '../../../resolver/upstream/server.ts';
import { plainSockets } from '../../../resolver/upstream/sockets.ts';
import { dnsPacket } from '../dns-packet.ts';
import { until } from '../until.ts';
import { respond } from '../upstream/fake-server.ts';

const DIGEST = 'AB'.repeat(32);
const ROOT = `. DS 1 13 2 ${DIGEST}`;
const name = (text: string) => Name.parseText(text);

function answering(rcode: number) {
  return async (_: unknown, { name, type }: UpstreamQuestion): Promise<Message> => ({
    id: 1,
    response: true,
    opcode: 0,
    authoritative: false,
    truncated: false,
    recursionDesired: true,
    recursionAvailable: true,
    authenticData: false,
    checkingDisabled: true,
    rcode,
    questions: [{ name, type, class: 1 }],
    answer: [],
    authority: [],
    additional: [],
  });
}

function opened(t: TestContext, more: Partial<NetworkOptions> = {}) {
  const used: string[] = [];
  const events: string[] = [];
  const network = new Network(
    {
      choices: [parseUpstreamServer('127.0.0.1:9')!],
      probing: true,
      portal: { check: undefined, names: [] },
      anchors: parseTrustAnchors(ROOT),
      apart: [],
      ask: answering(RCODE.FORMERR),
      use: servers => used.push(servers.map(formatUpstreamServer).join(' ')),
      forgetFailures: () => events.push('forgetFailures'),
      forgetUnproven: () => events.push('forgetUnproven'),
      sockets: plainSockets,
      mayBeClear: () => true,
      log: (_, event) => events.push(event),
      now: () => performance.now(),
      unixNow: () => 0,
      random: octets => new Uint8Array(octets),
      ...more,
    },
    { named: [{ address: '127.0.0.1', port: 53 }], addresses: [] },
  );
  t.after(() => network.close());
  network.start();
  return { network, used, events };
}

const closed = (network: Network) => until(() => network.status().state === 'closed');

test('where nothing can be validated nobody is asked, but for names that need no chain of trust', async t => {
  const { network } = opened(t, {
    anchors: parseTrustAnchors(`${ROOT}\ndeep.corp.example. DS 1 13 2 ${DIGEST}`),
    apart: [name('corp.example.'), name('forwarded.')],
  });
  const asked: string[] = [];
  const exchange = network.guard(async question => {
    asked.push(question.name.toText());
    return answering(RCODE.NOERROR)(undefined, question);
  });
  await exchange({ name: name('www.example.'), type: TYPE.A });
  await closed(network);
  for (const text of ['www.example.', '.', 'deep.corp.example.', 'www.deep.corp.example.']) {
    await assert.rejects(exchange({ name: name(text), type: TYPE.A }), (error: UpstreamError) => {
      assert.ok(error instanceof UpstreamError);
      assert.match(error.message, /^this network: questions with EDNS are answered FORMERR; .*tls:/);
      return true;
    });
  }
  await exchange({ name: name('www.corp.example.'), type: TYPE.A });
  await exchange({ name: name('forwarded.'), type: TYPE.A });
  assert.deepEqual(asked, ['www.example.', 'www.corp.example.', 'forwarded.']);
  assert.equal(network.counters().closed, 4);
});

test('a resolver that only fails goes on being asked, and its first answer has it probed again', async t => {
  const { network } = opened(t, { ask: answering(RCODE.SERVFAIL) });
  await closed(network);
  assert.equal(network.status().symptom, 'fails-everything');
  const exchange = network.guard(question => answering(RCODE.NOERROR)(undefined, question));
  const before = network.counters().probes!;
  await until(() => {
    void exchange({ name: name('www.example.'), type: TYPE.A });
    return network.counters().probes! > before;
  });
});

test('a refusal says what the network has to do with it, once, and not where policy refused', async t => {
  const { network } = opened(t);
  const question = { name: name('www.example.'), type: TYPE.A };
  const signal = new AbortController().signal;
  const refused = (ede: { code: number; text: string }[]) =>
    network.around(async () => ({ rcode: RCODE.SERVFAIL, ede }))(question, signal);
  assert.deepEqual((await refused([])).ede, [], 'nothing is known yet');
  await closed(network);
  const text = network.explanation()!;
  const why = { code: EDE.DNSSEC_BOGUS, text: 'no signature' };
  assert.deepEqual((await refused([why])).ede, [why, { code: EDE.NETWORK_ERROR, text }]);
  const told = { code: EDE.NETWORK_ERROR, text: `no answer: ${text}` };
  assert.deepEqual((await refused([told])).ede, [told]);
  const blocked = { code: EDE.BLOCKED, text: 'policy group block' };
  assert.deepEqual((await refused([blocked])).ede, [blocked]);
  const good = { rcode: RCODE.NOERROR, ede: [] };
  assert.equal(await network.around(async () => good)(question, signal), good);
});

test('the servers: those of the list in order, the network’s where the list says so, none twice, four at most', t => {
  const named = Array.from({ length: 6 }, (_, i) => ({ address: `192.0.2.${i + 1}`, port: 53 }));
  const choices = ['tls://192.0.2.99#dns.example', '192.0.2.2'].map(text => parseUpstreamServer(text)!);
  const { network, used, events } = opened(t, { choices: ['network', ...choices], probing: false });
  network.names(named);
  network.names([]);
  const tls = 'tls://192.0.2.99#dns.example';
  assert.deepEqual(used, [
    `127.0.0.1:53 ${tls} 192.0.2.2:53`,
    `192.0.2.1:53 192.0.2.2:53 192.0.2.3:53 192.0.2.4:53 ${tls}`,
    `${tls} 192.0.2.2:53`,
  ]);
  assert.equal(network.status().state, 'unknown', 'nobody was to probe');
  assert.equal(events.filter(event => event === 'networkChanged').length, 3);
});

test('another network: what nobody proved is forgotten; that a container comes or goes is none', async t => {
  const { network, events } = opened(t, { choices: ['network'], probing: false });
  const forgotten = () => events.filter(event => event === 'forgetUnproven').length;
  const changed = () => events.filter(event => event === 'networkChanged').length;
  assert.equal(forgotten(), 0, 'at the start');
  network.names([{ address: '192.0.2.1', port: 53 }]);
  assert.deepEqual([changed(), forgotten()], [2, 1]);
  network.linkEvent({ kind: 'address', index: 7, address: Uint8Array.of(172, 17, 0, 1), present: true });
  await until(() => changed() === 3);
  assert.equal(forgotten(), 1);
  const gateway = Uint8Array.of(192, 168, 1, 1);
  network.linkEvent({ kind: 'defaultRoute', index: 2, gateway, present: false });
  network.linkEvent({ kind: 'defaultRoute', index: 2, gateway, present: true });
  await until(() => changed() === 4);
  assert.equal(forgotten(), 2, 'of the same addresses, but perhaps another');
});

test('an explicit list has nothing to do with what the network names', t => {
  const { network, used } = opened(t, { probing: false });
  network.names([{ address: '192.0.2.1', port: 53 }]);
  assert.deepEqual(used, ['127.0.0.1:9']);
});

test('without a portal nothing is allowed', async t => {
  const { network } = opened(t);
  await closed(network);
  assert.throws(() => network.allow('login.hotel.example', 1000), RangeError);
});

test('the portal check asks nobody at an address where policy wants a seal, and never this host', async t => {
  const pages = createServer((_, response) => response.end('a login page')).listen(0, '127.0.0.1');
  const resolver = createSocket('udp4');
  t.after(() => {
    pages.close();
    resolver.close();
  });
  resolver.on('message', (bytes, { port, address }) => {
    const query = dnsPacket.decode(bytes);
    const { name, type } = query.questions![0]!;
    const data = type === 'A' ? '127.0.0.1' : '2001:db8::1';
    resolver.send(respond(query, { answers: [{ type, name, ttl: 1, data } as never] }), port, address);
  });
  resolver.bind(0, '127.0.0.1');
  await Promise.all([once(pages, 'listening'), once(resolver, 'listening')]);
  let asked = 0;
  pages.on('request', () => asked++);
  const wanted: string[] = [];
  const { network } = opened(t, {
    choices: [parseUpstreamServer(`127.0.0.1:${resolver.address().port}`)!],
    portal: {
      check: {
        url: new URL(`http://check.example:${(pages.address() as AddressInfo).port}/known`),
        response: 'known',
      },
      names: [],
    },
    mayBeClear: (_, address) => {
      wanted.push(address);
      return false;
    },
  });
  await until(() => wanted.length > 0);
  await closed(network);
  assert.deepEqual([asked, wanted[0]], [0, '2001:db8::1']);
});
