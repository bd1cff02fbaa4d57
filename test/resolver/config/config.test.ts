import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { formatCidr, formatSocketAddress } from '../../../resolver/address.ts';
import { anchorRecords } from '../../../resolver/config/anchors.ts';
import {
  ConfigurationError,
  DEFAULT_FILE,
  loadConfiguration,
  serversAtStart,
} from '../../../resolver/config.ts';
import { printConfiguration } from '../../../resolver/config/print.ts';
import { SETTINGS } from '../../../resolver/config/schema.ts';
import { formatUpstreamServer } from '../../../resolver/upstream/server.ts';
import { machineWith } from './machine.ts';

const FILE = '/etc/holdfast/test.yaml';

function load(
  yaml: string,
  more: {
    files?: Record<string, string>;
    environment?: Record<string, string>;
    flags?: Record<string, unknown>;
  } = {},
) {
  return loadConfiguration({
    file: FILE,
    flags: more.flags ?? {},
    environment: more.environment ?? {},
    machine: machineWith({ [FILE]: yaml, ...more.files }),
  });
}

function problemsOf(action: () => unknown): string[] {
  try {
    action();
  } catch (error) {
    assert.ok(error instanceof ConfigurationError, String(error));
    return error.message.split('\n');
  }
  return assert.fail('the configuration was accepted');
}

test('nothing given: every default, upstreams and name from the machine', () => {
  const machine = machineWith(
    { '/etc/resolv.conf': '# net\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n' },
    'host.example.org',
  );
  const configuration = loadConfiguration({ environment: {}, machine });
  assert.deepEqual(configuration.listen.map(formatSocketAddress), ['127.0.0.1:53', '[::1]:53']);
  assert.deepEqual(configuration.access.map(formatCidr), ['127.0.0.0/8', '::1/128']);
  assert.deepEqual(configuration.upstream, ['network']);
  assert.deepEqual(configuration.networkServers.map(formatSocketAddress), [
    '192.0.2.53:53',
    '[2001:db8::53]:53',
  ]);
  assert.deepEqual(anchorRecords(configuration.trustAnchors), [
    '. IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D',
    '. IN DS 38696 8 2 683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16',
  ]);
  assert.deepEqual(configuration.identity, {
    name: 'host.example.org',
    keys: { directory: '/var/lib/holdfast/keys', generate: true },
  });
  assert.equal(configuration.policy.default, 'private-or-clear');
  assert.equal(configuration.patienceMillis, 2000);
  assert.equal(configuration.trustAnchorsManaged, true);
  assert.deepEqual(configuration.cache, { maxBytes: 64 << 20, maxStaleSeconds: 86_400, keepOnStop: false });
  assert.equal(configuration.control, '/run/holdfast/control.sock');
  assert.deepEqual(configuration.ike, { ports: { ike: 500, nat: 4500 } });
  assert.equal(configuration.dataplane, 'auto');
  assert.equal(configuration.validationTime, undefined);
  assert.equal(configuration.file, undefined);
});

