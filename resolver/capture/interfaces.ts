/**
 * What the capture needs from the rest of the house: looking up, negotiating, and knowing our own addresses.
 *
 * The daemon supplies real ones; tests supply paired or misbehaving ones. All times are monotonic milliseconds.
 */
import type { IpAddress } from '../address.ts';
import type { Name } from '../dns/name.ts';
import type { Resolution } from '../dnssec/types.ts';

/** Validated, cached, coalesced look-ups. Never rejects: a failure is a Resolution too. */
export interface Lookup {
  /** When `signal` fires the answer is no longer of interest, and may be a failure. */
  lookup(name: Name, type: number, signal?: AbortSignal): Promise<Resolution>;
}

export interface RememberingLookup extends Lookup {
  /** What is known without asking anybody: still good, or proven once and marked as `stale`. Failures are not. */
  remembered(name: Name, type: number): Resolution | undefined;

  /** As `lookup`, but asked anew unless it was a moment ago: for whoever knows something that contradicts it. */
  reconsidered(name: Name, type: number, signal?: AbortSignal): Promise<Resolution>;
}

/** A public key as an IPSECKEY record carries it: algorithm number and key field (RFC 4025 §2.4, §2.6). */
export type PublicKey = { algorithm: 2 | 3 | 4; data: Uint8Array };

/** Whom a negotiation is with and what proves it. */
export type NegotiationPeer = {
  /** Any of these keys proves the peer. At least one. */
  keys: PublicKey[];
  /** The name that was asked: sent as IDr. */
  asked: Name;
  /** The name at the end of the CNAME chain: accepted as IDr too. */
  canonical: Name;
  /** Fingerprints of the keys that the reverse zone of the address has, looked up where another key stands there. */
  owners: string[];
};

/** Times of one negotiation; each undefined until it happened. */
export type NegotiationTimes = {
  initSentAt?: number;
  initAnsweredAt?: number;
  authSentAt?: number;
  authAnsweredAt?: number;
  installedAt?: number;
  /** Time spent in the kernel's verbs. */
  kernelMillis?: number;
};

/** SAs and policies stand in the kernel, they carry what goes out, and the peer has proved `key`. */
export type Seal = {
  /** Names the pair of SAs for `Negotiator.close` and for `Peers.closed`. */
  childId: number;
  /** The one address of ours whose traffic is sealed. */
  local: IpAddress;
  /** The gateway at which the SAs end, where that is not the address itself. */
  via?: IpAddress;
  key: PublicKey;
  mode: 'transport' | 'tunnel';
  suite: string;
  times: NegotiationTimes;
};

export type NegotiationFailure = {
  /**
   * What the failure memory and the reader go by. `conflict`: another key is proven at the address already; `unable`:
   * this machine cannot seal at all; `busy`: nobody tried, so a good key may stand behind it.
   */
  code: 'no-answer' | 'refused' | 'not-proven' | 'conflict' | 'kernel' | 'cancelled' | 'unable' | 'busy';
  text: string;
};

export type NegotiationOutcome = { ok: true; seal: Seal } | { ok: false; failure: NegotiationFailure };

/** One negotiation about one address: IKE_SA_INIT is on its way, IKE_AUTH waits for `prove`. */
export interface Negotiation {
  /** Resolves when SAs and policies stand in the kernel, or when it is certain that they will not. Never rejects. */
  prove(peer: NegotiationPeer): Promise<NegotiationOutcome>;
  cancel(): void;
}

export interface Negotiator {
  /**
   * Sends IKE_SA_INIT; nothing about the asked name is revealed before `prove`.
   *
   * It goes to `via` where that is a gateway that may speak for `remote`, and what is sealed is the traffic to `remote`.
   */
  begin(remote: IpAddress, via?: IpAddress): Negotiation;
  /** Sends the Delete and removes what stands in the kernel for this pair of SAs. */
  close(childId: number, why: string): void;
  /** Whether the kernel still holds its SAs and policies: somebody else may have flushed them. */
  stands(childId: number): boolean;
}

/** What routing says about addresses. */
export interface LocalAddresses {
  /** One of our own: it never has a peer at its other end. */
  isOurs(address: IpAddress): boolean;
  /** The address that packets to it leave from; undefined without a route. */
  sourceFor(address: IpAddress): IpAddress | undefined;
}

/** Standing refusals below the seals: what is not sealed to this address, from whatever source, does not leave. */
export interface Blocks {
  /** Throws when the kernel refuses. */
  block(remote: IpAddress): void;
  unblock(remote: IpAddress): void;
}
