// SPDX-License-Identifier: MIT
/** Blocks that were read or written lately, in memory: a bounded cache that writes through or back. */
import type { Backend, CallOptions, CloseReason, Completed, Extent, Figure, RequestOptions } from "../disk/backend.ts";
import { DblockError } from "../disk/errors.ts";
import { whenDone } from "../disk/later.ts";
import { requestOptions } from "../disk/request.ts";
import { RangeLock } from "../disk/range_lock.ts";
import { CacheRoom } from "./cache_room.ts";
import { CachedBlocks, type Run } from "./cached_blocks.ts";
import { Filter } from "./filter.ts";

/** Options of a `Cache`. */
export interface CacheOptions {
  /**
   * What it keeps; requests that are in flight come on top. At least one block. With `write-back`, a write that needs room
   * fails if the backend fails to take what is in its way.
   * @default 64 MiB
   */
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
  readonly #isBack: boolean;
  readonly #blocks: CachedBlocks;
  readonly #lock = new RangeLock();
  readonly #room: CacheRoom;
  #hitBytes = 0;
  #missBytes = 0;

  /**
   * Puts a cache in front of a backend.
   *
   * @throws {RangeError} if an option is out of its range.
   */
  constructor(backend: Backend, options: CacheOptions = {}) {
    const { mode = "write-through" } = options;
    super(backend, mode === "write-back" && !backend.readOnly ? { flush: true } : {});
    const min = backend.limits?.blockBytes ?? 512;
    // A block is read and written in one request.
    const max = Math.min(backend.limits?.maxIoBytes ?? BLOCK_BYTES_MAX, BLOCK_BYTES_MAX);
    const { blockBytes = Math.max(4096, min), maxBytes = 64 * 2 ** 20 } = options;
    if (!Number.isInteger(Math.log2(blockBytes)) || blockBytes < min || blockBytes > max) {
      throw new RangeError(`a block of the cache is a power of two from ${min} to ${max} bytes, not ${blockBytes}`);
    }
    if (!(maxBytes >= blockBytes)) throw new RangeError(`the cache holds ${blockBytes} bytes or more, not ${maxBytes}`);
    this.#blockBytes = blockBytes;
    this.#isBack = mode === "write-back";
    this.#blocks = new CachedBlocks({
      blockBytes,
      sizeBytes: () => this.sizeBytes,
      maxRunBytes: () => this.limits.maxIoBytes ?? BLOCK_BYTES_MAX,
    });
    this.#room = new CacheRoom({
      blocks: this.#blocks,
      blockBytes,
      maxBytes,
      lock: this.#lock,
      write: async (bytes, at) => {
        requireWhole(await this.backend.write(bytes, at, requestOptions()), bytes.length, "write", at);
      },
    });
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
    const { cachedBytes, dirtyBytes } = this.#blocks;
    return { hitBytes: this.#hitBytes, missBytes: this.#missBytes, cachedBytes, dirtyBytes };
  }

  /** What it has, and how often that was what was asked for. */
  override figures(): readonly Figure[] {
    const { hitBytes, missBytes, cachedBytes, dirtyBytes } = this.report();
    return [
      { name: "cache_hit_bytes_total", help: "Bytes of reads that were in the cache.", value: hitBytes },
      { name: "cache_missed_bytes_total", help: "Bytes of reads that came from the backend.", value: missBytes },
      { name: "cache_bytes", help: "What is in the cache.", value: cachedBytes },
      { name: "cache_dirty_bytes", help: "What the backend does not have yet.", value: dirtyBytes },
      ...super.figures(),
    ];
  }

  /** Reads what is in the cache from there, and puts the rest into the cache. */
  override read(
    buffer: Uint8Array<ArrayBuffer>,
    offsetBytes: number,
    options: RequestOptions,
  ): Completed | Promise<Completed> {
    const done = this.#lock.run(offsetBytes, buffer.length, "shared", () => {
      const missing = this.#blocks.missing(offsetBytes, buffer.length);
      if (missing.length === 0) {
        this.#hitBytes += buffer.length;
        return this.#copyOut(buffer, offsetBytes);
      }
      return this.#readMissing(buffer, offsetBytes, missing, options);
    });
    return whenDone(done, () => this.#room.makeForRead());
  }

  /** Write-through: to the backend, and into the cache. Write-back: into the cache. */
  override write(
    buffer: Uint8Array<ArrayBuffer>,
    offsetBytes: number,
    options: RequestOptions,
  ): Completed | Promise<Completed> {
    const { start, length } = this.#blocks.aligned(offsetBytes, buffer.length);
    const locked = (work: () => Completed | Promise<Completed>) => this.#lock.run(start, length, "exclusive", work);
    // Write-back makes room before it takes anything in: a block that the backend does not have cannot be dropped. It does
    // not hold the lock meanwhile: two writes that each wait for a block of the other would wait for ever.
    const done = this.#isBack
      ? whenDone(
        this.#room.make(this.#blocks.missingBytes(offsetBytes, buffer.length)),
        () => locked(() => this.#writeBack(buffer, offsetBytes, options)),
      )
      : locked(() => this.#writeThrough(buffer, offsetBytes, options));
    return whenDone(done, (count) => whenDone(this.#room.make(), () => count));
  }

  /** Writes what only the cache has, and flushes the backend. */
  protected override async onFlush(options: CallOptions): Promise<void> {
    await this.#room.clean(this.#blocks.dirty());
    await this.backend.flush?.(options);
  }

  /** Forgets the range, and discards it. */
  protected override onDiscard(
    offsetBytes: number,
    lengthBytes: number,
    options: RequestOptions,
  ): Completed | Promise<Completed> {
    const { start, length } = this.#blocks.aligned(offsetBytes, lengthBytes);
    return this.#lock.run(
      start,
      length,
      "exclusive",
      () =>
        whenDone(this.backend.discard?.(offsetBytes, lengthBytes, options), (count) => {
          for (const block of this.#blocks.cachedIn(offsetBytes, lengthBytes)) {
            // A block of which only a part is discarded may be newer here than there.
            if (!this.#blocks.isDirty(block) || this.#blocks.isWhole(block, offsetBytes, lengthBytes)) {
              this.#blocks.drop(block);
            }
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
    const { start, length } = this.#blocks.aligned(offsetBytes, lengthBytes);
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
        for (const block of this.#blocks.cachedIn(offsetBytes, lengthBytes)) {
          if (!this.#blocks.isDirty(block) || isDone && this.#blocks.isWhole(block, offsetBytes, lengthBytes)) {
            this.#blocks.drop(block);
          } else if (isDone) this.#blocks.zeroPart(block, offsetBytes, lengthBytes);
        }
      }
    });
  }

  /** Writes what only the cache has of this range, because the backend does not know of it; the backend says the rest. */
  protected override async onExtents(
    offsetBytes: number,
    lengthBytes: number,
    options: CallOptions,
  ): Promise<readonly Extent[]> {
    await this.#room.clean(
      this.#blocks.cachedIn(offsetBytes, lengthBytes).filter((block) => this.#blocks.isDirty(block)),
    );
    return await super.onExtents(offsetBytes, lengthBytes, options);
  }

  /** Writes what only the cache has, before the size changes. */
  protected override async onResize(sizeBytes: number): Promise<void> {
    await this.#lock.run(0, Infinity, "exclusive", async () => {
      for (const block of [...this.#blocks.numbers()]) {
        const bytes = this.#blocks.get(block);
        if (bytes === undefined) continue;
        const end = block * this.#blockBytes + bytes.length;
        // The last block of a disk may be shorter than the others, and is read anew.
        if (end <= sizeBytes && bytes.length === this.#blockBytes) continue;
        if (this.#blocks.isDirty(block) && block * this.#blockBytes < sizeBytes) {
          await this.#room.writeRun({ first: block, count: 1 });
        }
        this.#blocks.drop(block);
      }
      await this.backend.resize?.(sizeBytes);
    });
  }

  /** Writes what only the cache has, for whatever reason the disk ends. */
  protected override async onClose(reason: CloseReason): Promise<void> {
    try {
      if (this.#blocks.dirtyBytes > 0) {
        await this.#room.clean(this.#blocks.dirty());
        await this.backend.flush?.(requestOptions());
      }
    } finally {
      this.#blocks.clear();
      await super.onClose(reason);
    }
  }

  #copyOut(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number): void {
    for (const block of this.#blocks.blocksOf(offsetBytes, buffer.length)) {
      const bytes = this.#blocks.get(block);
      if (bytes === undefined) continue;
      this.#blocks.touch(block, bytes);
      const { inBlock, inBuffer, length } = this.#blocks.overlap(block, offsetBytes, buffer.length);
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
    for (const block of this.#blocks.blocksOf(offsetBytes, buffer.length)) {
      // What is here is newer; what was here and had to make room meanwhile is what was fetched.
      const bytes = this.#blocks.get(block) ?? fetched.get(block) ??
        await this.#readRun({ first: block, count: 1 }, options);
      const { inBlock, inBuffer, length } = this.#blocks.overlap(block, offsetBytes, buffer.length);
      buffer.set(bytes.subarray(inBlock, inBlock + length), inBuffer);
      if (!this.#blocks.has(block)) this.#blocks.put(block, bytes.slice());
    }
  }

  async #readRun(run: Run, options?: RequestOptions): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(this.#blocks.bytesOf(run));
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
    const blocks = this.#blocks.blocksOf(offsetBytes, buffer.length);
    const data = buffer.slice();
    const before = blocks.map((block) => this.#blocks.get(block));
    for (const block of blocks) this.#blocks.drop(block);
    return whenDone(this.backend.write(buffer, offsetBytes, options), (count) => {
      if (count !== undefined && count !== data.length) return count;
      for (const [i, block] of blocks.entries()) {
        const bytes = before[i] ??
          (this.#blocks.isWhole(block, offsetBytes, data.length) ? this.#blocks.newBlock(block) : undefined);
        if (bytes === undefined) continue;
        this.#blocks.merge(block, bytes, data, offsetBytes);
        this.#blocks.put(block, bytes);
      }
      return count;
    });
  }

  async #writeBack(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number, options: RequestOptions): Promise<void> {
    const blocks = this.#blocks.blocksOf(offsetBytes, buffer.length);
    const old = new Map<number, Uint8Array<ArrayBuffer>>();
    for (const block of blocks) {
      if (this.#blocks.isWhole(block, offsetBytes, buffer.length)) continue;
      old.set(block, this.#blocks.get(block) ?? await this.#readRun({ first: block, count: 1 }));
    }
    for (const block of blocks) {
      // What was clean and here may have made room meanwhile.
      const bytes = old.get(block) ?? this.#blocks.newBlock(block);
      this.#blocks.merge(block, bytes, buffer, offsetBytes);
      this.#blocks.put(block, bytes);
      this.#blocks.markDirty(block);
    }
    if (!options.fua) return;
    for (const run of this.#blocks.runs(blocks)) await this.#room.writeRun(run);
    await this.backend.flush?.(options);
  }
}

function requireWhole(count: Completed, lengthBytes: number, operation: string, offsetBytes: number): void {
  if (count === undefined || count === lengthBytes) return;
  const attempted = `Cannot ${operation} ${lengthBytes} bytes at ${offsetBytes}`;
  throw new DblockError("EIO", attempted, `the disk did ${count} bytes only`);
}
