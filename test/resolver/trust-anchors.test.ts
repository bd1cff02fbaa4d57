/** Trust anchors followed through rollovers with real signatures, a state file, and a clock that only moves when told. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { afterEach, beforeEach, describe } from 'node:test';
import { keyTag } from '../../resolver/dns/dnssec-rdata.ts';
import type { Message } from '../../resolver/dns/message.ts';
import { Name } from '../../resolver/dns/name.ts';
import type { Rrset } from '../../resolver/dns/rrset.ts';
import { recordsOf } from './dns/records.ts';
import { TYPE } from '../../resolver/dns/types.ts';
import type { TrustAnchor } from '../../resolver/dnssec/anchors.ts';
import { observe } from '../../resolver/dnssec/rollover-observe.ts';
import { begun } from '../../resolver/dnssec/rollover.ts';
import { TrustAnchors } from '../../resolver/trust-anchors.ts';
import { dnskeyRrset, dsOf, makeKey, revokedForm, type ZoneKey } from './dnssec/trust-point.ts';
import { until } from './until.ts';

const ZONE = Name.parseText('example.');
const DAY = 86_400;
const START = 1_790_000_000;
const [OLD, NEXT, ZSK] = [makeKey(), makeKey(), makeKey(256)];

let state: string;
beforeEach(() => {
  state = mkdtempSync(join(tmpdir(), 'holdfast-anchors-'));
});
afterEach(() => rmSync(state, { recursive: true }));

type Shown = Parameters<typeof dnskeyRrset>[1];

/** The program and the zone it asks. `shown` undefined: nobody answers. */
class World {
  now = START;
  shown: Shown | undefined = { keys: [OLD, ZSK], signers: [OLD] };
  asked = 0;
  readonly told: string[] = [];
  readonly changes: string[][] = [];
  anchors: TrustAnchors;
  configured: TrustAnchor[] = [{ name: ZONE, type: TYPE.DS, records: [dsOf(ZONE, OLD)] }];
  #timer: { at: number; callback: () => void } | undefined;
  #asking = 0;

  constructor() {
    this.anchors = this.#begin();
  }

  /** As a stop and another start. */
  restart(managed = true): void {
    this.anchors.stop();
    this.anchors = this.#begin(managed);
  }

  /** Lets days pass, with every refresh that falls due. */
  async pass(days: number): Promise<void> {
    const end = this.now + days * DAY;
    while (this.#timer !== undefined && this.#timer.at <= end) {
      const { at, callback } = this.#timer;
      this.now = Math.max(this.now, at);
      this.#timer = undefined;
      callback();
      await until(() => this.#timer !== undefined && this.#asking === 0);
    }
    this.now = end;
  }

  /** Every key with its state. */
  states(): string[] {
    const { keys } = this.anchors.status()[0]!;
    return keys.map(key => `${nameOf(key.keyTag)} ${key.state}`);
  }

  trusted(): string[] {
    return this.anchors
      .current()
      .flatMap(({ type, records }) =>
        records.map(rdata => (type === TYPE.DS ? 'DS' : nameOf(keyTag(rdata)))),
      );
  }

  #begin(managed = true): TrustAnchors {
    const log = Object.fromEntries(
      ['info', 'warn', 'error'].map(level => [
        level,
        ({ event, because, why }: Record<string, string>) => this.told.push(`${event} ${because ?? why}`),
      ]),
    );
    const anchors = new TrustAnchors({
      configured: this.configured,
      managed,
      state,
      exchange: async () => this.#answer(),
      now: () => this.now,
      later: (seconds, callback) => {
        const timer = { at: this.now + seconds, callback };
        this.#timer = timer;
        return () => {
          if (this.#timer === timer) this.#timer = undefined;
        };
      },
      changed: () => void this.changes.push(this.trusted()),
      log: log as never,
    });
    anchors.start();
    return anchors;
  }

  async #answer(): Promise<Message> {
    this.asked++;
    this.#asking++;
    try {
      if (this.shown === undefined) throw new Error('no upstream server answered in time');
      return { answer: recordsOf(dnskeyRrset(ZONE, this.shown, this.now), true) } as Message;
    } finally {
      this.#asking--;
    }
  }
}

function nameOf(tag: number): string {
  const names: [string, ZoneKey][] = [
    ['old', OLD],
    ['next', NEXT],
  ];
  const found = names.find(([, key]) => [key.plain, revokedForm(key)].some(rdata => keyTag(rdata) === tag));
  return found?.[0] ?? String(tag);
}

test('a rollover from beginning to end', async () => {
  const world = new World();
  assert.deepEqual(world.trusted(), ['DS']);
  await world.pass(1);
  assert.deepEqual(world.states(), ['old valid']);
  world.shown = { keys: [OLD, NEXT, ZSK], signers: [OLD] };
  await world.pass(29);
  assert.deepEqual(world.states(), ['old valid', 'next addPend']);
  await world.pass(3);
  assert.deepEqual(world.states(), ['old valid', 'next valid']);
  world.shown = { keys: [NEXT, ZSK], revoked: [OLD], signers: [NEXT, OLD] };
  await world.pass(2);
  assert.deepEqual(world.states(), ['old revoked', 'next valid']);
  world.shown = { keys: [NEXT, ZSK], signers: [NEXT] };
  await world.pass(33);
  assert.deepEqual(world.states(), ['next valid', 'old removed']);
  assert.deepEqual(world.changes, [['old', 'next'], ['next']]);
  assert.deepEqual(
    world.told.map(line => line.split(' ')[1]),
    ['newKey', 'addTime', 'revoked', 'removeTime'],
  );
  world.shown = { keys: [OLD, NEXT], signers: [OLD, NEXT] };
  await world.pass(60);
  assert.deepEqual(world.trusted(), ['next'], 'a removed key stays out, although its DS is still configured');
});

