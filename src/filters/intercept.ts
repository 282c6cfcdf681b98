// SPDX-License-Identifier: MIT
/** A function that sees each request before the backend does: to log it, to let it wait, or to refuse it. */
import type { Operation } from "../disk/operation.ts";
import type { Backend, CallOptions, Completed, RequestOptions } from "../disk/backend.ts";

/** A request that a backend is about to be asked. */
export interface InterceptedRequest {
  /** What the backend is about to be asked. */
  readonly operation: Operation;
  /** 0 for a flush. */
  readonly offsetBytes: number;
  /** 0 for a flush. */
  readonly lengthBytes: number;
  /** A flush has only those of every call. */
  readonly options: CallOptions & Partial<RequestOptions>;
}

/**
 * Calls `before` with each request. What it throws is the request's error, as if the backend had thrown it; the backend
 * is not asked then. A promise of its is waited for.
 *
 * ```ts
 * import type { Backend } from "../disk/backend.ts";
 * import { DblockError } from "../disk/errors.ts";
 * import { intercept } from "./intercept.ts";
 *
 * const good: Backend = { sizeBytes: 4096, read: (buffer) => void buffer.fill(0), write: () => {} };
 * // Every read takes 5 ms more, and the last block cannot be written.
 * const bad = intercept(good, async ({ operation, offsetBytes }) => {
 *   if (operation === "read") await new Promise((resolve) => setTimeout(resolve, 5));
 *   if (operation === "write" && offsetBytes === 3584) throw new DblockError("EIO", "Cannot write", "the block is bad");
 * });
 * console.assert(bad.sizeBytes === 4096);
 * ```
 */
export function intercept(
  backend: Backend,
  before: (request: InterceptedRequest) => unknown,
): Backend {
  const ask = (
    operation: InterceptedRequest["operation"],
    offsetBytes: number,
    lengthBytes: number,
    options: CallOptions & Partial<RequestOptions>,
    then: () => Completed | Promise<Completed>,
  ): Completed | Promise<Completed> => {
    const waiting = before({ operation, offsetBytes, lengthBytes, options });
    return waiting instanceof Promise ? waiting.then(then) : then();
  };
  return {
    get sizeBytes() {
      return backend.sizeBytes;
    },
    ...(backend.limits === undefined ? {} : { limits: backend.limits }),
    ...(backend.cacheSurvives === undefined ? {} : { cacheSurvives: backend.cacheSurvives }),
    ...(backend.readOnly === undefined ? {} : { readOnly: backend.readOnly }),
    ...(backend.fua === undefined ? {} : { fua: backend.fua }),
    read: (buffer, offset, options) =>
      ask("read", offset, buffer.length, options, () => backend.read(buffer, offset, options)),
    write: (buffer, offset, options) =>
      ask("write", offset, buffer.length, options, () => backend.write(buffer, offset, options)),
    // What the backend has not, the filter must not have either: a disk is made of what is there.
    ...(backend.flush && { flush: (options) => ask("flush", 0, 0, options, () => backend.flush?.(options)) }),
    ...(backend.discard && {
      discard: (offset, length, options) =>
        ask("discard", offset, length, options, () => backend.discard?.(offset, length, options)),
    }),
    ...(backend.writeZeroes && {
      writeZeroes: (offset, length, options) =>
        ask("writeZeroes", offset, length, options, () => backend.writeZeroes?.(offset, length, options)),
    }),
    ...(backend.resize && { resize: (sizeBytes) => backend.resize?.(sizeBytes) }),
    ...(backend.extents && { extents: (...range) => backend.extents?.(...range) ?? [] }),
    ...(backend.close && { close: (reason) => backend.close?.(reason) }),
  };
}
