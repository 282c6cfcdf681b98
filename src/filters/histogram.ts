// SPDX-License-Identifier: MIT
/** Counts of values by their size, for percentiles: exact to 1 in 16, in a bounded number of cells. */

/** Cells for each doubling: the width of a cell is at most a sixteenth of its value. */
export const STEPS = 16;
const POWERS_MAX = 48;

/** A part of a histogram: from half of `below` on, or from 0 if that is 1. */
export interface Doubling {
  /** A power of two; the values are smaller. */
  readonly below: number;
  /** How many values. */
  readonly count: number;
}

/** How many there are. */
export const CELLS: number = STEPS * (POWERS_MAX + 1);

/**
 * A histogram of whole numbers from 0 to 2^48: of microseconds, 8 years.
 *
 * ```ts
 * import { Histogram } from "./histogram.ts";
 *
 * const histogram = new Histogram();
 * for (let us = 1; us <= 1000; us++) histogram.add(us);
 * const median = histogram.percentile(50);
 * console.assert(median >= 500 && median <= 532);
 * ```
 */
export class Histogram {
  readonly #cells = new Float64Array(CELLS);
  #count = 0;
  #sum = 0;
  #max = 0;

  /** How many values there are. */
  get count(): number {
    return this.#count;
  }

  /** The largest value; 0 if there is none. */
  get max(): number {
    return this.#max;
  }

  /** The mean; 0 if there is none. */
  get mean(): number {
    return this.#count === 0 ? 0 : this.#sum / this.#count;
  }

  /** Counts a value, rounded to a whole number. */
  add(value: number): void {
    const whole = Math.max(0, Math.min(2 ** POWERS_MAX - 1, Math.round(value)));
    const cell = cellOf(whole);
    this.#cells[cell] = this.#cells[cell]! + 1;
    this.#count++;
    this.#sum += whole;
    if (whole > this.#max) this.#max = whole;
  }

  /** The smallest value that `percent` (0 to 100) of all do not exceed, or up to a sixteenth more; 0 if there is none. */
  percentile(percent: number): number {
    return Math.min(this.#max, percentileOf(this.#cells, this.#count, percent));
  }

  /** How many values are below each power of two, and not below the one before; powers without any are left out. */
  doublings(): Doubling[] {
    const found: { below: number; count: number }[] = [];
    for (const [cell, count] of this.#cells.entries()) {
      if (count === 0) continue;
      const below = 2 ** Math.ceil(Math.log2(endOf(cell) + 1));
      const last = found.at(-1);
      if (last?.below === below) last.count += count;
      else found.push({ below, count });
    }
    return found;
  }
}

/** {@linkcode Histogram.percentile} of cells that somebody else has counted, `count` values in all; 0 without any. */
export function percentileOf(cells: Float64Array, count: number, percent: number): number {
  const wanted = Math.max(1, Math.ceil(count * percent / 100));
  let seen = 0;
  const found = cells.findIndex((inCell) => (seen += inCell) >= wanted);
  return found < 0 ? 0 : endOf(found);
}

/** Values below STEPS have a cell each; from there on every doubling has STEPS of them. */
function cellOf(value: number): number {
  if (value < STEPS) return value;
  const power = Math.floor(Math.log2(value));
  const step = Math.floor(value / 2 ** (power - 4)) - STEPS;
  return (power - 3) * STEPS + step;
}

/** The largest value of a cell. */
function endOf(cell: number): number {
  if (cell < STEPS) return cell;
  const power = Math.floor(cell / STEPS) + 3;
  return (STEPS + cell % STEPS + 1) * 2 ** (power - 4) - 1;
}
