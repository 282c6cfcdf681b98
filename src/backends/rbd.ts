// SPDX-License-Identifier: MIT
/** A disk in a Ceph cluster: an image of RBD, by librbd. */
import type { Backend, Completed, Extent, Limits, RequestOptions } from "../disk/backend.ts";
import { DblockError } from "../disk/errors.ts";
import { type PolledBackend, putPolled } from "../disk/late.ts";
import { RBD_WRITE_ZEROES_FLAG_THICK_PROVISION } from "../system/ceph.ts";
import { type RbdAddress, RbdImage } from "./rbd_image.ts";
import { RbdLock } from "./rbd_lock.ts";

const KIB = 2 ** 10;
const MIB = 2 ** 20;
const DEFAULT_CONNECT_TIMEOUT_MS = 10_000;
/** librbd's own default of rbd_discard_granularity_bytes. */
const DISCARD_GRANULARITY_BYTES = 64 * KIB;
const IO_BYTES_MAX = MIB;
const OPTIMAL_IO_BYTES_MAX = 4 * MIB;

/** Options of `RbdBackend.open()`. */
export interface RbdBackendOptions extends RbdAddress {
  /** Refuse writes; a snapshot is read-only in any case, and takes no lock. @default false */
  readonly readOnly?: boolean;
  /**
   * Answer writes before the cluster has them (librbd's cache). Faster for few writers; then the disk has a `flush`, and
   * this process' death loses what was not flushed. Without it an answered write is in the cluster.
   * @default false
   */
  readonly cache?: boolean;
  /**
   * Take the image from whoever has its lock, and shut that client out of the cluster. Not needed after the death of a
   * server on this machine: that is noticed. @default false
   */
  readonly fence?: boolean;
  /**
   * When to take the image's lock: before `open()` returns, or with the first request. The latter is for a take-over: the
   * server before has the lock until then.
   * @default "now"
   */
  readonly lock?: "now" | "first-request";
  /** Bound on the way to the cluster, in ms, at least 1,000. @default 10,000 */
  readonly connectTimeoutMs?: number;
}

/** What an image is like, and how it was opened. */
interface Traits {
  readonly sizeBytes: number;
  readonly objectBytes: number;
  readonly readOnly: boolean;
  readonly cache: boolean;
}

/**
 * A disk in a Ceph cluster. Only one server at a time writes an image: it holds the image's exclusive lock. A server that
 * goes on with the disk of a dead one shuts the dead one out of the cluster first (blocklist), so nothing of it arrives late.
 *
 * Requests wait while the cluster has no monitor, or too few OSDs; give the device a long timeout, or none.
 *
 * ```ts no-run
 * import { RbdBackend } from "./rbd.ts";
 * import { serve } from "../module/serve.ts";
 *
 * const image = await RbdBackend.open({ pool: "rbd", image: "disk0" });
 * await using device = await serve(image, { name: "disk0", onDeath: "hold", timeoutMs: 0 });
 * await device.closed;
 * ```
 */
export class RbdBackend implements Backend {
  readonly limits: Limits;
  readonly readOnly: boolean;
  readonly cacheSurvives = false;
  /** Only with `cache`: without it an answered write is durable. */
  readonly flush?: () => Promise<Completed>;
  readonly #image: RbdImage;
  readonly #lock: RbdLock | undefined;
  #locked: Promise<void> | undefined;
  #sizeBytes: number;
  /** The disk that this one is a view of, for the thread that collects its answers. */
  readonly #whole: RbdBackend | undefined;
  #isPolled = false;

  private constructor(image: RbdImage, lock: RbdLock | undefined, traits: Traits, whole?: RbdBackend) {
    const { sizeBytes, objectBytes, readOnly, cache } = traits;
    this.#image = image;
    this.#lock = lock;
    this.#whole = whole;
    if (whole === undefined) putPolled(this, () => this.#openPolled(traits));
    this.#sizeBytes = sizeBytes;
    this.readOnly = readOnly;
    const optimalIoBytes = Math.min(objectBytes, OPTIMAL_IO_BYTES_MAX);
    this.limits = {
      maxIoBytes: IO_BYTES_MAX,
      optimalIoBytes,
      discardGranularityBytes: Math.min(DISCARD_GRANULARITY_BYTES, objectBytes),
    };
    if (cache) {
      this.flush = () =>
        this.#call("Cannot flush", undefined, (c) => this.#image.calls.rbd_aio_flush(this.#image.handle, c));
    }
  }

  /**
   * Connects to the cluster, opens the image and takes its lock.
   *
   * @throws {DblockError} ENOENT (library, configuration, pool, image, snapshot), EACCES (key, capabilities), ETIMEDOUT (the
   * cluster does not answer), EBUSY (another server has the image), EINVAL (the image cannot be locked).
   */
  static async open(options: RbdBackendOptions): Promise<RbdBackend> {
    const { cache = false, connectTimeoutMs = DEFAULT_CONNECT_TIMEOUT_MS } = options;
    const readOnly = options.readOnly === true || options.snapshot !== undefined;
    if (!(connectTimeoutMs >= 1_000 && connectTimeoutMs <= 3_600_000)) {
      throw new RangeError(`connectTimeoutMs is 1,000 to 3,600,000, not ${connectTimeoutMs}`);
    }
    const image = await RbdImage.open(options, { readOnly, cache, timeoutMs: connectTimeoutMs });
    try {
      return await RbdBackend.ofImage(image, { ...options, readOnly });
    } catch (error) {
      await image.close();
      throw error;
    }
  }

  /**
   * The disk of an image that is open. `open()` is for everybody else.
   *
   * @throws {DblockError} EBUSY, EINVAL, as `open()` does.
   */
  static async ofImage(
    image: RbdImage,
    options: Pick<RbdBackendOptions, "cache" | "fence" | "lock" | "readOnly">,
  ): Promise<RbdBackend> {
    const { cache = false, fence = false, readOnly = false } = options;
    const later = options.lock === "first-request";
    const attempted = `Cannot open rbd:${image.name}`;
    const { calls, handle } = image;
    const out = new BigUint64Array(1);
    const number = async (call: Promise<number>): Promise<number> => {
      const code = await call;
      if (code < 0) throw new DblockError(-code, attempted);
      return Number(out[0]!);
    };
    const sizeBytes = await number(calls.rbd_get_size(handle, out));
    const objectBytes = await number(calls.rbd_get_stripe_unit(handle, out));
    const lock = readOnly ? undefined : await RbdLock.of(image, attempted, { fence, waits: later });
    const backend = new RbdBackend(image, lock, { sizeBytes, objectBytes, readOnly, cache });
    if (!later) await backend.#acquire();
    return backend;
  }

  /** Size of the image, in bytes. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Fills `buffer` from the image. */
  read(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number): Promise<Completed> {
    const { calls, handle } = this.#image;
    return this.#call(
      "Cannot read",
      buffer,
      (c) => calls.rbd_aio_read(handle, BigInt(offsetBytes), BigInt(buffer.length), buffer, c),
    );
  }

