/** The native addon: thin system calls, each returning its result or a negative errno. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { endianness } from 'node:os';
import { fileURLToPath } from 'node:url';

export type Native = {
  /** Opens a non-blocking, close-on-exec socket; it is closed at the latest when the environment (worker) ends. */
  socket(domain: number, type: number, protocol: number): number;
  /** Closes what `socket` opened, and its polling; -EBADF for anything else, also for a second close. */
  close(fd: number): number;
  /** Leaves the socket to somebody else, who closes it; -EBADF once it is polled. */
  release(fd: number): number;
  /** Calls back while the socket is readable or in error; the callback has to read, else it is called again at once. */
  pollStart(fd: number, callback: () => void): number;
  pollStop(fd: number): number;
  setsockopt(fd: number, level: number, name: number, value: number | Uint8Array): number;
  getsockopt(fd: number, level: number, name: number, into: Uint8Array): number;
  bind(fd: number, sockaddr: Uint8Array): number;
  connect(fd: number, sockaddr: Uint8Array): number;
  getsockname(fd: number, into: Uint8Array): number;
  send(fd: number, data: Uint8Array): number;
  /** Length of the datagram (may exceed `into`); -EBADMSG when it came from a process and not from the kernel. */
  receiveNetlink(fd: number, into: Uint8Array): number;
  /** Up to 64 datagrams: payload i at `i * slot`, addresses at `i * RECORD.size` (see `RECORD`). */
  receiveMessages(fd: number, payload: Uint8Array, slot: number, records: Uint8Array): number;
  /** Sends `count` datagrams of the same layout, from number `first` on; fewer may leave (see sendmmsg(2)). */
  sendMessages(
    fd: number,
    payload: Uint8Array,
    slot: number,
    records: Uint8Array,
    first: number,
    count: number,
  ): number;
};

/** Where the fields of one datagram's addresses lie (`struct record` in addon.c; integers in host order). */
export const RECORD = {
  size: 64,
  length: 0,
  flags: 4,
  family: 8,
  port: 10,
  interface: 12,
  remote: 16,
  local: 32,
  scope: 48,
  /** In `flags` of a datagram to send: `local` is to be the source address. */
  hasLocal: 1,
  /** In `flags` of a received datagram: it was longer than the slot (MSG_TRUNC). */
  truncated: 0x20,
  batchLimit: 64,
} as const;

const addonPath = fileURLToPath(new URL('./build/holdfast.node', import.meta.url));
let loaded: Native | undefined;

/** The addon, loaded at first use; throws one sentence with what to do when it was not built. */
export function native(): Native {
  if (loaded) return loaded;
  if (endianness() !== 'LE') throw new Error('Holdfast runs on little-endian machines only (x64, arm64).');
  if (!existsSync(addonPath)) {
    throw new Error('The native addon kernel/native/build/holdfast.node is missing: run `npm ci`.');
  }
  loaded = createRequire(import.meta.url)(addonPath) as Native;
  return loaded;
}
