/** What is fuzzed: a parser with what must hold for everything that it reads. */
import type { Random } from './mutate.ts';

export type Target = {
  /** Room and parser, such as `dns/message`. */
  name: string;
  /** One case in so many is run: for what verifies signatures or goes through sockets. */
  oneIn?: number;
  /** A second run of a case finds what the first one left: its time is that of the first alone. */
  remembers?: true;
  open(): Opened | Promise<Opened>;
};

export type Opened = {
  /** Real inputs, to be spoilt. */
  corpus: readonly Uint8Array[];
  /** Tokens of a text format. */
  words?: readonly Uint8Array[];
  /** Throws when something does not hold. `random`: for what the case needs besides its octets. */
  check(bytes: Uint8Array, random: Random): void | Promise<void>;
  close?(): Promise<void>;
};

/** The result, or undefined for an error of these kinds; any other error is a finding. */
export function unless<T>(
  parse: () => T,
  ...refusals: (abstract new (
    ...args: never[]
  ) => Error)[]
): T | undefined {
  try {
    return parse();
  } catch (error) {
    if (refusals.some(refusal => error instanceof refusal)) return undefined;
    throw error;
  }
}

const encoder = new TextEncoder();
export const octets = (text: string): Uint8Array => encoder.encode(text);

const utf8 = new TextDecoder();
/** As a file is read: what is not UTF-8 becomes U+FFFD. */
export const textOf = (bytes: Uint8Array): string => utf8.decode(bytes);
