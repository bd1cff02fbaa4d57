/** One server over HTTPS (RFC 8484): HTTP/2 by undici, on connections that we open ourselves to addresses we know. */
import type { Client } from 'undici';
import { TlsDialler } from './dial.ts';
import { UpstreamError } from './error.ts';
import {
  addressesWith,
  type Link,
  type LinkContext,
  type LinkDescription,
  type LinkQuestion,
  parseCounted,
  type Reply,
} from './link.ts';
import type { Message } from '../dns/message.ts';
import { composeQuery, judge, questionEnd } from './query.ts';
import type { HttpsServer } from './server.ts';

const MEDIA_TYPE = 'application/dns-message';
const MAX_MESSAGE = 65535;
const IDLE_MILLIS = 30_000;
const MAX_STREAMS = 128;
/** A question that waited so long while nothing at all was heard: the connection is dead, not the answer slow. */
const SILENCE_MILLIS = 1000;
/** The same before anything was ever heard: opening it may take its time. */
const OPENING_MILLIS = 5000;

/** A client of undici, which has one connection. `waiting`: when each question was asked, the oldest first. */
type Session = { client: Client; heardAt: number; waiting: Set<{ askedAt: number }>; over: boolean };

export class HttpsLink implements Link {
  readonly #server: HttpsServer;
  readonly #context: LinkContext;
  readonly #dialler: TlsDialler;
  #session: Session | undefined;

  constructor(server: HttpsServer, context: LinkContext) {
    this.#server = server;
    this.#context = context;
    this.#dialler = new TlsDialler(
      server,
      context.sockets,
      addressesWith(context, server),
      context.authorities,
    );
  }

  ask(question: LinkQuestion, reply: Reply): () => void {
    this.#context.counters.https++;
    const controller = new AbortController();
    let over = false;
    const finish = (outcome: Message | UpstreamError) => {
      if (over) return;
      over = true;
      reply(outcome);
    };
    this.#post(question, controller.signal).then(finish, (error: unknown) => finish(asUpstreamError(error)));
    return () => {
      over = true;
      this.#leaveIfDead();
      controller.abort();
    };
  }

  close(): void {
    void this.#session?.client.destroy().catch(() => {});
    this.#session = undefined;
  }

  describe(): LinkDescription {
    return { connections: this.#session?.client.stats.connected ? 1 : 0 };
  }

  /**
   * A NAT that forgot the connection, or another network, swallows what is sent, and TCP finds out after many minutes.
   * Those who wait on it may go on; who comes, or asks again, gets a new one.
   */
  #leaveIfDead(): void {
    const session = this.#session;
    const oldest = session?.waiting.values().next().value;
    if (session === undefined || oldest === undefined) return;
    const { heardAt } = session;
    const patience = heardAt > Number.NEGATIVE_INFINITY ? SILENCE_MILLIS : OPENING_MILLIS;
    if (this.#context.now() - Math.max(oldest.askedAt, heardAt) < patience) return;
    session.over = true;
    this.#session = undefined;
  }

  async #post({ name, type }: LinkQuestion, signal: AbortSignal): Promise<Message> {
    // RFC 8484 section 4.1: the ID is 0, so that caches on the way see equal questions.
    const query = composeQuery(name, type, { id: 0, padded: true });
    const { statusCode, headers, octets } = await this.#request(query, signal);
    if (statusCode !== 200) throw new UpstreamError('refused', `answers HTTP status ${statusCode}`);
    const mediaType = String(headers['content-type'] ?? '')
      .replace(/\s*;.*$/s, '')
      .toLowerCase();
    if (mediaType !== MEDIA_TYPE)
      throw new UpstreamError('malformed', `its answer is ${mediaType || 'of no type'}`);
    if (judge(octets, query, questionEnd(name)) === 'foreign') {
      throw new UpstreamError('malformed', 'answers another question');
    }
    const message = parseCounted(octets, this.#context.counters);
    if (message === undefined) throw new UpstreamError('malformed', 'its answer is not a DNS message');
    if (message.truncated) throw new UpstreamError('malformed', 'truncated even over HTTPS');
    return aged(message, headers.age);
  }

  async #request(query: Uint8Array, signal: AbortSignal) {
    const session = await this.#opened();
    const asked = { askedAt: this.#context.now() };
    session.waiting.add(asked);
    try {
      const { statusCode, headers, body } = await session.client.request({
        method: 'POST',
        path: this.#server.path,
        headers: { 'content-type': MEDIA_TYPE, accept: MEDIA_TYPE },
        body: query,
        signal,
      });
      session.heardAt = this.#context.now();
      return { statusCode, headers, octets: await collect(body) };
    } finally {
      session.waiting.delete(asked);
      if (session.over && session.waiting.size === 0) void session.client.destroy().catch(() => {});
    }
  }

  /** undici is loaded with the first question: a daemon without such a server starts sooner and smaller without it. */
  async #opened(): Promise<Session> {
    const { Client } = await import('undici');
    this.#leaveIfDead();
    if (this.#session !== undefined) return this.#session;
    const client = new Client(`https://${this.#server.name}:${this.#server.port}`, {
      allowH2: true,
      pipelining: MAX_STREAMS,
      h2Options: { maxConcurrentStreams: MAX_STREAMS },
      keepAliveTimeout: IDLE_MILLIS,
      maxResponseSize: MAX_MESSAGE,
      maxHeaderSize: 16_384,
      connect: (_options, callback) => {
        this.#context.counters.connections++;
        this.#dialler.dial(
          socket => callback(null, socket),
          why => callback(new UpstreamError('network', why), null),
        );
      },
    });
    this.#session = { client, heardAt: Number.NEGATIVE_INFINITY, waiting: new Set(), over: false };
    return this.#session;
  }
}

async function collect(body: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of body) {
    length += chunk.length;
    if (length > MAX_MESSAGE) throw new UpstreamError('malformed', 'its answer is longer than a DNS message');
    chunks.push(chunk);
  }
  const whole = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}

/** What has lain in an HTTP cache has used up as much of its TTL (RFC 8484 section 5.1). */
function aged(message: Message, header: string | string[] | undefined): Message {
  const age = typeof header === 'string' && /^\d{1,9}$/.test(header) ? Number(header) : 0;
  if (age === 0) return message;
  for (const records of [message.answer, message.authority, message.additional]) {
    for (const record of records) record.ttlSeconds = Math.max(record.ttlSeconds - age, 0);
  }
  return message;
}

function asUpstreamError(error: unknown): UpstreamError {
  if (error instanceof UpstreamError) return error;
  const { code, message, cause } = error as NodeJS.ErrnoException & { cause?: unknown };
  if (cause instanceof UpstreamError) return cause;
  if (code === 'UND_ERR_ABORTED' || (error as Error).name === 'AbortError')
    return new UpstreamError('aborted', 'nobody waits any more');
  return new UpstreamError('network', `HTTPS failed: ${code ?? message}`);
}
