/**
 * Between the capture and the IKE engine: negotiations as promises, SAs into the data plane, strangers answered.
 *
 * What goes out between two addresses is carried by the SAs of *one* holder, for the kernel cannot tell names apart. Who
 * comes with another key is refused, unless he has more right to the address:
 *
 *   1  a stranger who proved his name from there: he may be anywhere on the path
 *   2  a name that an app asked for, and that DNS gives this address
 *   3  a key that the reverse zone of the address has
 *
 * Several keys that the reverse zone has are one holder's, and stand side by side. Otherwise, of two with the same right
 * the first stays; but a name may replace its own key. A name whose key was refused so is never called sealed.
 */
import type { Engine } from '../ike/engine.ts';
import type {
  ChildSa,
  Effect,
  FailureReason,
  Identity,
  IkeSaInfo,
  IpAddress,
  PublicKey,
} from '../ike/types.ts';
import { formatIpAddress } from './address.ts';
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

/** Where SAs and policies go. All but `stands` throw what the kernel refuses. */
export interface SealingPlane {
  install(child: ChildSa): void;
  /** The youngest child of the pair that is left carries from then on. */
  remove(childId: number): void;
  /** What goes out between the child's hosts uses this child from now on. */
  carry(childId: number): void;
  stands(childId: number): boolean;
}

/** Whose keys a peer that began itself may prove, in whose name, and whether the reverse zone gives them this address. */
export type Stranger =
  | { keys: PublicKey[]; name: string | undefined; ownsAddress: boolean }
  | { error: string };

export type NegotiatorOptions = {
  plane: SealingPlane;
  /** The local address that packets to it leave from; undefined without a route. */
  sourceFor: (remote: IpAddress) => IpAddress | undefined;
  lookUpStranger: (identity: Identity, remote: IpAddress) => Promise<Stranger>;
  /** A peer that began itself has proved its key, and its SAs stand in the kernel. False: there is no room for it. */
  adopted: (remote: IpAddress, seal: Seal, name: string | undefined) => boolean;
  /** A child's SAs are gone from the kernel. */
  gone: (childId: number) => void;
  replaced: (oldChildId: number, newChildId: number) => void;
  /** The kernel refused something after the fact: compare with what it holds. */
  doubtful: (error: unknown) => void;
  log: (level: 'debug' | 'info' | 'warn', event: string, detail: Record<string, unknown>) => void;
  now: () => number;
  /** Calls back after so many milliseconds. */
  later: (millis: number, callback: () => void) => void;
};

/** How long a peer that began anew needs to install what we have just answered with. */
const PEER_INSTALLS_MILLIS = 1_000;

const RIGHT = { stranger: 1, asked: 2, reverse: 3 } as const;

/** What the peer of an IKE SA has proved, and the children it has now, oldest first. */
type IkePeer = {
  id: number;
  key: PublicKey;
  fingerprint: string;
  right: number;
  name: string | undefined;
  initiator: boolean;
  suite: string;
  children: Set<number>;
};

type Pair = {
  /** Fingerprints of the one holder. */
  keys: Set<string>;
  right: number;
  /** The asked name that brought the key: its owner may bring another. */
  asked: string | undefined;
  carrying: number;
  children: Set<number>;
};

type Request = {
  settle: (outcome: NegotiationOutcome) => void;
  asked?: string;
  /** Fingerprints of the keys that the reverse zone of the address has. */
  owners?: ReadonlySet<string>;
};

type Standing = { child: ChildSa; pair: string; peer: IkePeer; kernelMillis: number; installedAt: number };

export class IkeNegotiator implements Negotiator {
  readonly #options: NegotiatorOptions;
  readonly #requests = new Map<number, Request>();
  /** Requests whose Child SA we refused ourselves, because another key carries. */
  readonly #conflicts = new Set<number>();
  readonly #children = new Map<number, Standing>();
  readonly #pairs = new Map<string, Pair>();
  readonly #peers = new Map<number, IkePeer>();
  readonly #strangers = new Map<string, Stranger>();
  #ike: IkeActor | undefined;
  #nextRequest = 1;

