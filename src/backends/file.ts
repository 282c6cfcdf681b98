// SPDX-License-Identifier: MIT
/**
 * A disk in a file that is mapped into memory: fast as a ramdisk on tmpfs or hugetlbfs, and still there for the next
 * server when this one dies.
 */
import type { Backend, CloseReason, Extent, Limits, RequestOptions } from "../disk/backend.ts";
import { DblockError, ERRNO, errnoOf } from "../disk/errors.ts";
import { BLOCK_BYTES_MIN } from "../disk/limits.ts";
import type { MappedBackend, Mapping } from "../disk/servable.ts";
import { extentsOf, type Flusher, readAt, writeAt } from "../system/file.ts";
import { fileSystemOf, linux, O_RDONLY, O_RDWR, unlockFile } from "../system/libc.ts";
import { adviseMemory, MADV_DONTFORK, mapFile, PAGE_BYTES, unmapMemory } from "../system/pages.ts";
import { discardMapped, flusherOf, hasHoles, zeroMapped } from "../system/mapping.ts";
import { LateLock, lock, removeUnused } from "./lock.ts";

// From linux/magic.h.
const TMPFS_MAGIC = 0x01021994;
const RAMFS_MAGIC = 0x858458f6;
const HUGETLBFS_MAGIC = 0x958458f6;
/** File systems without a disk: a file there is where it will ever be. */
const MEMORY_FILE_SYSTEMS: readonly number[] = [TMPFS_MAGIC, RAMFS_MAGIC, HUGETLBFS_MAGIC];
/** As for a backend that cannot zero at all. */
const WRITTEN_ZEROES_BYTES = 4 * 2 ** 20;

/** Options of `FileBackend.open()`. */
export interface FileBackendOptions {
  /** A regular file on any file system that can be mapped: /dev/shm/disk0. Made if it is not there. */
  readonly path: string;
  /** A multiple of 4096 (of a huge page on hugetlbfs). @default the size that the file has */
  readonly sizeBytes?: number;
  /**
   * Open the file for reading alone: an image that must not change, or may not be written. Other read-only disks of the
   * same file may be there.
   * @default false
   */
  readonly readOnly?: boolean;
  /** Do not insist that no other process serves it: for a take-over, see `locked`. @default false */
  readonly shared?: boolean;
  /** Make a file that is shorter than `sizeBytes` as long. @default false */
  readonly grow?: boolean;
}

/**
 * A disk in a mapped file. The kernel copies between a request's pages and the file's: what is answered survives this
 * process, and the machine's end once it is flushed; on tmpfs and hugetlbfs there is nothing to flush, and the disk has no
 * write cache. Where the file system has no room, a request fails with EIO.
 *
 * ```ts
 * import { FileBackend } from "./file.ts";
 *
 * const path = await Deno.makeTempFile();
 * const disk = await FileBackend.open({ path, sizeBytes: 64 * 2 ** 20 });
 * console.assert(disk.mapping.sizeBytes === 67108864);
 * disk.close();
 * await Deno.remove(path);
 * ```
 */
export class FileBackend implements MappedBackend, Disposable {
  /** The file, as it was given. */
  readonly path: string;
  readonly sizeBytes: number;
  readonly limits: Limits;
  /** Where it is in memory. */
  readonly mapping: Mapping & { readonly fd: number };
  /** The page cache is the kernel's. */
  readonly cacheSurvives = true;
  readonly readOnly: boolean;
  /** Waits until the file's disk has everything; absent where the file is in memory and nowhere else. */
  readonly flush?: NonNullable<Backend["flush"]>;
  /** Makes a hole; absent where the file system has none: a discard would fill it with zeroes. */
  readonly discard?: NonNullable<Backend["discard"]>;
  readonly #lock: LateLock;
  /** The file was not there before. */
  readonly #isMade: boolean;
  readonly #flusher: Flusher;
  /** This process' memory as a file, once it was needed. */
  #memory = -1;
  #closed = false;

  private constructor(path: string, mapping: Mapping & { readonly fd: number }, traits: Traits) {
    const { readOnly, flushes, hasHoles } = traits;
    this.path = path;
    this.sizeBytes = mapping.sizeBytes;
    this.readOnly = readOnly;
    this.limits = {
      discardGranularityBytes: mapping.pageBytes ?? PAGE_BYTES,
      // Zeroes are written there: few enough of them at once to end before any timeout.
      ...(hasHoles ? {} : { maxWriteZeroesBytes: WRITTEN_ZEROES_BYTES }),
    };
    this.mapping = mapping;
    this.#isMade = traits.isMade;
    this.#lock = new LateLock(mapping.fd, { isLocked: traits.locked, readOnly });
    this.#flusher = flusherOf(mapping);
    if (flushes && !readOnly) this.flush = () => this.#flush();
    if (hasHoles) this.discard = (offsetBytes, lengthBytes) => this.#discard(offsetBytes, lengthBytes);
  }

