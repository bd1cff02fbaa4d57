/** A client's question over UDP, with EDNS but neither DO nor CD, and what a person would see of the answer. */
import { createSocket } from 'node:dgram';
import { formatIpAddress } from '../../../resolver/address.ts';
import { composeMessage } from '../../../resolver/dns/compose.ts';
import { parseMessage } from '../../../resolver/dns/message.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { rcodeToText, TYPE, typeFromText } from '../../../resolver/dns/types.ts';

export type Heard = {
  /** `silence` when nothing came in time. */
  rcode: string;
  ad: boolean;
  /** Addresses, or how many records of another type. */
  data: string[];
  ttlSeconds: number | undefined;
  ede: { code: number; text: string }[];
  millis: number;
};

const EXTENDED_ERROR = 15;

export async function ask(
  at: { address: string; port: number },
  name: string,
  type = 'A',
  timeoutMillis = 9000,
): Promise<Heard> {
  const id = Math.floor(Math.random() * 0x10000);
  const query = composeMessage({
    id,
    response: false,
    opcode: 0,
    authoritative: false,
    truncated: false,
    recursionDesired: true,
    recursionAvailable: false,
    authenticData: true,
    checkingDisabled: false,
    rcode: 0,
    questions: [{ name: Name.parseText(`${name}.`), type: typeFromText(type)!, class: 1 }],
    answer: [],
    authority: [],
    additional: [],
    edns: { udpSize: 4096, version: 0, dnssecOk: false, options: [] },
  });
  const startedAt = performance.now();
  const socket = createSocket('udp4');
  const bytes = await new Promise<Uint8Array | undefined>(resolve => {
    const timer = setTimeout(() => resolve(undefined), timeoutMillis);
    socket.on('error', () => resolve(undefined));
    socket.on('message', message => {
      if (message.readUInt16BE(0) !== id) return;
      clearTimeout(timer);
      resolve(Uint8Array.from(message));
    });
    socket.send(query, at.port, at.address);
  });
  socket.close();
  const millis = performance.now() - startedAt;
  if (bytes === undefined)
    return { rcode: 'silence', ad: false, data: [], ttlSeconds: undefined, ede: [], millis };
  const message = parseMessage(bytes);
  const records = message.answer.filter(record => record.type === typeFromText(type));
  const data = records.map(record =>
    record.type === TYPE.A
      ? formatIpAddress({ family: 4, bytes: record.rdata })
      : `${record.rdata.length} octets`,
  );
  const ede = (message.edns?.options ?? [])
    .filter(({ code }) => code === EXTENDED_ERROR)
    .map(option => ({
      code: (option.data[0]! << 8) | option.data[1]!,
      text: Buffer.from(option.data.subarray(2)).toString(),
    }));
  return {
    rcode: rcodeToText(message.rcode),
    ad: message.authenticData,
    data,
    ttlSeconds: records[0]?.ttlSeconds,
    ede,
    millis,
  };
}
