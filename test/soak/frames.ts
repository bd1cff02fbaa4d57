// DNS over TCP as the soak's own programs speak it: two octets of length before each message (RFC 1035 section 4.2.2).
import type { Socket } from 'node:net';

export function framed(message: Uint8Array): Buffer {
  return Buffer.concat([Uint8Array.of(message.length >> 8, message.length & 0xff), message]);
}

/** Calls `handle` with each whole message, which is its own copy. */
export function onFrames(socket: Socket, handle: (message: Buffer) => void): void {
  let buffered: Buffer = Buffer.alloc(0);
  socket.on('data', (data: Buffer) => {
    buffered = buffered.length === 0 ? data : Buffer.concat([buffered, data]);
    while (buffered.length >= 2 && buffered.length >= 2 + buffered.readUInt16BE(0)) {
      const end = 2 + buffered.readUInt16BE(0);
      handle(Buffer.from(buffered.subarray(2, end)));
      buffered = buffered.subarray(end);
    }
  });
}
