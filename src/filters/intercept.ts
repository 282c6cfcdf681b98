// SPDX-License-Identifier: MIT
/** Functions that see each request before the backend does, or after: to log it, to let it wait, or to refuse it. */
import type { Backend, Completed } from "../disk/backend.ts";
import { isPromise, watched } from "../disk/later.ts";
import { Filter, type FilteredRequest } from "./filter.ts";

/** A request that a backend is asked. */
export type InterceptedRequest = Omit<FilteredRequest, "buffer">;

/** How the backend answered a request. */
export interface InterceptedAnswer {
  /** What the backend threw; undefined where it threw nothing. */
  readonly error: unknown;
  /** What the backend returned: how many bytes it did, if it says so. */
  readonly completed: Completed;
  /** How long the backend took, in milliseconds, with fractions. */
  readonly milliseconds: number;
}

/**
 * Calls `before` with each request, and `after` with each answer. What `before` throws is the request's error, as if the
 * backend had thrown it; the backend is not asked then, and `after` is not called. A promise of `before` is waited for. What
 * `after` throws is the request's error, too; `after` is not waited for.
 *
 * ```ts
 * import type { Backend } from "../disk/backend.ts";
 * import { DblockError } from "../disk/errors.ts";
 * import { intercept, type InterceptedRequest } from "./intercept.ts";
 *
 * const good: Backend = { sizeBytes: 4096, read: (buffer) => void buffer.fill(0), write: () => {} };
 * // Every read takes 5 ms more, and the last block cannot be written.
 * const bad = intercept(good, async ({ operation, offsetBytes }) => {
 *   if (operation === "read") await new Promise((resolve) => setTimeout(resolve, 5));
 *   if (operation === "write" && offsetBytes === 3584) throw new DblockError("EIO", "Cannot write", "the block is bad");
 * });
 * const seen: InterceptedRequest[] = [];
 * const recorded = intercept(bad, (request) => seen.push(request));
 * console.assert(recorded.sizeBytes === 4096);
 * ```
 */
export function intercept(
  backend: Backend,
  before: (request: InterceptedRequest) => unknown,
  after?: (request: InterceptedRequest, answer: InterceptedAnswer) => void,
): Backend {
  return new Intercept(backend, before, after);
}

class Intercept extends Filter {
  readonly #before: (request: InterceptedRequest) => unknown;
  readonly #after: ((request: InterceptedRequest, answer: InterceptedAnswer) => void) | undefined;

  constructor(
    backend: Backend,
    before: (request: InterceptedRequest) => unknown,
    after?: (request: InterceptedRequest, answer: InterceptedAnswer) => void,
  ) {
    super(backend);
    this.#before = before;
    this.#after = after;
  }

  protected override ask(
    { operation, offsetBytes, lengthBytes, options }: FilteredRequest,
    next: () => Completed | Promise<Completed>,
  ): Completed | Promise<Completed> {
    const request = { operation, offsetBytes, lengthBytes, options };
    const waiting = this.#before(request);
    const go = () => this.#go(request, next);
    return isPromise(waiting) ? waiting.then(go) : go();
  }

  #go(request: InterceptedRequest, next: () => Completed | Promise<Completed>): Completed | Promise<Completed> {
    const after = this.#after;
    if (after === undefined) return next();
    const begunMs = performance.now();
    return watched(next, (outcome) => {
      const milliseconds = performance.now() - begunMs;
      const error = "error" in outcome ? outcome.error : undefined;
      const completed = "value" in outcome ? outcome.value : undefined;
      after(request, { error, completed, milliseconds });
    });
  }
}
