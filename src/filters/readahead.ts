// SPDX-License-Identifier: MIT
/** Reads on where somebody reads in order, before the next request asks: for backends that are far away. */
import type { Backend, CloseReason, Completed, RequestOptions } from "../disk/backend.ts";
import { watched } from "../disk/later.ts";
import { requestOptions } from "../disk/request.ts";
import { Filter } from "./filter.ts";

/** Options of `readahead()`. */
export interface ReadaheadOptions {
  /** How much is read at once: a multiple of the disk's block size, up to `limits.maxIoBytes`. @default 512 KiB, or that */
  readonly windowBytes?: number;
  /** How many readers in order are told apart, 1 to 64. Each takes two windows of memory. @default 4 */
  readonly streams?: number;
}

const DEFAULT_WINDOW_BYTES = 512 * 2 ** 10;
const DEFAULT_STREAMS = 4;
const STREAMS_MAX = 64;

/** What was read before somebody asked for it. */
interface Window {
  readonly offsetBytes: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** False once something was written there, or if it could not be read. */
  isValid: boolean;
  readonly arrived: Promise<void>;
  hasArrived: boolean;
}

/** Somebody who reads in order. */
interface Stream {
  /** Where the next read is expected. */
  nextBytes: number;
  /** Reads in order until now. */
  length: number;
  windows: Window[];
}

/**
 * After two reads in order, the backend is asked for what comes next. A write to that range makes it void. What cannot be
 * read ahead is read when it is asked for, and its error is told then.
 *
 * ```ts
 * import type { Backend } from "../disk/backend.ts";
 * import { readahead } from "./readahead.ts";
 *
 * const disk: Backend = { sizeBytes: 1 << 20, read: (buffer) => void buffer.fill(0), write: () => {} };
 * const fast = readahead(disk, { windowBytes: 1 << 17 });
 * console.assert(fast.sizeBytes === 1048576);
 * ```
 *
 * @throws {RangeError} if an option is out of its range.
 */
export function readahead(backend: Backend, options: ReadaheadOptions = {}): Backend {
  return new Readahead(backend, options);
}

class Readahead extends Filter {
  readonly #windowBytes: number;
  readonly #streamsMax: number;
  /** The least recently used first. */
  #streams: Stream[] = [];
  /** Ranges that are being changed: nothing is read ahead there. */
  readonly #changing = new Set<{ readonly start: number; readonly end: number }>();
  /** What the backend reads ahead now. */
  readonly #reading = new Set<Promise<void>>();
  #isClosed = false;

  constructor(backend: Backend, options: ReadaheadOptions) {
    super(backend);
    const { blockBytes = 512, maxIoBytes = Infinity } = backend.limits ?? {};
    const { windowBytes = Math.min(DEFAULT_WINDOW_BYTES, maxIoBytes), streams = DEFAULT_STREAMS } = options;
    if (!(windowBytes >= blockBytes && windowBytes <= maxIoBytes && windowBytes % blockBytes === 0)) {
      const most = maxIoBytes === Infinity ? "on" : `to ${maxIoBytes}`;
      throw new RangeError(`a window is a multiple of ${blockBytes} from ${blockBytes} ${most}, not ${windowBytes}`);
    }
    if (!(Number.isInteger(streams) && streams >= 1 && streams <= STREAMS_MAX)) {
      throw new RangeError(`there are 1 to ${STREAMS_MAX} streams, not ${streams}`);
    }
    this.#windowBytes = windowBytes;
    this.#streamsMax = streams;
  }

  override read(
    buffer: Uint8Array<ArrayBuffer>,
    offsetBytes: number,
    options: RequestOptions,
  ): Completed | Promise<Completed> {
    const windows = this.#cover(offsetBytes, buffer.length);
    this.#follow(offsetBytes, buffer.length);
    if (windows === undefined) return this.backend.read(buffer, offsetBytes, options);
    if (windows.every((window) => window.hasArrived)) return copyOut(windows, buffer, offsetBytes);
    return Promise.all(windows.map((window) => window.arrived)).then(() =>
      windows.every((window) => window.isValid)
        ? copyOut(windows, buffer, offsetBytes)
        : this.backend.read(buffer, offsetBytes, options)
    );
  }

  override write(
    buffer: Uint8Array<ArrayBuffer>,
    offsetBytes: number,
    options: RequestOptions,
  ): Completed | Promise<Completed> {
    return this.#change(offsetBytes, buffer.length, () => super.write(buffer, offsetBytes, options));
  }

  protected override onDiscard(
    offsetBytes: number,
    lengthBytes: number,
    options: RequestOptions,
  ): Completed | Promise<Completed> {
    return this.#change(offsetBytes, lengthBytes, () => super.onDiscard(offsetBytes, lengthBytes, options));
  }

