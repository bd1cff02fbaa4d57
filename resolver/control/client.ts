/** The control socket's client: what `status`, `explain` and `forget` speak to the daemon with. */
import { Client, errors } from 'undici';
import { StartupError } from '../startup-error.ts';
import type { NetworkStatus } from '../network/status.ts';
import type { Explanation, ForgetResult, ForgetTarget, PortalAllowance, StatusReport } from './api.ts';

/** One daemon, by the path of its control socket. Every method throws StartupError with what to do. */
export class ControlClient {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  status(): Promise<StatusReport> {
    return this.#ask('GET', '/status');
  }

  explain(name: string, type: string): Promise<Explanation> {
    return this.#ask('GET', `/explain?${new URLSearchParams({ name, type })}`);
  }

  forget(target: ForgetTarget): Promise<ForgetResult> {
    return this.#ask('POST', '/forget', target);
  }

  allowPortal(allowance: PortalAllowance): Promise<NetworkStatus> {
    return this.#ask('POST', '/portal', allowance);
  }

  async #ask<T>(method: 'GET' | 'POST', path: string, body?: unknown): Promise<T> {
    const options = { socketPath: this.#path, connect: { timeout: 2000 }, headersTimeout: 60_000 };
    const client = new Client('http://control', options);
    try {
      const request = { method, path, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
      const response = await client.request(request);
      const answer = (await response.body.json()) as T & { error?: string };
      if (response.statusCode === 200) return answer;
      throw new StartupError({
        what: 'the daemon refused',
        why: answer.error ?? `HTTP ${response.statusCode}`,
        next: 'correct the request, or look at the daemon’s log',
      });
    } catch (error) {
      throw error instanceof StartupError ? error : this.#unreachable(error);
    } finally {
      await client.destroy();
    }
  }

  #unreachable(error: unknown): StartupError {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ECONNREFUSED') {
      return new StartupError({
        what: 'cannot reach the daemon',
        why: `nobody answers on ${this.#path}`,
        next: 'start it with `holdfast up`, or name its socket with --control',
      });
    }
    if (code === 'EACCES' || code === 'EPERM') {
      const why = `${this.#path} belongs to another user`;
      return new StartupError({ what: 'cannot reach the daemon', why, next: 'run this as root (sudo)' });
    }
    const late = error instanceof errors.ConnectTimeoutError || error instanceof errors.HeadersTimeoutError;
    return new StartupError({
      what: 'cannot talk to the daemon',
      why: late ? 'it does not answer in time' : message,
      next: 'look at its log; restart it if it hangs',
    });
  }
}
