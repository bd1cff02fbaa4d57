/** DNS over HTTPS requests (RFC 8484): which of them carry a question. Pure. */
import { MAX_QUESTION } from './connections.ts';

export const DNS_MESSAGE = 'application/dns-message';
/** The path of RFC 8484's own examples, which clients expect. */
const PATH = '/dns-query';
/** A question of MAX_QUESTION octets in base64url, the path, and something to spare. */
const MAX_TARGET = Math.ceil((MAX_QUESTION * 4) / 3) + 256;

export type DohRequest = {
  method: string;
  /** Path and query, as the request line or `:path` has it. */
  target: string;
  contentType?: string | undefined;
  contentLength?: string | undefined;
};

/** `question`: its bytes. `body`: they are the body. `refusal`: the HTTP status that says why there is none. */
export type ParsedRequest =
  | { kind: 'question'; bytes: Uint8Array }
  | { kind: 'body' }
  | { kind: 'refusal'; status: 400 | 404 | 405 | 413 | 414 | 415; why: string };

/** Reads what stands before the body (RFC 8484 section 4.1). Never throws. */
export function parseDohRequest({ method, target, contentType, contentLength }: DohRequest): ParsedRequest {
  if (target.length > MAX_TARGET) return refusal(414, 'the question is too long');
  const [path, query = ''] = target.split('?', 2);
  if (path !== PATH) return refusal(404, `questions go to ${PATH}`);
  if (method === 'GET') return parseQueryString(query);
  if (method !== 'POST') return refusal(405, 'GET or POST');
  if ((contentType ?? '').split(';', 1)[0]!.trim().toLowerCase() !== DNS_MESSAGE)
    return refusal(415, `the content type has to be ${DNS_MESSAGE}`);
  if (contentLength !== undefined && !(Number(contentLength) <= MAX_QUESTION))
    return refusal(413, 'the question is too long');
  return { kind: 'body' };
}

/** `dns=` with base64url without padding (RFC 8484 section 6); other parameters are not our concern. */
function parseQueryString(query: string): ParsedRequest {
  const values = query.split('&').filter(part => part.startsWith('dns='));
  const text = values[0]?.slice('dns='.length) ?? '';
  if (values.length !== 1 || text === '') return refusal(400, 'expected ?dns= with a question in base64url');
  if (!/^[A-Za-z0-9_-]+$/.test(text) || text.length % 4 === 1)
    return refusal(400, 'the question is not base64url without padding');
  const bytes = new Uint8Array(Buffer.from(text, 'base64url'));
  return bytes.length > MAX_QUESTION ? refusal(414, 'the question is too long') : { kind: 'question', bytes };
}

function refusal(status: 400 | 404 | 405 | 413 | 414 | 415, why: string): ParsedRequest {
  return { kind: 'refusal', status, why };
}
