/** A scripted name server on loopback, UDP and TCP on one port; what it says is up to the test. */
import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';
import { dnsPacket, type Packet } from '../dns-packet.ts';
import { freePort } from '../free-port.ts';
import { Deframer, frame } from '../../../resolver/upstream/tcp-framing.ts';

export type Asked = {
  transport: 'udp' | 'tcp';
  bytes: Buffer;
  query: Packet;
  port: number;
  reply: (bytes: Uint8Array) => unknown;
  /** From another socket, so from another port. */
  replyFromElsewhere: (bytes: Uint8Array) => void;
  /** Closes the TCP connection. */
  hangUp: () => void;
};

export type FakeServer = {
  address: string;
  port: number;
  asked: Asked[];
  connections: number;
  close: () => Promise<void>;
};

export async function fakeServer(
  answer: (asked: Asked) => unknown,
  options: { address?: string; tcp?: boolean } = {},
): Promise<FakeServer> {
  const address = options.address ?? '127.0.0.1';
  const type = net.isIPv4(address) ? 'udp4' : 'udp6';
  const udp = dgram.createSocket(type);
  const elsewhere = dgram.createSocket(type);
  const server: FakeServer = { address, port: 0, asked: [], connections: 0, close };
  let closed = false;
  udp.on('message', (bytes, from) => {
    const asked: Asked = {
      transport: 'udp',
      bytes,
      query: dnsPacket.decode(bytes),
      port: from.port,
      reply: reply => closed || udp.send(reply, from.port, from.address),
      replyFromElsewhere: reply => elsewhere.send(reply, from.port, from.address),
      hangUp: () => {},
    };
    server.asked.push(asked);
    answer(asked);
  });
  const sockets = new Set<net.Socket>();
  const tcp = net.createServer(socket => {
    server.connections++;
    sockets.add(socket);
    socket.on('error', () => {});
    const deframer = new Deframer(65535);
    socket.on('data', chunk =>
      deframer.push(chunk, message => {
        const bytes = Buffer.from(message);
        const asked: Asked = {
          transport: 'tcp',
          bytes,
          query: dnsPacket.decode(bytes),
          port: socket.remotePort ?? 0,
          reply: reply => socket.write(frame(reply)),
          replyFromElsewhere: () => {},
          hangUp: () => socket.destroy(),
        };
        server.asked.push(asked);
        answer(asked);
        return true;
      }),
    );
  });
  if (options.tcp === false) {
    udp.bind(0, address);
    await once(udp, 'listening');
    server.port = udp.address().port;
  } else {
    server.port = await freePort(address);
    udp.bind(server.port, address);
    tcp.listen(server.port, address);
    await Promise.all([once(udp, 'listening'), once(tcp, 'listening')]);
  }
  elsewhere.bind(0, address);
  return server;

  async function close(): Promise<void> {
    closed = true;
    udp.close();
    elsewhere.close();
    for (const socket of sockets) socket.destroy();
    if (tcp.listening) await new Promise(resolve => tcp.close(resolve));
  }
}

/** An answer to `query` by an independent codec: one A record, EDNS with DO unless told otherwise. */
export function respond(
  query: Packet,
  change: Omit<Packet, 'rcode'> & { rcode?: number; edns?: boolean } = {},
): Buffer {
  const { rcode = 0, edns = true, flags, ...rest } = change;
  const question = query.questions?.[0] ?? { name: 'www.example.com' };
  return dnsPacket.encode({
    type: 'response',
    id: query.id,
    flags: (flags ?? 0x0180) | rcode,
    questions: query.questions,
    answers: [{ type: 'A', name: question.name, ttl: 300, data: '192.0.2.1' }],
    additionals: edns ? [{ type: 'OPT', name: '.', udpPayloadSize: 1232, flags: 0x8000, options: [] }] : [],
    ...rest,
  });
}
