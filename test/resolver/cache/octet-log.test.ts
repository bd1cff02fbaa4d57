/** The log of octets: what was appended is read until it is released, blocks come and go; and what it costs. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import test from 'node:test';
import fc from 'fast-check';
import { OctetLog } from '../../../resolver/cache/octet-log.ts';

const BLOCK = 64;

test('records are what was appended, whatever is released meanwhile, and nothing is held when all are', () => {
  const record = fc.uint8Array({ maxLength: 2 * BLOCK });
  const step = fc.oneof(record, fc.nat());
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), steps => {
      const log = new OctetLog(BLOCK);
      const held: { position: number; record: Uint8Array }[] = [];
      for (const one of steps) {
        if (typeof one !== 'number') {
          const half = one.length >> 1;
          held.push({ position: log.append(one.subarray(0, half), one.subarray(half)), record: one });
        } else if (held.length > 0) log.release(held.splice(one % held.length, 1)[0]!.position);
        for (const { position, record } of held) {
          assert.deepEqual(new Uint8Array(log.read(position)), new Uint8Array(record));
        }
        assert.equal(new Set(held.map(({ position }) => position)).size, held.length);
      }
      for (const { position } of held) log.release(position);
      log.append(new Uint8Array(BLOCK));
      const only = log.octets;
      assert.ok(only <= 2 * BLOCK + 4, `${only} octets for one record`);
    }),
  );
});

test('the older half of the blocks is old', () => {
  const log = new OctetLog(BLOCK);
  const positions = Array.from({ length: 8 }, () => log.append(new Uint8Array(BLOCK - 4)));
  assert.deepEqual(
    positions.map(position => log.isOld(position)),
    [...Array(4).fill(true), ...Array(4).fill(false)],
  );
  const fresh = new OctetLog(BLOCK);
  assert.equal(fresh.isOld(fresh.append(Uint8Array.of(1))), false, 'the only one is not');
});

test('100,000 signed RRsets take less memory than the cache counts, and fit into its default size', () => {
  const script = join(import.meta.dirname, 'many-rrsets.ts');
  const { stdout, stderr, status } = spawnSync(process.execPath, ['--expose-gc', script], {
    encoding: 'utf8',
  });
  assert.equal(status, 0, stderr);
  const { entries, evicted, counted, taken } = JSON.parse(stdout);
  assert.deepEqual({ entries, evicted }, { entries: 100_000, evicted: 0 });
  assert.ok(taken < 1.1 * counted, `${taken} octets taken, ${counted} counted`);
  assert.ok(counted < 32 << 20, `${counted} octets counted`);
});