  /** Puts `buffer` into the image. */
  write(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number): Promise<Completed> {
    const { calls, handle } = this.#image;
    return this.#call(
      "Cannot write",
      buffer,
      (c) => calls.rbd_aio_write(handle, BigInt(offsetBytes), BigInt(buffer.length), buffer, c),
    );
  }

  /** Gives a range back to the cluster; parts of it below the granularity keep their content. */
  discard(offsetBytes: number, lengthBytes: number): Promise<Completed> {
    const { calls, handle } = this.#image;
    return this.#call(
      "Cannot discard",
      undefined,
      (c) => calls.rbd_aio_discard(handle, BigInt(offsetBytes), BigInt(lengthBytes), c),
    );
  }

  /** Makes a range read as zeroes. */
  writeZeroes(offsetBytes: number, lengthBytes: number, { keepAllocated }: RequestOptions): Promise<Completed> {
    const { calls, handle } = this.#image;
    const flags = keepAllocated ? RBD_WRITE_ZEROES_FLAG_THICK_PROVISION : 0;
    return this.#call(
      "Cannot zero",
      undefined,
      (c) => calls.rbd_aio_write_zeroes(handle, BigInt(offsetBytes), BigInt(lengthBytes), c, flags, 0),
    );
  }

  /** Gives the image another size; what is beyond a smaller one is lost. */
  async resize(sizeBytes: number): Promise<void> {
    await this.#acquire();
    const code = await this.#image.calls.rbd_resize2(this.#image.handle, BigInt(sizeBytes), true, 0n, 0n);
    if (code < 0) throw new DblockError(-code, `Cannot resize rbd:${this.#image.name} to ${sizeBytes} bytes`);
    this.#sizeBytes = sizeBytes;
  }

  /** What the cluster has stored of a range; everything else is a hole. */
  async extents(offsetBytes: number, lengthBytes: number): Promise<Extent[]> {
    const extents: Extent[] = [];
    let at = offsetBytes;
    const add = (kind: Extent["kind"], to: number) => {
      if (to > at) extents.push({ lengthBytes: to - at, kind });
      at = Math.max(at, to);
    };
    const definition = { parameters: ["u64", "usize", "i32", "usize"], result: "i32" } as const;
    const callback = Deno.UnsafeCallback.threadSafe(definition, (offset, length, exists) => {
      if (exists === 0) return 0;
      add("hole", Number(offset));
      add("data", Math.min(Number(offset) + Number(length), offsetBytes + lengthBytes));
      return 0;
    });
    try {
      const [from, length] = [BigInt(offsetBytes), BigInt(lengthBytes)];
      const { calls, handle } = this.#image;
      const code = await calls.rbd_diff_iterate2(handle, 0n, from, length, 1, 1, callback.pointer, 0n);
      if (code < 0) throw new DblockError(-code, `Cannot list what rbd:${this.#image.name} has stored`);
    } finally {
      callback.close();
    }
    add("hole", offsetBytes + lengthBytes);
    return extents;
  }

  /** Gives the lock back and leaves the cluster. */
  async close(): Promise<void> {
    await this.#locked?.catch(() => {}); // a lock that cannot be had need not be given back
    await this.#lock?.release();
    await this.#image.close();
  }

  /** Once: of two who collect an image's answers, one would wait for what the other has taken. */
  #openPolled(traits: Traits): PolledBackend | undefined {
    if (this.#isPolled) return undefined;
    this.#isPolled = true;
    return { backend: new RbdBackend(this.#image, this.#lock, traits, this), answers: this.#image };
  }

  #call(what: string, buffer: Uint8Array | undefined, start: (completion: bigint) => number): Promise<Completed> {
    if (this.#lock === undefined || this.#lock.isHeld === true) {
      if (this.#whole !== undefined && this.#image.isTurn) return this.#image.begin(what, buffer, start).asPromise();
      return this.#image.call(what, buffer, start);
    }
    return (this.#whole ?? this).#acquire().then(() => this.#image.call(what, buffer, start));
  }

  /** Gets the lock, once for all who ask meanwhile. One that could not be had is asked for again by the next request. */
  async #acquire(): Promise<void> {
    if (this.#lock === undefined || this.#lock.isHeld) return;
    this.#locked ??= this.#lock.acquire().finally(() => this.#locked = undefined);
    await this.#locked;
  }
}
