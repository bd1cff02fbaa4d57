// One question over UDP, again and again until it is answered: how long a server takes to be of use.
import { createSocket } from 'node:dgram';
import { Name } from '../../../resolver/dns/name.ts';

/** Milliseconds between questions: no start is told apart by less. */
const AGAIN_MILLIS = 4;

/** Milliseconds until the server on 127.0.0.1 answers A of `name` with NOERROR and records. Rejects after `limitMillis`. */
export function askUntilAnswered(port: number, name: string, limitMillis: number): Promise<number> {
  const started = performance.now();
  const question = composeQuestion(name);
  const socket = createSocket('udp4');
  return new Promise((resolve, reject) => {
    const end = (act: () => void) => {
      clearInterval(again);
      socket.close();
      act();
    };
    const ask = () => {
      const waited = performance.now() - started;
      if (waited > limitMillis)
        end(() => reject(new Error(`no answer for ${name} within ${limitMillis} ms`)));
      else socket.send(question, port, '127.0.0.1', () => {});
    };
    const again = setInterval(ask, AGAIN_MILLIS);
    socket.on('message', reply => {
      const good = reply.length > 12 && (reply[3]! & 0x0f) === 0 && reply.readUInt16BE(6) > 0;
      if (good) end(() => resolve(performance.now() - started));
    });
    socket.on('error', () => {}); // nobody listens there yet
    ask();
  });
}

/** A, class IN, RD and DO. */
function composeQuestion(name: string): Buffer {
  const header = Buffer.from([0x48, 0x46, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
  const opt = Buffer.from([0, 0, 41, 0x04, 0xd0, 0, 0, 0x80, 0, 0, 0]);
  return Buffer.concat([header, Name.parseText(name).wire, Buffer.from([0, 1, 0, 1]), opt]);
}
