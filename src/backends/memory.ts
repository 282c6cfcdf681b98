// SPDX-License-Identifier: MIT
/** A disk in memory: one sparse anonymous mapping that the kernel copies from and to. */
import type { RequestOptions } from "../disk/backend.ts";
import { DblockError } from "../disk/errors.ts";
import { SIZE_BYTES_MAX } from "../disk/limits.ts";
import type { MappedBackend, Mapping } from "../disk/servable.ts";
import { adviseMemory, MADV_DONTFORK, MADV_HUGEPAGE, mapMemory, PAGE_BYTES, unmapMemory } from "../system/libc.ts";
import { discardMapped, zeroMapped } from "../system/mapping.ts";
import { copyFromMemory, copyToMemory } from "../system/memory.ts";

/** Options of a `MemoryBackend`. */
export interface MemoryBackendOptions {
  /** A multiple of 4096, at least that. Pages take memory when they are first written. */
  readonly sizeBytes: number;
  /** Ask for huge pages: faster, but the first write to 2 MiB takes all of them. @default false */
  readonly hugePages?: boolean;
}

/**
 * A ramdisk. Untouched and discarded parts take no memory and read as zeroes; `close()` gives back the rest, which
 * `serve()` calls when the device has ended.
 *
 * ```ts
 * import { MemoryBackend } from "./memory.ts";
 *
 * const disk = new MemoryBackend({ sizeBytes: 64 * 2 ** 20 });
 * disk.write(new TextEncoder().encode("hello"), 4096);
 * console.assert(disk.mapping.sizeBytes === 67108864);
 * disk.close();
 * ```
 */
export class MemoryBackend implements MappedBackend {
  readonly sizeBytes: number;
  /** Where the memory is. */
  readonly mapping: Mapping;
  #closed = false;

  /**
   * Takes the addresses of the disk; memory comes as it is written.
   *
   * @param options how large
   * @throws {RangeError} if the size is not a positive multiple of 4096.
   * @throws {DblockError} ENOMEM if the address space has no room for it.
   */
  constructor(options: MemoryBackendOptions) {
    const { sizeBytes, hugePages = false } = options;
    if (!(sizeBytes > 0 && sizeBytes <= SIZE_BYTES_MAX) || sizeBytes % PAGE_BYTES !== 0) {
      throw new RangeError(`a disk's size is a positive multiple of ${PAGE_BYTES}, not ${sizeBytes}`);
    }
    const address = mapMemory(sizeBytes);
    if (address === undefined) {
      throw new DblockError("ENOMEM", `Cannot map ${sizeBytes} bytes`, "there is no room for them", {
        hint: "take a smaller size, or see ulimit -v and sysctl vm.overcommit_memory",
      });
    }
    // A child could keep every page alive, or make the first write after fork() copy it.
    adviseMemory(address, sizeBytes, MADV_DONTFORK);
    if (hugePages) adviseMemory(address, sizeBytes, MADV_HUGEPAGE);
    this.sizeBytes = sizeBytes;
    this.mapping = { address, sizeBytes, kind: "anonymous" };
  }

  /**
   * Fills `buffer` with what is at `offsetBytes`: any offset and length inside the disk.
   *
   * @throws {RangeError} if the range is not inside the disk, or the disk is closed.
   */
  read(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number): void {
    copyFromMemory(buffer, this.#addressOf(offsetBytes, buffer.length));
  }

  /** Puts `buffer` at `offsetBytes`, likewise. */
  write(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number): void {
    copyToMemory(this.#addressOf(offsetBytes, buffer.length), buffer);
  }

  /** Gives the memory of a range back; it reads as zeroes afterwards. */
  discard(offsetBytes: number, lengthBytes: number): void {
    this.#addressOf(offsetBytes, lengthBytes);
    discardMapped(this.mapping, offsetBytes, lengthBytes);
  }

  /** Makes a range read as zeroes. */
  writeZeroes(
    offsetBytes: number,
    lengthBytes: number,
    { keepAllocated }: Pick<RequestOptions, "keepAllocated"> = { keepAllocated: false },
  ): void {
    this.#addressOf(offsetBytes, lengthBytes);
    zeroMapped(this.mapping, offsetBytes, lengthBytes, { keepAllocated });
  }

  #addressOf(offsetBytes: number, lengthBytes: number): number {
    if (this.#closed) throw new RangeError("the disk is closed, and its memory given back");
    if (!(offsetBytes >= 0 && lengthBytes >= 0 && offsetBytes + lengthBytes <= this.sizeBytes)) {
      throw new RangeError(`${lengthBytes} bytes at ${offsetBytes} are not inside a disk of ${this.sizeBytes} bytes`);
    }
    return this.mapping.address + offsetBytes;
  }

  /** Gives the memory back. Nothing may serve it any more. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    unmapMemory(this.mapping.address, this.mapping.sizeBytes);
  }
}
