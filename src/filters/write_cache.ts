// SPDX-License-Identifier: MIT
/** A write cache that can lose its power: what file systems and databases have to survive, and when. */
import type { Backend, CallOptions, CloseReason, Completed, Figure, Limits, RequestOptions } from "../disk/backend.ts";
import { DblockError } from "../disk/errors.ts";
import { BLOCK_BYTES_MIN } from "../disk/limits.ts";
import { requestOptions } from "../disk/request.ts";

const DEFAULT_DIRTY_BYTES = 64 * 2 ** 20;
/** Neighbours go to the disk together, up to so much: no disk is asked for more at once unless it says so. */
const TOGETHER_BYTES_MAX = 512 * 2 ** 10;

/** A block of the cache: its number, and what is in it. */
type Block = readonly [number: number, bytes: Uint8Array<ArrayBuffer>];

/** Options of a `WriteCache`. */
export interface WriteCacheOptions {
  /**
   * What is kept or lost as a whole: a power of two, at least what the disk takes at once. @default the disk's
   * `limits.blockBytes`, or 512
   */
  readonly blockBytes?: number;
  /**
   * What the cache holds at most, in bytes; requests that are in flight come on top. The oldest blocks go to the disk,
   * unflushed, before a write that needs their room. If the disk fails to take them, the write fails.
   * @default 64 MiB
   */
  readonly maxDirtyBytes?: number;
}

/** Options of `WriteCache.powerOff()`. */
export interface PowerOffOptions {
  /** The chance of each block in the cache to be written nevertheless, 0 to 1. @default 0.5 */
  readonly survival?: number;
  /** Where chance comes from: 0 (inclusive) to 1 (exclusive). @default Math.random */
  readonly random?: () => number;
}

/** What a power cut did to the blocks that were in the cache. */
export interface PowerCut {
  /** Blocks that were written, in spite of it. */
  readonly written: number;
  /** Blocks that are as they were before their last writes. */
  readonly lost: number;
}

/**
 * A disk in front of another one that keeps writes to itself until it is told to flush, as a drive with a volatile cache
 * does. After `powerOff()` a part of what was not flushed is lost, block by block and in no order; what was flushed, or
 * written with FUA, is all there. Discards are not kept: they reach the other disk at once.
 *
 * ```ts
 * import type { Backend } from "../disk/backend.ts";
 * import { requestOptions } from "../disk/request.ts";
 * import { WriteCache } from "./write_cache.ts";
 *
 * const store = new Uint8Array(4096);
 * const disk: Backend = {
 *   sizeBytes: store.length,
 *   read: (buffer, offset) => buffer.set(store.subarray(offset, offset + buffer.length)),
 *   write: (buffer, offset) => store.set(buffer, offset),
 * };
 * const cache = new WriteCache(disk);
 * await cache.write(new Uint8Array(512).fill(1), 0, requestOptions());
 * console.assert(store[0] === 0 && cache.dirtyBytes === 512);
 * console.assert((await cache.powerOff({ survival: 0 })).lost === 1);
 * ```
 */
export class WriteCache implements Backend {
  readonly fua = true;
  readonly discard?: NonNullable<Backend["discard"]>;
  readonly resize?: NonNullable<Backend["resize"]>;
  readonly handOver?: NonNullable<Backend["handOver"]>;
  readonly #backend: Backend;
  readonly #blockBytes: number;
  readonly #maxDirtyBytes: number;
  /** What is newer here than on the other disk, by the number of the block. */
  readonly #dirty = new Map<number, Uint8Array<ArrayBuffer>>();
  /** Settles when all that was begun on the other disk has ended: an older write there must not come after a newer one. */
  #idle: Promise<unknown> = Promise.resolve();
  #isOff = false;

