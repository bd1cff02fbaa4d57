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
  inFlight: 1024,
  inFlightOfZone: 256,
  waiting: 4096,
  waitingOfZone: 1024,
  fairMillis: 200,
};

/** Zones remembered though nobody asks for their names; above this, empty ones go. */
const MAX_ZONES = 4096;

/** Whoever asks for a turn. */
export type Asker = {
  /** Called once, at once or later. */
  begin(turn: Turn): void;
  /** Called instead of, or after, `begin`: there is no place, or no longer. */
  evict(why: 'crowded' | 'slow'): void;
};

/** One question's place. */
export class Turn {
  readonly zone: Zone;
  readonly asker: Asker;
  begunAt = Number.NaN;
  /** In which chains it is: of its zone, in flight or waiting; and, in flight, of all. */
  ofZone: Chain | undefined;
  ofAll: Chain | undefined;
  readonly zoneLink: Link = { turn: this, before: undefined, after: undefined };
  readonly allLink: Link = { turn: this, before: undefined, after: undefined };

  constructor(zone: Zone, asker: Asker) {
    this.zone = zone;
    this.asker = asker;
  }
}

type Link = { readonly turn: Turn; before: Link | undefined; after: Link | undefined };

/**
 * Turns in a row, the oldest first. Not a Set: its tables, once old, keep what was ever in them until the next full
 * collection, which at thousands of questions a second costs more than asking them.
 */
class Chain {
  size = 0;
  #first: Link | undefined;
  #last: Link | undefined;

  get first(): Turn | undefined {
    return this.#first?.turn;
  }

  get last(): Turn | undefined {
    return this.#last?.turn;
  }

  append(link: Link): void {
    link.before = this.#last;
    if (this.#last === undefined) this.#first = link;
    else this.#last.after = link;
    this.#last = link;
    this.size++;
  }

  remove(link: Link): void {
    if (link.before === undefined) this.#first = link.after;
    else link.before.after = link.after;
    if (link.after === undefined) this.#last = link.before;
    else link.after.before = link.before;
    link.before = undefined;
    link.after = undefined;
    this.size--;
  }

  *[Symbol.iterator](): Generator<Turn> {
    for (let link = this.#first; link !== undefined; link = link.after) yield link.turn;
  }
}

type Zone = { readonly key: string; readonly inFlight: Chain; readonly waiting: Chain };

export class Turns {
  readonly #limits: TurnLimits;
  readonly #now: () => number;
  readonly #zones = new Map<string, Zone>();
  readonly #inFlight = new Chain();
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

  /** Everyone who has a place or waits for one. */
  all(): Turn[] {
    return [...this.#zones.values()].flatMap(({ inFlight, waiting }) => [...inFlight, ...waiting]);
  }

  /** Takes a place or waits for one. Whoever got or waits for one calls `end` when it is no longer needed. */
  take(key: string, asker: Asker): Turn {
    let zone = this.#zones.get(key);
    if (zone === undefined) {
      this.#dropEmptyZones();
      zone = { key, inFlight: new Chain(), waiting: new Chain() };
      this.#zones.set(key, zone);
    }
    const turn = new Turn(zone, asker);
    if (zone.waiting.size === 0 && this.#queue.size === 0 && this.#hasPlace(zone)) {
      this.#begin(turn);
      return turn;
    }
    put(turn, zone.waiting);
    this.#queue.add(zone);
    this.#waiting++;
    this.#advance();
    if (turn.ofZone === zone.waiting) this.#keepBounds(zone);
    return turn;
  }

  /** The question is answered, given up, or was evicted. */
  end(turn: Turn): void {
    const { zone } = turn;
    const waited = turn.ofZone === zone.waiting;
    const freed = turn.ofAll !== undefined;
    this.#remove(turn);
    if (waited) {
      this.#waiting--;
      if (zone.waiting.size === 0) this.#queue.delete(zone);
    }
    if (freed && this.#queue.size > 0) this.#advance();
  }

  /** Zones are kept for their next question until there are many. */
  #dropEmptyZones(): void {
    if (this.#zones.size < MAX_ZONES) return;
    for (const [key, { inFlight, waiting }] of this.#zones) {
      if (inFlight.size + waiting.size === 0) this.#zones.delete(key);
    }
  }

  #hasPlace(zone: Zone): boolean {
    return this.#inFlight.size < this.#limits.inFlight && zone.inFlight.size < this.#limits.inFlightOfZone;
  }

  #begin(turn: Turn): void {
    turn.begunAt = this.#now();
    put(turn, turn.zone.inFlight);
    this.#inFlight.append(turn.allLink);
    turn.ofAll = this.#inFlight;
    turn.asker.begin(turn);
  }

  #remove(turn: Turn): void {
    turn.ofZone?.remove(turn.zoneLink);
    turn.ofAll?.remove(turn.allLink);
    turn.ofZone = undefined;
    turn.ofAll = undefined;
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
      const zone = this.#queue.values().next().value!;
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
    const turn = zone.waiting.first;
    if (turn === undefined) return;
    this.#remove(turn);
    this.#waiting--;
    this.#begin(turn);
  }

  /** Zero when there is a place now; else how long until one may be made, milliseconds. */
  #makeRoom(zone: Zone): number {
    if (this.#hasPlace(zone)) return 0;
    const crowded = zone.inFlight.size >= this.#limits.inFlightOfZone;
    const largest = crowded ? zone : this.#largestZone();
    let soonest = Number.POSITIVE_INFINITY;
    for (const turn of [largest.inFlight.first, crowded ? undefined : this.#inFlight.first]) {
      if (turn === undefined) continue;
      const left = turn.begunAt + this.#limits.fairMillis - this.#now();
      if (left <= 0) {
        this.#remove(turn);
        turn.asker.evict('slow');
        return 0;
      }
      soonest = Math.min(soonest, left);
    }
    return soonest;
  }

  /** Too many wait: the last to come goes, of this zone if it has more than its share, else of the one with most. */
  #keepBounds(zone: Zone): void {
    const { waiting, waitingOfZone } = this.#limits;
    if (zone.waiting.size <= waitingOfZone && this.#waiting <= waiting) return;
    let most = zone;
    if (zone.waiting.size <= waitingOfZone) {
      for (const other of this.#queue) if (other.waiting.size > most.waiting.size) most = other;
    }
    const last = most.waiting.last!;
    this.end(last);
    last.asker.evict('crowded');
  }

  #largestZone(): Zone {
    let largest = this.#inFlight.first!.zone;
    for (const zone of this.#zones.values()) {
      if (zone.inFlight.size > largest.inFlight.size) largest = zone;
    }
    return largest;
  }
}

function put(turn: Turn, chain: Chain): void {
  chain.append(turn.zoneLink);
  turn.ofZone = chain;
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
