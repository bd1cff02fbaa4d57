// A small client of strongSwan's control protocol, vici (strongSwan's src/libcharon/plugins/vici/README.md): one
// connection, so that no process start is measured along with what charon does.
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** A message: values, and sections of values. Lists are not needed here and read as arrays. */
export type ViciMessage = { [name: string]: string | string[] | ViciMessage };

export type ViciPacket = { type: number; name?: string; message: ViciMessage };

export const PACKET = {
  COMMAND: 0,
  RESPONSE: 1,
  UNKNOWN_COMMAND: 2,
  REGISTER: 3,
  CONFIRMED: 5,
  UNKNOWN_EVENT: 6,
  EVENT: 7,
} as const;
const ELEMENT = {
  SECTION_START: 1,
  SECTION_END: 2,
  KEY_VALUE: 3,
  LIST_START: 4,
  LIST_ITEM: 5,
  LIST_END: 6,
} as const;
const named: number[] = [PACKET.COMMAND, PACKET.REGISTER, PACKET.EVENT];

/** One connection to charon. Commands are sent one at a time. */
export class Vici {
  readonly #socket: Socket;
  #listeners: { takes: (packet: ViciPacket) => boolean; done: (packet: ViciPacket) => void }[] = [];
  #received: Buffer = Buffer.alloc(0);

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
  }

  static async open(path: string): Promise<Vici> {
    const socket = connect(path);
    await once(socket, 'connect');
    return new Vici(socket);
  }

  /** Asks for an event; it can be waited for from now on. */
  async register(event: string): Promise<void> {
    const answer = this.#next(({ type }) => type === PACKET.CONFIRMED || type === PACKET.UNKNOWN_EVENT);
    this.#send({ type: PACKET.REGISTER, name: event, message: {} });
    if ((await answer).type !== PACKET.CONFIRMED) throw new Error(`charon knows no event ${event}`);
  }

  /** The next event of that name. */
  async event(name: string): Promise<ViciMessage> {
    return (await this.#next(packet => packet.type === PACKET.EVENT && packet.name === name)).message;
  }

  /** Rejects with charon's own words when it says `success = no`. */
  async command(name: string, message: ViciMessage): Promise<ViciMessage> {
    const answer = this.#next(({ type }) => type === PACKET.RESPONSE || type === PACKET.UNKNOWN_COMMAND);
    this.#send({ type: PACKET.COMMAND, name, message });
    const response = await answer;
    if (response.type !== PACKET.RESPONSE) throw new Error(`charon knows no command ${name}`);
    if (response.message.success === 'no') throw new Error(`${name}: ${response.message.errmsg}`);
    return response.message;
  }

  close(): void {
    this.#socket.destroy();
  }

  #next(takes: (packet: ViciPacket) => boolean): Promise<ViciPacket> {
    return new Promise(done => this.#listeners.push({ takes, done }));
  }

  #send(packet: ViciPacket): void {
    const body = composeViciPacket(packet);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(body.length);
    this.#socket.write(Buffer.concat([length, body]));
  }

  #take(chunk: Buffer): void {
    this.#received = Buffer.concat([this.#received, chunk]);
    while (this.#received.length >= 4 && this.#received.length >= 4 + this.#received.readUInt32BE(0)) {
      const end = 4 + this.#received.readUInt32BE(0);
      const packet = parseViciPacket(this.#received.subarray(4, end));
      this.#received = this.#received.subarray(end);
      const taking = this.#listeners.filter(({ takes }) => takes(packet));
      this.#listeners = this.#listeners.filter(listener => !taking.includes(listener));
      for (const { done } of taking) done(packet);
    }
  }
}

/** Without the length that goes before it on the socket. */
export function composeViciPacket({ type, name, message }: ViciPacket): Buffer {
  const head = name === undefined ? [Buffer.of(type)] : [Buffer.of(type), short(name)];
  return Buffer.concat([...head, ...elements(message)]);
}

function elements(message: ViciMessage): Buffer[] {
  return Object.entries(message).flatMap(([name, value]) => {
    if (typeof value === 'string') return [Buffer.of(ELEMENT.KEY_VALUE), short(name), long(value)];
    if (Array.isArray(value)) {
      const items = value.flatMap(item => [Buffer.of(ELEMENT.LIST_ITEM), long(item)]);
      return [Buffer.of(ELEMENT.LIST_START), short(name), ...items, Buffer.of(ELEMENT.LIST_END)];
    }
    const inside = elements(value);
    return [Buffer.of(ELEMENT.SECTION_START), short(name), ...inside, Buffer.of(ELEMENT.SECTION_END)];
  });
}

/** A string behind one octet of length. */
const short = (text: string) => Buffer.concat([Buffer.of(Buffer.byteLength(text)), Buffer.from(text)]);

/** A string behind two octets of length. */
const long = (text: string) => {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(Buffer.byteLength(text));
  return Buffer.concat([length, Buffer.from(text)]);
};

/** Throws RangeError on bytes that end too early or mean nothing. */
export function parseViciPacket(bytes: Buffer): ViciPacket {
  let at = 0;
  const text = (lengthOctets: 1 | 2) => {
    const size = bytes.readUIntBE(at, lengthOctets);
    at += lengthOctets + size;
    if (at > bytes.length) throw new RangeError('the vici packet ends within a string');
    return bytes.toString('utf8', at - size, at);
  };
  const type = bytes.readUInt8(at++);
  const name = named.includes(type) ? { name: text(1) } : {};
  const message: ViciMessage = {};
  const open = [message];
  let list: string[] = [];
  while (at < bytes.length) {
    const element = bytes.readUInt8(at++);
    const into = open.at(-1)!;
    if (element === ELEMENT.SECTION_START) {
      const section: ViciMessage = {};
      into[text(1)] = section;
      open.push(section);
    } else if (element === ELEMENT.SECTION_END && open.length > 1) open.pop();
    else if (element === ELEMENT.KEY_VALUE) into[text(1)] = text(2);
    else if (element === ELEMENT.LIST_START) {
      list = [];
      into[text(1)] = list;
    } else if (element === ELEMENT.LIST_ITEM) list.push(text(2));
    else if (element !== ELEMENT.LIST_END) throw new RangeError(`vici element ${element} in the wrong place`);
  }
  return { type, ...name, message };
}
