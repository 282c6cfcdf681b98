// SPDX-License-Identifier: MIT
/**
 * From a request to its answer: the only place that checks a request, the only
 * place that calls a backend. Pure: it knows neither the kernel nor the ring.
 */
import {
  DBLOCK_OPERATION_DISCARD,
  DBLOCK_OPERATION_FLUSH,
  DBLOCK_OPERATION_READ,
  DBLOCK_OPERATION_WRITE,
  DBLOCK_OPERATION_WRITE_ZEROES,
  DBLOCK_REQUEST_FUA,
  DBLOCK_REQUEST_NO_UNMAP,
  DBLOCK_REQUEST_REPLAYED,
} from "../module/abi.ts";
import type { Backend, Done, RequestOptions } from "./backend.ts";
import { describe, ERRNO, errnoName, errnoOf } from "./errors.ts";

/** The limits a device was created with, all in bytes. */
export interface Geometry {
  readonly sizeBytes: number;
  readonly logicalBlockBytes: number;
  /** Largest READ and WRITE. */
  readonly maxIoBytes: number;
  /** Largest DISCARD; 0: not supported. */
  readonly maxDiscardBytes: number;
  /** Largest WRITE_ZEROES; 0: not supported. */
  readonly maxWriteZeroesBytes: number;
  readonly readOnly: boolean;
}

/** Where the data of requests lives: one slot of `maxIoBytes` per request. */
export interface Slots {
  /** The first `lengthBytes` of a slot. */
  view(slot: number, lengthBytes: number): Uint8Array<ArrayBuffer>;
}

const KNOWN_FLAGS = DBLOCK_REQUEST_FUA | DBLOCK_REQUEST_REPLAYED |
  DBLOCK_REQUEST_NO_UNMAP;
const LOGGED_MAX = 64;
const OPERATION_NAMES = ["read", "write", "flush", "discard", "writeZeroes"];

/**
 * What is wrong with a request: 0 or an errno. The kernel has checked all of this; a server that believes it blindly
 * would turn one mistake there into memory corruption here.
 */
export function checkRequest(
  geometry: Geometry,
  operation: number,
  flags: number,
  offsetBytes: number,
  lengthBytes: number,
): number {
  if ((flags & ~KNOWN_FLAGS) !== 0) return ERRNO.EOPNOTSUPP;
  let longest = geometry.maxIoBytes;
  let pastTheEnd: number = ERRNO.ENOSPC;
  switch (operation) {
    case DBLOCK_OPERATION_FLUSH:
      return offsetBytes === 0 && lengthBytes === 0 ? 0 : ERRNO.EINVAL;
    case DBLOCK_OPERATION_READ:
      pastTheEnd = ERRNO.EIO;
      break;
    case DBLOCK_OPERATION_WRITE:
      break;
    case DBLOCK_OPERATION_DISCARD:
      longest = geometry.maxDiscardBytes;
      pastTheEnd = ERRNO.EIO;
      break;
    case DBLOCK_OPERATION_WRITE_ZEROES:
      longest = geometry.maxWriteZeroesBytes;
      break;
    default:
      return ERRNO.EOPNOTSUPP;
  }
  if (longest === 0) return ERRNO.EOPNOTSUPP;
  if (operation !== DBLOCK_OPERATION_READ && geometry.readOnly) return ERRNO.EROFS;
  if (lengthBytes === 0 || lengthBytes > longest) return ERRNO.EINVAL;
  // Block sizes are powers of two, and & looks at the low 32 bits of a large offset only: exact, and faster than %.
  if (((offsetBytes | lengthBytes) & (geometry.logicalBlockBytes - 1)) !== 0) return ERRNO.EINVAL;
  return offsetBytes + lengthBytes > geometry.sizeBytes ? pastTheEnd : 0;
}

/** Answers requests with a backend: 0 or an errno for each, now or later. */
export class Dispatcher {
  readonly #backend: Backend;
  readonly #geometry: Geometry;
  readonly #log: (message: string) => void;
  readonly #logged = new Set<string>();
  /** By request flags: nothing is allocated per request. */
  readonly #options: readonly RequestOptions[];

