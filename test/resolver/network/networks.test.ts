/** Broken networks, one by one: a middlebox between the resolver and a real signed tree. Recognised, named, handled. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { globSync, readlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { dirname, join } from 'node:path';
import test from 'node:test';
import { createServer as createTlsServer } from 'node:tls';
import { inOwnNamespace, ip } from '../../kernel/namespace.ts';
import { layerEnvironment, locate } from '../../lab/packages.ts';
import { until } from '../until.ts';
import { holdfast } from '../commands/cli.ts';
import { makeAuthority } from '../upstream/certificates.ts';
import { ask } from './ask.ts';
import { startMiddlebox } from './middlebox.ts';
import { type Running, startHoldfast } from './running.ts';
import { missingTools, startTree } from './tree.ts';

type Expected = {
  state: string;
  symptom: string;
  text: RegExp;
  using?: RegExp;
  /** What a client gets for a signed name, an unsigned one, and one that does not exist. */
  signed: string;
  unsigned: string;
  absent: string;
  large?: string;
};

const GOOD = { signed: 'NOERROR', unsigned: 'NOERROR', absent: 'NXDOMAIN', large: 'NOERROR' };
const NOTHING = { signed: 'SERVFAIL', unsigned: 'SERVFAIL', absent: 'SERVFAIL' };

const EXPECTED: Record<string, Expected> = {
  clean: { state: 'carries', symptom: 'none', text: /comes through/, using: /^127/, ...GOOD },
  'strips EDNS': { state: 'closed', symptom: 'strips-edns', text: /EDNS is stripped/, ...NOTHING },
  'strips RRSIGs (DO stripped)': {
    state: 'closed',
    symptom: 'strips-signatures',
    text: /signatures are stripped/,
    ...NOTHING,
  },
  'strips denial proofs only': {
    state: 'impaired',
    symptom: 'strips-proofs',
    text: /proofs .* are stripped/,
    // It validates, but that it has no key is not proven: whoever wants it in clear says so (policy.default clear).
    signed: 'SERVFAIL',
    unsigned: 'SERVFAIL',
    absent: 'SERVFAIL',
  },
  'drops EDNS queries': { state: 'closed', symptom: 'drops-edns', text: /with EDNS are dropped/, ...NOTHING },
  'FORMERR to EDNS': { state: 'closed', symptom: 'rejects-edns', text: /answered FORMERR/, ...NOTHING },
  'SERVFAIL for DS/DNSKEY': {
    state: 'closed',
    symptom: 'refuses-dnssec',
    text: /DS or DNSKEY are answered SERVFAIL/,
    ...NOTHING,
  },
  'TC, TCP blocked': {
    state: 'closed',
    symptom: 'truncates',
    text: /every answer is truncated, and TCP is filtered/,
    ...NOTHING,
  },
  'large answers and fragments vanish': {
    state: 'carries',
    symptom: 'loses-large',
    text: /large answers over UDP.* vanish; they come through over TCP/,
    using: /^tcp:/,
    ...GOOD,
  },
  'NXDOMAIN rewritten': {
    state: 'impaired',
    symptom: 'rewrites',
    text: /a name that does not exist has an address/,
    signed: 'NOERROR',
    unsigned: 'NOERROR',
    absent: 'SERVFAIL',
  },
  'signed answers rewritten': {
    state: 'impaired',
    symptom: 'rewrites',
    text: /a signed name has another address/,
    signed: 'SERVFAIL',
    unsigned: 'NOERROR',
    absent: 'NXDOMAIN',
  },
  'UDP filtered': {
    state: 'carries',
    symptom: 'udp-filtered',
    text: /UDP is filtered/,
    using: /^tcp:/,
    ...GOOD,
  },
};

/** iptables with where it finds its extensions; undefined when this machine has none. */
function firewallCommand(): string[] | undefined {
  const program = locate('usr/sbin/xtables-legacy-multi');
  if (program === undefined) return undefined;
  const extensions = globSync(join(dirname(program), '../lib/*/xtables'))[0];
  const { LD_LIBRARY_PATH } = layerEnvironment();
  return ['env', `XTABLES_LIBDIR=${extensions}`, `LD_LIBRARY_PATH=${LD_LIBRARY_PATH}`, program, 'iptables'];
}

