/**
 * Liveness: a peer to which we send and from which nothing comes is asked whether it is still there (RFC 7296 §2.4).
 *
 * Only then: an idle peer costs nothing. A peer that has lost its SAs drops what we send without a word; without an
 * answer its SAs go, and the next question negotiates anew. A bounded number is looked at in each round.
 */
import type { ProvenPeer } from './peers.ts';

const PEERS_PER_ROUND = 200;

type Counted = { inPackets: number; outPackets: number };

export class Liveness {
  readonly #list: () => ProvenPeer[];
  readonly #usage: (childId: number) => Counted | undefined;
  readonly #probe: (childId: number) => void;
  readonly #before = new WeakMap<ProvenPeer, Counted & { childId: number }>();
  #next = 0;

  constructor(options: {
    list: () => ProvenPeer[];
    /** What the kernel has counted for a pair of SAs. */
    usage: (childId: number) => Counted | undefined;
    probe: (childId: number) => void;
  }) {
    this.#list = options.list;
    this.#usage = options.usage;
    this.#probe = options.probe;
  }

  /** One round; to be called every few seconds. */
  check(): void {
    const peers = this.#list();
    const count = Math.min(peers.length, PEERS_PER_ROUND);
    for (let i = 0; i < count; i++) this.#look(peers[(this.#next + i) % peers.length]!);
    this.#next = peers.length === 0 ? 0 : (this.#next + count) % peers.length;
  }

  #look(peer: ProvenPeer): void {
    const { childId } = peer.seal;
    const now = this.#usage(childId);
    if (!now) return;
    const before = this.#before.get(peer);
    this.#before.set(peer, { ...now, childId });
    if (before?.childId !== childId) return;
    if (now.outPackets > before.outPackets && now.inPackets === before.inPackets) this.#probe(childId);
  }
}
