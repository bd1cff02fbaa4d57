/** Runs cases of one target and measures them. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { mutate, randomOf } from './mutate.ts';
import type { Opened, Target } from './target.ts';

export type Figures = {
  target: string;
  cases: number;
  casesPerSecond: number;
  /** The longest case, microseconds; the best of three where it can be, so that it is not the collector's time. */
  maxMicros: number;
  maxCase: number;
  /** Live heap after collection, at the end against after the first tenth, octets. */
  heapGrowthOctets: number;
};

/** A case that broke a promise; the same seed, target and case make the same input again. */
export class Finding extends Error {
  override name = 'Finding';

  constructor(target: string, seed: number, index: number, input: Uint8Array, cause: unknown) {
    const shown = Buffer.from(input.subarray(0, 2048)).toString('hex');
    super(
      `${target}: ${cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause)}\n` +
        `  again: npm run fuzz -- --seed ${seed} --case ${index} ${target}\n  input: ${shown}`,
      { cause },
    );
  }
}

export type Plan = {
  seed: number;
  /** First case and the one after the last. */
  from: number;
  to: number;
  /** Told before each case. */
  onCase?: (index: number) => void;
};

/** Runs the cases; throws a Finding for the first that does not hold. */
export async function runCases(target: Target, plan: Plan): Promise<Figures> {
  const opened = await target.open();
  try {
    return await measure(target, opened, plan);
  } finally {
    await opened.close?.();
  }
}

async function measure(
  { name, remembers }: Target,
  opened: Opened,
  { seed, from, to, onCase }: Plan,
): Promise<Figures> {
  const one = async (index: number): Promise<number> => {
    const random = randomOf(seed, name, index);
    const input = mutate(opened.corpus, random, opened.words);
    const given = Uint8Array.from(input);
    const start = performance.now();
    try {
      const done = opened.check(given, random);
      if (done !== undefined) await done;
    } catch (error) {
      throw new Finding(name, seed, index, input, error);
    }
    return (performance.now() - start) * 1000;
  };
  let maxMicros = 0;
  let maxCase = from;
  let heapAtTenth = 0;
  const started = performance.now();
  const tenth = from + Math.ceil((to - from) / 10);
  for (let index = from; index < to; index++) {
    if (index === tenth) heapAtTenth = liveHeap();
    onCase?.(index);
    let micros = await one(index);
    for (let again = 0; again < 2 && !remembers && micros > maxMicros; again++)
      micros = Math.min(micros, await one(index));
    if (micros > maxMicros) {
      maxMicros = micros;
      maxCase = index;
    }
  }
  const seconds = (performance.now() - started) / 1000;
  return {
    target: name,
    cases: to - from,
    casesPerSecond: Math.round((to - from) / seconds),
    maxMicros: Math.round(maxMicros),
    maxCase,
    heapGrowthOctets: heapAtTenth === 0 ? 0 : liveHeap() - heapAtTenth,
  };
}

let collect: (() => void) | undefined;

function liveHeap(): number {
  if (collect === undefined) {
    setFlagsFromString('--expose-gc');
    collect = runInNewContext('gc') as () => void;
  }
  collect();
  collect();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}