if (inOwnNamespace(import.meta.url, missingTools)) {
  let host = 0;
  /** Another default route: the kernel tells, and this may be another network. */
  const roam = async (running: Running) => {
    const before = (await running.status()).counters['network.changes']!;
    host++;
    const gateway = `198.18.${host >> 8}.${host & 255}`;
    ip('route', 'replace', 'default', 'via', gateway, 'dev', 'lo', 'onlink');
    return running.until(
      (network, counters) => counters['network.changes']! > before && network.state !== 'unknown',
    );
  };

  test('each network that breaks DNSSEC: named in status, in the answers, and handled', async t => {
    const tree = await startTree();
    t.after(() => tree.stop());
    const box = await startMiddlebox(tree.port, 'clean');
    t.after(() => box.close());
    const running = await startHoldfast({
      upstream: `127.0.0.1:${box.port}`,
      'trust-anchors': tree.anchorFile,
      'portal-check': 'none',
      'cache-stale': '0s',
    });
    t.after(() => running.stop());

    for (const [kind, expected] of Object.entries(EXPECTED)) {
      await t.test(kind, async () => {
        box.kind = kind;
        await running.client.forget({ all: true });
        const network = await roam(running);
        assert.equal(network.state, expected.state, JSON.stringify(network));
        assert.equal(network.symptom, expected.symptom, JSON.stringify(network));
        assert.match(network.text!, expected.text);
        assert.match(network.using.join(), expected.using ?? /^127/);
        for (const [which, name] of [
          ['signed', 'www.signed.example'],
          ['unsigned', 'www.unsigned.example'],
          ['absent', `nothing${host}.signed.example`],
        ] as const) {
          const heard = await ask(running.at, name);
          assert.equal(heard.rcode, expected[which], `${which}: ${JSON.stringify(heard)}`);
          if (which === 'signed' && heard.rcode === 'NOERROR') assert.ok(heard.ad, 'validated');
          if (heard.rcode !== 'SERVFAIL') continue;
          assert.deepEqual(heard.data, [], 'an empty answer');
          assert.ok(
            heard.ede.some(({ text }) => text.includes(network.text!.slice(0, 40))),
            `says what the network does: ${JSON.stringify(heard.ede)}`,
          );
        }
        if (expected.large !== undefined) {
          assert.equal((await ask(running.at, 'big.signed.example', 'TXT')).rcode, expected.large);
        }
      });
    }

    await t.test('back in a good network everything is as before, failures forgotten', async () => {
      box.kind = 'strips EDNS';
      await roam(running);
      assert.equal((await ask(running.at, 'login.signed.example')).rcode, 'SERVFAIL');
      box.kind = 'clean';
      assert.equal((await roam(running)).state, 'carries');
      const heard = await ask(running.at, 'login.signed.example');
      assert.deepEqual([heard.rcode, heard.ad, heard.data], ['NOERROR', true, ['198.51.100.12']]);
    });
  });

  test('fragments that the path really drops: TCP brings what they would have', async t => {
    const firewall = firewallCommand();
    if (firewall === undefined) return t.skip('no iptables (Debian package iptables)');
    const tree = await startTree();
    t.after(() => tree.stop());
    // A host beyond a link that carries 1,500 octets, with a firewall that takes fragments for an attack.
    const beyond = spawn('unshare', ['-n', 'sleep', '600']);
    t.after(() => beyond.kill());
    await once(beyond, 'spawn');
    const inside = ['nsenter', '-t', String(beyond.pid), '-n'];
    const there = (...words: string[]) =>
      spawnSync(inside[0]!, [...inside.slice(1), ...words], { encoding: 'utf8' });
    await until(
      () => there('readlink', '/proc/self/ns/net').stdout !== `${readlinkSync('/proc/self/ns/net')}\n`,
    );
    ip('link', 'add', 'near', 'type', 'veth', 'peer', 'name', 'far', 'netns', String(beyond.pid));
    ip('address', 'add', '198.51.100.1/30', 'dev', 'near');
    ip('link', 'set', 'near', 'up');
    for (const words of ['link set lo up', 'address add 198.51.100.2/30 dev far', 'link set far up']) {
      assert.equal(there('ip', ...words.split(' ')).status, 0, words);
    }
    const rule = there(...firewall, '-t', 'raw', '-A', 'PREROUTING', '-f', '-j', 'DROP');
    if (rule.status !== 0) return t.skip(`this kernel has no table raw: ${rule.stderr.trim()}`);
    const box = await startMiddlebox(tree.port, 'ignores the size asked for', '198.51.100.1');
    t.after(() => box.close());
    const flags = {
      upstream: `198.51.100.1:${box.port}`,
      'trust-anchors': tree.anchorFile,
      'portal-check': 'none',
      access: '198.51.100.0/30',
    };
    const running = await startHoldfast(flags, { address: '198.51.100.2', inside });
    t.after(() => running.stop());
    const network = await running.until(({ state }) => state !== 'unknown');
    assert.deepEqual([network.state, network.symptom], ['carries', 'loses-large'], JSON.stringify(network));
    assert.match(network.using.join(), /^tcp:/);
    assert.equal((await ask(running.at, 'big.signed.example', 'TXT')).rcode, 'NOERROR');
    const counted = there(...firewall, '-t', 'raw', '-L', '-v', '-n').stdout;
    assert.match(counted, /^ *[1-9]\d* .*DROP/m, 'fragments came, and were dropped');
  });

  test('TCP filtered, with keys of the root that fit: UDP is used, and what it cannot bring is named', async t => {
    const tree = await startTree({ smallRoot: true });
    t.after(() => tree.stop());
    const box = await startMiddlebox(tree.port, 'TCP filtered');
    t.after(() => box.close());
    const running = await startHoldfast({
      upstream: `127.0.0.1:${box.port}`,
      'trust-anchors': tree.anchorFile,
      'portal-check': 'none',
    });
    t.after(() => running.stop());
    const network = await running.until(({ state }) => state !== 'unknown');
    assert.deepEqual([network.state, network.symptom], ['carries', 'tcp-filtered']);
    assert.equal((await ask(running.at, 'www.signed.example')).rcode, 'NOERROR');
    const large = await ask(running.at, 'big.signed.example', 'TXT');
    assert.equal(large.rcode, 'SERVFAIL');
    assert.ok(
      large.ede.some(({ text }) => /TCP is filtered/.test(text)),
      JSON.stringify(large),
    );
  });

  test('an upstream over TLS that is configured is asked where the network fails, and not where it does not', async t => {
    const tree = await startTree();
    t.after(() => tree.stop());
    const box = await startMiddlebox(tree.port, 'strips EDNS');
    t.after(() => box.close());
    const authority = makeAuthority();
    const pem = join(tree.directory, 'authority.pem');
    writeFileSync(pem, authority.pem);
    const { certificate: cert, key } = authority.issue(['dns.example']);
    const dot = createTlsServer({ cert, key }, socket => {
      const behind = connect(tree.port, '127.0.0.1');
      for (const end of [socket, behind]) {
        end
          .on('error', () => {})
          .on('close', () => {
            socket.destroy();
            behind.destroy();
          });
      }
      socket.pipe(behind).pipe(socket);
    });
    dot.listen(0, '127.0.0.1');
    await once(dot, 'listening');
    t.after(() => dot.close());
    const { port } = dot.address() as AddressInfo;
    const running = await startHoldfast({
      upstream: `127.0.0.1:${box.port},tls://127.0.0.1:${port}#dns.example`,
      'upstream-authorities': pem,
      'trust-anchors': tree.anchorFile,
      'portal-check': 'none',
    });
    t.after(() => running.stop());
    const network = await running.until(({ state }) => state !== 'unknown');
    assert.deepEqual([network.state, network.symptom], ['carries', 'strips-edns'], JSON.stringify(network));
    assert.match(network.using.join(), /^tls:/);
    assert.equal(network.doing, 'asking over TLS');
    const heard = await ask(running.at, 'www.signed.example');
    assert.deepEqual([heard.rcode, heard.ad], ['NOERROR', true]);
    box.kind = 'clean';
    const better = await roam(running);
    assert.deepEqual([better.symptom, better.using.join()], ['none', `127.0.0.1:${box.port}`]);
  });

  test('a clock that is wrong is flagged, and nothing is let through for it', async t => {
    const tree = await startTree();
    t.after(() => tree.stop());
    const running = await startHoldfast({
      upstream: `127.0.0.1:${tree.port}`,
      'trust-anchors': tree.anchorFile,
      'validation-time': '2020-01-01',
      'portal-check': 'none',
    });
    t.after(() => running.stop());
    const network = await running.until(({ state }) => state !== 'unknown');
    assert.equal(network.symptom, 'wrong-clock');
    assert.match(network.text!, /clock is wrong.*set the clock/);
    const heard = await ask(running.at, 'www.signed.example');
    assert.equal(heard.rcode, 'SERVFAIL');
    assert.ok(
      heard.ede.some(({ code }) => code === 8),
      JSON.stringify(heard.ede),
    );
    assert.match(running.log(), /clockBeforeSignatures/);
  });

  test('a captive portal: its mode, what it answers and what not, the login by hand, and the way back', async t => {
    ip('address', 'add', '10.0.0.1/32', 'dev', 'lo');
    const tree = await startTree();
    t.after(() => tree.stop());
    const box = await startMiddlebox(tree.port, 'portal (every A = 10.0.0.1)');
    t.after(() => box.close());
    let loggedIn = false;
    const asked: string[] = [];
    const web = createServer((request, response) => {
      asked.push(`${request.headers.host}${request.url}`);
      if (loggedIn) response.writeHead(204).end();
      else response.writeHead(302, { location: 'http://login.hotel.example/welcome' }).end();
    });
    web.listen(80, '10.0.0.1');
    await once(web, 'listening');
    t.after(() => web.close());
    const running = await startHoldfast({
      upstream: `127.0.0.1:${box.port}`,
      'trust-anchors': tree.anchorFile,
      'portal-check': 'http://check.example/known',
      'policy-groups-private': '*.bank.example,bank.example',
      'portal-names': 'probe.vendor.example,check.bank.example',
    });
    t.after(() => running.stop());
    const network = await running.until(({ state }) => state === 'portal');
    assert.equal(network.portal!.login, 'login.hotel.example');
    assert.ok(network.portal!.endsInMs <= 300_000);
    assert.ok(
      asked.every(page => page === 'check.example/known'),
      'no redirect was followed',
    );
    assert.match(running.log(), /"state":"portal"/);
    const cli = await holdfast(['portal', '--control', running.controlPath]);
    assert.match(cli.stdout, /captive portal: log in at login\.hotel\.example/);

    const misses = async () => (await running.status()).counters['cache.misses'];
    const before = await misses();
    for (const name of ['check.example', 'probe.vendor.example']) {
      const heard = await ask(running.at, name);
      assert.deepEqual([heard.rcode, heard.data, heard.ad], ['NOERROR', ['10.0.0.1'], false], name);
      assert.ok(heard.ttlSeconds! <= 5);
      assert.match(heard.ede[0]!.text, /captive portal: .* neither validated nor protected/);
    }
    assert.equal(await misses(), before, 'cache and capture never heard of it');
    for (const name of [
      'www.signed.example',
      'www.unsigned.example',
      'login.hotel.example',
      'check.bank.example',
    ]) {
      const heard = await ask(running.at, name);
      assert.deepEqual([heard.rcode, heard.data], ['SERVFAIL', []], name);
      assert.ok(
        heard.ede.some(({ text }) => /^captive portal: log in at login\.hotel\.example/.test(text)),
        JSON.stringify(heard),
      );
    }

    const refused = await holdfast(['portal', '--allow', '--for', '2h', '--control', running.controlPath]);
    assert.equal(refused.code, 1);
    const allowed = await holdfast(['portal', '--allow', '--for', '5m', '--control', running.controlPath]);
    assert.match(allowed.stdout, /login\.hotel\.example is answered unprotected for/);
    assert.deepEqual((await ask(running.at, 'login.hotel.example')).data, ['10.0.0.1']);
    assert.equal((await ask(running.at, 'www.signed.example')).rcode, 'SERVFAIL', 'the others are not');

    loggedIn = true;
    box.kind = 'clean';
    const after = await running.until(({ state }) => state === 'carries');
    assert.equal(after.portal, undefined);
    const signed = await ask(running.at, 'www.signed.example');
    assert.deepEqual([signed.rcode, signed.ad, signed.data], ['NOERROR', true, ['198.51.100.10']]);
    assert.equal(
      (await ask(running.at, 'login.hotel.example')).rcode,
      'NXDOMAIN',
      'what was allowed is over',
    );
    const late = await holdfast(['portal', '--allow', 'x.example', '--control', running.controlPath]);
    assert.match(late.stderr, /there is no captive portal/);
  });
}
