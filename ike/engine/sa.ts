import type { IkeSuite } from '../crypto/algorithms.ts';
import type { KeyShare } from '../crypto/key-exchange.ts';
import type { IkeKeys } from '../crypto/prf.ts';
import type { Opener, Sealer } from '../crypto/seal.ts';
import type { Reassembly } from '../fragments.ts';
import type {
  ChildSa,
  Endpoint,
  Hosts,
  Identity,
  IkeSaInfo,
  IpAddress,
  LocalKey,
  PublicKey,
} from '../types.ts';
import type { Payload } from '../wire/payloads.ts';
import type { Role, State } from './states.ts';

/** The live state of an IKE SA. Only the handlers of `engine/` touch it, and only after verification. */
export type IkeSa = {
  id: number;
  readonly role: Role;
  state: State;
  readonly spiInitiator: bigint;
  /** 0 until the responder has chosen. */
  spiResponder: bigint;
  local: Endpoint;
  remote: Endpoint;
  /** The peer is a gateway: whose traffic its Child SAs carry. */
  readonly protects?: Hosts;
  /** Our SPI of the IKE SA that it came from by rekeying. */
  readonly replaces?: bigint;
  readonly createdAt: number;
  localIdentity: Identity;
  remoteIdentity?: Identity;
  remoteKey?: PublicKey;
  /** `peer`: the peer's address was rewritten on its way; `us`: ours was (RFC 7296 §2.23). */
  nat: { us: boolean; peer: boolean };
  peerTakesFragments: boolean;
  /** Everything that comes with IKE_SA_INIT's keys. */
  secure?: { suite: IkeSuite; keys: IkeKeys; sealer: Sealer; opener: Opener };
  /** What only the first two exchanges need; freed when the SA is established. */
  handshake?: InitiatorHandshake | ResponderHandshake;
  window: Window;
  children: ChildSa[];
  /** A Child SA on its way into the kernel, and the answer that waits for it. */
  pending?: PendingChild;
  /** Counts against the responder's half-open limits. */
  halfOpen: boolean;
  /** `established` was told and `closed` was not: the caller believes that this SA lives. */
  announced: boolean;
  establishedAt?: number;
  requestId?: number;
  timings: IkeSaInfo['timings'];
  readonly deadlines: Map<string, number>;
};

/** Message IDs and the two windows, each of size 1 (RFC 7296 §2.2, §2.3). */
export type Window = {
  nextOut: number;
  outstanding?: Outstanding;
  queue: Queued[];
  nextIn: number;
  /** The last request that we took and, once there is one, our answer to it. */
  answered?: { requestHash: Uint8Array; messages?: Uint8Array[]; local: Endpoint; remote: Endpoint };
  requestParts?: Reassembly;
  /** Of the request that is being put together: how a repetition of it will be known. */
  firstPartHash?: Uint8Array;
  responseParts?: Reassembly;
};

/** What an answer or its absence is about. */
export type Purpose = 'init' | 'auth' | 'delete' | 'probe';

export type Outstanding = {
  messageId: number;
  purpose: Purpose;
  /** Complete messages, without non-ESP marker: sent again byte by byte. */
  messages: Uint8Array[];
  tries: number;
  waitMillis: number;
};

export type Queued = { exchangeType: number; payloads: Payload[]; purpose: Purpose };

export type InitiatorHandshake = {
  role: 'initiator';
  attempt: Attempt;
  ni: Uint8Array;
  nr?: Uint8Array;
  group: number;
  /** One per group that we sent a KE payload of: the real answer may be to an earlier request than the last. */
  offers: Map<number, { share: KeyShare; message: Uint8Array }>;
  cookie?: Uint8Array;
  cookieAnswers: number;
  /** Unauthenticated error notify, believed only when nothing better comes. */
  refusal?: number;
  initRequest?: Uint8Array;
  initResponse?: Uint8Array;
  peerHashes?: number[];
  candidate?: Candidate;
  childSpi?: number;
  askedTransport: boolean;
  /** The peer proved a key of the asked name, but calls itself otherwise: is it published there too? */
  otherName?: { lookup: number; payloads: Payload[] };
};

export type ResponderHandshake = {
  role: 'responder';
  initKey: string;
  initHash: Uint8Array;
  ni: Uint8Array;
  nr: Uint8Array;
  share: KeyShare;
  peerKe: Uint8Array;
  suite: IkeSuite;
  initRequest: Uint8Array;
  initResponse: Uint8Array;
  peerHashes?: number[];
  /** IKE_AUTH as it came, while its keys are being looked up. */
  auth?: { lookup: number; messageId: number; payloads: Payload[] };
};

export type PendingChild = {
  child: ChildSa;
  messageId: number;
  exchangeType: number;
  /** Goes into the answer before the Child SA's payloads, whether or not the kernel takes it. */
  prefix: Payload[];
  /** Goes into the answer when the kernel took the Child SA. */
  payloads: Payload[];
};

/** One call of initiate(): it outlives an IKE SA when another of our keys is tried. */
export type Attempt = {
  readonly requestId: number;
  readonly local: IpAddress;
  readonly remote: IpAddress;
  readonly protects?: Hosts;
  readonly startedAt: number;
  sa: IkeSa;
  peer?: ExpectedPeer;
  /** What is still to be tried, best first; undefined before the first IKE_AUTH. */
  candidates?: Candidate[];
  /** Refused once after a COOKIE, and the same tried again. */
  triedAgain?: true;
};

export type ExpectedPeer = {
  /** AUTH must verify with one of these. */
  keys: PublicKey[];
  /** Sent as IDr. */
  idr: Identity;
  /** Identities that may come back; idr itself and the peer's own address always may. */
  acceptableIdr: Identity[];
  /** Algorithm (IPSECKEY number) of our own key to be tried first: what this peer is likely to know of us. */
  preferLocalKey?: PublicKey['algorithm'];
};

export type Candidate = { key: LocalKey; identity: Identity };

export function ownSpi(sa: IkeSa): bigint {
  return sa.role === 'initiator' ? sa.spiInitiator : sa.spiResponder;
}

export function newWindow(): Window {
  return { nextOut: 0, queue: [], nextIn: 0 };
}
