/** Who answered a question, should the validator want a second opinion. */
import type { UpstreamQuestion } from '../dnssec/types.ts';

/** More than can be in flight at a time. A power of two. */
const PLACES = 8192;

/**
 * A table without chains: each question has one place, and a later one may take it. Then a second opinion is asked of
 * whoever is fastest, as the first was. Nothing is allocated, whatever goes through.
 */
export class AnsweredBy<Server> {
  readonly #hashes = new Uint32Array(PLACES);
  readonly #servers: (Server | undefined)[] = new Array(PLACES).fill(undefined);

  note(question: UpstreamQuestion, server: Server): void {
    const hash = hashOf(question);
    this.#hashes[hash % PLACES] = hash;
    this.#servers[hash % PLACES] = server;
  }

  whoAnswered(question: UpstreamQuestion): Server | undefined {
    const hash = hashOf(question);
    return this.#hashes[hash % PLACES] === hash ? this.#servers[hash % PLACES] : undefined;
  }

  clear(): void {
    this.#servers.fill(undefined);
  }
}

/** FNV-1a over the name as asked for and the type. */
function hashOf({ name, type }: UpstreamQuestion): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.wire.length; i++) hash = Math.imul(hash ^ name.wire[i]!, 0x01000193);
  return Math.imul(hash ^ type, 0x01000193) >>> 0;
}
