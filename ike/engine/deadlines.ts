/**
 * Deadlines with their reasons: the earliest first, cheap to move, nothing kept for what is gone.
 *
 * A binary heap with lazy removal: the owner's own map is the truth, a heap entry that disagrees with it is skipped.
 * At most about twice as many entries as live deadlines are ever kept.
 */
export class Deadlines<Owner extends { deadlines: Map<string, number> }> {
  #heap: Entry<Owner>[] = [];
  #live = 0;

  set(owner: Owner, why: string, at: number): void {
    const before = owner.deadlines.get(why);
    if (before === at) return;
    if (before === undefined) this.#live++;
    owner.deadlines.set(why, at);
    this.#push({ owner, why, at });
    if (this.#heap.length > 2 * this.#live + 64) this.#compact();
  }

  clear(owner: Owner, why: string): void {
    if (owner.deadlines.delete(why)) this.#live--;
  }

  clearAll(owner: Owner): void {
    this.#live -= owner.deadlines.size;
    owner.deadlines.clear();
  }

  next(): { at: number; why: string } | undefined {
    this.#dropStale();
    const first = this.#heap[0];
    return first && { at: first.at, why: first.why };
  }

  /** The earliest deadline that is due, taken out; undefined when none is. */
  takeDue(now: number): { owner: Owner; why: string } | undefined {
    this.#dropStale();
    const first = this.#heap[0];
    if (!first || first.at > now) return undefined;
    this.#pop();
    this.clear(first.owner, first.why);
    return { owner: first.owner, why: first.why };
  }

  #dropStale(): void {
    for (let first = this.#heap[0]; first && !isLive(first); first = this.#heap[0]) this.#pop();
  }

  #compact(): void {
    const entries = this.#heap.filter(isLive);
    this.#heap = [];
    for (const entry of entries) this.#push(entry);
  }

  #push(entry: Entry<Owner>): void {
    const heap = this.#heap;
    let at = heap.push(entry) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (heap[parent]!.at <= entry.at) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = entry;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (!last || heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && heap[child + 1]!.at < heap[child]!.at) child++;
      if (heap[child]!.at >= last.at) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
  }
}

type Entry<Owner> = { owner: Owner; why: string; at: number };

function isLive<Owner extends { deadlines: Map<string, number> }>(entry: Entry<Owner>): boolean {
  return entry.owner.deadlines.get(entry.why) === entry.at;
}
