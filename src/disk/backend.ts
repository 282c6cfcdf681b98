// SPDX-License-Identifier: MIT
/**
 * What a disk is: the interface that a program implements. A `Backend` answers requests with code. It knows no kernel and
 * no protocol: a transport brings it to whoever uses the disk.
 */
import type { Priority } from "./operation.ts";

/** What every call of a backend is told besides its range. Valid until the backend has answered that call. */
export interface CallOptions {
  /** A server that died may have done this already: do it again. */
  readonly replayed: boolean;
  /**
   * Aborted when nobody waits for the answer any more: the request has timed out, or the disk is gone. The signal is made
   * when it is first read, so it costs nothing where it is not used.
   */
  readonly signal: AbortSignal;
}

/** What a request says besides its range. Valid until the backend has answered the request. */
export interface RequestOptions extends CallOptions {
  /**
   * Force unit access: answer only when the data is durable. Set only for a backend with `fua: true`; dispatch flushes
   * after such a write for every other backend.
   */
  readonly fua: boolean;
  /** writeZeroes(): keep the space allocated, so that a later write of it cannot find the store full. */
  readonly keepAllocated: boolean;
  /** Hint: the data is a file system's metadata. */
  readonly metadata: boolean;
  /** Hint: nobody waits for this read yet. */
  readonly readAhead: boolean;
  /** Hint: the kernel swaps. */
  readonly swap: boolean;
  /** Hint: how urgent the request is. */
  readonly priority: Priority;
}

/** What a callback returns: nothing, or how many bytes it did (any other number than the request's length is EIO). */
export type Completed = void | number;

/**
 * Why a backend is closed.
 *
 * - `destroyed`: the disk is gone for good.
 * - `left`: the disk, or a next server of it, goes on with this content: it was taken over, held or failed over by its
 *   `onDeath` policy. Everything that was answered has to be there for the next server.
 * - `unused`: the disk never began; nothing was asked.
 * - `replaced`: another version of the same code goes on with this content (`dblock serve --watch`). What `handOver()` gave
 *   or brought belongs to that version: leave it as it is, and end what is this version's own, such as timers. A new version
 *   that cannot take over is closed for this reason, too: the one before goes on.
 */
export type CloseReason = "destroyed" | "left" | "unused" | "replaced";

/** A piece of a disk, as `extents()` reports it. */
export interface Extent {
  /** A positive multiple of the block size. */
  readonly lengthBytes: number;
  /**
   * `data`: it was written. `zero`: it reads as zeroes and takes space. `hole`: it reads as zeroes and takes no space.
   */
  readonly kind: "data" | "zero" | "hole";
}

/** A number that a backend tells of itself, for whoever watches its disk. */
export interface Figure {
  /** In small letters and "_", as Prometheus has it: with `_total` at its end it only grows; units are seconds and bytes. */
  readonly name: string;
  /** What it is, in a line. */
  readonly help: string;
  /** As it is now: a finite number. */
  readonly value: number;
  /** Of which part it is: `{ half: "a.img" }`; names of letters, digits and "_". @default of all of it */
  readonly labels?: Readonly<Record<string, string>>;
}

/**
 * What a disk is like: sizes in bytes, each optional. `serve()` has the same options and they win; what neither says gets
 * the default.
 */
export interface Limits {
  /** What every offset and length is a multiple of: 512, 1024, 2048 or 4096. @default 512 */
  readonly blockBytes?: number;
  /** What the store writes at once without reading first: a power of two, `blockBytes` to 1 MiB. @default 4096 */
  readonly physicalBlockBytes?: number;
  /** The preferred size of a request: a multiple of `physicalBlockBytes` up to 16 MiB; 0: none. @default 0 */
  readonly optimalIoBytes?: number;
  /** The largest read and write: 4096 (or a page, where pages are larger) to 16 MiB. @default 512 KiB; 1 MiB for memory */
  readonly maxIoBytes?: number;
  /** What can be given back at once: a power of two, `blockBytes` to 1 GiB. @default 4096, or `blockBytes` if larger */
  readonly discardGranularityBytes?: number;
  /** The largest discard: up to 2 GiB. @default 2 GiB */
  readonly maxDiscardBytes?: number;
  /** The largest writeZeroes: up to 2 GiB. @default 2 GiB; 4 MiB where dispatch writes the zeroes */
  readonly maxWriteZeroesBytes?: number;
  /** Seeks are slow. @default false */
  readonly rotational?: boolean;
}