  /**
   * Opens or makes the file (sparse) and maps it. No other process can serve it until `close()`.
   *
   * @throws {DblockError} EINVAL (the size is none, or not the file's), EBUSY (it is served already), ENOENT,
   * EACCES, EISDIR, ENOSPC, ENOMEM (it cannot be mapped; on hugetlbfs: there are not enough huge pages).
   */
  static async open(options: FileBackendOptions): Promise<FileBackend> {
    const { path, shared = false, grow = false, readOnly = false } = options;
    const attempted = `Cannot keep a disk in ${path}`;
    await using undo = new AsyncDisposableStack();
    const { file, isMade } = openOrMake(path, attempted, undo, readOnly);
    const fd = linux.open(path, readOnly ? O_RDONLY : O_RDWR);
    if (fd < 0) throw new DblockError(-fd, attempted, "it cannot be opened");
    undo.defer(() => linux.close(fd));
    const locked = await lock({ fd, file, path, attempted }, { shared, readOnly });
    // Without the lock it is somebody else's by now; with it, it is removed before it is let go.
    if (isMade && locked) undo.defer(() => Deno.removeSync(path));
    const { type, blockBytes } = fileSystemOf(fd);
    const pageBytes = type === HUGETLBFS_MAGIC ? blockBytes : PAGE_BYTES;
    const sizeBytes = fitSize(file, options.sizeBytes, { pageBytes, grow, attempted, undo });
    const address = mapFile(fd, sizeBytes, { readOnly });
    if (address === undefined) throw whyNotMapped(fd, { sizeBytes, pageBytes, readOnly, attempted });
    adviseMemory(address, sizeBytes, MADV_DONTFORK);
    undo.move();
    file.close();
    const flushFailures = new Int32Array(new SharedArrayBuffer(4));
    return new FileBackend(path, { address, sizeBytes, kind: "file", fd, pageBytes, flushFailures }, {
      readOnly,
      locked,
      isMade,
      flushes: !MEMORY_FILE_SYSTEMS.includes(type),
      hasHoles: !readOnly && hasHoles(fd, sizeBytes, pageBytes),
    });
  }

  /** No other process serves the file. False only for a `shared` one, until the other has ended. */
  get locked(): boolean {
    return this.#lock.isLocked;
  }

  /**
   * Fills `buffer` with what the file has at `offsetBytes`, by a system call: what a program that touches the mapping would
   * die of is an error here.
   *
   * @throws {DblockError} EIO and what else read(2) says.
   */
  read(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number): void {
    readAt(this.mapping.fd, buffer, offsetBytes);
  }

  /**
   * Puts `buffer` into the file at `offsetBytes`, likewise.
   *
   * @throws {DblockError} ENOSPC, EDQUOT, EIO and what else write(2) says.
   */
  write(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number): void {
    if (this.readOnly) throw new DblockError("EROFS", `Cannot write to ${this.path}`, "the disk is read-only");
    const { fd, address, pageBytes = PAGE_BYTES } = this.mapping;
    if (pageBytes === PAGE_BYTES) return writeAt(fd, buffer, offsetBytes);
    // A file on hugetlbfs cannot be written; this writes to its mapping, and fails where a program would die. Behind the
    // mapping is memory of this program.
    if (!(offsetBytes >= 0 && offsetBytes + buffer.length <= this.sizeBytes)) {
      throw new DblockError("ENOSPC", `Cannot write ${buffer.length} bytes at ${offsetBytes}`, "the disk ends before");
    }
    if (this.#memory < 0) this.#memory = linux.open("/proc/self/mem", O_RDWR);
    writeAt(this.#memory, buffer, address + offsetBytes);
  }

  #discard(offsetBytes: number, lengthBytes: number): void {
    this.#requireRoom(discardMapped(this.mapping, offsetBytes, lengthBytes));
  }

  /** Makes a hole, or zeroes that have their space. */
  writeZeroes(
    offsetBytes: number,
    lengthBytes: number,
    { keepAllocated }: Pick<RequestOptions, "keepAllocated"> = { keepAllocated: false },
  ): void {
    this.#requireRoom(zeroMapped(this.mapping, offsetBytes, lengthBytes, { keepAllocated }));
  }

  /** Data and holes, as the file system knows them. */
  extents(offsetBytes: number, lengthBytes: number): readonly Extent[] {
    return extentsOf(this.mapping.fd, offsetBytes, lengthBytes, BLOCK_BYTES_MIN);
  }

  #requireRoom(isDone: boolean): void {
    if (!isDone) throw new DblockError("ENOSPC", `Cannot zero a range of ${this.path}`, "its file system is full");
  }

