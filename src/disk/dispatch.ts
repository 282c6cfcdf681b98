// SPDX-License-Identifier: MIT
/**
 * From a request to its answer: the only place that checks a request, the only place that calls a backend. Pure: it knows
 * neither a kernel nor a protocol.
 */
import type { Backend, CallOptions, Completed, Extent } from "./backend.ts";
import { DblockError, describe, ERRNO, errnoOf } from "./errors.ts";
import { LateAnswer } from "./late.ts";
import { type DiskLog, FailureLog } from "./log.ts";
import { type Meter, meterOf, ROWS } from "./meter.ts";
import type { Operation } from "./operation.ts";
import { REQUEST_FUA } from "./operation.ts";
import { OpenRequest, requestOptions } from "./request.ts";

/** What requests of a disk are checked against, all in bytes. */
export interface Geometry {
  readonly sizeBytes: number;
  readonly blockBytes: number;
  /** Largest read and write. */
  readonly maxIoBytes: number;
  /** Largest discard; 0: not supported. */
  readonly maxDiscardBytes: number;
  /** Largest writeZeroes; 0: not supported. */
  readonly maxWriteZeroesBytes: number;
  readonly readOnly: boolean;
  /** After this time nobody waits for an answer any more, in ms; 0: somebody always does. */
  readonly timeoutMs: number;
}

/** Who brings requests and takes their answers: a queue of dblock.ko, a connection of NBD. */
export interface Transport {
  /**
   * The first `lengthBytes` of the memory where a request's data is: its slot, of `maxIoBytes`. Undefined for a read or a write
   * whose data is in the disk's own memory: there is nothing left to do.
   */
  view(slot: number, lengthBytes: number): Uint8Array<ArrayBuffer> | undefined;
  /** Takes the answer to a request for which `dispatch()` has returned `LATER`: 0 or an errno. Must not throw. */
  answer(slot: number, errno: number): void;
}

/** Of this range the extents are asked for first, where one is wanted. */
const FIRST_EXTENT_BYTES = 65_536;
/** What `dispatch()` returns for a request that the backend answers later. */
export const LATER = -1;

/**
 * What is wrong with a request: 0 or an errno. The kernel has checked all of this; a server that believes it blindly
 * would turn one mistake there into memory corruption here.
 */
export function checkRequest(
  geometry: Geometry,
  operation: Operation,
  offsetBytes: number,
  lengthBytes: number,
): number {
  let longest = geometry.maxIoBytes;
  let pastTheEnd: number = ERRNO.ENOSPC;
  switch (operation) {
    case "flush":
      return offsetBytes === 0 && lengthBytes === 0 ? 0 : ERRNO.EINVAL;
    case "read":
      pastTheEnd = ERRNO.EIO;
      break;
    case "write":
      break;
    case "discard":
      longest = geometry.maxDiscardBytes;
      pastTheEnd = ERRNO.EIO;
      break;
    case "writeZeroes":
      longest = geometry.maxWriteZeroesBytes;
      break;
  }
  if (longest === 0) return ERRNO.EOPNOTSUPP;
  if (operation !== "read" && geometry.readOnly) return ERRNO.EROFS;
  if (lengthBytes === 0 || lengthBytes > longest) return ERRNO.EINVAL;
  // Block sizes are powers of two, and & looks at the low 32 bits of a large offset only: exact, and faster than %.
  if (((offsetBytes | lengthBytes) & (geometry.blockBytes - 1)) !== 0) return ERRNO.EINVAL;
  return offsetBytes + lengthBytes > geometry.sizeBytes ? pastTheEnd : 0;
}

/**
 * Answers the requests of one transport with a backend: 0 or an errno for each, at once or later. A transport names a
 * request by its slot, a small number; a slot has one open request.
 */
