// SPDX-License-Identifier: MIT
/** The blocks that a cache holds: which ones, in which order they were used, and which of them the backend does not have. */

/** Blocks that follow each other. */
export interface Run {
  readonly first: number;
  readonly count: number;
}

/** What the blocks are of. Functions, because a disk can take another size. */
export interface CachedDisk {
  readonly blockBytes: number;
  readonly sizeBytes: () => number;
  /** No run is longer, in bytes. */
  readonly maxRunBytes: () => number;
}

/** Blocks by their number. It asks no backend, and knows no bound: the cache decides what goes. */
export class CachedBlocks {
  readonly #disk: CachedDisk;
  readonly #blockBytes: number;
  /** The least recently used first. */
  readonly #blocks = new Map<number, Uint8Array<ArrayBuffer>>();
  readonly #dirty = new Set<number>();
  #cachedBytes = 0;

  constructor(disk: CachedDisk) {
    this.#disk = disk;
    this.#blockBytes = disk.blockBytes;
  }

  /** How much is here, clean and dirty. */
  get cachedBytes(): number {
    return this.#cachedBytes;
  }

  /** What the backend does not have yet. */
  get dirtyBytes(): number {
    let bytes = 0;
    for (const block of this.#dirty) bytes += this.#blocks.get(block)?.length ?? 0;
    return bytes;
  }

  get(block: number): Uint8Array<ArrayBuffer> | undefined {
    return this.#blocks.get(block);
  }

  has(block: number): boolean {
    return this.#blocks.has(block);
  }

  /** The numbers of all blocks, the least recently used first. A block may be dropped or used meanwhile. */
  numbers(): IterableIterator<number> {
    return this.#blocks.keys();
  }

  isDirty(block: number): boolean {
    return this.#dirty.has(block);
  }

  /** The dirty blocks now. */
  dirty(): number[] {
    return [...this.#dirty];
  }

  markDirty(block: number): void {
    this.#dirty.add(block);
  }

  markClean(block: number): void {
    this.#dirty.delete(block);
  }

  /** Takes a block in, or gives it other bytes. It is the most recently used one then. */
  put(block: number, bytes: Uint8Array<ArrayBuffer>): void {
    this.#cachedBytes += bytes.length - (this.#blocks.get(block)?.length ?? 0);
    this.touch(block, bytes);
  }

  /** A block that is here was used. */
  touch(block: number, bytes: Uint8Array<ArrayBuffer>): void {
    this.#blocks.delete(block);
    this.#blocks.set(block, bytes);
  }

  drop(block: number): void {
    this.#cachedBytes -= this.#blocks.get(block)?.length ?? 0;
    this.#blocks.delete(block);
    this.#dirty.delete(block);
  }

  clear(): void {
    this.#blocks.clear();
    this.#dirty.clear();
    this.#cachedBytes = 0;
  }

  /** Zeroes for a block. */
  newBlock(block: number): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.lengthOf(block));
  }

  /** Puts the part of `data`, which begins at `offsetBytes` of the disk, that falls into a block. */
  merge(block: number, bytes: Uint8Array, data: Uint8Array, offsetBytes: number): void {
    const { inBlock, inBuffer, length } = this.overlap(block, offsetBytes, data.length);
    bytes.set(data.subarray(inBuffer, inBuffer + length), inBlock);
  }

  /** Zeroes the part of a block that falls into a range. */
  zeroPart(block: number, offsetBytes: number, lengthBytes: number): void {
    const { inBlock, length } = this.overlap(block, offsetBytes, lengthBytes);
    this.#blocks.get(block)?.fill(0, inBlock, inBlock + length);
  }

  /** The numbers of the blocks that a range touches. For ranges of a read or a write: each number takes memory. */
  blocksOf(offsetBytes: number, lengthBytes: number): number[] {
    const { first, last } = this.#ends(offsetBytes, lengthBytes);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  }

  /** Those of them that are here. The range may be as large as the disk. */
  cachedIn(offsetBytes: number, lengthBytes: number): number[] {
    const { first, last } = this.#ends(offsetBytes, lengthBytes);
    if (last - first < this.#blocks.size) {
      return this.blocksOf(offsetBytes, lengthBytes).filter((block) => this.#blocks.has(block));
    }
    return [...this.#blocks.keys()].filter((block) => block >= first && block <= last);
  }

  /** Those of them that are not here, as runs. */
  missing(offsetBytes: number, lengthBytes: number): Run[] {
    return this.runs(this.blocksOf(offsetBytes, lengthBytes).filter((block) => !this.#blocks.has(block)));
  }

  /** How many bytes they have. */
  missingBytes(offsetBytes: number, lengthBytes: number): number {
    return this.missing(offsetBytes, lengthBytes).reduce((bytes, run) => bytes + this.bytesOf(run), 0);
  }

  /** The whole blocks that a range touches, as a range. */
  aligned(offsetBytes: number, lengthBytes: number): { readonly start: number; readonly length: number } {
    const { first, last } = this.#ends(offsetBytes, lengthBytes);
    return { start: first * this.#blockBytes, length: (last - first + 1) * this.#blockBytes };
  }

  /** Bytes of a block: the last one ends where the disk does. */
  lengthOf(block: number): number {
    return Math.min(this.#blockBytes, this.#disk.sizeBytes() - block * this.#blockBytes);
  }

  /** Whether all of a block falls into a range. */
  isWhole(block: number, offsetBytes: number, lengthBytes: number): boolean {
    const start = block * this.#blockBytes;
    return start >= offsetBytes && start + this.lengthOf(block) <= offsetBytes + lengthBytes;
  }

  /** Neighbours together, as far as one request of the backend goes. The blocks are in order. */
  runs(blocks: readonly number[]): Run[] {
    const most = Math.max(1, Math.floor(this.#disk.maxRunBytes() / this.#blockBytes));
    const runs: { first: number; count: number }[] = [];
    for (const block of blocks) {
      const run = runs.at(-1);
      if (run !== undefined && run.first + run.count === block && run.count < most) run.count++;
      else runs.push({ first: block, count: 1 });
    }
    return runs;
  }

  /** How many bytes a run has. */
  bytesOf({ first, count }: Run): number {
    return (count - 1) * this.#blockBytes + this.lengthOf(first + count - 1);
  }

  /** Where a block and a buffer that begins at `offsetBytes` of the disk are the same bytes. */
  overlap(
    block: number,
    offsetBytes: number,
    lengthBytes: number,
  ): { readonly inBlock: number; readonly inBuffer: number; readonly length: number } {
    const start = block * this.#blockBytes;
    const from = Math.max(start, offsetBytes);
    const to = Math.min(start + this.lengthOf(block), offsetBytes + lengthBytes);
    return { inBlock: from - start, inBuffer: from - offsetBytes, length: to - from };
  }

  #ends(offsetBytes: number, lengthBytes: number): { readonly first: number; readonly last: number } {
    return {
      first: Math.floor(offsetBytes / this.#blockBytes),
      last: Math.floor((offsetBytes + lengthBytes - 1) / this.#blockBytes),
    };
  }
}