  /**
   * Puts a cache in front of a disk.
   *
   * @param backend the disk, which is owned from here on
   * @param options the blocks that a power cut keeps or loses
   * @throws {RangeError} if `blockBytes` is no power of two, less than the disk's blocks, or does not divide its size; if
   * `maxDirtyBytes` is less than a block.
   */
  constructor(backend: Backend, options: WriteCacheOptions = {}) {
    const least = backend.limits?.blockBytes ?? BLOCK_BYTES_MIN;
    const { blockBytes = least, maxDirtyBytes = DEFAULT_DIRTY_BYTES } = options;
    if (!Number.isInteger(Math.log2(blockBytes)) || blockBytes < least || backend.sizeBytes % blockBytes !== 0) {
      throw new RangeError(
        `a block is a power of two from ${least} on that divides the disk's ${backend.sizeBytes} bytes, not ${blockBytes}`,
      );
    }
    if (!(maxDirtyBytes >= blockBytes)) throw new RangeError(`maxDirtyBytes is a block at least, not ${maxDirtyBytes}`);
    this.#maxDirtyBytes = maxDirtyBytes;
    this.#backend = backend;
    this.#blockBytes = blockBytes;
    if (backend.discard !== undefined) this.discard = (...range) => this.#discard(...range);
    // Asked once everything is flushed: nothing is here that the next version would miss.
    if (backend.handOver !== undefined) this.handOver = () => backend.handOver?.();
    if (backend.resize !== undefined) this.resize = (sizeBytes) => this.#resize(sizeBytes);
  }

  get sizeBytes(): number {
    return this.#backend.sizeBytes;
  }

  get limits(): Limits {
    return this.#backend.limits ?? {};
  }

  get readOnly(): boolean {
    return this.#backend.readOnly ?? false;
  }

  /** The other disk's. */
  figures(): readonly Figure[] {
    return this.#backend.figures?.() ?? [];
  }

  /** What a power cut could lose now. */
  get dirtyBytes(): number {
    return this.#dirty.size * this.#blockBytes;
  }