  constructor(options: NegotiatorOptions) {
    this.#options = options;
  }

  /** The sockets hand effects to `perform` of this object, so they come after it. */
  connect(ike: IkeActor): void {
    this.#ike = ike;
  }

  begin(remote: IpAddress, via?: IpAddress): Negotiation {
    const local = this.#options.sourceFor(via ?? remote);
    const inside = this.#options.sourceFor(remote);
    if (!local || !inside) return failedAtOnce({ code: 'unable', text: 'there is no route to it' });
    const requestId = this.#nextRequest++;
    let settle: (outcome: NegotiationOutcome) => void = () => {};
    const outcome = new Promise<NegotiationOutcome>(resolve => {
      settle = resolve;
    });
    const request: Request = { settle };
    this.#requests.set(requestId, request);
    const protects = via ? { protects: { local: inside, remote } } : {};
    this.#act((engine, now) =>
      engine.initiate({ requestId, local, remote: via ?? remote, ...protects }, now),
    );
    return {
      prove: ({ keys, asked, canonical, owners }) => {
        request.asked = asked.key;
        request.owners = new Set(owners);
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

  close(childId: number, why: string): void {
    const standing = this.#children.get(childId);
    if (!standing) return;
    this.#options.log('info', 'closing', { id: standing.peer.id, why });
    this.#act((engine, now) => engine.close(standing.peer.id, now));
  }

  /** Asks the peer whether it is still there (RFC 7296 §2.4). */
  probe(childId: number): void {
    const standing = this.#children.get(childId);
    if (standing) this.#act((engine, now) => engine.probe(standing.peer.id, now));
  }

  stands(childId: number): boolean {
    return this.#children.has(childId) && this.#options.plane.stands(childId);
  }

  /** Every effect of the engine but 'send'. */
  perform(effect: Exclude<Effect, { kind: 'send' }>): void {
    switch (effect.kind) {
      case 'lookupKeys':
        void this.#lookUp(effect.lookup, effect.identity, effect.remote);
        break;
      case 'installChildSa':
        this.#install(effect);
        break;
      case 'removeChildSa':
        this.#remove(effect.child.id);
        break;
      case 'established':
        this.#established(effect.ikeSa, effect.child, effect.requestId);
        break;
      case 'failed':
        this.#settle(effect.requestId, {
          ok: false,
          failure: this.#failure(effect.requestId, effect.reason),
        });
        break;
      case 'closed':
        this.#peers.delete(effect.ikeSa.id);
        this.#options.log('info', 'ikeClosed', { id: effect.ikeSa.id, why: effect.why });
        break;
      case 'log':
        this.#options.log(effect.level, `ike.${effect.event}`, effect.detail);
    }
  }