/**
 * A disk that answers with code. Only `sizeBytes`, `read` and `write` are required.
 *
 * - Offsets and lengths are bytes, multiples of `limits.blockBytes`, inside the disk: dispatch has checked them, so a
 *   backend need not.
 * - `buffer` belongs to the backend until it has answered, and not after that. It is a window into a larger buffer:
 *   use the buffer itself, never `buffer.buffer`. It cannot be transferred to a Worker; a copy (`slice()`) can.
 * - Any callback may return a promise. Requests then overlap and may be answered in any order.
 * - A callback that throws (or rejects) fails its request and no other. The errno is in the error's `code`
 *   (`new DblockError("ENOSPC")`, or an error of Deno's own); without one it is EIO and one line in the log.
 * - A callback may return how many bytes it did, as `Deno.FsFile` does. Any number but the request's length is an I/O
 *   error.
 *
 * ```ts
 * import type { Backend } from "./backend.ts";
 *
 * const store = new Uint8Array(16 * 2 ** 20);
 * const disk: Backend = {
 *   sizeBytes: store.length,
 *   read: (buffer, offset) =>
 *     buffer.set(store.subarray(offset, offset + buffer.length)),
 *   write: (buffer, offset) => store.set(buffer, offset),
 * };
 * console.assert(disk.sizeBytes === 16777216);
 * ```
 */
export interface Backend {
  /** Size of the disk in bytes: a positive multiple of the block size, below 2^53. */
  readonly sizeBytes: number;
  /** What the disk is like, where the defaults do not fit. */
  readonly limits?: Limits;
  /** Refuse everything that would change the disk. @default false */
  readonly readOnly?: boolean;
  /** `write` and `writeZeroes` heed `options.fua` by themselves. @default false */
  readonly fua?: boolean;
  /**
   * What was answered survives this process, although it was not flushed: a file's page cache does, an array does not.
   * Matters to a disk that outlives its server (`onDeath`): where this is false and there is a `flush`, the first flush
   * after a death fails, `flush` is called before a `close("left")`, and nobody can take the disk over from a server that
   * is alive. @default false
   */
  readonly cacheSurvives?: boolean;

  /** Fills all of `buffer` with what is at `offsetBytes`. What is not filled is answered as an earlier request has left it. */
  read(
    buffer: Uint8Array<ArrayBuffer>,
    offsetBytes: number,
    options: RequestOptions,
  ): Completed | Promise<Completed>;

  /** Puts `buffer` at `offsetBytes`. Never called with `readOnly`. */
  write(
    buffer: Uint8Array<ArrayBuffer>,
    offsetBytes: number,
    options: RequestOptions,
  ): Completed | Promise<Completed>;

  /**
   * Makes every write answered so far durable. Without it, an answered write has to be durable already.
   */
  flush?(options: CallOptions): Completed | Promise<Completed>;

  /** The range is not needed any more: its content is undefined from now on. */
  discard?(
    offsetBytes: number,
    lengthBytes: number,
    options: RequestOptions,
  ): Completed | Promise<Completed>;

  /** The range reads as zeroes from now on. Without it, dispatch writes zeroes. */
  writeZeroes?(
    offsetBytes: number,
    lengthBytes: number,
    options: RequestOptions,
  ): Completed | Promise<Completed>;

  /**
   * Gives the disk another size: called before it grows, and after it has become smaller, when requests of before may
   * still be open. Without it, the size stays. Not in a `BackendModule`: its Workers would not hear of it.
   */
  resize?(sizeBytes: number): void | Promise<void>;

  /**
   * What the range consists of: the extents from `offsetBytes` on, without gaps. The last may end before or behind the
   * range's end; at least one is returned. Without it, everything is data.
   */
  extents?(
    offsetBytes: number,
    lengthBytes: number,
    options: CallOptions,
  ): readonly Extent[] | Promise<readonly Extent[]>;

  /**
   * Gives what the next version of the code needs to go on with this content: the default export of that version is called
   * with it as its second argument (see `BackendFactory`). Only `dblock serve --watch` calls it: everything that was asked is
   * answered and flushed, and nothing is asked until the next version is there. If that one cannot take over, this one is
   * asked again, so nothing may be closed here. Give data and handles rather than objects of your own classes, which keep
   * the code that they were made with.
   */
  handOver?(): unknown;

  /**
   * Figures of its own, for `dblock serve --metrics`, which shows them as `dblock_backend_NAME`. Asked at any time, also
   * amid requests.
   */
  figures?(): readonly Figure[];

  /** Nothing will be asked any more. Called exactly once, also when the disk never began. */
  close?(reason: CloseReason): void | Promise<void>;
}
