/**
 * Between the capture and the IKE engine: negotiations as promises, SAs into the data plane, strangers answered.
 *
 * Which child carries what goes out to an address (there may be several, with different keys): one with the same key
 * as before, since it is newer; otherwise one whose key DNS gives to a name or reverse zone of that very address over
 * one of a stranger who merely proved his name from there; otherwise the first stays. So nobody can take over the
 * traffic to an address with a key of his own.
 */
import type { Engine } from '../ike/engine.ts';
import type {
  ChildSa,
  Effect,
  FailureReason,
  IkeSaInfo,
  Identity,
  IpAddress,
  PublicKey,
} from '../ike/types.ts';
import type {
  Negotiation,
  NegotiationFailure,
  NegotiationOutcome,
  Negotiator,
  Seal,
} from './capture/interfaces.ts';
import { fingerprintOf } from './capture/keys.ts';
import type { Name } from './dns/name.ts';

/** The part of the IKE sockets that is needed here. */
export interface IkeActor {
  act(what: (engine: Engine, now: number) => Effect[]): void;
}

/** Where SAs and policies go. `install` and `remove` throw what the kernel refuses. */
export interface SealingPlane {
  install(child: ChildSa): void;
  remove(childId: number): void;
  /** What goes out to the child's remote address uses this child from now on. */
  carry(childId: number): void;
}

/** Whose keys a peer that began itself may prove, and in whose name. */
export type Stranger =
  | { keys: PublicKey[]; name: string | undefined; ownsAddress: boolean }
  | { error: string };

export type NegotiatorOptions = {
  plane: SealingPlane;
  /** The local address that packets to it leave from; undefined without a route. */
  sourceFor: (remote: IpAddress) => IpAddress | undefined;
  lookUpStranger: (identity: Identity, remote: IpAddress) => Promise<Stranger>;
  /** A peer that began itself has proved its key, and its SAs stand in the kernel. */
  adopted: (remote: IpAddress, seal: Seal, name: string | undefined) => void;
  /** A child's SAs are gone from the kernel. */
  gone: (childId: number) => void;
  replaced: (oldChildId: number, newChildId: number) => void;
  log: (level: 'debug' | 'info' | 'warn', event: string, detail: Record<string, unknown>) => void;
  now: () => number;
};

type Request = {
  settle: (outcome: NegotiationOutcome) => void;
  installedAt?: number;
  kernelMillis?: number;
  failure?: string;
};

/** What is known of one child that stands in the kernel. */
type Standing = {
  child: ChildSa;
  pair: string;
  fingerprint?: string;
  ownsAddress: boolean;
  kernelMillis: number;
  installedAt: number;
};

export class IkeNegotiator implements Negotiator {
  readonly #options: NegotiatorOptions;
  readonly #requests = new Map<number, Request>();
  readonly #children = new Map<number, Standing>();
  /** The children of each address pair, and which of them carries. */
  readonly #pairs = new Map<string, { carrying: number; children: Set<number> }>();
  /** What the peer of an IKE SA has proved, and its newest child. */
  readonly #peers = new Map<number, { fingerprint: string; ownsAddress: boolean; childId: number }>();
  readonly #strangers = new Map<string, Stranger & { name: string | undefined }>();
  #ike: IkeActor | undefined;
  #nextRequest = 1;

  constructor(options: NegotiatorOptions) {
    this.#options = options;
  }

  /** The sockets hand effects to `perform` of this object, so they come after it. */
  connect(ike: IkeActor): void {
    this.#ike = ike;
  }

  begin(remote: IpAddress): Negotiation {
    const local = this.#options.sourceFor(remote);
    if (!local) return failedAtOnce({ code: 'unable', text: 'there is no route to it' });
    const requestId = this.#nextRequest++;
    let settle: (outcome: NegotiationOutcome) => void = () => {};
    const outcome = new Promise<NegotiationOutcome>(resolve => {
      settle = resolve;
    });
    this.#requests.set(requestId, { settle });
    this.#act((engine, now) => engine.initiate({ requestId, local, remote }, now));
    return {
      prove: ({ keys, asked, canonical }) => {
        const peer = {
          keys,
          idr: fqdn(asked),
          acceptableIdr: [fqdn(canonical)],
          preferLocalKey: keys[0]!.algorithm,
        };
        this.#act((engine, now) => engine.authenticate(requestId, peer, now));
        return outcome;
      },
      cancel: () => this.#act((engine, now) => engine.cancel(requestId, now)),
    };
  }

