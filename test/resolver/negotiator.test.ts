/** The negotiator between real engines: who carries the traffic to an address, and what becomes of refusals. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import test, { describe } from 'node:test';
import { generateKey } from '../../ike/crypto/public-key.ts';
import { Engine } from '../../ike/engine.ts';
import type { ChildSa, Effect, Identity, IpAddress, LocalKey } from '../../ike/types.ts';
import { formatIpAddress, parseIpAddress } from '../../resolver/address.ts';
import type { NegotiationOutcome, Seal } from '../../resolver/capture/interfaces.ts';
import { fingerprintOf } from '../../resolver/capture/keys.ts';
import { Name } from '../../resolver/dns/name.ts';
import { IkeNegotiator, incapableNegotiator, type Stranger } from '../../resolver/negotiator.ts';

const KEYS = { alice: generateKey('ed25519'), bank: generateKey('p-256'), evil: generateKey('ed25519') };
const ALICE = parseIpAddress('192.0.2.1')!;
const BANK = parseIpAddress('192.0.2.2')!;
const GATE = parseIpAddress('198.51.100.9')!;

const fqdn = (text: string): Identity => ({ type: 'fqdn', data: new TextEncoder().encode(text) });

/** Hosts on one wire without loss; every datagram is delivered before `run` returns. */
class Wire {
  readonly hosts = new Map<string, Host>();
  #now = 1_000;
  #queue: (() => void)[] = [];
  #running = false;

  now = (): number => this.#now;

