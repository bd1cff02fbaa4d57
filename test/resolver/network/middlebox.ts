/**
 * Middleboxes as networks have them: a DNS proxy on loopback, UDP and TCP, that does one bad thing.
 *
 * It asks the resolver behind it over TCP, so that it has whole answers, and sends what its kind makes of them.
 */
import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';
import { composeMessage } from '../../../resolver/dns/compose.ts';
import { type Message, parseMessage, type ResourceRecord } from '../../../resolver/dns/message.ts';
import { CLASS, RCODE, TYPE } from '../../../resolver/dns/types.ts';
import { Deframer, frame } from '../../../resolver/upstream/tcp-framing.ts';
import { freePort } from '../free-port.ts';

/** What it does to one question: an answer, `undefined` for silence. `limit`: octets that the client takes over UDP. */
export type Kind = {
  /** Whether TCP connections are taken, refused, or left without a word. */
  tcp?: 'refused' | 'silent';
  handle?: (query: Message, ask: (query: Message) => Promise<Message>) => Promise<Message | undefined>;
  /** The datagram, or nothing when it is lost on the way; `whole`: the answer however large. */
  datagram?: (answer: Message, fitting: Uint8Array, whole: Uint8Array) => Uint8Array | undefined;
};

const PORTAL = Uint8Array.of(10, 0, 0, 1);
const isProof = ({ type, rdata }: ResourceRecord) =>
  type === TYPE.NSEC ||
  type === TYPE.NSEC3 ||
  (type === TYPE.RRSIG && [TYPE.NSEC, TYPE.NSEC3].includes(((rdata[0]! << 8) | rdata[1]!) as never));

/** An A record of the portal for every question of type A; other questions as they are. */
const rewritten = (query: Message, answer: Message): Message => {
  const { name, type } = query.questions[0]!;
  if (type !== TYPE.A) return answer;
  const record = { name, type, class: CLASS.IN, ttlSeconds: 60, rdata: PORTAL };
  return { ...answer, rcode: RCODE.NOERROR, answer: [record], authority: [] };
};

export const KINDS = {
  clean: {},
  'strips EDNS': {
    handle: async ({ edns: _, ...query }, ask) => {
      const { edns: __, ...answer } = await ask(query);
      return answer;
    },
  },
  'strips RRSIGs (DO stripped)': {
    handle: (query, ask) => ask(query.edns ? { ...query, edns: { ...query.edns, dnssecOk: false } } : query),
  },
  'strips denial proofs only': {
    handle: async (query, ask) => {
      const answer = await ask(query);
      return { ...answer, authority: answer.authority.filter(record => !isProof(record)) };
    },
  },
  'drops EDNS queries': { handle: async (query, ask) => (query.edns ? undefined : ask(query)) },
  'FORMERR to EDNS': {
    handle: async (query, ask) => {
      if (query.edns === undefined) return ask(query);
      const { edns: _, ...plain } = query;
      return { ...plain, response: true, rcode: RCODE.FORMERR };
    },
  },
  'SERVFAIL for DS/DNSKEY': {
    handle: async (query, ask) => {
      const refused = query.questions.some(({ type }) => type === TYPE.DS || type === TYPE.DNSKEY);
      return refused ? { ...query, response: true, rcode: RCODE.SERVFAIL } : ask(query);
    },
  },
  'portal (every A = 10.0.0.1)': { handle: async (query, ask) => rewritten(query, await ask(query)) },
  'TC, TCP blocked': {
    tcp: 'refused',
    handle: async (query, ask) => ({ ...(await ask(query)), truncated: true, answer: [], authority: [] }),
  },
  'large answers and fragments vanish': {
    datagram: (_, __, whole) => (whole.length > 1232 ? undefined : whole),
  },
  'ignores the size asked for': { datagram: (_, __, whole) => whole },
  'NXDOMAIN rewritten': {
    handle: async (query, ask) => {
      const answer = await ask(query);
      return answer.rcode === RCODE.NXDOMAIN ? rewritten(query, answer) : answer;
    },
  },
  'signed answers rewritten': {
    handle: async (query, ask) => {
      const answer = await ask(query);
      const other = (record: ResourceRecord) =>
        record.type === TYPE.A ? { ...record, rdata: PORTAL } : record;
      return answer.rcode === RCODE.NOERROR ? { ...answer, answer: answer.answer.map(other) } : answer;
    },
  },
  'TCP filtered': { tcp: 'silent' },
  'UDP filtered': { datagram: () => undefined },
  silent: { tcp: 'silent', datagram: () => undefined },
} satisfies Record<string, Kind> as Record<string, Kind>;

export type Middlebox = { port: number; kind: string; asked: number; close: () => Promise<void> };

/** Starts before the resolver on `backend`; its kind may be changed at any time. */
export async function startMiddlebox(
  backend: number,
  kind: string,
  address = '127.0.0.1',
): Promise<Middlebox> {
  const port = await freePort(address);
  const box: Middlebox = { port, kind, asked: 0, close };
  const ask = (query: Message) => overTcp(backend, query);
  const answer = async (bytes: Uint8Array): Promise<{ query: Message; answer: Message } | undefined> => {
    box.asked++;
    const query = parseMessage(bytes);
    const made = await (KINDS[box.kind]!.handle?.(query, ask) ?? ask(query)).catch(() => undefined);
    return made && { query, answer: { ...made, id: query.id } };
  };
  const udp = dgram.createSocket('udp4');
  udp.on('message', async (bytes, from) => {
    const made = await answer(bytes);
    if (made === undefined || closed) return;
    const limit = Math.max(512, made.query.edns?.udpSize ?? 512);
    const fitting = composeMessage(made.answer, limit);
    const { datagram } = KINDS[box.kind]!;
    const sent = datagram ? datagram(made.answer, fitting, composeMessage(made.answer)) : fitting;
    if (sent !== undefined) udp.send(sent, from.port, from.address);
  });
  const sockets = new Set<net.Socket>();
  const tcp = net.createServer(socket => {
    sockets.add(socket);
    socket.on('error', () => {}).on('close', () => sockets.delete(socket));
    if (KINDS[box.kind]!.tcp === 'refused') socket.resetAndDestroy();
    if (KINDS[box.kind]!.tcp !== undefined) return;
    const deframer = new Deframer(65535);
    socket.on('data', chunk =>
      deframer.push(chunk, message => {
        // The network may have changed since the connection was made.
        if (KINDS[box.kind]!.tcp !== undefined) return true;
        void answer(Uint8Array.from(message)).then(
          made => made && socket.write(frame(composeMessage(made.answer))),
        );
        return true;
      }),
    );
  });
  let closed = false;
  udp.bind(port, address);
  tcp.listen(port, address);
  await Promise.all([once(udp, 'listening'), once(tcp, 'listening')]);
  return box;

  async function close(): Promise<void> {
    closed = true;
    udp.close();
    for (const socket of sockets) socket.destroy();
    await new Promise(resolve => tcp.close(resolve));
  }
}

function overTcp(port: number, query: Message): Promise<Message> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, '127.0.0.1', () => socket.write(frame(composeMessage(query))));
    const deframer = new Deframer(65535);
    socket.setTimeout(5000, () => socket.destroy());
    socket.on('error', reject).on('close', () => reject(new Error('closed')));
    socket.on('data', chunk =>
      deframer.push(chunk, message => {
        resolve(parseMessage(Uint8Array.from(message)));
        socket.end();
        return false;
      }),
    );
  });
}