test('a whole file is read, relative paths start at the file', () => {
  const configuration = load(
    `
listen: [127.0.0.2:5353, "::1"]
access: 10.0.0.0/8
upstream: ["[2001:db8::1]:5300", 192.0.2.1]
trust-anchors: [". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D"]
negative-trust-anchors: [Corp.Example., .]
identity: { name: Me.Example.org, keys: [a.pem, /b.pem] }
policy:
  default: private-if-published
  groups:
    private: ["*.bank.example", 192.0.2.77/24, müller.example]
    clear:
  directory: policies
patience: 1.5s
trust-anchors-managed: true
cache: { size: 128 MB, stale: 0s, keep-on-stop: yes }
control: run/control.sock
state: state
ike: { ports: { ike: 1500, nat: 14500 } }
dataplane: none
log: { level: debug, format: json }
validation-time: 20260131120000
`,
    { files: { '/etc/holdfast/policies/block': '# no\nads.example # really\n2001:db8:bad::/48\n' } },
  );
  assert.deepEqual(configuration.listen, [
    { address: '127.0.0.2', port: 5353 },
    { address: '::1', port: 53 },
  ]);
  assert.deepEqual(configuration.access.map(formatCidr), ['10.0.0.0/8']);
  assert.deepEqual(configuration.negativeTrustAnchors.map(String), ['corp.example.', '.']);
  assert.equal(configuration.trustAnchors.length, 1);
  assert.deepEqual(configuration.identity, {
    name: 'me.example.org',
    keys: { files: ['/etc/holdfast/a.pem', '/b.pem'] },
  });
  const { private: sealed, block, clear } = configuration.policy.groups;
  assert.deepEqual(sealed.namePatterns, ['*.bank.example', 'xn--mller-kva.example']);
  assert.deepEqual(sealed.cidrs.map(formatCidr), ['192.0.2.0/24']);
  assert.deepEqual(block.namePatterns, ['ads.example']);
  assert.deepEqual(block.cidrs.map(formatCidr), ['2001:db8:bad::/48']);
  assert.deepEqual(clear, { cidrs: [], namePatterns: [] });
  assert.equal(configuration.patienceMillis, 1500);
  assert.equal(configuration.trustAnchorsManaged, true);
  assert.deepEqual(configuration.cache, { maxBytes: 128 << 20, maxStaleSeconds: 0, keepOnStop: true });
  assert.equal(configuration.control, '/etc/holdfast/run/control.sock');
  assert.equal(configuration.state, '/etc/holdfast/state');
  assert.equal(configuration.validationTime, Date.UTC(2026, 0, 31, 12) / 1000);
});

test('errors name the line, the key, what was expected and what was found; all of them at once', () => {
  const yaml = `listen:
  - 127.0.0.1:53
  - localhost:53
polic:
  default: private
policy:
  default: privat
  groups:
    privat-or-clear: [10.0.0.0/8]
    private: [10.0.0.0/33, 1.2.3]
patience: 2
ike: { ports: { ike: 0 } }
identity: none
log:
  level: 7
`;
  assert.deepEqual(
    problemsOf(() => load(yaml)),
    [
      `${FILE}:3:5: listen[1]: expected an IP address with or without port, such as 127.0.0.1:53 or [::1]:53; found "localhost:53"`,
      `${FILE}:4:1: polic: expected one of the keys listen, listen-tls, listen-https, tls, access, upstream, upstream-authorities, forward, probe, portal, trust-anchors, negative-trust-anchors, trust-anchors-managed, cache, identity, policy, patience, control, state, ike, dataplane, log, validation-time; found "polic" (did you mean policy?)`,
      `${FILE}:7:12: policy.default: expected one of clear, clear-or-private, private-or-clear, private-if-published, private, block; found "privat" (did you mean private?)`,
      `${FILE}:9:5: policy.groups.privat-or-clear: expected one of the keys clear, clear-or-private, private-or-clear, private-if-published, private, block; found "privat-or-clear" (did you mean private-or-clear?)`,
      `${FILE}:10:15: policy.groups.private[0]: expected an address, a prefix, a name or a pattern such as *.example.org; found "10.0.0.0/33"`,
      `${FILE}:10:28: policy.groups.private[1]: expected an address, a prefix, a name or a pattern such as *.example.org; found "1.2.3"`,
      `${FILE}:11:11: patience: expected a duration such as 2s or 500ms; found 2`,
      `${FILE}:12:22: ike.ports.ike: expected a port from 1 to 65535; found 0`,
      `${FILE}:13:11: identity: expected a mapping with the keys name, keys; found "none"`,
      `${FILE}:15:10: log.level: expected one of trace, debug, info, warn, error, silent; found 7`,
    ],
  );
});

test('a key in the wrong place: the right place is named', () => {
  assert.match(
    problemsOf(() => load('directory: /x\n'))[0]!,
    /:1:1: directory: .*did you mean policy\.directory\?/,
  );
});

