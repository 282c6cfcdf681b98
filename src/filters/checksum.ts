// SPDX-License-Identifier: MIT
/** A disk that finds out when its store gives back something else than was written: SHA-256 of each block, in a file. */
import type { Backend, CallOptions, CloseReason, Completed, Limits, RequestOptions } from "../disk/backend.ts";
import { DblockError } from "../disk/errors.ts";
import { FewLines } from "../disk/limiter.ts";
import { requestOptions } from "../disk/request.ts";
import { RangeLock } from "../disk/range_lock.ts";
import { IntentBitmap } from "../system/intent_bitmap.ts";
import { Filter, tell } from "./filter.ts";
import { SumFile } from "./sum_file.ts";

/** Options of `Checksum.open()`. */
export interface ChecksumOptions {
  /** The file of the sums; made if it is not there. A second one, `PATH-intent`, says where a crash met a write. */
  readonly path: string;
  /** What one sum is of: a power of two, `limits.blockBytes` to 1 MiB. @default 4096 */
  readonly blockBytes?: number;
  /** Is told of each block that is not what was written. What it throws is ignored. @default lines to `log`, not of each */
  readonly onMismatch?: (offsetBytes: number, lengthBytes: number) => void;
  /** Takes the lines about such blocks, one in ten seconds at most, if there is no `onMismatch`. @default console.error */
  readonly log?: ((line: string) => void) | undefined;
}

const BLOCK_BYTES_MAX = 1 << 20;
/** Loaded when the first disk has sums: it takes longer than a program without it takes to start. */
let hash: typeof import("node:crypto").hash;
/** Zeroes are hashed once for each length. */
const zeroSums = new Map<number, Uint8Array>();

/**
 * Remembers the checksum of each block that is written, and compares when it is read: a block that is not what was written
 * fails with EILSEQ instead of being believed. A block that has no sum yet gets one when it is first read.
 *
 * After a crash, the sums of what was being written then are not known (a mark in the intent file, made before the write):
 * nothing that a power cut can do is taken for a flipped bit.
 *
 * ```ts
 * import type { Backend } from "../disk/backend.ts";
 * import { requestOptions } from "../disk/request.ts";
 * import { Checksum } from "./checksum.ts";
 *
 * const store = new Uint8Array(1 << 20);
 * const disk: Backend = {
 *   sizeBytes: store.length,
 *   read: (buffer, offset) => buffer.set(store.subarray(offset, offset + buffer.length)),
 *   write: (buffer, offset) => store.set(buffer, offset),
 * };
 * const path = `${await Deno.makeTempDir()}/sums`;
 * const checked = await Checksum.open(disk, { path, onMismatch: () => {} });
 * await checked.write(new Uint8Array(4096).fill(7), 0, requestOptions());
 * store[99] ^= 1;
 * const error = await checked.read(new Uint8Array(4096), 0, requestOptions()).catch((error) => error);
 * console.assert(error.code === "EILSEQ");
 * await checked.close("destroyed");
 * ```
 */
export class Checksum extends Filter {
  readonly #blockBytes: number;
  readonly #sums: SumFile;
  readonly #intent: IntentBitmap;
  readonly #onMismatch: (offsetBytes: number, lengthBytes: number) => void;
  readonly #lines: FewLines;
  readonly #lock = new RangeLock();
  #mismatches = 0;

