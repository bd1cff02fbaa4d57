/**
 * Domain names as wire bytes (RFC 1035 §3.1).
 *
 * A label may hold any byte: dots, zeros, bytes over 0x7f. Comparison folds ASCII case only (RFC 4343).
 */

/** A message, name or record that does not follow the wire or text format. The only error the parsers throw. */
export class DnsFormatError extends Error {
  override name = 'DnsFormatError';
}

const MAX_NAME_BYTES = 255;
const MAX_LABEL_BYTES = 63;
/** More pointers than labels have no honest use. */
const MAX_POINTERS = 127;

const LOWER = new Uint8Array(256);
for (let byte = 0; byte < 256; byte++) LOWER[byte] = byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte;

/**
 * A fully qualified domain name. Immutable; spelling (case) is kept, comparison ignores it.
 *
 * `wire`: length-prefixed labels ending in the root's zero byte, 1 to 255 bytes. Never write to it.
 */
export class Name {
  readonly wire: Uint8Array;
  /** Labels without the root: 0 for the root, at most 127. */
  readonly labelCount: number;
  #key: string | undefined;

  /** For this file and `read`: takes bytes already known to be a good name. */
  private constructor(wire: Uint8Array, labelCount: number) {
    this.wire = wire;
    this.labelCount = labelCount;
  }

  static readonly root: Name = new Name(Uint8Array.of(0), 0);

  /** The uncompressed name that fills `wire` exactly. */
  static fromWire(wire: Uint8Array): Name {
    const { name, end } = Name.readUncompressed(wire, 0, wire.length);
    if (end !== wire.length) throw new DnsFormatError('bytes after the name');
    return name;
  }

  /** The uncompressed name at `offset`; a compression pointer is refused. Copies the bytes. */
  static readUncompressed(bytes: Uint8Array, offset: number, limit: number): { name: Name; end: number } {
    let at = offset;
    let labels = 0;
    for (;;) {
      if (at >= limit) throw new DnsFormatError('name runs past its end');
      const length = bytes[at]!;
      if (length > MAX_LABEL_BYTES) throw new DnsFormatError('label longer than 63 bytes or compressed');
      at += 1 + length;
      if (at > limit) throw new DnsFormatError('label runs past its end');
      if (at - offset > MAX_NAME_BYTES) throw new DnsFormatError('name longer than 255 bytes');
      if (length === 0) break;
      labels++;
    }
    if (labels === 0) return { name: Name.root, end: at };
    return { name: new Name(copyBytes(bytes, offset, at), labels), end: at };
  }

  /** Where the uncompressed name at `offset` ends, without making it; undefined for what is compressed or no good name. */
  static endOfUncompressed(bytes: Uint8Array, offset: number, limit: number): number | undefined {
    for (let at = offset; at < limit; ) {
      const length = bytes[at]!;
      at += 1 + length;
      if (length > MAX_LABEL_BYTES || at > limit || at - offset > MAX_NAME_BYTES) return undefined;
      if (length === 0) return at;
    }
    return undefined;
  }

  /**
   * The possibly compressed name at `offset` of a whole message (RFC 1035 §4.1.4).
   *
   * Every pointer leads to before the place where the name or the part that held the pointer began, so the walk
   * ends, and a name costs at most 255 bytes of labels and 127 pointers. `end` is the offset after the name in place.
   */
  static read(
    message: Uint8Array,
    offset: number,
    limit: number = message.length,
  ): { name: Name; end: number } {
    let at = offset;
    let partStart = offset;
    let end = -1;
    let pointers = 0;
    let used = 0;
    let labels = 0;
    const scratch = nameScratch;
    for (;;) {
      const bound = end === -1 ? limit : message.length;
      if (at >= bound) throw new DnsFormatError('name runs past its end');
      const length = message[at]!;
      if (length >= 0xc0) {
        if (at + 2 > bound) throw new DnsFormatError('compression pointer cut short');
        const target = ((length & 0x3f) << 8) | message[at + 1]!;
        if (end === -1) end = at + 2;
        if (target >= partStart) throw new DnsFormatError('compression pointer does not lead backwards');
        if (++pointers > MAX_POINTERS) throw new DnsFormatError('too many compression pointers');
        at = target;
        partStart = target;
        continue;
      }
      if (length > MAX_LABEL_BYTES) throw new DnsFormatError('label type is not supported');
      if (at + 1 + length > bound) throw new DnsFormatError('label runs past its end');
      if (used + 1 + length > MAX_NAME_BYTES) throw new DnsFormatError('name longer than 255 bytes');
      scratch[used++] = length;
      for (let i = 1; i <= length; i++) scratch[used++] = message[at + i]!;
      at += 1 + length;
      if (length === 0) break;
      labels++;
    }
    if (end === -1) end = at;
    if (labels === 0) return { name: Name.root, end };
    return { name: new Name(scratch.slice(0, used), labels), end };
  }

