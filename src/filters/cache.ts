// SPDX-License-Identifier: MIT
/** Blocks that were read or written lately, in memory: a bounded cache that writes through or back. */
import type { Backend, CallOptions, CloseReason, Completed, Extent, RequestOptions } from "../disk/backend.ts";
import { DblockError } from "../disk/errors.ts";
import { whenDone } from "../disk/later.ts";
import { requestOptions } from "../disk/request.ts";
import { RangeLock } from "../disk/range_lock.ts";
import { Filter } from "./filter.ts";

/** Options of a `Cache`. */
export interface CacheOptions {
  /** What it keeps; requests that are in flight come on top. At least one block. @default 64 MiB */
  readonly maxBytes?: number;
  /** A block of it: a power of two, `limits.blockBytes` to 1 MiB. @default 4096, or `limits.blockBytes` if larger */
  readonly blockBytes?: number;
  /**
   * `write-through`: a write is answered when the backend has it. `write-back`: at once; the backend has it after the next
   * flush, after a write with FUA, or when the cache needs the room.
   * @default "write-through"
   */
  readonly mode?: "write-through" | "write-back";
}

/** How much a `Cache` helps. */
export interface CacheReport {
  /** Bytes of reads that were there. */
  readonly hitBytes: number;
  /** Bytes of reads that came from the backend. */
  readonly missBytes: number;
  /** How much is in the cache, clean and dirty. */
  readonly cachedBytes: number;
  /** What the backend does not have yet. */
  readonly dirtyBytes: number;
}

interface Run {
  readonly first: number;
  readonly count: number;
}

const BLOCK_BYTES_MAX = 1 << 20;

/**
 * A cache in front of a slow backend. What was used least recently goes first. With `write-back`, flush and FUA are honoured:
 * what was flushed is on the backend, and flushed there.
 *
 * ```ts
 * import type { Backend } from "../disk/backend.ts";
 * import { requestOptions } from "../disk/request.ts";
 * import { Cache } from "./cache.ts";
 *
 * const disk: Backend = { sizeBytes: 1 << 20, read: (buffer) => void buffer.fill(0), write: () => {} };
 * const cache = new Cache(disk, { maxBytes: 1 << 16 });
 * await cache.read(new Uint8Array(4096), 0, requestOptions());
 * await cache.read(new Uint8Array(4096), 0, requestOptions());
 * console.assert(cache.report().hitBytes === 4096);
 * ```
 */
export class Cache extends Filter {
  readonly #blockBytes: number;
  readonly #maxBytes: number;
  readonly #isBack: boolean;
  /** The least recently used first. */
  readonly #blocks = new Map<number, Uint8Array<ArrayBuffer>>();
  /** Blocks that the backend does not have yet. */
  readonly #dirty = new Set<number>();
  readonly #lock = new RangeLock();
  #cachedBytes = 0;
  #hitBytes = 0;
  #missBytes = 0;

  /** @throws {RangeError} if an option is out of its range. */
  /** Puts a cache in front of a backend. */
  constructor(backend: Backend, options: CacheOptions = {}) {
    const { mode = "write-through" } = options;
    super(backend, mode === "write-back" && !backend.readOnly ? { flush: true } : {});
    const min = backend.limits?.blockBytes ?? 512;
    const { blockBytes = Math.max(4096, min), maxBytes = 64 * 2 ** 20 } = options;
    if (!Number.isInteger(Math.log2(blockBytes)) || blockBytes < min || blockBytes > BLOCK_BYTES_MAX) {
      throw new RangeError(
        `a block of the cache is a power of two from ${min} to ${BLOCK_BYTES_MAX}, not ${blockBytes}`,
      );
    }
    if (!(maxBytes >= blockBytes)) throw new RangeError(`the cache holds ${blockBytes} bytes or more, not ${maxBytes}`);
    this.#blockBytes = blockBytes;
    this.#maxBytes = maxBytes;
    this.#isBack = mode === "write-back";
  }

  /** Write-back heeds FUA itself; write-through leaves it to the backend. */
  override get fua(): boolean {
    return this.#isBack || super.fua;
  }

  /** Write-back: what is not flushed is lost with this process. */
  override get cacheSurvives(): boolean {
    return !this.#isBack && super.cacheSurvives;
  }

