import type { KeyObject } from 'node:crypto';

/**
 * Plain data that crosses the border of the IKE room.
 *
 * Everything here is a value: no methods, no live state. `now` is monotonic milliseconds everywhere in this room.
 */

/** An address in network order: 4 or 16 bytes. */
export type IpAddress = { family: 4 | 6; bytes: Uint8Array };
export type Endpoint = { address: IpAddress; port: number };
/** Two hosts of one family, as this side sees them. */
export type Hosts = { local: IpAddress; remote: IpAddress };

/** The body of an ID payload (RFC 7296 §3.5): its type by name, its data as it is on the wire. */
export type Identity = {
  type: 'fqdn' | 'ipv4' | 'ipv6' | 'keyid' | 'rfc822' | 'dn' | 'null';
  data: Uint8Array;
};

/**
 * A public key as DNS carries it: IPSECKEY algorithm number and key field (RFC 4025 §2.4, §2.6).
 * 2 RSA (RFC 3110 §2), 3 ECDSA (RFC 6605 §4: x ‖ y, 64 or 96 bytes), 4 EdDSA (RFC 8080 §3: 32 or 57 bytes).
 */
export type PublicKey = { algorithm: 2 | 3 | 4; data: Uint8Array };
export type LocalKey = { publicKey: PublicKey; privateKey: KeyObject };

export type Effect =
  /** A complete UDP payload; the non-ESP marker is already there on port 4500 (RFC 3948 §2.2). */
  | { kind: 'send'; data: Uint8Array; local: Endpoint; remote: Endpoint }
  /**
   * Whose keys are these? Answered by `engine.keysFound(lookup, …)`. Responder: the initiator's; initiator: those of
   * another FQDN than the asked name, by which the responder goes.
   */
  | { kind: 'lookupKeys'; lookup: number; identity: Identity; remote: IpAddress }
  /**
   * Put this pair of SAs in the kernel. Answered by `engine.childInstalled(child.id, …)`. `remoteKey`: what the peer has
   * proved; `requestId`: whose first Child SA it is, if we initiated; `remoteIdentity`: who it said it is.
   */
  | {
      kind: 'installChildSa';
      child: ChildSa;
      remoteKey: PublicKey;
      remoteIdentity: Identity;
      requestId?: number;
    }
  | { kind: 'removeChildSa'; child: ChildSa; why: string }
  /** Initiator: after childInstalled went well. Responder: together with its IKE_AUTH response. */
  | { kind: 'established'; ikeSa: IkeSaInfo; child?: ChildSa; requestId?: number }
  /** Initiator only; exactly once per request that does not end in `established`. */
  | { kind: 'failed'; requestId: number; reason: FailureReason }
  | { kind: 'closed'; ikeSa: IkeSaInfo; why: string }
  | { kind: 'log'; level: 'debug' | 'info' | 'warn'; event: string; detail: Record<string, unknown> };

export type FailureReason = {
  code:
    | 'no-answer'
    | 'refused'
    | 'busy'
    | 'auth-failed'
    | 'peer-key-mismatch'
    | 'kernel'
    | 'protocol'
    | 'cancelled';
  /** The RFC 7296 §3.10.1 notify message type that the peer gave as its reason. */
  notify?: number;
  text: string;
};

/** A pair of ESP SAs between two hosts, any protocol and port. */
export type ChildSa = {
  id: number;
  ikeSaId: number;
  mode: 'transport' | 'tunnel';
  /** Outer addresses, as this host sees them. */
  local: IpAddress;
  remote: IpAddress;
  /**
   * Whose traffic it carries, exactly: local/32 ↔ remote/32 (or /128). The outer addresses, unless the peer is a gateway;
   * then the mode is tunnel, and these may be of another family than the outer ones.
   */
  selectors: Hosts;
  inbound: SaKeys;
  outbound: SaKeys;
  esn: boolean;
  /** UDP encapsulation, present when a NAT stands between the peers (RFC 3948). */
  encapsulation?: { localPort: number; remotePort: number };
  initiator: boolean;
};

export type SaKeys = {
  spi: number;
  cipher:
    | {
        kind: 'aead';
        name: 'aes-gcm-16' | 'chacha20-poly1305';
        /** Key with its 4-byte salt behind it, as XFRM wants it. */
        key: Uint8Array;
        icvBits: 128;
      }
    | {
        kind: 'cbc-hmac';
        cipher: 'aes-cbc';
        cipherKey: Uint8Array;
        integrity: 'hmac-sha2-256' | 'hmac-sha2-384' | 'hmac-sha2-512';
        integrityKey: Uint8Array;
        icvBits: 128 | 192 | 256;
      };
};

export type IkeSaInfo = {
  id: number;
  spiInitiator: bigint;
  spiResponder: bigint;
  local: Endpoint;
  remote: Endpoint;
  initiator: boolean;
  localIdentity: Identity;
  remoteIdentity: Identity;
  /** The key whose holder proved itself; absent only before the peer is authenticated. */
  remoteKey?: PublicKey;
  suite: string;
  natDetected: boolean;
  establishedAtMillis: number;
  requestId?: number;
  timings: { initSentAt: number; initAnsweredAt?: number; authSentAt?: number; authAnsweredAt?: number };
};
