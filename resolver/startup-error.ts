/**
 * A reason why the program cannot start, told so that the reader knows what to do.
 *
 * `what` could not be done, `why` not, and what to do `next`: one sentence each, without a full stop.
 * The command line prints it and exits with `exitCode`: 1 failed, 2 the configuration or the usage is at fault.
 */
export class StartupError extends Error {
  readonly what: string;
  readonly why: string;
  readonly next: string;
  readonly exitCode: 1 | 2;

  constructor(reason: { what: string; why: string; next: string; exitCode?: 1 | 2; cause?: unknown }) {
    super(`${reason.what}: ${reason.why}; ${reason.next}`, { cause: reason.cause });
    this.name = 'StartupError';
    this.what = reason.what;
    this.why = reason.why;
    this.next = reason.next;
    this.exitCode = reason.exitCode ?? 1;
  }
}
