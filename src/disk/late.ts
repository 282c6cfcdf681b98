// SPDX-License-Identifier: MIT
/**
 * Answers that come later by a file, and not by promises. A store that says so (librbd) can be
 * waited for together with the queue, by one system call in the thread that serves both: module/polled_loop.ts. A promise
 * would take a turn of the event loop for each wake.
 */
import type { Backend, Completed } from "./backend.ts";

/** Where the answers of a backend come from. */
export interface Answers {
  /** Has something to read when answers are there. */
  readonly fd: number;
  /** How many requests wait for an answer from here. */
  readonly openCount: number;
  /**
   * Set by whoever waits for the answers, while it does: what is asked for at other times is answered by a promise, as nobody
   * would submit it.
   */
  isTurn: boolean;
  /** Begins what was asked for since the last time. */
  submit(): void;
  /** Settles what has been answered. Does not wait. */
  collect(): void;
  /** Resolves when answers may be there. Once at a time, in the turn of the event loop in which `collect()` was called. */
  wait(): Promise<void>;
}

/** A backend as one who waits for its answers sees it: its callbacks return a {@linkcode LateAnswer} where they can. */
export interface PolledBackend {
  readonly backend: Backend;
  readonly answers: Answers;
}

const POLLED = new WeakMap<Backend, () => PolledBackend | undefined>();

/** Says that a backend can be polled, if `open` does not return undefined. */
export function putPolled(backend: Backend, open: () => PolledBackend | undefined): void {
  POLLED.set(backend, open);
}

/** The same backend, for the one thread that will wait for its answers. Undefined for a backend that has only promises. */
export function openPolled(backend: Backend): PolledBackend | undefined {
  return POLLED.get(backend)?.();
}

/** What a polled backend returns instead of a promise. Settled by `collect()`, once, and after `then()` was called. */
export class LateAnswer {
  #onDone: ((done: Completed) => void) | undefined;
  #onFailed: ((error: unknown) => void) | undefined;

  /** Once. */
  then(onDone: (done: Completed) => void, onFailed: (error: unknown) => void): void {
    this.#onDone = onDone;
    this.#onFailed = onFailed;
  }

  /** The request is done. */
  resolve(done?: Completed): void {
    this.#onDone?.(done);
  }

  /** The request has failed. */
  reject(error: unknown): void {
    this.#onFailed?.(error);
  }

  /** For those who need more than one `then()`. */
  toPromise(): Promise<Completed> {
    return new Promise((resolve, reject) => this.then(resolve, reject));
  }

  /** As the contract of a backend has it. `Dispatcher`, the only one who is given it, knows what it is. */
  asPromise(): Promise<undefined> {
    return this as unknown as Promise<undefined>;
  }
}