  #flush(): void {
    if (!this.#flusher.flush()) throw new DblockError("EIO", `Cannot flush ${this.path}`, "its disk has failed");
  }

  /** Lets go of the file, and keeps the memory: a thread may still be in the kernel with it. */
  abandon(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#lock.cancel();
    unlockFile(this.mapping.fd); // the mapping would keep the lock
    linux.close(this.mapping.fd);
  }

  /** {@linkcode close}, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Lets go of the file, which stays. Nothing may serve it any more. A file that `open()` has made is removed if the disk was
   * never used (`reason` "unused").
   */
  close(reason?: CloseReason): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#lock.cancel();
    // Only if it is ours: another server may have waited for it.
    if (reason === "unused" && this.#isMade && this.locked) removeUnused({ fd: this.mapping.fd, path: this.path });
    unmapMemory(this.mapping.address, this.mapping.sizeBytes);
    linux.close(this.mapping.fd);
    if (this.#memory >= 0) linux.close(this.#memory);
  }
}

/** What a file is like. */
interface Traits {
  readonly readOnly: boolean;
  readonly locked: boolean;
  /** It was not there before. */
  readonly isMade: boolean;
  /** It has a disk. */
  readonly flushes: boolean;
  readonly hasHoles: boolean;
}

interface OpenFile {
  readonly file: Deno.FsFile;
  readonly isMade: boolean;
}

function openOrMake(path: string, attempted: string, undo: AsyncDisposableStack, readOnly: boolean): OpenFile {
  try {
    const opened = readOnly ? { file: Deno.openSync(path), isMade: false } : openFile(path);
    undo.defer(() => opened.file.close());
    if (!opened.file.statSync().isFile) throw new DblockError("EINVAL", attempted, "it is not a regular file");
    return opened;
  } catch (error) {
    throw explain(error, attempted, readOnly);
  }
}

function openFile(path: string): OpenFile {
  try {
    return { file: Deno.openSync(path, { read: true, write: true }), isMade: false };
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return { file: Deno.openSync(path, { read: true, write: true, createNew: true, mode: 0o600 }), isMade: true };
}

function explain(error: unknown, attempted: string, readOnly = false): unknown {
  if (!(error instanceof Error) || error instanceof DblockError) return error;
  const wrong = error instanceof Deno.errors.NotFound
    ? readOnly ? "there is no such file" : "there is no such folder"
    : error instanceof Deno.errors.PermissionDenied
    ? `it may not be read${readOnly ? "" : " and written"}`
    : error.message;
  return new DblockError(errnoOf(error) ?? ERRNO.EIO, attempted, wrong, { cause: error });
}

/** One page of it can be mapped where all of it is too much, and not where its file system maps nothing. */
function whyNotMapped(
  fd: number,
  options: {
    readonly sizeBytes: number;
    readonly pageBytes: number;
    readonly readOnly: boolean;
    readonly attempted: string;
  },
): DblockError {
  const { sizeBytes, pageBytes, attempted } = options;
  const page = pageBytes === PAGE_BYTES ? mapFile(fd, pageBytes, options) : 0;
  if (page === undefined) {
    const hint = "take a file on another file system";
    return new DblockError("ENODEV", attempted, "its file system cannot map files", { hint });
  }
  if (page > 0) unmapMemory(page, pageBytes);
  return new DblockError("ENOMEM", attempted, `${sizeBytes} bytes of it cannot be mapped`, {
    hint: pageBytes > PAGE_BYTES ? "see HugePages_Free in /proc/meminfo" : "see ulimit -v",
  });
}

/** The disk's size; an empty file, or one that may grow, is made so long. */
function fitSize(
  file: Deno.FsFile,
  wanted: number | undefined,
  options: {
    readonly pageBytes: number;
    readonly grow: boolean;
    readonly attempted: string;
    readonly undo: AsyncDisposableStack;
  },
): number {
  const { pageBytes, grow, attempted, undo } = options;
  const { size } = file.statSync();
  const sizeBytes = wanted ?? size;
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % pageBytes !== 0) {
    const wrong = `a disk's size is a positive multiple of ${pageBytes} there, not ${sizeBytes}`;
    throw new DblockError("EINVAL", attempted, wrong);
  }
  if (size === 0 || grow && size < sizeBytes) {
    try {
      file.truncateSync(sizeBytes);
      undo.defer(() => file.truncateSync(size));
    } catch (error) {
      throw explain(error, attempted);
    }
  } else if (size !== sizeBytes) {
    throw new DblockError("EINVAL", attempted, `it has ${size} bytes, not ${sizeBytes}`, {
      hint: size < sizeBytes ? "let it grow, give no size, or take another file" : "give no size, or take another file",
    });
  }
  return sizeBytes;
}