  #install(effect: Extract<Effect, { kind: 'installChildSa' }>): void {
    const { child, requestId } = effect;
    const answer = (error?: string) =>
      this.#act((engine, time) => engine.childInstalled(child.id, error, time));
    const peer = this.#peers.get(child.ikeSaId) ?? this.#peerOf(effect);
    const name = pairOf(child);
    const pair = this.#pairs.get(name);
    const request = requestId === undefined ? undefined : this.#requests.get(requestId);
    const standing = pair && standingOf(pair, peer, request);
    if (standing === 'conflict') {
      if (requestId !== undefined) this.#conflicts.add(requestId);
      answer(`another key is proven at ${formatIpAddress(child.selectors.remote)} already`);
      return;
    }
    const before = this.#options.now();
    try {
      this.#options.plane.install(child);
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      this.#options.log('warn', 'kernelRefused', { child: child.id, text });
      answer(text);
      return;
    }
    const installedAt = this.#options.now();
    const rekeyed = [...peer.children].at(-1);
    this.#peers.set(peer.id, peer);
    peer.children.add(child.id);
    this.#children.set(child.id, {
      child,
      pair: name,
      peer,
      kernelMillis: installedAt - before,
      installedAt,
    });
    if (!pair) {
      const { fingerprint, right } = peer;
      const [keys, children] = [new Set([fingerprint]), new Set([child.id])];
      this.#pairs.set(name, { keys, right, asked: request?.asked, carrying: child.id, children });
    } else if (standing === 'replaces') this.#replace(pair, child.id, peer, request);
    else this.#join(pair, child.id, peer, requestId !== undefined);
    answer();
    if (requestId === undefined && peer.suite !== '') this.#continue(rekeyed, child.id);
  }

  /** Somebody with more right to the address, or the same name with another key: the others go. */
  #replace(pair: Pair, childId: number, peer: IkePeer, request: Request | undefined): void {
    const others = [...pair.children];
    pair.children.add(childId);
    pair.keys = new Set([peer.fingerprint]);
    pair.right = peer.right;
    pair.asked = request?.asked;
    this.#carry(childId);
    for (const other of others) this.close(other, 'another key with more right to the address was proven');
  }

  /** A further child with the same holder: when does it carry? */
  #join(pair: Pair, childId: number, peer: IkePeer, weBegan: boolean): void {
    const sameKey = pair.keys.has(peer.fingerprint);
    pair.children.add(childId);
    pair.keys.add(peer.fingerprint);
    pair.right = Math.max(pair.right, peer.right);
    // Another key of the same holder adds nothing to what carries already. With the same key, the peer may have lost its
    // SAs. The responder had the new ones before it answered us; as responder we go first, so we give the initiator time;
    // and the old child of a rekeying serves until the peer deletes it (RFC 7296 §2.8): then the youngest carries.
    if (!sameKey) return;
    if (weBegan) this.#carry(childId);
    else if (peer.children.size === 1) this.#options.later(PEER_INSTALLS_MILLIS, () => this.#carry(childId));
  }

  /** A child of an IKE SA that stood already: it takes the place of the one before, or there was none left. */
  #continue(rekeyed: number | undefined, childId: number): void {
    const standing = this.#children.get(childId);
    if (!standing) return;
    if (rekeyed !== undefined) this.#options.replaced(rekeyed, childId);
    else this.#adopt(standing, {});
  }

  #remove(childId: number): void {
    const standing = this.#children.get(childId);
    if (!standing) return;
    const { peer, pair: name } = standing;
    const pair = this.#pairs.get(name);
    this.#children.delete(childId);
    peer.children.delete(childId);
    pair?.children.delete(childId);
    const heir = pair && [...pair.children].at(-1);
    if (heir === undefined) this.#pairs.delete(name);
    else if (pair!.carrying === childId) pair!.carrying = heir;
    this.#attempt(() => this.#options.plane.remove(childId));
    this.#options.gone(childId);
  }

  #established(ikeSa: IkeSaInfo, child: ChildSa | undefined, requestId: number | undefined): void {
    const standing = child && this.#children.get(child.id);
    if (!standing) {
      this.#settle(requestId, { ok: false, failure: NO_CHILD });
      this.#act((engine, now) => engine.close(ikeSa.id, now));
      return;
    }
    standing.peer.suite = ikeSa.suite;
    if (requestId === undefined) this.#adopt(standing, ikeSa.timings);
    else this.#settle(requestId, { ok: true, seal: sealOf(standing, ikeSa.timings) });
  }

  #adopt(standing: Standing, times: Seal['times']): void {
    const { child, peer } = standing;
    if (this.#options.adopted(child.selectors.remote, sealOf(standing, times), peer.name)) return;
    this.close(child.id, 'there are too many peers');
  }

  #carry(childId: number): void {
    const pair = this.#pairs.get(this.#children.get(childId)?.pair ?? '');
    if (!pair || pair.carrying === childId) return;
    if (this.#attempt(() => this.#options.plane.carry(childId))) pair.carrying = childId;
  }

  /** What the kernel refuses here leaves the SAs as they are; somebody must look. */
  #attempt(verb: () => void): boolean {
    try {
      verb();
      return true;
    } catch (error) {
      this.#options.doubtful(error);
      return false;
    }
  }

  #peerOf(effect: Extract<Effect, { kind: 'installChildSa' }>): IkePeer {
    const { child, remoteKey, remoteIdentity, requestId } = effect;
    const stranger = this.#strangers.get(strangerKey(remoteIdentity, child.remote));
    const owns = stranger !== undefined && 'keys' in stranger && stranger.ownsAddress;
    return {
      id: child.ikeSaId,
      key: remoteKey,
      fingerprint: fingerprintOf(remoteKey),
      right: rightOf(child, requestId !== undefined, owns),
      name: stranger !== undefined && 'keys' in stranger ? stranger.name : undefined,
      initiator: requestId !== undefined,
      suite: '',
      children: new Set(),
    };
  }

  async #lookUp(lookup: number, identity: Identity, remote: IpAddress): Promise<void> {
    const found = await this.#options
      .lookUpStranger(identity, remote)
      .catch((error): Stranger => ({ error: String(error) }));
    const key = strangerKey(identity, remote);
    this.#strangers.set(key, found);
    const answer = 'keys' in found ? { keys: found.keys } : { error: found.error };
    this.#act((engine, now) => engine.keysFound(lookup, answer, now));
    // keysFound decides, and the kernel is asked, before it returns: nobody needs what was found any more.
    this.#strangers.delete(key);
  }

  #failure(requestId: number, reason: FailureReason): NegotiationFailure {
    return this.#conflicts.delete(requestId) ? { code: 'conflict', text: reason.text } : failureOf(reason);
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
  return { begin: () => failedAtOnce({ code: 'unable', text: why }), close: () => {}, stands: () => false };
}

