// SPDX-License-Identifier: MIT
/** A disk that does no more than so many bytes and so many operations a second. */
import type { Backend, Completed } from "../disk/backend.ts";
import type { Operation } from "../disk/operation.ts";
import { Filter, type FilteredRequest } from "./filter.ts";
import { TokenBucket } from "./token_bucket.ts";

/** Options of `rate()`. Without any rate, the disk is as fast as it is. */
export interface RateOptions {
  /** Bytes read and written a second, more than 0. Discards and zeroes count as operations only. */
  readonly bytesPerSecond?: number;
  /** Requests a second, more than 0. */
  readonly operationsPerSecond?: number;
  /** Bytes that go at once after a pause. @default what a tenth of a second brings */
  readonly burstBytes?: number;
  /** Requests that go at once after a pause. @default what a tenth of a second brings, at least 1 */
  readonly burstOperations?: number;
  /** What is slowed down. @default all operations but flushes */
  readonly operations?: readonly Operation[];
}

/** A guess: short enough that a second's average keeps the rate, long enough that a timer does not decide it. */
const BURST_SECONDS = 0.1;
const DEFAULT_OPERATIONS: readonly Operation[] = ["read", "write", "discard", "writeZeroes"];

/**
 * Lets requests wait so that a rate is kept, in the order in which they came. After a pause a burst goes at once.
 *
 * ```ts
 * import type { Backend } from "../disk/backend.ts";
 * import { rate } from "./rate.ts";
 *
 * const disk: Backend = { sizeBytes: 4096, read: (buffer) => void buffer.fill(0), write: () => {} };
 * const slow = rate(disk, { bytesPerSecond: 10 * 2 ** 20, operationsPerSecond: 200 });
 * console.assert(slow.sizeBytes === 4096);
 * ```
 *
 * @throws {RangeError} if a rate is not more than 0, or a burst is negative.
 */
export function rate(backend: Backend, options: RateOptions): Backend {
  return new Rate(backend, options);
}

class Rate extends Filter {
  readonly #bytes: TokenBucket | undefined;
  readonly #count: TokenBucket | undefined;
  readonly #operations: readonly Operation[];

  constructor(backend: Backend, options: RateOptions) {
    super(backend);
    const { bytesPerSecond, operationsPerSecond, burstBytes, burstOperations } = options;
    this.#operations = options.operations ?? DEFAULT_OPERATIONS;
    this.#bytes = bytesPerSecond === undefined
      ? undefined
      : new TokenBucket(bytesPerSecond, burstBytes ?? bytesPerSecond * BURST_SECONDS);
    this.#count = operationsPerSecond === undefined
      ? undefined
      : new TokenBucket(operationsPerSecond, burstOperations ?? Math.max(1, operationsPerSecond * BURST_SECONDS));
  }

  protected override ask(
    request: FilteredRequest,
    next: () => Completed | Promise<Completed>,
  ): Completed | Promise<Completed> {
    if (!this.#operations.includes(request.operation)) return next();
    const nowMs = performance.now();
    const forBytes = this.#bytes?.take(request.buffer?.length ?? 0, nowMs) ?? 0;
    const forCount = this.#count?.take(1, nowMs) ?? 0;
    const waitMs = Math.max(forBytes, forCount);
    if (waitMs === 0) return next();
    return new Promise<void>((resolve) => setTimeout(resolve, waitMs)).then(next);
  }
}
