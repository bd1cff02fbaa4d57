/**
 * Peers: who has proved which key at which address, and who failed to.
 *
 * A peer is the pair (address, key), never an address alone. Success and failure are remembered per pair, so nobody
 * can change what holds for another name at the same address by publishing a key of his own.
 *
 *   unknown ── begin ──▶ negotiating ── SAs in the kernel ──▶ proven ── SAs gone ──▶ unknown
 *                             └── refused, not proven, no answer ──▶ failed ── its term ends ──▶ unknown
 */
import { formatIpAddress, type IpAddress } from '../address.ts';
import type { PolicyGroup } from './groups.ts';
import type {
  Negotiation,
  NegotiationFailure,
  NegotiationOutcome,
  NegotiationPeer,
  Negotiator,
  PublicKey,
  Seal,
} from './interfaces.ts';
import { fingerprintOf } from './keys.ts';

/** How long a failure is remembered, milliseconds. What is our own fault is tried again at once. */
const FAILURE_TERM: Record<NegotiationFailure['code'], number> = {
  refused: 3_600_000,
  'not-proven': 3_600_000,
  'no-answer': 600_000,
  kernel: 10_000,
  cancelled: 0,
  unable: 0,
};

const MAX_NEGOTIATIONS = 256;
const MAX_PEERS = 20_000;
const MAX_FAILURES = 10_000;
const MAX_NAMES_PER_PEER = 64;

export type ProvenPeer = {
  address: IpAddress;
  fingerprint: string;
  seal: Seal;
  /** Unix milliseconds. */
  since: number;
  /** Names (lower case, no final dot) answered with this peer, with the group that ruled. */
  names: Map<string, PolicyGroup>;
  /** Who began: we after a question, or the peer. */
  initiator: boolean;
};

export type RememberedFailure = {
  address: IpAddress;
  fingerprint: string;
  failure: NegotiationFailure;
  /** Monotonic milliseconds. */
  until: number;
};

export type Sealing =
  | { state: 'sealed'; peer: ProvenPeer }
  | { state: 'failed'; failure: NegotiationFailure }
  | { state: 'pending'; startedAt: number; outcome: Promise<Sealing> };

export class Peers {
  readonly #negotiator: Negotiator;
  readonly #now: () => number;
  readonly #unixNow: () => number;
  readonly #proven = new Map<string, ProvenPeer>();
  readonly #byChild = new Map<number, ProvenPeer>();
  readonly #failures = new Map<string, RememberedFailure>();
  readonly #running = new Map<string, Sealing & { state: 'pending' }>();
  /** How many proven, failed and running entries there are for each address. */
  readonly #addresses = new Map<string, number>();

  constructor(options: { negotiator: Negotiator; now: () => number; unixNow: () => number }) {
    this.#negotiator = options.negotiator;
    this.#now = options.now;
    this.#unixNow = options.unixNow;
  }