  /** How much the cache has helped until now. */
  report(): CacheReport {
    let dirtyBytes = 0;
    for (const block of this.#dirty) dirtyBytes += this.#blocks.get(block)?.length ?? 0;
    const [hitBytes, missBytes, cachedBytes] = [this.#hitBytes, this.#missBytes, this.#cachedBytes];
    return { hitBytes, missBytes, cachedBytes, dirtyBytes };
  }

  /** Reads what is in the cache from there, and puts the rest into the cache. */
  override read(
    buffer: Uint8Array<ArrayBuffer>,
    offsetBytes: number,
    options: RequestOptions,
  ): Completed | Promise<Completed> {
    const done = this.#lock.run(offsetBytes, buffer.length, "shared", () => {
      const missing = this.#missing(offsetBytes, buffer.length);
      if (missing.length === 0) {
        this.#hitBytes += buffer.length;
        return this.#copyOut(buffer, offsetBytes);
      }
      return this.#readMissing(buffer, offsetBytes, missing, options);
    });
    // A read does not fail because another block cannot be written: that one's flush says so.
    return whenDone(done, () => this.#cachedBytes <= this.#maxBytes ? undefined : this.#makeRoomForReads());
  }

  /** Write-through: to the backend, and into the cache. Write-back: into the cache. */
  override write(
    buffer: Uint8Array<ArrayBuffer>,
    offsetBytes: number,
    options: RequestOptions,
  ): Completed | Promise<Completed> {
    const { start, length } = this.#aligned(offsetBytes, buffer.length);
    const done = this.#lock.run(
      start,
      length,
      "exclusive",
      () =>
        this.#isBack ? this.#writeBack(buffer, offsetBytes, options) : this.#writeThrough(buffer, offsetBytes, options),
    );
    return whenDone(done, (count) => whenDone(this.#makeRoom(), () => count));
  }

  /** Writes what only the cache has, and flushes the backend. */
  protected override async onFlush(options: CallOptions): Promise<void> {
    await this.#clean([...this.#dirty]);
    await this.backend.flush?.(options);
  }

  /** Forgets the range, and discards it. */
  protected override onDiscard(
    offsetBytes: number,
    lengthBytes: number,
    options: RequestOptions,
  ): Completed | Promise<Completed> {
    const { start, length } = this.#aligned(offsetBytes, lengthBytes);
    return this.#lock.run(
      start,
      length,
      "exclusive",
      () =>
        whenDone(this.backend.discard?.(offsetBytes, lengthBytes, options), (count) => {
          for (const block of this.#blocksOf(offsetBytes, lengthBytes)) {
            // A block of which only a part is discarded may be newer here than there.
            if (!this.#dirty.has(block) || this.#isWhole(block, offsetBytes, lengthBytes)) this.#drop(block);
          }
          return count;
        }),
    );
  }

  /** Forgets the range, and zeroes it. */
  protected override onWriteZeroes(
    offsetBytes: number,
    lengthBytes: number,
    options: RequestOptions,
  ): Completed | Promise<Completed> {
    const { start, length } = this.#aligned(offsetBytes, lengthBytes);
    return this.#lock.run(start, length, "exclusive", async () => {
      let isDone = false;
      try {
        const isForced = options.fua && !this.backend.fua;
        const passed = isForced ? requestOptions({ fua: false }, options) : options;
        const count = await this.backend.writeZeroes?.(offsetBytes, lengthBytes, passed);
        isDone = count === undefined || count === lengthBytes;
        if (isDone && isForced) await this.backend.flush?.(options);
        return count;
      } finally {
        for (const block of this.#cachedIn(offsetBytes, lengthBytes)) {
          if (!this.#dirty.has(block) || isDone && this.#isWhole(block, offsetBytes, lengthBytes)) this.#drop(block);
          else if (isDone) this.#zeroPart(block, offsetBytes, lengthBytes);
        }
      }
    });
  }

  /** What the cache alone has is data; the backend says the rest. */
  protected override async onExtents(
    offsetBytes: number,
    lengthBytes: number,
    options: CallOptions,
  ): Promise<readonly Extent[]> {
    // What is only here is in no extent of the backend.
    await this.#clean(this.#cachedIn(offsetBytes, lengthBytes).filter((block) => this.#dirty.has(block)));
    return await super.onExtents(offsetBytes, lengthBytes, options);
  }

  /** Writes what only the cache has, before the size changes. */
  protected override async onResize(sizeBytes: number): Promise<void> {
    await this.#lock.run(0, Infinity, "exclusive", async () => {
      for (const [block, bytes] of [...this.#blocks]) {
        const end = block * this.#blockBytes + bytes.length;
        // The last block of a disk may be shorter than the others, and is read anew.
        if (end <= sizeBytes && bytes.length === this.#blockBytes) continue;
        if (this.#dirty.has(block) && block * this.#blockBytes < sizeBytes) {
          await this.#writeRun({ first: block, count: 1 });
        }
        this.#drop(block);
      }
      await this.backend.resize?.(sizeBytes);
    });
  }

  /** Writes what only the cache has, unless the disk is gone for good. */
  protected override async onClose(reason: CloseReason): Promise<void> {
    try {
      if (this.#dirty.size > 0) {
        await this.#clean([...this.#dirty]);
        await this.backend.flush?.(requestOptions());
      }
    } finally {
      this.#blocks.clear();
      this.#cachedBytes = 0;
      await super.onClose(reason);
    }
  }

  #blocksOf(offsetBytes: number, lengthBytes: number): number[] {
    const first = Math.floor(offsetBytes / this.#blockBytes);
    const last = Math.floor((offsetBytes + lengthBytes - 1) / this.#blockBytes);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  }

  /** The blocks of a range that are here; the range may be as large as the disk. */
  #cachedIn(offsetBytes: number, lengthBytes: number): number[] {
    const first = Math.floor(offsetBytes / this.#blockBytes);
    const last = Math.floor((offsetBytes + lengthBytes - 1) / this.#blockBytes);
    if (last - first < this.#blocks.size) {
      return this.#blocksOf(offsetBytes, lengthBytes).filter((block) => this.#blocks.has(block));
    }
    return [...this.#blocks.keys()].filter((block) => block >= first && block <= last);
  }

  /** The whole blocks that a range touches. */
  #aligned(offsetBytes: number, lengthBytes: number): { readonly start: number; readonly length: number } {
    const start = offsetBytes - offsetBytes % this.#blockBytes;
    const end = Math.ceil((offsetBytes + lengthBytes) / this.#blockBytes) * this.#blockBytes;
    return { start, length: end - start };
  }

  /** The last block ends where the disk does. */
  #lengthOf(block: number): number {
    return Math.min(this.#blockBytes, this.sizeBytes - block * this.#blockBytes);
  }

  #isWhole(block: number, offsetBytes: number, lengthBytes: number): boolean {
    const start = block * this.#blockBytes;
    return start >= offsetBytes && start + this.#lengthOf(block) <= offsetBytes + lengthBytes;
  }

  /** The blocks of a range that are not here, neighbours together, no run longer than a request of the backend. */
  #missing(offsetBytes: number, lengthBytes: number): Run[] {
    return this.#runs(this.#blocksOf(offsetBytes, lengthBytes).filter((block) => !this.#blocks.has(block)));
  }

  /** Neighbours together. The blocks are in order. */
  #runs(blocks: readonly number[]): Run[] {
    const most = Math.max(1, Math.floor((this.limits.maxIoBytes ?? BLOCK_BYTES_MAX) / this.#blockBytes));
    const runs: { first: number; count: number }[] = [];
    for (const block of blocks) {
      const run = runs.at(-1);
      if (run !== undefined && run.first + run.count === block && run.count < most) run.count++;
      else runs.push({ first: block, count: 1 });
    }
    return runs;
  }

  #bytesOf({ first, count }: Run): number {
    return (count - 1) * this.#blockBytes + this.#lengthOf(first + count - 1);
  }

  /** Copies the cached part of a block into or out of a buffer that begins at `offsetBytes`. */
  #overlap(
    block: number,
    offsetBytes: number,
    lengthBytes: number,
  ): { inBlock: number; inBuffer: number; length: number } {
    const start = block * this.#blockBytes;
    const from = Math.max(start, offsetBytes);
    const to = Math.min(start + this.#lengthOf(block), offsetBytes + lengthBytes);
    return { inBlock: from - start, inBuffer: from - offsetBytes, length: to - from };
  }

  #copyOut(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number): void {
    for (const block of this.#blocksOf(offsetBytes, buffer.length)) {
      const bytes = this.#blocks.get(block);
      if (bytes === undefined) continue;
      this.#touch(block, bytes);
      const { inBlock, inBuffer, length } = this.#overlap(block, offsetBytes, buffer.length);
      buffer.set(bytes.subarray(inBlock, inBlock + length), inBuffer);
    }
  }

  async #readMissing(
    buffer: Uint8Array<ArrayBuffer>,
    offsetBytes: number,
    missing: readonly Run[],
    options: RequestOptions,
  ): Promise<void> {
    const read = missing.map(async (run) => ({ run, bytes: await this.#readRun(run, options) }));
    const failed = (await Promise.allSettled(read)).find((result) => result.status === "rejected");
    if (failed !== undefined) throw failed.reason;
    const fetched = new Map<number, Uint8Array<ArrayBuffer>>();
    for (const { run, bytes } of await Promise.all(read)) {
      this.#missBytes += bytes.length;
      for (let i = 0; i < run.count; i++) {
        fetched.set(run.first + i, bytes.subarray(i * this.#blockBytes, (i + 1) * this.#blockBytes));
      }
    }
    for (const block of this.#blocksOf(offsetBytes, buffer.length)) {
      // What is here is newer; what was here and had to make room meanwhile is what was fetched.
      const bytes = this.#blocks.get(block) ?? fetched.get(block) ??
        await this.#readRun({ first: block, count: 1 }, options);
      const { inBlock, inBuffer, length } = this.#overlap(block, offsetBytes, buffer.length);
      buffer.set(bytes.subarray(inBlock, inBlock + length), inBuffer);
      if (!this.#blocks.has(block)) this.#put(block, bytes.slice());
    }
  }

  async #readRun(run: Run, options?: RequestOptions): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(this.#bytesOf(run));
    const at = run.first * this.#blockBytes;
    const count = await this.backend.read(bytes, at, requestOptions({ fua: false, replayed: false }, options));
    requireWhole(count, bytes.length, "read", at);
    return bytes;
  }

  #writeThrough(
    buffer: Uint8Array<ArrayBuffer>,
    offsetBytes: number,
    options: RequestOptions,
  ): Completed | Promise<Completed> {
    // The backend may scribble on what it is given, so what is kept is copied before. Until it has answered, nobody knows
    // what the disk holds.
    const blocks = this.#blocksOf(offsetBytes, buffer.length);
    const data = buffer.slice();
    const before = blocks.map((block) => this.#blocks.get(block));
    for (const block of blocks) this.#drop(block);
    return whenDone(this.backend.write(buffer, offsetBytes, options), (count) => {
      if (count !== undefined && count !== data.length) return count;
      for (const [i, block] of blocks.entries()) {
        const bytes = before[i] ?? (this.#isWhole(block, offsetBytes, data.length) ? this.#newBlock(block) : undefined);
        if (bytes === undefined) continue;
        this.#merge(block, bytes, data, offsetBytes);
        this.#put(block, bytes);
      }
      return count;
    });
  }

  async #writeBack(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number, options: RequestOptions): Promise<void> {
    const blocks = this.#blocksOf(offsetBytes, buffer.length);
    const old = new Map<number, Uint8Array<ArrayBuffer>>();
    for (const block of blocks) {
      if (this.#isWhole(block, offsetBytes, buffer.length)) continue;
      old.set(block, this.#blocks.get(block) ?? await this.#readRun({ first: block, count: 1 }));
    }
    for (const block of blocks) {
      // What was clean and here may have made room meanwhile.
      const bytes = old.get(block) ?? this.#newBlock(block);
      this.#merge(block, bytes, buffer, offsetBytes);
      this.#put(block, bytes);
      this.#dirty.add(block);
    }
    if (!options.fua) return;
    for (const run of this.#runs(blocks)) await this.#writeRun(run);
    await this.backend.flush?.(options);
  }

  #newBlock(block: number): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.#lengthOf(block));
  }

  #merge(block: number, bytes: Uint8Array, data: Uint8Array, offsetBytes: number): void {
    const { inBlock, inBuffer, length } = this.#overlap(block, offsetBytes, data.length);
    bytes.set(data.subarray(inBuffer, inBuffer + length), inBlock);
  }

  #zeroPart(block: number, offsetBytes: number, lengthBytes: number): void {
    const { inBlock, length } = this.#overlap(block, offsetBytes, lengthBytes);
    this.#blocks.get(block)?.fill(0, inBlock, inBlock + length);
  }

  #put(block: number, bytes: Uint8Array<ArrayBuffer>): void {
    const old = this.#blocks.get(block);
    this.#cachedBytes += bytes.length - (old?.length ?? 0);
    this.#touch(block, bytes);
  }

  #touch(block: number, bytes: Uint8Array<ArrayBuffer>): void {
    this.#blocks.delete(block);
    this.#blocks.set(block, bytes);
  }

  #drop(block: number): void {
    this.#cachedBytes -= this.#blocks.get(block)?.length ?? 0;
    this.#blocks.delete(block);
    this.#dirty.delete(block);
  }

  /** Writes dirty blocks to the backend, neighbours together. Called without the lock. */
  async #clean(blocks: readonly number[]): Promise<void> {
    for (const run of this.#runs(blocks.toSorted((a, b) => a - b))) {
      // Who writes to these blocks waits; who reads them need not.
      await this.#lock.run(run.first * this.#blockBytes, run.count * this.#blockBytes, "shared", async () => {
        // Somebody else may clean some of them meanwhile, and then they may have to make room.
        for (;;) {
          const [next] = this.#runs(
            Array.from({ length: run.count }, (_, i) => run.first + i)
              .filter((block) => this.#dirty.has(block)),
          );
          if (next === undefined) return;
          await this.#writeRun(next);
        }
      });
    }
  }