test('YAML that cannot be read: the line, and the usual cause for a pattern without quotes', () => {
  assert.match(
    problemsOf(() => load('listen: [1\nstate: x\n'))[0]!,
    /test\.yaml:[12]:\d+: found YAML that cannot be read/,
  );
  assert.match(
    problemsOf(() => load('policy:\n  groups:\n    private:\n      - *.example.org\n'))[0]!,
    /test\.yaml:4:9: found YAML that cannot be read: .*\(quote what begins with \*: "\*\.example\.org"\)/,
  );
  assert.match(problemsOf(() => load('state: a\nstate: b\n'))[0]!, /:2:1: found YAML .*unique/);
  assert.match(
    problemsOf(() => load('- a\n'))[0]!,
    /:1:1: expected a mapping of keys to values; found \["a"\]/,
  );
});

test('files that the configuration names: missing, unreadable, malformed', () => {
  const named = () => loadConfiguration({ file: '/none.yaml', environment: {}, machine: machineWith({}) });
  assert.deepEqual(problemsOf(named), ['/none.yaml: expected a configuration file; found no such file']);
  assert.match(
    problemsOf(() => load('', { files: { [FILE]: 'EACCES' } }))[0]!,
    /test\.yaml: expected a readable file; found EACCES/,
  );
  assert.deepEqual(
    problemsOf(() => load('policy:\n  directory: nowhere\n')),
    [`${FILE}:2:14: policy.directory: expected a directory; found "/etc/holdfast/nowhere"`],
  );
  assert.deepEqual(
    problemsOf(() =>
      load('policy: {directory: p}', {
        files: { '/etc/holdfast/p/clear': 'a.example\n10.0.0.0/8 tcp 0 22\n\n!\n' },
      }),
    ),
    [
      '/etc/holdfast/p/clear:2: expected an address, a prefix, a name or a pattern such as *.example.org, alone on its line; found "10.0.0.0/8 tcp 0 22" (protocols and ports are not supported)',
      '/etc/holdfast/p/clear:4: expected an address, a prefix, a name or a pattern such as *.example.org, alone on its line; found "!"',
    ],
  );
  assert.deepEqual(
    problemsOf(() =>
      load('trust-anchors: anchors', { files: { '/etc/holdfast/anchors': '; none\n\n. DS 1 8 2 xyz\n' } }),
    ),
    [
      '/etc/holdfast/anchors:3: trust-anchors: expected a DS or DNSKEY record such as . IN DS 20326 8 2 E06D…; found ". DS 1 8 2 xyz"',
    ],
  );
  assert.match(
    problemsOf(() => load('trust-anchors: gone'))[0]!,
    /:1:16: trust-anchors: expected a file; found "\/etc\/holdfast\/gone"/,
  );
  assert.match(
    problemsOf(() => load('trust-anchors: a', { files: { '/etc/holdfast/a': ';\n' } }))[0]!,
    /found none/,
  );
});

test('flag over environment over file over default; each is named in errors', () => {
  const environment = {
    HOLDFAST_PATIENCE: '3s',
    HOLDFAST_STATE: '/env',
    HOLDFAST_LOG_LEVEL: '',
    HOLDFAST_PORT: 'tcp://10.0.0.1:53',
  };
  const configuration = load('patience: 1s\nstate: /file\ndataplane: none\n', {
    environment,
    flags: {
      patience: '4s',
      listen: ['127.0.0.3', '127.0.0.4:54,127.0.0.5'],
      'policy-groups-block': '*.ads.example, 10.9.0.0/16',
    },
  });
  assert.equal(configuration.patienceMillis, 4000);
  assert.equal(configuration.state, '/env');
  assert.equal(configuration.dataplane, 'none');
  assert.equal(configuration.log.level, 'info');
  assert.deepEqual(configuration.listen.map(formatSocketAddress), [
    '127.0.0.3:53',
    '127.0.0.4:54',
    '127.0.0.5:53',
  ]);
  assert.deepEqual(configuration.policy.groups.block.namePatterns, ['*.ads.example']);
  assert.deepEqual(
    problemsOf(() => load('', { environment: { HOLDFAST_IKE_PORTS_IKE: 'x' }, flags: { listen: 'me' } })),
    [
      '--listen: listen[0]: expected an IP address with or without port, such as 127.0.0.1:53 or [::1]:53; found "me"',
      'HOLDFAST_IKE_PORTS_IKE: ike.ports.ike: expected a port from 1 to 65535; found "x"',
    ],
  );
});

