import { ExchangeType, NotifyType, ProtocolId } from '../wire/numbers.ts';
import { notify } from '../wire/notify.ts';
import { findNotify, type Payload } from '../wire/payloads.ts';
import type { Core } from './core.ts';
import { answer, type Received, request } from './exchange.ts';
import type { IkeSa } from './sa.ts';
import { advance, permits } from './states.ts';

/**
 * INFORMATIONAL exchanges: DELETE in both directions, liveness (RFC 7296 §1.4, §2.4).
 *
 * | request                          | answer            | then                                     |
 * |----------------------------------|-------------------|------------------------------------------|
 * | D(IKE)                           | {}                | Child SAs removed, closed, lingering     |
 * | N(AUTHENTICATION_FAILED)         | {}                | the same: the peer rejects our key       |
 * | D(ESP, SPIs)                     | D(ESP, our SPIs)  | those Child SAs removed                  |
 * | {} or anything we do not know    | {}                | nothing                                  |
 */

export function receiveInformational(core: Core, sa: IkeSa, received: Received): void {
  if (received.broken) {
    brokenRequest(core, sa, received.broken.notify, received.broken.data);
    return;
  }
  const { payloads } = received;
  const deletes = payloads.filter(payload => payload.kind === 'D');
  const rejected = findNotify(payloads, NotifyType.AUTHENTICATION_FAILED) !== undefined;
  if (rejected || deletes.some(payload => payload.protocol === ProtocolId.IKE)) {
    answer(core, sa, ExchangeType.INFORMATIONAL, []);
    end(core, sa, rejected ? 'the peer rejects our authentication' : 'deleted by the peer');
    return;
  }
  const ours: number[] = [];
  for (const payload of deletes) {
    if (payload.protocol !== ProtocolId.ESP) continue;
    // The SPIs are those that the peer receives with: our outbound ones.
    for (const spi of payload.spis) {
      const child = sa.children.find(one => one.outbound.spi === spi);
      if (!child) continue;
      sa.children = sa.children.filter(one => one !== child);
      ours.push(child.inbound.spi);
      core.removeChild(child, 'deleted by the peer');
    }
  }
  const reply: Payload[] = ours.length > 0 ? [{ kind: 'D', protocol: ProtocolId.ESP, spis: ours }] : [];
  answer(core, sa, ExchangeType.INFORMATIONAL, reply);
  if (sa.children.length === 0 && sa.state === 'established' && ours.length > 0) {
    core.deadlines.set(sa, 'childless', core.now + core.config.limits.childlessMillis);
  }
}

/** Authentic, but it does not parse: RFC 7296 §2.21.3 makes bad syntax fatal, an unknown critical payload not. */
function brokenRequest(core: Core, sa: IkeSa, type: number | undefined, data: Uint8Array): void {
  answer(core, sa, ExchangeType.INFORMATIONAL, [notify(type ?? NotifyType.INVALID_SYNTAX, data)]);
  if (type === NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD) return;
  end(core, sa, 'the peer sent what does not parse');
}

/** The peer has ended it: only its last answer is kept for a while. */
function end(core: Core, sa: IkeSa, why: string): void {
  advance(sa, 'peerDelete');
  core.retire(sa, why);
  core.deadlines.clearAll(sa);
  core.deadlines.set(sa, 'linger', core.now + core.config.limits.lingerMillis);
  delete sa.window.outstanding;
  sa.window.queue = [];
}

/** HDR, SK {D}  -->   Its Child SAs are gone at once; the SA itself when the peer has answered or never does. */
export function close(core: Core, sa: IkeSa, why: string): void {
  if (!permits(sa, 'close')) return;
  advance(sa, 'close');
  if (sa.state === 'closed') {
    core.free(sa, why);
    return;
  }
  if (sa.handshake?.role === 'initiator') core.fail(sa.handshake.attempt, { code: 'cancelled', text: why });
  core.retire(sa, why);
  for (const deadline of ['keepalive', 'childless', 'rekeyed']) core.deadlines.clear(sa, deadline);
  sa.window.queue = [];
  const payloads: Payload[] = [{ kind: 'D', protocol: ProtocolId.IKE, spis: [] }];
  request(core, sa, ExchangeType.INFORMATIONAL, payloads, 'delete');
}

/** HDR, SK {}  -->   Is the peer still there? Without an answer the SA is closed as dead. */
export function probe(core: Core, sa: IkeSa): void {
  if (sa.state !== 'established' || sa.window.outstanding) return;
  request(core, sa, ExchangeType.INFORMATIONAL, [], 'probe');
}
