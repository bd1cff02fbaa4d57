/**
 * Asks servers for IPSECKEY records through dns-packet, which shares no code with the daemon: a second opinion.
 *
 * Only for the command line. dns-packet trusts what a hostile message says about its lengths, so it must not meet the
 * network in a program that lives on.
 */
import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { createRequire } from 'node:module';
import { connect, isIPv6 } from 'node:net';

/** What we use of dns-packet, which ships no types. */
type Answer = {
  id: number;
  type: 'query' | 'response';
  rcode: string;
  flag_tc: boolean;
  flag_ad: boolean;
  answers?: { type: string; data: Uint8Array }[];
};
type PacketCodec = {
  encode(packet: object): Buffer;
  decode(message: Uint8Array): Answer;
  RECURSION_DESIRED: number;
  AUTHENTIC_DATA: number;
  DNSSEC_OK: number;
};
const packet = createRequire(import.meta.url)('dns-packet') as PacketCodec;

const PATIENCE_MILLIS = 3000;
/** dns-packet knows its number but not its form: the RDATA comes as bytes. */
const IPSECKEY = 'IPSECKEY';

/** What a server says is at a name. */
export type RecordAnswer = {
  owner: string;
  server: string;
  /** The server set AD: it validated (RFC 4035 §3.2.3). */
  authenticated: boolean;
  rdatas: Uint8Array[];
  error?: string;
};

/** Asks for every owner; the next server when one does not answer. Never rejects. */
export async function askRecords(owners: string[], servers: string[], port: number): Promise<RecordAnswer[]> {
  return Promise.all(
    owners.map(async owner => {
      let last: RecordAnswer = {
        owner,
        server: '-',
        authenticated: false,
        rdatas: [],
        error: 'no server to ask',
      };
      for (const server of servers) {
        last = await askServer(owner, server, port);
        if (last.error === undefined) break;
      }
      return last;
    }),
  );
}

async function askServer(owner: string, server: string, port: number): Promise<RecordAnswer> {
  const question = {
    type: 'query',
    id: randomInt(65536),
    flags: packet.RECURSION_DESIRED | packet.AUTHENTIC_DATA,
    questions: [{ type: IPSECKEY, class: 'IN', name: owner }],
    additionals: [{ type: 'OPT', name: '.', udpPayloadSize: 1232, flags: packet.DNSSEC_OK }],
  };
  const none = { owner, server, authenticated: false, rdatas: [] };
  try {
    let answer = await overUdp(packet.encode(question), question.id, server, port);
    if (answer.flag_tc) answer = await overTcp(packet.encode(question), question.id, server, port);
    if (answer.rcode !== 'NOERROR') return { ...none, error: `the server answers ${answer.rcode}` };
    const records = (answer.answers ?? []).filter(({ type }) => type === IPSECKEY);
    const rdatas = records.map(({ data }) => new Uint8Array(data));
    return { owner, server, authenticated: answer.flag_ad, rdatas };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return { ...none, error: code === undefined ? message : `the server cannot be reached: ${code}` };
  }
}

function overUdp(query: Buffer, id: number, server: string, port: number): Promise<Answer> {
  const socket = createSocket(isIPv6(server) ? 'udp6' : 'udp4');
  return withPatience<Answer>(
    (resolve, reject) => {
      socket.once('error', reject);
      // Connected, so that the kernel drops what others send and tells us when the port is closed.
      socket.connect(port, server, () => socket.send(query));
      socket.on('message', message => {
        try {
          const answer = packet.decode(message);
          if (answer.id === id && answer.type === 'response') resolve(answer);
        } catch (error) {
          reject(new Error(`the answer cannot be read: ${(error as Error).message}`));
        }
      });
    },
    () => socket.close(),
  );
}

function overTcp(query: Buffer, id: number, server: string, port: number): Promise<Answer> {
  const socket = connect(port, server);
  return withPatience<Answer>(
    (resolve, reject) => {
      let received = Buffer.alloc(0);
      socket.once('error', reject);
      socket.once('close', () => reject(new Error('the server closed the connection')));
      const length = Buffer.from([query.length >> 8, query.length & 0xff]);
      socket.once('connect', () => socket.write(Buffer.concat([length, query])));
      socket.on('data', chunk => {
        received = Buffer.concat([received, chunk]);
        if (received.length < 2 || received.length < 2 + received.readUInt16BE(0)) return;
        try {
          const answer = packet.decode(received.subarray(2, 2 + received.readUInt16BE(0)));
          if (answer.id === id) resolve(answer);
          else reject(new Error('the answer has another ID'));
        } catch (error) {
          reject(new Error(`the answer cannot be read: ${(error as Error).message}`));
        }
      });
    },
    () => socket.destroy(),
  );
}

async function withPatience<T>(
  start: (resolve: (value: T) => void, reject: (error: Error) => void) => void,
  end: () => void,
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  try {
    return await new Promise<T>((resolve, reject) => {
      timer = setTimeout(() => reject(new Error('no answer')), PATIENCE_MILLIS);
      start(resolve, reject);
    });
  } finally {
    clearTimeout(timer);
    end();
  }
}
