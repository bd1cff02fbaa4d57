import { concat } from './wire/bytes.ts';

/** Reassembly of one message from SKF fragments, RFC 7383 §2.6; plain data, kept by whoever keeps the message window. */
export type Reassembly = {
  messageId: number;
  total: number;
  /** Type of the first payload inside, known once fragment 1 is there. */
  firstPayload: number | undefined;
  /** Plaintext by fragment number - 1. */
  parts: (Uint8Array | undefined)[];
  received: number;
  bytes: number;
};

/** One opened fragment: its ICV was right and its padding is off. */
export type Fragment = {
  messageId: number;
  number: number;
  total: number;
  firstPayload: number;
  plaintext: Uint8Array;
};

export type ReassemblyLimits = { fragments: number; bytes: number };

const defaultReassemblyLimits: ReassemblyLimits = { fragments: 64, bytes: 65536 };

/** What became of a fragment; `state` is what to keep (and to give with the next one). */
export type Reassembled =
  | { outcome: 'kept' | 'duplicate' | 'refused'; state: Reassembly | undefined }
  | { outcome: 'complete'; state: undefined; firstPayload: number; plaintext: Uint8Array };

/**
 * Add a fragment; call it only after the fragment was opened (its ICV verified).
 *
 * RFC 7383 §2.6: a fragment seen before is a duplicate; a smaller total than the one in work is refused; a greater total
 * starts over, since the peer fragments anew with smaller pieces. Refused too: fragment 0, a number beyond its total,
 * more fragments or bytes than the limits, an empty fragment, another message ID than the one in work. A refused fragment
 * leaves the state as it was. `state` is changed in place. Once complete the state is gone: whoever keeps the message window
 * must not bring fragments of a message ID that it already answered.
 */
export function addFragment(
  state: Reassembly | undefined,
  fragment: Fragment,
  limits: ReassemblyLimits = defaultReassemblyLimits,
): Reassembled {
  const { messageId, number, total, plaintext } = fragment;
  const refused = { outcome: 'refused', state } as const;
  if (number < 1 || number > total || total > limits.fragments || plaintext.length === 0) return refused;
  if (state !== undefined && (state.messageId !== messageId || total < state.total)) return refused;
  const current = state !== undefined && state.total === total ? state : begin(messageId, total);
  if (current.parts[number - 1] !== undefined) return { outcome: 'duplicate', state };
  if (current.bytes + plaintext.length > limits.bytes) return refused;

  current.parts[number - 1] = plaintext;
  current.received += 1;
  current.bytes += plaintext.length;
  if (number === 1) current.firstPayload = fragment.firstPayload;
  if (current.received < total) return { outcome: 'kept', state: current };
  return {
    outcome: 'complete',
    state: undefined,
    firstPayload: current.firstPayload!,
    plaintext: concat(current.parts.filter(part => part !== undefined)),
  };
}

function begin(messageId: number, total: number): Reassembly {
  const parts = new Array<Uint8Array | undefined>(total).fill(undefined);
  return { messageId, total, firstPayload: undefined, parts, received: 0, bytes: 0 };
}