  private constructor(
    backend: Backend,
    blockBytes: number,
    sums: SumFile,
    intent: IntentBitmap,
    { onMismatch, log = (line) => console.error(line) }: ChecksumOptions,
  ) {
    super(backend, { ...(backend.readOnly ? {} : { flush: true }), resize: false });
    this.#blockBytes = blockBytes;
    this.#sums = sums;
    this.#intent = intent;
    this.#lines = new FewLines(log);
    this.#onMismatch = onMismatch ??
      ((offsetBytes, lengthBytes) =>
        this.#lines.add(`checksum: ${lengthBytes} bytes at ${offsetBytes} are not what was written`));
  }

  /**
   * Opens the files of the sums, and forgets those that a crash left in doubt.
   *
   * @throws {DblockError} EINVAL if a file is another kind of file, or that of another disk; EBUSY if another server has them.
   * @throws {RangeError} if `blockBytes` is out of its range.
   * @throws what opening the files throws. A file that was made is removed then.
   */
  static async open(backend: Backend, options: ChecksumOptions): Promise<Checksum> {
    const { path } = options;
    const min = backend.limits?.blockBytes ?? 512;
    const { blockBytes = Math.max(4096, min) } = options;
    if (!Number.isInteger(Math.log2(blockBytes)) || blockBytes < min || blockBytes > BLOCK_BYTES_MAX) {
      throw new RangeError(
        `a checksum is of a power of two from ${min} to ${BLOCK_BYTES_MAX} bytes, not ${blockBytes}`,
      );
    }
    const { sizeBytes } = backend;
    ({ hash } = await import("node:crypto"));
    await using undo = new AsyncDisposableStack();
    const sums = await SumFile.open({ path, sizeBytes, blockBytes });
    let intent: IntentBitmap;
    try {
      intent = await openIntent(path, sizeBytes);
    } catch (error) {
      // Who has the marks has the sums as well, even if they were made here.
      const isOthers = error instanceof DblockError && error.code === "EBUSY";
      await sums.close({ isUnused: !isOthers });
      throw error;
    }
    undo.defer(async () => {
      await sums.close({ isUnused: true });
      await intent.close({ isUnused: true });
    });
    const checksum = new Checksum(backend, blockBytes, sums, intent, options);
    for (const { offsetBytes, lengthBytes } of [...intent.marked()]) await checksum.#forget(offsetBytes, lengthBytes);
    await sums.sync();
    for (const { offsetBytes, lengthBytes } of [...intent.marked()]) intent.clearRange(offsetBytes, lengthBytes);
    undo.move();
    return checksum;
  }

  /** How many blocks were read that are not what was written. */
  get mismatches(): number {
    return this.#mismatches;
  }

  /** Those of the backend; whole blocks that have a sum each are said to be the best size of a write. */
  override get limits(): Limits {
    const { limits } = this.backend;
    // A smaller write has to read first.
    return { ...limits, physicalBlockBytes: Math.max(limits?.physicalBlockBytes ?? 4096, this.#blockBytes) };
  }

  /** The sums have to be as durable as the data. */
  override get fua(): boolean {
    return false;
  }

  /** Sums that a crash takes with it are marked as in doubt: nothing else is kept here. */
  override get cacheSurvives(): boolean {
    return this.backend.flush === undefined || super.cacheSurvives;
  }

  /** Reads, and compares with the sums: EILSEQ where they differ. */
  override async read(
    buffer: Uint8Array<ArrayBuffer>,
    offsetBytes: number,
    options: RequestOptions,
  ): Promise<Completed> {
    const { first, count } = this.#blocksOf(offsetBytes, buffer.length);
    const { start, end } = this.#bytesOf(first, count);
    await this.#lock.run(start, end - start, "shared", () =>
      this.#sums.use(first, count, async () => {
        if (start === offsetBytes && end === offsetBytes + buffer.length) {
          await this.#readChecked(buffer, start, options);
          return;
        }
        const bytes = new Uint8Array(end - start);
        await this.#readChecked(bytes, start, requestOptions({}, options));
        buffer.set(bytes.subarray(offsetBytes - start, offsetBytes - start + buffer.length));
      }));
  }

