// SPDX-License-Identifier: MIT
/** Bounds in time: what "never" is, how options say it, and a limit for everything that happens until a disk is there. */
import { DblockError } from "../disk/errors.ts";

/** setTimeout() fires at once for more. That is 24 days, and as good as never. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** Whether a timeout never comes: 0 and Infinity say so, for every option that ends in `TimeoutMs`. */
export function isNever(timeoutMs: number): boolean {
  return timeoutMs === 0 || timeoutMs > TIMER_MS_MAX;
}

/**
 * Checks an option of milliseconds.
 *
 * @throws {DblockError} EINVAL if it is not 0 or more.
 */
export function checkMs(attempted: string, what: string, ms: number | undefined): void {
  if (ms === undefined || (typeof ms === "number" && ms >= 0)) return;
  throw new DblockError("EINVAL", attempted, `${what} is 0 or more ms, not ${ms}`);
}

/**
 * Calls somebody after a time, unless it is disposed before. Not `setTimeout()`: at the first call of that, Deno loads twenty
 * modules of Node, and a program that starts a disk would take 50 ms instead of 40.
 */
export function callAfter(ms: number, call: () => void): Disposable {
  const over = AbortSignal.timeout(ms);
  over.addEventListener("abort", call);
  return { [Symbol.dispose]: () => over.removeEventListener("abort", call) };
}

/** Whether all of them settle in that time; 0 and Infinity: however long it takes. */
export async function settleWithin(timeoutMs: number, promises: readonly Promise<unknown>[]): Promise<boolean> {
  const settled = Promise.allSettled(promises).then(() => true);
  if (isNever(timeoutMs)) return await settled;
  const late = Promise.withResolvers<boolean>();
  using _timer = callAfter(timeoutMs, () => late.resolve(false));
  return await Promise.race([settled, late.promise]);
}

/**
 * Waits.
 *
 * @throws the signal's reason, as soon as the signal is aborted.
 */
export async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const abort = () => reject(signal?.reason);
  const timer = setTimeout(resolve, ms);
  signal?.addEventListener("abort", abort);
  try {
    await promise;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}

/** A caller's signal and a timeout, as one signal. */
export class Deadline implements Disposable {
  readonly #controller = new AbortController();
  readonly #caller: AbortSignal | undefined;
  readonly #timer: Disposable | undefined;
  readonly #abort = (): void => this.#controller.abort(this.#caller?.reason);

  /** @param late made when the time is over */
  constructor(timeoutMs: number, caller: AbortSignal | undefined, late: () => DblockError) {
    this.#caller = caller;
    if (caller?.aborted) this.#abort(); // an event that was before is not heard
    caller?.addEventListener("abort", this.#abort);
    // What is no time at all is refused by who checks the options.
    if (timeoutMs > 0 && !isNever(timeoutMs)) this.#timer = callAfter(timeoutMs, () => this.#controller.abort(late()));
  }

  /** Aborted when the caller's is, or when the time is over. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /**
   * Waits for something, but no longer than that. For what leaves nothing behind when it is not waited for.
   *
   * @throws the signal's reason.
   */
  async race<T>(ready: Promise<T>): Promise<T> {
    ready.catch(() => {}); // if it loses the race
    const { signal } = this;
    signal.throwIfAborted();
    const over = Promise.withResolvers<never>();
    const abort = () => over.reject(signal.reason);
    signal.addEventListener("abort", abort);
    try {
      const result = await Promise.race([ready, over.promise]);
      signal.throwIfAborted();
      return result;
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  [Symbol.dispose](): void {
    this.#timer?.[Symbol.dispose]();
    this.#caller?.removeEventListener("abort", this.#abort);
  }
}