test('the default file is read when it is there, and HOLDFAST_CONFIG names another', () => {
  const machine = machineWith({ [DEFAULT_FILE]: 'patience: 5s', '/other.yaml': 'patience: 6s' });
  assert.equal(loadConfiguration({ environment: {}, machine }).patienceMillis, 5000);
  assert.equal(
    loadConfiguration({ environment: { HOLDFAST_CONFIG: '/other.yaml' }, machine }).patienceMillis,
    6000,
  );
});

test('never its own upstream', () => {
  const resolv = 'nameserver 127.0.0.1\nnameserver ::1\n';
  const only = machineWith({ '/etc/resolv.conf': resolv });
  assert.deepEqual(loadConfiguration({ environment: {}, machine: only }).networkServers, []);
  const network = machineWith({
    '/etc/resolv.conf': resolv,
    '/run/systemd/resolve/resolv.conf': 'nameserver 192.0.2.1\n',
  });
  assert.deepEqual(loadConfiguration({ environment: {}, machine: network }).networkServers, [
    { address: '192.0.2.1', port: 53 },
  ]);
  const everywhere = machineWith({ '/etc/resolv.conf': 'nameserver 10.0.0.5\nnameserver 10.0.0.6\n' }, 'x', [
    '10.0.0.5',
  ]);
  assert.deepEqual(
    loadConfiguration({ environment: {}, flags: { listen: '0.0.0.0' }, machine: everywhere }).networkServers,
    [{ address: '10.0.0.6', port: 53 }],
  );
  assert.deepEqual(
    problemsOf(() => load('upstream: [192.0.2.1, "127.0.0.1:53"]')),
    [`${FILE}:1:23: upstream[1]: expected another resolver; found an address this one listens on`],
  );
});

test('upstreams of every kind, zones with resolvers of their own, and both print back', () => {
  const machine = machineWith({
    '/etc/resolv.conf': 'nameserver 192.0.2.53\n',
    [FILE]: `
upstream: ["tls://192.0.2.1#dns.example", network, "https://dns.example/dns-query#192.0.2.2"]
forward:
  - { zone: corp.example, servers: [10.0.0.53, "tcp://10.0.0.54"] }
  - 10.1.0.53 10.1.0.54:5353 for Lab.Corp.Example.
`,
  });
  const configuration = loadConfiguration({ file: FILE, environment: {}, machine });
  assert.deepEqual(serversAtStart(configuration).map(formatUpstreamServer), [
    'tls://192.0.2.1#dns.example',
    '192.0.2.53:53',
    'https://dns.example/dns-query#192.0.2.2',
  ]);
  assert.deepEqual(
    configuration.forward.map(({ zone, servers }) => [zone.toText(), servers.map(formatUpstreamServer)]),
    [
      ['corp.example.', ['10.0.0.53:53', 'tcp://10.0.0.54:53']],
      ['lab.corp.example.', ['10.1.0.53:53', '10.1.0.54:5353']],
    ],
  );
  const printed = printConfiguration(configuration);
  const again = loadConfiguration({
    file: FILE,
    environment: {},
    machine: machineWith({ '/etc/resolv.conf': 'nameserver 192.0.2.53\n', [FILE]: printed }),
  });
  assert.deepEqual(again.upstream, configuration.upstream);
  assert.deepEqual(printConfiguration(again), printed);
  const flags = { forward: '10.0.0.53 for corp.example,10.0.0.54 for .' };
  assert.deepEqual(
    loadConfiguration({ environment: {}, flags, machine }).forward.map(({ zone }) => zone.toText()),
    ['corp.example.', '.'],
  );
  for (const unfit of ['10.0.0.53', 'for corp.example', '10.0.0.53 for', '10.0.0 for corp.example']) {
    assert.throws(() => loadConfiguration({ environment: {}, flags: { forward: unfit }, machine }), unfit);
  }
  assert.deepEqual(
    problemsOf(() => load('forward: [{ zone: corp.example, servers: [127.0.0.1] }]')),
    [`${FILE}:1:11: forward[0]: expected another resolver; found an address this one listens on`],
  );
});

