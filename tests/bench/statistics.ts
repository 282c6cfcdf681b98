/** Medians of repeated measurements. */

/** What repeated measurements of one thing came to. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  /** How far apart the middle half of the values are, as a part of the median: of five the middle three, of three all. */
  readonly noise: number;
}

/** The middle value, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError("nothing has no median");
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  return (sorted[Math.ceil(middle) - 1]! + sorted[Math.floor(middle)]!) / 2;
}

/** Sums repeated measurements up. */
export function spread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const left = Math.floor(sorted.length / 4);
  const middle = median(sorted);
  return {
    median: middle,
    min: sorted[0]!,
    max: sorted.at(-1)!,
    noise: (sorted.at(-1 - left)! - sorted[left]!) / middle,
  };
}
