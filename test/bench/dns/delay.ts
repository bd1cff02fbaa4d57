// Adds a delay to the way to a DNS server over UDP and counts what passes. A process of its own:
//   node test/bench/dns/delay.ts LISTEN-PORT SERVER-PORT ROUND-TRIP-MILLIS
// Half of the delay is added each way. Told `count` by its parent, it tells how many questions it has passed on.
import { createSocket } from 'node:dgram';

/** The event loop's timers are good to a millisecond; the last part of each wait is spent turning. */
const TURNING_MILLIS = 1.2;

const [listenPort, serverPort, roundTripMillis] = process.argv.slice(2).map(Number) as [
  number,
  number,
  number,
];

type Late = { dueAt: number; send: () => void };
const late: Late[] = []; // equal delays: first come, first served
let asked = 0;

const clients = createSocket('udp4');
const server = createSocket('udp4');
/** Who asked, by the ID that the question has behind us. */
const askers = new Map<number, { id: number; port: number; address: string }>();
let nextId = 0;

clients.on('message', (message, from) => {
  if (message.length < 12) return;
  asked++;
  nextId = (nextId + 1) & 0xffff;
  const id = nextId;
  askers.set(id, { id: message.readUInt16BE(0), port: from.port, address: from.address });
  message.writeUInt16BE(id, 0);
  delayed(() => server.send(message, serverPort, '127.0.0.1'));
});
server.on('message', message => {
  const asker = askers.get(message.readUInt16BE(0));
  if (asker === undefined) return;
  askers.delete(message.readUInt16BE(0));
  message.writeUInt16BE(asker.id, 0);
  delayed(() => clients.send(message, asker.port, asker.address));
});
for (const socket of [clients, server]) {
  socket.on('error', () => {}); // an asker that is gone
  socket.on('listening', () => {
    socket.setRecvBufferSize(4 << 20);
    socket.setSendBufferSize(4 << 20);
  });
}
clients.bind(listenPort, '127.0.0.1', () => process.send?.('ready'));
server.bind(0, '127.0.0.1');
process.on('message', () => process.send?.(asked));
process.on('disconnect', () => process.exit(0));

function delayed(send: () => void): void {
  late.push({ dueAt: performance.now() + roundTripMillis / 2, send });
  if (late.length === 1) wait();
}

function wait(): void {
  const left = late[0]!.dueAt - performance.now();
  if (left > TURNING_MILLIS) setTimeout(turn, left - TURNING_MILLIS);
  else turn();
}

function turn(): void {
  while (late.length > 0 && late[0]!.dueAt <= performance.now()) late.shift()!.send();
  if (late.length === 0) return;
  if (late[0]!.dueAt - performance.now() > TURNING_MILLIS) wait();
  else setImmediate(turn);
}
