/**
 * The table of the policy groups: what a group makes of what is known about a name's key.
 *
 *   group                 key, IKE ok  key, IKE fails  no key, proven  unsigned zone  bogus or unknown
 *   clear                 clear        clear           clear           clear          clear
 *   clear-or-private      clear        clear           clear           clear          clear
 *   private-or-clear      sealed       clear           clear           clear          refuse
 *   private-if-published  sealed       refuse          clear           clear          refuse
 *   private               sealed       refuse          refuse          refuse         refuse
 *   block                 refuse       refuse          refuse          refuse         refuse
 *
 * "Unsigned zone" is a zone proven to be unsigned; a key found there counts for nothing yet, as nobody vouches for it.
 */
import type { PolicyGroup } from './groups.ts';

/** What DNS says about keys at a name; see KeyFinding for the evidence behind it. */
export type KeyState = 'published' | 'absent' | 'unsigned' | 'unknown';

export type Action = 'clear' | 'negotiate' | 'refuse';

/** What to do at the start, knowing only what DNS says about the key. */
export function actionFor(group: PolicyGroup, keys: KeyState): Action {
  return TABLE[group][keys];
}

/** What to do with an address whose negotiation failed or took longer than our patience. */
export function actionAfterFailure(group: PolicyGroup): 'clear' | 'refuse' {
  return TABLE[group].failed;
}

/** Whether a key of the name makes any difference for this group: if not, none is looked up. */
export function wantsKey(group: PolicyGroup): boolean {
  return TABLE[group].published === 'negotiate';
}

type Row = Record<KeyState, Action> & { failed: 'clear' | 'refuse' };

const TABLE: Record<PolicyGroup, Row> = {
  clear: { published: 'clear', failed: 'clear', absent: 'clear', unsigned: 'clear', unknown: 'clear' },
  'clear-or-private': {
    published: 'clear',
    failed: 'clear',
    absent: 'clear',
    unsigned: 'clear',
    unknown: 'clear',
  },
  'private-or-clear': {
    published: 'negotiate',
    failed: 'clear',
    absent: 'clear',
    unsigned: 'clear',
    unknown: 'refuse',
  },
  'private-if-published': {
    published: 'negotiate',
    failed: 'refuse',
    absent: 'clear',
    unsigned: 'clear',
    unknown: 'refuse',
  },
  private: {
    published: 'negotiate',
    failed: 'refuse',
    absent: 'refuse',
    unsigned: 'refuse',
    unknown: 'refuse',
  },
  block: { published: 'refuse', failed: 'refuse', absent: 'refuse', unsigned: 'refuse', unknown: 'refuse' },
};
