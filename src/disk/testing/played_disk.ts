// SPDX-License-Identifier: MIT
/**
 * A disk of memory for tests of filters and sets: it keeps its own limits under watch, answers in an order of its own, can
 * fail, and can lose what was not flushed.
 */
import type { Backend, CloseReason, Completed, Extent, Limits, RequestOptions } from "../backend.ts";
import { DblockError, type ErrnoName } from "../errors.ts";
import type { Operation } from "../operation.ts";
import { Random } from "../random.ts";
import { isEqual } from "./model.ts";

/** Options of a `PlayedDisk`. */
export interface PlayedDiskOptions {
  /** A multiple of the block size. @default 140 KiB */
  readonly sizeBytes?: number;
  /** Requests that do not keep these are noted in `violations` and fail with EINVAL. */
  readonly limits?: Limits;
  /** Refuse writes. @default false */
  readonly readOnly?: boolean;
  /** Callbacks that it does not have. @default it has all of them */
  readonly without?: readonly ("flush" | "discard" | "writeZeroes" | "resize" | "extents" | "close")[];
  /** It heeds FUA. @default false */
  readonly fua?: boolean;
  /** Answers come later, in an order that this seed decides; without it, at once. */
  readonly laterSeed?: number;
}

/** How a `PlayedDisk` fails. */
export interface PlayedFailure {
  /** Which requests. */
  readonly operation: Operation | "close";
  /** `short`: it does half of it and says so. `nameless`: an error without a code. */
  readonly errno: ErrnoName | "short" | "nameless";
  /** Only what touches this range. @default everything */
  readonly place?: { readonly offsetBytes: number; readonly lengthBytes: number };
}

/** A request that a `PlayedDisk` was asked. */
export interface PlayedRequest {
  /** What was asked. */
  readonly operation: Operation;
  /** 0 for a flush. */
  readonly offsetBytes: number;
  /** 0 for a flush. */
  readonly lengthBytes: number;
}

const DEFAULT_SIZE_BYTES = 140 * 2 ** 10;
const DISCARDED = 0xd1;
const SCRIBBLED = 0xdd;

/**
 * A disk of memory under watch.
 *
 * ```ts
 * import { PlayedDisk } from "./played_disk.ts";
 * import { requestOptions } from "../request.ts";
 *
 * const disk = new PlayedDisk();
 * await disk.write(new Uint8Array(512).fill(1), 0, requestOptions());
 * const next = disk.crashed(() => 0.9); // nothing was flushed, and nothing survives
 * console.assert(next.content[0] === 0);
 * ```
 */
export class PlayedDisk implements Backend {
  declare readonly flush?: NonNullable<Backend["flush"]>;
  declare readonly discard?: NonNullable<Backend["discard"]>;
  declare readonly writeZeroes?: NonNullable<Backend["writeZeroes"]>;
  declare readonly resize?: NonNullable<Backend["resize"]>;
  declare readonly extents?: NonNullable<Backend["extents"]>;
  declare readonly close?: NonNullable<Backend["close"]>;
  readonly limits: Limits;
  readonly readOnly: boolean;
  readonly fua: boolean;
  /** What it was asked that it must not be asked, in words. */
  readonly violations: string[] = [];
  /** What it was asked, the last thousand requests. */
  readonly asked: PlayedRequest[] = [];
  /** With which reason it was closed, as often as it was. */
  readonly closings: CloseReason[] = [];
  /** How it fails, from now on; undefined: not at all. */
  failure: PlayedFailure | undefined;
  /** What it contains. */
  content: Uint8Array<ArrayBuffer>;
  /** What survives. */
  #durable: Uint8Array<ArrayBuffer>;
  #isDead = false;
  readonly #options: PlayedDiskOptions;
  readonly #later: Random | undefined;

  /** A disk with this content; zeroes, if none is given. */
  constructor(options: PlayedDiskOptions = {}, content?: Uint8Array<ArrayBuffer>) {
    const { sizeBytes = DEFAULT_SIZE_BYTES, limits = {}, readOnly = false, fua = false, without = [] } = options;
    this.#options = options;
    this.limits = limits;
    this.readOnly = readOnly;
    this.fua = fua;
    this.#later = options.laterSeed === undefined ? undefined : new Random(options.laterSeed);
    this.content = content ?? new Uint8Array(sizeBytes);
    this.#durable = this.content.slice();
    const has = (name: NonNullable<PlayedDiskOptions["without"]>[number]) => !without.includes(name);
    if (has("flush")) this.flush = () => this.#flush();
    if (has("discard")) this.discard = (...range) => this.#discard(...range);
    if (has("writeZeroes")) this.writeZeroes = (...range) => this.#writeZeroes(...range);
    if (has("resize")) this.resize = (sizeBytes) => this.#resize(sizeBytes);
    if (has("extents")) this.extents = (offset, length) => this.#extents(offset, length);
    if (has("close")) this.close = (reason) => this.#close(reason);
  }

