import { getSystemErrorName } from 'node:util';

/** A refusal by the kernel: which verb, the errno, and the kernel's own words where it sent some (EXT_ACK). */
export class KernelError extends Error {
  readonly verb: string;
  /** Positive errno. */
  readonly errno: number;
  /** The errno's name, such as `EEXIST`. */
  readonly code: string;
  readonly extack: string | undefined;

  constructor(verb: string, errno: number, extack?: string) {
    const code = errnoName(errno);
    super(`${verb}: ${code}${extack ? ` (${extack})` : ''}`);
    this.name = 'KernelError';
    this.verb = verb;
    this.errno = errno;
    this.code = code;
    this.extack = extack;
  }
}

/** The name of a positive errno; a number that has none stays a number. */
export function errnoName(errno: number): string {
  try {
    return getSystemErrorName(-errno);
  } catch {
    return `errno ${errno}`;
  }
}

/** Passes a system call's result on, or throws what its negative errno says. */
export function accepted(verb: string, result: number): number {
  if (result < 0) throw new KernelError(verb, -result);
  return result;
}

/** Runs a removal; what is gone already is as good as removed. */
export function gone(remove: () => void): void {
  try {
    remove();
  } catch (error) {
    if (!(error instanceof KernelError) || !['ENOENT', 'ESRCH'].includes(error.code)) throw error;
  }
}

/** One step of taking back: its own refusal must neither hide the first one nor keep the other steps from being done. */
export function undone(back: () => void): void {
  try {
    back();
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
  }
}