/** What a peer with this key is to those whose SAs stand between the two hosts. */
function standingOf(
  pair: Pair,
  peer: IkePeer,
  request: Request | undefined,
): 'joins' | 'replaces' | 'conflict' {
  if (pair.keys.has(peer.fingerprint)) return 'joins';
  const owners = request?.owners ?? new Set();
  if (owners.has(peer.fingerprint)) {
    peer.right = RIGHT.reverse;
    if ([...pair.keys].every(key => owners.has(key))) return 'joins';
  }
  const sameName = request?.asked !== undefined && request.asked === pair.asked;
  return peer.right > pair.right || sameName ? 'replaces' : 'conflict';
}

const NO_CHILD: NegotiationFailure = { code: 'refused', text: 'the peer granted no Child SA' };

function sealOf({ child, peer, kernelMillis, installedAt }: Standing, times: Seal['times']): Seal {
  return {
    childId: child.id,
    local: child.selectors.local,
    ...(isByGateway(child) && { via: child.remote }),
    key: peer.key,
    mode: child.mode,
    suite: peer.suite,
    times: { ...times, installedAt, kernelMillis },
  };
}

function failedAtOnce(failure: NegotiationFailure): Negotiation {
  return { prove: async () => ({ ok: false, failure }), cancel: () => {} };
}

function failureOf({ code, text }: FailureReason): NegotiationFailure {
  const codes = {
    'no-answer': 'no-answer',
    refused: 'refused',
    busy: 'busy',
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

/** A gateway is negotiated with only when the reverse zone names it together with the key. */
function rightOf(child: ChildSa, weAsked: boolean, owns: boolean): number {
  if (owns || isByGateway(child)) return RIGHT.reverse;
  return weAsked ? RIGHT.asked : RIGHT.stranger;
}

/** Whether its SAs end at a gateway and not at the host whose traffic they carry. */
export function isByGateway({ remote, selectors }: ChildSa): boolean {
  return formatIpAddress(remote) !== formatIpAddress(selectors.remote);
}

/** By whose traffic it is, not between whom the SAs stand: two gateways of one host compete for it too. */
function pairOf({ selectors: { local, remote } }: ChildSa): string {
  return `${formatIpAddress(local)} ${formatIpAddress(remote)}`;
}