  /** Writes cached blocks to the backend: they are clean then. The caller holds the lock. */
  async #writeRun(run: Run): Promise<void> {
    const bytes = new Uint8Array(this.#bytesOf(run));
    for (let i = 0; i < run.count; i++) {
      const block = this.#blocks.get(run.first + i);
      if (block !== undefined) bytes.set(block, i * this.#blockBytes);
    }
    const at = run.first * this.#blockBytes;
    requireWhole(await this.backend.write(bytes, at, requestOptions()), bytes.length, "write", at);
    for (let i = 0; i < run.count; i++) this.#dirty.delete(run.first + i);
  }

  /** Takes away what was not used for longest, until the rest fits. Called without the lock. */
  #makeRoom(): void | Promise<void> {
    for (const block of this.#blocks.keys()) {
      if (this.#cachedBytes <= this.#maxBytes) return undefined;
      if (this.#dirty.has(block)) return this.#makeRoomByWriting();
      this.#drop(block);
    }
    return undefined;
  }

  async #makeRoomForReads(): Promise<void> {
    try {
      await this.#makeRoom();
    } catch {
      for (const block of this.#blocks.keys()) {
        if (this.#cachedBytes <= this.#maxBytes) return;
        if (!this.#dirty.has(block)) this.#drop(block);
      }
    }
  }

  async #makeRoomByWriting(): Promise<void> {
    // The oldest ones together: a backend likes a few large writes better than many small ones.
    const excess = this.#cachedBytes - this.#maxBytes + Math.min(this.#maxBytes / 8, BLOCK_BYTES_MAX);
    const oldest: number[] = [];
    for (const block of this.#blocks.keys()) {
      if (oldest.length * this.#blockBytes >= excess) break;
      oldest.push(block);
    }
    await this.#clean(oldest.filter((block) => this.#dirty.has(block)));
    // A block that was written again meanwhile is dirty again: it was used just now, and stays.
    for (const block of oldest) {
      if (this.#cachedBytes <= this.#maxBytes) return;
      if (!this.#dirty.has(block)) this.#drop(block);
    }
  }
}

function requireWhole(count: Completed, lengthBytes: number, operation: string, offsetBytes: number): void {
  if (count === undefined || count === lengthBytes) return;
  const attempted = `Cannot ${operation} ${lengthBytes} bytes at ${offsetBytes}`;
  throw new DblockError("EIO", attempted, `the disk did ${count} bytes only`);
}