  deliver(effect: Extract<Effect, { kind: 'send' }>, sender: Host): void {
    const { data, local, remote } = effect;
    this.#queue.push(() => {
      const host = this.hosts.get(formatIpAddress(remote.address));
      const to = host?.outside ? { ...remote, address: host.address } : remote;
      const from = sender.outside ? { ...local, address: sender.outside } : local;
      host?.act((engine, now) => engine.receive({ data, local: to, remote: from }, now));
    });
    this.run();
  }

  run(): void {
    if (this.#running) return;
    this.#running = true;
    for (let next = this.#queue.shift(); next; next = this.#queue.shift()) next();
    this.#running = false;
  }

  /** Lets lookups, which are promises, and the datagrams that follow from them go on. */
  async settle(): Promise<void> {
    for (let i = 0; i < 50; i++) {
      await Promise.resolve();
      this.run();
    }
  }

  async pass(millis: number): Promise<void> {
    for (let end = this.#now + millis; this.#now < end; ) {
      this.#now = Math.min(end, this.#now + 100);
      for (const host of this.hosts.values()) {
        host.act((engine, now) => engine.tick(now));
        host.wake(this.#now);
      }
      await this.settle();
    }
  }
}

class Host {
  readonly address: IpAddress;
  /** The wire knows it by this address instead of its own. */
  outside: IpAddress | undefined;
  unreachable: IpAddress | undefined;
  readonly engine: Engine;
  readonly negotiator: IkeNegotiator;
  readonly installed = new Map<number, ChildSa>();
  readonly adopted: { remote: string; seal: Seal; name: string | undefined }[] = [];
  readonly gone: number[] = [];
  carrying: number | undefined;
  refuse: string | undefined;
  refuseCarry = false;
  room = true;
  readonly doubts: string[] = [];
  readonly #timers: { at: number; callback: () => void }[] = [];
  stranger: Stranger = { error: 'nobody knows it' };
  #queue: Effect[] = [];
  #performing = false;

  constructor(wire: Wire, address: IpAddress, name: string, keys: LocalKey[]) {
    let random = 0;
    this.address = address;
    this.engine = new Engine({
      identity: fqdn(name),
      keys,
      random: count => {
        const bytes = createHash('shake256', { outputLength: count });
        return new Uint8Array(bytes.update(`${name} ${random++}`).digest());
      },
    });
    this.negotiator = new IkeNegotiator({
      plane: {
        install: child => {
          if (this.refuse) throw new Error(this.refuse);
          this.installed.set(child.id, child);
          this.carrying ??= child.id;
        },
        remove: childId => {
          this.installed.delete(childId);
          if (this.carrying === childId) this.carrying = [...this.installed.keys()].at(-1);
        },
        carry: childId => {
          if (this.refuseCarry) throw new Error('UPDPOLICY: ENOENT');
          this.carrying = childId;
        },
        stands: childId => this.installed.has(childId),
      },
      sourceFor: remote => (remote === this.unreachable ? undefined : address),
      lookUpStranger: async () => this.stranger,
      adopted: (remote, seal, strangerName) => {
        this.adopted.push({ remote: formatIpAddress(remote), seal, name: strangerName });
        return this.room;
      },
      gone: childId => void this.gone.push(childId),
      replaced: () => {},
      doubtful: error => void this.doubts.push(String(error)),
      log: () => {},
      now: wire.now,
      later: (millis, callback) => void this.#timers.push({ at: wire.now() + millis, callback }),
    });
    this.negotiator.connect(this);
    this.#wire = wire;
  }
  readonly #wire: Wire;

  wake(now: number): void {
    for (const timer of this.#timers.splice(0)) {
      if (timer.at <= now) timer.callback();
      else this.#timers.push(timer);
    }
  }

  act(what: (engine: Engine, now: number) => Effect[]): void {
    this.#queue.push(...what(this.engine, this.#wire.now()));
    if (this.#performing) return;
    this.#performing = true;
    for (let effect = this.#queue.shift(); effect; effect = this.#queue.shift()) {
      if (effect.kind === 'send') this.#wire.deliver(effect, this);
      else this.negotiator.perform(effect);
    }
    this.#performing = false;
  }
}

function wireOf(): { wire: Wire; alice: Host; bank: Host } {
  const wire = new Wire();
  const alice = new Host(wire, ALICE, 'alice.example', [KEYS.alice]);
  const bank = new Host(wire, BANK, 'bank.example', [KEYS.bank]);
  wire.hosts.set('192.0.2.1', alice);
  wire.hosts.set('192.0.2.2', bank);
  bank.stranger = { keys: [KEYS.alice.publicKey], name: 'alice.example', ownsAddress: true };
  return { wire, alice, bank };
}

async function prove(
  wire: Wire,
  host: Host,
  key: LocalKey,
  asked = 'bank.example.',
  via?: IpAddress,
  owners: string[] = [],
): Promise<NegotiationOutcome> {
  const name = Name.parseText(asked);
  const peer = { keys: [key.publicKey], asked: name, canonical: name, owners };
  const outcome = host.negotiator.begin(BANK, via).prove(peer);
  await wire.settle();
  return outcome;
}

describe('negotiations', () => {
  test('a key that is proved becomes a seal on both sides', async () => {
    const { wire, alice, bank } = wireOf();
    const outcome = await prove(wire, alice, KEYS.bank);
    assert.ok(outcome.ok);
    assert.equal(fingerprintOf(outcome.seal.key), fingerprintOf(KEYS.bank.publicKey));
    assert.deepEqual([...alice.installed.keys()], [outcome.seal.childId]);
    assert.equal(bank.installed.size, 1);
    assert.deepEqual(
      bank.adopted.map(({ remote, name }) => [remote, name]),
      [['192.0.2.1', 'alice.example']],
    );
    assert.ok(outcome.seal.times.initSentAt! <= outcome.seal.times.installedAt!);
  });

  test('a key that the peer does not hold is not proven, and nothing stays', async () => {
    const { wire, alice, bank } = wireOf();
    const outcome = await prove(wire, alice, generateKey('p-256'));
    await wire.pass(40_000);
    assert.equal(!outcome.ok && outcome.failure.code, 'not-proven');
    assert.equal(alice.installed.size, 0);
    assert.equal(bank.installed.size, 0);
  });

  test('what the kernel refuses is the reason given, and the peer is told', async () => {
    const { wire, alice, bank } = wireOf();
    alice.refuse = 'NEWSA: ENOSYS (Requested AEAD algorithm not found)';
    const outcome = await prove(wire, alice, KEYS.bank);
    await wire.pass(40_000);
    assert.ok(!outcome.ok);
    assert.equal(outcome.failure.code, 'kernel');
    assert.match(outcome.failure.text, /Requested AEAD algorithm not found/);
    assert.equal(bank.installed.size, 0);
  });

  test('an address that nobody has answers nothing', async () => {
    const { wire, alice } = wireOf();
    wire.hosts.delete('192.0.2.2');
    const name = Name.parseText('bank.example.');
    const pending = alice.negotiator
      .begin(BANK)
      .prove({ keys: [KEYS.bank.publicKey], asked: name, canonical: name, owners: [] });
    await wire.pass(40_000);
    const outcome = await pending;
    assert.equal(!outcome.ok && outcome.failure.code, 'no-answer');
  });

  test('a cancelled speculation leaves nothing behind', async () => {
    const { wire, alice, bank } = wireOf();
    alice.negotiator.begin(BANK).cancel();
    await wire.pass(60_000);
    assert.equal(alice.engine.counters().nowIkeSas, 0);
    assert.equal(bank.engine.counters().nowIkeSas, 0);
  });

  test('close sends the Delete, and both sides forget', async () => {
    const { wire, alice, bank } = wireOf();
    const outcome = await prove(wire, alice, KEYS.bank);
    assert.ok(outcome.ok);
    alice.negotiator.close(outcome.seal.childId, 'test');
    await wire.pass(1_000);
    assert.deepEqual(alice.gone, [outcome.seal.childId]);
    assert.equal(bank.installed.size, 0);
    assert.equal(bank.gone.length, 1);
  });

  test('where nothing can be sealed, every negotiation says why', async () => {
    const outcome = await incapableNegotiator('no ESP')
      .begin(BANK)
      .prove({ keys: [], asked: Name.root, canonical: Name.root, owners: [] });
    assert.deepEqual(outcome, { ok: false, failure: { code: 'unable', text: 'no ESP' } });
  });
});

describe('one key carries what goes out to an address', () => {
  /** Somebody on the path proves evil.example's key from the bank's address. Whether alice took it, and its child. */
  const evilInitiates = async (wire: Wire, alice: Host, ownsAddress: boolean) => {
    alice.stranger = { keys: [KEYS.evil.publicKey], name: 'evil.example', ownsAddress };
    const before = alice.adopted.length;
    const evil = new Host(wire, BANK, 'evil.example', [KEYS.evil]);
    wire.hosts.set('192.0.2.2', evil);
    const name = Name.parseText('alice.example.');
    const pending = evil.negotiator
      .begin(ALICE)
      .prove({ keys: [KEYS.alice.publicKey], asked: name, canonical: name, owners: [] });
    await wire.settle();
    await pending;
    return alice.adopted.length > before ? alice.adopted.at(-1)!.seal.childId : undefined;
  };

  test('a stranger with another key gets no SA beside a peer that we asked for', async () => {
    const { wire, alice } = wireOf();
    const outcome = await prove(wire, alice, KEYS.bank);
    assert.ok(outcome.ok);
    assert.equal(await evilInitiates(wire, alice, false), undefined);
    await wire.pass(40_000);
    assert.deepEqual([...alice.installed.keys()], [outcome.seal.childId]);
    assert.equal(alice.carrying, outcome.seal.childId);
    assert.equal(alice.engine.ikeSas().length, 1);
  });

  test('a stranger whom the reverse zone gives the address replaces a peer that we asked for', async () => {
    const { wire, alice } = wireOf();
    const outcome = await prove(wire, alice, KEYS.bank);
    assert.ok(outcome.ok);
    const owner = await evilInitiates(wire, alice, true);
    await wire.pass(1_000);
    assert.deepEqual([[...alice.installed.keys()], alice.carrying], [[owner], owner]);
    assert.deepEqual(alice.gone, [outcome.seal.childId]);
  });

  test('a peer that we ask for replaces a stranger', async () => {
    const { wire, alice, bank } = wireOf();
    const stranger = await evilInitiates(wire, alice, false);
    assert.equal(alice.carrying, stranger);
    wire.hosts.set('192.0.2.2', bank);
    const outcome = await prove(wire, alice, KEYS.bank);
    assert.ok(outcome.ok);
    assert.deepEqual(
      [[...alice.installed.keys()], alice.carrying],
      [[outcome.seal.childId], outcome.seal.childId],
    );
    assert.deepEqual(alice.gone, [stranger]);
  });

  test('of two asked names with different keys the first carries, and the other is never called sealed', async () => {
    const { wire, alice } = wireOf();
    const first = await prove(wire, alice, KEYS.bank);
    const evil = new Host(wire, BANK, 'evil.example', [KEYS.evil]);
    evil.stranger = { keys: [KEYS.alice.publicKey], name: 'alice.example', ownsAddress: false };
    wire.hosts.set('192.0.2.2', evil);
    const second = await prove(wire, alice, KEYS.evil, 'evil.example.');
    assert.ok(first.ok && !second.ok);
    assert.deepEqual(second.failure, {
      code: 'conflict',
      text: 'another key is proven at 192.0.2.2 already',
    });
    assert.equal(alice.carrying, first.seal.childId);
    await wire.pass(40_000);
    assert.equal(evil.installed.size, 0, 'it was told');
  });

  test('unless the reverse zone has both keys: then they are one holder’s, and stand side by side', async () => {
    const { wire, alice } = wireOf();
    const owners = [KEYS.bank, KEYS.evil].map(key => fingerprintOf(key.publicKey));
    const first = await prove(wire, alice, KEYS.bank);
    const other = new Host(wire, BANK, 'www.example', [KEYS.evil]);
    other.stranger = { keys: [KEYS.alice.publicKey], name: 'alice.example', ownsAddress: false };
    wire.hosts.set('192.0.2.2', other);
    const second = await prove(wire, alice, KEYS.evil, 'www.example.', undefined, owners);
    assert.ok(first.ok && second.ok);
    assert.equal(alice.installed.size, 2);
    assert.equal(alice.carrying, first.seal.childId);
    assert.deepEqual(alice.gone, []);
  });

  test('a key that the reverse zone has replaces one that it has not', async () => {
    const { wire, alice } = wireOf();
    const evil = new Host(wire, BANK, 'evil.example', [KEYS.evil]);
    evil.stranger = { keys: [KEYS.alice.publicKey], name: 'alice.example', ownsAddress: false };
    const bank = wire.hosts.get('192.0.2.2')!;
    wire.hosts.set('192.0.2.2', evil);
    const first = await prove(wire, alice, KEYS.evil, 'evil.example.');
    wire.hosts.set('192.0.2.2', bank);
    const second = await prove(wire, alice, KEYS.bank, 'bank.example.', undefined, [
      fingerprintOf(KEYS.bank.publicKey),
    ]);
    assert.ok(first.ok && second.ok);
    assert.deepEqual(
      [[...alice.installed.keys()], alice.carrying],
      [[second.seal.childId], second.seal.childId],
    );
  });

  test('but a name may bring a new key of its own', async () => {
    const { wire, alice } = wireOf();
    const first = await prove(wire, alice, KEYS.bank);
    const rolled = new Host(wire, BANK, 'bank.example', [KEYS.evil]);
    rolled.stranger = { keys: [KEYS.alice.publicKey], name: 'alice.example', ownsAddress: false };
    wire.hosts.set('192.0.2.2', rolled);
    const second = await prove(wire, alice, KEYS.evil);
    assert.ok(first.ok && second.ok);
    assert.equal(alice.carrying, second.seal.childId);
    assert.deepEqual(alice.gone, [first.seal.childId]);
  });

  test('the same key again carries at once when we began, and after a while when the peer did', async () => {
    const { wire, alice, bank } = wireOf();
    const first = await prove(wire, alice, KEYS.bank);
    const second = await prove(wire, alice, KEYS.bank);
    assert.ok(first.ok && second.ok);
    assert.equal(alice.carrying, second.seal.childId);
    const [older, newer] = [...bank.installed.keys()];
    assert.equal(bank.carrying, older, 'the initiator needs time to install');
    await wire.pass(1_100);
    assert.equal(bank.carrying, newer);
    alice.negotiator.close(second.seal.childId, 'test');
    await wire.settle();
    assert.equal(alice.carrying, first.seal.childId, 'the one that is left carries on');
  });

  test('what the kernel refuses after the fact is told, and every negotiation still ends', async () => {
    const { wire, alice } = wireOf();
    const first = await prove(wire, alice, KEYS.bank);
    alice.refuseCarry = true;
    const second = await prove(wire, alice, KEYS.bank);
    assert.ok(first.ok && second.ok);
    assert.deepEqual(alice.doubts, ['Error: UPDPOLICY: ENOENT']);
    assert.equal(alice.carrying, first.seal.childId);
  });

  test('a stranger for whom there is no room is closed', async () => {
    const { wire, alice } = wireOf();
    alice.room = false;
    await evilInitiates(wire, alice, false);
    await wire.pass(1_000);
    assert.equal(alice.installed.size, 0);
    assert.equal(alice.engine.ikeSas().length, 0);
  });
});

describe('a gateway', () => {
  /**
   * Our engine grants nobody but itself, so what stands behind GATE is the bank itself, to which GATE translates: what
   * alice sees is a gateway that grants her the bank's address.
   */
  const behindGate = (wire: Wire, keys = KEYS.bank): Host => {
    const inside = new Host(wire, BANK, 'bank.example', [keys]);
    inside.outside = GATE;
    inside.stranger = { keys: [KEYS.alice.publicKey], name: 'alice.example', ownsAddress: false };
    wire.hosts.set('198.51.100.9', inside);
    return inside;
  };
  const viaGate = (wire: Wire, alice: Host, key = KEYS.bank) =>
    prove(wire, alice, key, 'bank.example.', GATE);

  test('is negotiated with for the address, in tunnel mode; the address itself hears nothing', async () => {
    const { wire, alice, bank } = wireOf();
    behindGate(wire);
    const outcome = await viaGate(wire, alice);
    assert.ok(outcome.ok);
    const { via, local, mode } = outcome.seal;
    assert.deepEqual({ via, local, mode }, { via: GATE, local: ALICE, mode: 'tunnel' });
    const [child] = [...alice.installed.values()];
    assert.deepEqual([child!.remote, child!.selectors], [GATE, { local: ALICE, remote: BANK }]);
    assert.equal(bank.engine.counters().received, 0);
    alice.negotiator.close(outcome.seal.childId, 'test');
    await wire.pass(1_000);
    assert.deepEqual(alice.gone, [outcome.seal.childId]);
  });

  test('that grants only itself is refused, and nothing stays', async () => {
    const { wire, alice } = wireOf();
    const itself = new Host(wire, GATE, 'bank.example', [KEYS.bank]);
    itself.stranger = { keys: [KEYS.alice.publicKey], name: 'alice.example', ownsAddress: false };
    wire.hosts.set('198.51.100.9', itself);
    const outcome = await viaGate(wire, alice);
    await wire.pass(40_000);
    assert.equal(!outcome.ok && outcome.failure.code, 'refused');
    assert.deepEqual([alice.installed.size, itself.installed.size], [0, 0]);
  });

  test('has the right of the reverse zone: it replaces another key at the address, whichever came first', async () => {
    for (const gateFirst of [false, true]) {
      const { wire, alice } = wireOf();
      behindGate(wire);
      const evil = new Host(wire, BANK, 'evil.example', [KEYS.evil]);
      evil.stranger = { keys: [KEYS.alice.publicKey], name: 'alice.example', ownsAddress: false };
      wire.hosts.set('192.0.2.2', evil);
      const evilSeals = () => prove(wire, alice, KEYS.evil, 'evil.example.');
      const before = gateFirst ? undefined : await evilSeals();
      const outcome = await viaGate(wire, alice);
      const after = gateFirst ? await evilSeals() : undefined;
      await wire.pass(40_000);
      assert.ok(outcome.ok);
      assert.deepEqual(
        [[...alice.installed.keys()], alice.carrying],
        [[outcome.seal.childId], outcome.seal.childId],
      );
      if (after) assert.equal(!after.ok && after.failure.code, 'conflict');
      if (before?.ok) assert.deepEqual(alice.gone, [before.seal.childId]);
    }
  });

  test('with the same key as the address itself: the newer one carries', async () => {
    const { wire, alice } = wireOf();
    behindGate(wire);
    const direct = await prove(wire, alice, KEYS.bank);
    const second = await viaGate(wire, alice);
    assert.ok(direct.ok && second.ok);
    assert.equal(alice.carrying, second.seal.childId);
    alice.negotiator.close(second.seal.childId, 'test');
    await wire.settle();
    assert.equal(alice.carrying, direct.seal.childId);
  });

  test('without a route to it, or to the address, nothing is begun', async () => {
    const { wire, alice } = wireOf();
    const gate = behindGate(wire);
    for (const missing of [GATE, BANK]) {
      alice.unreachable = missing;
      const outcome = await viaGate(wire, alice);
      assert.equal(!outcome.ok && outcome.failure.code, 'unable');
    }
    assert.equal(gate.engine.counters().received, 0);
  });
});
