import assert from 'node:assert/strict';
import test from 'node:test';
import { addressesOf, formatUpstreamServer, parseUpstreamServer } from '../../../resolver/upstream/server.ts';

const PIN = 'YZPgTZ+woNCCCIW3LH2CxQeLzB/1m42QcCTBSdgayjs=';

test('every way to write a server is read, and written back as it reads', () => {
  const address = { address: '192.0.2.1', port: 53 };
  const cases: [string, object][] = [
    ['192.0.2.1:53', { transport: 'udp', address }],
    ['[2001:db8::1]:5353', { transport: 'udp', address: { address: '2001:db8::1', port: 5353 } }],
    ['tcp://192.0.2.1:53', { transport: 'tcp', address }],
    [
      'tls://192.0.2.1#dns.example',
      { transport: 'tls', addresses: ['192.0.2.1'], port: 853, name: 'dns.example', pins: [] },
    ],
    [
      `tls://[2001:db8::1]:8853#pin-sha256=${PIN}`,
      { transport: 'tls', addresses: ['2001:db8::1'], port: 8853, pins: [PIN] },
    ],
    ['tls://dns.example', { transport: 'tls', addresses: [], port: 853, name: 'dns.example', pins: [] }],
    [
      `tls://192.0.2.1#dns.example#192.0.2.2#pin-sha256=${PIN}`,
      {
        transport: 'tls',
        addresses: ['192.0.2.1', '192.0.2.2'],
        port: 853,
        name: 'dns.example',
        pins: [PIN],
      },
    ],
    [
      'https://dns.example/dns-query',
      {
        transport: 'https',
        addresses: [],
        port: 443,
        name: 'dns.example',
        pins: [],
        path: '/dns-query',
      },
    ],
    [
      'https://dns.example:8443/q?who=me#192.0.2.1#2001:db8::1',
      {
        transport: 'https',
        addresses: ['192.0.2.1', '2001:db8::1'],
        port: 8443,
        name: 'dns.example',
        pins: [],
        path: '/q?who=me',
      },
    ],
  ];
  for (const [text, server] of cases) {
    const parsed = parseUpstreamServer(text);
    assert.deepEqual(parsed, server, text);
    assert.equal(formatUpstreamServer(parsed!), text);
  }
});

test('what could not be authenticated, or means two things, is no server', () => {
  for (const text of [
    '',
    'dns.example',
    '192.0.2.1:0',
    '192.0.2.1#dns.example',
    'tls://192.0.2.1', // whom to believe?
    'tls://192.0.2.1#',
    'tls://192.0.2.1#dns.example,192.0.2.2',
    'tls://192.0.2.1#dns.example#dns.example.net',
    'tls://192.0.2.1#pin-sha256=AAAA',
    'tls://localhost',
    'https://192.0.2.1/dns-query', // no name
    'https://dns.example',
    'https://user@dns.example/',
    'https://dns.example/dns-query#dns.example.net',
    'http://dns.example/dns-query',
    'quic://192.0.2.1#dns.example',
  ]) {
    assert.equal(parseUpstreamServer(text), undefined, text);
  }
});

test('where packets may go', () => {
  const addresses = (text: string) => addressesOf(parseUpstreamServer(text)!);
  assert.deepEqual(addresses('192.0.2.1'), [{ address: '192.0.2.1', port: 53 }]);
  assert.deepEqual(addresses('tls://dns.example'), []);
  assert.deepEqual(addresses('https://dns.example/q#192.0.2.1#2001:db8::1'), [
    { address: '192.0.2.1', port: 443 },
    { address: '2001:db8::1', port: 443 },
  ]);
});
