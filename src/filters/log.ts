// SPDX-License-Identifier: MIT
/** One line for each request: what was asked, how long it took, and how it ended. */
import type { Backend, CloseReason, Completed } from "../disk/backend.ts";
import { describe, quietly } from "../disk/errors.ts";
import { watched } from "../disk/later.ts";
import { Filter, type FilteredRequest, outcomeName } from "./filter.ts";
import { openOwnFile, removeUnused } from "./own_file.ts";

/** Options of `log()`. */
export interface LogOptions {
  /** Where the lines go. If it throws, the line is lost; the request keeps its answer. @default standard error */
  readonly sink?: (line: string) => void;
  /** A file that the lines are added to, instead of `sink`. */
  readonly path?: string;
  /** One line for every so many requests; failed ones always have theirs. 1 or more. @default 1 */
  readonly every?: number;
  /** Said at the end of each line, for a sink that several disks share. @default nothing */
  readonly disk?: string;
}

/** Lines that wait for the file: a file that is slower than the disk must not fill the memory. */
const WAITING_LINES_MAX = 10_000;

/**
 * Says in one line what became of each request, in the order in which they end:
 *
 *     write offset=4096 length=512 us=37 errno=0
 *
 * A request with FUA has ` fua` at its end, and with the option `disk` ` disk=NAME` follows. Lines for a file that falls behind by 10,000 lines are dropped, and counted in
 * a line of their own.
 *
 * ```ts
 * import type { Backend } from "../disk/backend.ts";
 * import { requestOptions } from "../disk/request.ts";
 * import { log } from "./log.ts";
 *
 * const lines: string[] = [];
 * const disk: Backend = { sizeBytes: 4096, read: (buffer) => void buffer.fill(0), write: () => {} };
 * await log(disk, { sink: (line) => lines.push(line) }).read(new Uint8Array(512), 1024, requestOptions());
 * console.assert(/^read offset=1024 length=512 us=\d+ errno=0$/.test(lines[0]!));
 * ```
 *
 * @throws {RangeError} if `every` is no whole number from 1 on.
 * @throws {DblockError} if the file cannot be opened.
 */
export function log(backend: Backend, options: LogOptions = {}): Backend {
  return new Log(backend, options);
}

class Log extends Filter {
  readonly #sink: (line: string) => void;
  readonly #every: number;
  /** What each line ends with. */
  readonly #end: string;
  readonly #file: LineFile | undefined;
  #count = 0;

  constructor(backend: Backend, options: LogOptions) {
    super(backend);
    const { path, sink = (line) => console.error(line), every = 1, disk } = options;
    if (!Number.isSafeInteger(every) || every < 1) {
      throw new RangeError(`every is a whole number from 1 on, not ${every}`);
    }
    this.#file = path === undefined ? undefined : new LineFile(path);
    // Standard error throws where there is no room, or nobody who reads it: the request was answered all the same.
    this.#sink = quietly(this.#file === undefined ? sink : (line) => this.#file?.add(line));
    this.#every = every;
    this.#end = disk === undefined ? "" : ` disk=${disk}`;
  }

  protected override ask(
    request: FilteredRequest,
    next: () => Completed | Promise<Completed>,
  ): Completed | Promise<Completed> {
    const isChosen = this.#count++ % this.#every === 0;
    const begunMs = performance.now();
    return watched(next, (outcome) => {
      const errno = outcomeName(request, outcome);
      if (!isChosen && errno === "0") return;
      const { operation, offsetBytes, lengthBytes, options } = request;
      const us = Math.round((performance.now() - begunMs) * 1000);
      const fua = options.fua ? " fua" : "";
      this.#sink(`${operation} offset=${offsetBytes} length=${lengthBytes} us=${us} errno=${errno}${fua}${this.#end}`);
    });
  }

  protected override async onClose(reason: CloseReason): Promise<void> {
    try {
      await super.onClose(reason);
    } finally {
      await this.#file?.close(reason === "unused");
    }
  }
}

/** A file that lines are added to in the background, several at once. */
class LineFile {
  readonly #path: string;
  readonly #file: Deno.FsFile;
  readonly #isMade: boolean;
  readonly #encoder = new TextEncoder();
  #waiting: string[] = [];
  #dropped = 0;
  #writing: Promise<void> | undefined;

  constructor(path: string) {
    this.#path = path;
    const { file, isMade } = openOwnFile("the log", path, { append: true });
    this.#file = file;
    this.#isMade = isMade;
  }

  add(line: string): void {
    if (this.#waiting.length >= WAITING_LINES_MAX) {
      this.#dropped++;
      return;
    }
    this.#waiting.push(line);
    this.#writing ??= this.#write().finally(() => this.#writing = undefined);
  }

  async #write(): Promise<void> {
    // What comes in the same turn goes into the same write.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const lines = this.#waiting;
      this.#waiting = [];
      if (this.#dropped > 0) lines.push(`(${this.#dropped} lines were dropped: the file is too slow)`);
      this.#dropped = 0;
      try {
        let rest = this.#encoder.encode(lines.join("\n") + "\n");
        while (rest.length > 0) rest = rest.subarray(await this.#file.write(rest));
      } catch (error) {
        // A full file system must not fail the disk, and standard error may be on it, too.
        quietly(console.error)(`Cannot write ${lines.length} lines to ${this.#path}: ${describe(error)}`);
      }
    }
  }

  /** @param isUnused the disk was never used: a file that was made for it goes, unless somebody else has written to it */
  async close(isUnused: boolean): Promise<void> {
    while (this.#writing !== undefined) await this.#writing;
    if (isUnused && this.#isMade) removeUnused(this.#path);
    this.#file.close();
  }
}
