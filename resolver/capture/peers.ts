/**
 * Peers: who has proved which key at which address, and who failed to.
 *
 * A peer is the pair (address, key), sealed for one address of ours; never an address alone. What a peer refuses is
 * remembered for the name that was asked, since it may refuse the name and not the key; silence is remembered for the
 * pair, and both for the gateway that was spoken to, if there was one. So nobody can change what holds for another name
 * at the same address by publishing a key of his own, or a copy.
 *
 *   unknown ── begin ──▶ negotiating ── SAs in the kernel ──▶ proven ── last SAs gone ──▶ unknown
 *                             └── refused, not proven, no answer ──▶ failed ── its term ends ──▶ unknown
 */
import { formatIpAddress, type IpAddress } from '../address.ts';
import type { PolicyGroup } from './groups.ts';
import type {
  LocalAddresses,
  Negotiation,
  NegotiationFailure,
  NegotiationOutcome,
  NegotiationPeer,
  Negotiator,
  PublicKey,
  Seal,
} from './interfaces.ts';
import { fingerprintOf } from './keys.ts';
import { type Ground, giveWay } from './lease.ts';

/** How long a failure is remembered, milliseconds. What is our own fault is tried again at once. */
const FAILURE_TERM: Record<NegotiationFailure['code'], number> = {
  refused: 3_600_000,
  'not-proven': 3_600_000,
  conflict: 60_000,
  'no-answer': 600_000,
  kernel: 10_000,
  cancelled: 0,
  unable: 0,
  busy: 0,
};
/** Where a failure means that the name is dead, it is tried again this soon. */
const STRICT_TERM = 30_000;
/** How often a seal that is relied on is looked up in the kernel. */
const VERIFIED_MILLIS = 500;

const MAX_NEGOTIATIONS = 256;
const MAX_PEERS = 20_000;
/** Peers that began themselves never use up the room of those that we ask for. */
const MAX_STRANGERS = 10_000;
const MAX_FAILURES = 10_000;
const MAX_NAMES_PER_PEER = 64;

export type ProvenPeer = {
  address: IpAddress;
  local: IpAddress;
  fingerprint: string;
  /** The newest. */
  seal: Seal;
  /** All pairs of SAs with this key between these addresses: rekeyed ones overlap, both sides may have begun. */
  children: Set<number>;
  /** Unix milliseconds. */
  since: number;
  /** Names (lower case, no final dot) answered with this peer, with the group that ruled. */
  names: Map<string, PolicyGroup>;
  /** When the kernel was last seen to hold it. */
  verifiedAt: number;
  /** What answers rest on that were given because of this peer: it gives way whenever a pair of its SAs changes. */
  ground: Ground;
};

export type RememberedFailure = {
  address: IpAddress;
  via?: IpAddress;
  fingerprint: string;
  /** The name that was asked (lower case, no final dot), where only this name is affected. */
  name: string | undefined;
  failure: NegotiationFailure;
  /** Monotonic milliseconds. */
  since: number;
  until: number;
};

export type Sealing =
  | { state: 'sealed'; peer: ProvenPeer }
  | { state: 'failed'; failure: NegotiationFailure }
  | { state: 'pending'; startedAt: number; outcome: Promise<Sealing> };

type Pending = Sealing & { state: 'pending' };

/** What is negotiated about, and with whom where that is not the address itself. */
type Target = { address: IpAddress; via?: IpAddress | undefined };

export class Peers {
  readonly #negotiator: Negotiator;
  readonly #local: LocalAddresses;
  readonly #now: () => number;
  readonly #unixNow: () => number;
  readonly #proven = new Map<string, ProvenPeer>();
  readonly #byChild = new Map<number, ProvenPeer>();
  readonly #failures = new Map<string, RememberedFailure>();
  readonly #running = new Map<string, Pending & { asked: string }>();
  /** What is proven (pairs) and running (ids) at each address. */
  readonly #addresses = new Map<string, Set<string>>();

  constructor(options: {
    negotiator: Negotiator;
    local: LocalAddresses;
    now: () => number;
    unixNow: () => number;
  }) {
    this.#negotiator = options.negotiator;
    this.#local = options.local;
    this.#now = options.now;
    this.#unixNow = options.unixNow;
  }

  /**
   * The peer at `address` that holds one of the keys: known, being negotiated, or begun now.
   *
   * `strict`: a failure leaves the name dead, so it is not believed for long. `via`: the gateway to negotiate with.
   * `speculation` is a negotiation with the address itself whose IKE_SA_INIT is out already; it is used or cancelled.
   */
  seal(
    address: IpAddress,
    peer: NegotiationPeer,
    strict: boolean,
    { speculation, via }: { speculation?: Negotiation | undefined; via?: IpAddress | undefined } = {},
  ): Sealing {
    const begin = () => speculation ?? this.#negotiator.begin(address, via);
    const sealing = this.#seal({ address, via }, peer, strict, begin);
    if (speculation && !sealing.begun) speculation.cancel();
    return sealing.sealing;
  }

