/** An error of ours in a callback from the event loop ends the daemon in order instead of tearing it down. */
export function guarded<T extends unknown[]>(fail: (error: Error) => void, callback: (...args: T) => void) {
  return (...args: T): void => {
    try {
      callback(...args);
    } catch (error) {
      fail(error instanceof Error ? error : new Error(String(error)));
    }
  };
}
