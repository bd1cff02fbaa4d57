// The readers and the arithmetic of the DNS bench. What it measures is asserted nowhere: a slow machine is no fault.
import assert from 'node:assert/strict';
import test from 'node:test';
import { withSection } from '../results.ts';
import { parseDnsperf } from './dnsperf.ts';
import { type DnsBenchResult, dnsReport, dnsSection, ratioToYardstick } from './figures.ts';
import { parseCpuMicros, parseCpuWaitMicros } from './process.ts';

/** As dnsperf 2.10 of Debian writes it with -v. */
const output = `DNS Performance Testing Tool
Version 2.10.0

[Status] Sending queries (to 127.0.0.1:5999)
> NOERROR m0.example A 0.000191
> T m1.example A
> SERVFAIL m2.example A 0.000208
[Status] Testing complete (end of file)

Statistics:

  Queries sent:         3
  Queries completed:    2 (66.67%)
  Queries lost:         1 (33.33%)

  Response codes:       NOERROR 1 (50.00%), SERVFAIL 1 (50.00%)
  Average packet size:  request 39, response 55
  Run time (s):         0.100926
  Queries per second:   29.724749
`;

test('the output of dnsperf is read whole', () => {
  assert.deepEqual(parseDnsperf(output), {
    completed: 2,
    lost: 1,
    rcodes: { NOERROR: 1, SERVFAIL: 1 },
    questionsPerSecond: 29.724749,
    latencies: [0.191, 0.208],
  });
  assert.throws(() => parseDnsperf('Error: unable to connect'), /dnsperf said: Error: unable to connect/);
});

test('CPU time is that of all threads, whatever the command is called', () => {
  const numbers = Array.from({ length: 20 }, (_, i) => i);
  assert.equal(parseCpuMicros(`4711 (a) b (c) S ${numbers.join(' ')}`), (10 + 11) * 10_000);
  assert.equal(parseCpuWaitMicros('607085 2317967 2\n'), 2317.967);
});

const result: DnsBenchResult = {
  machine: 'a machine',
  versions: { Holdfast: '1', unbound: '2' },
  missing: { kresd: 'not here' },
  rounds: 3,
  scenarios: [
    {
      title: 'cached answers',
      note: 'a note',
      samples: [
        { who: 'Holdfast', figures: { questionsPerSecond: 50, cpuMicros: 10, lost: 0 } },
        { who: 'unbound', figures: { questionsPerSecond: 100, cpuMicros: 5, lost: 0 } },
        { who: 'unbound', figures: { questionsPerSecond: 200, cpuMicros: 5, lost: 0 } },
        { who: 'Holdfast', figures: { questionsPerSecond: 220, cpuMicros: 10, lost: 0 } },
        { who: 'Holdfast', figures: { questionsPerSecond: 60, cpuMicros: 10, lost: 0 } },
        { who: 'unbound', figures: { questionsPerSecond: 100, cpuMicros: 5, lost: 0 } },
      ],
    },
  ],
};

test('ratios are of one round each, and their median counts', () => {
  const { samples } = result.scenarios[0]!;
  assert.equal(ratioToYardstick(samples, 'Holdfast', 'questionsPerSecond'), 0.6);
  assert.equal(ratioToYardstick(samples, 'Holdfast', 'p50Millis'), undefined);
});

test('the report shows medians and ratios, leaves out what is all zero, and says who is missing', () => {
  const report = dnsReport(result);
  assert.match(report, /kresd: not here/);
  assert.match(report, /q\/s +÷ +CPU µs\/q +÷\n/);
  assert.match(report, /Holdfast +60 +0\.60 +10\.0 +2\.00/);
});

test('each bench replaces its own part of the page and keeps the other', () => {
  const ike = '# Bench results\n\nold\n';
  const first = withSection(ike, dnsSection(result, '2026-11-20', 'npm run bench:dns'));
  assert.match(
    first,
    /^# Bench results\n\nold\n\n# DNS bench results\n\n2026-11-20, by `npm run bench:dns`\.\n/,
  );
  const both = withSection(first, '# Bench results\n\nnew');
  assert.match(both, /^# Bench results\n\nnew\n\n# DNS bench results\n/);
  assert.equal(both.match(/DNS bench results/g)?.length, 1);
  assert.equal(withSection('', '# Bench results\n\nnew'), '# Bench results\n\nnew\n');
});
