// SPDX-License-Identifier: MIT
/** A disk that is slower than it has to be: for each operation another delay, with jitter that a seed repeats. */
import type { Backend, Completed } from "../disk/backend.ts";
import type { Operation } from "../disk/operation.ts";
import { Random } from "../disk/random.ts";
import { Filter, type FilteredRequest } from "./filter.ts";

/** Options of `delay()`: milliseconds, 0 or more, with fractions. A timer is not more exact than about a millisecond. */
export interface DelayOptions {
  /** How much later each operation begins; for those that are not named, `otherMs`. */
  readonly operations?: { readonly [name in Operation]?: number };
  /** For every operation that `operations` does not name. @default 0 */
  readonly otherMs?: number;
  /** Up to so much more for each delayed request, by chance; for every request where no delay is given. @default 0 */
  readonly jitterMs?: number;
  /** Where chance begins. @default 1 */
  readonly seed?: number;
}

/**
 * Lets each request wait before the backend is asked. Requests wait beside each other: a delay costs time, not throughput.
 *
 * ```ts
 * import type { Backend } from "../disk/backend.ts";
 * import { delay } from "./delay.ts";
 *
 * const disk: Backend = { sizeBytes: 4096, read: (buffer) => void buffer.fill(0), write: () => {} };
 * // As a hard disk: 8 to 12 ms until a read or a write begins.
 * const slow = delay(disk, { operations: { read: 8, write: 8 }, jitterMs: 4 });
 * console.assert(slow.sizeBytes === 4096);
 * ```
 *
 * @throws {RangeError} if a time is negative or not finite.
 */
export function delay(backend: Backend, options: DelayOptions): Backend {
  return new Delay(backend, options);
}

class Delay extends Filter {
  readonly #options: DelayOptions;
  readonly #jitterMs: number;
  readonly #jittersAll: boolean;
  readonly #random: Random;

  constructor(backend: Backend, options: DelayOptions) {
    super(backend);
    const { operations = {}, otherMs = 0, jitterMs = 0, seed = 1 } = options;
    for (const milliseconds of [...Object.values(operations), otherMs, jitterMs]) {
      if (!(milliseconds >= 0 && milliseconds < Infinity)) {
        throw new RangeError(`a delay is 0 milliseconds or more, not ${milliseconds}`);
      }
    }
    this.#options = options;
    this.#jitterMs = jitterMs;
    this.#jittersAll = jitterMs > 0 && otherMs === 0 && Object.keys(operations).length === 0;
    this.#random = new Random(seed);
  }

  protected override ask(
    { operation }: FilteredRequest,
    next: () => Completed | Promise<Completed>,
  ): Completed | Promise<Completed> {
    const { operations = {}, otherMs = 0 } = this.#options;
    const fixedMs = operations[operation] ?? otherMs;
    if (fixedMs === 0 && !this.#jittersAll) return next();
    const milliseconds = fixedMs + this.#jitterMs * this.#random.next();
    return new Promise<void>((resolve) => setTimeout(resolve, milliseconds)).then(next);
  }
}
