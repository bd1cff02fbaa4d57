/** What the XFRM verbs take and give: security associations and policies as plain values. */

export type Mode = 'transport' | 'tunnel';
export type Direction = 'in' | 'out' | 'fwd';

/** Keys as RFC 7296 §2.17 derives them; an AEAD key includes its salt (4 octets) at the end. */
export type SaCipher =
  | { kind: 'aead'; name: 'aes-gcm-16' | 'chacha20-poly1305'; key: Uint8Array; icvBits: 128 }
  | {
      kind: 'cbc-hmac';
      cipher: 'aes-cbc';
      cipherKey: Uint8Array;
      integrity: 'hmac-sha2-256' | 'hmac-sha2-384' | 'hmac-sha2-512';
      integrityKey: Uint8Array;
      icvBits: 128 | 192 | 256;
    };

/** Which packets. Port 0 is any; for ICMP the type rides in `sourcePort` and the code in `destinationPort`. */
export type Selector = {
  family: 4 | 6;
  source: Uint8Array;
  sourcePrefix: number;
  destination: Uint8Array;
  destinationPrefix: number;
  protocol?: number;
  sourcePort?: number;
  destinationPort?: number;
};

/** Limits of an SA; the kernel sends EXPIRE at each, and removes the SA at a hard one. Absent: none. */
export type Lifetime = {
  softSeconds?: number;
  hardSeconds?: number;
  softPackets?: number;
  hardPackets?: number;
  softBytes?: number;
  hardBytes?: number;
};

export type Sa = {
  spi: number;
  /** Outer addresses, 4 or 16 octets. */
  source: Uint8Array;
  destination: Uint8Array;
  reqid: number;
  mode: Mode;
  cipher: SaCipher;
  esn: boolean;
  /** In packets, 0 to 4096. */
  replayWindow: number;
  /** ESP in UDP (RFC 3948). */
  encapsulation?: { sourcePort: number; destinationPort: number };
  selector?: Selector;
  lifetime?: Lifetime;
};

export type SaId = { spi: number; destination: Uint8Array };

/** An SA as the kernel reports it; the keys stay there. */
export type SaStatus = {
  spi: number;
  source: Uint8Array;
  destination: Uint8Array;
  /** 50 is ESP. */
  protocol: number;
  reqid: number;
  mode: Mode | 'other';
  /** The kernel's name, such as `rfc4106(gcm(aes))`. */
  algorithm?: string;
  esn: boolean;
  replayWindow: number;
  encapsulation?: { sourcePort: number; destinationPort: number };
  selector?: Selector;
  bytes: number;
  packets: number;
  /** Unix time; 0: never. */
  addedSeconds: number;
  usedSeconds: number;
  /** Unix time of the last packet; absent when there was none. */
  lastUsedSeconds?: number;
  replayDrops: number;
  integrityFailures: number;
  /** A place holder of the kernel while an ACQUIRE is unanswered. */
  larval: boolean;
};

export type Template = {
  source: Uint8Array;
  destination: Uint8Array;
  reqid: number;
  mode: Mode;
  spi?: number;
  optional?: boolean;
};

export type Policy = {
  selector: Selector;
  direction: Direction;
  action: 'allow' | 'block';
  /** The smaller number is the stronger one. */
  priority: number;
  /** 8n + (in 0, out 1, fwd 2); the kernel chooses when absent. */
  index?: number;
  template?: Template;
  /** Removed by the kernel after so long, with a POLEXPIRE. */
  hardSeconds?: number;
};

export type PolicyStatus = {
  selector: Selector;
  direction: Direction;
  action: 'allow' | 'block';
  priority: number;
  index: number;
  templates: (Omit<Template, 'mode'> & { mode: Mode | 'other' })[];
  addedSeconds: number;
  usedSeconds: number;
};

/** A policy is named by its index (fast, exact) or by its selector. */
export type PolicyId = { direction: Direction } & ({ index: number } | { selector: Selector });
