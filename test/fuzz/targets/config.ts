import assert from 'node:assert/strict';
import {
  formatCidr,
  formatIpAddress,
  formatSocketAddress,
  parseCidr,
  parseIpAddress,
  parseSocketAddress,
} from '../../../resolver/address.ts';
import { ConfigurationError, loadConfiguration } from '../../../resolver/config.ts';
import { anchorRecords, isAnchor, recordsOfAnchorFile } from '../../../resolver/config/anchors.ts';
import { parseDuration, parsePolicyEntry, parseTime } from '../../../resolver/config/values.ts';
import { DnsFormatError } from '../../../resolver/dns/name.ts';
import { IANA_ROOT_ANCHORS, parseTrustAnchors } from '../../../resolver/dnssec/anchors.ts';
import { machineWith } from '../../resolver/config/machine.ts';
import { recordedAnswers } from '../answers.ts';
import type { Target } from '../target.ts';
import { octets, textOf, unless } from '../target.ts';

const FILE = '/etc/holdfast/holdfast.yaml';

const yaml: Target = {
  name: 'config/file',
  oneIn: 10,
  open: () => ({
    corpus: [
      'listen: [127.0.0.1:53, "[::1]:53"]\naccess: [127.0.0.0/8, "::1"]\nupstream: [192.0.2.53]\n',
      'upstream: [network, "tls://192.0.2.1#dns.example"]\nforward:\n  - {zone: corp.example, servers: [10.0.0.53]}\n',
      'policy:\n  default: private\n  groups:\n    private: ["*.bank.example", 10.0.0.0/8]\n  directory: policies\n',
      'ike: {ports: {ike: 500, nat: 4500}}\npatience: 2s\nlog: {level: info, format: auto}\ndataplane: none\n',
      'trust-anchors: root.ds\nnegative-trust-anchors: [corp.example]\nvalidation-time: 2026-01-31T12:00:00Z\n',
    ].map(octets),
    words: [
      '&a ',
      '*a',
      '!!binary ',
      '<<: ',
      '? ',
      '- ',
      ': ',
      '\n',
      '{',
      '[',
      '"',
      '|\n ',
      '1e999',
      '~',
      '0x35',
    ].map(octets),
    check(bytes) {
      const machine = machineWith({
        [FILE]: textOf(bytes),
        '/etc/holdfast/policies/private': 'bank.example',
      });
      const loaded = unless(() => loadConfiguration({ environment: {}, machine }), ConfigurationError);
      if (loaded === undefined) return;
      assert.ok(loaded.listen.every(({ port }) => port >= 0 && port <= 65_535));
      assert.ok(loaded.patienceMillis >= 0);
    },
  }),
};

const anchors: Target = {
  name: 'config/anchors',
  open: () => ({
    corpus: [
      IANA_ROOT_ANCHORS,
      recordedAnswers().anchors,
      '. 172800 IN DNSKEY 257 3 8 (\n AwEAAa\n ) ; KSK\n',
    ].map(octets),
    words: ['DS', 'DNSKEY', ' IN ', '(', ')', ';', '\\000', '65536', '\n'].map(octets),
    check(bytes) {
      const text = textOf(bytes);
      for (const { line, record } of recordsOfAnchorFile(text)) {
        assert.ok(line >= 1);
        isAnchor(record);
      }
      const parsed = unless(() => parseTrustAnchors(text), DnsFormatError);
      // A name with escaped parentheses or semicolons cannot be written in these files, which take them for syntax.
      if (parsed === undefined || parsed.some(({ name }) => /\\[();]/.test(name.toText()))) return;
      const again = parseTrustAnchors(anchorRecords(parsed).join('\n'));
      assert.deepEqual(
        again.map(({ records }) => records.map(String)),
        parsed.map(({ records }) => records.map(String)),
      );
    },
  }),
};

const values: Target = {
  name: 'config/values',
  open: () => ({
    corpus: [
      '127.0.0.1:53',
      '[::1]:53',
      'fe80::1%eth0',
      '192.0.2.0/24',
      '2001:db8::/32',
      '::ffff:192.0.2.1',
      '*.bank.example',
      'bücher.example',
      '1.5s',
      '2026-01-31T12:00:00Z',
      '20260131120000',
    ].map(octets),
    words: ['%', '/', ':', '::', '[', ']', '.', '*', '٣'].map(octets),
    check(bytes) {
      const text = textOf(bytes);
      const address = parseIpAddress(text);
      if (address !== undefined) assert.deepEqual(parseIpAddress(formatIpAddress(address)), address);
      const cidr = parseCidr(text);
      if (cidr !== undefined) assert.deepEqual(parseCidr(formatCidr(cidr)), cidr);
      const socket = parseSocketAddress(text, 53);
      if (socket !== undefined) assert.deepEqual(parseSocketAddress(formatSocketAddress(socket), 53), socket);
      parsePolicyEntry(text);
      for (const number of [parseDuration(text), parseTime(text)])
        assert.ok(number === undefined || Number.isInteger(number));
    },
  }),
};

export const configTargets: readonly Target[] = [yaml, anchors, values];
