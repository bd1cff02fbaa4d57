import { createHash } from 'node:crypto';
import assert from 'node:assert/strict';
import { Engine, type EngineConfig, type ExpectedPeer, type Found } from '../../../ike/engine.ts';
import { generateKey } from '../../../ike/crypto/public-key.ts';
import type {
  ChildSa,
  Effect,
  Endpoint,
  Identity,
  IpAddress,
  LocalKey,
  PublicKey,
} from '../../../ike/types.ts';

/**
 * Two engines, one virtual clock, and a network between them that does what the test says.
 *
 * A host answers its own effects as a daemon would: keys from its `trusts` table, the kernel from `kernel`. What it was
 * told ends up in `log`; datagrams in flight wait in `network.queue` until the test delivers, drops or forges.
 */

export function seeded(seed: string): (bytes: number) => Uint8Array {
  let counter = 0;
  return length => {
    const blocks: Buffer[] = [];
    for (let have = 0; have < length; have += 32) {
      blocks.push(createHash('sha256').update(`${seed} ${counter++}`).digest());
    }
    return new Uint8Array(Buffer.concat(blocks).subarray(0, length));
  };
}

export function fqdn(name: string): Identity {
  return { type: 'fqdn', data: new TextEncoder().encode(name) };
}

/** Dotted IPv4, or IPv6 of the form net::host. */
export function ip(text: string): IpAddress {
  if (!text.includes(':')) return { family: 4, bytes: Uint8Array.from(text.split('.'), Number) };
  const [net, host] = text.split('::');
  const bytes = Buffer.alloc(16);
  bytes.write(net!, 'hex');
  bytes.writeUInt16BE(Number.parseInt(host!, 16), 14);
  return { family: 6, bytes: new Uint8Array(bytes) };
}

/** One key of each kind for all tests: generating RSA keys takes longer than any handshake. */
export const keys = {
  ed25519: generateKey('ed25519'),
  ed25519other: generateKey('ed25519'),
  p256: generateKey('p-256'),
  rsa: generateKey('rsa-2048'),
};

export type Datagram = { data: Uint8Array; from: Host; local: Endpoint; remote: Endpoint };

export class Network {
  now = 1_000;
  queue: Datagram[] = [];
  /** Every datagram that anybody sent, in order. */
  sent: Datagram[] = [];
  hosts: Host[] = [];
  /** Rewrites addresses on the way, as a NAT does; undefined drops. */
  translate: (datagram: Datagram) => { local: Endpoint; remote: Endpoint } | undefined = d => ({
    local: d.remote,
    remote: d.local,
  });

  /** Deliver one datagram: what its receiver does about it is put in the queue. */
  deliver(datagram: Datagram): void {
    const path = this.translate(datagram);
    if (!path) return;
    const to = this.hosts.find(host => Buffer.compare(host.address.bytes, path.local.address.bytes) === 0);
    to?.run(to.engine.receive({ data: datagram.data, ...path }, this.now));
  }

  /** Deliver everything in order until nothing is in flight. */
  settle(): void {
    for (let budget = 1_000; this.queue.length > 0; budget--) {
      assert.ok(budget > 0, 'the two talk for ever');
      this.deliver(this.queue.shift()!);
    }
  }

  /** Let time pass up to `until`, stopping at every deadline. What is sent meanwhile is delivered unless `mute`. */
  pass(millis: number, mute = false): void {
    const until = this.now + millis;
    for (;;) {
      const deadlines = this.hosts.map(host => host.engine.nextDeadline()?.at ?? Number.POSITIVE_INFINITY);
      const next = Math.min(...deadlines);
      if (next > until) break;
      this.now = Math.max(this.now, next);
      for (const host of this.hosts) host.run(host.engine.tick(this.now));
      if (mute) this.queue = [];
      else this.settle();
    }
    this.now = until;
  }
}

export class Host {
  readonly network: Network;
  readonly address: IpAddress;
  readonly identity: Identity;
  readonly engine: Engine;
  readonly own: LocalKey[];
  /** Every effect except 'send' and debug logs. */
  told: Effect[] = [];
  /** Key lookup by identity text; `undefined` = do not answer (yet). */
  lookup: (identity: Identity) => Found | undefined = () => ({ error: 'nobody known' });
  kernel: (child: ChildSa) => string | undefined | 'later' = () => undefined;
  /** Child SAs that the kernel holds. */
  installed = new Map<number, ChildSa>();

