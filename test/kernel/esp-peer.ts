/** The other end of a wire for xfrm.guest.test.ts: a process in a network namespace of its own, driven by messages. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { type Child, XfrmDataPlane } from '../../kernel/dataplane.ts';
import { openUdp, type UdpSocket } from '../../kernel/sockets.ts';
import { Xfrm } from '../../kernel/xfrm.ts';
import { ip } from './namespace.ts';

export const ECHO_PORT = 7007;

type Order =
  | { verb: 'run'; words: string[] }
  | { verb: 'install'; child: Child }
  | { verb: 'carry'; id: number }
  | { verb: 'remove'; id: number }
  | { verb: 'usage'; id: number }
  | {
      verb: 'send';
      family: 4 | 6;
      /** The port; and the address, where it is not the one that the route gives. */
      from: number;
      source?: Uint8Array;
      to: { bytes: Uint8Array; port: number };
      data: Uint8Array;
    };

/** What the tests hold of it. */
export class EspPeer {
  readonly #process: ChildProcess;

  private constructor(process: ChildProcess) {
    this.#process = process;
  }

  static async start(): Promise<EspPeer> {
    const started = spawn('unshare', ['-n', process.execPath, fileURLToPath(import.meta.url)], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      serialization: 'advanced',
      env: { PATH: process.env.PATH },
    });
    await once(started, 'message');
    return new EspPeer(started);
  }

  get pid(): number {
    return this.#process.pid!;
  }

  /** Resolves with the answer; rejects with what went wrong there. */
  async order(order: Order): Promise<unknown> {
    this.#process.send(order);
    const [{ error, value }] = await once(this.#process, 'message');
    if (error) throw new Error(error);
    return value;
  }

  async stop(): Promise<void> {
    const ended = once(this.#process, 'exit');
    this.#process.disconnect();
    await ended;
  }
}

function serve(): void {
  const plane = new XfrmDataPlane(Xfrm.open());
  const echo = (socket: UdpSocket) => {
    for (const { data, remote, local } of socket.receiveBatch()) socket.send(data, remote, local.address);
  };
  for (const family of [4, 6] as const) openUdp({ family, port: ECHO_PORT, onReadable: echo });
  openUdp({ family: 4, port: 500, onReadable: echo });
  openUdp({ family: 4, port: 4500, udpEncap: true, onReadable: echo });
  plane.installExemptions();
  const obey = (order: Order): unknown => {
    switch (order.verb) {
      case 'run':
        return ip(...order.words);
      case 'install':
        return plane.installPair(order.child);
      case 'carry':
        return plane.carry(order.id);
      case 'remove':
        return plane.removePair(order.id);
      case 'usage':
        return plane.usage(order.id);
      case 'send': {
        const { family, source } = order;
        const socket = openUdp({
          family,
          port: order.from,
          bypassPolicy: true,
          ...(source && { address: source }),
        });
        const { bytes, port } = order.to;
        const refused = socket.send(order.data, { address: { family, bytes }, port });
        socket.close();
        return refused;
      }
    }
  };
  process.on('message', (order: Order) => {
    try {
      process.send!({ value: obey(order) });
    } catch (error) {
      process.send!({ error: String(error) });
    }
  });
  process.on('disconnect', () => process.exit());
  process.send!({ value: 'ready' });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) serve();
