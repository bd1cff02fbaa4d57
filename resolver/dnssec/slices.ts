/**
 * Slices of expensive work: so much of it in one turn of the event loop, by all questions together, and the rest later.
 *
 * Who does little is never kept waiting, and who does much waits behind all others: each question waits in one place of
 * the queue at most, and datagrams, timers and connections have their turn between two slices.
 */

export class Slices {
  readonly #units: number;
  readonly #later: (callback: () => void) => void;
  #used = 0;
  #pending = false;
  readonly #waiting: { units: number; begin: () => void }[] = [];

  /** `units` of work a turn, or one piece that is larger; `later` calls back in the next one. */
  constructor(units: number, later: (callback: () => void) => void) {
    this.#units = units;
    this.#later = later;
  }

  /** Before work of so many units: undefined when it may begin at once, else a promise for when it may. */
  take(units: number): Promise<void> | undefined {
    this.#expectTurn();
    if (this.#waiting.length === 0 && this.#begins(units)) return undefined;
    return new Promise(begin => this.#waiting.push({ units, begin }));
  }

  /** Whether there is room left in this turn; if so, it is taken. */
  #begins(units: number): boolean {
    if (this.#used > 0 && this.#used + units > this.#units) return false;
    this.#used += units;
    return true;
  }

  #expectTurn(): void {
    if (this.#pending) return;
    this.#pending = true;
    this.#later(() => this.#turn());
  }

  #turn(): void {
    this.#pending = false;
    this.#used = 0;
    let begun = 0;
    for (const { units, begin } of this.#waiting) {
      if (!this.#begins(units)) break;
      begin();
      begun++;
    }
    if (begun === 0) return;
    this.#waiting.splice(0, begun);
    this.#expectTurn();
  }
}
