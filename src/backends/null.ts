// SPDX-License-Identifier: MIT
/** A disk of any size that keeps nothing: to measure everything but the disk, and to try what a very large disk does. */
import type { Backend, Extent } from "../disk/backend.ts";
import { BLOCK_BYTES_MIN, SIZE_BYTES_MAX, whyOutside } from "../disk/limits.ts";

/** Options of a `NullBackend`. */
export interface NullBackendOptions {
  /** A multiple of 512, up to 2^53 - 512. It takes no memory. */
  readonly sizeBytes: number;
}

/**
 * Reads zeroes; forgets what is written.
 *
 * ```ts
 * import { NullBackend } from "./null.ts";
 *
 * const disk = new NullBackend({ sizeBytes: 2 ** 50 });
 * const buffer = new Uint8Array(512).fill(1);
 * disk.read(buffer);
 * console.assert(buffer[0] === 0);
 * ```
 */
export class NullBackend implements Backend {
  /** There is nothing that could be lost. */
  readonly cacheSurvives = true;
  #sizeBytes: number;

  /**
   * Makes the disk.
   *
   * @throws {RangeError} if the size is not a positive multiple of 512 below 2^53.
   */
  constructor({ sizeBytes }: NullBackendOptions) {
    const wrong = whyOutside("sizeBytes", sizeBytes, BLOCK_BYTES_MIN, SIZE_BYTES_MAX, BLOCK_BYTES_MIN);
    if (wrong !== undefined) throw new RangeError(wrong);
    this.#sizeBytes = sizeBytes;
  }

  /** The size of the disk, as it is now. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Fills `buffer` with zeroes. */
  read(buffer: Uint8Array<ArrayBuffer>): void {
    buffer.fill(0);
  }

  /** Forgets the data. */
  write(): void {}

  /** Forgets that there is anything to forget. */
  discard(): void {}

  /** Everything reads as zeroes as it is. */
  writeZeroes(): void {}

  /** All of it is one hole. */
  extents(_offsetBytes: number, lengthBytes: number): readonly Extent[] {
    return [{ lengthBytes, kind: "hole" }];
  }

  /** Takes another size. */
  resize(sizeBytes: number): void {
    this.#sizeBytes = sizeBytes;
  }
}