  /**
   * The peer at `address` that holds one of the keys: known, being negotiated, or begun now.
   *
   * `speculation` is a negotiation with this address whose IKE_SA_INIT is out already; it is used or cancelled.
   */
  seal(address: IpAddress, peer: NegotiationPeer, speculation?: Negotiation): Sealing {
    const known = this.find(address, peer.keys);
    if (known) {
      speculation?.cancel();
      return { state: 'sealed', peer: known };
    }
    const fresh = peer.keys.filter(key => !this.#failure(address, fingerprintOf(key)));
    if (fresh.length === 0) {
      speculation?.cancel();
      const failure = this.#failure(address, fingerprintOf(peer.keys[0]!))!.failure;
      return { state: 'failed', failure: { ...failure, text: `${failure.text} (remembered)` } };
    }
    const id = `${formatIpAddress(address)} ${fresh.map(fingerprintOf).sort().join(' ')}`;
    const running = this.#running.get(id);
    if (running) {
      speculation?.cancel();
      return running;
    }
    if (this.#running.size >= MAX_NEGOTIATIONS || this.#proven.size >= MAX_PEERS) {
      speculation?.cancel();
      const text = this.#proven.size >= MAX_PEERS ? 'too many peers' : 'too many negotiations at once';
      return { state: 'failed', failure: { code: 'unable', text } };
    }
    const negotiation = speculation ?? this.#negotiator.begin(address);
    const outcome = negotiation
      .prove({ ...peer, keys: fresh })
      .then(result => this.#conclude(id, address, fresh, result));
    const pending: Sealing & { state: 'pending' } = { state: 'pending', startedAt: this.#now(), outcome };
    this.#running.set(id, pending);
    this.#count(address, 1);
    return pending;
  }

  /** A live peer at `address` that has proved one of the keys. */
  find(address: IpAddress, keys: PublicKey[]): ProvenPeer | undefined {
    for (const key of keys) {
      const peer = this.#proven.get(pairOf(address, fingerprintOf(key)));
      if (peer) return peer;
    }
    return undefined;
  }

  /** Whether anything is proven, failed or running at this address: then nothing is to be begun on suspicion. */
  knows(address: IpAddress): boolean {
    return this.#addresses.has(formatIpAddress(address));
  }

  /** A peer that began itself has proved its key and its SAs stand in the kernel. */
  adopt(address: IpAddress, seal: Seal, name: string | undefined, group: PolicyGroup): ProvenPeer {
    const peer = this.#record(address, seal, false);
    if (name !== undefined) this.answered(peer, name, group);
    return peer;
  }

  /** Remembers that a name was answered because of this peer. */
  answered(peer: ProvenPeer, name: string, group: PolicyGroup): void {
    peer.names.delete(name);
    peer.names.set(name, group);
    if (peer.names.size > MAX_NAMES_PER_PEER) peer.names.delete(peer.names.keys().next().value!);
  }

  /** The SAs are gone: the pair proves nothing any more. */
  closed(childId: number): void {
    const peer = this.#byChild.get(childId);
    if (!peer) return;
    this.#byChild.delete(childId);
    const pair = pairOf(peer.address, peer.fingerprint);
    if (this.#proven.get(pair) !== peer) return;
    this.#proven.delete(pair);
    this.#count(peer.address, -1);
  }

  /** The SAs of a peer were replaced by others with the same key (RFC 7296 §2.8). */
  replaced(oldChildId: number, newChildId: number): void {
    const peer = this.#byChild.get(oldChildId);
    if (!peer) return;
    this.#byChild.delete(oldChildId);
    peer.seal = { ...peer.seal, childId: newChildId };
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
      this.closed(peer.seal.childId);
      this.#negotiator.close(peer.seal.childId, 'forgotten on request');
      peers++;
    }
    let failures = 0;
    for (const [pair, failure] of [...this.#failures]) {
      if (wanted && !wanted.has(formatIpAddress(failure.address))) continue;
      this.#dropFailure(pair, failure);
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

  #conclude(id: string, address: IpAddress, keys: PublicKey[], outcome: NegotiationOutcome): Sealing {
    this.#running.delete(id);
    this.#count(address, -1);
    if (outcome.ok) {
      const peer = this.#record(address, outcome.seal, true);
      return { state: 'sealed', peer };
    }
    for (const key of keys) this.#remember(address, fingerprintOf(key), outcome.failure);
    return { state: 'failed', failure: outcome.failure };
  }

  #record(address: IpAddress, seal: Seal, initiator: boolean): ProvenPeer {
    const fingerprint = fingerprintOf(seal.key);
    const pair = pairOf(address, fingerprint);
    const before = this.#proven.get(pair);
    const peer: ProvenPeer = {
      address,
      fingerprint,
      seal,
      since: this.#unixNow(),
      names: before?.names ?? new Map(),
      initiator,
    };
    this.#proven.set(pair, peer);
    if (!before) this.#count(address, 1);
    this.#byChild.set(seal.childId, peer);
    const failure = this.#failures.get(pair);
    if (failure) this.#dropFailure(pair, failure);
    return peer;
  }

  #remember(address: IpAddress, fingerprint: string, failure: NegotiationFailure): void {
    const term = FAILURE_TERM[failure.code];
    if (term === 0) return;
    const pair = pairOf(address, fingerprint);
    const before = this.#failures.get(pair);
    if (before) this.#dropFailure(pair, before);
    this.#failures.set(pair, { address, fingerprint, failure, until: this.#now() + term });
    this.#count(address, 1);
    if (this.#failures.size > MAX_FAILURES) this.#dropFailure(...this.#failures.entries().next().value!);
  }

  #failure(address: IpAddress, fingerprint: string): RememberedFailure | undefined {
    const pair = pairOf(address, fingerprint);
    const failure = this.#failures.get(pair);
    if (failure && failure.until <= this.#now()) {
      this.#dropFailure(pair, failure);
      return undefined;
    }
    return failure;
  }

  #dropFailure(pair: string, failure: RememberedFailure): void {
    this.#failures.delete(pair);
    this.#count(failure.address, -1);
  }

  #count(address: IpAddress, change: 1 | -1): void {
    const text = formatIpAddress(address);
    const count = (this.#addresses.get(text) ?? 0) + change;
    if (count === 0) this.#addresses.delete(text);
    else this.#addresses.set(text, count);
  }
}

function pairOf(address: IpAddress, fingerprint: string): string {
  return `${formatIpAddress(address)} ${fingerprint}`;
}