  /** From both disks: the other one's content, and what is newer here. */
  async read(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number, options: RequestOptions): Promise<Completed> {
    this.#requirePower();
    const blocks = this.#blocksOf(offsetBytes, buffer.length);
    // Those that are written back while the other disk reads are gone from here when it has read what was there before.
    const before = blocks.map((block) => this.#dirty.get(block));
    const done = before.includes(undefined) ? await this.#backend.read(buffer, offsetBytes, options) : undefined;
    for (const [i, block] of blocks.entries()) {
      const bytes = this.#dirty.get(block) ?? before[i];
      if (bytes !== undefined) buffer.set(bytes, i * this.#blockBytes);
    }
    return done;
  }

  /** Keeps the data here; with FUA, it is on the other disk when this ends. */
  async write(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number, options: RequestOptions): Promise<void> {
    this.#requirePower();
    const blocks = this.#blocksOf(offsetBytes, buffer.length);
    // Room comes first: what is in the cache cannot be dropped, even if the disk takes nothing.
    const newBytes = blocks.filter((block) => !this.#dirty.has(block)).length * this.#blockBytes;
    if (!this.#fits(newBytes)) {
      await this.#makeRoom(newBytes);
      this.#requirePower();
    }
    for (const [i, block] of blocks.entries()) {
      this.#dirty.set(block, buffer.slice(i * this.#blockBytes, (i + 1) * this.#blockBytes));
    }
    if (options.fua) await this.#alone(() => this.#writeBack(blocks, options));
    // What is larger than the cache does not stay.
    else if (!this.#fits(0)) await this.#makeRoom(0);
  }

  /** Everything that was written before is on the other disk, and flushed there, when this ends. */
  async flush(options: CallOptions = requestOptions()): Promise<void> {
    this.#requirePower();
    await this.#alone(() => this.#writeBack([...this.#dirty.keys()], options));
  }

  /** Writes what is still here, if the power is on, and closes the other disk. */
  async close(reason: CloseReason): Promise<void> {
    try {
      if (!this.#isOff) await this.flush();
    } finally {
      await this.#backend.close?.(reason);
    }
  }

  /**
   * Cuts the power: each block of the cache is written or lost, by chance, and every request from now on fails with EIO.
   *
   * @returns once nothing goes on any more, what became of the blocks
   */
  async powerOff(options: PowerOffOptions = {}): Promise<PowerCut> {
    const { survival = 0.5, random = Math.random } = options;
    this.#requirePower();
    this.#isOff = true;
    return await this.#alone(async () => {
      const survivors = [...this.#dirty].filter(() => random() < survival);
      const cut = { written: survivors.length, lost: this.#dirty.size - survivors.length };
      this.#dirty.clear();
      for (const run of this.#runsOf(survivors)) await this.#write(run);
      return cut;
    });
  }

  /** Takes requests again, after `powerOff()` has ended. */
  powerOn(): void {
    this.#isOff = false;
  }

  #requirePower(): void {
    if (this.#isOff) throw new DblockError("EIO", "Cannot use the disk", "its power is off");
  }

  #blocksOf(offsetBytes: number, lengthBytes: number): number[] {
    const first = offsetBytes / this.#blockBytes;
    const count = lengthBytes / this.#blockBytes;
    if (!Number.isInteger(first) || !Number.isInteger(count)) {
      throw new RangeError(`${lengthBytes} bytes at ${offsetBytes} are not whole blocks of ${this.#blockBytes}`);
    }
    return Array.from({ length: count }, (_, i) => first + i);
  }

  /** Does it when everything before it has ended, well or not. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#idle.then(work);
    this.#idle = done.catch(() => {});
    return done;
  }

  async #writeBack(blocks: readonly number[], options: CallOptions): Promise<void> {
    const dirty = blocks.flatMap((number): Block[] => {
      const bytes = this.#dirty.get(number);
      return bytes === undefined ? [] : [[number, bytes]];
    });
    for (const run of this.#runsOf(dirty.sort(([one], [other]) => one - other))) {
      this.#requirePower();
      await this.#writeOut(run);
    }
    this.#requirePower();
    await this.#backend.flush?.(options);
  }

  /** Whether there is room for new blocks. In an empty cache there is, however many they are. */
  #fits(newBytes: number): boolean {
    return this.dirtyBytes <= Math.max(0, this.#maxDirtyBytes - newBytes);
  }

  /** Makes room for new blocks: what was written first goes first, and nothing is flushed. */
  async #makeRoom(newBytes: number): Promise<void> {
    await this.#alone(async () => {
      for (const run of this.#runsOf(this.#dirty)) {
        if (this.#fits(newBytes)) return;
        this.#requirePower();
        await this.#writeOut(run);
      }
    });
  }

  /** Joins blocks that follow each other, here and on the disk: as many as it takes at once. */
  *#runsOf(blocks: Iterable<Block>): Generator<Block[]> {
    const bytesMax = Math.min(this.limits.maxIoBytes ?? TOGETHER_BYTES_MAX, TOGETHER_BYTES_MAX);
    const countMax = Math.max(1, Math.floor(bytesMax / this.#blockBytes));
    let run: Block[] = [];
    for (const block of blocks) {
      const last = run.at(-1);
      if (last !== undefined && (run.length === countMax || block[0] !== last[0] + 1)) {
        yield run;
        run = [];
      }
      run.push(block);
    }
    if (run.length > 0) yield run;
  }

  async #writeOut(run: readonly Block[]): Promise<void> {
    await this.#write(run);
    // What was written meanwhile is newer, and stays.
    for (const [number, bytes] of run) if (this.#dirty.get(number) === bytes) this.#dirty.delete(number);
  }

  async #write(run: readonly Block[]): Promise<void> {
    const [first] = run[0]!;
    // A copy: a backend may scribble on what it is given.
    const buffer = new Uint8Array(run.length * this.#blockBytes);
    for (const [i, [, bytes]] of run.entries()) buffer.set(bytes, i * this.#blockBytes);
    const done = await this.#backend.write(buffer, first * this.#blockBytes, requestOptions());
    if (done === undefined || done === buffer.length) return;
    throw new DblockError("EIO", `Cannot write block ${first}`, `the disk took ${done} of ${buffer.length} bytes`);
  }

  async #discard(offsetBytes: number, lengthBytes: number, options: RequestOptions): Promise<Completed> {
    this.#requirePower();
    return await this.#alone(async () => {
      const end = offsetBytes + lengthBytes;
      this.#forget((at) => at >= offsetBytes && at < end);
      return await this.#backend.discard?.(offsetBytes, lengthBytes, options);
    });
  }

  async #resize(sizeBytes: number): Promise<void> {
    await this.#alone(async () => {
      this.#forget((at) => at >= sizeBytes);
      await this.#backend.resize?.(sizeBytes);
    });
  }

  #forget(isGone: (offsetBytes: number) => boolean): void {
    for (const block of [...this.#dirty.keys()]) {
      if (isGone(block * this.#blockBytes)) this.#dirty.delete(block);
    }
  }
}
