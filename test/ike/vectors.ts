import { existsSync, readFileSync } from 'node:fs';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

/** Third-party test vectors live beside the project, not in it; without them their tests say so and are skipped. */
const directory = new URL('../../../shared/vectors/', import.meta.url);

/** A test over one vector file; skipped with a reason where the file is not there. */
export function vectorTest<T>(name: string, file: string, body: (vectors: T) => void): void {
  const path = fileURLToPath(new URL(file, directory));
  test(name, { skip: existsSync(path) ? false : `vectors are not here: ${file}` }, () => {
    body(JSON.parse(readFileSync(path, 'utf8')) as T);
  });
}

export function hex(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text.replace(/\s+/g, ''), 'hex'));
}

export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** Random bytes that are the same in every run: SHA-free, only for tests. */
export function seededRandom(seed: number): (length: number) => Uint8Array {
  let state = seed >>> 0 || 1;
  return length =>
    Uint8Array.from({ length }, () => {
      state ^= state << 13;
      state >>>= 0;
      state ^= state >>> 17;
      state ^= state << 5;
      state >>>= 0;
      return state & 0xff;
    });
}

/** One IKEv2 session of Wireshark's test suite with its keys (`wireshark/ikev2-decrypt.json`). */
export type Capture = {
  file: string;
  keys: {
    spii: string;
    spir: string;
    sk_ei: string;
    sk_er: string;
    encr: string;
    sk_ai: string;
    sk_ar: string;
    integ: string;
  };
  expect_auth_data: string;
  messages: { hex: string; hdr: { flags: number } }[];
};
