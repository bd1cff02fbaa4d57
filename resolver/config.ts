/**
 * The configuration: one YAML file, every key also a flag and an environment variable.
 *
 * Precedence: flag, then environment, then file, then default. What `loadConfiguration` returns is complete: every
 * default is filled in, files it names (policy directory, trust anchors) are read, nothing else on the machine is
 * touched. Whatever does not fit is a ConfigurationError that names the place, the key, what was expected and found.
 */
import type { Cidr, SocketAddress } from './address.ts';
import type { GroupEntries, PolicyGroup } from './capture/groups.ts';

/** Everything the daemon needs to know, parsed and with every default filled in. */
export type Configuration = {
  /** Where the stub listens, UDP and TCP. */
  listen: SocketAddress[];
  /** Who may ask. */
  access: Cidr[];
  /** The resolvers asked; empty when none is configured and resolv.conf names none but us. */
  upstream: SocketAddress[];
  trustAnchors: TrustAnchor[];
  /** Names (lower case, no final dot, `''` is the root) below which nothing is validated (RFC 7646). */
  negativeTrustAnchors: string[];
  identity: {
    /** FQDN sent as our IKE identity; undefined: our address is our identity. */
    name: string | undefined;
    keys: KeySource;
  };
  policy: { default: PolicyGroup; groups: Record<PolicyGroup, GroupEntries> };
  /** How long an answer is held for a negotiation before the group decides, milliseconds. */
  patienceMillis: number;
  /** Path of the control socket. */
  control: string;
  /** Directory of what outlives a restart: keys, pins, peers. */
  state: string;
  ike: { ports: { ike: number; nat: number } };
  dataplane: 'auto' | 'xfrm' | 'none';
  log: { level: LogLevel; format: 'auto' | 'json' | 'text' };
  /** Unix seconds at which signatures are judged instead of the clock; for tests. */
  validationTime: number | undefined;
  /** The file read, if one was. */
  file: string | undefined;
};

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Where the private keys lie: a directory (`generate`: filled at first start when empty) or the files themselves. */
export type KeySource = { directory: string; generate: boolean } | { files: string[] };

/** A DS or DNSKEY from which chains of trust start (RFC 4033 §2). Owner: lower case, no final dot, `''` is the root. */
export type TrustAnchor =
  | { owner: string; type: 'DS'; keyTag: number; algorithm: number; digestType: number; digest: Uint8Array }
  | {
      owner: string;
      type: 'DNSKEY';
      flags: number;
      protocol: number;
      algorithm: number;
      publicKey: Uint8Array;
    };
