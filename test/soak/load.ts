// The clients of the soak: asks at a steady rate, over UDP and TCP, from many addresses, and checks what is answered.
//   node test/soak/load.ts PORT RATE SEED
// The parent sends `stop`; each second it is told what happened, and once more when nothing is awaited any longer.
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { connect, type Socket } from 'node:net';
import { Name } from '../../resolver/dns/name.ts';
import { type Asked, check, type Verdict } from './check.ts';
import { framed, onFrames } from './frames.ts';
import { generator } from './weather.ts';
import { drawQuestion, type Question, Truths } from './zones.ts';

/** Sums since the start; latencies since the last report. */
export type LoadReport = {
  sent: number;
  right: number;
  servfail: number;
  truncated: number;
  wrong: number;
  examples: string[];
  /** Asked a second time after five seconds, as stubs do. */
  retried: number;
  /** Not answered the second time either. */
  unanswered: number;
  /** Went under with the TCP connection that the client closed. */
  abandoned: number;
  /** TCP connections that the server ended with questions open; those are asked again. */
  dropped: number;
  /** Answers to what nobody asked, or to what was answered before. */
  unexpected: number;
  p50Millis: number;
  p99Millis: number;
  waiting: number;
  cpuMicros: number;
  done: boolean;
};

const UDP_CLIENTS = 24;
const TCP_CLIENTS = 8;
const TCP_SHARE = 0.04;
const QUESTIONS_PER_CONNECTION = 60;
/** Of the connections, so many are cut by the client with questions open. */
const HANG_UP_SHARE = 0.2;
const PATIENCE_MILLIS = 5000;
/** Since the first time: the daemon gives up after ten seconds, and the second question has as much as the first. */
const LAST_PATIENCE_MILLIS = 17_000;
const TICK_MILLIS = 5;
const TYPES: Record<string, number> = { A: 1, MX: 15, TXT: 16, AAAA: 28, IPSECKEY: 45 };

const [port, rate, seed] = process.argv.slice(2).map(Number) as [number, number, number];
const random = generator(seed);
const truths = new Truths();

type Open = { question: Question; asked: Asked; sentAt: number; tries: number };
const sums = {
  ...{ sent: 0, right: 0, servfail: 0, truncated: 0, wrong: 0, retried: 0, unanswered: 0 },
  ...{ abandoned: 0, dropped: 0, unexpected: 0 },
};
const examples: string[] = [];
let latencies: number[] = [];
let stopping = false;

/** One that asks: the IDs of its questions are its own. */
abstract class Client {
  readonly open = new Map<number, Open>();
  #nextId = Math.floor(random() * 0x10000);

