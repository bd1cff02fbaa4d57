/** RFC 5011: the table of section 4.1, cell by cell; timers; what is trusted; what configuration changes. */
import assert from 'node:assert/strict';
import test, { describe } from 'node:test';
import fc from 'fast-check';
import { Name } from '../../../resolver/dns/name.ts';
import { TYPE } from '../../../resolver/dns/types.ts';
import type { TrustAnchor } from '../../../resolver/dnssec/anchors.ts';
import {
  type AnchorKey,
  type AnchorState,
  anchorsOf,
  begun,
  keyId,
  type Observation,
  observed,
  queryInterval,
  reconciled,
  retryInterval,
  type TrustPoint,
} from '../../../resolver/dnssec/rollover.ts';
import { dsOf, makeKey, revokedForm } from './trust-point.ts';

const DAY = 86_400;
const NOW = 1_790_000_000;
const ZONE = Name.parseText('example.');
/** Signs everything, unless said otherwise. */
const OLD = makeKey();
const KEY = makeKey();
const ZSK = makeKey(256);
const OLD_VALID: AnchorKey = { rdata: OLD.plain, state: 'valid', since: 0 };

function seen(change: Partial<Observation> = {}): Observation {
  return {
    vouchers: [keyId(OLD.plain)],
    present: [OLD.plain],
    revoked: [],
    originalTtlSeconds: 172_800,
    ...change,
  };
}

function pointWith(...keys: AnchorKey[]): TrustPoint {
  return { zone: ZONE, unseen: [], keys: [OLD_VALID, ...keys] };
}

function stateOf(point: TrustPoint, rdata = KEY.plain): AnchorState | 'start' {
  return point.keys.find(key => Buffer.compare(key.rdata, rdata) === 0)?.state ?? 'start';
}

describe('the table of section 4.1', () => {
  const shown = seen({ present: [OLD.plain, KEY.plain] });
  const gone = seen();
  const revoked = seen({ revoked: [KEY.plain] });
  const pend = { until: NOW + 5, vouchers: [keyId(OLD.plain)] };
  const over = { until: NOW, vouchers: [keyId(OLD.plain)] };
  type Row = [AnchorState | 'start', Partial<AnchorKey>, string, Observation, AnchorState | 'start'];
  const rows: Row[] = [
    ['start', {}, 'shown', shown, 'addPend'],
    ['start', {}, 'shown revoked', revoked, 'start'],
    ['addPend', pend, 'shown before its time', shown, 'addPend'],
    ['addPend', over, 'shown after its time', shown, 'valid'],
    ['addPend', pend, 'gone', gone, 'start'],
    ['addPend', over, 'gone after its time', gone, 'start'],
    ['addPend', over, 'shown revoked', revoked, 'start'],
    ['valid', {}, 'shown', shown, 'valid'],
    ['valid', {}, 'gone', gone, 'missing'],
    ['valid', {}, 'shown revoked', revoked, 'revoked'],
    ['missing', {}, 'shown', shown, 'valid'],
    ['missing', {}, 'gone', gone, 'missing'],
    ['missing', {}, 'shown revoked', revoked, 'revoked'],
    ['revoked', {}, 'shown revoked', revoked, 'revoked'],
    ['revoked', {}, 'shown without its flag', shown, 'revoked'],
    ['revoked', {}, 'gone', gone, 'revoked'],
    ['revoked', { until: NOW + 1 }, 'gone, not long enough', gone, 'revoked'],
    ['revoked', { until: NOW }, 'gone long enough', gone, 'removed'],
    ['revoked', { until: NOW }, 'there again', revoked, 'revoked'],
    ['removed', {}, 'shown', shown, 'removed'],
    ['removed', {}, 'shown revoked', revoked, 'removed'],
    ['removed', {}, 'gone', gone, 'removed'],
  ];
  for (const [from, more, what, observation, to] of rows) {
    test(`${from}, ${what}: ${to}`, () => {
      const key = from === 'start' ? [] : [{ rdata: KEY.plain, state: from, since: 1, ...more }];
      const { point, changes } = observed(pointWith(...key), observation, NOW);
      assert.equal(stateOf(point), to);
      assert.equal(changes.length, from === to ? 0 : 1);
      if (to !== 'start') {
        assert.equal(point.keys.find(({ rdata }) => rdata === KEY.plain)?.since, from === to ? 1 : NOW);
      }
    });
  }

  test('nothing but a revocation happens on the word of an RRset that no trusted key signs', () => {
    for (const [from, more, what, observation, to] of rows) {
      const key = from === 'start' ? [] : [{ rdata: KEY.plain, state: from, since: 1, ...more }];
      const { point } = observed(pointWith(...key), { ...observation, vouchers: [] }, NOW);
      const revokes = to === 'revoked' && (from === 'valid' || from === 'missing');
      assert.equal(stateOf(point), revokes ? 'revoked' : from, `${from}, ${what}`);
    }
  });
});