  /**
   * Presentation form to name; a missing final dot is understood (every name is fully qualified).
   *
   * Escapes `\.` and `\DDD` (RFC 1035 §5.1, RFC 4343 §2.1). Text outside Latin-1 is refused: IDNA is not our task.
   */
  static parseText(text: string): Name {
    if (text === '.') return Name.root;
    if (text === '') throw new DnsFormatError('empty name');
    const wire: number[] = [];
    let labelStart = 0;
    let labels = 0;
    wire.push(0);
    const closeLabel = (): void => {
      const length = wire.length - labelStart - 1;
      if (length === 0) throw new DnsFormatError('empty label');
      if (length > MAX_LABEL_BYTES) throw new DnsFormatError('label longer than 63 bytes');
      wire[labelStart] = length;
      labels++;
    };
    for (let i = 0; i < text.length; i++) {
      const character = text[i]!;
      if (character === '.') {
        closeLabel();
        labelStart = wire.length;
        wire.push(0);
        continue;
      }
      let byte = character.charCodeAt(0);
      if (character === '\\') {
        const decimal = /^\d{3}/.exec(text.slice(i + 1, i + 4));
        if (decimal) {
          byte = Number(decimal[0]);
          i += 3;
        } else {
          const next = text[i + 1];
          if (next === undefined || /\d/.test(next)) throw new DnsFormatError('bad escape in name');
          byte = next.charCodeAt(0);
          i += 1;
        }
      }
      if (byte > 0xff) throw new DnsFormatError('name has a character that is not a byte');
      wire.push(byte);
    }
    if (wire.length - labelStart > 1) {
      closeLabel();
      wire.push(0);
    }
    if (wire.length > MAX_NAME_BYTES) throw new DnsFormatError('name longer than 255 bytes');
    return new Name(Uint8Array.from(wire), labels);
  }

  /** Presentation form with a final dot; bytes that are not printable ASCII as `\DDD`. */
  toText(): string {
    if (this.labelCount === 0) return '.';
    let text = '';
    for (let at = 0; this.wire[at] !== 0; at += 1 + this.wire[at]!) {
      for (let i = at + 1; i <= at + this.wire[at]!; i++) {
        const byte = this.wire[i]!;
        if (byte <= 0x20 || byte >= 0x7f) text += `\\${String(byte).padStart(3, '0')}`;
        else if (SPECIAL.has(byte)) text += `\\${String.fromCharCode(byte)}`;
        else text += String.fromCharCode(byte);
      }
      text += '.';
    }
    return text;
  }

  toString(): string {
    return this.toText();
  }

  /** A string that is equal for equal names and for no others; for maps, not for people. */
  get key(): string {
    this.#key ??= Buffer.from(lower(this.wire).buffer).toString('latin1');
    return this.#key;
  }

  /** The same name in lower case (RFC 4034 §6.2). */
  canonical(): Name {
    for (const byte of this.wire)
      if (LOWER[byte] !== byte) return new Name(lower(this.wire), this.labelCount);
    return this;
  }

  equals(other: Name): boolean {
    return this === other || (this.wire.length === other.wire.length && equalTail(this.wire, 0, other.wire));
  }

  /** Whether this name is `ancestor` or below it. */
  isSubdomainOf(ancestor: Name): boolean {
    const strip = this.labelCount - ancestor.labelCount;
    if (strip < 0) return false;
    const offset = this.#offsetOf(strip);
    return this.wire.length - offset === ancestor.wire.length && equalTail(this.wire, offset, ancestor.wire);
  }

  /** Whether this name is below `ancestor` and not `ancestor` itself. */
  isBelow(ancestor: Name): boolean {
    return this.labelCount > ancestor.labelCount && this.isSubdomainOf(ancestor);
  }

  /** One label less; undefined for the root. */
  parent(): Name | undefined {
    return this.labelCount === 0 ? undefined : this.suffix(this.labelCount - 1);
  }

