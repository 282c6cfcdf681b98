// SPDX-License-Identifier: MIT
/** A request of a client, from its making to its answer; it may be sent more than once, on one connection after the other. */
import type { Extent } from "../disk/backend.ts";
import { DblockError, ERRNO, type ErrnoName } from "../disk/errors.ts";
import { NBD_CMD_WRITE } from "./protocol.ts";

/** What is asked of the server, and what becomes of it. */
export class Call {
  /** NBD_CMD_*. */
  readonly command: number;
  /** NBD_CMD_FLAG_*. */
  readonly flags: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** What a WRITE carries, or where a READ puts what comes. */
  readonly data: Uint8Array<ArrayBuffer> | undefined;
  /** Settles when the caller has its memory back. */
  readonly done: Promise<void>;
  /** Its name on the connection that it was sent on. */
  cookie = 0;
  /** What a BLOCK_STATUS has found. */
  extents: Extent[] = [];
  /** Bytes of a READ that have come. */
  gotBytes = 0;
  /** An error of the protocol's, 0: none has come. */
  error = 0;
  /** Since when no server has answered it, in ms of `performance.now()`; undefined: no connection has been lost with it. */
  lostSinceMs: number | undefined;
  /** All of it has been sent. */
  isSent = false;
  /** Its reply is there. */
  isAnswered = false;
  /** Its connection's server will not do it: it waits for another connection. */
  isRefused = false;
  readonly #resolve: () => void;
  readonly #reject: (error: unknown) => void;

  constructor(
    command: number,
    flags: number,
    offsetBytes: number,
    lengthBytes: number,
    data: Uint8Array<ArrayBuffer> | undefined,
  ) {
    this.command = command;
    this.flags = flags;
    this.offsetBytes = offsetBytes;
    this.lengthBytes = lengthBytes;
    this.data = data;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.done = promise;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  /** What is sent after the header. */
  get payload(): Uint8Array<ArrayBuffer> | undefined {
    return this.command === NBD_CMD_WRITE ? this.data : undefined;
  }

  /** As if it had never been sent. */
  rewind(): void {
    this.extents = [];
    this.gotBytes = 0;
    this.error = 0;
    this.isSent = false;
    this.isAnswered = false;
    this.isRefused = false;
  }

  /** The caller gets the answer, and its memory back. */
  settle(): void {
    if (this.error === 0) this.#resolve();
    else this.#reject(new DblockError(this.error));
  }

  fail(error: DblockError): void {
    this.#reject(error);
  }
}

/** The errno for an error of the protocol: they have the same numbers on Linux, and all others are EINVAL (the specification). */
export function errnoOfNbd(error: number): number {
  const known: readonly ErrnoName[] = ["EPERM", "EIO", "ENOMEM", "EINVAL", "ENOSPC", "EOVERFLOW", "EOPNOTSUPP"];
  return known.some((name) => ERRNO[name] === error) ? error : ERRNO.EINVAL;
}
