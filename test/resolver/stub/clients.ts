/** Clients for the stub: raw sockets, and dig as one that we did not write. */
import { execFile } from 'node:child_process';
import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';
import { Deframer, frame } from '../../../resolver/upstream/tcp-framing.ts';
import { dnsPacket, type Packet } from '../dns-packet.ts';

type At = { address: string; port: number };

/** A query as bytes; with EDNS unless told otherwise. */
export function queryBytes(
  change: Partial<Packet> & { edns?: { do?: boolean; udpSize?: number; version?: number } | false } = {},
): Buffer {
  const { edns = {}, ...rest } = change;
  const options = edns === false ? undefined : edns;
  return dnsPacket.encode({
    type: 'query',
    id: 0x1234,
    flags: 0x0100,
    questions: [{ type: 'A', name: 'www.example.com', class: 'IN' }],
    additionals: options && [
      {
        type: 'OPT',
        name: '.',
        udpPayloadSize: options.udpSize ?? 1232,
        ednsVersion: options.version ?? 0,
        flags: options.do ? 0x8000 : 0,
        options: [],
      },
    ],
    ...rest,
  });
}

/** Sends one datagram from a connected socket, which takes answers from the asked address alone. */
export async function overUdp(at: At, message: Uint8Array, from?: string): Promise<Buffer> {
  const socket = dgram.createSocket(net.isIPv4(at.address) ? 'udp4' : 'udp6');
  try {
    if (from !== undefined) {
      socket.bind(0, from);
      await once(socket, 'listening');
    }
    socket.connect(at.port, at.address);
    await once(socket, 'connect');
    socket.send(message);
    const [answer] = (await once(socket, 'message')) as [Buffer];
    return answer;
  } finally {
    socket.close();
  }
}

/** A TCP connection with what has come over it. */
export type TcpClient = {
  socket: net.Socket;
  answers: Packet[];
  ask: (message: Uint8Array) => void;
  /** Resolves when so many answers have come. */
  received: (count: number) => Promise<void>;
  /** The server has ended the connection. */
  closed: Promise<unknown>;
};

export async function overTcp(at: At): Promise<TcpClient> {
  const socket = net.connect({ host: at.address, port: at.port, allowHalfOpen: true });
  const deframer = new Deframer(65535);
  const client: TcpClient = {
    socket,
    answers: [],
    ask: message => socket.write(frame(message)),
    received: async count => {
      while (client.answers.length < count) await once(socket, 'data');
    },
    closed: new Promise(resolve => socket.on('end', resolve).on('close', resolve)),
  };
  socket.on('error', () => {});
  socket.on('data', chunk =>
    deframer.push(chunk, message => client.answers.push(dnsPacket.decode(message)) > 0),
  );
  await once(socket, 'connect');
  return client;
}

/** What dig prints, `+tries=1 +time=3` added. */
export function dig(at: At, ...args: string[]): Promise<string> {
  return new Promise(resolve => {
    const all = [`@${at.address}`, '-p', String(at.port), '+tries=1', '+time=3', ...args];
    execFile('dig', all, (_error, stdout) => resolve(stdout));
  });
}
