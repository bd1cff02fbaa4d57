/** What the log hears of decisions: news always, what happens thousands of times in an outage in part. */
import type { Story } from './capture/journal.ts';
import type { Logger } from './log.ts';

/** Refusals told in one second; what the others were, `explain` knows, and how many, the next line that is written. */
const REFUSALS_PER_SECOND = 10;

/**
 * Tells of each decision: refusals as warnings, what was sealed after a wait as information, the rest for debugging.
 *
 * That a name went in clear as it always does is no news. `now`: milliseconds, monotonic.
 */
export function decisionLog(log: Logger, now: () => number): (story: Story) => void {
  let second = -1;
  let told = 0;
  let untold = 0;
  return story => {
    const refused = story.rcode !== 0 && story.rcode !== 3;
    const level = refused ? 'warn' : story.held ? 'info' : 'debug';
    if (!log.isLevelEnabled(level)) return;
    if (!refused) return log[level]({ event: 'decided', ...story.summary() });
    const thisSecond = Math.floor(now() / 1000);
    if (thisSecond !== second) {
      second = thisSecond;
      told = 0;
    }
    if (++told > REFUSALS_PER_SECOND) {
      untold++;
      return;
    }
    log.warn({ event: 'decided', ...story.summary(), ...(untold > 0 && { untold }) });
    untold = 0;
  };
}
