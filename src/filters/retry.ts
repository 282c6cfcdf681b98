// SPDX-License-Identifier: MIT
/** A disk that tries again what failed: for stores behind a network that comes and goes. */
import type { Backend, Completed, Figure } from "../disk/backend.ts";
import type { ErrnoName } from "../disk/errors.ts";
import type { Operation } from "../disk/operation.ts";
import { isPromise } from "../disk/later.ts";
import { Filter, type FilteredRequest, type Outcome, outcomeName, tell } from "./filter.ts";

/** Options of `retry()`. */
export interface RetryOptions {
  /** How often a request is tried again, 0 or more. @default 5 */
  readonly times?: number;
  /**
   * Which operations are tried again. A flush is not, unless it is named: a store may forget the writes that it could not
   * make durable, as Linux does with a file's, and then a second flush succeeds without them.
   * @default all operations but flushes
   */
  readonly operations?: readonly Operation[];
  /** Which errnos are tried again. EIO is also an error without a code, and a short count. @default those of a network */
  readonly errnos?: readonly ErrnoName[];
  /** The pause before the first try, in milliseconds; each pause after it is `factor` times as long. @default 100 */
  readonly delayMs?: number;
  /** 1 or more. @default 2 */
  readonly factor?: number;
  /** No pause is longer, in milliseconds. @default 10,000 */
  readonly maxDelayMs?: number;
  /** Is told of each try: the request, and the errno that it had. What it throws is ignored. @default nobody */
  readonly onRetry?: (request: Omit<FilteredRequest, "buffer">, errno: string) => void;
}

const DEFAULT_OPERATIONS: readonly Operation[] = ["read", "write", "discard", "writeZeroes"];

/** What passes by itself, and what a backend throws that has no better word for it. */
const DEFAULT_ERRNOS: readonly ErrnoName[] = [
  "EIO",
  "EAGAIN",
  "ETIMEDOUT",
  "ENOLINK",
  "EPIPE",
  "ECONNRESET",
  "ECONNREFUSED",
  "ENOTCONN",
  "EHOSTUNREACH",
  "ENETUNREACH",
];

/**
 * Asks the backend again when a request fails, with longer and longer pauses. It stops when nobody waits for the answer any
 * more (`options.signal`), so that a request's timeout bounds it. A request is tried again as a whole: the backend has to
 * bear a write that it may have done already.
 *
 * ```ts
 * import type { Backend } from "../disk/backend.ts";
 * import { requestOptions } from "../disk/request.ts";
 * import { retry } from "./retry.ts";
 *
 * let tries = 0;
 * const disk: Backend = {
 *   sizeBytes: 4096,
 *   read: (buffer) => {
 *     if (++tries < 3) throw new Error("not yet");
 *     buffer.fill(0);
 *   },
 *   write: () => {},
 * };
 * await retry(disk, { delayMs: 1 }).read(new Uint8Array(512), 0, requestOptions());
 * console.assert(tries === 3);
 * ```
 *
 * @throws {RangeError} if an option is out of its range.
 */
export function retry(backend: Backend, options: RetryOptions = {}): Backend {
  return new Retry(backend, options);
}

class Retry extends Filter {
  readonly #times: number;
  readonly #operations: readonly Operation[];
  readonly #errnos: readonly string[];
  readonly #delayMs: number;
  readonly #factor: number;
  readonly #maxDelayMs: number;
  readonly #onRetry: RetryOptions["onRetry"];
  #tries = 0;

  constructor(backend: Backend, options: RetryOptions) {
    super(backend);
    const { times = 5, errnos = DEFAULT_ERRNOS, delayMs = 100, factor = 2, maxDelayMs = 10_000 } = options;
    if (!(times >= 0 && delayMs >= 0 && maxDelayMs >= 0 && factor >= 1)) {
      throw new RangeError(
        `times and pauses are 0 or more and the factor 1 or more, not ${times}, ${delayMs}, ${maxDelayMs} and ${factor}`,
      );
    }
    this.#times = times;
    this.#operations = options.operations ?? DEFAULT_OPERATIONS;
    this.#errnos = errnos;
    this.#delayMs = delayMs;
    this.#factor = factor;
    this.#maxDelayMs = maxDelayMs;
    this.#onRetry = options.onRetry;
  }

  protected override ask(
    request: FilteredRequest,
    next: () => Completed | Promise<Completed>,
  ): Completed | Promise<Completed> {
    // A backend may scribble on what it is given to write.
    const kept = request.operation === "write" && this.#times > 0 ? request.buffer?.slice() : undefined;
    let first: Completed | Promise<Completed>;
    try {
      first = next();
    } catch (error) {
      return this.#judge(request, next, kept, { error });
    }
    if (!isPromise(first)) return this.#judge(request, next, kept, { value: first });
    return first.then(
      (value) => this.#judge(request, next, kept, { value }),
      (error: unknown) => this.#judge(request, next, kept, { error }),
    );
  }

  override figures(): readonly Figure[] {
    return [{ name: "retries_total", help: "Requests that were tried again.", value: this.#tries }, ...super.figures()];
  }

  /** The answer, if the first try will do; else that of the next tries. */
  #judge(
    request: FilteredRequest,
    next: () => Completed | Promise<Completed>,
    kept: Uint8Array<ArrayBuffer> | undefined,
    outcome: Outcome,
  ): Completed | Promise<Completed> {
    if (this.#times > 0 && this.#isPassing(request, outcome)) return this.#again(request, next, kept, outcome);
    if ("error" in outcome) throw outcome.error;
    return outcome.value;
  }

  #isPassing(request: FilteredRequest, outcome: Outcome): boolean {
    return this.#operations.includes(request.operation) && this.#errnos.includes(outcomeName(request, outcome));
  }

  async #again(
    request: FilteredRequest,
    next: () => Completed | Promise<Completed>,
    kept: Uint8Array<ArrayBuffer> | undefined,
    first: Outcome,
  ): Promise<Completed> {
    const { buffer, ...told } = request;
    let outcome = first;
    let pauseMs = this.#delayMs;
    for (let tried = 0; tried < this.#times && this.#isPassing(request, outcome); tried++) {
      await pause(Math.min(pauseMs, this.#maxDelayMs), request.options.signal);
      if (request.options.signal.aborted) break;
      pauseMs *= this.#factor;
      this.#tries++;
      const errno = outcomeName(request, outcome);
      tell(() => this.#onRetry?.(told, errno));
      if (kept !== undefined) buffer?.set(kept);
      try {
        outcome = { value: await next() };
      } catch (error) {
        outcome = { error };
      }
    }
    if ("error" in outcome) throw outcome.error;
    return outcome.value;
  }
}

/** Waits, but not longer than somebody wants the answer. */
function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal.addEventListener("abort", end);
    if (signal.aborted) end();
  });
}