  protected override onWriteZeroes(
    offsetBytes: number,
    lengthBytes: number,
    options: RequestOptions,
  ): Completed | Promise<Completed> {
    return this.#change(offsetBytes, lengthBytes, () => super.onWriteZeroes(offsetBytes, lengthBytes, options));
  }

  protected override onResize(sizeBytes: number): void | Promise<void> {
    return this.#change(0, Infinity, () => super.onResize(sizeBytes));
  }

  protected override async onClose(reason: CloseReason): Promise<void> {
    this.#isClosed = true;
    // The backend must not be asked any more when it is closed.
    await Promise.all(this.#reading);
    this.#streams = [];
    await super.onClose(reason);
  }

  /** Valid windows that hold all of a range, in their order; undefined if something is not there. */
  #cover(offsetBytes: number, lengthBytes: number): Window[] | undefined {
    const found: Window[] = [];
    const end = offsetBytes + lengthBytes;
    let at = offsetBytes;
    const windows = this.#streams.flatMap((stream) => stream.windows);
    while (at < end) {
      const next = windows.find((window) =>
        window.isValid && window.offsetBytes <= at && window.offsetBytes + window.bytes.length > at
      );
      if (next === undefined) return undefined;
      found.push(next);
      at = next.offsetBytes + next.bytes.length;
    }
    return found;
  }

  /** Finds the reader that this read belongs to, and reads on for it. */
  #follow(offsetBytes: number, lengthBytes: number): void {
    let stream = this.#streams.find(({ nextBytes }) => nextBytes === offsetBytes);
    if (stream === undefined) stream = { nextBytes: 0, length: 0, windows: [] };
    else this.#streams.splice(this.#streams.indexOf(stream), 1);
    this.#streams.push(stream);
    stream.nextBytes = offsetBytes + lengthBytes;
    stream.length++;
    const { nextBytes } = stream;
    // What lies behind was read, and is given back.
    stream.windows = stream.windows.filter(({ offsetBytes, bytes, isValid }) =>
      isValid && offsetBytes + bytes.length > nextBytes
    );
    if (this.#streams.length > this.#streamsMax) this.#forgetOne();
    if (stream.length < 2 || this.#isClosed) return;
    const last = stream.windows.at(-1);
    const ahead = last === undefined ? nextBytes : last.offsetBytes + last.bytes.length;
    if (ahead - nextBytes < this.#windowBytes) this.#readOn(stream, ahead);
  }

  #forgetOne(): void {
    // One that waits for the backend is kept until that has answered; readers in order outlive single reads.
    const old = this.#streams.slice(0, -1).filter(({ windows }) => windows.every(({ hasArrived }) => hasArrived));
    const gone = old.find(({ length }) => length < 2) ?? old[0];
    if (gone !== undefined) this.#streams.splice(this.#streams.indexOf(gone), 1);
  }

  #readOn(stream: Stream, offsetBytes: number): void {
    const length = Math.min(this.#windowBytes, this.sizeBytes - offsetBytes);
    const end = offsetBytes + length;
    if (length <= 0) return;
    for (const range of this.#changing) if (range.start < end && range.end > offsetBytes) return;
    const bytes = new Uint8Array(length);
    const read = async () => {
      try {
        const count = await this.backend.read(bytes, offsetBytes, requestOptions({ readAhead: true }));
        if (count !== undefined && count !== length) window.isValid = false;
      } catch {
        window.isValid = false;
      }
      window.hasArrived = true;
    };
    // The window has to be there when the backend answers.
    const arrived = Promise.resolve().then(read).finally(() => void this.#reading.delete(arrived));
    const window: Window = { offsetBytes, bytes, isValid: true, hasArrived: false, arrived };
    this.#reading.add(arrived);
    stream.windows.push(window);
  }

  /** What was read ahead of a range is void while it changes, and from then on. */
  #change<T>(offsetBytes: number, lengthBytes: number, change: () => T | Promise<T>): T | Promise<T> {
    const range = { start: offsetBytes, end: offsetBytes + lengthBytes };
    for (const { windows } of this.#streams) {
      for (const window of windows) {
        const isHit = window.offsetBytes < range.end && window.offsetBytes + window.bytes.length > range.start;
        if (isHit) window.isValid = false;
      }
    }
    this.#changing.add(range);
    return watched(change, () => void this.#changing.delete(range));
  }
}

function copyOut(windows: readonly Window[], buffer: Uint8Array<ArrayBuffer>, offsetBytes: number): void {
  for (const window of windows) {
    const from = Math.max(offsetBytes, window.offsetBytes);
    const to = Math.min(offsetBytes + buffer.length, window.offsetBytes + window.bytes.length);
    buffer.set(window.bytes.subarray(from - window.offsetBytes, to - window.offsetBytes), from - offsetBytes);
  }
}
