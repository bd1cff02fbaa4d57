// What the wire carried: counts the packets of a capture (pcap, as tcpdump writes it) between one host and its peers.

/** Packets by what an onlooker sees of them. */
export type WireCount = {
  esp: number; // protocol 50, or UDP 4500 without the non-ESP marker (RFC 3948)
  ike: number; // UDP 500, UDP 4500 with the marker or the one-byte keepalive
  neighbour: number; // ARP, IPv6 neighbour discovery, multicast membership
  dns: number; // port 53
  clear: number; // anything else: what an app sent without protection
  lostSyn: number; // of clear: a TCP SYN seen again
  clearPackets: string[]; // each of them, as `source.port > destination.port PROTOCOL`
};

/**
 * Counts packets of a pcap file that pass between `host` and any of `peers`.
 *
 * @param host,peers addresses in the text form of Node (`10.9.0.1`, `fd09::1`); left out: every packet counts
 * Throws when the bytes are not a pcap of Ethernet frames. A packet cut short in the middle of the file's end is ignored.
 */
export function countWire(pcap: Uint8Array, host?: string[], peers?: string[]): WireCount {
  const count: WireCount = { esp: 0, ike: 0, neighbour: 0, dns: 0, clear: 0, lostSyn: 0, clearPackets: [] };
  const syns = new Set<string>();
  const wanted = (a: string, b: string) => !host || !peers || (host.includes(a) && peers.includes(b));
  for (const frame of frames(pcap)) {
    const packet = readPacket(frame);
    if (packet === 'neighbour') count.neighbour++;
    if (typeof packet === 'string') continue;
    if (!wanted(packet.source, packet.destination) && !wanted(packet.destination, packet.source)) continue;
    count[packet.kind]++;
    if (packet.kind !== 'clear') continue;
    count.clearPackets.push(packet.text);
    if (packet.syn === undefined) continue;
    if (syns.has(packet.syn)) count.lostSyn++;
    syns.add(packet.syn);
  }
  return count;
}

type Packet =
  | 'neighbour'
  | 'other'
  | {
      kind: 'esp' | 'ike' | 'dns' | 'clear';
      source: string;
      destination: string;
      text: string;
      syn?: string;
    };

/** The frames of a capture file (libpcap's format of 1998, either byte order, micro- or nanoseconds). */
function* frames(pcap: Uint8Array): Generator<DataView> {
  const file = new DataView(pcap.buffer, pcap.byteOffset, pcap.byteLength);
  if (file.byteLength < 24) throw new Error('not a pcap file: shorter than its header');
  const magic = [0xa1b2c3d4, 0xa1b23c4d];
  const little = magic.includes(file.getUint32(0, true));
  if (!little && !magic.includes(file.getUint32(0, false))) throw new Error('not a pcap file');
  const link = file.getUint32(20, little) & 0xffff;
  if (link !== 1) throw new Error(`link type ${link}, not Ethernet`);
  for (let at = 24; at + 16 <= file.byteLength; ) {
    const size = file.getUint32(at + 8, little);
    if (at + 16 + size > file.byteLength) return;
    yield new DataView(pcap.buffer, pcap.byteOffset + at + 16, size);
    at += 16 + size;
  }
}

function readPacket(frame: DataView): Packet {
  if (frame.byteLength < 14) return 'other';
  const type = frame.getUint16(12);
  if (type === 0x0806) return 'neighbour';
  if (type === 0x0800 && frame.byteLength >= 34) {
    const header = (frame.getUint8(14) & 15) * 4;
    const fragment = (frame.getUint16(20) & 0x1fff) !== 0;
    return readPayload(frame, frame.getUint8(23), 14 + header, ipv4(frame, 26), ipv4(frame, 30), fragment);
  }
  if (type === 0x86dd && frame.byteLength >= 54) {
    return readPayload(frame, frame.getUint8(20), 54, ipv6(frame, 22), ipv6(frame, 38), false);
  }
  return 'other';
}

/** Header chains do not occur in the lab but for hop-by-hop options, which multicast membership carries (RFC 3810). */
function readPayload(
  frame: DataView,
  protocol: number,
  at: number,
  source: string,
  destination: string,
  fragment: boolean,
): Packet {
  const left = frame.byteLength - at;
  const ends = { source, destination };
  if (protocol === 50) return { kind: 'esp', ...ends, text: `${source} > ${destination} ESP` };
  if (protocol === 2 || protocol === 0) return 'neighbour';
  if (protocol === 58 && left >= 1 && isNeighbourDiscovery(frame.getUint8(at))) return 'neighbour';
  if ((protocol !== 6 && protocol !== 17) || left < 8 || fragment) {
    return { kind: 'clear', ...ends, text: `${source} > ${destination} protocol ${protocol}` };
  }
  const [from, to] = [frame.getUint16(at), frame.getUint16(at + 2)];
  const name = protocol === 6 ? 'TCP' : 'UDP';
  const text = `${source}.${from} > ${destination}.${to} ${name}`;
  const either = (port: number) => from === port || to === port;
  if (either(53)) return { kind: 'dns', ...ends, text };
  if (protocol === 17) {
    if (either(500)) return { kind: 'ike', ...ends, text };
    if (either(4500)) return { kind: isEspInUdp(frame, at + 8) ? 'esp' : 'ike', ...ends, text };
    return { kind: 'clear', ...ends, text };
  }
  const flags = left >= 14 ? frame.getUint8(at + 13) : 0;
  if ((flags & 0x12) !== 0x02) return { kind: 'clear', ...ends, text };
  return { kind: 'clear', ...ends, text: `${text} SYN`, syn: `${text} ${frame.getUint32(at + 4)}` };
}

/** RFC 3948 §2: IKE has four zero octets first, a keepalive is a single 0xff; all else is ESP. */
function isEspInUdp(frame: DataView, at: number): boolean {
  return frame.byteLength - at >= 4 && frame.getUint32(at) !== 0;
}

/** ICMPv6 types 130–137 and 143: multicast listeners and neighbours (RFC 2710, RFC 4861, RFC 3810). */
function isNeighbourDiscovery(type: number): boolean {
  return (type >= 130 && type <= 137) || type === 143;
}

function ipv4(frame: DataView, at: number): string {
  return [0, 1, 2, 3].map(i => frame.getUint8(at + i)).join('.');
}

/** Text form with the longest run of zeros shortened (RFC 5952 §4). */
function ipv6(frame: DataView, at: number): string {
  const groups = Array.from({ length: 8 }, (_, i) => frame.getUint16(at + 2 * i).toString(16));
  const runs = groups.join(':').match(/\b0(:0)+\b/g) ?? [];
  const longest = runs.reduce((best, run) => (run.length > best.length ? run : best), '');
  if (!longest) return groups.join(':');
  const [before = '', after = ''] = splitOnce(groups.join(':'), longest);
  return `${before.replace(/:$/, '')}::${after.replace(/^:/, '')}`;
}

function splitOnce(text: string, at: string): string[] {
  const index = text.search(new RegExp(`\\b${at}\\b`));
  return [text.slice(0, index), text.slice(index + at.length)];
}
