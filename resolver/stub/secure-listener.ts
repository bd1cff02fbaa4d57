/** The stub's doors with TLS: DNS over TLS (RFC 7858) and over HTTPS (RFC 8484, HTTP/2 and HTTP/1.1). */
import type http from 'node:http';
import type http2 from 'node:http2';
import type net from 'node:net';
import type tls from 'node:tls';
import {
  type Connections,
  MAX_OUTSTANDING,
  MAX_QUESTION,
  MAX_UNFETCHED,
  type Place,
  type Receive,
} from './connections.ts';
import { DNS_MESSAGE, parseDohRequest } from './doh-request.ts';
import { serveFramed } from './framed.ts';
import { leastTtl } from './stream-options.ts';

/** Request line and headers of one request: a question in base64url, and what browsers send along. */
const MAX_HEADER_OCTETS = 16_384;
const MAX_HEADERS = 64;
/** Of one HTTP/2 connection, in MB: header tables, streams, answers that are not fetched. */
const MAX_SESSION_MEGABYTES = 2;

type Request = http.IncomingMessage | http2.Http2ServerRequest;
type Response = http.ServerResponse | http2.Http2ServerResponse;
type Options = {
  connections: Connections;
  /** The certificate to show; asked for each connection. */
  certificate: () => tls.SecureContextOptions;
  receive: Receive;
  /** Whoever may not ask is hung up on before TLS begins, which costs us more than him. */
  allows: (address: string) => boolean;
};

/** Takes connections of one kind; all kinds share their places with those over plain TCP. */
export class SecureListener {
  readonly #options: Options;
  readonly #server: tls.Server;
  /** By both ends: what Node hands over after the handshake is another object. */
  readonly #places = new Map<string, Place>();
  #shown: tls.SecureContextOptions | undefined;
  readonly counters = { handshakes: 0, prohibited: 0, requests: 0, refusedRequests: 0 };

  constructor(kind: 'tls' | 'https', options: Options) {
    this.#options = options;
    // Clients that offer other protocols alone get an alert (RFC 7301 section 3.2). Neither server listens itself.
    if (kind === 'tls') {
      this.#server = process.getBuiltinModule('node:tls').createServer({ ALPNProtocols: ['dot'] });
      this.#server.on('secureConnection', stream => {
        const place = this.#begun(stream);
        // Only from here on: a client that goes away during the handshake is to be let go at once.
        stream.allowHalfOpen = true;
        if (place !== undefined) serveFramed(stream, place, options.receive);
      });
    } else {
      this.#server = this.#httpServer();
      this.#server.on('secureConnection', stream => this.#begun(stream));
    }
    // Their connection is closed, which is all there is to do.
    this.#server.on('tlsClientError', () => {});
  }

  /** A new connection. */
  accept(socket: net.Socket): void {
    if (!this.#options.allows(socket.remoteAddress ?? '')) {
      this.counters.prohibited++;
      socket.on('error', () => {}).destroy();
      return;
    }
    const place = this.#options.connections.admit(socket);
    if (place === undefined) return;
    const key = endsOf(socket);
    this.#places.set(key, place);
    socket.once('close', () => this.#places.delete(key));
    const certificate = this.#options.certificate();
    if (certificate !== this.#shown) {
      this.#server.setSecureContext(certificate);
      this.#shown = certificate;
    }
    this.#server.emit('connection', socket);
  }

  /** The handshake is done. */
  #begun(stream: tls.TLSSocket): Place | undefined {
    this.counters.handshakes++;
    const place = this.#places.get(endsOf(stream));
    if (place === undefined) stream.destroy();
    else place.over(stream);
    return place;
  }

  #httpServer(): tls.Server {
    const server = process.getBuiltinModule('node:http2').createSecureServer({
      allowHTTP1: true,
      // Of HTTP/1.1; whole connections are idle or not by the same rule as everywhere (connections.ts).
      maxHeaderSize: MAX_HEADER_OCTETS,
      keepAliveTimeout: 0,
      maxSessionMemory: MAX_SESSION_MEGABYTES,
      maxHeaderListPairs: MAX_HEADERS,
      settings: {
        enablePush: false,
        maxConcurrentStreams: MAX_OUTSTANDING,
        maxHeaderListSize: MAX_HEADER_OCTETS,
      },
    } as http2.SecureServerOptions);
    server.on('request', (request: Request, response: Response) => this.#serve(request, response));
    server.on('clientError', (_error: Error, socket: net.Socket) => {
      this.#places.get(endsOf(socket))?.end(true);
      socket.destroy();
    });
    server.on('sessionError', () => {});
    return server;
  }

  #serve(request: Request, response: Response): void {
    this.counters.requests++;
    request.on('error', () => {});
    response.on('error', () => {});
    const place = this.#places.get(endsOf(request.socket));
    if (place === undefined) {
      request.socket.destroy();
      return;
    }
    const refuse = (status: number, why: string): void => {
      this.counters.refusedRequests++;
      if (status === 405) response.setHeader('allow', 'GET, POST');
      reply(place, request, response, status, { 'content-type': 'text/plain' }, `${why}\n`);
    };
    const ask = (bytes: Uint8Array): void => {
      if (place.outstanding >= MAX_OUTSTANDING) {
        refuse(429, 'too many questions at once');
        return;
      }
      const giveUp = place.ask(
        this.#options.receive,
        bytes,
        answer => reply(place, request, response, 200, answerFields(answer), answer),
        () => refuse(400, 'this is not a DNS question'),
      );
      response.on('close', giveUp);
    };
    const parsed = parseDohRequest({
      method: request.method ?? '',
      target: request.url ?? '',
      contentType: request.headers['content-type'],
      contentLength: request.headers['content-length'],
    });
    if (parsed.kind === 'body') readBody(request, ask, () => refuse(413, 'the question is too long'));
    else {
      request.resume();
      if (parsed.kind === 'question') ask(parsed.bytes);
      else refuse(parsed.status, parsed.why);
    }
  }
}

/** A body of at most MAX_QUESTION octets; of one that is longer nothing is kept. */
function readBody(request: Request, whole: (body: Uint8Array) => void, tooLong: () => void): void {
  const chunks: Uint8Array[] = [];
  let octets = 0;
  request.on('data', (chunk: Uint8Array) => {
    const before = octets;
    octets += chunk.length;
    if (octets <= MAX_QUESTION) chunks.push(chunk);
    else if (before <= MAX_QUESTION) tooLong();
  });
  request.on('end', () => {
    if (octets <= MAX_QUESTION) whole(new Uint8Array(Buffer.concat(chunks)));
  });
}

function reply(
  place: Place,
  request: Request,
  response: Response,
  status: number,
  fields: Record<string, string>,
  body: Uint8Array | string,
): void {
  if (place.ended || response.headersSent || response.destroyed) return;
  response.statusCode = status;
  response.setHeader('content-length', body.length);
  for (const [name, value] of Object.entries(fields)) response.setHeader(name, value);
  (response as http.ServerResponse).end(body);
  if (request.httpVersionMajor > 1) return;
  if (request.socket.writableLength > MAX_UNFETCHED) place.end(true);
  // What is left of a body that was refused is not read: the connection is of no more use.
  else if (!request.complete && status !== 200) response.once('finish', () => request.socket.end());
}

/** Fresh for as long as its records (RFC 8484 section 5.1), and for nobody but who asked. */
function answerFields(response: Uint8Array): Record<string, string> {
  return { 'content-type': DNS_MESSAGE, 'cache-control': `private, max-age=${leastTtl(response)}` };
}

function endsOf({ remoteAddress, remotePort, localAddress, localPort }: net.Socket): string {
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}
