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

const fqdn = (text: string): Identity => ({ type: 'fqdn', data: new TextEncoder().encode(text) });

/** Hosts on one wire without loss; every datagram is delivered before `run` returns. */
class Wire {
  readonly hosts = new Map<string, Host>();
  #now = 1_000;
  #queue: (() => void)[] = [];
  #running = false;

  now = (): number => this.#now;

  deliver(effect: Extract<Effect, { kind: 'send' }>): void {
    const { data, local, remote } = effect;
    this.#queue.push(() =>
      this.hosts
        .get(formatIpAddress(remote.address))
        ?.act((engine, now) => engine.receive({ data, local: remote, remote: local }, now)),
    );
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
      for (const host of this.hosts.values()) host.act((engine, now) => engine.tick(now));
      await this.settle();
    }
  }
}

class Host {
  readonly engine: Engine;
  readonly negotiator: IkeNegotiator;
  readonly installed = new Map<number, ChildSa>();
  readonly adopted: { remote: string; seal: Seal; name: string | undefined }[] = [];
  readonly gone: number[] = [];
  carrying: number | undefined;
  refuse: string | undefined;
  stranger: Stranger = { error: 'nobody knows it' };
  #queue: Effect[] = [];
  #performing = false;

  constructor(wire: Wire, address: IpAddress, name: string, keys: LocalKey[]) {
    let random = 0;
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
          if (this.carrying === childId) this.carrying = undefined;
        },
        carry: childId => {
          this.carrying = childId;
        },
      },
      sourceFor: () => address,
      lookUpStranger: async () => this.stranger,
      adopted: (remote, seal, strangerName) =>
        void this.adopted.push({ remote: formatIpAddress(remote), seal, name: strangerName }),
      gone: childId => void this.gone.push(childId),
      replaced: () => {},
      log: () => {},
      now: wire.now,
    });
    this.negotiator.connect(this);
    this.#wire = wire;
  }
  readonly #wire: Wire;

  act(what: (engine: Engine, now: number) => Effect[]): void {
    this.#queue.push(...what(this.engine, this.#wire.now()));
    if (this.#performing) return;
    this.#performing = true;
    for (let effect = this.#queue.shift(); effect; effect = this.#queue.shift()) {
      if (effect.kind === 'send') this.#wire.deliver(effect);
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
): Promise<NegotiationOutcome> {
  const name = Name.parseText(asked);
  const outcome = host.negotiator.begin(BANK).prove({ keys: [key.publicKey], asked: name, canonical: name });
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
      .prove({ keys: [KEYS.bank.publicKey], asked: name, canonical: name });
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
      .prove({ keys: [], asked: Name.root, canonical: Name.root });
    assert.deepEqual(outcome, { ok: false, failure: { code: 'unable', text: 'no ESP' } });
  });
});

describe('who carries what goes out to an address', () => {
  /** evil.example's key, proved by somebody who can receive at alice's side as if he were the bank. */
  const evilInitiates = async (wire: Wire, alice: Host, ownsAddress: boolean) => {
    alice.stranger = { keys: [KEYS.evil.publicKey], name: 'evil.example', ownsAddress };
    const evil = new Host(wire, BANK, 'evil.example', [KEYS.evil]);
    wire.hosts.set('192.0.2.2', evil);
    const name = Name.parseText('alice.example.');
    const outcome = evil.negotiator
      .begin(ALICE)
      .prove({ keys: [KEYS.alice.publicKey], asked: name, canonical: name });
    await wire.settle();
    assert.ok((await outcome).ok);
    return alice.adopted.at(-1)!.seal.childId;
  };

  for (const ownsAddress of [false, true]) {
    test(`a stranger ${ownsAddress ? 'whose name has' : 'without'} the address never takes over from a peer we asked for`, async () => {
      const { wire, alice } = wireOf();
      const outcome = await prove(wire, alice, KEYS.bank);
      assert.ok(outcome.ok);
      await evilInitiates(wire, alice, ownsAddress);
      assert.equal(alice.installed.size, 2);
      assert.equal(alice.carrying, outcome.seal.childId);
    });
  }

  test('a peer we ask for takes over from a stranger without the address', async () => {
    const { wire, alice, bank } = wireOf();
    const stranger = await evilInitiates(wire, alice, false);
    assert.equal(alice.carrying, stranger);
    wire.hosts.set('192.0.2.2', bank);
    const outcome = await prove(wire, alice, KEYS.bank);
    assert.ok(outcome.ok);
    assert.equal(alice.carrying, outcome.seal.childId);
  });

  test('the same key again takes over: the peer may have lost its SAs', async () => {
    const { wire, alice } = wireOf();
    const first = await prove(wire, alice, KEYS.bank);
    const second = await prove(wire, alice, KEYS.bank);
    assert.ok(first.ok && second.ok);
    assert.equal(alice.carrying, second.seal.childId);
  });

  test('when the child that carries goes, the other one carries on', async () => {
    const { wire, alice } = wireOf();
    const first = await prove(wire, alice, KEYS.bank);
    const evil = new Host(wire, BANK, 'evil.example', [KEYS.evil]);
    evil.stranger = { keys: [KEYS.alice.publicKey], name: 'alice.example', ownsAddress: true };
    wire.hosts.set('192.0.2.2', evil);
    const second = await prove(wire, alice, KEYS.evil, 'evil.example.');
    assert.ok(first.ok && second.ok);
    assert.equal(alice.carrying, first.seal.childId, 'another key does not take over');
    alice.negotiator.close(first.seal.childId, 'test');
    await wire.settle();
    assert.equal(alice.carrying, second.seal.childId);
  });
});
