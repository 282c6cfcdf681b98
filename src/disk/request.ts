// SPDX-License-Identifier: MIT
/** A request that a backend is at, and what the backend is told about it. */
import type { Completed, RequestOptions } from "./backend.ts";
import { DblockError } from "./errors.ts";
import type { Meter } from "./meter.ts";
import {
  type Operation,
  PRIORITIES,
  type Priority,
  REQUEST_FUA,
  REQUEST_KEEP_ALLOCATED,
  REQUEST_METADATA,
  REQUEST_PRIORITY_SHIFT,
  REQUEST_READ_AHEAD,
  REQUEST_REPLAYED,
  REQUEST_SWAP,
} from "./operation.ts";

/** What is the same for all requests of a disk. */
export interface RequestContext {
  /** The backend does FUA itself: only then it is told. */
  readonly heedsFua: boolean;
  /** When a signal is aborted, in ms after it was made; 0: not for its age. */
  readonly timeoutMs: number;
}

/**
 * One slot's request: the options that its backend gets. The same object serves every request of the slot, one after the
 * other. The words are plain fields, written only when a request has other flags than the slot's last one, and all own
 * properties, `signal` too, so that `{ ...options }` is a copy.
 */
export class OpenRequest implements RequestOptions {
  fua = false;
  replayed = false;
  keepAllocated = false;
  metadata = false;
  readAhead = false;
  swap = false;
  priority: Priority = "none";
  declare readonly signal: AbortSignal;
  readonly slot: number;
  readonly onDone: (done: Completed) => void;
  readonly onFailed: (error: unknown) => void;
  operation: Operation = "read";
  lengthBytes = 0;
  /** The backend has it, and has not answered. */
  isOpen = false;
  /** A flush has to follow. */
  flushesAfter = false;
  /** Counts it when it is answered. */
  meter: Meter | undefined;
  #asked: Operation = "read";
  // Not 0: V8 keeps what begins as a small integer in a slower way once it is none.
  #offsetBytes = NaN;
  beganMs = NaN;
  #flags = 0;
  #controller: AbortController | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #gone: { readonly reason: unknown } | undefined;
  readonly #context: RequestContext;

  constructor(
    slot: number,
    context: RequestContext,
    onDone: (request: OpenRequest, done: Completed) => void,
    onFailed: (request: OpenRequest, error: unknown) => void,
  ) {
    this.slot = slot;
    this.#context = context;
    this.onDone = (done) => onDone(this, done);
    this.onFailed = (error) => onFailed(this, error);
    Object.defineProperty(this, "signal", OpenRequest.#SIGNAL);
  }

  /** One getter for all of them: objects of one shape are fast. */
  static readonly #SIGNAL = {
    enumerable: true,
    get(this: OpenRequest): AbortSignal {
      return this.#signal();
    },
  };

  /** The next request of the slot. */
  begin(operation: Operation, flags: number, lengthBytes: number, flushesAfter: boolean): void {
    this.end(); // a backend may have read the signal after it has answered
    this.operation = operation;
    this.lengthBytes = lengthBytes;
    this.flushesAfter = flushesAfter;
    if (flags !== this.#flags) this.#decode(flags);
  }

  #decode(flags: number): void {
    this.#flags = flags;
    this.fua = this.#context.heedsFua && (flags & REQUEST_FUA) !== 0;
    this.replayed = (flags & REQUEST_REPLAYED) !== 0;
    this.keepAllocated = (flags & REQUEST_KEEP_ALLOCATED) !== 0;
    this.metadata = (flags & REQUEST_METADATA) !== 0;
    this.readAhead = (flags & REQUEST_READ_AHEAD) !== 0;
    this.swap = (flags & REQUEST_SWAP) !== 0;
    this.priority = PRIORITIES[(flags >>> REQUEST_PRIORITY_SHIFT) & 3] ?? "none";
  }

  /** It is answered later, and counted then: as what was asked, also if a flush follows. */
  metered(meter: Meter, asked: Operation, offsetBytes: number, beganMs: number): void {
    this.meter = meter;
    this.#asked = asked;
    this.#offsetBytes = offsetBytes;
    this.beganMs = beganMs;
  }

  /** Counts it, but for its time. @returns its row of the meter */
  count(errno: number, sizeBytes: number): number {
    const meter = this.meter!;
    this.meter = undefined;
    meter.inFlight--;
    return meter.count(this.#asked, this.#offsetBytes, this.lengthBytes, errno, sizeBytes);
  }

  /** What it asked for is done, and the flush that has to follow begins. */
  flushing(): void {
    this.operation = "flush";
    this.flushesAfter = false;
  }

  /** The backend has answered: its signal means nothing any more. */
  end(): void {
    this.isOpen = false;
    if (this.#controller === undefined) return;
    this.#controller = undefined;
    clearTimeout(this.#timer);
  }

  /** Nobody waits for this request any more, or for any other of this slot. */
  abort(reason: unknown): void {
    this.#gone = { reason };
    clearTimeout(this.#timer);
    this.#controller?.abort(reason);
  }

  #signal(): AbortSignal {
    if (this.#controller !== undefined) return this.#controller.signal;
    const controller = new AbortController();
    this.#controller = controller;
    const { timeoutMs } = this.#context;
    if (this.#gone !== undefined) controller.abort(this.#gone.reason);
    else if (timeoutMs > 0) {
      const wrong = `nobody has waited for it since ${timeoutMs / 1000} s were over`;
      const abort = () => controller.abort(new DblockError("ETIMEDOUT", `Cannot answer a ${this.operation}`, wrong));
      this.#timer = setTimeout(abort, timeoutMs);
    }
    return controller.signal;
  }
}

const NEVER = (): AbortSignal => new AbortController().signal;

/**
 * Options for who calls a backend without a transport: a filter that writes on its own account, a test.
 *
 * ```ts
 * import { requestOptions } from "./request.ts";
 *
 * console.assert(requestOptions({ fua: true }).fua && !requestOptions().replayed);
 * ```
 *
 * @param changes what is not as usual: no flag is set, the priority is `none`, the signal is never aborted
 * @param from the request on whose behalf it is made: what `changes` does not say is as there
 */
export function requestOptions(
  changes: Partial<RequestOptions> = {},
  from: Partial<RequestOptions> = {},
): RequestOptions {
  let signal: AbortSignal | undefined;
  return {
    fua: changes.fua ?? from.fua ?? false,
    replayed: changes.replayed ?? from.replayed ?? false,
    keepAllocated: changes.keepAllocated ?? from.keepAllocated ?? false,
    metadata: changes.metadata ?? from.metadata ?? false,
    readAhead: changes.readAhead ?? from.readAhead ?? false,
    swap: changes.swap ?? from.swap ?? false,
    priority: changes.priority ?? from.priority ?? "none",
    // A request's signal is made when it is read.
    get signal() {
      return signal ??= changes.signal ?? from.signal ?? NEVER();
    },
  };
}
