/**
 * Is there a captive portal? One HTTP request for a page whose answer is known (RFC 8952 section 2.2 names the practice).
 *
 * The address is looked up unprotected, because behind a portal there is no other way; so nothing that comes back is
 * believed but this one thing: whether it is the known answer. No redirect is followed, no more than a few octets are
 * read, nothing is kept.
 */
import { isIP } from 'node:net';
import type { PortalFinding } from './path.ts';

/** An `import` of this module's names would load Node's own WebSocket client with it: 12 MB that nobody uses. */
const { request } = process.getBuiltinModule('node:http');

export type PortalCheck = {
  /** http, never https: a portal cannot show itself to https. */
  url: URL;
  /** How the body begins when nobody stands between. A 204 says the same. */
  response: string;
};

const CHECK_MILLIS = 4000;
const MAX_BODY_OCTETS = 4096;
const MAX_HEADER_OCTETS = 8192;

/** Asks the addresses one after the other, the first that speaks HTTP counts. Never rejects. */
export async function checkPortal(
  check: PortalCheck,
  lookUp: (host: string, signal: AbortSignal) => Promise<string[]>,
  signal: AbortSignal,
): Promise<PortalFinding> {
  const over = AbortSignal.any([signal, AbortSignal.timeout(CHECK_MILLIS)]);
  const host = check.url.hostname.replace(/^\[|\]$/g, '');
  const addresses = isIP(host) ? [host] : await lookUp(host, over);
  for (const address of addresses) {
    const answer = await fetchFrom(address, check.url, over);
    if (answer !== undefined) return judge(answer, check);
  }
  return { kind: 'unknown' };
}

type PageAnswer = { status: number; location: string | undefined; body: string };

/** What a page says about the network between. */
export function judge({ status, location, body }: PageAnswer, { url, response }: PortalCheck): PortalFinding {
  if (status === 204 || (status === 200 && body.startsWith(response))) return { kind: 'open' };
  if (status >= 300 && status < 400) {
    const to = hostOf(location, url);
    // A server that moved its page within its own host is no portal.
    return to === undefined || to === url.hostname ? { kind: 'unknown' } : { kind: 'portal', login: to };
  }
  // RFC 6585 section 6, or another page where the known one should be.
  if (status === 511 || status === 200) return { kind: 'portal', login: url.hostname };
  return { kind: 'unknown' };
}

/** The host of a redirect, as a name or an address and nothing else: it will be shown to people. */
function hostOf(location: string | undefined, base: URL): string | undefined {
  if (location === undefined || location.length > 2048 || !URL.canParse(location, base.href))
    return undefined;
  const { protocol, hostname } = new URL(location, base);
  if (protocol !== 'http:' && protocol !== 'https:') return undefined;
  return /^[a-z0-9._:[\]-]{1,253}$/i.test(hostname) ? hostname.replace(/^\[|\]$/g, '') : undefined;
}

/** Undefined when it does not answer in HTTP. The connection goes to `address`, whatever the name says. */
function fetchFrom(address: string, url: URL, signal: AbortSignal): Promise<PageAnswer | undefined> {
  return new Promise(resolve => {
    const asked = request({
      host: address,
      port: url.port === '' ? 80 : Number(url.port),
      path: `${url.pathname}${url.search}`,
      headers: { host: url.host, connection: 'close', 'user-agent': 'holdfast' },
      maxHeaderSize: MAX_HEADER_OCTETS,
      agent: false,
      signal,
    });
    asked.on('error', () => resolve(undefined));
    asked.on('response', response => {
      const chunks: Buffer[] = [];
      let octets = 0;
      const done = () => {
        const body = Buffer.concat(chunks).subarray(0, MAX_BODY_OCTETS).toString('latin1');
        resolve({ status: response.statusCode ?? 0, location: response.headers.location, body });
        asked.destroy();
      };
      response.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        octets += chunk.length;
        if (octets >= MAX_BODY_OCTETS) done();
      });
      response.on('end', done);
      // Cut off in the middle: what came is enough to tell one page from another.
      response.on('error', done);
      response.on('close', done);
    });
    asked.end();
  });
}
