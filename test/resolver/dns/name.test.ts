import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { DnsFormatError, Name } from '../../../resolver/dns/name.ts';
import { nameArbitrary } from './arbitraries.ts';

test('canonical order is that of RFC 4034 §6.1', () => {
  const listed = [
    'example',
    'a.example',
    'yljkjljk.a.example',
    'Z.a.example',
    'zABC.a.EXAMPLE',
    'z.example',
    '\\001.z.example',
    '*.z.example',
    '\\200.z.example',
  ].map(text => Name.parseText(text));
  const shuffled = [...listed].reverse().sort((a, b) => a.compare(b));
  assert.deepEqual(shuffled.map(String), listed.map(String));
});

test('text: dots, zeros and high bytes inside labels survive, case folds for comparison only', () => {
  const name = Name.parseText('a\\.b.\\000\\255.Example');
  assert.equal(name.labelCount, 3);
  assert.deepEqual(
    [...name.wire],
    [3, 0x61, 0x2e, 0x62, 2, 0, 255, 7, 0x45, 0x78, 0x61, 0x6d, 0x70, 0x6c, 0x65, 0],
  );
  assert.equal(name.toText(), 'a\\.b.\\000\\255.Example.');
  assert.equal(name.canonical().toText(), 'a\\.b.\\000\\255.example.');
  assert.ok(name.equals(Name.parseText('A\\.B.\\000\\255.eXAMPLE.')));
  assert.ok(!Name.parseText('a.b').equals(Name.parseText('a\\.b')));
  // Only ASCII folds (RFC 4343 §3): 0xC4 and 0xE4 are A and a with diaeresis in Latin-1.
  assert.ok(!Name.parseText('\\196').equals(Name.parseText('\\228')));
});

test('text that is no name is refused', () => {
  const bad = [
    '',
    'a..b',
    '.a',
    'x'.repeat(64),
    `${'x'.repeat(63)}.`.repeat(4),
    '\\',
    '\\2',
    'a\\999',
    '\u2603.example',
  ];
  for (const text of bad) assert.throws(() => Name.parseText(text), DnsFormatError, JSON.stringify(text));
});

test('limits: 127 labels and 255 bytes fit, one more does not', () => {
  assert.equal(Name.parseText('a.'.repeat(127)).wire.length, 255);
  assert.throws(() => Name.parseText('a.'.repeat(128)), DnsFormatError);
  const full = Name.parseText(`${`${'x'.repeat(63)}.`.repeat(3)}${'y'.repeat(61)}`);
  assert.equal(full.wire.length, 255);
  assert.equal(full.wildcard(), undefined);
});

test('subdomains are counted by labels, not by bytes', () => {
  const zone = Name.parseText('example.com');
  assert.ok(Name.parseText('a.EXAMPLE.com').isSubdomainOf(zone));
  assert.ok(zone.isSubdomainOf(zone));
  assert.ok(!zone.isBelow(zone));
  assert.ok(!Name.parseText('badexample.com').isSubdomainOf(zone));
  assert.ok(!Name.parseText('a\\.example.com').isSubdomainOf(zone));
  assert.ok(zone.isBelow(Name.root));
});

test('DNAME replaces a suffix (RFC 6672 §2.2)', () => {
  const from = Name.parseText('old.example');
  const to = Name.parseText('new.test');
  assert.equal(Name.parseText('a.b.old.example').replaceSuffix(from, to)?.toText(), 'a.b.new.test.');
  assert.equal(from.replaceSuffix(from, to), undefined);
  const long = Name.parseText(`${`${'x'.repeat(63)}.`.repeat(3)}old.example`);
  assert.equal(long.replaceSuffix(from, Name.parseText('y'.repeat(63))), undefined);
});

test('property: wire and text round-trip; key equality is name equality', () => {
  fc.assert(
    fc.property(nameArbitrary, nameArbitrary, (a, b) => {
      assert.deepEqual(Name.fromWire(a.wire).wire, a.wire);
      assert.deepEqual(Name.parseText(a.toText()).wire, a.wire);
      assert.equal(a.key === b.key, a.equals(b));
      assert.equal(a.compare(b) === 0, a.equals(b));
      assert.equal(a.compare(b) < 0, b.compare(a) > 0);
      assert.ok(a.isSubdomainOf(a.suffix(Math.floor(a.labelCount / 2))));
    }),
  );
});

test('compressed names: backwards only, bounded', () => {
  const message = Uint8Array.of(0, 1, 0x61, 0, 1, 0x62, 0xc0, 1, 0xc0, 9, 0xc0, 4);
  assert.equal(Name.read(message, 4).name.toText(), 'b.a.');
  assert.equal(Name.read(message, 4).end, 8);
  assert.throws(() => Name.read(message, 8), /backwards/);
  assert.equal(Name.read(message, 10).name.toText(), 'b.a.');
  const forward = Uint8Array.of(0xc0, 2, 0);
  assert.throws(() => Name.read(forward, 0), /backwards/);
  // A pointer into the label run that holds it would loop: it must lead to before the run.
  const loop = Uint8Array.of(0, 1, 0x61, 0xc0, 1);
  assert.throws(() => Name.read(loop, 1), /backwards/);
});

test('where an uncompressed name ends is told as by reading it, for whatever octets', () => {
  const octets = fc.array(fc.oneof(fc.integer({ min: 0, max: 4 }), fc.integer({ min: 0, max: 255 })), {
    maxLength: 300,
  });
  fc.assert(
    fc.property(octets, fc.nat(10), fc.nat(300), (given, offset, limit) => {
      const bytes = Uint8Array.from(given);
      const within = Math.min(limit, bytes.length);
      let end: number | undefined;
      try {
        ({ end } = Name.readUncompressed(bytes, offset, within));
      } catch (error) {
        assert.ok(error instanceof DnsFormatError);
      }
      assert.equal(Name.endOfUncompressed(bytes, offset, within), end);
    }),
  );
});
