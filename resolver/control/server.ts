/** The control socket's server: HTTP/1.1 over a unix socket that only its owner can open. */
import { chmodSync, lstatSync, mkdirSync, unlinkSync } from 'node:fs';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { z } from 'zod';
import { parseIpAddress } from '../address.ts';
import { DnsFormatError } from '../dns/name.ts';
import type { Logger } from '../log.ts';
import { StartupError } from '../startup-error.ts';
import type { ControlBackend, ForgetTarget, PortalAllowance } from './api.ts';

/** An `import` of this module's names would load Node's own WebSocket client with it: 12 MB that nobody uses. */
const { createServer } = process.getBuiltinModule('node:http');

const MAX_BODY_BYTES = 4096;
const MAX_HEADER_BYTES = 8192;
const MAX_CONNECTIONS = 32;

/** Serves one backend on one path. */
export class ControlServer {
  readonly #path: string;
  readonly #backend: ControlBackend;
  readonly #log: Logger | undefined;
  readonly #server: Server;

  constructor(options: { path: string; backend: ControlBackend; log?: Logger }) {
    this.#path = options.path;
    this.#backend = options.backend;
    this.#log = options.log;
    const limits = { maxHeaderSize: MAX_HEADER_BYTES, headersTimeout: 5000, requestTimeout: 5000 };
    this.#server = createServer(limits, (request, response) => void this.#serve(request, response));
    this.#server.maxConnections = MAX_CONNECTIONS;
  }

  /** Takes the path: a socket nobody answers on is replaced, anything else is a StartupError. */
  async start(): Promise<void> {
    mkdirSync(dirname(this.#path), { recursive: true, mode: 0o755 });
    await clearStaleSocket(this.#path);
    await new Promise<void>((resolve, reject) => {
      const fail = (error: Error) => reject(cannotListen(this.#path, error.message));
      this.#server.once('error', fail);
      // The socket file is made inside listen(); under this mask it is never open to others, not for a moment.
      const mask = process.umask(0o177);
      try {
        this.#server.listen(this.#path, () => {
          this.#server.off('error', fail);
          resolve();
        });
      } finally {
        process.umask(mask);
      }
    });
    chmodSync(this.#path, 0o600);
  }

  /** Stops listening, drops the connections and removes the socket file. */
  async close(): Promise<void> {
    const closed = new Promise<void>(resolve => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    try {
      const body = await this.#answer(request, gone.signal);
      send(response, 200, body);
    } catch (error) {
      if (gone.signal.aborted) return;
      if (error instanceof RequestError) return send(response, error.status, { error: error.message });
      // What the backend says against a name or a type: the request is at fault.
      if (error instanceof RangeError || error instanceof DnsFormatError) {
        return send(response, 400, { error: error.message });
      }
      this.#log?.error({ event: 'control.failed', err: error, url: request.url }, 'a control request failed');
      send(response, 500, { error: error instanceof Error ? error.message : String(error) });
    }
  }

  async #answer(request: IncomingMessage, signal: AbortSignal): Promise<unknown> {
    const url = new URL(request.url ?? '/', 'http://control');
    const route = `${request.method} ${url.pathname}`;
    if (route === 'GET /status') return this.#backend.status();
    if (route === 'GET /explain') {
      const name = url.searchParams.get('name') ?? '';
      const type = url.searchParams.get('type') ?? 'A';
      if (name === '' || name.length > 1004)
        throw new RequestError(400, 'expected ?name= with a domain name');
      if (!/^[A-Z0-9]{1,16}$/i.test(type)) throw new RequestError(400, 'expected ?type= with a record type');
      return this.#backend.explain(name, type.toUpperCase(), signal);
    }
    if (route === 'POST /forget') return this.#backend.forget(parseTarget(await readBody(request)));
    if (route === 'POST /portal') return this.#backend.allowPortal(parseAllowance(await readBody(request)));
    const known = ['/status', '/explain', '/forget', '/portal'].includes(url.pathname);
    throw known ? new RequestError(405, 'method not allowed') : new RequestError(404, 'no such page');
  }
}

/** The request is at fault, with this HTTP status. */
class RequestError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

function send(response: ServerResponse, status: number, body: unknown): void {
  const json = JSON.stringify(body);
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(json) };
  response.writeHead(status, { ...headers, connection: 'close' }).end(json);
}

async function readBody(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += (chunk as Buffer).length;
    if (bytes > MAX_BODY_BYTES) throw new RequestError(413, `more than ${MAX_BODY_BYTES} bytes`);
    chunks.push(chunk as Buffer);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch {
    throw new RequestError(400, 'expected a JSON body');
  }
}

const targetSchema = z.union([
  z.strictObject({ name: z.string().min(1).max(1004) }),
  z.strictObject({ address: z.string().refine(text => parseIpAddress(text) !== undefined) }),
  z.strictObject({ all: z.literal(true) }),
]);

function parseTarget(body: unknown): ForgetTarget {
  const parsed = targetSchema.safeParse(body);
  if (parsed.success) return parsed.data;
  throw new RequestError(400, 'expected {"name": …}, {"address": …} or {"all": true}');
}

/** Long enough to log in, and to think about it; whoever needs longer says so again. */
const MAX_ALLOWED_MILLIS = 3_600_000;

const allowanceSchema = z.strictObject({
  name: z.string().min(1).max(253).optional(),
  millis: z.number().int().min(1000).max(MAX_ALLOWED_MILLIS),
});

function parseAllowance(body: unknown): PortalAllowance {
  const parsed = allowanceSchema.safeParse(body);
  if (!parsed.success) {
    throw new RequestError(400, 'expected {"name": …, "millis": …}, from one second to one hour');
  }
  const { name, millis } = parsed.data;
  return { millis, ...(name !== undefined && { name }) };
}

async function clearStaleSocket(path: string): Promise<void> {
  const present = lstatSync(path, { throwIfNoEntry: false });
  if (!present) return;
  if (!present.isSocket()) throw cannotListen(path, 'something that is not a socket is there');
  if (await answers(path)) {
    throw new StartupError({
      what: 'cannot start',
      why: `another Holdfast answers on ${path}`,
      next: 'stop that one first, or give this one another --control, --state and --listen',
    });
  }
  unlinkSync(path);
}

function answers(path: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(path);
    const done = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('connect', () => done(true));
    // Only a refused connection proves that nobody is there: a full backlog gives EAGAIN.
    socket.once('error', error => done((error as NodeJS.ErrnoException).code !== 'ECONNREFUSED'));
  });
}

function cannotListen(path: string, why: string): StartupError {
  return new StartupError({
    what: `cannot make the control socket ${path}`,
    why,
    next: 'remove it or set another path with --control',
  });
}
