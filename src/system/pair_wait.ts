// SPDX-License-Identifier: MIT
/** A wait for two files with this thread itself: one system call (ppoll(2)), and nothing to set up. */
import type { Kernel } from "./libc.ts";

const POLLIN = 1;
/** struct pollfd, in words of 32 bits: the file; what is wanted of it and, in the high half, what there is. */
const WORDS = 2;
const REVENTS_SHIFT = 16;

/** Two files. */
export class PairWait {
  readonly #kernel: Pick<Kernel, "poll">;
  readonly #files: Int32Array<ArrayBuffer>;

  constructor(kernel: Pick<Kernel, "poll">, first: number, second: number) {
    this.#kernel = kernel;
    this.#files = Int32Array.of(first, POLLIN, second, POLLIN);
  }

  /**
   * Returns when one of them has something to read or has failed, a signal came, or the time is over.
   *
   * @param timeout struct timespec; null: however long
   * @returns whether one has: only then `isReady()` says which
   */
  wait(timeout: BigInt64Array<ArrayBuffer> | null): boolean {
    return this.#kernel.poll(this.#files, timeout) > 0;
  }

  /** Whether the last wait has found it so. */
  isReady(index: 0 | 1): boolean {
    return this.#files[index * WORDS + 1]! >>> REVENTS_SHIFT !== 0;
  }
}
