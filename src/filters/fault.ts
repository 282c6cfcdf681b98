// SPDX-License-Identifier: MIT
/** A disk that fails: how often, in which way, where, and after how many requests; switched on and off while it runs. */
import type { Backend, CloseReason, Completed } from "../disk/backend.ts";
import { DblockError, type ErrnoName } from "../disk/errors.ts";
import { whenDone } from "../disk/later.ts";
import { type Operation, OPERATIONS } from "../disk/operation.ts";
import { requestOptions } from "../disk/request.ts";
import { Random } from "../disk/random.ts";
import { exists } from "../system/path.ts";
import { Filter, type FilteredRequest } from "./filter.ts";

/**
 * What happens to a request that is hit.
 *
 * - `error`: it fails, and the backend is not asked.
 * - `late`: the backend does it, and it fails nevertheless.
 * - `short`: the backend does the first half of it, in whole blocks, and says so. Hits reads and writes only.
 * - `flip`: one bit of the data is wrong. Hits reads and writes only.
 * - `drop`: it is answered as done, and the backend is not asked. Hits everything but reads.
 * - `hang`: it waits until the faults are switched off.
 */
export type FaultKind = "error" | "late" | "short" | "flip" | "drop" | "hang";

/** Every kind of fault. */
export const FAULT_KINDS: readonly FaultKind[] = ["error", "late", "short", "flip", "drop", "hang"];

/** Whoever makes a file, and looks at what comes of it, does not notice so long a wait. A guess. */
const LOOK_MS = 100;

/** What a kind of fault can happen to. */
const CAN_HIT: Readonly<Record<FaultKind, readonly Operation[]>> = {
  error: OPERATIONS,
  late: OPERATIONS,
  short: ["read", "write"],
  flip: ["read", "write"],
  drop: OPERATIONS.filter((operation) => operation !== "read"),
  hang: OPERATIONS,
};

/** Options of a `Fault`. */
export interface FaultOptions {
  /** Which operations can be hit. @default all of them */
  readonly operations?: readonly Operation[];
  /** Which of them are hit, 0 (none) to 1 (all), by chance. @default 1 */
  readonly share?: number;
  /** What happens to those. @default "error" */
  readonly kind?: FaultKind;
  /** The errno of `error` and `late`. @default "EIO" */
  readonly errno?: ErrnoName;
  /** Only what touches this range of the disk is hit; a flush touches nothing. @default the whole disk, and flushes */
  readonly place?: { readonly offsetBytes: number; readonly lengthBytes: number };
  /** So many requests that could be hit go through first. @default 0 */
  readonly after?: number;
  /** After so many hits, no more. @default Infinity */
  readonly times?: number;
  /** Where chance begins. @default 1 */
  readonly seed?: number;
  /** Whether it begins switched on. @default true */
  readonly enabled?: boolean;
  /**
   * Switched on while there is a file at this path, and off while there is none. Looked at ten times a second; it decides
   * instead of `enabled`. @default `enable()` and `disable()` alone switch it
   */
  readonly whilePath?: string;
}

/**
 * A disk with faults, for tests of what uses it.
 *
 * ```ts
 * import type { Backend } from "../disk/backend.ts";
 * import { requestOptions } from "../disk/request.ts";
 * import { Fault } from "./fault.ts";
 *
 * const disk: Backend = { sizeBytes: 4096, read: (buffer) => void buffer.fill(0), write: () => {} };
 * const bad = new Fault(disk, { operations: ["read"], share: 0.01, errno: "ENODATA", enabled: false });
 * bad.read(new Uint8Array(512), 0, requestOptions()); // it is switched off: a good disk
 * bad.enable();
 * console.assert(bad.hits === 0);
 * ```
 */
export class Fault extends Filter {
  readonly #options: FaultOptions;
  readonly #random: Random;
  readonly #hanging = new Set<PromiseWithResolvers<void>>();
  readonly #timer: ReturnType<typeof setInterval> | undefined;
  #enabled: boolean;
  #seen = 0;
  #hits = 0;

