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
  lookup(name: Name, type: number): Promise<Resolution>;
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

/** SAs and policies stand in the kernel and the peer has proved `key`. */
export type Seal = {
  /** Names the pair of SAs for `Negotiator.close` and for `Peers.closed`. */
  childId: number;
  key: PublicKey;
  mode: 'transport' | 'tunnel';
  suite: string;
  times: NegotiationTimes;
};

export type NegotiationFailure = {
  /** What the failure memory and the reader go by; `unable`: this machine cannot seal at all. */
  code: 'no-answer' | 'refused' | 'not-proven' | 'kernel' | 'cancelled' | 'unable';
  text: string;
};

export type NegotiationOutcome = { ok: true; seal: Seal } | { ok: false; failure: NegotiationFailure };

/** One negotiation with one address: IKE_SA_INIT is on its way, IKE_AUTH waits for `prove`. */
export interface Negotiation {
  /** Resolves when SAs and policies stand in the kernel, or when it is certain that they will not. Never rejects. */
  prove(peer: NegotiationPeer): Promise<NegotiationOutcome>;
  cancel(): void;
}

export interface Negotiator {
  /** Sends IKE_SA_INIT; nothing about the asked name is revealed before `prove`. */
  begin(remote: IpAddress): Negotiation;
  /** Sends the Delete and removes what stands in the kernel for this pair of SAs. */
  close(childId: number, why: string): void;
}

/** Addresses that can never have a peer of ours at their other end. */
export interface LocalAddresses {
  isOurs(address: IpAddress): boolean;
}