  close(childId: number, _why: string): void {
    const standing = this.#children.get(childId);
    if (standing) this.#act((engine, now) => engine.close(standing.child.ikeSaId, now));
  }

  /** Every effect of the engine but 'send'. */
  perform(effect: Exclude<Effect, { kind: 'send' }>): void {
    switch (effect.kind) {
      case 'lookupKeys':
        void this.#lookUp(effect.lookup, effect.identity, effect.remote);
        break;
      case 'installChildSa':
        this.#install(effect.child);
        break;
      case 'removeChildSa':
        this.#remove(effect.child.id);
        break;
      case 'established':
        this.#established(effect.ikeSa, effect.child, effect.requestId);
        break;
      case 'failed':
        this.#settle(effect.requestId, { ok: false, failure: failureOf(effect.reason) });
        break;
      case 'closed':
        this.#peers.delete(effect.ikeSa.id);
        this.#options.log('info', 'ikeClosed', { id: effect.ikeSa.id, why: effect.why });
        break;
      case 'log':
        this.#options.log(effect.level, `ike.${effect.event}`, effect.detail);
    }
  }

  #install(child: ChildSa): void {
    const { plane, now } = this.#options;
    const before = now();
    try {
      plane.install(child);
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      this.#options.log('warn', 'kernelRefused', { child: child.id, text });
      this.#act((engine, time) => engine.childInstalled(child.id, text, time));
      return;
    }
    const installedAt = now();
    const pair = pairOf(child);
    const peer = this.#peers.get(child.ikeSaId);
    this.#children.set(child.id, {
      child,
      pair,
      ownsAddress: peer?.ownsAddress ?? false,
      kernelMillis: installedAt - before,
      installedAt,
      ...(peer ? { fingerprint: peer.fingerprint } : {}),
    });
    const known = this.#pairs.get(pair);
    if (known) known.children.add(child.id);
    else this.#pairs.set(pair, { carrying: child.id, children: new Set([child.id]) });
    if (peer) this.#rekeyed(peer, child.id);
    this.#act((engine, time) => engine.childInstalled(child.id, undefined, time));
  }

  /** A further child of an IKE SA takes the place of the one before (RFC 7296 §1.3.3); the peer will close that. */
  #rekeyed(peer: { childId: number }, childId: number): void {
    const before = this.#children.get(peer.childId);
    const pair = before && this.#pairs.get(before.pair);
    if (pair?.carrying === peer.childId) this.#carry(childId);
    this.#options.replaced(peer.childId, childId);
    peer.childId = childId;
  }

  #remove(childId: number): void {
    const standing = this.#children.get(childId);
    if (!standing) return;
    this.#children.delete(childId);
    try {
      this.#options.plane.remove(childId);
    } finally {
      this.#inherit(standing.pair, childId);
      this.#options.gone(childId);
    }
  }

  /** The best of the children that are left carries on. */
  #inherit(name: string, goneId: number): void {
    const pair = this.#pairs.get(name);
    pair?.children.delete(goneId);
    if (!pair || pair.children.size === 0) {
      this.#pairs.delete(name);
      return;
    }
    if (pair.carrying !== goneId) return;
    const left = [...pair.children];
    this.#carry(left.find(id => this.#children.get(id)?.ownsAddress) ?? left[0]!);
  }

  #established(ikeSa: IkeSaInfo, child: ChildSa | undefined, requestId: number | undefined): void {
    const key = ikeSa.remoteKey;
    const standing = child && this.#children.get(child.id);
    if (!key || !standing) {
      this.#settle(requestId, { ok: false, failure: key ? NO_CHILD : NO_KEY });
      return;
    }
    const stranger = requestId === undefined ? this.#takeStranger(ikeSa) : undefined;
    const ownsAddress = stranger === undefined || ('ownsAddress' in stranger && stranger.ownsAddress);
    const fingerprint = fingerprintOf(key);
    this.#peers.set(ikeSa.id, { fingerprint, ownsAddress, childId: standing.child.id });
    standing.fingerprint = fingerprint;
    standing.ownsAddress = ownsAddress;
    this.#considerCarrying(standing);
    const seal: Seal = {
      childId: standing.child.id,
      key,
      mode: standing.child.mode,
      suite: ikeSa.suite,
      times: { ...ikeSa.timings, installedAt: standing.installedAt, kernelMillis: standing.kernelMillis },
    };
    if (requestId === undefined) this.#options.adopted(ikeSa.remote.address, seal, stranger?.name);
    else this.#settle(requestId, { ok: true, seal });
  }

  #considerCarrying(standing: Standing): void {
    const current = this.#children.get(this.#pairs.get(standing.pair)?.carrying ?? -1);
    if (!current || current === standing) return;
    const sameKey = current.fingerprint === standing.fingerprint;
    if (sameKey || (standing.ownsAddress && !current.ownsAddress)) this.#carry(standing.child.id);
  }

  #carry(childId: number): void {
    const pair = this.#pairs.get(this.#children.get(childId)?.pair ?? '');
    if (!pair) return;
    this.#options.plane.carry(childId);
    pair.carrying = childId;
  }

  async #lookUp(lookup: number, identity: Identity, remote: IpAddress): Promise<void> {
    const found = await this.#options
      .lookUpStranger(identity, remote)
      .catch((error): Stranger => ({ error: String(error) }));
    if ('keys' in found) this.#strangers.set(strangerKey(identity, remote), found);
    const answer = 'keys' in found ? { keys: found.keys } : { error: found.error };
    this.#act((engine, now) => engine.keysFound(lookup, answer, now));
    // keysFound decides at once; what was found is of use only until then, or until the kernel has the child.
    this.#strangers.delete(strangerKey(identity, remote));
  }

  #takeStranger(ikeSa: IkeSaInfo): (Stranger & { name: string | undefined }) | undefined {
    return this.#strangers.get(strangerKey(ikeSa.remoteIdentity, ikeSa.remote.address));
  }

  #settle(requestId: number | undefined, outcome: NegotiationOutcome): void {
    if (requestId === undefined) return;
    const request = this.#requests.get(requestId);
    this.#requests.delete(requestId);
    request?.settle(outcome);
  }

  #act(what: (engine: Engine, now: number) => Effect[]): void {
    this.#ike?.act(what);
  }
}

