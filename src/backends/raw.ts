// SPDX-License-Identifier: MIT
/**
 * A disk in a plain file or on a block device, read and written by system calls: an image, a logical volume, a whole disk.
 * Where a file can be mapped and the disk is to be as fast as memory, `FileBackend` is the one to take.
 */
import type { Backend, CloseReason, Extent, Limits, RequestOptions } from "../disk/backend.ts";
import { DblockError } from "../disk/errors.ts";
import { BLOCK_BYTES_MIN } from "../disk/limits.ts";
import { type ContentFile, putContentFile } from "../disk/content_file.ts";
import type { BackendModule } from "../disk/servable.ts";
import { ASYNC, NOT_TAKEN } from "../system/aio.ts";
import { AsyncIo } from "../system/async_io.ts";
import { type Direction, extentsOf, Flusher, readAt, readCached, syncFile, writeAt } from "../system/file.ts";
import { punchHoleLater, readAtLater, syncFileLater, writeAtLater, zeroRangeLater } from "../system/file_later.ts";
import { linux, punchHole, zeroRange } from "../system/libc.ts";
import { addressOf } from "../system/memory.ts";
import { LateLock, removeUnused } from "./lock.ts";
import { openStore } from "./raw_store.ts";

/** Zeroes that have to be written are written so many at a time. */
const ZEROES_BYTES = 2 ** 20;

/** Options of `RawBackend.open()`. */
export interface RawBackendOptions {
  /** A regular file or a block device: /var/lib/disk.img, /dev/vg0/root. */
  readonly path: string;
  /**
   * A multiple of 512 (of the device's blocks, on a device or with `direct`). A file that is not there is made, sparse, if
   * this is given; its space comes as it is written. @default the size that it has
   */
  readonly sizeBytes?: number;
  /** Make a file that is shorter than `sizeBytes` as long. @default false */
  readonly grow?: boolean;
  /** Open it for reading alone. Other read-only disks of the same file may be there. @default false */
  readonly readOnly?: boolean;
  /**
   * Go around the page cache (O_DIRECT): what is answered is on its way to the store, and no memory is spent on it.
   * @default false
   */
  readonly direct?: boolean;
  /** Do not insist that nobody else serves it: for a take-over, see `locked`. @default false */
  readonly shared?: boolean;
}

/** An open file, as a Worker of the same process can use it. */
export interface RawData {
  /** The file or the device, as it was given. */
  readonly path: string;
  /** Its descriptor. */
  readonly fd: number;
  /** The size of the disk, in bytes, as all who have it see it: it may change. */
  readonly size: Float64Array<SharedArrayBuffer>;
  /** Nothing may be changed. */
  readonly readOnly: boolean;
  /** It is open with O_DIRECT. */
  readonly direct: boolean;
  /** It is a regular file, not a block device. */
  readonly isFile: boolean;
  /** A range of it can be given back. */
  readonly hasHoles: boolean;
  /** What the disk is like. */
  readonly limits: Limits;
  /** How often a flush has failed, so that each Worker reports it. */
  readonly flushFailures: Int32Array<SharedArrayBuffer>;
}

/**
 * A disk in a file or on a block device. Reads and writes are `pread`(2) and `pwrite`(2), `flush` is `fdatasync`(2).
 *
 * With `direct`, dblock.ko reads and writes the file by itself if nothing is in front of the disk; else the kernel does what it is
 * asked for (io_submit(2)), as many requests at once as there are. Without it, each call waits for the page cache: served by
 * Workers, each thread does its own, which is the fast way:
 *
 * ```ts no-run
 * import { RawBackend, serve } from "../mod.ts";
 *
 * using disk = await RawBackend.open({ path: "/var/lib/disk.img", sizeBytes: 10 * 2 ** 30 });
 * await using device = await serve(disk.workers(), { name: "image" });
 * await device.closed;
 * ```
 *
 * A filter, a set, or NBD takes the object itself. What the page cache has is read at once; what has to be waited for is on other
 * threads, up to 16 calls at a time, so that the program goes on:
 *
 * ```ts
 * import { RawBackend } from "./raw.ts";
 *
 * const path = await Deno.makeTempFile();
 * const disk = await RawBackend.open({ path, sizeBytes: 64 * 2 ** 20 });
 * await disk.write(new Uint8Array(512).fill(1), 4096);
 * console.assert(disk.extents(0, 8192)[0]?.kind === "hole");
 * await disk.close();
 * await Deno.remove(path);
 * ```
 */
