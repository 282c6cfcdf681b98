// SPDX-License-Identifier: MIT
/** The room of a cache: writes blocks that only the cache has, and drops what was not used for longest. It answers no request. */
import type { RangeLock } from "../disk/range_lock.ts";
import type { CachedBlocks, Run } from "./cached_blocks.ts";

/** Blocks that are written to make room are up to so much more than is needed: not each write should have to do it. */
const SLACK_BYTES_MAX = 1 << 20;

/** What a `CacheRoom` is of. */
export interface CacheRoomOptions {
  readonly blocks: CachedBlocks;
  readonly blockBytes: number;
  /** What the cache holds at most. */
  readonly maxBytes: number;
  /** Held while a block is written. */
  readonly lock: RangeLock;
  /** Writes to the backend. @throws if not all of it is written. */
  readonly write: (bytes: Uint8Array<ArrayBuffer>, offsetBytes: number) => Promise<void>;
}

/** Makes room in a cache. */
export class CacheRoom {
  readonly #blocks: CachedBlocks;
  readonly #blockBytes: number;
  readonly #maxBytes: number;
  readonly #lock: RangeLock;
  readonly #write: CacheRoomOptions["write"];
  /** Room is being made by writing. */
  #making: Promise<void> | undefined;

  constructor({ blocks, blockBytes, maxBytes, lock, write }: CacheRoomOptions) {
    this.#blocks = blocks;
    this.#blockBytes = blockBytes;
    this.#maxBytes = maxBytes;
    this.#lock = lock;
    this.#write = write;
  }

  /** Writes dirty blocks to the backend, neighbours together. Called without the lock. */
  async clean(blocks: readonly number[]): Promise<void> {
    for (const run of this.#blocks.runs(blocks.toSorted((a, b) => a - b))) {
      // Who writes to these blocks waits; who reads them need not.
      await this.#lock.run(run.first * this.#blockBytes, run.count * this.#blockBytes, "shared", async () => {
        // Somebody else may clean some of them meanwhile, and then they may have to make room.
        for (;;) {
          const [next] = this.#blocks.runs(
            Array.from({ length: run.count }, (_, i) => run.first + i)
              .filter((block) => this.#blocks.isDirty(block)),
          );
          if (next === undefined) return;
          await this.writeRun(next);
        }
      });
    }
  }

  /** Writes cached blocks to the backend: they are clean then. The caller holds the lock. */
  async writeRun(run: Run): Promise<void> {
    const bytes = new Uint8Array(this.#blocks.bytesOf(run));
    for (let i = 0; i < run.count; i++) {
      const block = this.#blocks.get(run.first + i);
      if (block !== undefined) bytes.set(block, i * this.#blockBytes);
    }
    await this.#write(bytes, run.first * this.#blockBytes);
    for (let i = 0; i < run.count; i++) this.#blocks.markClean(run.first + i);
  }

  /**
   * Takes away what was not used for longest, until so many bytes more fit; all of it, if they are more than the cache holds.
   * Where a block cannot be written, clean blocks go in its place. Called without the lock. Synchronous, if nothing has to be
   * written.
   *
   * @throws what the backend throws, if there is still not enough room.
   */
  make(moreBytes = 0): void | Promise<void> {
    const mostBytes = Math.max(0, this.#maxBytes - moreBytes);
    if (this.#blocks.cachedBytes <= mostBytes) return undefined;
    for (const block of this.#blocks.numbers()) {
      if (this.#blocks.cachedBytes <= mostBytes) return undefined;
      if (this.#blocks.isDirty(block)) return this.#makeByWriting(mostBytes);
      this.#blocks.drop(block);
    }
    return undefined;
  }

  /** Makes room after a read, which does not fail because another block cannot be written: the next flush tells that error. */
  makeForRead(): void | Promise<void> {
    return this.make()?.catch(() => {});
  }

  /** One at a time, for all who wait: several would write the same blocks. What fails, fails for all of them. */
  async #makeByWriting(mostBytes: number): Promise<void> {
    while (this.#making !== undefined) {
      try {
        await this.#making;
      } catch (error) {
        if (this.#blocks.cachedBytes > mostBytes) throw error;
      }
      if (this.#blocks.cachedBytes <= mostBytes) return;
    }
    this.#making = this.#writeOldest(mostBytes).finally(() => this.#making = undefined);
    await this.#making;
  }

  async #writeOldest(mostBytes: number): Promise<void> {
    // The oldest ones together: a backend likes a few large writes better than many small ones.
    const excess = this.#blocks.cachedBytes - mostBytes + Math.min(this.#maxBytes / 8, SLACK_BYTES_MAX);
    const oldest: number[] = [];
    for (const block of this.#blocks.numbers()) {
      if (oldest.length * this.#blockBytes >= excess) break;
      oldest.push(block);
    }
    try {
      await this.clean(oldest.filter((block) => this.#blocks.isDirty(block)));
    } catch (error) {
      this.#dropClean(this.#blocks.numbers(), mostBytes);
      if (this.#blocks.cachedBytes > mostBytes) throw error;
      return;
    }
    // A block that was written again meanwhile is dirty again: it was used just now, and stays.
    this.#dropClean(oldest, mostBytes);
  }

  #dropClean(blocks: Iterable<number>, mostBytes: number): void {
    for (const block of blocks) {
      if (this.#blocks.cachedBytes <= mostBytes) return;
      if (!this.#blocks.isDirty(block)) this.#blocks.drop(block);
    }
  }
}
