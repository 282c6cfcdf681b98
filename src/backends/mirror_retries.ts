// SPDX-License-Identifier: MIT
/** When disks that have left a mirror are tried again: a timer for each, which keeps no program from its end. */
import type { Half } from "./mirror_half.ts";

/** The disks that are to be tried again. */
export class Retries {
  readonly #afterMs: number;
  readonly #retry: (half: Half) => void;
  readonly #timers = new Map<Half, ReturnType<typeof setTimeout>>();

  /** @param afterMs 0: no disk is tried again */
  constructor(afterMs: number, retry: (half: Half) => void) {
    this.#afterMs = afterMs;
    this.#retry = retry;
  }

  /** Tries a disk once, after the time; one that waits already begins to wait anew. */
  later(half: Half): void {
    if (this.#afterMs === 0) return;
    this.stop(half);
    const timer = setTimeout(() => {
      this.#timers.delete(half);
      this.#retry(half);
    }, this.#afterMs);
    Deno.unrefTimer(Number(timer));
    this.#timers.set(half, timer);
  }

  /** Whether a disk waits for its time. */
  isWaiting(half: Half): boolean {
    return this.#timers.has(half);
  }

  /** Does not try a disk. */
  stop(half: Half): void {
    clearTimeout(this.#timers.get(half));
    this.#timers.delete(half);
  }
}