  /** The rightmost `count` labels; the name itself when it has no more. */
  suffix(count: number): Name {
    const strip = this.labelCount - count;
    if (strip <= 0) return this;
    if (count <= 0) return Name.root;
    return new Name(this.wire.subarray(this.#offsetOf(strip)), count);
  }

  /** Labels from left to right, views into `wire`. */
  *labels(): Generator<Uint8Array> {
    for (let at = 0; this.wire[at] !== 0; at += 1 + this.wire[at]!) {
      yield this.wire.subarray(at + 1, at + 1 + this.wire[at]!);
    }
  }

  /** `label` in front of this name; undefined when that exceeds 255 bytes or the label's own limits. */
  prepend(label: Uint8Array): Name | undefined {
    if (label.length === 0 || label.length > MAX_LABEL_BYTES) return undefined;
    if (label.length + 1 + this.wire.length > MAX_NAME_BYTES) return undefined;
    const wire = new Uint8Array(1 + label.length + this.wire.length);
    wire[0] = label.length;
    wire.set(label, 1);
    wire.set(this.wire, 1 + label.length);
    return new Name(wire, this.labelCount + 1);
  }

  /** `*.` in front of this name; undefined when too long. */
  wildcard(): Name | undefined {
    return this.prepend(ASTERISK);
  }

  get isWildcard(): boolean {
    return this.wire[0] === 1 && this.wire[1] === 0x2a;
  }

  /** The name with its suffix `from` replaced by `to` (DNAME, RFC 6672 §2.2); undefined when too long or not below. */
  replaceSuffix(from: Name, to: Name): Name | undefined {
    if (!this.isBelow(from)) return undefined;
    const keep = this.labelCount - from.labelCount;
    const prefixBytes = this.#offsetOf(keep);
    if (prefixBytes + to.wire.length > MAX_NAME_BYTES) return undefined;
    const wire = new Uint8Array(prefixBytes + to.wire.length);
    wire.set(this.wire.subarray(0, prefixBytes));
    wire.set(to.wire, prefixBytes);
    return new Name(wire, keep + to.labelCount);
  }

  /** How many labels, counted from the right, both names share. */
  commonLabels(other: Name): number {
    for (let count = Math.min(this.labelCount, other.labelCount); count > 0; count--) {
      if (this.suffix(count).equals(other.suffix(count))) return count;
    }
    return 0;
  }

  /** Canonical DNS name order (RFC 4034 §6.1): negative, zero or positive. */
  compare(other: Name): number {
    const mine = [...this.labels()];
    const theirs = [...other.labels()];
    for (let i = 1; i <= Math.min(mine.length, theirs.length); i++) {
      const order = compareLabels(mine[mine.length - i]!, theirs[theirs.length - i]!);
      if (order !== 0) return order;
    }
    return mine.length - theirs.length;
  }

  #offsetOf(strip: number): number {
    let at = 0;
    for (let i = 0; i < strip; i++) at += 1 + this.wire[at]!;
    return at;
  }
}

const nameScratch = new Uint8Array(MAX_NAME_BYTES);
const ASTERISK = Uint8Array.of(0x2a);
const SPECIAL = new Set([...'."\\()@;$'].map(character => character.charCodeAt(0)));

/**
 * The bytes from `start` to `end` in memory of their own, as a plain Uint8Array.
 *
 * Datagrams come as Buffers, whose own slice() is a view: names and RDATA would change when the buffer is used again.
 */
export function copyBytes(bytes: Uint8Array, start: number = 0, end: number = bytes.length): Uint8Array {
  const size = end - start;
  if (size > LOOPED) return new Uint8Array(bytes.subarray(start, end));
  const copy = new Uint8Array(size);
  for (let i = 0; i < size; i++) copy[i] = bytes[start + i]!;
  return copy;
}

/** Up to so many bytes a loop beats the view that copying otherwise needs. */
const LOOPED = 64;

/** A copy in ASCII lower case. Length bytes are at most 63 and so never changed. */
function lower(bytes: Uint8Array): Uint8Array {
  const copy = new Uint8Array(bytes.length);
  for (let i = 0; i < bytes.length; i++) copy[i] = LOWER[bytes[i]!]!;
  return copy;
}

function equalTail(bytes: Uint8Array, offset: number, other: Uint8Array): boolean {
  for (let i = 0; i < other.length; i++) if (LOWER[bytes[offset + i]!] !== LOWER[other[i]!]) return false;
  return true;
}

function compareLabels(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const order = LOWER[a[i]!]! - LOWER[b[i]!]!;
    if (order !== 0) return order;
  }
  return a.length - b.length;
}
