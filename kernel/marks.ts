/**
 * How Holdfast knows its own in the kernel: reqids 0x4846xxxx ("HF") and policy indexes 0x48xxxxxx.
 *
 * Nothing outside these ranges is ever changed or removed.
 */
import type { Direction, PolicyStatus, SaStatus } from './xfrm-types.ts';

const FIRST_REQID = 0x48460000;
const LAST_REQID = 0x4846ffff;
const FIRST_INDEX = 0x48000000;
const LAST_INDEX = 0x48ffffff;
/** The kernel wants the direction in the lowest three bits of an index. */
const INDEX_STEP = 8;
const DIRECTION_BITS: Record<Direction, number> = { in: 0, out: 1, fwd: 2 };

/** Hands out reqids and policy indexes that nobody of ours uses at the moment. */
export class Marks {
  readonly #reqids = new Set<number>();
  readonly #indexes = new Set<number>();
  #nextReqid = FIRST_REQID;
  #nextIndex = FIRST_INDEX;

  takeReqid(): number {
    this.#nextReqid = free(this.#reqids, this.#nextReqid, 1, FIRST_REQID, LAST_REQID, 'reqid');
    this.#reqids.add(this.#nextReqid);
    return this.#nextReqid;
  }

  takeIndex(direction: Direction): number {
    this.#nextIndex = free(
      this.#indexes,
      this.#nextIndex,
      INDEX_STEP,
      FIRST_INDEX,
      LAST_INDEX,
      'policy index',
    );
    this.#indexes.add(this.#nextIndex);
    return this.#nextIndex | DIRECTION_BITS[direction];
  }

  giveBackReqid(reqid: number): void {
    this.#reqids.delete(reqid);
  }

  giveBackIndex(index: number): void {
    this.#indexes.delete(index - (index % INDEX_STEP));
  }

  /** Keeps off an index that was found in the kernel. */
  reserveIndex(index: number): void {
    this.#indexes.add(index - (index % INDEX_STEP));
  }
}

export function isOurReqid(reqid: number): boolean {
  return reqid >= FIRST_REQID && reqid <= LAST_REQID;
}

export function isOurIndex(index: number): boolean {
  return index >= FIRST_INDEX && index <= LAST_INDEX;
}

export function isOurSa(sa: SaStatus): boolean {
  return isOurReqid(sa.reqid);
}

/** Ours by index, and, where it has templates, by the reqid of each. */
export function isOurPolicy(policy: PolicyStatus): boolean {
  return isOurIndex(policy.index) && policy.templates.every(template => isOurReqid(template.reqid));
}

/** The next free value after `last`, round the range; the range is far larger than any table, so this is short. */
function free(
  taken: Set<number>,
  last: number,
  step: number,
  first: number,
  end: number,
  what: string,
): number {
  let value = last;
  do {
    value += step;
    if (value > end) value = first;
    if (!taken.has(value)) return value;
  } while (value !== last);
  throw new Error(`No ${what} is free.`);
}
