/**
 * Whose turn it is: so many questions at one time, and nobody's dead names keep others from being asked.
 *
 * A zone here is what one owner can fill at will: the last two labels, three under countries where the second is short (`co.uk`), the
 * network in reverse zones. While there is plenty of room, whoever comes is asked at once. When half of the places are
 * taken it is crowded: then a zone may have its share and no more, what is over that waits, and zones take turns. When
 * all places are taken and a question waits, the oldest goes that has had its fair time and was asked twice in vain: of
 * the zone that has most, else of all. An upstream that answers does so long before. Pure but for one timer.
 */
import type { Name } from '../dns/name.ts';

export type TurnLimits = {
  inFlight: number;
  /** From so many in flight on, zones have their shares. */
  crowded: number;
  inFlightOfZone: number;
  waiting: number;
  /** A question that has been in flight so long has had its fair time; it stays while nobody needs its place. */
  fairMillis: number;
};

export const TURN_LIMITS: TurnLimits = {
  inFlight: 4096,
  crowded: 2048,
  inFlightOfZone: 256,
  waiting: 8192,
  fairMillis: 200,
};

/** Zones remembered though nobody asks for their names; above this, empty ones go. */
const MAX_ZONES = 4096;
/** A zone with this part of its share, in flight or waiting, is looked at when somebody has to go: there cannot be many. */
const LARGE_SHARE = 1 / 8;
/** Old enough to go, but not asked twice yet: looked at again. */
const LOOK_AGAIN_MILLIS = 20;

/** Whoever asks for a turn. */
export type Asker = {
  /** Called once, at once or later. */
  begin(turn: Turn): void;
  /** Called instead of, or after, `begin`: there is no place, or no longer. */
  evict(why: 'crowded' | 'slow'): void;
  /** Asked twice in vain: what is asked once only may have been lost on the way, or wait to be read. */
  readonly askedTwice: boolean;
};

/** One question's place. */
export class Turn {
  readonly zone: Zone;
  readonly asker: Asker;
  begunAt = Number.NaN;
  /** In which chains it is: of its zone, in flight or waiting; and, in flight, of all. */
  ofZone: Chain<Turn> | undefined;
  ofAll: Chain<Turn> | undefined;
  readonly zoneLink: Link<Turn> = { value: this, before: undefined, after: undefined };
  readonly allLink: Link<Turn> = { value: this, before: undefined, after: undefined };

  constructor(zone: Zone, asker: Asker) {
    this.zone = zone;
    this.asker = asker;
  }
}

type Link<T> = { readonly value: T; before: Link<T> | undefined; after: Link<T> | undefined };

/**
 * A row, the oldest first. Not a Set: its tables, once old, keep what was ever in them until the next full
 * collection, which at thousands of questions a second costs more than asking them.
 */
class Chain<T> {
  size = 0;
  #first: Link<T> | undefined;
  #last: Link<T> | undefined;

  get first(): T | undefined {
    return this.#first?.value;
  }

  get last(): T | undefined {
    return this.#last?.value;
  }

