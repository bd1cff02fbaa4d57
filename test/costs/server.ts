/** The hostile world in a thread of its own, so that what it costs to be hostile is not felt by who measures. */
import { once } from 'node:events';
import { isMainThread, parentPort, Worker } from 'node:worker_threads';
import { type HostileWorld, startHostileWorld } from './hostile.ts';

export type HostileServer = HostileWorld & { stop: () => Promise<void> };

if (!isMainThread) parentPort!.postMessage(await startHostileWorld());

export async function startHostileServer(): Promise<HostileServer> {
  const worker = new Worker(new URL(import.meta.url));
  const [world] = (await once(worker, 'message')) as [HostileWorld];
  return {
    ...world,
    stop: async () => {
      await worker.terminate();
    },
  };
}