  ask(question: Question, asked: Asked, tries = 1, sentAt = performance.now()): void {
    do this.#nextId = (this.#nextId + 1) & 0xffff;
    while (this.open.has(this.#nextId));
    this.open.set(this.#nextId, { question, asked, sentAt, tries });
    this.send(composeQuestion(this.#nextId, question, asked));
  }

  protected receive(bytes: Buffer): void {
    const id = bytes.length < 12 ? -1 : bytes.readUInt16BE(0);
    const waiting = this.open.get(id);
    if (waiting === undefined) {
      sums.unexpected++;
      return;
    }
    this.open.delete(id);
    const { question, asked, sentAt } = waiting;
    const verdict = check(bytes, question, asked, truths.of(question));
    if (verdict === 'truncated' && this instanceof UdpClient) {
      sums.truncated++;
      pick(tcpClients).ask(question, asked, waiting.tries, sentAt);
      return;
    }
    latencies.push(performance.now() - sentAt);
    count(verdict, question, asked);
  }

  /** Asks again what was not answered, once. */
  sweep(now: number): void {
    for (const [id, waiting] of this.open) {
      const patience = waiting.tries === 1 ? PATIENCE_MILLIS : LAST_PATIENCE_MILLIS;
      if (now - waiting.sentAt < patience) continue;
      this.open.delete(id);
      this.again(waiting);
    }
  }

  again({ question, asked, tries, sentAt }: Open): void {
    if (tries > 1) {
      sums.unanswered++;
      note(`no answer: ${question.name} ${question.type}`);
      return;
    }
    sums.retried++;
    pick(udpClients).ask(question, asked, 2, sentAt);
  }

  protected abstract send(bytes: Buffer): void;
}

class UdpClient extends Client {
  readonly #socket: UdpSocket;

  constructor(address: string) {
    super();
    this.#socket = createSocket('udp4');
    this.#socket.on('message', bytes => this.receive(bytes));
    this.#socket.on('error', () => {});
    this.#socket.bind(0, address, () => this.#socket.setRecvBufferSize(1 << 20));
  }

  protected send(bytes: Buffer): void {
    this.#socket.send(bytes, port, '127.0.0.1');
  }
}

class TcpClient extends Client {
  readonly #address: string;
  #socket: Socket | undefined;
  #left = 0;
  #hangUp = false;

  constructor(address: string) {
    super();
    this.#address = address;
  }

  protected send(bytes: Buffer): void {
    if (this.#socket === undefined || this.#left === 0) this.#connect();
    this.#left--;
    this.#socket!.write(framed(bytes));
    if (this.#left > 0) return;
    if (this.#hangUp) this.#abandon();
    else this.#socket!.end();
  }

  #connect(): void {
    const socket = connect({ port, host: '127.0.0.1', localAddress: this.#address });
    this.#socket = socket;
    this.#left = 1 + Math.floor(random() * QUESTIONS_PER_CONNECTION);
    this.#hangUp = random() < HANG_UP_SHARE;
    onFrames(socket, bytes => this.receive(bytes));
    socket.on('error', () => {});
    socket.on('close', () => {
      if (this.#socket !== socket) return;
      this.#socket = undefined;
      if (this.open.size === 0) return;
      sums.dropped++;
      for (const [id, waiting] of this.open) {
        this.open.delete(id);
        this.again(waiting);
      }
    });
  }

  #abandon(): void {
    sums.abandoned += this.open.size;
    this.open.clear();
    const socket = this.#socket!;
    this.#socket = undefined;
    socket.resetAndDestroy();
  }
}

const udpClients = Array.from({ length: UDP_CLIENTS }, (_, i) => new UdpClient(`127.0.1.${i + 1}`));
const tcpClients = Array.from({ length: TCP_CLIENTS }, (_, i) => new TcpClient(`127.0.2.${i + 1}`));
const clients: Client[] = [...udpClients, ...tcpClients];

const started = performance.now();
const asking = setInterval(() => {
  if (stopping) return;
  const due = Math.floor(((performance.now() - started) / 1000) * rate) - sums.sent;
  for (let i = 0; i < due; i++) {
    sums.sent++;
    const client = random() < TCP_SHARE ? pick(tcpClients) : pick(udpClients);
    client.ask(drawQuestion(random), pick(['plain', 'ad', 'do']));
  }
}, TICK_MILLIS);
setInterval(() => {
  const now = performance.now();
  for (const client of clients) client.sweep(now);
  tell();
}, 1000);
process.on('message', () => {
  stopping = true;
  clearInterval(asking);
});
process.on('disconnect', () => process.exit(0));

function count(verdict: Verdict, question: Question, asked: Asked): void {
  if (typeof verdict === 'string') {
    if (verdict === 'truncated') wrong('TC over TCP', question, asked);
    else sums[verdict]++;
  } else wrong(verdict.wrong, question, asked);
}

function wrong(why: string, { name, type }: Question, asked: Asked): void {
  sums.wrong++;
  note(`wrong: ${name} ${type} (${asked}): ${why}`);
}

/** The first of them tell enough. */
function note(example: string): void {
  if (examples.length < 50) examples.push(`${new Date().toISOString()} ${example}`);
}

function tell(): void {
  const waiting = clients.reduce((sum, client) => sum + client.open.size, 0);
  const sorted = latencies.sort((a, b) => a - b);
  latencies = [];
  const at = (share: number) => sorted[Math.floor((sorted.length - 1) * share)] ?? 0;
  const { user, system } = process.cpuUsage();
  const report: LoadReport = {
    ...sums,
    examples,
    p50Millis: at(0.5),
    p99Millis: at(0.99),
    waiting,
    cpuMicros: user + system,
    done: stopping && waiting === 0,
  };
  process.send?.(report);
}

function pick<T>(list: readonly T[]): T {
  return list[Math.floor(random() * list.length)]!;
}

function composeQuestion(id: number, { name, type }: Question, asked: Asked): Buffer {
  const flags = [0x01, asked === 'ad' ? 0x20 : 0];
  const opt = asked === 'do' ? [0, 0, 41, 0x04, 0xd0, 0, 0, 0x80, 0, 0, 0] : [];
  const head = [id >> 8, id & 0xff, ...flags, 0, 1, 0, 0, 0, 0, 0, opt.length > 0 ? 1 : 0];
  return Buffer.from([...head, ...Name.parseText(name).wire, 0, TYPES[type]!, 0, 1, ...opt]);
}