  get sizeBytes(): number {
    return this.content.length;
  }

  /** Cuts the power: this disk does nothing any more. Returns the disk after it; what was not flushed is there by chance. */
  crashed(random: () => number): PlayedDisk {
    this.#isDead = true;
    const content = this.#durable.slice();
    const block = this.limits.blockBytes ?? 512;
    for (let at = 0; at < content.length; at += block) {
      const now = this.content.subarray(at, at + block);
      if (!isEqual(now, content.subarray(at, at + block)) && random() < 0.5) content.set(now, at);
    }
    return this.#next(content);
  }

  /** The same disk for its next server, with everything. This one does nothing any more. */
  reopened(): PlayedDisk {
    this.#isDead = true;
    return this.#next(this.content.slice());
  }

  #next(content: Uint8Array<ArrayBuffer>): PlayedDisk {
    const { laterSeed } = this.#options;
    return new PlayedDisk(
      { ...this.#options, ...(laterSeed === undefined ? {} : { laterSeed: laterSeed + 1 }) },
      content,
    );
  }

  read(
    buffer: Uint8Array<ArrayBuffer>,
    offsetBytes: number,
    options: RequestOptions,
  ): Completed | Promise<Completed> {
    buffer.fill(SCRIBBLED);
    return this.#do("read", offsetBytes, buffer.length, options, (start, end) => {
      buffer.set(this.content.subarray(offsetBytes + start, offsetBytes + end), start);
    });
  }

  write(
    buffer: Uint8Array<ArrayBuffer>,
    offsetBytes: number,
    options: RequestOptions,
  ): Completed | Promise<Completed> {
    return this.#do("write", offsetBytes, buffer.length, options, (start, end) => {
      this.content.set(buffer.subarray(start, end), offsetBytes + start);
      // The buffer is ours until we have answered.
      buffer.fill(SCRIBBLED, start, end);
      this.#force(options, offsetBytes + start, offsetBytes + end);
    });
  }

  #flush(): Completed | Promise<Completed> {
    // What is durable is decided when it begins: what comes in meanwhile may be lost.
    const durable = this.content.slice();
    return this.#do("flush", 0, 0, undefined, () => {
      if (this.#isDead) return;
      this.#durable = durable;
    });
  }

  #discard(offsetBytes: number, lengthBytes: number, options: RequestOptions): Completed | Promise<Completed> {
    return this.#do("discard", offsetBytes, lengthBytes, options, (start, end) => {
      this.content.fill(DISCARDED, offsetBytes + start, offsetBytes + end);
    });
  }

  #writeZeroes(offsetBytes: number, lengthBytes: number, options: RequestOptions): Completed | Promise<Completed> {
    return this.#do("writeZeroes", offsetBytes, lengthBytes, options, (start, end) => {
      this.content.fill(0, offsetBytes + start, offsetBytes + end);
      this.#force(options, offsetBytes + start, offsetBytes + end);
    });
  }

  #resize(sizeBytes: number): void {
    const content = new Uint8Array(sizeBytes);
    content.set(this.content.subarray(0, sizeBytes));
    this.content = content;
    this.#durable = content.slice();
  }

  #extents(offsetBytes: number, lengthBytes: number): Extent[] {
    const block = this.limits.blockBytes ?? 512;
    const extents: { lengthBytes: number; kind: "data" | "hole" }[] = [];
    for (let at = offsetBytes; at < offsetBytes + lengthBytes; at += block) {
      const kind = this.content.subarray(at, at + block).every((byte) => byte === 0) ? "hole" : "data";
      const last = extents.at(-1);
      if (last?.kind === kind) last.lengthBytes += block;
      else extents.push({ lengthBytes: block, kind });
    }
    return extents;
  }

  #close(reason: CloseReason): void {
    this.closings.push(reason);
    if (this.closings.length > 1) this.violations.push(`it was closed ${this.closings.length} times`);
    if (this.failure?.operation === "close") throw this.#error("close", this.failure.errno);
  }

  #force(options: RequestOptions, start: number, end: number): void {
    const isDurable = this.flush === undefined || this.fua && options.fua;
    if (isDurable && !this.#isDead) this.#durable.set(this.content.subarray(start, end), start);
  }

  /** Does a request: what it must not be asked is noted, what has to fail fails, and the rest is done in two steps. */
  #do(
    operation: Operation,
    offsetBytes: number,
    lengthBytes: number,
    options: RequestOptions | undefined,
    step: (start: number, end: number) => void,
  ): Completed | Promise<Completed> {
    if (this.#isDead) throw new DblockError("EIO", `Cannot ${operation}`, "the disk is gone");
    const wrong = this.#wrong(operation, offsetBytes, lengthBytes, options);
    if (wrong !== undefined) {
      this.violations.push(wrong);
      throw new DblockError("EINVAL", `Cannot ${operation}`, wrong);
    }
    this.asked.push({ operation, offsetBytes, lengthBytes });
    if (this.asked.length > 1000) this.asked.shift();
    const errno = this.#failureOf(operation, offsetBytes, lengthBytes);
    const block = this.limits.blockBytes ?? 512;
    const half = Math.floor(lengthBytes / 2 / block) * block;
    const random = this.#later;
    if (random === undefined) {
      if (errno === "short") return step(0, half), half;
      if (errno !== undefined) throw this.#error(operation, errno);
      return step(0, lengthBytes);
    }
    return this.#doLater(random, errno === "short" ? "short" : errno && this.#error(operation, errno), {
      half,
      lengthBytes,
      step: (start, end) => {
        if (!this.#isDead) step(start, end);
      },
    });
  }

  async #doLater(random: Random, failure: Error | "short" | undefined, work: {
    readonly half: number;
    readonly lengthBytes: number;
    readonly step: (start: number, end: number) => void;
  }): Promise<Completed> {
    const { half, lengthBytes, step } = work;
    await turns(random.below(12));
    if (failure instanceof Error) throw failure;
    step(0, half);
    if (failure === "short") return half;
    await turns(random.below(4));
    step(half, lengthBytes);
    await turns(random.below(12));
    if (this.#isDead) throw new DblockError("EIO", "Cannot answer", "the disk is gone");
    return random.chance(0.5) ? lengthBytes : undefined;
  }

  #failureOf(operation: Operation, offsetBytes: number, lengthBytes: number): PlayedFailure["errno"] | undefined {
    const { failure } = this;
    if (failure?.operation !== operation) return undefined;
    const { place } = failure;
    if (place === undefined) return failure.errno;
    const isHit = offsetBytes < place.offsetBytes + place.lengthBytes && offsetBytes + lengthBytes > place.offsetBytes;
    return isHit ? failure.errno : undefined;
  }

  #error(operation: Operation | "close", errno: ErrnoName | "short" | "nameless"): Error {
    if (errno === "nameless" || errno === "short") return new Error(`Cannot ${operation}: it was asked to fail`);
    return new DblockError(errno, `Cannot ${operation}`, "it was asked to fail");
  }

  #wrong(
    operation: Operation,
    offsetBytes: number,
    lengthBytes: number,
    options: RequestOptions | undefined,
  ): string | undefined {
    const { blockBytes = 512, maxIoBytes = Infinity, maxDiscardBytes = Infinity, maxWriteZeroesBytes = Infinity } =
      this.limits;
    const what = `${operation} of ${lengthBytes} bytes at ${offsetBytes}`;
    if (this.closings.length > 0) return `${what} after it was closed`;
    if (this.readOnly && operation !== "read" && operation !== "flush") return `${what}, but it is read only`;
    if (options?.fua && !this.fua) return `${what} with FUA, which it does not heed`;
    if (operation === "flush") return undefined;
    const most = operation === "discard"
      ? maxDiscardBytes
      : operation === "writeZeroes"
      ? maxWriteZeroesBytes
      : maxIoBytes;
    if (lengthBytes <= 0 || lengthBytes > most) return `${what}: the largest is ${most}`;
    if (offsetBytes % blockBytes !== 0 || lengthBytes % blockBytes !== 0) return `${what}: not blocks of ${blockBytes}`;
    if (offsetBytes < 0 || offsetBytes + lengthBytes > this.content.length) {
      return `${what}: it has ${this.content.length}`;
    }
    return undefined;
  }
}

/** Lets others go first, so many times. */
async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await Promise.resolve();
}
