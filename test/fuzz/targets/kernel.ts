import assert from 'node:assert/strict';
import fc from 'fast-check';
import { parseEvent } from '../../../kernel/events.ts';
import { composeMessage, parseAttributes, parseError, parseMessages } from '../../../kernel/netlink.ts';
import { composePolicy, composeSa, parsePolicy, parseSa } from '../../../kernel/xfrm-messages.ts';
import { policy, sa } from '../../kernel/arbitraries.ts';
import type { Target } from '../target.ts';

const [FIRST, LAST] = [16, 40];

/** What a netlink socket hands over, had it come from somebody else than the kernel, or from another kernel. */
const netlink: Target = {
  name: 'kernel/netlink',
  open: () => ({
    corpus: [
      ...fc.sample(sa, { seed: 1, numRuns: 40 }).map(one => composeMessage(16, 0, 1, composeSa(one))),
      ...fc.sample(policy, { seed: 1, numRuns: 40 }).map(one => composeMessage(19, 0, 1, composePolicy(one))),
      // ACQUIRE, EXPIRE, POLEXPIRE, MAPPING with room for their structures (linux/xfrm.h), ERROR with a message.
      ...[23, 24, 27, 38].map(type => composeMessage(type, 0, 1, new Uint8Array(400).fill(2))),
      composeMessage(
        2,
        0x200,
        1,
        Uint8Array.from([0xea, 0xff, 0xff, 0xff, ...new Uint8Array(16), 9, 0, 1, 0, 104, 101, 121, 33, 0]),
      ),
    ],
    check(bytes, random) {
      const { messages, malformed } = parseMessages(bytes);
      assert.ok(malformed <= 1);
      for (const message of messages) {
        for (const type of [message.type, FIRST + random.below(LAST - FIRST)]) {
          const one = { ...message, type };
          parseEvent(one);
          parseError(one);
          parseSa(one);
          parsePolicy(one);
        }
        parseAttributes(message.payload, random.below(64));
      }
    },
  }),
};

export const kernelTargets: readonly Target[] = [netlink];
