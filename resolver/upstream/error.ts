/** What went wrong when no server gave a usable answer. */

/**
 * - `timeout`: no server answered in time.
 * - `servfail`, `refused`: the servers answered, but said so; the last one's word.
 * - `no-edns`: the servers reject EDNS (FORMERR, NOTIMP, BADVERS), and without it there is no DNSSEC. Never worked round.
 * - `network`: the servers could not be reached (ICMP unreachable, connection refused or reset).
 * - `malformed`: the servers answered with messages that are not DNS.
 * - `overload`: too many questions wait already.
 * - `aborted`: nobody waits for the answer any more, or the upstream is closed.
 * - `no-servers`: none is configured.
 */
export type UpstreamErrorCode =
  | 'timeout'
  | 'servfail'
  | 'refused'
  | 'no-edns'
  | 'network'
  | 'malformed'
  | 'overload'
  | 'aborted'
  | 'no-servers';

/** An exchange that failed with every server. `text` is one sentence for a person (EDE, logs). */
export class UpstreamError extends Error {
  readonly code: UpstreamErrorCode;
  readonly text: string;
  /** What each server did, in the order asked: `192.0.2.53: no answer`. */
  readonly tried: readonly string[];

  constructor(code: UpstreamErrorCode, text: string, tried: readonly string[] = []) {
    // A silent server was asked in each round: that is said once.
    super(tried.length === 0 ? text : `${text} (${[...new Set(tried)].join('; ')})`);
    this.name = 'UpstreamError';
    this.code = code;
    this.text = text;
    this.tried = tried;
  }
}
