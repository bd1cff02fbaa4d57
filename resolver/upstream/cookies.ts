/** DNS cookies towards one server, the client's side (RFC 7873 section 5, RFC 9018 section 3). Pure. */

const CLIENT_OCTETS = 8;
/** RFC 7873 section 4: a server cookie has 8 to 32 octets. */
const MIN_SERVER_OCTETS = 8;
const MAX_SERVER_OCTETS = 32;

/**
 * - `good`: our cookie came back, or there is none and none was to be expected.
 * - `missing`: this server used to send one (RFC 7873 section 5.3: such an answer is not to be used).
 * - `forged`: a cookie that is not ours, or none at all by its length.
 */
export type CookieJudgement = 'good' | 'missing' | 'forged';

/** What we and one server remember each other by. */
export class Cookies {
  readonly #random: (octets: number) => Uint8Array;
  #local: string | undefined;
  #client: Uint8Array = new Uint8Array(0);
  /** The whole option with the server's part. */
  #both: Uint8Array | undefined;

  constructor(random: (octets: number) => Uint8Array) {
    this.#random = random;
  }

  /** Whether the server has shown that it takes part. */
  get known(): boolean {
    return this.#both !== undefined;
  }

  /**
   * The option's data for a question that leaves from the address `local`.
   *
   * A new address gets a new cookie, or cookies would let others follow us from network to network (RFC 9018 section 8.1).
   */
  optionFor(local: string): Uint8Array {
    if (local !== this.#local) {
      this.#local = local;
      this.#client = this.#random(CLIENT_OCTETS);
      this.#both = undefined;
    }
    return this.#both ?? this.#client;
  }

  /** Judges the option of an answer to a question that carried `sent`, and learns the server's part. */
  receive(sent: Uint8Array, received: Uint8Array | undefined): CookieJudgement {
    if (received === undefined) return this.known ? 'missing' : 'good';
    const serverOctets = received.length - CLIENT_OCTETS;
    const fits =
      serverOctets === 0 || (serverOctets >= MIN_SERVER_OCTETS && serverOctets <= MAX_SERVER_OCTETS);
    if (!fits) return 'forged';
    for (let i = 0; i < CLIENT_OCTETS; i++) if (received[i] !== sent[i]) return 'forged';
    const current = this.#client.every((octet, i) => octet === received[i]);
    if (serverOctets > 0 && current) this.#both = received;
    return 'good';
  }

  /** The server no longer takes part, as we know for sure. */
  forget(): void {
    this.#both = undefined;
  }
}
