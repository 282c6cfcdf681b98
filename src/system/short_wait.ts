// SPDX-License-Identifier: MIT
/** An eventfd that this thread itself waits for, for a moment, before its event loop does, whose waking takes longer. */
import { libc } from "./library.ts";
import { Patience } from "./patience.ts";

/** A guess: a few times what the event loop takes. */
const WAIT_NS = 200_000n;
const POLLIN = 1;

/** Short waits for one eventfd. */
export class ShortWait {
  readonly #fd: number;
  /** struct pollfd: the file; the events that are waited for, and those that have come. */
  readonly #file: Int32Array<ArrayBuffer>;
  /** struct timespec. */
  readonly #timeout = new BigInt64Array([0n, WAIT_NS]);
  readonly #count = new BigUint64Array(1);
  readonly #patience = new Patience();

  constructor(fd: number) {
    this.#fd = fd;
    this.#file = Int32Array.of(fd, POLLIN);
  }

  /** Whether somebody has written to it, which is forgotten then. It does not wait where that was in vain again and again. */
  hasCome(): boolean {
    const hasCome = this.#patience.isWorthIt && libc().ppoll(this.#file, 1n, this.#timeout, 0n) > 0 &&
      libc().eventfd_read(this.#fd, this.#count) === 0;
    this.#patience.told(hasCome);
    return hasCome;
  }
}
