// SPDX-License-Identifier: MIT
/**
 * What a disk is made of: the interfaces a program implements. `Backend` answers
 * requests with code; `MappedBackend` is memory that the kernel copies from and to.
 */

/** What else a request says. The same few objects are used again and again. */
export interface RequestOptions {
  /**
   * Force unit access: answer only when the data is durable. Set only for a
   * backend with `fua: true`; others are flushed after the write instead.
   */
  readonly fua: boolean;
  /** A server that died may have done this already: do it again. */
  readonly replayed: boolean;
  /** writeZeroes(): keep the space allocated. */
  readonly keepAllocated: boolean;
}

/** What a callback may return: nothing, or how many bytes it did. */
export type Done = void | number;

/**
 * A disk that answers with code. Only `sizeBytes`, `read` and `write` are
 * required.
 *
 * - Offsets and lengths are bytes, multiples of the logical block size, inside
 *   the disk: dispatch has checked them, so a backend need not.
 * - `buffer` belongs to the backend until it has answered, and not after that.
 * - Any callback may return a promise. Requests then overlap and may be answered
 *   in any order.
 * - A callback that throws (or rejects) fails its request and no other: with the
 *   errno in the error's `code` ("ENOSPC", as in `DblockError` and in Deno's own
 *   errors), or else with EIO and one line in the log.
 * - A callback may return how many bytes it did, as `Deno.FsFile` does. Any
 *   number but the request's length is an I/O error.
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
  /** Size of the disk: a multiple of the logical block size, below 2^53. */
  readonly sizeBytes: number;
  /** Refuse every write. @default false */
  readonly readOnly?: boolean;
  /** `write` and `writeZeroes` heed `options.fua` by themselves. @default false */
  readonly fua?: boolean;

  /** Fills `buffer` with what is at `offsetBytes`. */
  read(
    buffer: Uint8Array<ArrayBuffer>,
    offsetBytes: number,
    options: RequestOptions,
  ): Done | Promise<Done>;

  /** Puts `buffer` at `offsetBytes`. */
  write(
    buffer: Uint8Array<ArrayBuffer>,
    offsetBytes: number,
    options: RequestOptions,
  ): Done | Promise<Done>;

  /**
   * Makes every write answered so far durable. Without it, an answered write
   * has to be durable already.
   */
  flush?(): Done | Promise<Done>;

  /** The range is not needed any more: its content is undefined from now on. */
  discard?(
    offsetBytes: number,
    lengthBytes: number,
    options: RequestOptions,
  ): Done | Promise<Done>;

  /** The range reads as zeroes from now on. Without it, zeroes are written. */
  writeZeroes?(
    offsetBytes: number,
    lengthBytes: number,
    options: RequestOptions,
  ): Done | Promise<Done>;

  /**
   * `device.resize()` gives the disk another size: called before it grows, and after it has become smaller, when requests
   * of before may still be open. Without it, the size stays. Not in a `BackendModule`: its Workers would not hear of it.
   */
  resize?(sizeBytes: number): void | Promise<void>;

  /** The device is gone and nothing will be asked any more. */
  close?(): void | Promise<void>;
}

/** Memory of this process that is a disk's content. */
export interface Mapping {
  /** Its address, a multiple of 4096. */
  readonly address: number;
  /** Its size, a multiple of 4096. */
  readonly sizeBytes: number;
  /**
   * `anonymous`: private memory; a discarded page is given back and reads as
   * zeroes, and there is nothing to flush.
   * `file`: a shared mapping of a file; a discard punches a hole, a flush waits
   * until the file has everything.
   */
  readonly kind: "anonymous" | "file";
  /** The file that is mapped, from its beginning: holes are punched in it. Without it, the memory is asked to. */
  readonly fd?: number;
  /** What can be given back at once: a power of two, larger than usual on hugetlbfs. @default 4096 */
  readonly pageBytes?: number;
  /** A flush has something to wait for; false for a file on tmpfs. @default true for a `file` */
  readonly flushes?: boolean;
}

/**
 * A disk that is memory: the kernel copies between a request's pages and
 * `mapping` by itself, and one Worker per queue only names addresses.
 */
export interface MappedBackend {
  readonly mapping: Mapping;
  /** Refuse every write. @default false */
  readonly readOnly?: boolean;
  /**
   * The device is gone and no Worker runs any more: the memory may be given
   * back. Not called before that.
   */
  close?(): void | Promise<void>;
}

/**
 * A `Backend` in a module of its own, served by one Worker per queue. The module's
 * default export is a `BackendFactory`. Each Worker calls it and has a backend of
 * its own: what they share goes through `data` (a SharedArrayBuffer, a path).
 *
 * What it throws outside of a callback ends its Worker, and so do `self.close()`
 * and `Deno.exit()`: that is the disk's death (`onDeath`).
 * Where `onDeath` keeps the disk then, the other Workers end without closing
 * their backends: they are in the kernel, which goes on with the disk.
 */
export interface BackendModule {
  /** The module: `new URL("./my-backend.ts", import.meta.url)`. */
  readonly module: URL;
  /** Given to the factory; anything `structuredClone` can copy. */
  readonly data?: unknown;
}

/** What a `BackendModule` exports as its default. */
export type BackendFactory = (data: unknown) => Backend | Promise<Backend>;

/** What the kernel is told about a disk when it is created. */
export interface Profile {
  readonly sizeBytes: number;
  /** It is memory: completions name addresses and nothing is delivered. */
  readonly direct: boolean;
  readonly readOnly: boolean;
  /** It has something to flush: FLUSH is sent. */
  readonly writeCache: boolean;
  /** FUA is sent as a flag; otherwise the kernel flushes after such a write. */
  readonly fua: boolean;
  readonly discard: boolean;
  /** It zeroes by itself; otherwise dispatch writes zeroes. */
  readonly writeZeroes: boolean;
}

/** True for a disk that is memory. */
export function isMapped(
  backend: Backend | MappedBackend | BackendModule,
): backend is MappedBackend {
  return "mapping" in backend;
}

/** True for a disk that is a module. */
export function isModule(
  backend: Backend | MappedBackend | BackendModule,
): backend is BackendModule {
  return "module" in backend;
}

/** What a backend can do, seen from which callbacks it has. */
export function profileOf(backend: Backend | MappedBackend): Profile {
  if (isMapped(backend)) {
    return {
      sizeBytes: backend.mapping.sizeBytes,
      direct: true,
      readOnly: backend.readOnly ?? false,
      writeCache: backend.mapping.kind === "file" && backend.mapping.flushes !== false,
      // The kernel copies a write's data while it ends the request: there is no moment to make it durable before.
      fua: false,
      discard: true,
      writeZeroes: true,
    };
  }
  return {
    sizeBytes: backend.sizeBytes,
    direct: false,
    readOnly: backend.readOnly ?? false,
    writeCache: backend.flush !== undefined,
    // Dispatch flushes after the write by itself: one round trip instead of two.
    fua: backend.flush !== undefined,
    discard: backend.discard !== undefined,
    writeZeroes: backend.writeZeroes !== undefined,
  };
}