export class Dispatcher {
  readonly #backend: Backend;
  readonly #geometry: Geometry;
  readonly #transport: Transport;
  readonly #failures: FailureLog;
  /** By slot, made at its first request and used again: nothing is allocated per request. */
  readonly #requests: OpenRequest[] = [];
  /** Writes with FUA are followed by a flush. */
  readonly #flushesAfterFua: boolean;
  readonly #meter: Meter | undefined;
  #isAborted = false;
  #isInBatch = false;
  #batchRequests = 0;
  #batchBeganMs = NaN;
  /** Requests of the batch that were answered at once, by row of the meter; and a bit for each row that has some. */
  readonly #inBatch = new Uint32Array(ROWS);
  #rowsInBatch = 0;
  /** Requests that were answered later, and whose time is counted a microtask after the first: one look at the clock for all. */
  #lateCount = 0;
  readonly #lateRows: number[] = [];
  readonly #lateBeganMs: number[] = [];
  readonly #onLate = () => this.#countLate();
  readonly #onDone = (request: OpenRequest, done: Completed) => this.#settle(request, done);
  readonly #onFailed = (request: OpenRequest, error: unknown) => this.#fail(request, error);

  constructor(backend: Backend, geometry: Geometry, transport: Transport, log: DiskLog) {
    this.#backend = backend;
    this.#geometry = geometry;
    this.#transport = transport;
    this.#failures = new FailureLog(log);
    this.#flushesAfterFua = backend.fua !== true && backend.flush !== undefined;
    this.#meter = meterOf(backend);
  }

