import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Deframer, frame } from '../../../resolver/upstream/tcp-framing.ts';

test('messages survive any cutting of the stream', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 600 }), { maxLength: 8 }),
      fc.array(fc.integer({ min: 1, max: 50 })),
      (messages, cuts) => {
        const stream = Buffer.concat(messages.map(frame));
        const deframer = new Deframer(65535);
        const found: Uint8Array[] = [];
        let at = 0;
        for (let i = 0; at < stream.length; i++) {
          const size = cuts[i % Math.max(cuts.length, 1)] ?? stream.length;
          assert.ok(deframer.push(stream.subarray(at, at + size), message => found.push(message) > 0));
          at += size;
        }
        assert.ok(deframer.atBoundary);
        assert.deepEqual(
          found.map(message => [...message]),
          messages.map(message => [...message]),
        );
      },
    ),
  );
});

test('a length over the limit ends the stream', () => {
  const deframer = new Deframer(512);
  assert.equal(
    deframer.push(Uint8Array.of(2, 1, 0), () => assert.fail()),
    false,
  );
});

test('nothing is delivered after the receiver said stop', () => {
  const deframer = new Deframer(512);
  let delivered = 0;
  deframer.push(Buffer.concat([frame(Uint8Array.of(1)), frame(Uint8Array.of(2))]), () => ++delivered > 5);
  assert.equal(delivered, 1);
});
