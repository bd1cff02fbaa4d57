import { NotifyType, notifyName } from '../wire/numbers.ts';
import { endpointText } from './addresses.ts';
import type { Core } from './core.ts';
import { retransmit } from './exchange.ts';
import { close } from './informational.ts';
import { otherNameUnknown } from './initiator-auth.ts';
import type { IkeSa } from './sa.ts';
import { advance } from './states.ts';

/** What happens when time passes. Each deadline carries its reason, and the reason is looked up here. */

export function expire(core: Core): void {
  for (;;) {
    const due = core.deadlines.takeDue(core.now);
    if (!due) return;
    const handler = reasons[due.why];
    if (!handler) throw new Error(`no such deadline: ${due.why}`);
    handler(core, due.owner);
  }
}

const reasons: { [why: string]: (core: Core, sa: IkeSa) => void } = {
  retransmission(core, sa) {
    if (!retransmit(core, sa)) noAnswer(core, sa);
  },

  /** authenticate() never came. */
  speculation(core, sa) {
    if (sa.handshake?.role !== 'initiator') return;
    const text = 'nobody said whom to expect';
    core.fail(sa.handshake.attempt, { code: 'cancelled', text });
    advance(sa, 'expire');
    core.free(sa, text);
  },

  verification: otherNameUnknown,

  'half-open'(core, sa) {
    advance(sa, 'expire');
    core.free(sa, 'the handshake was not completed');
  },

  linger(core, sa) {
    advance(sa, 'expire');
    core.free(sa, 'over');
  },

  childless(core, sa) {
    if (sa.children.length === 0 && !sa.pending) close(core, sa, 'without a Child SA');
  },

  /** The peer rekeyed this IKE SA and did not delete it. */
  rekeyed(core, sa) {
    close(core, sa, 'replaced');
  },

  /** RFC 3948 §4: keeps the mapping of our NAT alive. */
  keepalive(core, sa) {
    core.count('keepalives');
    core.emit({ kind: 'send', data: Uint8Array.of(0xff), local: sa.local, remote: sa.remote });
    core.deadlines.set(sa, 'keepalive', core.now + core.config.limits.keepaliveMillis);
  },
};

/** All copies of a request went unanswered. */
function noAnswer(core: Core, sa: IkeSa): void {
  const remote = endpointText(sa.remote);
  const { handshake } = sa;
  if (handshake?.role === 'initiator') {
    const { refusal, attempt } = handshake;
    core.fail(
      attempt,
      refusal !== undefined && refusal !== NotifyType.COOKIE
        ? { code: 'refused', notify: refusal, text: `${remote} answered ${notifyName(refusal)}, unprotected` }
        : { code: 'no-answer', text: `no answer from ${remote}` },
    );
  }
  advance(sa, 'timeout');
  core.free(sa, `no answer from ${remote}`);
}
