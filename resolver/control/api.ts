/**
 * What the control socket speaks: HTTP/1.1 with JSON bodies over a unix socket.
 *
 *   GET  /status                      -> StatusReport
 *   GET  /explain?name=NAME[&type=A]  -> Explanation   (of the last question; asks it now when there was none)
 *   POST /forget  ForgetTarget        -> ForgetResult
 *   POST /portal  PortalAllowance     -> NetworkStatus (lets a host be answered unprotected behind a captive portal)
 *
 * An error is {error: string} with 4xx (the request is at fault) or 5xx (the daemon is). Times of day are ISO 8601 in
 * UTC; durations are milliseconds. Addresses and names are text, names without the final dot.
 */
import type { Assurance, PolicyGroup } from '../capture/groups.ts';
import type { TrustAnchorStatus } from '../trust-anchors.ts';
import type { NetworkStatus } from '../network/status.ts';

/** The daemon as the control socket sees it. */
export interface ControlBackend {
  status(): StatusReport;
  /** How the name was answered last; asked now when nobody did yet. `type`: A or AAAA. Aborted with the client. */
  explain(name: string, type: string, signal: AbortSignal): Promise<Explanation>;
  forget(target: ForgetTarget): ForgetResult | Promise<ForgetResult>;
  allowPortal(allowance: PortalAllowance): NetworkStatus;
}

export type StatusReport = {
  version: string;
  pid: number;
  startedAt: string;
  listen: string[];
  upstreams: UpstreamStatus[];
  /** What the network lets through, and what we do about it. */
  network: NetworkStatus;
  dataplane: { kind: 'xfrm' | 'none'; kernel: string; why?: string };
  identity: { name?: string; keys: KeyStatus[] };
  trustAnchors: TrustAnchorStatus[];
  peers: PeerStatus[];
  failures: FailureStatus[];
  /** Monotonic counters by dotted name, such as `stub.questions` or `ike.dropped`. */
  counters: Record<string, number>;
};

/** One resolver we ask. `address`: as the configuration writes it, with scheme and name where it has them. */
export type UpstreamStatus = {
  address: string;
  transport: 'udp' | 'tcp' | 'tls' | 'https';
  /** The forward zone that it serves. */
  zone?: string;
  healthy: boolean;
  /** Why it is not. */
  why?: string;
  /** Smoothed, and what 95 of 100 answers came within. */
  rttMs?: number;
  slowMs?: number;
  /** What keeps forgers out, for UDP: cookies (RFC 7873) and the case of the question. */
  cookies?: 'used' | 'not offered';
  mixedCase?: 'used' | 'not kept';
  /** Open TCP or TLS connections. */
  connections?: number;
};

/** One of our public keys: algorithm as people call it, `SHA256:` fingerprint of the IPSECKEY key field. */
export type KeyStatus = { algorithm: string; fingerprint: string };

/** One (address, key) pair whose SAs live, or an address remembered as clear or blocked. */
export type PeerStatus = {
  address: string;
  /** The gateway that holds the key, where it is not the address itself. */
  via?: string;
  names: string[];
  group: PolicyGroup;
  assurance: Assurance;
  keyFingerprint?: string;
  since: string;
  mode?: 'transport' | 'tunnel';
  suite?: string;
  inBytes: number;
  outBytes: number;
  idleSeconds?: number;
  nextDeadline?: { at: string; why: string };
};

export type FailureStatus = {
  address?: string;
  via?: string;
  name?: string;
  keyFingerprint?: string;
  reason: string;
  until: string;
};

/** How one name was answered, step by step. */
export type Explanation = {
  name: string;
  type: string;
  /** When the question came of which this tells. */
  askedAt: string;
  canonicalName?: string;
  group: PolicyGroup;
  assurance: Assurance;
  rcode: string;
  ede: { code: number; text: string }[];
  addresses: ExplainedAddress[];
  /** From the question to the answer; the parts overlap, so they do not add up to it. */
  answerMs: number;
  dnsMs?: number;
  ikeMs?: number;
  kernelMs?: number;
  steps: { at: number; what: string; detail?: string }[];
  /** What the reader can do about it, when there is something to do. */
  advice?: string;
};

export type ExplainedAddress = {
  address: string;
  /** False when it was left out of the answer. */
  answered: boolean;
  group: PolicyGroup;
  assurance: Assurance;
  keyFingerprint?: string;
  via?: string;
  why?: string;
};

/** Exactly one of the three. */
export type ForgetTarget = { name: string } | { address: string } | { all: true };

/** `name`: the host, without it the one that the portal leads to. */
export type PortalAllowance = { name?: string; millis: number };

/** How many peers were closed and how many failures and cached answers were forgotten. */
export type ForgetResult = { peers: number; failures: number; answers: number };
