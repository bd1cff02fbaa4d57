/**
 * A message, payload or public value that does not fit.
 *
 * `notify` is the notify type (RFC 7296 §3.10.1) that answers it where the peer may be answered at all;
 * undefined means: drop silently and count. `data` is that notify's data (the payload type for
 * UNSUPPORTED_CRITICAL_PAYLOAD). Nothing in ike/wire and ike/crypto throws anything else on bytes of a peer.
 */
export class WireError extends Error {
  readonly notify: number | undefined;
  readonly data: Uint8Array;

  constructor(text: string, notify?: number, data: Uint8Array = new Uint8Array(0)) {
    super(text);
    this.name = 'WireError';
    this.notify = notify;
    this.data = data;
  }
}

/** The most common one: INVALID_SYNTAX (7), "the type, length, or value was out of range". */
export function invalidSyntax(text: string): WireError {
  return new WireError(text, 7);
}

/** A message that must not be answered: drop silently. */
export function dropped(text: string): WireError {
  return new WireError(text);
}
