/**
 * Whose turn it is: so many questions at one time, and nobody's dead names keep others from being asked.
 *
 * A zone here is what one owner can fill at will: the last two labels, three under countries where the second is short (`co.uk`), the
 * network in reverse zones. It may have a share of the questions in flight; more of it wait among themselves. Zones take
 * turns. When all places are taken and a question waits, the oldest that has had its fair time goes: of the zone that
 * has most, else of all. An upstream that answers does so long before. Pure but for one timer.
 */
import type { Name } from '../dns/name.ts';

export type TurnLimits = {
  inFlight: number;
  inFlightOfZone: number;
  waiting: number;
  waitingOfZone: number;
  /** A question that has been in flight so long has had its fair time; it stays while nobody needs its place. */
  fairMillis: number;
};

export const TURN_LIMITS: TurnLimits = {
  inFlight: 512,
  inFlightOfZone: 128,
  waiting: 2048,
  waitingOfZone: 512,
  fairMillis: 200,
};

/** One question's place. */
export type Turn = {
  readonly zone: Zone;
  /** Called once, at once or later. */
  readonly begin: (turn: Turn) => void;
  /** Called instead of, or after, `begin`: there is no place, or no longer. */
  readonly evict: (why: 'crowded' | 'slow') => void;
  begunAt: number;
};

type Zone = { key: string; inFlight: Set<Turn>; waiting: Set<Turn> };

export class Turns {
  readonly #limits: TurnLimits;
  readonly #now: () => number;
  readonly #zones = new Map<string, Zone>();
  /** Oldest first. */
  readonly #inFlight = new Set<Turn>();
  /** Zones with questions that wait, the one whose turn is next in front. */
  readonly #queue = new Set<Zone>();
  #waiting = 0;
  /** What is called from within may call back. */
  #advancing = false;
  #freed = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(limits: TurnLimits, now: () => number) {
    this.#limits = limits;
    this.#now = now;
  }

  get inFlight(): number {
    return this.#inFlight.size;
  }

  get waiting(): number {
    return this.#waiting;
  }

  /** Takes a place or waits for one. Whoever got or waits for one calls `end` when it is no longer needed. */
  take(key: string, begin: Turn['begin'], evict: Turn['evict']): Turn {
    let zone = this.#zones.get(key);
    if (zone === undefined) {
      zone = { key, inFlight: new Set(), waiting: new Set() };
      this.#zones.set(key, zone);
    }
    const turn: Turn = { zone, begin, evict, begunAt: Number.NaN };
    if (zone.waiting.size === 0 && this.#queue.size === 0 && this.#hasPlace(zone)) {
      this.#begin(turn);
      return turn;
    }
    zone.waiting.add(turn);
    this.#queue.add(zone);
    this.#waiting++;
    this.#advance();
    if (zone.waiting.has(turn)) this.#keepBounds(zone);
    return turn;
  }

  /** The question is answered, given up, or was evicted. */
  end(turn: Turn): void {
    const { zone } = turn;
    if (zone.waiting.delete(turn)) {
      this.#waiting--;
      if (zone.waiting.size === 0) this.#queue.delete(zone);
    }
    zone.inFlight.delete(turn);
    const freed = this.#inFlight.delete(turn);
    if (zone.inFlight.size + zone.waiting.size === 0 && this.#zones.get(zone.key) === zone) {
      this.#zones.delete(zone.key);
    }
    if (freed && this.#queue.size > 0) this.#advance();
  }

  #hasPlace(zone: Zone): boolean {
    return this.#inFlight.size < this.#limits.inFlight && zone.inFlight.size < this.#limits.inFlightOfZone;
  }

  #begin(turn: Turn): void {
    turn.begunAt = this.#now();
    turn.zone.inFlight.add(turn);
    this.#inFlight.add(turn);
    turn.begin(turn);
  }

  /** Lets in who may come in, one of each zone in turn, and makes room where the fair time is over. */
  #advance(): void {
    if (this.#advancing) {
      this.#freed = true;
      return;
    }
    this.#advancing = true;
    let soonest = Number.POSITIVE_INFINITY;
    // When all zones in a row could not get a place, we are done.
    for (let passed = 0; passed < this.#queue.size; ) {
      const zone = first(this.#queue)!;
      const wait = this.#makeRoom(zone);
      this.#queue.delete(zone);
      if (wait === 0) this.#beginNext(zone);
      if (zone.waiting.size > 0) this.#queue.add(zone);
      soonest = Math.min(soonest, wait === 0 ? Number.POSITIVE_INFINITY : wait);
      passed = wait === 0 || this.#freed ? 0 : passed + 1;
      this.#freed = false;
    }
    this.#advancing = false;
    clearTimeout(this.#timer);
    if (this.#queue.size === 0) return;
    this.#timer = setTimeout(() => this.#advance(), Math.ceil(Math.min(soonest, this.#limits.fairMillis)));
  }

  #beginNext(zone: Zone): void {
    const turn = first(zone.waiting);
    if (turn === undefined) return;
    zone.waiting.delete(turn);
    this.#waiting--;
    this.#begin(turn);
  }

  /** Zero when there is a place now; else how long until one may be made, milliseconds. */
  #makeRoom(zone: Zone): number {
    if (this.#hasPlace(zone)) return 0;
    const crowded = zone.inFlight.size >= this.#limits.inFlightOfZone;
    const largest = crowded ? zone : this.#largestZone();
    let soonest = Number.POSITIVE_INFINITY;
    for (const turn of [first(largest.inFlight), crowded ? undefined : first(this.#inFlight)]) {
      if (turn === undefined) continue;
      const left = turn.begunAt + this.#limits.fairMillis - this.#now();
      if (left <= 0) {
        this.#remove(turn);
        turn.evict('slow');
        return 0;
      }
      soonest = Math.min(soonest, left);
    }
    return soonest;
  }

  #remove(turn: Turn): void {
    turn.zone.inFlight.delete(turn);
    this.#inFlight.delete(turn);
  }

  /** Too many wait: the last to come goes, of this zone if it has more than its share, else of the one with most. */
  #keepBounds(zone: Zone): void {
    const { waiting, waitingOfZone } = this.#limits;
    if (zone.waiting.size <= waitingOfZone && this.#waiting <= waiting) return;
    let most = zone;
    if (zone.waiting.size <= waitingOfZone) {
      for (const other of this.#queue) if (other.waiting.size > most.waiting.size) most = other;
    }
    const last = [...most.waiting].at(-1)!;
    this.end(last);
    last.evict('crowded');
  }

  #largestZone(): Zone {
    let largest = first(this.#inFlight)!.zone;
    for (const zone of this.#zones.values()) {
      if (zone.inFlight.size > largest.inFlight.size) largest = zone;
    }
    return largest;
  }
}

function first<T>(set: Set<T>): T | undefined {
  return set.values().next().value;
}

/** The key of the zone that a name counts to. */
export function zoneOf(name: Name): string {
  const { wire, labelCount } = name;
  if (labelCount <= 2) return name.key;
  const starts: number[] = [];
  for (let at = 0; wire[at] !== 0; at += 1 + wire[at]!) starts.push(at);
  const second = wire[starts[labelCount - 2]!]!;
  const top = wire[starts[labelCount - 1]!]!;
  let labels = top === 2 && second <= 3 ? 3 : 2;
  if (name.key.endsWith('\x04arpa\0')) labels = second === 7 ? 4 : 10; // in-addr: /16; ip6: /32
  return name.key.slice(starts[Math.max(labelCount - labels, 0)]!);
}
