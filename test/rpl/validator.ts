/**
 * A bare validating forwarder round ValidatingResolver, for the scenario runner and for tests against real servers.
 *
 * Not the stub: no special names, no limits, no access list. `node test/rpl/validator.ts ADDRESS PORT UPSTREAM PORT ANCHORS UNIXTIME [INSECURE…]`
 */
import { createSocket } from 'node:dgram';
import { readFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { pathToFileURL } from 'node:url';
import { composeMessage } from '../../resolver/dns/compose.ts';
import { composeEde } from '../../resolver/dns/edns.ts';
import { type Message, parseMessage } from '../../resolver/dns/message.ts';
import { Name } from '../../resolver/dns/name.ts';
import type { Rrset } from '../../resolver/dns/rrset.ts';
import { recordsOf } from '../resolver/dns/records.ts';
import { RCODE, TYPE } from '../../resolver/dns/types.ts';
import { parseTrustAnchors } from '../../resolver/dnssec/anchors.ts';
import { CachedResolver } from '../../resolver/cache/answers.ts';
import { RrsetCache } from '../../resolver/cache/rrsets.ts';
import { ValidatingResolver } from '../../resolver/dnssec/resolver.ts';
import type { Exchange, Resolution } from '../../resolver/dnssec/types.ts';

const TIMEOUT_MILLIS = 1500;

/** Asks one server over UDP, over TCP when truncated. */
export function exchangeWith(
  address: string,
  port: number,
  timeoutMillis: number = TIMEOUT_MILLIS,
): Exchange {
  return async ({ name, type }) => {
    const query: Message = {
      id: Math.floor(Math.random() * 0x10000),
      response: false,
      opcode: 0,
      authoritative: false,
      truncated: false,
      recursionDesired: true,
      recursionAvailable: false,
      authenticData: false,
      checkingDisabled: true,
      rcode: 0,
      questions: [{ name, type, class: 1 }],
      answer: [],
      authority: [],
      additional: [],
      edns: { udpSize: 1232, version: 0, dnssecOk: true, options: [] },
    };
    const bytes = composeMessage(query);
    const ask = (): Promise<Uint8Array> => overUdp(address, port, bytes, timeoutMillis);
    const reply = parseMessage(await ask().catch(ask)); // one datagram may be lost on a busy machine
    return reply.truncated ? parseMessage(await overTcp(address, port, bytes)) : reply;
  };
}

function overUdp(
  address: string,
  port: number,
  query: Uint8Array,
  timeoutMillis: number,
): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const socket = createSocket('udp4');
    const done = (act: () => void): void => {
      clearTimeout(timer);
      socket.close();
      act();
    };
    const timer = setTimeout(() => done(() => reject(new Error('upstream did not answer'))), timeoutMillis);
    socket.once('message', reply => done(() => resolve(reply)));
    socket.once('error', error => done(() => reject(error)));
    socket.send(query, port, address);
  });
}

function overTcp(address: string, port: number, query: Uint8Array): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, address, () => socket.write(framed(query)));
    socket.setTimeout(TIMEOUT_MILLIS, () => socket.destroy(new Error('upstream did not answer over TCP')));
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('upstream closed')));
    onFrames(socket, reply => {
      resolve(reply);
      socket.destroy();
    });
  });
}

function framed(message: Uint8Array): Uint8Array {
  return Buffer.concat([Uint8Array.of(message.length >> 8, message.length & 0xff), message]);
}

function onFrames(socket: Socket, handle: (message: Uint8Array) => void): void {
  let buffered = Buffer.alloc(0);
  socket.on('data', (data: Buffer) => {
    buffered = Buffer.concat([buffered, data]);
    while (buffered.length >= 2 && buffered.length >= 2 + buffered.readUInt16BE(0)) {
      const end = 2 + buffered.readUInt16BE(0);
      handle(buffered.subarray(2, end));
      buffered = buffered.subarray(end);
    }
  });
}

/** The answer a validating resolver gives for a resolution (RFC 4035 §3.2). */
function answerFrom(query: Message, resolution: Resolution): Message {
  const dnssecOk = query.edns?.dnssecOk ?? false;
  const refused = resolution.verdict === 'bogus' && !query.checkingDisabled;
  const records = (rrsets: readonly Rrset[]): Message['answer'] =>
    refused ? [] : rrsets.flatMap(rrset => recordsOf(rrset, dnssecOk));
  const proof = (rrset: Rrset): boolean => dnssecOk || rrset.type === TYPE.SOA;
  return {
    ...query,
    response: true,
    recursionAvailable: true,
    authenticData: resolution.verdict === 'secure' && (dnssecOk || query.authenticData),
    rcode: refused ? RCODE.SERVFAIL : resolution.rcode,
    answer: records(resolution.answer),
    authority: records(resolution.authority.filter(proof)),
    additional: [],
    ...(query.edns && {
      edns: {
        udpSize: 1232,
        version: 0,
        dnssecOk,
        options: resolution.ede === undefined ? [] : [composeEde(resolution.ede)],
      },
    }),
  };
}

function serve(resolver: CachedResolver, address: string, port: number): void {
  const answer = async (bytes: Uint8Array, maxBytes: (query: Message) => number): Promise<Uint8Array> => {
    const query = parseMessage(bytes);
    const { name, type } = query.questions[0]!;
    const reply = answerFrom(query, await resolver.lookup(name, type));
    return composeMessage(reply, maxBytes(query));
  };
  const udp = createSocket('udp4');
  udp.on('message', async (bytes, peer) => {
    const reply = await answer(bytes, query => Math.min(1232, query.edns?.udpSize ?? 512));
    udp.send(reply, peer.port, peer.address);
  });
  udp.bind(port, address);
  const tcp = createServer(socket => {
    socket.on('error', () => socket.destroy());
    onFrames(socket, async bytes => socket.write(framed(await answer(bytes, () => 0xffff))));
  });
  tcp.listen(port, address);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [address, port, upstream, upstreamPort, anchorFile, unixTime, ...insecure] = process.argv.slice(2);
  const resolver = new ValidatingResolver({
    exchange: exchangeWith(upstream!, Number(upstreamPort)),
    anchors: parseTrustAnchors(readFileSync(anchorFile!, 'utf8')),
    negativeAnchors: insecure.map(text => Name.parseText(text)),
    now: () => Number(unixTime),
    kept: new RrsetCache(),
  });
  serve(new CachedResolver(resolver), address!, Number(port));
}