  constructor(
    backend: Backend,
    geometry: Geometry,
    log: (message: string) => void,
  ) {
    this.#backend = backend;
    this.#geometry = geometry;
    this.#log = log;
    this.#options = Array.from({ length: KNOWN_FLAGS + 1 }, (_, flags) =>
      Object.freeze({
        fua: (flags & DBLOCK_REQUEST_FUA) !== 0 && backend.fua === true,
        replayed: (flags & DBLOCK_REQUEST_REPLAYED) !== 0,
        keepAllocated: (flags & DBLOCK_REQUEST_NO_UNMAP) !== 0,
      }));
  }

  /**
   * Does what a request asks for. Never throws and never rejects: whatever the
   * backend does becomes an errno.
   *
   * @param operation enum dblock_operation
   * @param flags DBLOCK_REQUEST_*
   * @returns 0 when all of it is done, else an errno; a promise of that only if
   * the backend returned a promise
   */
  dispatch(
    operation: number,
    flags: number,
    offsetBytes: number,
    lengthBytes: number,
    slot: number,
    slots: Slots,
  ): number | Promise<number> {
    const refused = checkRequest(this.#geometry, operation, flags, offsetBytes, lengthBytes);
    if (refused !== 0) return refused;
    try {
      const done = this.#call(
        operation,
        flags,
        offsetBytes,
        lengthBytes,
        slot,
        slots,
      );
      const fua = (flags & DBLOCK_REQUEST_FUA) !== 0;
      const flush = fua && operation !== DBLOCK_OPERATION_READ &&
        this.#backend.fua !== true && this.#backend.flush !== undefined;
      if (isThenable(done)) {
        return this.#later(operation, lengthBytes, done, flush);
      }
      const errno = this.#judge(operation, lengthBytes, done);
      if (errno !== 0 || !flush) return errno;
      const flushed = this.#backend.flush?.();
      if (isThenable(flushed)) {
        return this.#later(DBLOCK_OPERATION_FLUSH, 0, flushed, false);
      }
      return 0;
    } catch (error) {
      return this.#failed(operation, error);
    }
  }

  #call(
    operation: number,
    flags: number,
    offsetBytes: number,
    lengthBytes: number,
    slot: number,
    slots: Slots,
  ): Done | Promise<Done> {
    const backend = this.#backend;
    const options = this.#options[flags];
    switch (operation) {
      case DBLOCK_OPERATION_READ:
        return backend.read(
          slots.view(slot, lengthBytes),
          offsetBytes,
          options,
        );
      case DBLOCK_OPERATION_WRITE:
        return backend.write(
          slots.view(slot, lengthBytes),
          offsetBytes,
          options,
        );
      case DBLOCK_OPERATION_FLUSH:
        return backend.flush?.();
      case DBLOCK_OPERATION_DISCARD:
        return backend.discard?.(offsetBytes, lengthBytes, options);
      default:
        return backend.writeZeroes === undefined
          ? this.#writeZeroes(offsetBytes, lengthBytes, options, slot, slots)
          : backend.writeZeroes(offsetBytes, lengthBytes, options);
    }
  }

  /**
   * Zeroes for a backend that cannot zero: writes of what fits the request's own
   * slot, which is cleared for each, as a backend may scribble on it.
   */
  #writeZeroes(
    offsetBytes: number,
    lengthBytes: number,
    options: RequestOptions,
    slot: number,
    slots: Slots,
  ): Done | Promise<Done> {
    let done = 0;
    const next = (): Done | Promise<Done> => {
      while (done < lengthBytes) {
        const chunk = Math.min(lengthBytes - done, this.#geometry.maxIoBytes);
        const zeroes = slots.view(slot, chunk).fill(0);
        const at = offsetBytes + done;
        done += chunk;
        const written = this.#backend.write(zeroes, at, options);
        if (isThenable(written)) {
          return written.then((count) => count === undefined || count === chunk ? next() : 0);
        }
        if (written !== undefined && written !== chunk) return 0;
      }
      return lengthBytes;
    };
    return next();
  }

  async #later(
    operation: number,
    lengthBytes: number,
    done: Promise<Done>,
    flush: boolean,
  ): Promise<number> {
    try {
      const errno = this.#judge(operation, lengthBytes, await done);
      if (errno === 0 && flush) await this.#backend.flush?.();
      return errno;
    } catch (error) {
      return this.#failed(operation, error);
    }
  }

  /** The errno for what a callback returned. */
  #judge(operation: number, lengthBytes: number, done: Done): number {
    if (done === undefined || operation === DBLOCK_OPERATION_FLUSH) return 0;
    if (done === lengthBytes) return 0;
    this.#logOnce(
      `${OPERATION_NAMES[operation]}() of the backend did ${done} of ` +
        `${lengthBytes} bytes: answered EIO`,
    );
    return ERRNO.EIO;
  }

  /** The errno for what a callback threw. */
  #failed(operation: number, error: unknown): number {
    const errno = errnoOf(error);
    if (errno !== undefined) return errno;
    this.#logOnce(
      `${OPERATION_NAMES[operation]}() of the backend threw ${describe(error)}: ` +
        `answered ${errnoName(ERRNO.EIO)}`,
    );
    return ERRNO.EIO;
  }

  /** A disk in trouble fails a thousand times a second: one line each kind. */
  #logOnce(message: string): void {
    if (this.#logged.has(message) || this.#logged.size >= LOGGED_MAX) return;
    this.#logged.add(message);
    this.#log(message);
  }
}

function isThenable(done: Done | Promise<Done>): done is Promise<Done> {
  return typeof done === "object" && done !== null && "then" in done;
}
