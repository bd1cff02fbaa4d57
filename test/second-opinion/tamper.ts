/** A double before the honest server that alters what it says of some zones, each by one rule. */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { composeMessage } from '../../resolver/dns/compose.ts';
import { type Message, parseMessage } from '../../resolver/dns/message.ts';
import { Name } from '../../resolver/dns/name.ts';
import { Deframer, frame } from '../../resolver/upstream/tcp-framing.ts';
import { freePort } from '../resolver/free-port.ts';
import { alteredAnswers } from './altered-answers.ts';
import { alteredChain } from './altered-chain.ts';
import { alteredDenials } from './altered-denials.ts';
import type { Question } from './content.ts';
import type { ZonePlan } from './plans.ts';
import type { ZoneKey } from './signer.ts';
import type { Rule, Rules } from './scene.ts';

export type TamperedZone = {
  rule: Rule;
  questions: Question[];
  ready: (keys: ZoneKey[]) => void;
  key?: ZoneKey;
};

const rules: Rules = { ...alteredAnswers, ...alteredChain, ...alteredDenials };

export const tampered: (ZonePlan & { tampered: TamperedZone })[] = Object.entries(rules).flatMap(
  ([what, [rule, questions]]) =>
    (['nsec', 'nsec3'] as const)
      .filter(kind => kind === 'nsec' || !/^(nsec|minimal|compact)-/.test(what))
      .map(kind => {
        const name = `${kind === 'nsec' ? 't' : 't3'}-${what}.`;
        const zone: TamperedZone = {
          rule,
          questions: questions.split('|').map(row => {
            const [owner, type] = row.split(' ') as [string, string];
            return { name: owner === '@' ? name : `${owner}.${name}`, type };
          }),
          ready: ([key]) => {
            zone.key = key!;
          },
        };
        const denial = kind === 'nsec' ? { kind } : { kind, iterations: 0 };
        return { name, denial, tampered: zone };
      }),
);

/** Starts the double: bytes go through as they are unless the question lies in a zone with a rule. */
export async function startTampering(
  serverPort: number,
  zones: readonly (ZonePlan & { tampered: TamperedZone })[],
): Promise<{ port: number; stop: () => Promise<void> }> {
  const byKey = new Map(zones.map(plan => [Name.parseText(plan.name).key, plan.tampered]));
  const port = await freePort('127.0.0.1');
  const relay = async (query: Uint8Array, tcp: boolean): Promise<Uint8Array> => {
    const question = parseMessage(query);
    const { name, type } = question.questions[0]!;
    const tampering = name.labelCount === 0 ? undefined : byKey.get(name.suffix(1).key);
    if (tampering === undefined) return tcp ? overTcp(serverPort, query) : overUdp(serverPort, query);
    const fetch = async (other: Name, otherType: number): Promise<Message> => {
      const questions = [{ name: other, type: otherType, class: 1 }];
      return parseMessage(await overTcp(serverPort, composeMessage({ ...question, questions })));
    };
    const altered = await tampering.rule({
      name: name.canonical(), // who asks may mix the cases of its letters
      type,
      reply: await fetch(name, type),
      zone: name.suffix(1),
      key: tampering.key!,
      ask: (other, otherType) => fetch(Name.parseText(other), otherType),
    });
    return composeMessage(altered, tcp ? 65_535 : (question.edns?.udpSize ?? 512));
  };
  const udp = createSocket('udp4');
  udp.on('message', (query, from) => {
    relay(query, false).then(
      reply => udp.send(reply, from.port, from.address),
      () => undefined, // unanswered, as a lost datagram
    );
  });
  udp.bind(port, '127.0.0.1');
  const open = new Set<Socket>();
  const tcp = createServer(socket => {
    open.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => open.delete(socket));
    onFrames(socket, query => {
      relay(query, true).then(
        reply => socket.write(frame(reply)),
        () => socket.destroy(),
      );
    });
  });
  tcp.listen(port, '127.0.0.1');
  await Promise.all([once(udp, 'listening'), once(tcp, 'listening')]);
  return {
    port,
    stop: async () => {
      udp.close();
      for (const socket of open) socket.destroy();
      tcp.close();
      await once(tcp, 'close');
    },
  };
}

export async function overUdp(
  port: number,
  query: Uint8Array,
  timeoutMillis: number = 5000,
): Promise<Uint8Array> {
  const socket = createSocket('udp4');
  try {
    socket.connect(port, '127.0.0.1');
    await once(socket, 'connect');
    socket.send(query);
    const [reply] = (await once(socket, 'message', { signal: AbortSignal.timeout(timeoutMillis) })) as [
      Buffer,
    ];
    return reply;
  } finally {
    socket.close();
  }
}

export function overTcp(port: number, query: Uint8Array, timeoutMillis: number = 5000): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(frame(query)));
    socket.setTimeout(timeoutMillis, () => socket.destroy(new Error('no answer over TCP')));
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('closed without an answer')));
    onFrames(socket, reply => {
      resolve(reply);
      socket.destroy();
    });
  });
}

function onFrames(socket: Socket, handle: (message: Uint8Array) => void): void {
  const deframer = new Deframer(0xffff);
  socket.on('data', chunk => {
    deframer.push(chunk, message => {
      handle(message);
      return true;
    });
  });
}
