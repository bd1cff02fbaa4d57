/** The IPSECKEY records that publish our keys, at our name and at the reverse names of our addresses (RFC 4025). */
import type { LocalKey } from '../../ike/types.ts';
import type { IpAddress } from '../address.ts';
import { composeIpseckey, type Ipseckey } from '../dns/ipseckey.ts';
import { ipseckeyToText } from '../dns/rdata-text.ts';

/** A record to publish: owner without the final dot, RDATA as text and as bytes. */
export type PublishedRecord = { owner: string; text: string; rdata: Uint8Array };

/** Lower is preferred; libreswan and strongSwan do not look at it. */
const PRECEDENCE: Record<string, number> = { Ed25519: 10, 'P-256': 20 };
const PRECEDENCE_OF_OTHERS = 30;

/**
 * The records for every owner and key. The gateway is always "none" (type 0, `.`): libreswan ignores any other.
 *
 * P-384 keys are left out: libreswan before 5.0 crashes on one.
 */
export function recordsFor(keys: (LocalKey & { kind: string })[], owners: string[]): PublishedRecord[] {
  const records = keys
    .filter(isPublishable)
    .map(({ kind, publicKey }): Ipseckey => {
      const precedence = PRECEDENCE[kind] ?? PRECEDENCE_OF_OTHERS;
      return {
        precedence,
        algorithm: publicKey.algorithm,
        gateway: { kind: 'none' },
        publicKey: publicKey.data,
      };
    })
    .sort((a, b) => a.precedence - b.precedence);
  return owners.flatMap(owner =>
    records.map(record => ({ owner, text: ipseckeyToText(record), rdata: composeIpseckey(record) })),
  );
}

/** Whether peers in the field can stand this key in DNS. */
export function isPublishable({ kind }: { kind: string }): boolean {
  return kind !== 'P-384';
}

/** One line of a zone file. */
export function recordLine({ owner, text }: PublishedRecord): string {
  return `${owner}. IN IPSECKEY ${text}`;
}

/** `1.2.0.192.in-addr.arpa` (RFC 1035 §3.5) or the nibbles under `ip6.arpa` (RFC 3596 §2.5), without the final dot. */
export function reverseName({ family, bytes }: IpAddress): string {
  if (family === 4) return `${[...bytes].reverse().join('.')}.in-addr.arpa`;
  const nibbles = [...bytes].flatMap(byte => [byte >> 4, byte & 15]).map(nibble => nibble.toString(16));
  return `${nibbles.reverse().join('.')}.ip6.arpa`;
}
