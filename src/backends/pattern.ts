// SPDX-License-Identifier: MIT
/**
 * A disk whose content is computed: every byte is a function of its offset and a seed. It finds out whether data comes to
 * the right place, in both directions, on a disk of any size and without any memory. It does not keep what is written.
 */
import type { Backend } from "../disk/backend.ts";
import { DblockError } from "../disk/errors.ts";
import { BLOCK_BYTES_MIN, SIZE_BYTES_MAX, whyOutside } from "../disk/limits.ts";

const WORD_BYTES = 4;
const WORDS_OF_LOW_HALF = 2 ** 32;
/** 2^32 / φ: keeps 0, which mixes to 0, out of the way. */
const GOLDEN_RATIO = 0x9e3779b9;

/** Options of a `PatternBackend`. */
export interface PatternBackendOptions {
  /** A multiple of 512, up to 2^53 - 512. It takes no memory. */
  readonly sizeBytes: number;
  /** Another seed is another content; its low 32 bits count. @default 0 */
  readonly seed?: number;
}

/**
 * Reads the pattern. A write of anything but the pattern fails with EILSEQ and says where the first wrong byte is. Nothing
 * but the pattern can be on the disk: zeroes cannot be written either.
 *
 * ```ts
 * import { DblockError } from "../disk/errors.ts";
 * import { PatternBackend } from "./pattern.ts";
 *
 * const disk = new PatternBackend({ sizeBytes: 2 ** 40, seed: 7 });
 * const buffer = new Uint8Array(4096);
 * disk.read(buffer, 2 ** 39);
 * disk.write(buffer, 2 ** 39); // what belongs there
 * buffer[100] ^= 1;
 * try {
 *   disk.write(buffer, 2 ** 39);
 * } catch (error) {
 *   console.assert(error instanceof DblockError && error.code === "EILSEQ" && disk.mismatchCount === 1);
 * }
 * ```
 */
export class PatternBackend implements Backend {
  readonly sizeBytes: number;
  /** Which pattern it is. */
  readonly seed: number;
  /** There is nothing that could be lost. */
  readonly cacheSurvives = true;
  #mismatchCount = 0;

  /**
   * Makes the disk.
   *
   * @throws {RangeError} if the size is not a positive multiple of 512 below 2^53.
   */
  constructor({ sizeBytes, seed = 0 }: PatternBackendOptions) {
    const wrong = whyOutside("sizeBytes", sizeBytes, BLOCK_BYTES_MIN, SIZE_BYTES_MAX, BLOCK_BYTES_MIN);
    if (wrong !== undefined) throw new RangeError(wrong);
    this.sizeBytes = sizeBytes;
    this.seed = seed >>> 0;
  }

  /** How many writes were refused, because their data was not the pattern. */
  get mismatchCount(): number {
    return this.#mismatchCount;
  }

  /** Fills `buffer` with the pattern at `offsetBytes`, a multiple of 4, as is the length. */
  read(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number): void {
    const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
    const first = offsetBytes / WORD_BYTES;
    for (let at = 0; at < buffer.length; at += WORD_BYTES) {
      view.setUint32(at, wordAt(first + at / WORD_BYTES, this.seed), true);
    }
  }

  /**
   * Compares `buffer` with the pattern.
   *
   * @throws {DblockError} EILSEQ: the data is not what belongs at `offsetBytes`.
   */
  write(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number): void {
    const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
    const first = offsetBytes / WORD_BYTES;
    for (let at = 0; at < buffer.length; at += WORD_BYTES) {
      const expected = wordAt(first + at / WORD_BYTES, this.seed);
      const found = view.getUint32(at, true);
      if (found === expected) continue;
      this.#mismatchCount++;
      const wrong = `the word at ${offsetBytes + at} is 0x${hex(found)}, not 0x${hex(expected)}`;
      throw new DblockError("EILSEQ", `Cannot write ${buffer.length} bytes at ${offsetBytes}`, wrong);
    }
  }
}

/**
 * The pattern's word with this number: the mixing steps of murmur3, which change half of the bits for each bit. The halves
 * of the number are mixed one after the other, so that a block is not the same as one 16 GiB away in another order.
 */
function wordAt(number: number, seed: number): number {
  const high = Math.floor(number / WORDS_OF_LOW_HALF);
  return mix(mix(number ^ mix(seed + 1)) ^ mix(high + GOLDEN_RATIO));
}

function mix(value: number): number {
  let bits = value | 0;
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}

function hex(word: number): string {
  return word.toString(16).padStart(8, "0");
}
