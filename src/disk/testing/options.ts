// SPDX-License-Identifier: MIT
/** What the author of a backend says about it to the tests. */
import type { Backend } from "../backend.ts";
import type { ErrnoName } from "../errors.ts";
import type { Operation } from "../operation.ts";

/** A request that fails, and with what. */
export interface ExpectedError {
  /** What is asked. */
  readonly operation: Operation;
  /** 0 for a flush. @default 0 */
  readonly offsetBytes?: number;
  /** 0 for a flush. @default one block */
  readonly lengthBytes?: number;
  /** The errno in the error's `code`; EIO for an error without one. */
  readonly errno: ErrnoName;
}

/** Options of `testBackend()`. */
export interface TestBackendOptions {
  /**
   * Opens the same disk again. Without it, nothing is tested that has to do with a disk's next server.
   *
   * - `left`: the backend was closed with that reason. Everything that was answered has to be there.
   * - `died`: as if the backend's program had been killed. It was not closed: the function ends it, and takes away what the
   *   disk would lose then. What was flushed has to be there (and all that was answered, with `cacheSurvives` or without
   *   `flush`).
   */
  readonly reopen?: (backend: Backend, how: "left" | "died") => Backend | Promise<Backend>;
  /**
   * For a disk that does not keep what is written: fills a buffer with what the disk always is at that offset. Only that is
   * written to it; zeroes and discards are not tried. @default the disk keeps what is written
   */
  readonly content?: (buffer: Uint8Array<ArrayBuffer>, offsetBytes: number) => void;
  /** Requests of a backend, as `make` gives it, that fail. @default none */
  readonly errors?: readonly ExpectedError[];
  /** To what size the disk can be resized, a multiple of the block size. @default 16 blocks more than it has */
  readonly resizeToBytes?: number;
  /** How many requests a test by chance makes. @default 200 */
  readonly rounds?: number;
  /** How long a request may take, in ms. A machine may be busy: this is for what is never answered. @default 60,000 */
  readonly answerWithinMs?: number;
  /**
   * The backend loads what outlives it, such as a library: what is still open at the end of a test is no failure. Timers
   * are one nevertheless. @default false
   */
  readonly keepsOpen?: boolean;
  /** How to run a test file; said when a test by chance fails. @default "deno test -A" */
  readonly command?: string;
}

/** One test. `run()` rejects if the backend is wrong. */
export interface BackendTest {
  /** What has to hold, as a sentence without its subject: "reads what was written". */
  readonly name: string;
  /**
   * Runs the test.
   *
   * @param seed where chance begins: the same seed makes the same requests
   */
  readonly run: (seed: number) => Promise<void>;
}