test('doors with TLS need a certificate and its key, are ourselves, and print back', () => {
  const yaml = `
upstream: [192.0.2.53]
listen-tls: [192.0.2.1, "[2001:db8::1]:8853"]
listen-https: [192.0.2.1]
tls: { certificate: tls/cert.pem, key: tls/key.pem }
`;
  const expected = {
    tls: [
      { address: '192.0.2.1', port: 853 },
      { address: '2001:db8::1', port: 8853 },
    ],
    https: [{ address: '192.0.2.1', port: 443 }],
    certificate: '/etc/holdfast/tls/cert.pem',
    key: '/etc/holdfast/tls/key.pem',
  };
  const configuration = load(yaml);
  assert.deepEqual(configuration.secure, expected);
  assert.deepEqual(load(printConfiguration(configuration)).secure, expected);
  assert.equal(load('upstream: [192.0.2.53]').secure, undefined);
  assert.deepEqual(
    problemsOf(() => load('upstream: [192.0.2.53]\nlisten-https: [192.0.2.1]\ntls: {key: k}')),
    [`${FILE}:2:1: tls.certificate: expected a PEM file, which listen-https needs; found none`],
  );
  assert.match(
    problemsOf(() => load(yaml.replace('192.0.2.53', '"tls://192.0.2.1#dns.example"'))).join(),
    /upstream\[0\]: expected another resolver/,
  );
});

test('the identity: the name of the host, that of /etc/hosts, or none', () => {
  const name = (files: Record<string, string>, host: string) =>
    loadConfiguration({ environment: {}, machine: machineWith(files, host) }).identity.name;
  assert.equal(name({}, 'lab'), undefined);
  assert.equal(
    name(
      { '/etc/hosts': '127.0.0.1 localhost.localdomain localhost lab\n192.0.2.9 lab.example.org lab\n' },
      'lab',
    ),
    'lab.example.org',
  );
  assert.equal(load('identity: {name: none}').identity.name, undefined);
  assert.match(
    problemsOf(() => load('identity: {name: lab}'))[0]!,
    /expected a name with a dot, or none; found "lab"/,
  );
});

test('a DNSKEY over several lines, as `dig` and root.key write it', () => {
  const key = '257 3 8 ( AwEAAaz/tAm8yTn4\n  Mfeh5eyI96WSVexTBAvkMgJzkKTOiW1vkIbzxeF3 ) ; KSK';
  const configuration = load('trust-anchors: k', {
    files: { '/etc/holdfast/k': `. 172800 IN DNSKEY ${key}\n` },
  });
  const [anchor] = configuration.trustAnchors;
  assert.equal(anchor?.type, 48);
  assert.equal(anchor.records[0]?.length, 4 + 42);
});

test('every key is a flag and a variable of its own', () => {
  assert.equal(new Set(SETTINGS.map(setting => setting.flag)).size, SETTINGS.length);
  assert.equal(new Set(SETTINGS.map(setting => setting.variable)).size, SETTINGS.length);
  for (const { description, key } of SETTINGS) assert.notEqual(description, '', key);
});

test('any YAML whatever is accepted or refused with a ConfigurationError', () => {
  const keys = fc.constantFrom(
    'listen',
    'policy',
    'groups',
    'private',
    'ike',
    'ports',
    'identity',
    'x',
    'trust-anchors',
    'log',
  );
  const tree = fc.letrec(tie => ({
    node: fc.oneof(
      { depthSize: 'small' },
      fc.string(),
      fc.integer(),
      fc.constant(null),
      fc.boolean(),
      fc.array(tie('node')),
      fc.dictionary(keys, tie('node')),
    ),
  })).node;
  fc.assert(
    fc.property(tree, node => {
      try {
        load(JSON.stringify(node));
      } catch (error) {
        assert.ok(error instanceof ConfigurationError, String(error));
        for (const { place } of error.problems) assert.match(place, /^\/etc\/holdfast\//);
      }
    }),
  );
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', maxLength: 200 }), text => {
      try {
        load(text);
      } catch (error) {
        assert.ok(error instanceof ConfigurationError, String(error));
      }
    }),
  );
});