  /**
   * Puts faults in front of a backend.
   *
   * @throws {RangeError} if `share` is not 0 to 1, or `after` or `times` is negative.
   */
  constructor(backend: Backend, options: FaultOptions = {}) {
    super(backend);
    const { share = 1, after = 0, times = Infinity, seed = 1, enabled = true, whilePath } = options;
    if (!(share >= 0 && share <= 1)) throw new RangeError(`share is 0 to 1, not ${share}`);
    if (!(after >= 0 && times >= 0)) throw new RangeError(`after and times are 0 or more, not ${after} and ${times}`);
    this.#options = options;
    this.#random = new Random(seed);
    this.#enabled = enabled;
    if (whilePath === undefined) return;
    const look = () => exists(whilePath) ? this.enable() : this.disable();
    look();
    this.#timer = setInterval(look, LOOK_MS);
    Deno.unrefTimer(this.#timer);
  }

  /** Whether requests can be hit now. */
  get enabled(): boolean {
    return this.#enabled;
  }

  /** How many requests were hit. */
  get hits(): number {
    return this.#hits;
  }

  /** Switches the faults on. The counts of `after` and `times` go on where they were. */
  enable(): void {
    this.#enabled = true;
  }

  /** Switches the faults off, and lets what hangs go on. */
  disable(): void {
    this.#enabled = false;
    for (const { resolve } of this.#hanging) resolve();
    this.#hanging.clear();
  }

  /** Lets the request pass, or does to it what the options say. */
  protected override ask(
    request: FilteredRequest,
    next: () => Completed | Promise<Completed>,
  ): Completed | Promise<Completed> {
    if (!this.#isHit(request)) return next();
    this.#hits++;
    switch (this.#options.kind ?? "error") {
      case "error":
        throw this.#error(request);
      case "late":
        return whenDone(next(), () => {
          throw this.#error(request);
        });
      case "short":
        return this.#short(request);
      case "flip":
        return this.#flip(request, next);
      case "drop":
        return undefined;
      case "hang":
        return this.#hang().then(next);
    }
  }

  /** Fails the requests that hang: the backend must not be asked any more. */
  protected override onClose(reason: CloseReason): void | Promise<void> {
    clearInterval(this.#timer);
    const gone = new DblockError("EIO", "Cannot answer", "the disk was closed while the request hung");
    for (const { reject } of this.#hanging) reject(gone);
    this.#hanging.clear();
    return super.onClose(reason);
  }

  #hang(): Promise<void> {
    const waiting = Promise.withResolvers<void>();
    this.#hanging.add(waiting);
    return waiting.promise;
  }

  #isHit({ operation, offsetBytes, lengthBytes }: FilteredRequest): boolean {
    const { operations, place, share = 1, after = 0, times = Infinity } = this.#options;
    if (!this.#enabled || this.#hits >= times) return false;
    if (!CAN_HIT[this.#options.kind ?? "error"].includes(operation)) return false;
    if (operations !== undefined && !operations.includes(operation)) return false;
    if (place !== undefined) {
      const end = place.offsetBytes + place.lengthBytes;
      if (offsetBytes >= end || offsetBytes + lengthBytes <= place.offsetBytes) return false;
    }
    if (this.#seen++ < after) return false;
    return this.#random.chance(share);
  }

  #error({ operation, offsetBytes, lengthBytes }: FilteredRequest): DblockError {
    const { errno = "EIO" } = this.#options;
    return new DblockError(
      errno,
      `Cannot ${operation} ${lengthBytes} bytes at ${offsetBytes}`,
      "a fault was asked for",
    );
  }

  #short(request: FilteredRequest): Completed | Promise<Completed> {
    const { operation, offsetBytes, options, buffer } = request;
    if (buffer === undefined) return 0;
    const block = this.limits.blockBytes ?? 512;
    const half = Math.floor(buffer.length / 2 / block) * block;
    if (half === 0) return 0;
    const part = buffer.subarray(0, half);
    const own = requestOptions({}, options);
    const done = operation === "read"
      ? this.backend.read(part, offsetBytes, own)
      : this.backend.write(part, offsetBytes, own);
    return whenDone(done, (count) => count ?? half);
  }

  #flip(
    { operation, buffer }: FilteredRequest,
    next: () => Completed | Promise<Completed>,
  ): Completed | Promise<Completed> {
    if (buffer === undefined) return next();
    const at = this.#random.below(buffer.length);
    const flip = () => void (buffer[at] = buffer[at]! ^ (1 << this.#random.below(8)));
    if (operation === "write") flip();
    return whenDone(next(), (count) => {
      if (operation === "read") flip();
      return count;
    });
  }
}