  /**
   * Does what a request asks for. Never throws: whatever the backend does becomes an errno.
   *
   * @param flags REQUEST_* of operation.ts
   * @returns 0 when all of it is done, else an errno; or `LATER`, if the backend has returned a promise:
   * `Transport.answer()` is called once then, and not before this has returned
   */
  dispatch(operation: Operation, flags: number, offsetBytes: number, lengthBytes: number, slot: number): number {
    const meter = this.#meter;
    if (meter === undefined || !meter.isOn) return this.#dispatch(operation, flags, offsetBytes, lengthBytes, slot);
    const isAlone = !this.#isInBatch;
    if (isAlone) this.batchBegins();
    this.#batchRequests++;
    const errno = this.#dispatch(operation, flags, offsetBytes, lengthBytes, slot);
    if (errno === LATER) {
      meter.inFlight++;
      this.#requests[slot]!.metered(meter, operation, offsetBytes, this.#batchBeganMs);
    } else {
      const row = meter.count(operation, offsetBytes, lengthBytes, errno, this.#geometry.sizeBytes);
      this.#inBatch[row] = this.#inBatch[row]! + 1;
      this.#rowsInBatch |= 1 << row;
    }
    if (isAlone) this.batchEnds();
    return errno;
  }

  /**
   * For a transport that brings requests in batches: they are here from now on, and those that are answered at once go back
   * together, at `batchEnds()`. So their time is that of the batch, and the clock is not read for each.
   */
  batchBegins(): void {
    if (!this.#meter?.isOn) return;
    this.#isInBatch = true;
    this.#batchBeganMs = this.#meter.now();
  }

  /** The answers of the batch go back. */
  batchEnds(): void {
    const meter = this.#meter;
    if (meter === undefined || !this.#isInBatch) return;
    this.#isInBatch = false;
    if (this.#batchRequests > 0) meter.addBatch(this.#batchRequests);
    this.#batchRequests = 0;
    if (this.#rowsInBatch === 0) return;
    const ms = meter.now() - this.#batchBeganMs;
    for (let rows = this.#rowsInBatch; rows !== 0;) {
      const row = 31 - Math.clz32(rows);
      meter.addTime(row, ms, this.#inBatch[row]!);
      this.#inBatch[row] = 0;
      rows ^= 1 << row;
    }
    this.#rowsInBatch = 0;
  }

  #dispatch(operation: Operation, flags: number, offsetBytes: number, lengthBytes: number, slot: number): number {
    const refused = checkRequest(this.#geometry, operation, offsetBytes, lengthBytes);
    if (refused !== 0) return refused;
    const request = this.#requests[slot] ?? this.#makeRequest(slot);
    if (request.isOpen) return ERRNO.EBUSY; // a transport's mistake: the slot's memory is in use
    const flushes = this.#flushesAfterFua && (flags & REQUEST_FUA) !== 0 && operation !== "read";
    request.begin(operation, flags, lengthBytes, flushes);
    try {
      const done = this.#call(request, offsetBytes, lengthBytes);
      if (isThenable(done)) return this.#later(request, done);
      let errno = this.#judge(request, done);
      if (errno === 0 && flushes && operation !== "flush") {
        const flushed = this.#backend.flush?.(request);
        request.flushing();
        if (isThenable(flushed)) return this.#later(request, flushed);
        errno = 0;
      }
      request.end();
      return errno;
    } catch (error) {
      request.end();
      return this.#errnoOf(request.operation, error);
    }
  }

  /** Requests have been answered later, and no microtask runs meanwhile: their time is counted now. */
  lateEnds(): void {
    if (this.#lateCount > 0) this.#countLate();
  }

  #countLate(): void {
    const meter = this.#meter!;
    const nowMs = meter.now();
    for (let i = 0; i < this.#lateCount; i++) {
      meter.addTime(this.#lateRows[i]!, nowMs - this.#lateBeganMs[i]!, 1);
    }
    this.#lateCount = 0;
  }

  /**
   * What a range consists of, cut off at its end; all of it is data where the backend cannot say. Never rejects.
   *
   * @returns the extents, which may end before the range does; or an errno
   */
  async extents(
    offsetBytes: number,
    lengthBytes: number,
    options: CallOptions = requestOptions(),
  ): Promise<readonly Extent[] | number> {
    const { blockBytes, sizeBytes } = this.#geometry;
    if (lengthBytes <= 0 || offsetBytes % blockBytes !== 0 || lengthBytes % blockBytes !== 0) return ERRNO.EINVAL;
    if (offsetBytes < 0 || offsetBytes + lengthBytes > sizeBytes) return ERRNO.EINVAL;
    try {
      const said = await this.#backend.extents?.(offsetBytes, lengthBytes, options);
      if (said === undefined) return [{ lengthBytes, kind: "data" }];
      const wrong = said.find((extent) => !(extent.lengthBytes > 0) || extent.lengthBytes % blockBytes !== 0);
      if (said.length > 0 && wrong === undefined) return cutOff(said, lengthBytes);
      return this.#failed("extents", ERRNO.EIO, `said ${wrong?.lengthBytes ?? "nothing"}`);
    } catch (error) {
      return this.#errnoOf("extents", error);
    }
  }

  /**
   * The same for who wants one extent of all that is left of a disk. A backend would list every extent of that: it is asked
   * for little, and for more if that is one.
   */
  async firstExtent(offsetBytes: number, lengthBytes: number): Promise<readonly Extent[] | number> {
    for (let ask = FIRST_EXTENT_BYTES;; ask *= 8) {
      const isAll = ask >= lengthBytes;
      const found = await this.extents(offsetBytes, Math.min(ask, lengthBytes));
      if (isAll || typeof found === "number" || found[0]!.lengthBytes < ask) return found;
    }
  }

  /** The disk is gone: aborts the signals of what is open. Answers may still come; nobody waits for them. */
  abort(reason: unknown = new DblockError("ENODEV", "Cannot answer", "the disk is gone")): void {
    this.#failures.end();
    this.#isAborted = true;
    for (const request of this.#requests) request?.abort(reason);
  }

  #makeRequest(slot: number): OpenRequest {
    const heedsFua = this.#backend.fua === true;
    const { timeoutMs } = this.#geometry;
    return this.#requests[slot] = new OpenRequest(slot, { heedsFua, timeoutMs }, this.#onDone, this.#onFailed);
  }

  #call(request: OpenRequest, offsetBytes: number, lengthBytes: number): Completed | Promise<Completed> {
    const backend = this.#backend;
    switch (request.operation) {
      case "read": {
        const data = this.#transport.view(request.slot, lengthBytes);
        return data === undefined ? undefined : backend.read(data, offsetBytes, request);
      }
      case "write": {
        const data = this.#transport.view(request.slot, lengthBytes);
        return data === undefined ? undefined : backend.write(data, offsetBytes, request);
      }
      case "flush":
        return backend.flush?.(request);
      case "discard":
        return backend.discard?.(offsetBytes, lengthBytes, request);
      case "writeZeroes":
        return backend.writeZeroes === undefined
          ? this.#writeZeroes(request, offsetBytes, lengthBytes)
          : backend.writeZeroes(offsetBytes, lengthBytes, request);
    }
  }

  /**
   * Zeroes for a backend that cannot zero: writes of what fits the request's own slot, which is cleared for each, as a
   * backend may scribble on it.
   */
  #writeZeroes(request: OpenRequest, offsetBytes: number, lengthBytes: number): Completed | Promise<Completed> {
    let done = 0;
    const next = (): Completed | Promise<Completed> => {
      while (done < lengthBytes) {
        const chunk = Math.min(lengthBytes - done, this.#geometry.maxIoBytes);
        const zeroes = this.#transport.view(request.slot, chunk)!.fill(0);
        const at = offsetBytes + done;
        done += chunk;
        const written = this.#backend.write(zeroes, at, request);
        if (isThenable(written)) {
          const promise = written instanceof LateAnswer ? written.toPromise() : written;
          return promise.then((count) => count === undefined || count === chunk ? next() : 0);
        }
        if (written !== undefined && written !== chunk) return 0;
      }
      return lengthBytes;
    };
    return next();
  }

  /** One `then` and no promise of ours: an answer that comes later costs little more than one that comes at once. */
  #later(request: OpenRequest, done: Promise<Completed>): number {
    if (done instanceof LateAnswer) {
      done.then(request.onDone, request.onFailed);
      request.isOpen = true;
      return LATER;
    }
    // Something that is only like a promise could call both functions, or one of them now.
    const promise = done.constructor === Promise ? done : Promise.resolve(done);
    promise.then(request.onDone, request.onFailed);
    request.isOpen = true;
    return LATER;
  }

  #settle(request: OpenRequest, done: Completed): void {
    let errno = this.#judge(request, done);
    if (errno === 0 && request.flushesAfter) {
      request.flushing();
      try {
        const flushed = this.#backend.flush?.(request);
        if (isThenable(flushed)) return void this.#later(request, flushed);
      } catch (error) {
        errno = this.#errnoOf("flush", error);
      }
    }
    this.#answer(request, errno);
  }

  #fail(request: OpenRequest, error: unknown): void {
    this.#answer(request, this.#errnoOf(request.operation, error));
  }

  #answer(request: OpenRequest, errno: number): void {
    request.end();
    if (request.meter !== undefined) {
      const at = this.#lateCount++;
      this.#lateRows[at] = request.count(errno, this.#geometry.sizeBytes);
      this.#lateBeganMs[at] = request.beganMs;
      if (at === 0) queueMicrotask(this.#onLate);
    }
    this.#transport.answer(request.slot, errno);
  }

  /** The errno for what a callback returned. */
  #judge({ operation, lengthBytes }: OpenRequest, done: Completed): number {
    if (done === undefined || done === lengthBytes || operation === "flush") return 0;
    return this.#failed(operation, ERRNO.EIO, `did ${done} of ${lengthBytes} bytes`);
  }

  /** The errno for what a callback threw. */
  #errnoOf(operation: Operation | "extents", error: unknown): number {
    return this.#failed(operation, errnoOf(error) ?? ERRNO.EIO, `threw ${describe(error)}`);
  }

  /** @returns `errno` */
  #failed(operation: Operation | "extents", errno: number, why: string): number {
    // What is given up at the end has not failed.
    if (!this.#isAborted) this.#failures.add(operation, errno, why);
    return errno;
  }
}

function cutOff(extents: readonly Extent[], lengthBytes: number): readonly Extent[] {
  const inside: Extent[] = [];
  let rest = lengthBytes;
  for (const extent of extents) {
    if (rest === 0) break;
    inside.push(extent.lengthBytes <= rest ? extent : { ...extent, lengthBytes: rest });
    rest -= Math.min(extent.lengthBytes, rest);
  }
  return inside;
}

function isThenable(done: Completed | Promise<Completed>): done is Promise<Completed> {
  return typeof done === "object" && done !== null && "then" in done;
}
