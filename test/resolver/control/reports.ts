import type { Explanation, StatusReport } from '../../../resolver/control/api.ts';

/** A report with every optional part in at least one place. */
export const statusReport: StatusReport = {
  version: '0.1.0',
  pid: 4711,
  startedAt: '2026-01-31T09:00:00.000Z',
  listen: ['127.0.0.1:53', '[::1]:53'],
  upstreams: [
    { address: '192.0.2.53:53', transport: 'udp', healthy: true, rttMs: 11.7, slowMs: 20.1 },
    { address: '[2001:db8::53]:53', transport: 'udp', healthy: false, why: 'no answer' },
  ],
  network: {
    state: 'portal',
    using: ['192.0.2.53:53'],
    symptom: 'rewrites',
    text: 'answers are rewritten: every name has the address 198.51.100.1',
    doing: 'only the names of portal checks are answered',
    probedMsAgo: 2_000,
    probeMs: 80,
    nextProbeInMs: 4_000,
    ways: [
      {
        server: '192.0.2.53:53 over UDP',
        symptom: 'rewrites',
        text: 'answers are rewritten: every name has the address 198.51.100.1',
        checks: { keys: 'proven', ds: 'proven', denial: 'a name that does not exist has an address' },
      },
    ],
    portal: {
      login: 'login.hotel.example',
      endsInMs: 290_000,
      answered: 3,
      allowed: [{ name: 'login.hotel.example', endsInMs: 600_000 }],
    },
  },
  dataplane: { kind: 'xfrm', kernel: 'Linux 6.1.0' },
  identity: { name: 'host.example.org', keys: [{ algorithm: 'Ed25519', fingerprint: 'SHA256:abc' }] },
  trustAnchors: [
    {
      zone: '.',
      managed: true,
      keys: [
        { keyTag: 38696, algorithm: 8, state: 'unseen' },
        { keyTag: 20326, algorithm: 8, state: 'valid', since: '2026-01-01T00:00:00Z' },
        {
          keyTag: 4711,
          algorithm: 13,
          state: 'addPend',
          since: '2026-01-11T09:00:00Z',
          until: '2026-02-10T09:00:00Z',
        },
      ],
      lastRefresh: '2026-01-31T03:00:00Z',
      nextRefresh: '2026-01-31T15:00:00Z',
      problem: 'no upstream server answered in time',
    },
  ],
  peers: [
    {
      address: '192.0.2.7',
      names: ['www.example.org', 'example.org'],
      group: 'private-or-clear',
      assurance: 'authenticated',
      keyFingerprint: 'SHA256:def',
      since: '2026-01-31T11:00:00.000Z',
      mode: 'transport',
      suite: 'AES_GCM_16_256/ESN',
      inBytes: 1_234_567,
      outBytes: 999,
      idleSeconds: 75,
      nextDeadline: { at: '2026-01-31T12:00:42.000Z', why: 'lifespan' },
    },
    {
      address: '2001:db8::9',
      names: [],
      group: 'clear',
      assurance: 'clear',
      since: '2026-01-31T11:59:00.000Z',
      inBytes: 0,
      outBytes: 0,
    },
  ],
  failures: [{ name: 'bad.example\u001b[2J', reason: 'wrong key', until: '2026-01-31T13:00:00.000Z' }],
  counters: { 'stub.questions': 12 },
};

export const explanation: Explanation = {
  name: 'www.example.org',
  type: 'A',
  askedAt: '2026-11-20T12:00:00.000Z',
  canonicalName: 'web.example.net',
  group: 'private',
  assurance: 'blocked',
  rcode: 'SERVFAIL',
  ede: [{ code: 0, text: 'peer key mismatch' }],
  addresses: [
    {
      address: '192.0.2.7',
      answered: false,
      group: 'private',
      assurance: 'blocked',
      keyFingerprint: 'SHA256:def',
      why: 'wrong key',
    },
    { address: '192.0.2.8', answered: true, group: 'private', assurance: 'authenticated' },
  ],
  answerMs: 34.25,
  dnsMs: 20.5,
  ikeMs: 9.125,
  steps: [
    { at: 0, what: 'question' },
    { at: 12.3, what: 'DNSSEC', detail: 'secure' },
  ],
  advice: 'Ask the owner of www.example.org.',
};