describe('waiting for a new key (section 2.2, 2.4.1)', () => {
  test('30 days, or the TTL of the RRset when that is longer', () => {
    for (const [originalTtlSeconds, until] of [
      [3600, NOW + 30 * DAY],
      [40 * DAY, NOW + 40 * DAY],
    ] as const) {
      const { point } = observed(pointWith(), seen({ present: [KEY.plain], originalTtlSeconds }), NOW);
      assert.equal(point.keys.find(({ state }) => state === 'addPend')?.until, until);
    }
  });

  test('one RRset without it begins the waiting anew', () => {
    const show = seen({ present: [OLD.plain, KEY.plain] });
    let { point } = observed(pointWith(), show, NOW);
    ({ point } = observed(point, show, NOW + 29 * DAY));
    ({ point } = observed(point, seen(), NOW + 29 * DAY + 1));
    ({ point } = observed(point, show, NOW + 29 * DAY + 2));
    ({ point } = observed(point, show, NOW + 31 * DAY));
    assert.equal(stateOf(point), 'addPend');
    ({ point } = observed(point, show, NOW + 59 * DAY + 2));
    assert.equal(stateOf(point), 'valid');
  });

  test('when all that vouched for it are revoked it begins anew with those that vouch now', () => {
    const other = makeKey();
    const show = seen({ present: [OLD.plain, other.plain, KEY.plain] });
    const start = pointWith({ rdata: other.plain, state: 'valid', since: 0 });
    let { point } = observed(start, show, NOW);
    const later = seen({
      present: [other.plain, KEY.plain],
      revoked: [OLD.plain],
      vouchers: [keyId(other.plain)],
    });
    ({ point } = observed(point, later, NOW + 10 * DAY));
    assert.equal(point.keys.find(({ rdata }) => rdata === KEY.plain)?.until, NOW + 40 * DAY);
    ({ point } = observed(point, { ...later, revoked: [] }, NOW + 31 * DAY));
    assert.equal(stateOf(point), 'addPend');
  });

  test('a key that signs no keys is not waited for, and neither are more than there is room for', () => {
    const many = Array.from({ length: 40 }, () => makeKey().plain);
    const { point } = observed(pointWith(), seen({ present: [OLD.plain, ZSK.plain, ...many] }), NOW);
    assert.equal(stateOf(point, ZSK.plain), 'start');
    assert.equal(point.keys.length, 16);
  });
});

describe('a configured DS', () => {
  const ds: TrustAnchor = { name: ZONE, type: TYPE.DS, records: [dsOf(ZONE, OLD), dsOf(ZONE, KEY)] };

  test('is an anchor until its key is seen, and then the key is, without waiting', () => {
    const start = begun(ZONE, [ds], NOW);
    assert.deepEqual(anchorsOf(start), [ds]);
    const { point, changes } = observed(start, seen(), NOW);
    assert.deepEqual(changes, []);
    assert.equal(stateOf(point, OLD.plain), 'valid');
    assert.deepEqual(
      anchorsOf(point).map(({ type, records }) => [type, records.length]),
      [
        [TYPE.DS, 1],
        [TYPE.DNSKEY, 1],
      ],
    );
  });

  test('whose key shows itself revoked is none any more', () => {
    const { point } = observed(begun(ZONE, [ds], NOW), seen({ revoked: [KEY.plain] }), NOW);
    assert.equal(stateOf(point), 'revoked');
    assert.deepEqual(point.unseen, []);
  });
});

describe('when every key is revoked', () => {
  const all = seen({ present: [], revoked: [OLD.plain], vouchers: [] });

  test('a trust point is as if it had never been configured (section 5)', () => {
    const { point } = observed(pointWith(), all, NOW);
    assert.deepEqual(anchorsOf(point), []);
  });

  test('the root stays a trust point at which nothing can be trusted', () => {
    const root: TrustPoint = { ...pointWith(), zone: Name.root };
    const { point } = observed(root, all, NOW);
    assert.deepEqual(anchorsOf(point), [{ name: Name.root, type: TYPE.DNSKEY, records: [revokedForm(OLD)] }]);
  });
});