/** Stands in where nothing can be negotiated: without ESP in the kernel, or with `dataplane: none`. */
export function incapableNegotiator(why: string): Negotiator {
  return { begin: () => failedAtOnce({ code: 'unable', text: why }), close: () => {} };
}

const NO_KEY: NegotiationFailure = { code: 'not-proven', text: 'the peer proved no key' };
const NO_CHILD: NegotiationFailure = { code: 'refused', text: 'the peer granted no Child SA' };

function failedAtOnce(failure: NegotiationFailure): Negotiation {
  return { prove: async () => ({ ok: false, failure }), cancel: () => {} };
}

function failureOf({ code, text }: FailureReason): NegotiationFailure {
  const codes = {
    'no-answer': 'no-answer',
    refused: 'refused',
    'auth-failed': 'not-proven',
    'peer-key-mismatch': 'not-proven',
    kernel: 'kernel',
    protocol: 'refused',
    cancelled: 'cancelled',
  } as const;
  return { code: codes[code], text };
}

/** ID_FQDN: the name in text without a final dot (RFC 7296 §3.5). */
function fqdn(name: Name): Identity {
  return { type: 'fqdn', data: new TextEncoder().encode(name.canonical().toText().replace(/\.$/, '')) };
}

function strangerKey(identity: Identity, remote: IpAddress): string {
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
  return `${identity.type} ${hex(identity.data)} ${hex(remote.bytes)}`;
}

function pairOf({ local, remote }: ChildSa): string {
  return `${Buffer.from(local.bytes).toString('hex')} ${Buffer.from(remote.bytes).toString('hex')}`;
}
