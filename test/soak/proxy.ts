// The way to the upstream servers, with faults: one port for each server that Holdfast knows, one real server behind all.
//   node test/soak/proxy.ts SERVER-PORT SPELL-SECONDS CALM-FROM-SECONDS PORT…
// After CALM-FROM-SECONDS nothing goes wrong any more. Each second the parent is told what happened.
import { createSocket } from 'node:dgram';
import { connect, createServer, type Socket } from 'node:net';
import { onFrames, framed } from './frames.ts';
import { askedName, type Delivery, distort, distortStream } from './distort.ts';
import { forecast, generator, type Kind, kindAt, strike } from './weather.ts';

/** What the parent is told: the weather at each port, and how many messages each kind of fault has struck. */
export type ProxyReport = {
  weather: Kind[];
  questions: number;
  overTcp: number;
  faults: Partial<Record<Kind, number>>;
  cpuMicros: number;
};

const [serverPort, spellSeconds, calmFromSeconds, ...ports] = process.argv.slice(2).map(Number) as [
  number,
  number,
  number,
  ...number[],
];
const started = performance.now();
const faults: Partial<Record<Kind, number>> = {};
let questions = 0;
let overTcp = 0;

const spells = ports.map((_, i) => forecast(4711 + i, spellSeconds));
const ways = ports.map((port, i) => openWay(port, () => weather(i), generator(815 + i)));
await Promise.all(ways);
process.send?.('ready');
setInterval(() => {
  const { user, system } = process.cpuUsage();
  const now = ports.map((_, i) => weather(i));
  const report: ProxyReport = { weather: now, questions, overTcp, faults, cpuMicros: user + system };
  process.send?.(report);
}, 1000);
process.on('disconnect', () => process.exit(0));

function weather(way: number): Kind {
  const seconds = (performance.now() - started) / 1000;
  return seconds < calmFromSeconds ? kindAt(spells[way]!, seconds) : 'calm';
}

async function openWay(port: number, weatherNow: () => Kind, random: () => number): Promise<void> {
  const fault = (kind: Kind): Kind => {
    const struck = strike(kind, random);
    if (struck !== 'calm') faults[struck] = (faults[struck] ?? 0) + 1;
    return struck;
  };
  await Promise.all([
    openUdp(port, () => fault(weatherNow()), random),
    openTcp(port, () => fault(weatherNow()), random),
  ]);
}

/** Answers to these could be altered by anybody on the way, and nobody would notice. */
function isUnsigned(name: string): boolean {
  return name.endsWith('.unsigned.example') || name.startsWith('cross');
}

function openUdp(port: number, fault: () => Kind, random: () => number): Promise<void> {
  const [clients, server, stranger] = [createSocket('udp4'), createSocket('udp4'), createSocket('udp4')];
  const askers = new Map<number, { id: number; port: number; address: string; unsigned: boolean }>();
  let nextId = 0;
  const deliver = ({ bytes, foreign, delayMillis }: Delivery, to: { port: number; address: string }) => {
    const send = () => (foreign ? stranger : clients).send(bytes, to.port, to.address, () => {});
    if (delayMillis > 0) setTimeout(send, delayMillis);
    else send();
  };
  clients.on('message', (message, from) => {
    if (message.length < 17) return;
    questions++;
    nextId = (nextId + 1) & 0xffff;
    const unsigned = isUnsigned(askedName(message));
    askers.set(nextId, { id: message.readUInt16BE(0), port: from.port, address: from.address, unsigned });
    message.writeUInt16BE(nextId, 0);
    server.send(message, serverPort, '127.0.0.1');
  });
  server.on('message', answer => {
    const asker = askers.get(answer.readUInt16BE(0));
    if (asker === undefined) return;
    askers.delete(answer.readUInt16BE(0));
    answer.writeUInt16BE(asker.id, 0);
    for (const delivery of distort(answer, fault(), random, asker.unsigned)) deliver(delivery, asker);
  });
  for (const socket of [clients, server, stranger]) socket.on('error', () => {});
  server.bind(0, '127.0.0.1');
  stranger.bind(0, '127.0.0.1');
  return new Promise(resolve => {
    clients.bind(port, '127.0.0.1', () => {
      clients.setRecvBufferSize(4 << 20);
      resolve();
    });
  });
}

function openTcp(port: number, fault: () => Kind, random: () => number): Promise<void> {
  const listener = createServer(client => {
    overTcp++;
    const server = connect(serverPort, '127.0.0.1');
    const end = () => {
      client.destroy();
      server.destroy();
    };
    for (const socket of [client, server]) socket.on('error', end).on('close', end);
    onFrames(client, question => {
      questions++;
      server.write(framed(question));
    });
    onFrames(server, answer => {
      const deliveries = distortStream(answer, fault(), random, isUnsigned(askedName(answer)));
      if (deliveries === undefined) client.resetAndDestroy();
      else for (const delivery of deliveries) later(client, delivery);
    });
  });
  return new Promise(resolve => listener.listen(port, '127.0.0.1', resolve));
}

function later(client: Socket, { bytes, delayMillis }: Delivery): void {
  const write = () => {
    if (client.writable) client.write(framed(bytes));
  };
  if (delayMillis > 0) setTimeout(write, delayMillis);
  else write();
}
