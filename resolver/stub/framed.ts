/** Questions over a stream with lengths before them: TCP (RFC 7766) and TLS (RFC 7858), answered as they are ready. */
import type { Duplex } from 'node:stream';
import { Deframer, frame } from '../upstream/tcp-framing.ts';
import { MAX_OUTSTANDING, MAX_QUESTION, MAX_UNFETCHED, type Place, type Receive } from './connections.ts';

/** Questions of one connection taken in one turn; then the others have theirs. */
const QUESTIONS_PER_TURN = 32;

/** Serves one connection until either side has enough. */
export function serveFramed(stream: Duplex, place: Place, receive: Receive): void {
  const deframer = new Deframer(MAX_QUESTION);
  /** Whole messages of one chunk that have not had their turn; while there are any, nothing is read. */
  const waiting: Uint8Array[] = [];
  let clientDone = false;
  let turnComing = false;
  let inTurn = false;

  const endWhenDone = (): void => {
    const done = clientDone && waiting.length === 0 && place.outstanding === 0;
    if (done && !place.ended) stream.end();
  };
  const respond = (response: Uint8Array): void => {
    stream.write(frame(response));
    if (stream.writableLength > MAX_UNFETCHED) place.end(true);
    else if (!inTurn && place.outstanding < MAX_OUTSTANDING / 2) goOn();
  };
  const goOn = (): void => {
    if (waiting.length === 0 && stream.isPaused()) stream.resume();
    if (waiting.length > 0 && !turnComing) {
      turnComing = true;
      setImmediate(turn);
    }
    endWhenDone();
  };
  const turn = (): void => {
    turnComing = false;
    inTurn = true;
    const most = Math.min(waiting.length, QUESTIONS_PER_TURN);
    let taken = 0;
    while (taken < most && place.outstanding < MAX_OUTSTANDING && !place.ended)
      place.ask(receive, waiting[taken++]!, respond);
    inTurn = false;
    waiting.splice(0, taken);
    if (!place.ended && place.outstanding < MAX_OUTSTANDING) goOn();
  };
  stream.on('data', (chunk: Uint8Array) => {
    const fits = deframer.push(chunk, message => waiting.push(message) > 0);
    if (!turnComing) turn();
    if (!fits) place.end(true);
    if (waiting.length > 0 || place.outstanding >= MAX_OUTSTANDING) stream.pause();
  });
  // It may have said all it wants to ask, and still wants the answers.
  stream.on('end', () => {
    clientDone = true;
    endWhenDone();
  });
}
