// SPDX-License-Identifier: MIT
/** A disk in memory: one sparse anonymous mapping that the kernel copies from and to. */
import { DBLOCK_SIZE_BYTES_MAX } from "../module/abi.ts";
import type { MappedBackend, Mapping } from "../disk/backend.ts";
import { DblockError } from "../disk/errors.ts";
import { adviseMemory, MADV_DONTFORK, MADV_HUGEPAGE, mapMemory, PAGE_BYTES, unmapMemory } from "../system/libc.ts";

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
 * console.assert(disk.mapping.sizeBytes === 67108864);
 * disk.close();
 * ```
 */
export class MemoryBackend implements MappedBackend {
  readonly mapping: Mapping;
  #closed = false;

  /**
   * @throws {RangeError} if the size is not a positive multiple of 4096.
   * @throws {DblockError} ENOMEM if the address space has no room for it.
   */
  constructor(options: MemoryBackendOptions) {
    const { sizeBytes, hugePages = false } = options;
    if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % PAGE_BYTES !== 0) {
      throw new RangeError(`a disk's size is a positive multiple of ${PAGE_BYTES}, not ${sizeBytes}`);
    }
    const address = sizeBytes > DBLOCK_SIZE_BYTES_MAX ? undefined : mapMemory(sizeBytes);
    if (address === undefined) {
      throw new DblockError("ENOMEM", `Cannot map ${sizeBytes} bytes`, "there is no room for them", {
        hint: "take a smaller size, or see ulimit -v and sysctl vm.overcommit_memory",
      });
    }
    // A child could keep every page alive, or make the first write after fork() copy it.
    adviseMemory(address, sizeBytes, MADV_DONTFORK);
    if (hugePages) adviseMemory(address, sizeBytes, MADV_HUGEPAGE);
    this.mapping = { address, sizeBytes, kind: "anonymous" };
  }

  /** Gives the memory back. Nothing may serve it any more. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    unmapMemory(this.mapping.address, this.mapping.sizeBytes);
  }
}
