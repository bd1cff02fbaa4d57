// Counts IKE exchanges in a capture (pcap of Ethernet frames, as tcpdump writes it).

/** roundTrips: requests that differ, by exchange (RFC 7296 §3.1); retransmitted: requests seen again, byte for byte. */
export type ExchangeCount = { roundTrips: Record<string, number>; retransmitted: number };

const exchangeNames: Record<number, string> = {
  34: 'IKE_SA_INIT',
  35: 'IKE_AUTH',
  36: 'CREATE_CHILD_SA',
  37: 'INFORMATIONAL',
};

const SKF = 53; // RFC 7383: the fragments of one message share its message ID

/**
 * Counts the requests that an IPv4 host sent. A repeated IKE_SA_INIT (COOKIE, INVALID_KE_PAYLOAD) is a round trip of its
 * own; fragments of one message are one. Throws when the bytes are not a pcap file.
 */
export function countExchanges(pcap: Uint8Array, host: string): ExchangeCount {
  const count: ExchangeCount = { roundTrips: {}, retransmitted: 0 };
  const messages = new Set<string>();
  const requests = new Set<string>();
  for (const message of ikeMessages(pcap, host)) {
    const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
    const isResponse = (message[19]! & 0x20) !== 0;
    if (isResponse) continue;
    const bytes = Buffer.from(message).toString('hex');
    if (messages.has(bytes)) {
      count.retransmitted++;
      continue;
    }
    messages.add(bytes);
    const [exchange, messageId] = [message[18]!, view.getUint32(20)];
    const request = message[16] === SKF ? `${bytes.slice(0, 32)} ${exchange} ${messageId}` : bytes;
    if (requests.has(request)) continue;
    requests.add(request);
    const name = exchangeNames[exchange] ?? `exchange ${exchange}`;
    count.roundTrips[name] = (count.roundTrips[name] ?? 0) + 1;
  }
  return count;
}

/** The IKE messages that came from the host by UDP 500 or, behind the non-ESP marker, 4500 (RFC 3948 §2.2). */
function* ikeMessages(pcap: Uint8Array, host: string): Generator<Uint8Array> {
  for (const frame of frames(pcap)) {
    const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
    if (frame.length < 42 || view.getUint16(12) !== 0x0800 || frame[23] !== 17) continue;
    if (frame.subarray(26, 30).join('.') !== host) continue;
    const udp = 14 + (frame[14]! & 15) * 4;
    if (frame.length < udp + 8) continue;
    const ports = [view.getUint16(udp), view.getUint16(udp + 2)];
    const floated = ports.includes(4500);
    if (!floated && !ports.includes(500)) continue;
    const at = udp + (floated ? 12 : 8);
    if (frame.length < at + 28 || (floated && view.getUint32(udp + 8) !== 0)) continue;
    yield frame.subarray(at);
  }
}

function* frames(pcap: Uint8Array): Generator<Uint8Array> {
  const file = new DataView(pcap.buffer, pcap.byteOffset, pcap.byteLength);
  if (pcap.length < 24) throw new Error('not a pcap file: shorter than its header');
  const little = file.getUint32(0, true) === 0xa1b2c3d4;
  if (!little && file.getUint32(0) !== 0xa1b2c3d4) throw new Error('not a pcap file');
  for (let at = 24; at + 16 <= pcap.length; ) {
    const size = file.getUint32(at + 8, little);
    if (at + 16 + size > pcap.length) return;
    yield pcap.subarray(at + 16, at + 16 + size);
    at += 16 + size;
  }
}
