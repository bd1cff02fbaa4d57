import { Encr, Esn, Group, Integ, Prf } from '../crypto/algorithms.ts';
import type { Identity, LocalKey } from '../types.ts';

/** What a caller may say; everything but the identity, the keys and the randomness has a default. */
export type EngineConfig = {
  /** Who we are when the peer does not ask for somebody else of ours. Absent: the address that we speak from. */
  identity?: Identity | undefined;
  /** Further identities that we answer to as IDr; our own address is always one. */
  identities?: Identity[];
  /** In the order in which we like to sign; no two of the same algorithm are needed. */
  keys: LocalKey[];
  /** Cryptographic randomness; the only source of it, so that a handshake replays exactly. */
  random: (bytes: number) => Uint8Array;
  /** Ask for transport mode, and grant it when asked (RFC 7296 §1.3.1). Default true; tunnel is always accepted. */
  transportMode?: boolean;
  /** Transport mode also through a NAT, with the address substitution of RFC 7296 §2.23.1. Default true. */
  transportThroughNat?: boolean;
  /** Answer IKE_SA_INIT requests at all. Default true. */
  acceptStrangers?: boolean;
  /** After every key was refused: once more with our address as IDi. Default true. */
  addressIdentityRetry?: boolean;
  ports?: { ike: number; natt: number };
  retransmit?: Partial<Retransmit>;
  limits?: Partial<Limits>;
  /** RSA signatures: 'pss' (what libreswan wants) or 'pkcs1'. Both are accepted. Default 'pss'. */
  rsa?: 'pss' | 'pkcs1';
  ikeProposals?: IkeProposal[];
  childProposals?: ChildProposal[];
};

/** The first copy goes at 0, the next after firstMillis, each wait `factor` longer; `tries` copies in all. */
export type Retransmit = { firstMillis: number; factor: number; tries: number };

export type Limits = {
  /** IKE SAs of every kind and state. */
  ikeSas: number;
  /** Of these, with one address: above it nothing new is taken from there. */
  ikeSasPerAddress: number;
  /** Requests of our own that are not established yet. */
  requests: number;
  /** Responder's SAs that are not authenticated yet, in all and per address. */
  halfOpen: number;
  halfOpenPerAddress: number;
  /** From this many half-open SAs on (in all, per address) a COOKIE is demanded (RFC 7296 §2.6). */
  cookieFrom: number;
  cookieFromPerAddress: number;
  halfOpenMillis: number;
  /** How long an answered IKE_SA_INIT waits for authenticate(). */
  speculationMillis: number;
  /** Key lookups that the caller has not answered yet. */
  pendingLookups: number;
  /** A finished SA stays this long to repeat its last answer. */
  lingerMillis: number;
  /** An IKE SA without a Child SA is closed after this time. */
  childlessMillis: number;
  keepaliveMillis: number;
  /** Answers to COOKIE and to INVALID_KE_PAYLOAD, per request. */
  cookieAnswers: number;
  keyExchangeRetries: number;
  /** Unprotected error notifies per second. */
  errorRepliesPerSecond: number;
  /** IKE messages above this many bytes are sent in fragments (RFC 7383). */
  fragmentBytes: number;
  /** Requests of ours waiting for the window, per IKE SA. */
  queuedRequests: number;
};

/** Every combination of one from each list; AEAD and CBC never share a proposal. */
export type IkeProposal = {
  encr: [id: number, keyBits: number][];
  integ: number[];
  prf: number[];
  groups: number[];
};
export type ChildProposal = { encr: [id: number, keyBits: number][]; integ: number[]; esn: number[] };

export type Config = Required<Omit<EngineConfig, 'retransmit' | 'limits' | 'identity'>> & {
  identity?: Identity | undefined;
  retransmit: Retransmit;
  limits: Limits;
};

export function completeConfig(given: EngineConfig): Config {
  if (given.keys.length === 0) throw new RangeError('an engine needs at least one key of its own');
  return {
    identities: [],
    transportMode: true,
    transportThroughNat: true,
    acceptStrangers: true,
    addressIdentityRetry: true,
    ports: { ike: 500, natt: 4500 },
    rsa: 'pss',
    ikeProposals: defaultIkeProposals,
    childProposals: defaultChildProposals,
    ...given,
    retransmit: { firstMillis: 500, factor: 2, tries: 5, ...given.retransmit },
    limits: { ...defaultLimits, ...given.limits },
  };
}

const defaultLimits: Limits = {
  ikeSas: 20_000,
  ikeSasPerAddress: 512,
  requests: 4_096,
  halfOpen: 2_000,
  halfOpenPerAddress: 16,
  cookieFrom: 64,
  cookieFromPerAddress: 4,
  halfOpenMillis: 30_000,
  speculationMillis: 25_000,
  pendingLookups: 256,
  lingerMillis: 10_000,
  childlessMillis: 30_000,
  keepaliveMillis: 20_000,
  cookieAnswers: 3,
  keyExchangeRetries: 2,
  errorRepliesPerSecond: 10,
  fragmentBytes: 1_200,
  queuedRequests: 8,
};

const prfs = [Prf.HMAC_SHA2_256, Prf.HMAC_SHA2_384, Prf.HMAC_SHA2_512];
// One group set for every proposal: an initiator sends one KE payload and cannot know which proposal is taken.
const groups = [Group.CURVE25519, Group.ECP_256, Group.ECP_384, Group.MODP_2048];
const integs = [Integ.HMAC_SHA2_256_128, Integ.HMAC_SHA2_384_192, Integ.HMAC_SHA2_512_256];
const aeads: [number, number][] = [
  [Encr.AES_GCM_16, 256],
  [Encr.AES_GCM_16, 128],
  [Encr.CHACHA20_POLY1305, 256],
];
const blocks: [number, number][] = [
  [Encr.AES_CBC, 256],
  [Encr.AES_CBC, 128],
];

const defaultIkeProposals: IkeProposal[] = [
  { encr: aeads, integ: [], prf: prfs, groups },
  { encr: blocks, integ: integs, prf: prfs, groups },
];

const defaultChildProposals: ChildProposal[] = [
  { encr: aeads, integ: [], esn: [Esn.ON, Esn.OFF] },
  { encr: blocks, integ: integs, esn: [Esn.ON, Esn.OFF] },
];
