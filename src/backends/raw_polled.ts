// SPDX-License-Identifier: MIT
/** A raw disk with O_DIRECT as the thread that waits for its answers sees it (disk/late.ts). */
import type { Backend, Completed, Limits, RequestOptions } from "../disk/backend.ts";
import { DblockError, ERRNO } from "../disk/errors.ts";
import { ASYNC } from "../system/aio.ts";
import type { Flusher } from "../system/file.ts";
import { readAtLater, syncFileLater, writeAtLater } from "../system/file_later.ts";
import { type CallOwner, PolledIo } from "../system/polled_io.ts";
import type { RawBackend, RawData } from "./raw.ts";

/** What such a disk needs of the other one. */
export interface PolledRawOptions {
  readonly data: RawData;
  readonly flusher: Flusher;
  /** A call on another thread, which `close()` waits for. */
  readonly later: <T>(call: () => Promise<T>) => Promise<T>;
  /** Memory that O_DIRECT takes: the buffer, or other memory as long. */
  readonly aligned: (buffer: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>;
}

/** Reads, writes and flushes are the kernel's; everything else is done by the disk itself. */
export class PolledRaw implements Backend, CallOwner {
  readonly limits: Limits;
  readonly readOnly: boolean;
  readonly #disk: RawBackend;
  readonly #options: PolledRawOptions;
  /** Undefined where the kernel has none for this program. */
  readonly io: PolledIo | undefined;
  readonly #fd: number;

  constructor(disk: RawBackend, options: PolledRawOptions) {
    this.#disk = disk;
    this.#options = options;
    this.#fd = options.data.fd;
    this.limits = disk.limits;
    this.readOnly = disk.readOnly;
    this.io = PolledIo.open(this);
  }

  get sizeBytes(): number {
    return this.#disk.sizeBytes;
  }

  read(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number): void | Promise<void> {
    const late = this.#options.aligned(buffer) === buffer
      ? this.io?.call(ASYNC.read, this.#fd, buffer, offsetBytes)
      : undefined;
    return late === undefined ? this.#disk.read(buffer, offsetBytes) : late.asPromise();
  }

  write(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number): void | Promise<void> {
    const late = !this.readOnly && this.#options.aligned(buffer) === buffer
      ? this.io?.call(ASYNC.write, this.#fd, buffer, offsetBytes)
      : undefined;
    return late === undefined ? this.#disk.write(buffer, offsetBytes) : late.asPromise();
  }

  flush(): void | Promise<void> {
    const late = this.io?.call(ASYNC.fdatasync, this.#fd, undefined, 0);
    return late === undefined ? this.#disk.flush() : late.asPromise();
  }

  judge(opcode: number, result: number, bytes: Uint8Array | undefined, offsetBytes: number): void {
    const { path } = this.#options.data;
    if (opcode === ASYNC.fdatasync) {
      if (this.#options.flusher.judge(result === 0)) return;
      throw new DblockError("EIO", `Cannot flush ${path}`, "its store has failed");
    }
    if (result >= 0) return;
    const what = opcode === ASYNC.read ? "read" : "write";
    throw new DblockError(-result, `Cannot ${what} ${bytes?.length} bytes at ${offsetBytes} of ${path}`);
  }

  otherwise(opcode: number, bytes: Uint8Array<ArrayBuffer> | undefined, offsetBytes: number): Promise<void> {
    return this.#options.later(async () => {
      if (bytes === undefined) return this.judge(opcode, await syncFileLater(this.#fd) ? 0 : -ERRNO.EIO, bytes, 0);
      return await (opcode === ASYNC.read ? readAtLater : writeAtLater)(this.#fd, bytes, offsetBytes);
    });
  }

  discard(offsetBytes: number, lengthBytes: number, options: RequestOptions): Completed | Promise<Completed> {
    return this.#disk.discard?.(offsetBytes, lengthBytes, options);
  }

  writeZeroes(offsetBytes: number, lengthBytes: number, options: RequestOptions): void | Promise<void> {
    return this.#disk.writeZeroes(offsetBytes, lengthBytes, options);
  }
}