describe('another configuration', () => {
  const anchor = (...keys: ReturnType<typeof makeKey>[]): TrustAnchor => ({
    name: ZONE,
    type: TYPE.DNSKEY,
    records: keys.map(({ plain }) => plain),
  });
  const learnt: AnchorKey = { rdata: KEY.plain, state: 'valid', since: 1 };

  test('the same as before: what was learnt stays', () => {
    const left = pointWith(learnt);
    assert.deepEqual(reconciled(left, [anchor(OLD)], [anchor(OLD)], NOW), left);
  });

  test('one more: it counts at once; a pending one too', () => {
    const more = makeKey();
    const pending: AnchorKey = {
      rdata: KEY.plain,
      state: 'addPend',
      since: 1,
      until: NOW + 9,
      vouchers: ['x'],
    };
    const point = reconciled(pointWith(pending), [anchor(OLD)], [anchor(OLD, KEY, more)], NOW);
    assert.deepEqual([stateOf(point), stateOf(point, more.plain)], ['valid', 'valid']);
  });

  test('one less: it counts no more, what was learnt does', () => {
    const other = makeKey();
    const left = pointWith(learnt, { rdata: other.plain, state: 'valid', since: 1 });
    const point = reconciled(left, [anchor(OLD, other)], [anchor(OLD)], NOW);
    assert.deepEqual([stateOf(point, other.plain), stateOf(point)], ['start', 'valid']);
  });

  test('nothing in common: everything begins anew', () => {
    const other = makeKey();
    const point = reconciled(pointWith(learnt), [anchor(OLD)], [anchor(other)], NOW);
    assert.deepEqual(point, begun(ZONE, [anchor(other)], NOW));
  });

  test('what was revoked is not trusted again because it is still configured', () => {
    const revoked: AnchorKey = { rdata: KEY.plain, state: 'revoked', since: 1 };
    const ds: TrustAnchor = { name: ZONE, type: TYPE.DS, records: [dsOf(ZONE, OLD), dsOf(ZONE, KEY)] };
    const point = reconciled(pointWith(revoked), [ds], [ds], NOW);
    assert.equal(stateOf(point), 'revoked');
    assert.deepEqual(point.unseen, []);
  });
});

test('intervals of section 2.3', () => {
  assert.equal(queryInterval(172_800, 20 * DAY), DAY);
  assert.equal(queryInterval(100 * DAY, 100 * DAY), 15 * DAY);
  assert.equal(queryInterval(60, 20 * DAY), 3600);
  assert.equal(queryInterval(10 * DAY, 4 * DAY), 2 * DAY);
  assert.equal(retryInterval(172_800, 20 * DAY), 17_280);
  assert.equal(retryInterval(100 * DAY, 100 * DAY), DAY);
  assert.equal(retryInterval(0, 0), 3600);
});

test('whatever is seen: nobody gets in without waiting, nobody comes back from revocation, the table holds', () => {
  const pool = [OLD, KEY, makeKey(), makeKey()].map(({ plain }) => plain);
  const subset = fc.subarray(pool);
  const step = fc.record({
    present: subset,
    revoked: subset,
    proven: fc.boolean(),
    days: fc.integer({ min: 0, max: 20 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), steps => {
      let point = pointWith();
      let now = NOW;
      const firstSeen = new Map<string, number>();
      const out = new Set<string>();
      for (const { present, revoked, proven, days } of steps) {
        now += days * DAY;
        const shown = present.filter(rdata => !revoked.includes(rdata));
        const trusted = point.keys.filter(({ state }) => state === 'valid' || state === 'missing');
        const vouchers = proven ? trusted.map(({ rdata }) => keyId(rdata)) : [];
        ({ point } = observed(point, { vouchers, present: shown, revoked, originalTtlSeconds: 3600 }, now));
        if (vouchers.length > 0) {
          for (const rdata of pool) {
            if (!shown.includes(rdata)) firstSeen.delete(keyId(rdata));
            else if (!firstSeen.has(keyId(rdata))) firstSeen.set(keyId(rdata), now);
          }
        }
        for (const { rdata, state, since } of point.keys) {
          const id = keyId(rdata);
          if (state === 'revoked' || state === 'removed') out.add(id);
          else assert.ok(!out.has(id), 'a revoked key came back');
          if (state === 'valid' && since === now && rdata !== OLD.plain && firstSeen.has(id)) {
            const wasMissing = trusted.some(key => key.rdata === rdata);
            assert.ok(wasMissing || now - firstSeen.get(id)! >= 30 * DAY, 'trusted too early');
          }
        }
      }
    }),
  );
});
