/** The clock that TTLs are counted down by. */

/**
 * Seconds since it was made, never going back: monotonic time, and what the machine slept through.
 *
 * The monotonic clock of Linux stands still while a machine sleeps, TTLs do not; a leap of the time of day counts as
 * such a sleep, a step back counts as nothing. Both arguments in milliseconds.
 */
export function elapsedSeconds(
  monotonic: () => number = () => performance.now(),
  wallClock: () => number = Date.now,
): () => number {
  const start = monotonic();
  let ahead = wallClock() - start;
  let slept = 0;
  return () => {
    const now = monotonic();
    const nowAhead = wallClock() - now;
    if (nowAhead > ahead + LEAP_MILLIS) slept += nowAhead - ahead;
    if (Math.abs(nowAhead - ahead) > LEAP_MILLIS) ahead = nowAhead;
    return Math.floor((now - start + slept) / 1000);
  };
}

/** Less than this is the two clocks drifting apart. */
const LEAP_MILLIS = 1000;
