import assert from 'node:assert/strict';
import fc from 'fast-check';
import { publicKeyObject } from '../../../ike/crypto/public-key.ts';
import { Engine } from '../../../ike/engine.ts';
import { WireError } from '../../../ike/wire/error.ts';
import { headerOfLaterVersion, parseHeader, stripNonEspMarker } from '../../../ike/wire/header.ts';
import { composeMessage, parseMessage, parsePayloads } from '../../../ike/wire/payloads.ts';
import { ip, keys, pair, seeded } from '../../ike/engine/pair.ts';
import { payloads } from '../../ike/wire/arbitraries.ts';
import type { Target } from '../target.ts';
import { unless } from '../target.ts';

const INIT = {
  spiInitiator: 1n,
  spiResponder: 0n,
  exchangeType: 34,
  fromInitiator: true,
  response: false,
  messageId: 0,
};

/** A whole handshake as it went over the wire, and messages of every payload. */
function datagrams(): Uint8Array[] {
  const { network, alice, bob } = pair();
  alice.initiate(bob);
  alice.authenticate(bob);
  network.settle();
  const made = fc.sample(payloads, { seed: 1, numRuns: 80 }).map(all => composeMessage(INIT, all));
  return [...network.sent.map(({ data }) => data), ...made];
}

/** With the right total length again, so that what is wrong lies in the payloads. */
function mended(bytes: Uint8Array): Uint8Array {
  const copy = Uint8Array.from(bytes);
  if (copy.length >= 28) new DataView(copy.buffer).setUint32(24, copy.length);
  return copy;
}

const message: Target = {
  name: 'ike/message',
  open: () => ({
    corpus: datagrams(),
    check(bytes, random) {
      stripNonEspMarker(bytes);
      headerOfLaterVersion(bytes);
      unless(() => parseHeader(bytes), WireError);
      const parsed = unless(() => parseMessage(mended(bytes)), WireError);
      // Selectors of unknown types are left out, and none at all could not be composed.
      const empty = parsed?.payloads.some(one => 'selectors' in one && one.selectors.length === 0);
      if (parsed !== undefined && parsed.encrypted === undefined && !empty) {
        const again = parseMessage(composeMessage(parsed.header, parsed.payloads));
        assert.deepEqual(
          again.payloads.map(({ kind }) => kind),
          parsed.payloads.map(({ kind }) => kind),
        );
      }
      unless(() => parsePayloads(random.below(60), bytes), WireError);
    },
  }),
};

/** Strangers' datagrams at a responder: nothing is thrown, nothing piles up, and nobody is established. */
const engine: Target = {
  name: 'ike/engine',
  oneIn: 20,
  remembers: true,
  open() {
    const responder = () =>
      new Engine({ keys: [keys.ed25519], random: seeded('fuzz'), limits: { ikeSas: 200 } });
    let one = responder();
    let served = 0;
    let now = 0;
    return {
      corpus: datagrams(),
      check(bytes, random) {
        now += 50;
        if (++served % 5000 === 0) one = responder();
        const remote = { address: ip(`10.9.1.${1 + random.below(200)}`), port: 500 };
        const local = { address: ip('10.9.0.2'), port: 500 };
        const data = random.below(4) === 0 ? bytes : mended(bytes);
        const effects = [...one.receive({ data, local, remote }, now), ...one.tick(now)];
        for (const effect of effects) {
          assert.ok(effect.kind !== 'log' || effect.event !== 'internalError', JSON.stringify(effect));
          assert.notEqual(effect.kind, 'established');
          assert.notEqual(effect.kind, 'installChildSa');
        }
        assert.ok(one.describe().length <= 200);
      },
    };
  },
};

const publicKey: Target = {
  name: 'ike/public-key',
  open: () => ({
    corpus: Object.values(keys).map(key => key.publicKey.data),
    check(bytes, random) {
      const data = Uint8Array.from(bytes);
      unless(() => publicKeyObject({ algorithm: random.pick([2, 3, 4] as const), data }), WireError);
    },
  }),
};

export const ikeTargets: readonly Target[] = [message, engine, publicKey];
