import { ourHashAlgorithms } from '../crypto/auth.ts';
import type { Endpoint } from '../types.ts';
import { equalBytes } from '../wire/bytes.ts';
import { NotifyType } from '../wire/numbers.ts';
import { type NotifyPayload, natDetectionHash, notify, signatureHashAlgorithms } from '../wire/notify.ts';
import { findNotify, hashAlgorithms, notifies, type Payload } from '../wire/payloads.ts';

/** What both sides tell about themselves in IKE_SA_INIT, besides the key exchange. */

type Spis = { spiInitiator: bigint; spiResponder: bigint };

export function initNotifies(spis: Spis, local: Endpoint, remote: Endpoint): NotifyPayload[] {
  const { spiInitiator: i, spiResponder: r } = spis;
  return [
    notify(NotifyType.NAT_DETECTION_SOURCE_IP, natDetectionHash(i, r, local.address.bytes, local.port)),
    notify(
      NotifyType.NAT_DETECTION_DESTINATION_IP,
      natDetectionHash(i, r, remote.address.bytes, remote.port),
    ),
    notify(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED),
    signatureHashAlgorithms(ourHashAlgorithms),
  ];
}

export type PeerInit = {
  nat: { us: boolean; peer: boolean };
  peerTakesFragments: boolean;
  peerHashes: number[] | undefined;
};

/** @param spis as they stand in the message's header: in a request the responder's SPI is still 0. */
export function readInitNotifies(
  payloads: Payload[],
  spis: Spis,
  local: Endpoint,
  remote: Endpoint,
): PeerInit {
  return {
    nat: {
      us: isTranslated(payloads, NotifyType.NAT_DETECTION_DESTINATION_IP, spis, local),
      peer: isTranslated(payloads, NotifyType.NAT_DETECTION_SOURCE_IP, spis, remote),
    },
    peerTakesFragments: findNotify(payloads, NotifyType.IKEV2_FRAGMENTATION_SUPPORTED) !== undefined,
    peerHashes: hashAlgorithms(payloads),
  };
}

/** A peer with several addresses sends several hashes; without any it cannot do NAT traversal (RFC 7296 §2.23). */
function isTranslated(payloads: Payload[], type: number, spis: Spis, seen: Endpoint): boolean {
  const told = notifies(payloads).filter(payload => payload.type === type);
  const { spiInitiator, spiResponder } = spis;
  const expected = natDetectionHash(spiInitiator, spiResponder, seen.address.bytes, seen.port);
  return told.length > 0 && !told.some(payload => equalBytes(payload.data, expected));
}