export class RawBackend implements Backend, Disposable, AsyncDisposable {
  /** The file or the device, as it was given. */
  readonly path: string;
  /** What the store is like: the block sizes of the device that it is on. */
  readonly limits: Limits;
  /** Whether everything that would change the disk is refused. */
  readonly readOnly: boolean;
  /** The page cache is the kernel's. */
  readonly cacheSurvives = true;
  /** Makes a hole; absent where the file system has none. */
  readonly discard?: NonNullable<Backend["discard"]>;
  /** Makes a file longer or shorter; absent for a block device. */
  readonly resize?: NonNullable<Backend["resize"]>;
  readonly #data: RawData;
  /** Each call is waited for here: it is the thread's only work. */
  readonly #isWorker: boolean;
  readonly #flusher: Flusher;
  readonly #lock: LateLock | undefined;
  /** Where the kernel does it by itself: with O_DIRECT, outside of Workers. */
  readonly #io: AsyncIo | undefined;
  /** The file was not there before. */
  readonly #isMade: boolean;
  #zeroes: Uint8Array<ArrayBuffer> | undefined;
  /** Calls that other threads are at. */
  readonly #calls = new Set<Promise<unknown>>();
  #closed: Promise<void> | true | undefined;

  private constructor(data: RawData, lock: LateLock | undefined, isMade: boolean) {
    this.#data = data;
    this.#isMade = isMade;
    this.#isWorker = lock === undefined;
    this.#lock = lock;
    this.#io = data.direct && !this.#isWorker ? AsyncIo.open() : undefined;
    this.#flusher = new Flusher(() => syncFile(data.fd), data.flushFailures);
    this.path = data.path;
    this.limits = data.limits;
    this.readOnly = data.readOnly;
    if (data.direct) putContentFile(this, this.#contentFile());
    if (data.readOnly) return;
    if (data.hasHoles) this.discard = (offsetBytes, lengthBytes) => this.#discard(offsetBytes, lengthBytes);
    if (data.isFile && !this.#isWorker) this.resize = (sizeBytes) => this.#resize(sizeBytes);
  }

  /**
   * Opens a file or a block device, or makes a file. Nobody else can serve it, or mount it, until `close()`.
   *
   * @throws {DblockError} EINVAL (the size is none, or not the file's; it is neither file nor device; no O_DIRECT), EBUSY
   * (it is served or mounted already), ENOENT, EACCES, ENOSPC, ENOLCK and EOPNOTSUPP (its file system cannot lock files).
   */
  static async open(options: RawBackendOptions): Promise<RawBackend> {
    const { data, isLocked, isMade } = await openStore(options);
    return new RawBackend(
      data,
      new LateLock(data.fd, { isLocked, readOnly: data.readOnly, isDevice: !data.isFile }),
      isMade,
    );
  }

  /** The disk of {@linkcode workers}, in a Worker. Its file is the main program's to close. */
  static inWorker(data: RawData): RawBackend {
    return new RawBackend(data, undefined, false);
  }

  /**
   * The same disk, to be served by one Worker a queue. The Workers use this object's open file, so it has to stay open until
   * the device has ended; it is not closed by `serve()` then.
   */
  workers(): BackendModule<RawData> {
    return { module: new URL("./raw_worker.ts", import.meta.url), data: this.#data };
  }

  /** Nobody else serves it. False only for a `shared` one, until the other has ended. */
  get locked(): boolean {
    return this.#lock?.isLocked ?? true;
  }

  /** The size of the disk, as it is now. */
  get sizeBytes(): number {
    return this.#data.size[0]!;
  }

  /**
   * Fills `buffer` with what is at `offsetBytes`.
   *
   * @throws {DblockError} EIO and what else read(2) says.
   */
  read(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number): void | Promise<void> {
    const { fd, direct } = this.#data;
    const aligned = this.#aligned(buffer);
    const isCopy = aligned !== buffer;
    if (this.#isWorker) {
      readAt(fd, aligned, offsetBytes);
      return isCopy ? buffer.set(aligned) : undefined;
    }
    if (!direct && this.#closed === undefined && readCached(fd, buffer, offsetBytes)) return;
    const done = this.#io === undefined
      ? this.#call(() => readAtLater(fd, aligned, offsetBytes))
      : this.#asynchronously(this.#io, "read", aligned, offsetBytes);
    return isCopy ? done.then(() => buffer.set(aligned)) : done;
  }

  /**
   * Puts `buffer` at `offsetBytes`.
   *
   * @throws {DblockError} EROFS, ENOSPC, EDQUOT, EIO and what else write(2) says.
   */
  write(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number): void | Promise<void> {
    if (this.readOnly) throw new DblockError("EROFS", `Cannot write to ${this.path}`, "the disk is read-only");
    const { fd } = this.#data;
    const aligned = this.#aligned(buffer);
    if (aligned !== buffer) aligned.set(buffer);
    if (this.#isWorker) return writeAt(fd, aligned, offsetBytes);
    if (this.#io !== undefined) return this.#asynchronously(this.#io, "write", aligned, offsetBytes);
    return this.#call(() => writeAtLater(fd, aligned, offsetBytes));
  }

  /** What the kernel does not take, or does a part of, is done by a thread, as a whole. */
  #asynchronously(io: AsyncIo, what: Direction, bytes: Uint8Array<ArrayBuffer>, offsetBytes: number): Promise<void> {
    if (this.#closed !== undefined) return Promise.reject(this.#closedError());
    const { fd } = this.#data;
    return io.call(ASYNC[what], fd, bytes, offsetBytes).then((result) => {
      if (result === bytes.length) return;
      if (result < 0 && result !== NOT_TAKEN) {
        throw new DblockError(-result, `Cannot ${what} ${bytes.length} bytes at ${offsetBytes} of ${this.path}`);
      }
      const later = what === "read" ? readAtLater : writeAtLater;
      return this.#call(() => later(fd, bytes, offsetBytes));
    });
  }

  #contentFile(): ContentFile {
    const { fd, size } = this.#data;
    return {
      fd,
      module: this.#isWorker ? undefined : this.workers(),
      get sizeBytes() {
        return size[0]!;
      },
    };
  }

  /** O_DIRECT wants memory at a multiple of the device's block: the buffer if it is, else other memory as long. */
  #aligned(buffer: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
    const { direct, limits: { blockBytes = BLOCK_BYTES_MIN } } = this.#data;
    if (!direct || addressOf(buffer) % blockBytes === 0) return buffer;
    const memory = new Uint8Array(new ArrayBuffer(buffer.length + blockBytes));
    const start = blockBytes - addressOf(memory) % blockBytes;
    return memory.subarray(start, start + buffer.length);
  }

  /**
   * Waits until the store has everything.
   *
   * @throws {DblockError} EIO: the store has failed; every Worker is told of it once.
   */
  flush(): void | Promise<void> {
    if (this.#isWorker) return this.#requireFlushed(this.#flusher.flush());
    return this.#sync().then((isGood) => this.#requireFlushed(this.#flusher.judge(isGood)));
  }

  async #sync(): Promise<boolean> {
    const { fd } = this.#data;
    if (this.#io !== undefined && this.#closed === undefined) {
      const result = await this.#io.call(ASYNC.fdatasync, fd, undefined, 0);
      if (result !== NOT_TAKEN) return result === 0;
    }
    return await this.#call(() => syncFileLater(fd));
  }

  #requireFlushed(isGood: boolean): void {
    if (!isGood) throw new DblockError("EIO", `Cannot flush ${this.path}`, "its store has failed");
  }

  /** Whether there is a hole or not, the content is nobody's any more. */
  #discard(offsetBytes: number, lengthBytes: number): void | Promise<void> {
    const { fd } = this.#data;
    if (this.#isWorker) return void punchHole(fd, offsetBytes, lengthBytes);
    return this.#call(() => punchHoleLater(fd, offsetBytes, lengthBytes)).then(() => {});
  }

  /** Zeroes a range: by a hole, by what the file system has for it, or by writing them. */
  writeZeroes(
    offsetBytes: number,
    lengthBytes: number,
    { keepAllocated }: Pick<RequestOptions, "keepAllocated"> = { keepAllocated: false },
  ): void | Promise<void> {
    const { fd, hasHoles } = this.#data;
    if (!this.#isWorker) return this.#zeroLater(offsetBytes, lengthBytes, { keepAllocated });
    if (hasHoles && !keepAllocated && punchHole(fd, offsetBytes, lengthBytes)) return;
    if (zeroRange(fd, offsetBytes, lengthBytes)) return;
    for (const [at, zeroes] of this.#zeroesFor(offsetBytes, lengthBytes)) writeAt(fd, zeroes, at);
  }

  async #zeroLater(
    offsetBytes: number,
    lengthBytes: number,
    { keepAllocated }: Pick<RequestOptions, "keepAllocated">,
  ): Promise<void> {
    const { fd, hasHoles } = this.#data;
    if (hasHoles && !keepAllocated && await this.#call(() => punchHoleLater(fd, offsetBytes, lengthBytes))) return;
    if (await this.#call(() => zeroRangeLater(fd, offsetBytes, lengthBytes))) return;
    for (const [at, zeroes] of this.#zeroesFor(offsetBytes, lengthBytes)) {
      await this.#call(() => writeAtLater(fd, zeroes, at));
    }
  }

  *#zeroesFor(offsetBytes: number, lengthBytes: number): Generator<[at: number, zeroes: Uint8Array<ArrayBuffer>]> {
    const zeroes = this.#zeroes ??= this.#aligned(new Uint8Array(ZEROES_BYTES));
    for (let done = 0; done < lengthBytes; done += ZEROES_BYTES) {
      yield [offsetBytes + done, zeroes.subarray(0, Math.min(ZEROES_BYTES, lengthBytes - done))];
    }
  }

  /** Data and holes, as the file system knows them; a block device is all data. */
  extents(offsetBytes: number, lengthBytes: number): readonly Extent[] {
    const { fd, isFile, limits } = this.#data;
    if (!isFile) return [{ lengthBytes, kind: "data" }];
    return extentsOf(fd, offsetBytes, lengthBytes, limits.blockBytes ?? BLOCK_BYTES_MIN);
  }

  #resize(sizeBytes: number): void {
    using file = Deno.openSync(`/proc/self/fd/${this.#data.fd}`, { write: true });
    file.truncateSync(sizeBytes);
    this.#data.size[0] = sizeBytes;
  }

  /** A call on another thread. None begins once the file is closed, and it is closed when all have ended. */
  #call<T>(call: () => Promise<T>): Promise<T> {
    if (this.#closed !== undefined) return Promise.reject(this.#closedError());
    const done = call();
    this.#calls.add(done);
    const forget = () => void this.#calls.delete(done);
    done.then(forget, forget);
    return done;
  }

  #closedError(): DblockError {
    return new DblockError("EBADF", `Cannot use ${this.path}`, "the disk is closed");
  }

  /** {@linkcode close}, for `using`. */
  [Symbol.dispose](): void {
    void this.close();
  }

  /** {@linkcode close}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /**
   * Lets go of the file or device, which stays. Nothing may serve it any more. A file that `open()` has made is removed if
   * the disk was never used (`reason` "unused").
   *
   * @returns a promise if calls are still under way: others can serve it when it resolves.
   */
  close(reason?: CloseReason): void | Promise<void> {
    if (this.#closed !== undefined) return this.#closed === true ? undefined : this.#closed;
    this.#lock?.cancel();
    // Only if it is ours: another server may have waited for it.
    if (reason === "unused" && this.#isMade && this.locked) removeUnused(this.#data);
    if (this.#calls.size === 0 && !this.#io?.isBusy) {
      this.#closed = true;
      this.#closeFile();
    } else {
      this.#closed = Promise.allSettled([...this.#calls, this.#io?.idle()]).then(() => this.#closeFile());
    }
    return this.#closed === true ? undefined : this.#closed;
  }

  #closeFile(): void {
    this.#io?.close();
    if (this.#isWorker) return; // the file is the main program's
    this.#lock?.release();
    linux.close(this.#data.fd);
  }
}
