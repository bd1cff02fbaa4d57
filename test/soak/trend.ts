// Whether something grows: a slope that outliers do not move, and the end compared with the middle. Pure.

export type Point = { seconds: number; value: number };

/** Growth an hour by Theil and Sen: the median of the slopes between all pairs. 0 for fewer than two points. */
export function slopePerHour(points: Point[]): number {
  const few = thinned(points, 400);
  const slopes = few.flatMap((a, i) =>
    few
      .slice(i + 1)
      .flatMap(b => (b.seconds > a.seconds ? [(b.value - a.value) / (b.seconds - a.seconds)] : [])),
  );
  return slopes.length === 0 ? 0 : median(slopes) * 3600;
}

export type Growth = { slopePerHour: number; middle: number; end: number; grows: boolean };

/**
 * Compares the second quarter of what is left after `warmUpSeconds` with the last, and fits the slope.
 *
 * It grows when both say so: the end lies over the middle by more than `tolerance`, and the slope would add more than that
 * in an hour.
 */
export function growth(points: Point[], warmUpSeconds: number, tolerance: number): Growth {
  const settled = points.filter(({ seconds }) => seconds >= warmUpSeconds);
  const quarter = Math.floor(settled.length / 4);
  const middle = median(settled.slice(quarter, 2 * quarter).map(({ value }) => value));
  const end = median(settled.slice(-Math.max(1, quarter)).map(({ value }) => value));
  const slope = slopePerHour(settled);
  return { slopePerHour: slope, middle, end, grows: slope > tolerance && end - middle > tolerance };
}

/** Of an empty list: not a number, which is greater than nothing. */
function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const half = Math.floor(sorted.length / 2);
  if (sorted.length === 0) return Number.NaN;
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}

function thinned(points: Point[], most: number): Point[] {
  const step = Math.max(1, Math.ceil(points.length / most));
  return points.filter((_, i) => i % step === 0);
}

/** Live heap in MB after each full collection, from V8's `--trace-gc`. */
export function heapAfterCollections(trace: string): Point[] {
  const line = /^\[\d+:0x[0-9a-f]+\]\s+(\d+) ms: Mark-Compact[^-]*? [\d.]+ \([\d.]+\) -> ([\d.]+) \(/gm;
  return [...trace.matchAll(line)].map(([, millis, megabytes]) => ({
    seconds: Number(millis) / 1000,
    value: Number(megabytes),
  }));
}