  /** Writes, and remembers the sums. */
  override async write(
    buffer: Uint8Array<ArrayBuffer>,
    offsetBytes: number,
    options: RequestOptions,
  ): Promise<Completed> {
    // The backend may scribble on what it is given.
    const data = buffer.slice();
    return await this.#change(offsetBytes, buffer.length, {
      edge: (bytes, at) => overlay(bytes, at, data, offsetBytes),
      whole: (at, length) => sumOf(data.subarray(at - offsetBytes, at - offsetBytes + length)),
      ask: () => this.backend.write(buffer, offsetBytes, options),
    });
  }

  /** Makes the data durable, then the sums. */
  protected override async onFlush(options: CallOptions): Promise<void> {
    const settled = this.#intent.settled();
    await this.backend.flush?.(options);
    await this.#sums.sync();
    this.#intent.clear(settled);
  }

  /** Discards, and forgets the sums. */
  protected override onDiscard(
    offsetBytes: number,
    lengthBytes: number,
    options: RequestOptions,
  ): Promise<Completed> {
    return this.#change(offsetBytes, lengthBytes, {
      edge: undefined,
      whole: () => undefined,
      ask: () => this.backend.discard?.(offsetBytes, lengthBytes, options),
    });
  }

  /** Zeroes, and sets the sums of zeroes. */
  protected override onWriteZeroes(
    offsetBytes: number,
    lengthBytes: number,
    options: RequestOptions,
  ): Promise<Completed> {
    return this.#change(offsetBytes, lengthBytes, {
      edge: (bytes, at) => bytes.fill(0, Math.max(0, offsetBytes - at), offsetBytes + lengthBytes - at),
      whole: (_, length) => zeroSum(length),
      ask: () => this.backend.writeZeroes?.(offsetBytes, lengthBytes, options),
    });
  }

  /** Writes the sums, and closes their files; if the disk was never used, those that were made for it are removed. */
  protected override async onClose(reason: CloseReason): Promise<void> {
    this.#lines.end();
    const isUnused = reason === "unused";
    // Each step is done, whatever happens to those before it.
    const steps = [
      () => this.#settle(),
      () => this.#sums.close({ isUnused }),
      () => this.#intent.close({ isUnused }),
      async () => await super.onClose(reason),
    ];
    const failed: unknown[] = [];
    for (const step of steps) await step().catch((error: unknown) => failed.push(error));
    if (failed.length > 0) throw failed[0];
  }

  /** Everything is durable, and nothing is in doubt any more. */
  async #settle(): Promise<void> {
    await this.#sums.sync();
    const settled = this.#intent.settled(0);
    if (settled.size === 0) return;
    await this.backend.flush?.(requestOptions());
    this.#intent.clear(settled);
  }

  #blocksOf(offsetBytes: number, lengthBytes: number): { readonly first: number; readonly count: number } {
    const first = Math.floor(offsetBytes / this.#blockBytes);
    const end = Math.ceil((offsetBytes + lengthBytes) / this.#blockBytes);
    return { first, count: end - first };
  }

  /** Where blocks lie; the last one ends where the disk does. */
  #bytesOf(first: number, count: number): { readonly start: number; readonly end: number } {
    return {
      start: first * this.#blockBytes,
      end: Math.min((first + count) * this.#blockBytes, this.sizeBytes),
    };
  }

  /** Reads whole blocks and compares; no more at once than the backend takes. The caller holds lock and sums. */
  async #readChecked(buffer: Uint8Array<ArrayBuffer>, start: number, options: RequestOptions): Promise<void> {
    const most = this.limits.maxIoBytes ?? Infinity;
    for (let done = 0; done < buffer.length; done += most) {
      const part = buffer.subarray(done, Math.min(buffer.length, done + most));
      const count = await this.backend.read(part, start + done, options);
      if (count !== undefined && count !== part.length) {
        const attempted = `Cannot read ${part.length} bytes at ${start + done}`;
        throw new DblockError("EIO", attempted, `the disk gave ${count} bytes only`);
      }
    }
    for (let at = 0; at < buffer.length; at += this.#blockBytes) {
      const bytes = buffer.subarray(at, Math.min(buffer.length, at + this.#blockBytes));
      const block = (start + at) / this.#blockBytes;
      const known = this.#sums.get(block);
      const sum = sumOf(bytes);
      if (known === undefined) this.#sums.set(block, sum);
      else if (!isEqual(known, sum)) {
        this.#mismatches++;
        tell(() => this.#onMismatch(start + at, bytes.length));
        throw new DblockError(
          "EILSEQ",
          `Cannot read ${bytes.length} bytes at ${start + at}`,
          "they are not what was written",
        );
      }
    }
  }

  /** Changes a range, and the sums with it. */
  async #change(offsetBytes: number, lengthBytes: number, change: {
    /** Does to a block, of which only a part changes, what the backend will do; undefined: its sum is not known then. */
    readonly edge: ((bytes: Uint8Array<ArrayBuffer>, at: number) => void) | undefined;
    /** The sum of a block that changes as a whole. */
    readonly whole: (at: number, lengthBytes: number) => Uint8Array | undefined;
    readonly ask: () => Completed | Promise<Completed>;
  }): Promise<Completed> {
    const { first, count } = this.#blocksOf(offsetBytes, lengthBytes);
    const { start, end } = this.#bytesOf(first, count);
    return await this.#lock.run(start, end - start, "exclusive", () =>
      this.#sums.use(first, count, async () => {
        const edges = new Map<number, Uint8Array | undefined>();
        for (const block of new Set([first, first + count - 1])) {
          const at = this.#bytesOf(block, 1);
          if (at.start >= offsetBytes && at.end <= offsetBytes + lengthBytes) continue;
          const sum = change.edge === undefined ? undefined : await this.#edgeSum(block, change.edge);
          edges.set(block, sum);
        }
        let isDone = false;
        try {
          await this.#intent.begin(offsetBytes, lengthBytes);
          const done = await change.ask();
          isDone = done === undefined || done === lengthBytes;
          return done;
        } finally {
          for (let block = first; block < first + count; block++) {
            const at = this.#bytesOf(block, 1);
            const sum = edges.has(block)
              ? edges.get(block)
              : isDone
              ? change.whole(at.start, at.end - at.start)
              : undefined;
            this.#sums.set(block, isDone ? sum : undefined);
          }
          this.#intent.end(offsetBytes, lengthBytes);
        }
      }));
  }

  /** The sum that a block will have when a part of it has changed. */
  async #edgeSum(block: number, change: (bytes: Uint8Array<ArrayBuffer>, at: number) => void): Promise<Uint8Array> {
    const { start, end } = this.#bytesOf(block, 1);
    const bytes = new Uint8Array(end - start);
    await this.#readChecked(bytes, start, requestOptions());
    change(bytes, start);
    return sumOf(bytes);
  }

  async #forget(offsetBytes: number, lengthBytes: number): Promise<void> {
    const { first, count } = this.#blocksOf(offsetBytes, lengthBytes);
    await this.#sums.use(first, count, () => {
      for (let block = first; block < first + count; block++) this.#sums.set(block, undefined);
      return Promise.resolve();
    });
  }
}