  constructor(
    network: Network,
    address: string,
    name: string,
    own: LocalKey[],
    config: Partial<EngineConfig> = {},
  ) {
    this.network = network;
    this.address = ip(address);
    this.identity = fqdn(name);
    this.own = own;
    this.engine = new Engine({
      identity: this.identity,
      keys: own,
      random: seeded(`${name} ${address}`),
      ...config,
    });
    network.hosts.push(this);
  }

  run(effects: Effect[]): void {
    const { now } = this.network;
    for (const effect of effects) {
      if (effect.kind === 'send') {
        const datagram = { data: effect.data, local: effect.local, remote: effect.remote, from: this };
        this.network.queue.push(datagram);
        this.network.sent.push(datagram);
        continue;
      }
      if (effect.kind === 'log') {
        assert.notEqual(effect.event, 'internalError', JSON.stringify(effect.detail));
        if (effect.level === 'debug') continue;
      }
      this.told.push(effect);
      if (effect.kind === 'lookupKeys') {
        const found = this.lookup(effect.identity);
        if (found) this.run(this.engine.keysFound(effect.lookup, found, now));
      } else if (effect.kind === 'installChildSa') {
        const result = this.kernel(effect.child);
        if (result === undefined) this.installed.set(effect.child.id, effect.child);
        if (result !== 'later') this.run(this.engine.childInstalled(effect.child.id, result, now));
      } else if (effect.kind === 'removeChildSa') {
        this.installed.delete(effect.child.id);
      } else if (effect.kind === 'established') {
        assert.ok(effect.ikeSa.remoteKey, 'nobody is established without a proven key');
      }
    }
  }

  trust(...peers: Host[]): void {
    this.lookup = identity => {
      const peer = peers.find(one => Buffer.compare(one.identity.data, identity.data) === 0);
      return peer ? { keys: peer.own.map(key => key.publicKey) } : { error: 'nobody known' };
    };
  }

  initiate(peer: Host, requestId = 1): void {
    this.run(
      this.engine.initiate({ requestId, local: this.address, remote: peer.address }, this.network.now),
    );
  }

  authenticate(peer: Host, requestId = 1, more: Partial<ExpectedPeer> = {}): void {
    const expected = {
      keys: peer.own.map(key => key.publicKey),
      idr: peer.identity,
      acceptableIdr: [],
      ...more,
    };
    this.run(this.engine.authenticate(requestId, expected, this.network.now));
  }

  of<K extends Effect['kind']>(kind: K): Extract<Effect, { kind: K }>[] {
    return this.told.filter(effect => effect.kind === kind) as Extract<Effect, { kind: K }>[];
  }

  counter(name: string): number {
    const value = this.engine.counters()[name];
    assert.notEqual(value, undefined, `no counter ${name}`);
    return value!;
  }

  states(): string[] {
    return this.engine.describe().map(sa => sa.state);
  }
}

/** alice 10.9.0.1 and bob 10.9.0.2, who know each other's Ed25519 keys unless told otherwise. */
export function pair(
  options: {
    alice?: Partial<EngineConfig>;
    bob?: Partial<EngineConfig>;
    aliceKeys?: LocalKey[];
    bobKeys?: LocalKey[];
  } = {},
): { network: Network; alice: Host; bob: Host } {
  const network = new Network();
  const alice = new Host(
    network,
    '10.9.0.1',
    'alice.example',
    options.aliceKeys ?? [keys.ed25519],
    options.alice,
  );
  const bob = new Host(
    network,
    '10.9.0.2',
    'bob.example',
    options.bobKeys ?? [keys.ed25519other],
    options.bob,
  );
  alice.trust(bob);
  bob.trust(alice);
  return { network, alice, bob };
}

/** What one encrypts, the other decrypts: the two Child SAs are two views of one pair. */
function assertSameChild(one: ChildSa, other: ChildSa): void {
  assert.deepEqual(one.outbound, other.inbound);
  assert.deepEqual(one.inbound, other.outbound);
  assert.equal(one.mode, other.mode);
  assert.equal(one.esn, other.esn);
  assert.notEqual(one.initiator, other.initiator);
}

/** Both sides hold exactly one established IKE SA and one installed Child SA, of the same pair. */
export function assertConnected(alice: Host, bob: Host): void {
  assert.equal(alice.engine.ikeSas().length, 1, 'alice has one IKE SA');
  assert.equal(bob.engine.ikeSas().length, 1, 'bob has one IKE SA');
  const [a] = [...alice.installed.values()];
  const [b] = [...bob.installed.values()];
  assert.ok(a && b, 'both kernels hold a Child SA');
  assertSameChild(a, b);
}

export function publicKeys(...local: LocalKey[]): PublicKey[] {
  return local.map(key => key.publicKey);
}
