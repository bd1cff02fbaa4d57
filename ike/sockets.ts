import type { Engine } from './engine.ts';
import type { Effect, Endpoint, IpAddress } from './types.ts';

/**
 * The engine's only IO: UDP sockets on the IKE and the NAT traversal port, and one timer.
 *
 * Sockets come from a factory, so that this room needs no other; `kernel/sockets.ts` openUdp fits it as it is.
 */

export type IkeSocket = {
  /** What has arrived, a bounded number; empty when nothing has. `local` is the address it was sent to. */
  receiveBatch(): { data: Uint8Array; local: Endpoint; remote: Endpoint }[];
  /** Send from this address; the errno's name when the kernel did not take it. */
  send(data: Uint8Array, remote: Endpoint, local?: IpAddress): string | undefined;
  close(): void;
};

export type OpenIkeSocket = (options: {
  family: 4 | 6;
  /** Absent: any address. */
  address?: Uint8Array;
  port: number;
  /** Never subject to the policies that its exchanges lead to. */
  bypassPolicy: true;
  /** On the NAT traversal port the kernel takes ESP in UDP out of what comes in (RFC 3948). */
  udpEncap: boolean;
  onReadable: (socket: IkeSocket) => void;
}) => IkeSocket;

export type IkeSocketsOptions = {
  engine: Engine;
  open: OpenIkeSocket;
  /** One entry per family, or per address when bound to some. Default: any IPv4 and any IPv6 address. */
  listen?: { family: 4 | 6; address?: Uint8Array }[];
  /** As in the engine's configuration. */
  ports?: { ike: number; natt: number };
  /** Monotonic milliseconds. */
  now: () => number;
  /** Every effect except 'send', in order. It may call act(): what follows from that comes after what is here already. */
  perform: (effect: Exclude<Effect, { kind: 'send' }>) => void;
};

export class IkeSockets {
  readonly counters = { sent: 0, sendErrors: 0 };
  readonly #options: IkeSocketsOptions;
  readonly #ports: { ike: number; natt: number };
  #sockets: { family: 4 | 6; address: Uint8Array | undefined; port: number; socket: IkeSocket }[] = [];
  #effects: Effect[] = [];
  #performing = false;
  #timer: NodeJS.Timeout | undefined;
  #timerAt = Number.POSITIVE_INFINITY;

  constructor(options: IkeSocketsOptions) {
    this.#options = options;
    this.#ports = options.ports ?? { ike: 500, natt: 4500 };
  }

  /** Opens every socket or, when one is refused, none: the factory's error is thrown. */
  start(): void {
    const { open, listen = [{ family: 4 }, { family: 6 }] } = this.#options;
    try {
      for (const { family, address } of listen) {
        for (const port of [this.#ports.ike, this.#ports.natt]) {
          const socket = open({
            family,
            ...(address ? { address } : {}),
            port,
            bypassPolicy: true,
            udpEncap: port === this.#ports.natt,
            onReadable: readable => this.#read(readable),
          });
          this.#sockets.push({ family, address, port, socket });
        }
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Let the engine do something now, and do what it says: `ike.act((engine, now) => engine.close(id, now))`. */
  act(what: (engine: Engine, now: number) => Effect[]): void {
    // One by one: to close everything takes more effects than a call can have arguments.
    for (const effect of what(this.#options.engine, this.#options.now())) this.#effects.push(effect);
    if (this.#performing) return;
    this.#performing = true;
    const errors: unknown[] = [];
    for (const effect of this.#effects) {
      try {
        if (effect.kind === 'send') this.#send(effect);
        else this.#options.perform(effect);
      } catch (error) {
        errors.push(error);
      }
    }
    this.#effects = [];
    this.#performing = false;
    this.#arm();
    if (errors.length > 0) throw errors[0];
  }

  /** No DELETEs are sent: call `act(engine.closeAll)` before, and wait a moment if there is one. */
  close(): void {
    clearTimeout(this.#timer);
    this.#timerAt = Number.POSITIVE_INFINITY;
    for (const { socket } of this.#sockets) socket.close();
    this.#sockets = [];
  }

  #read(socket: IkeSocket): void {
    for (const datagram of socket.receiveBatch()) this.act((engine, now) => engine.receive(datagram, now));
  }

  #send({ data, local, remote }: Extract<Effect, { kind: 'send' }>): void {
    const own = this.#sockets.find(
      ({ family, address, port }) =>
        port === local.port &&
        family === remote.address.family &&
        (!address || Buffer.compare(address, local.address.bytes) === 0),
    );
    // An unreachable peer is no error of ours: the request goes out again, or its time runs out.
    if (own?.socket.send(data, remote, local.address) === undefined && own) this.counters.sent++;
    else this.counters.sendErrors++;
  }

  #arm(): void {
    const { engine, now } = this.#options;
    const at = this.#sockets.length > 0 ? engine.nextDeadline()?.at : undefined;
    if (at === this.#timerAt) return;
    clearTimeout(this.#timer);
    this.#timerAt = at ?? Number.POSITIVE_INFINITY;
    if (at === undefined) return;
    this.#timer = setTimeout(
      () => {
        this.#timerAt = Number.POSITIVE_INFINITY;
        this.act((due, time) => due.tick(time));
      },
      Math.max(0, Math.ceil(at - now())),
    );
  }
}