/** Puts the part of `data`, which begins at `dataAt`, that falls into `bytes`, which begins at `at`. */
function overlay(bytes: Uint8Array, at: number, data: Uint8Array, dataAt: number): void {
  const from = Math.max(at, dataAt);
  const to = Math.min(at + bytes.length, dataAt + data.length);
  bytes.set(data.subarray(from - dataAt, to - dataAt), from - at);
}

function sumOf(bytes: Uint8Array): Uint8Array {
  return hash("sha256", bytes, "buffer");
}

function zeroSum(lengthBytes: number): Uint8Array {
  let sum = zeroSums.get(lengthBytes);
  if (sum === undefined) zeroSums.set(lengthBytes, sum = sumOf(new Uint8Array(lengthBytes)));
  return sum;
}

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.every((byte, i) => byte === b[i]);
}

/**
 * The marks, which one server has at a time: sums that another one keeps in memory are not in the file yet, so a take-over
 * would take what was written meanwhile for flipped bits.
 */
async function openIntent(path: string, sizeBytes: number): Promise<IntentBitmap> {
  try {
    return await IntentBitmap.open({ path: `${path}-intent`, sizeBytes });
  } catch (error) {
    if (!(error instanceof DblockError) || error.code !== "EBUSY") throw error;
    const hint = "end that server first; a disk with checksums is not taken over or reloaded";
    throw new DblockError("EBUSY", `Cannot use ${path} for checksums`, "another server has it", { cause: error, hint });
  }
}
