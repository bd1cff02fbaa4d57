/** Opening TCP and TLS connections to a server that may have several addresses. */
import { createHash } from 'node:crypto';
import type { Socket } from 'node:net';
import type tls from 'node:tls';
import type { SocketAddress } from '../address.ts';
import type { TlsServer, HttpsServer } from './server.ts';
import type { UpstreamSockets } from './sockets.ts';
import type { Dial } from './stream.ts';

/** A connection that takes longer than this to open, handshake included, has failed. */
const OPEN_MILLIS = 4000;
/** The next address is tried as well when the one before has not answered for so long (RFC 8305 section 8). */
const NEXT_ADDRESS_MILLIS = 250;

/** Opens one connection to one address. */
type Open = (address: SocketAddress) => {
  socket: Socket;
  event: 'connect' | 'secureConnect';
  verify?: () => string | undefined;
};

/** A dial of plain TCP. */
export function dialTcp(sockets: UpstreamSockets, server: SocketAddress): Dial {
  return dialFirst(
    callback => {
      callback([server]);
    },
    address => ({ socket: sockets.tcp(address), event: 'connect' }),
  );
}

/** Finds a server's addresses: now, or by asking around. Rejects with a sentence's end. */
export type Addresses = () => Promise<SocketAddress[]>;

/** What certificates are judged by, PEM; absent: the system's own authorities. */
export type Authorities = string | undefined;

/**
 * A dial of TLS, strict: whoever cannot prove to be the server is not asked (RFC 8310 section 5).
 *
 * Sessions are resumed (RFC 7858 section 3.4). `protocol`: ALPN, `dot` or `h2`.
 */
export class TlsDialler {
  readonly #server: TlsServer | HttpsServer;
  readonly #sockets: UpstreamSockets;
  readonly #authorities: Authorities;
  #session: Buffer | undefined;
  readonly dial: Dial;

  constructor(
    server: TlsServer | HttpsServer,
    sockets: UpstreamSockets,
    addresses: Addresses,
    authorities: Authorities,
  ) {
    this.#server = server;
    this.#sockets = sockets;
    this.#authorities = authorities;
    this.dial = dialFirst(
      (found, failed) => {
        addresses().then(found, (error: unknown) =>
          failed(error instanceof Error ? error.message : String(error)),
        );
      },
      address => this.#open(address),
    );
  }

  #open(address: SocketAddress): ReturnType<Open> {
    const { name, pins, transport } = this.#server;
    const socket = process.getBuiltinModule('node:tls').connect({
      socket: this.#sockets.tcp(address),
      ALPNProtocols: [transport === 'tls' ? 'dot' : 'h2'],
      minVersion: 'TLSv1.2',
      // Without a name the pin alone tells who it is (RFC 7858 section 4.2): no authority has a say in that.
      rejectUnauthorized: name !== undefined,
      ...(name !== undefined && { servername: name, secureContext: contextOf(this.#authorities) }),
      ...(this.#session !== undefined && { session: this.#session }),
    });
    socket.on('session', session => {
      this.#session = session;
    });
    const verify = () => {
      if (transport === 'https' && socket.alpnProtocol !== 'h2') return 'does not speak HTTP/2';
      const pin = pinOf(socket);
      if (pins.length === 0 || (pin !== undefined && pins.includes(pin))) return undefined;
      this.#session = undefined;
      return `its key is not the one pinned but ${pin}`;
    };
    socket.once('error', () => {
      this.#session = undefined;
    });
    return { socket, event: 'secureConnect', verify };
  }
}

/** Base64 of the SHA-256 of the public key's SPKI (RFC 7858 section 4.2). */
function pinOf(socket: tls.TLSSocket): string | undefined {
  const spki = socket.getPeerX509Certificate()?.publicKey.export({ type: 'spki', format: 'der' });
  return spki && createHash('sha256').update(spki).digest('base64');
}

const contexts = new Map<Authorities, tls.SecureContext>();

/** Made once: reading hundreds of authorities takes long. */
function contextOf(authorities: Authorities): tls.SecureContext {
  let context = contexts.get(authorities);
  if (context === undefined) {
    const tls = process.getBuiltinModule('node:tls');
    const system = authorities === undefined ? tls.getCACertificates('system') : [authorities];
    context = tls.createSecureContext({ ca: system.length > 0 ? system : tls.getCACertificates('bundled') });
    contexts.set(authorities, context);
  }
  return context;
}

/** Tries the addresses one after the other without hanging up on the earlier ones; the first that is ready wins. */
function dialFirst(
  find: (found: (addresses: readonly SocketAddress[]) => void, failed: (why: string) => void) => void,
  open: Open,
): Dial {
  return (ready, failed) => {
    const trying = new Set<Socket>();
    let over = false;
    let next: NodeJS.Timeout | undefined;
    let left: SocketAddress[] = [];
    let why = 'it has no address';
    const stop = () => {
      over = true;
      clearTimeout(next);
      clearTimeout(end);
      for (const socket of trying) socket.destroy();
      trying.clear();
    };
    const fail = (reason: string) => {
      if (over) return;
      stop();
      failed(reason);
    };
    const end = setTimeout(() => fail('TCP cannot be opened: no answer'), OPEN_MILLIS);
    const tryNext = () => {
      clearTimeout(next);
      const address = left.shift();
      if (over || (address === undefined && trying.size > 0)) return;
      if (address === undefined) return fail(why);
      try {
        begin(address);
      } catch (error) {
        why = sentence(error);
        return tryNext();
      }
      if (left.length > 0) next = setTimeout(tryNext, NEXT_ADDRESS_MILLIS);
    };
    const begin = (address: SocketAddress) => {
      const { socket, event, verify } = open(address);
      trying.add(socket);
      const lose = (reason: string) => {
        if (!trying.delete(socket)) return;
        socket.destroy();
        why = reason;
        tryNext();
      };
      socket.on('error', error => lose(sentence(error)));
      socket.on('close', () => lose('the server closed the TCP connection'));
      socket.once(event, () => {
        if (over) return;
        const refused = verify?.();
        if (refused !== undefined) return lose(refused);
        trying.delete(socket);
        stop();
        ready(socket);
      });
    };
    find(addresses => {
      if (over) return;
      left = [...addresses];
      tryNext();
    }, fail);
    return stop;
  };
}

function sentence(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === undefined) return String(message ?? error);
  if (/^E[A-Z]+$/.test(code)) return `TCP failed: ${code}`;
  return /^ERR_SSL/.test(code) ? `TLS failed: ${message}` : `cannot prove who it is: ${message}`;
}
