/**
 * Records of octets outside the heap of V8, in blocks that are filled one after the other.
 *
 * A hundred thousand small strings cost the collector of garbage a look at each, and half as much memory again in gaps
 * between them; blocks of octets cost neither. What is released leaves a hole until its whole block is given back: so
 * whoever wants room releases the oldest records first, and appends again what he wants to keep.
 */

const LENGTH_OCTETS = 4;

/** `serial` counts blocks, `records` those that are not released. */
type Block = { octets: Buffer; end: number; records: number; serial: number };

export class OctetLog {
  readonly #blockOctets: number;
  /** A record's position is its block's place here times the size of blocks, and its offset therein. */
  readonly #places: (Block | undefined)[] = [];
  readonly #freePlaces: number[] = [];
  #current: { block: Block; place: number } | undefined;
  #blocks = 0;
  #octets = 0;

  /** Longer records get blocks of their own size. */
  constructor(blockOctets: number) {
    this.#blockOctets = blockOctets;
  }

  /** Of all blocks, holes and unused ends included. */
  get octets(): number {
    return this.#octets;
  }

  /** Puts the parts behind one another; the position of the record they make. */
  append(...parts: readonly Uint8Array[]): number {
    let length = LENGTH_OCTETS;
    for (const part of parts) length += part.length;
    const { block, place } = this.#withRoom(length);
    const start = block.end;
    let at = block.octets.writeUInt32LE(length, start);
    for (const part of parts) {
      block.octets.set(part, at);
      at += part.length;
    }
    block.end = at;
    block.records++;
    return place * this.#blockOctets + start;
  }

  /** A view of the record, good until something is released or appended. */
  read(position: number): Buffer {
    const { octets } = this.#blockOf(position);
    const start = position % this.#blockOctets;
    return octets.subarray(start + LENGTH_OCTETS, start + octets.readUInt32LE(start));
  }

  /** The record is not wanted any more; its block is given back with the last one in it. */
  release(position: number): void {
    const block = this.#blockOf(position);
    if (--block.records > 0) return;
    if (block === this.#current?.block) {
      block.end = 0;
      return;
    }
    const place = Math.floor(position / this.#blockOctets);
    this.#places[place] = undefined;
    this.#freePlaces.push(place);
    this.#blocks--;
    this.#octets -= block.octets.length;
  }

  /** Whether its block is so old that as many came after it as half of those there are. */
  isOld(position: number): boolean {
    const newest = this.#current?.block.serial ?? 0;
    return 2 * (newest - this.#blockOf(position).serial) >= this.#blocks;
  }

  #blockOf(position: number): Block {
    return this.#places[Math.floor(position / this.#blockOctets)]!;
  }

  #withRoom(length: number): { block: Block; place: number } {
    const current = this.#current;
    if (current !== undefined && current.block.end + length <= current.block.octets.length) return current;
    const octets = Buffer.allocUnsafeSlow(Math.max(length, this.#blockOctets));
    const serial = (current?.block.serial ?? 0) + 1;
    const block = { octets, end: 0, records: 0, serial };
    const place = this.#freePlaces.pop() ?? this.#places.length;
    this.#places[place] = block;
    this.#blocks++;
    this.#octets += octets.length;
    this.#current = { block, place };
    // The one before may have been emptied while it was the current one.
    if (current?.block.records === 0) {
      current.block.records = 1;
      this.release(current.place * this.#blockOctets);
    }
    return this.#current;
  }
}
