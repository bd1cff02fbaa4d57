import assert from 'node:assert/strict';
import test from 'node:test';
import { Engine } from '../../../ike/engine.ts';
import { type IkeSocket, IkeSockets, type OpenIkeSocket } from '../../../ike/sockets.ts';
import type { Effect, Endpoint, LocalKey } from '../../../ike/types.ts';
import { fqdn, ip, keys, seeded } from './pair.ts';

/** A wire in memory: what one socket sends is readable at the socket that has the address and port. */
class Wire {
  sockets: {
    address: string;
    port: number;
    inbox: { data: Uint8Array; local: Endpoint; remote: Endpoint }[];
    closed: boolean;
  }[] = [];
  cut = false;

  opener(address: string): OpenIkeSocket {
    return ({ port, onReadable }) => {
      const entry = { address, port, inbox: [], closed: false } as Wire['sockets'][number];
      const socket: IkeSocket = {
        receiveBatch: () => entry.inbox.splice(0, 16),
        send: (data, remote) => {
          const to = this.sockets.find(
            one =>
              one.port === remote.port && Buffer.compare(ip(one.address).bytes, remote.address.bytes) === 0,
          );
          if (!to || this.cut) return 'EHOSTUNREACH';
          to.inbox.push({ data, local: remote, remote: { address: ip(address), port } });
          setImmediate(() => to.closed || readers.get(to)?.());
          return undefined;
        },
        close: () => {
          entry.closed = true;
        },
      };
      const readers = this.readers;
      readers.set(entry, () => onReadable(socket));
      this.sockets.push(entry);
      return socket;
    };
  }

  readers = new Map<Wire['sockets'][number], () => void>();
}

function host(
  wire: Wire,
  address: string,
  name: string,
  own: LocalKey,
  peer: LocalKey,
  done: (effect: Effect) => void,
) {
  const engine = new Engine({
    identity: fqdn(name),
    keys: [own],
    random: seeded(name),
    retransmit: { firstMillis: 2, tries: 3 },
  });
  const order: string[] = [];
  const ike = new IkeSockets({
    engine,
    open: wire.opener(address),
    listen: [{ family: 4 }],
    now: () => performance.now(),
    perform(effect) {
      order.push(effect.kind);
      if (effect.kind === 'installChildSa') {
        ike.act((e, now) => e.childInstalled(effect.child.id, undefined, now));
        order.push('installed');
      }
      if (effect.kind === 'lookupKeys') {
        ike.act((e, now) => e.keysFound(effect.lookup, { keys: [peer.publicKey] }, now));
      }
      done(effect);
    },
  });
  return { ike, engine, order };
}

test('two hosts over sockets: effects in order, what follows comes after, closed at the end', async () => {
  const wire = new Wire();
  const { promise, resolve } = Promise.withResolvers<Effect>();
  const closed = Promise.withResolvers<void>();
  const alice = host(wire, '10.9.0.1', 'alice.example', keys.ed25519, keys.ed25519other, effect => {
    if (effect.kind === 'established' || effect.kind === 'failed') resolve(effect);
  });
  const bob = host(wire, '10.9.0.2', 'bob.example', keys.ed25519other, keys.ed25519, effect => {
    if (effect.kind === 'closed') closed.resolve();
  });
  alice.ike.start();
  bob.ike.start();
  alice.ike.act((e, now) => e.initiate({ requestId: 1, local: ip('10.9.0.1'), remote: ip('10.9.0.2') }, now));
  const peer = { keys: [keys.ed25519other.publicKey], idr: fqdn('bob.example'), acceptableIdr: [] };
  alice.ike.act((e, now) => e.authenticate(1, peer, now));
  assert.equal((await promise).kind, 'established');
  const order = alice.order.filter(kind => kind !== 'log');
  assert.deepEqual(order, ['installChildSa', 'installed', 'established']);
  alice.ike.act((e, now) => e.closeAll(now));
  await closed.promise;
  alice.ike.close();
  bob.ike.close();
  assert.ok(wire.sockets.every(socket => socket.closed));
  assert.deepEqual(
    wire.sockets.map(socket => socket.port),
    [500, 4500, 500, 4500],
  );
});

test('the timer drives retransmission to its end; unreachable peers are no error', async () => {
  const wire = new Wire();
  const { promise, resolve } = Promise.withResolvers<Effect>();
  const alice = host(wire, '10.9.0.1', 'alice.example', keys.ed25519, keys.ed25519, effect => {
    if (effect.kind === 'failed') resolve(effect);
  });
  wire.cut = true;
  alice.ike.start();
  alice.ike.act((e, now) => e.initiate({ requestId: 1, local: ip('10.9.0.1'), remote: ip('10.9.0.9') }, now));
  const effect = await promise;
  assert.equal(effect.kind === 'failed' && effect.reason.code, 'no-answer');
  assert.deepEqual(alice.ike.counters, { sent: 0, sendErrors: 3 });
  alice.ike.close();
});

test('an effect that throws does not hold up the others', () => {
  const engine = new Engine({ identity: fqdn('a.example'), keys: [keys.ed25519], random: seeded('a') });
  const seen: string[] = [];
  const ike = new IkeSockets({
    engine,
    open: () => ({ receiveBatch: () => [], send: () => undefined, close: () => {} }),
    now: () => 0,
    perform(effect) {
      seen.push(effect.kind);
      if (effect.kind === 'failed') throw new Error('broken daemon');
    },
  });
  const twice = (e: Engine, now: number): Effect[] =>
    [1, 2].flatMap(requestId => {
      const begun = e.initiate({ requestId, local: ip('10.9.0.1'), remote: ip('10.9.0.2') }, now);
      return [...begun, ...e.cancel(requestId, now)];
    });
  assert.throws(() => ike.act(twice), /broken daemon/);
  assert.deepEqual(seen, ['failed', 'failed']);
  ike.act(() => []);
  ike.close();
});

test('more effects at once than a call can have arguments', () => {
  const engine = new Engine({ identity: fqdn('a.example'), keys: [keys.ed25519], random: seeded('a') });
  let seen = 0;
  const ike = new IkeSockets({ engine, open: () => assert.fail(), now: () => 0, perform: () => seen++ });
  const log: Effect = { kind: 'log', level: 'debug', event: 'one of many', detail: {} };
  ike.act(() => new Array(250_000).fill(log));
  ike.act(() => [log]);
  assert.equal(seen, 250_001);
});

test('when one socket is refused, none stays open', () => {
  let opened = 0;
  const engine = new Engine({ identity: fqdn('a.example'), keys: [keys.ed25519], random: seeded('a') });
  const open: OpenIkeSocket = ({ port }) => {
    if (port === 4500) throw new Error('EADDRINUSE');
    opened++;
    return { receiveBatch: () => [], send: () => undefined, close: () => opened-- };
  };
  const ike = new IkeSockets({ engine, open, now: () => 0, perform: () => {} });
  assert.throws(() => ike.start(), /EADDRINUSE/);
  assert.equal(opened, 0);
});