test('the state outlives restarts, to the second', async () => {
  const world = new World();
  world.shown = { keys: [OLD, NEXT], signers: [OLD] };
  for (let day = 0; day < 33; day++) {
    await world.pass(1);
    world.restart();
  }
  assert.deepEqual(world.states(), ['old valid', 'next valid']);
  const status = world.anchors.status();
  world.restart();
  assert.deepEqual(world.anchors.status(), status);
});

test('a restart asks no sooner than is due, unless the clock was set back', async () => {
  const world = new World();
  await world.pass(0.1);
  assert.equal(world.asked, 1);
  world.restart();
  await world.pass(0.1);
  assert.equal(world.asked, 1);
  await world.pass(1);
  assert.equal(world.asked, 2);
  world.now = START - 100 * DAY;
  world.restart();
  await world.pass(0.01);
  assert.equal(world.asked, 3);
});

describe('nothing is learnt', () => {
  test('from silence, which is asked again hourly at first and told of', async () => {
    const world = new World();
    world.shown = undefined;
    await world.pass(0.5);
    assert.ok(world.asked >= 11 && world.asked <= 13, String(world.asked));
    assert.equal(world.anchors.status()[0]?.problem, 'no upstream server answered in time');
    assert.deepEqual(world.trusted(), ['DS']);
  });

  test('from an RRset that no trusted key signs', async () => {
    const world = new World();
    await world.pass(1);
    world.shown = { keys: [NEXT], signers: [NEXT] };
    await world.pass(40);
    assert.deepEqual(world.states(), ['old valid']);
    assert.equal(world.anchors.status()[0]?.problem, 'no trusted key signs the DNSKEY RRset');
  });

  test('from a REVOKE flag that the key itself does not sign', async () => {
    const world = new World();
    await world.pass(1);
    world.shown = { keys: [NEXT], revoked: [OLD], signers: [NEXT] };
    await world.pass(1);
    assert.deepEqual(world.states(), ['old valid']);
  });
});

test('a revocation counts although nothing else in its RRset is proven, and at once', async () => {
  const world = new World();
  await world.pass(1);
  world.shown = { keys: [NEXT], revoked: [OLD], signers: [OLD, NEXT] };
  await world.pass(1);
  assert.deepEqual(world.states(), ['old revoked']);
  assert.match(world.anchors.status()[0]!.problem!, /all its keys are revoked/);
  assert.deepEqual(world.changes, [[]]);
  world.restart();
  assert.deepEqual(world.trusted(), []);
});

test('a key that was gone for one refresh is waited for anew', async () => {
  const world = new World();
  world.shown = { keys: [OLD, NEXT], signers: [OLD] };
  await world.pass(20);
  world.shown = { keys: [OLD], signers: [OLD] };
  await world.pass(1);
  world.shown = { keys: [OLD, NEXT], signers: [OLD] };
  await world.pass(20);
  assert.deepEqual(world.states(), ['old valid', 'next addPend']);
});

test('a machine that slept through a rollover trusts the next key only after having waited', async () => {
  const world = new World();
  world.shown = { keys: [OLD, NEXT], signers: [OLD] };
  await world.pass(1);
  world.now += 60 * DAY;
  await world.pass(0.1);
  assert.deepEqual(world.states(), ['old valid', 'next valid'], 'seen, and seen again after its time');
});

test('a state file that cannot be used is told of, and the configuration counts', async () => {
  const path = join(state, 'trust-anchors.json');
  for (const content of ['', '{}', '{"version":1,"zones":[{"zone":"example."}]}', 'null']) {
    writeFileSync(path, content, { mode: 0o600 });
    const world = new World();
    assert.match(world.told[0]!, /anchorsIgnored/, content);
    assert.deepEqual(world.trusted(), ['DS']);
    world.anchors.stop();
  }
  const world = new World();
  await world.pass(1);
  const good = readFileSync(path, 'utf8');
  assert.equal(JSON.parse(good).zones[0].keys[0].state, 'valid');
  writeFileSync(path, good.replace('"since"', '"sinse"'), { mode: 0o600 });
  world.restart();
  assert.match(world.told.at(-1)!, /anchorsIgnored/);
});

test('anchors that are not managed stay as they are configured', async () => {
  const world = new World();
  await world.pass(1);
  world.restart(false);
  const before = world.asked;
  assert.deepEqual(world.trusted(), ['DS']);
  assert.deepEqual(world.states(), ['old static']);
  assert.equal(world.asked, before);
});

test('one RRset costs a bounded number of signature checks', async () => {
  const keys = Array.from({ length: 100 }, () => makeKey());
  const configured = { name: ZONE, type: TYPE.DNSKEY, records: keys.map(({ plain }) => plain) };
  const rrset: Rrset = dnskeyRrset(ZONE, { keys, signers: keys }, START);
  await assert.rejects(observe(begun(ZONE, [configured], START), rrset, START), /signatures to check/);
});
