/** DNS messages: values to bytes, owner names compressed (RFC 1035 §4.1.4), truncation (RFC 2181 §9). */
import { composeOptions } from './edns.ts';
import type { Message, ResourceRecord } from './message.ts';
import { DnsFormatError, Name } from './name.ts';
import { TYPE } from './types.ts';

const MAX_MESSAGE_BYTES = 0xffff;

/**
 * The wire form of a message.
 *
 * `maxBytes`: what the transport takes (65,535 over TCP). A message that does not fit loses its additional records
 * first; when answer or authority do not fit, all records go and TC is set, OPT stays (RFC 6891 §7).
 * Owner names are compressed against all names written before; names in RDATA are not (RFC 3597 §4).
 */
export function composeMessage(message: Message, maxBytes: number = MAX_MESSAGE_BYTES): Uint8Array {
  const whole = compose(message);
  if (whole.length <= maxBytes) return whole;
  const lean = message.additional.length > 0 ? compose({ ...message, additional: [] }) : whole;
  if (lean.length <= maxBytes) return lean;
  const empty = { ...message, truncated: true, answer: [], authority: [], additional: [] };
  const short = compose(empty);
  if (short.length <= maxBytes || empty.edns === undefined) return short;
  return compose({ ...empty, edns: { ...empty.edns, options: [] } });
}

function compose(message: Message): Uint8Array {
  const writer = new Writer();
  const opt = message.edns === undefined ? [] : [optRecord(message)];
  writer.uint16(message.id);
  writer.uint16(flags(message));
  for (const section of [message.questions, message.answer, message.authority]) writer.uint16(section.length);
  writer.uint16(message.additional.length + opt.length);
  for (const { name, type, class: rrClass } of message.questions) {
    writer.name(name);
    writer.uint16(type);
    writer.uint16(rrClass);
  }
  for (const section of [message.answer, message.authority, message.additional, opt]) {
    for (const record of section) writer.record(record);
  }
  return writer.done();
}

function flags(message: Message): number {
  if (message.rcode > 15 && message.edns === undefined)
    throw new DnsFormatError('extended RCODE without EDNS');
  return (
    (message.response ? 0x8000 : 0) |
    ((message.opcode & 0x0f) << 11) |
    (message.authoritative ? 0x0400 : 0) |
    (message.truncated ? 0x0200 : 0) |
    (message.recursionDesired ? 0x0100 : 0) |
    (message.recursionAvailable ? 0x0080 : 0) |
    (message.authenticData ? 0x0020 : 0) |
    (message.checkingDisabled ? 0x0010 : 0) |
    (message.rcode & 0x0f)
  );
}

function optRecord({ edns, rcode }: Message): ResourceRecord {
  const { udpSize, version, dnssecOk, options } = edns!;
  const ttlSeconds = (rcode >> 4) * 0x1000000 + (version << 16) + (dnssecOk ? 0x8000 : 0);
  return { name: Name.root, type: TYPE.OPT, class: udpSize, ttlSeconds, rdata: composeOptions(options) };
}

/** Grows as it is written; remembers where each name and each of its suffixes stands. */
class Writer {
  #bytes = new Uint8Array(1232);
  #at = 0;
  readonly #offsets = new Map<string, number>();

  uint16(value: number): void {
    this.#room(2);
    this.#bytes[this.#at++] = value >> 8;
    this.#bytes[this.#at++] = value & 0xff;
  }

  /** Written whole or up to the longest suffix that stands earlier; case counts, so that spelling survives. */
  name(name: Name): void {
    const { wire } = name;
    let text = Buffer.from(wire.buffer, wire.byteOffset, wire.byteLength).toString('latin1');
    this.#room(wire.length + 1);
    for (let at = 0; wire[at] !== 0; at += 1 + wire[at]!) {
      const known = this.#offsets.get(text);
      if (known !== undefined) {
        this.uint16(0xc000 | known);
        return;
      }
      if (this.#at <= 0x3fff) this.#offsets.set(text, this.#at);
      const label = wire.subarray(at, at + 1 + wire[at]!);
      this.#bytes.set(label, this.#at);
      this.#at += label.length;
      text = text.slice(label.length);
    }
    this.#bytes[this.#at++] = 0;
  }

  record({ name, type, class: rrClass, ttlSeconds, rdata }: ResourceRecord): void {
    if (rdata.length > 0xffff) throw new DnsFormatError('RDATA longer than 65,535 bytes');
    this.name(name);
    this.#room(10 + rdata.length);
    this.uint16(type);
    this.uint16(rrClass);
    this.uint16(Math.floor(ttlSeconds / 0x10000));
    this.uint16(ttlSeconds & 0xffff);
    this.uint16(rdata.length);
    this.#room(rdata.length);
    this.#bytes.set(rdata, this.#at);
    this.#at += rdata.length;
  }

  done(): Uint8Array {
    return this.#bytes.slice(0, this.#at);
  }

  #room(count: number): void {
    if (this.#at + count <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(this.#bytes.length * 2, this.#at + count));
    grown.set(this.#bytes.subarray(0, this.#at));
    this.#bytes = grown;
  }
}