  append(link: Link<T>): void {
    link.before = this.#last;
    if (this.#last === undefined) this.#first = link;
    else this.#last.after = link;
    this.#last = link;
    this.size++;
  }

  remove(link: Link<T>): void {
    if (link.before === undefined) this.#first = link.after;
    else link.before.after = link.after;
    if (link.after === undefined) this.#last = link.before;
    else link.after.before = link.before;
    link.before = undefined;
    link.after = undefined;
    this.size--;
  }

  *[Symbol.iterator](): Generator<T> {
    for (let link = this.#first; link !== undefined; link = link.after) yield link.value;
  }
}

class Zone {
  readonly inFlight = new Chain<Turn>();
  readonly waiting = new Chain<Turn>();
  /** Among those with questions that wait. */
  queued = false;
  readonly queueLink: Link<Zone> = { value: this, before: undefined, after: undefined };
}

export class Turns {
  readonly #limits: TurnLimits;
  readonly #now: () => number;
  readonly #largeSize: number;
  readonly #zones = new Map<string, Zone>();
  #zonesDroppedAt = MAX_ZONES;
  readonly #inFlight = new Chain<Turn>();
  /** Zones that have, or lately had, many in flight or waiting. */
  readonly #large = new Set<Zone>();
  /** Zones with questions that wait, the one whose turn is next in front. */
  readonly #queue = new Chain<Zone>();
  #waiting = 0;
  /** What is called from within may call back. */
  #advancing = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(limits: TurnLimits, now: () => number) {
    this.#limits = limits;
    this.#now = now;
    this.#largeSize = Math.ceil(limits.inFlightOfZone * LARGE_SHARE);
  }

  get inFlight(): number {
    return this.#inFlight.size;
  }

  get waiting(): number {
    return this.#waiting;
  }

  /** Everyone who has a place or waits for one. */
  all(): Turn[] {
    return [...this.#inFlight, ...[...this.#queue].flatMap(({ waiting }) => [...waiting])];
  }

  /** Takes a place or waits for one. Whoever got or waits for one calls `end` when it is no longer needed. */
  take(key: string, asker: Asker): Turn {
    let zone = this.#zones.get(key);
    if (zone === undefined) {
      this.#dropEmptyZones();
      zone = new Zone();
      this.#zones.set(key, zone);
    }
    const turn = new Turn(zone, asker);
    if (zone.waiting.size === 0 && this.#isRoomFor(zone) && !this.#somebodyWaits()) {
      this.#begin(turn);
      return turn;
    }
    put(turn, zone.waiting);
    if (zone.waiting.size === this.#largeSize) this.#large.add(zone);
    this.#waiting++;
    this.#queueUp(zone);
    this.#advance();
    if (this.#waiting > this.#limits.waiting) this.#turnAway(zone);
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
      if (zone.waiting.size === 0) this.#leaveQueue(zone);
    }
    if (freed && this.#queue.size > 0) this.#advance();
  }

  /** Zones are kept for their next question until there are many. */
  #dropEmptyZones(): void {
    if (this.#zones.size < this.#zonesDroppedAt) return;
    for (const [key, { inFlight, waiting }] of this.#zones) {
      if (inFlight.size + waiting.size === 0) this.#zones.delete(key);
    }
    this.#zonesDroppedAt = Math.max(MAX_ZONES, 2 * this.#zones.size);
  }

  #isRoomFor(zone: Zone): boolean {
    return this.#inFlight.size < this.#limits.inFlight && !this.#isOverShare(zone);
  }

  #isOverShare({ inFlight }: Zone): boolean {
    const { crowded, inFlightOfZone } = this.#limits;
    return this.#inFlight.size >= crowded && inFlight.size >= inFlightOfZone;
  }

  /** Somebody whose turn comes before that of a newcomer; those over their share wait for themselves alone. */
  #somebodyWaits(): boolean {
    for (const zone of this.#queue) if (!this.#isOverShare(zone)) return true;
    return false;
  }

  #begin(turn: Turn): void {
    const { zone } = turn;
    turn.begunAt = this.#now();
    put(turn, zone.inFlight);
    this.#inFlight.append(turn.allLink);
    turn.ofAll = this.#inFlight;
    if (zone.inFlight.size === this.#largeSize) this.#large.add(zone);
    turn.asker.begin(turn);
  }

  #remove(turn: Turn): void {
    turn.ofZone?.remove(turn.zoneLink);
    turn.ofAll?.remove(turn.allLink);
    turn.ofZone = undefined;
    turn.ofAll = undefined;
    const { inFlight, waiting } = turn.zone;
    if (inFlight.size + waiting.size === 0) this.#large.delete(turn.zone);
  }

  #queueUp(zone: Zone): void {
    if (zone.queued) return;
    zone.queued = true;
    this.#queue.append(zone.queueLink);
  }

  #leaveQueue(zone: Zone): void {
    if (!zone.queued) return;
    zone.queued = false;
    this.#queue.remove(zone.queueLink);
  }

  /** Lets in who may come in, one of each zone in turn, and makes room where the fair time is over. */
  #advance(): void {
    if (this.#advancing) return;
    this.#advancing = true;
    clearTimeout(this.#timer);
    let soonest = Number.POSITIVE_INFINITY;
    // Zones over their share are passed over. Each has many in flight, so there are few of them.
    for (let passed = 0; passed < this.#queue.size; ) {
      const zone = this.#queue.first!;
      const wait = this.#makeRoom(zone);
      if (wait > 0) soonest = Math.min(soonest, wait);
      if (wait > 0 && !this.#isOverShare(zone)) break;
      this.#leaveQueue(zone);
      if (wait === 0) this.#beginNext(zone);
      if (zone.waiting.size > 0) this.#queueUp(zone);
      passed = wait === 0 ? 0 : passed + 1;
    }
    this.#advancing = false;
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
    if (this.#isRoomFor(zone)) return 0;
    const candidates = this.#isOverShare(zone)
      ? [zone.inFlight.first]
      : [this.#largestZone()?.inFlight.first, this.#inFlight.first];
    let soonest = Number.POSITIVE_INFINITY;
    for (const turn of candidates) {
      if (turn === undefined) continue;
      const left = turn.begunAt + this.#limits.fairMillis - this.#now();
      if (left <= 0 && turn.asker.askedTwice) {
        this.#remove(turn);
        turn.asker.evict('slow');
        return 0;
      }
      soonest = Math.min(soonest, Math.max(left, LOOK_AGAIN_MILLIS));
    }
    return soonest;
  }

  /** Too many wait: the last to come of the zone with most goes. */
  #turnAway(newcomer: Zone): void {
    let most = newcomer;
    for (const zone of this.#large) if (zone.waiting.size > most.waiting.size) most = zone;
    const last = most.waiting.last!;
    this.end(last);
    last.asker.evict('crowded');
  }

  #largestZone(): Zone | undefined {
    let largest: Zone | undefined;
    for (const zone of this.#large) {
      if (zone.inFlight.size > (largest?.inFlight.size ?? 0)) largest = zone;
    }
    return largest;
  }
}

function put(turn: Turn, chain: Chain<Turn>): void {
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
