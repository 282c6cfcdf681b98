// SPDX-License-Identifier: MIT
/** Random numbers that a seed repeats (mulberry32). For tests and for filters that act by chance; not for secrets. */

/**
 * A source of random numbers: the same seed gives the same numbers.
 *
 * ```ts
 * import { Random } from "./random.ts";
 *
 * console.assert(new Random(7).below(100) === new Random(7).below(100));
 * ```
 */
export class Random {
  #state: number;

  /** @param seed its low 32 bits count */
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** A 32-bit number. */
  word(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }

  /** 0 (inclusive) to 1 (exclusive). */
  next(): number {
    return this.word() / 2 ** 32;
  }

  /** A whole number from 0 to `end` - 1. */
  below(end: number): number {
    return Math.floor(this.next() * end);
  }

  /** True with that probability. */
  chance(probability: number): boolean {
    return this.next() < probability;
  }

  /**
   * One of a list.
   *
   * @throws {RangeError} if the list is empty.
   */
  pick<T>(list: readonly T[]): T {
    const one = list[this.below(list.length)];
    if (one === undefined) throw new RangeError("nothing to pick from");
    return one;
  }

  /** Fills memory with random bytes. */
  fill(bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    let at = 0;
    for (; at + 4 <= bytes.length; at += 4) view.setUint32(at, this.word(), true);
    for (; at < bytes.length; at++) bytes[at] = this.below(256);
  }
}