  #seal(
    target: Target,
    peer: NegotiationPeer,
    strict: boolean,
    begin: () => Negotiation,
  ): { sealing: Sealing; begun: boolean } {
    const { address } = target;
    const settled = (sealing: Sealing) => ({ sealing, begun: false });
    const known = this.find(address, peer.keys);
    if (known) return settled({ state: 'sealed', peer: known });
    const asked = peer.asked.canonical().toText().replace(/\.$/, '');
    const failures = peer.keys.map(key => this.#failure(target, fingerprintOf(key), asked, strict));
    const fresh = peer.keys.filter((_, i) => failures[i] === undefined);
    if (fresh.length === 0) {
      const { failure } = failures[0]!;
      return settled({ state: 'failed', failure: { ...failure, text: `${failure.text} (remembered)` } });
    }
    const id = `${textOf(target)} ${fresh.map(fingerprintOf).sort().join(' ')}`;
    const running = this.#running.get(id);
    if (running && running.asked === asked) return settled(running);
    // What the peer refuses to another name it may grant to this one.
    if (running) return settled({ ...running, outcome: this.#after(running, target, peer, strict) });
    if (this.#running.size >= MAX_NEGOTIATIONS || this.#proven.size >= MAX_PEERS) {
      const text = this.#proven.size >= MAX_PEERS ? 'too many peers' : 'too many negotiations at once';
      return settled({ state: 'failed', failure: { code: 'busy', text } });
    }
    const outcome = begin()
      .prove({ ...peer, keys: fresh })
      .then(result => this.#conclude(id, target, fresh, asked, result));
    const pending = { state: 'pending' as const, startedAt: this.#now(), outcome, asked };
    this.#running.set(id, pending);
    this.#note(address, id);
    return { sealing: pending, begun: true };
  }

  async #after(
    running: Pending,
    { address, via }: Target,
    peer: NegotiationPeer,
    strict: boolean,
  ): Promise<Sealing> {
    const first = await running.outcome;
    if (first.state !== 'failed' || !isOfName(first.failure)) return first;
    const second = this.seal(address, peer, strict, { via });
    return second.state === 'pending' ? second.outcome : second;
  }

  /** A live peer at `address`, sealed for the address that we would use, that has proved one of the keys. */
  find(address: IpAddress, keys: PublicKey[]): ProvenPeer | undefined {
    const local = this.#local.sourceFor(address);
    if (!local) return undefined;
    for (const key of keys) {
      const peer = this.#proven.get(pairOf(local, address, fingerprintOf(key)));
      if (peer && this.#stands(peer)) return peer;
    }
    return undefined;
  }

  /** Whether a seal with this address stands or is being negotiated: then nothing is to be begun on suspicion. */
  knows(address: IpAddress): boolean {
    return this.#addresses.has(formatIpAddress(address));
  }

  /** Whether any other key than these stands or is being proved at this address: then it matters whose it is. */
  knowsOther(address: IpAddress, keys: PublicKey[]): boolean {
    const own = keys.map(fingerprintOf);
    const entries = [...(this.#addresses.get(formatIpAddress(address)) ?? [])];
    return entries.some(entry => !own.some(fingerprint => entry.includes(fingerprint)));
  }

  /** A peer that began itself has proved its key and its SAs stand in the kernel. False: there are too many. */
  adopt(address: IpAddress, seal: Seal, name: string | undefined, group: PolicyGroup): boolean {
    const known = this.#proven.has(pairOf(seal.local, address, fingerprintOf(seal.key)));
    if (!known && this.#proven.size >= MAX_STRANGERS) return false;
    this.answered(this.#record(address, seal), name ?? formatIpAddress(address), group);
    return true;
  }

  /** Remembers that a name was answered because of this peer. */
  answered(peer: ProvenPeer, name: string, group: PolicyGroup): void {
    peer.names.delete(name);
    peer.names.set(name, group);
    if (peer.names.size > MAX_NAMES_PER_PEER) peer.names.delete(peer.names.keys().next().value!);
  }

  /** A pair of SAs is gone. With its last one the peer proves nothing any more. */
  closed(childId: number): void {
    const peer = this.#byChild.get(childId);
    if (!peer) return;
    peer.ground = giveWay(peer.ground);
    this.#byChild.delete(childId);
    peer.children.delete(childId);
    const last = [...peer.children].at(-1);
    if (last !== undefined) {
      if (peer.seal.childId === childId) peer.seal = { ...peer.seal, childId: last };
      return;
    }
    const pair = pairOf(peer.local, peer.address, peer.fingerprint);
    this.#proven.delete(pair);
    this.#strike(peer.address, pair);
  }

  /** SAs of the same peer in the place of others (RFC 7296 §2.8). */
  replaced(oldChildId: number, newChildId: number): void {
    const peer = this.#byChild.get(oldChildId);
    if (!peer) return;
    peer.ground = giveWay(peer.ground);
    peer.seal = { ...peer.seal, childId: newChildId };
    peer.children.add(newChildId);
    this.#byChild.set(newChildId, peer);
  }

  /** Closes peers and forgets failures: all, those at an address, or those of a name. */
  forget(which: { all: true } | { address: IpAddress } | { name: string; addresses: IpAddress[] }): {
    peers: number;
    failures: number;
  } {
    const wanted =
      'all' in which
        ? undefined
        : new Set(('address' in which ? [which.address] : which.addresses).map(formatIpAddress));
    const name = 'name' in which ? which.name : undefined;
    let peers = 0;
    for (const peer of [...this.#proven.values()]) {
      const hit =
        name === undefined ? !wanted || wanted.has(formatIpAddress(peer.address)) : peer.names.has(name);
      if (!hit) continue;
      for (const childId of [...peer.children]) {
        this.closed(childId);
        this.#negotiator.close(childId, 'forgotten on request');
      }
      peers++;
    }
    let failures = 0;
    for (const [id, failure] of [...this.#failures]) {
      if (wanted && !wanted.has(formatIpAddress(failure.address))) continue;
      this.#failures.delete(id);
      failures++;
    }
    return { peers, failures };
  }

  list(): ProvenPeer[] {
    return [...this.#proven.values()];
  }

  failures(): RememberedFailure[] {
    const now = this.#now();
    return [...this.#failures.values()].filter(failure => failure.until > now);
  }

  /** How many negotiations run now. */
  get running(): number {
    return this.#running.size;
  }

  #conclude(
    id: string,
    target: Target,
    keys: PublicKey[],
    asked: string,
    outcome: NegotiationOutcome,
  ): Sealing {
    this.#running.delete(id);
    this.#strike(target.address, id);
    if (outcome.ok) return { state: 'sealed', peer: this.#record(target.address, outcome.seal) };
    for (const key of keys) this.#remember(target, fingerprintOf(key), asked, outcome.failure);
    return { state: 'failed', failure: outcome.failure };
  }

  #record(address: IpAddress, seal: Seal): ProvenPeer {
    const fingerprint = fingerprintOf(seal.key);
    const pair = pairOf(seal.local, address, fingerprint);
    const known = this.#proven.get(pair);
    const peer: ProvenPeer = known ?? {
      address,
      local: seal.local,
      fingerprint,
      seal,
      children: new Set(),
      since: this.#unixNow(),
      names: new Map(),
      verifiedAt: this.#now(),
      ground: { stands: true },
    };
    peer.seal = seal;
    peer.children.add(seal.childId);
    this.#byChild.set(seal.childId, peer);
    this.#proven.set(pair, peer);
    this.#note(address, pair);
    return peer;
  }

  /** What the kernel lost behind our back is closed, so that it is negotiated anew. */
  #stands(peer: ProvenPeer): boolean {
    const now = this.#now();
    if (now - peer.verifiedAt < VERIFIED_MILLIS) return true;
    if (this.#negotiator.stands(peer.seal.childId)) {
      peer.verifiedAt = now;
      return true;
    }
    for (const childId of [...peer.children]) {
      this.closed(childId);
      this.#negotiator.close(childId, 'the kernel lost its SAs or policies');
    }
    return false;
  }

  #remember(target: Target, fingerprint: string, asked: string, failure: NegotiationFailure): void {
    const term = FAILURE_TERM[failure.code];
    if (term === 0) return;
    const name = isOfName(failure) ? asked : undefined;
    const id = failureId(target, fingerprint, name);
    const since = this.#now();
    this.#failures.delete(id);
    const { address, via } = target;
    const until = since + term;
    this.#failures.set(id, { address, ...(via && { via }), fingerprint, name, failure, since, until });
    if (this.#failures.size > MAX_FAILURES) this.#failures.delete(this.#failures.keys().next().value!);
  }

  #failure(
    target: Target,
    fingerprint: string,
    asked: string,
    strict: boolean,
  ): RememberedFailure | undefined {
    const now = this.#now();
    for (const name of [undefined, asked]) {
      const id = failureId(target, fingerprint, name);
      const remembered = this.#failures.get(id);
      if (!remembered) continue;
      const until = strict ? Math.min(remembered.until, remembered.since + STRICT_TERM) : remembered.until;
      if (until > now) return remembered;
      this.#failures.delete(id);
    }
    return undefined;
  }

  #note(address: IpAddress, entry: string): void {
    const text = formatIpAddress(address);
    this.#addresses.set(text, (this.#addresses.get(text) ?? new Set()).add(entry));
  }

  #strike(address: IpAddress, entry: string): void {
    const text = formatIpAddress(address);
    const entries = this.#addresses.get(text);
    entries?.delete(entry);
    if (entries?.size === 0) this.#addresses.delete(text);
  }
}

/** Whether the failure may be due to the name that was asked, and not to the address or the key. */
function isOfName({ code }: NegotiationFailure): boolean {
  return code === 'refused' || code === 'not-proven' || code === 'conflict';
}

function pairOf(local: IpAddress, address: IpAddress, fingerprint: string): string {
  return `${formatIpAddress(local)} ${formatIpAddress(address)} ${fingerprint}`;
}

function failureId(target: Target, fingerprint: string, name: string | undefined): string {
  return `${textOf(target)} ${fingerprint} ${name ?? ''}`;
}

function textOf({ address, via }: Target): string {
  return via ? `${formatIpAddress(address)} via ${formatIpAddress(via)}` : formatIpAddress(address);
}
