// SPDX-License-Identifier: MIT
/** A disk in memory: one sparse anonymous mapping that the kernel copies from and to. */
import type { RequestOptions } from "../disk/backend.ts";
import { DblockError } from "../disk/errors.ts";
import { SIZE_BYTES_MAX } from "../disk/limits.ts";
import type { MappedBackend, Mapping } from "../disk/servable.ts";
import { adviseMemory, MADV_DONTFORK, MADV_HUGEPAGE, mapMemory, PAGE_BYTES, unmapMemory } from "../system/pages.ts";
import { discardMapped, zeroMapped } from "../system/mapping.ts";
import { copyFromMemory, copyToMemory } from "../system/memory.ts";

/** Read from a file at once by `load()`. */
const LOAD_BYTES = 65_536;

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
export class MemoryBackend implements MappedBackend, Disposable {
  readonly sizeBytes: number;
  /** Where the memory is. */
  readonly mapping: Mapping;
  readonly #isOwner: boolean;
  #closed = false;
  /** What `bytes()` has given out. */
  readonly #windows: ArrayBuffer[] = [];

  /**
   * Takes the addresses of the disk; memory comes as it is written. Or, of another one's `mapping`, the same disk seen from
   * another Worker: what the Workers of a `BackendModule` share, and V8 copies it up to three times as fast as a
   * SharedArrayBuffer. Its `close()` leaves the memory to the first one, which has to be there for as long.
   *
   * @param options how large, or what is shared
   * @throws {RangeError} if the size is not a positive multiple of 4096, or the mapping one of a file.
   * @throws {DblockError} ENOMEM if the address space has no room for it.
   */
  constructor(options: MemoryBackendOptions | Mapping) {
    const { sizeBytes } = options;
    if (!(sizeBytes > 0 && sizeBytes <= SIZE_BYTES_MAX) || sizeBytes % PAGE_BYTES !== 0) {
      throw new RangeError(`a disk's size is a positive multiple of ${PAGE_BYTES}, not ${sizeBytes}`);
    }
    this.sizeBytes = sizeBytes;
    this.#isOwner = !("address" in options);
    if ("address" in options) {
      if (options.kind !== "anonymous") {
        throw new RangeError("a MemoryBackend shares memory, not the mapping of a file");
      }
      this.mapping = options;
      return;
    }
    const address = mapMemory(sizeBytes);
    if (address === undefined) {
      throw new DblockError("ENOMEM", `Cannot map ${sizeBytes} bytes`, "there is no room for them", {
        hint: "take a smaller size, or see ulimit -v and sysctl vm.overcommit_memory",
      });
    }
    // A child could keep every page alive, or make the first write after fork() copy it.
    adviseMemory(address, sizeBytes, MADV_DONTFORK);
    if (options.hugePages === true) adviseMemory(address, sizeBytes, MADV_HUGEPAGE);
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

  /**
   * The memory of a range itself: what is written there is on the disk, also while it is served. After `close()` the array
   * is empty.
   *
   * @param lengthBytes up to the end, if nothing is said
   * @throws {RangeError} if the range is not inside the disk, the disk is closed, or an array cannot be so long.
   */
  bytes(offsetBytes = 0, lengthBytes: number = this.sizeBytes - offsetBytes): Uint8Array<ArrayBuffer> {
    const pointer = Deno.UnsafePointer.create(BigInt(this.#addressOf(offsetBytes, lengthBytes)));
    if (pointer === null || lengthBytes === 0) return new Uint8Array(0);
    const buffer = Deno.UnsafePointerView.getArrayBuffer(pointer, lengthBytes);
    this.#windows.push(buffer);
    return new Uint8Array(buffer);
  }

  /**
   * Fills the disk with what a file has, from `offsetBytes` on. Zeroes of the file take no memory.
   *
   * @returns how many bytes the file has
   * @throws {RangeError} if the file is longer than the disk; what fits is there then.
   * @throws what `Deno.open()` throws.
   */
  async load(path: string | URL, offsetBytes = 0): Promise<number> {
    using file = await Deno.open(path);
    const buffer = new Uint8Array(LOAD_BYTES);
    let at = offsetBytes;
    for (;;) {
      const count = await file.read(buffer);
      if (count === null) return at - offsetBytes;
      const bytes = buffer.subarray(0, count);
      if (bytes.some((byte) => byte !== 0)) this.write(bytes, at);
      else this.writeZeroes(at, count);
      at += count;
    }
  }

  #addressOf(offsetBytes: number, lengthBytes: number): number {
    if (this.#closed) throw new RangeError("the disk is closed, and its memory given back");
    if (!(offsetBytes >= 0 && lengthBytes >= 0 && offsetBytes + lengthBytes <= this.sizeBytes)) {
      throw new RangeError(`${lengthBytes} bytes at ${offsetBytes} are not inside a disk of ${this.sizeBytes} bytes`);
    }
    return this.mapping.address + offsetBytes;
  }

  /** {@linkcode close}, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Gives the memory back, if it is its own. Nothing may serve it any more. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    // An array that leads to memory which is given back would be a trap: these lead to nothing.
    for (const buffer of this.#windows) buffer.transfer();
    if (this.#isOwner) unmapMemory(this.mapping.address, this.mapping.sizeBytes);
  }
}
