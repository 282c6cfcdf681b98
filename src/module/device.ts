// SPDX-License-Identifier: MIT
/**
 * A served disk: what a program holds while its device is there, and how that ends. How it begins is in serve.ts.
 */
import { Control, devicePath } from "./control.ts";
import { resize } from "./channel.ts";
import { destroy } from "./destroy.ts";
import type { Geometry } from "../disk/dispatch.ts";
import { DblockError, describe } from "../disk/errors.ts";
import type { Origin } from "./existing.ts";
import { type DeviceInfo, infoOn } from "./info.ts";
import type { Kernel } from "../system/libc.ts";
import { type ServedQueue, settleWithin, STOP_MS } from "./queue.ts";

/** How long another server may take to have all queues after the first: it waits for what is still to be answered. */
const HAND_OVER_MS = 60_000;

/** Why a device ended. */
export interface Ending {
  /**
   * `closed`: by this program; `destroyed`: by somebody else; `replaced`: another program has taken it over, and the disk
   * goes on; `failed`: a server could not go on.
   */
  readonly reason: "closed" | "destroyed" | "replaced" | "failed";
  /** With `failed`: why. */
  readonly error?: unknown;
}

/** A disk that is there. */
export interface Device extends AsyncDisposable {
  readonly name: string;
  /** "/dev/NAME". */
  readonly path: string;
  /** As it is now. */
  readonly sizeBytes: number;
  readonly queueCount: number;
  /** Whether it is new, or was there before: see `ServeOptions.existing`. */
  readonly origin: Origin;
  /** Resolves, and never rejects, when the device has ended and the backend is closed. */
  readonly closed: Promise<Ending>;
  /** Everything the kernel knows of it. */
  info(): Promise<DeviceInfo>;
  /**
   * Gives the disk another size, also while it is mounted: what lies past a smaller end is lost.
   *
   * @param sizeBytes a multiple of the block size
   * @throws {DblockError} EOPNOTSUPP (the backend has no `resize`), EINVAL, ENODEV (the device has ended), or what the backend's `resize` throws;
   * the disk has the size of before then, unless that happens when it has become smaller already.
   */
  resize(sizeBytes: number): Promise<void>;
  /**
   * Destroys the device and returns when it is gone. Does nothing if it is gone already, or another server's: one that
   * `onDeath` has kept after a failure stays for the next, and `destroy()` removes it.
   *
   * @param options.force even if somebody has it open
   * @throws {DblockError} EBUSY if somebody has it open for more than 2 s; the device goes on.
   */
  close(options?: { readonly force?: boolean }): Promise<void>;
  /** `close()`; and if somebody has it open, logs who and forces it, as nobody will be left to serve it. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** How a disk changes its size. */
export interface Resizer {
  /** What requests are checked against. */
  readonly geometry: Geometry & { sizeBytes: number };
  /** The backend's. */
  resize(sizeBytes: number): void | Promise<void>;
}

/** What has to be known to take a device down, from the moment it is created. */
export interface Life {
  readonly name: string;
  readonly kernel: Kernel;
  readonly log: (message: string) => void;
  readonly queues: ServedQueue[];
  origin: Origin;
  /** To be destroyed when it cannot be served. Another server's is not, before this one has started it. */
  ours: boolean;
  /** Its policy keeps it when its server dies. */
  keeps: boolean;
  /** This process, as INFO names it; undefined before START. */
  serverPid: number | undefined;
  /** The kernel has let go of it: the name may be another device's by now. */
  gone: boolean;
  /** Another server has it, or is about to have all of it. */
  replaced: boolean;
  /** Somebody may still be in the kernel with addresses of the backend: its memory has to stay. */
  abandoned: boolean;
}

/** The device that `serve()` returns. */
export class ServedDevice implements Device {
  readonly name: string;
  readonly path: string;
  readonly queueCount: number;
  readonly origin: Origin;
  readonly closed: Promise<Ending>;
  readonly #life: Life;
  readonly #undo: AsyncDisposableStack;
  readonly #destroyed = Promise.withResolvers<void>();
  readonly #geometry: Geometry;
  readonly #resizer: Resizer | undefined;
  /** Sizes change one after the other. */
  #resized: Promise<void> = Promise.resolve();
  /** Calls of close() that are at it, or have done it. */
  #closers = 0;

  /**
   * @param undo takes everything down again; owned from here on
   * @param resizer undefined if the size stays
   */
  constructor(
    life: Life,
    geometry: Geometry,
    undo: AsyncDisposableStack,
    options: { readonly signal?: AbortSignal | undefined; readonly resizer?: Resizer | undefined },
  ) {
    const { signal } = options;
    this.#geometry = geometry;
    this.#resizer = options.resizer;
    this.#life = life;
    this.#undo = undo;
    this.name = life.name;
    this.path = devicePath(life.name);
    this.queueCount = life.queues.length;
    this.origin = life.origin;
    const abort = () => this[Symbol.asyncDispose]().catch((error) => life.log(describe(error)));
    signal?.addEventListener("abort", abort, { once: true });
    this.closed = this.#watch().finally(() => signal?.removeEventListener("abort", abort));
    if (signal?.aborted) void abort(); // an event that was before is not heard
  }

  get sizeBytes(): number {
    return this.#geometry.sizeBytes;
  }

  async resize(sizeBytes: number): Promise<void> {
    const resizer = this.#resizer;
    const attempted = `Cannot resize ${this.path} to ${sizeBytes} bytes`;
    if (resizer === undefined) throw new DblockError("EOPNOTSUPP", attempted, "its backend cannot be resized");
    const { blockBytes } = this.#geometry;
    if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % blockBytes !== 0) {
      throw new DblockError("EINVAL", attempted, `that is not a positive multiple of ${blockBytes}`);
    }
    const resized = this.#resized.then(() => this.#resizeTo(sizeBytes, resizer));
    this.#resized = resized.catch(() => {});
    await resized;
  }

  async #resizeTo(sizeBytes: number, { geometry, resize: resizeBackend }: Resizer): Promise<void> {
    const { name, kernel } = this.#life;
    const before = geometry.sizeBytes;
    if (!this.#isServed) {
      const wrong = "this program serves it no more";
      throw new DblockError("ENODEV", `Cannot resize ${this.path} to ${sizeBytes} bytes`, wrong);
    }
    if (sizeBytes < before) {
      await resize(name, sizeBytes, kernel);
      geometry.sizeBytes = sizeBytes;
      return await resizeBackend(sizeBytes);
    }
    await resizeBackend(sizeBytes);
    geometry.sizeBytes = sizeBytes;
    try {
      await resize(name, sizeBytes, kernel);
    } catch (error) {
      geometry.sizeBytes = before;
      await resizeBackend(before);
      throw error;
    }
  }

  async info(): Promise<DeviceInfo> {
    return await infoOn(this.#life.kernel, this.name);
  }

  async close(options: { readonly force?: boolean } = {}): Promise<void> {
    if (this.#isServed) {
      this.#closers++;
      try {
        if (await destroyOurs(this.#life, options)) this.#end();
        else this.#closers--; // the queues are about to say why
      } catch (error) {
        this.#closers--;
        if (!isGone(error)) throw error;
        this.#end(); // somebody else was faster
      }
    }
    await this.closed;
  }

  #end(): void {
    this.#life.gone = true;
    this.#destroyed.resolve();
  }

  get #isServed(): boolean {
    return !this.#life.gone && this.#life.ours;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.close();
    } catch (error) {
      this.#life.log(`${describe(error)}; forcing it`);
      await this.close({ force: true });
    }
  }

  async #watch(): Promise<Ending> {
    const { queues, log } = this.#life;
    let ending: Ending;
    try {
      // A queue ends only with the device. Undoing waits for the others, but not for ever.
      await Promise.race([...queues.map((queue) => queue.left), this.#destroyed.promise]);
      this.#life.gone = true;
      ending = { reason: this.#closers > 0 ? "closed" : "destroyed" };
    } catch (error) {
      // ENOTCONN: this file serves its queue no more, because another one does. Not ours to destroy then.
      const replaced = error instanceof DblockError && error.code === "ENOTCONN";
      this.#life.gone ||= replaced;
      this.#life.replaced = replaced;
      // What a policy keeps when the process dies it also keeps when a Worker does: the next server goes on with it.
      if (!replaced && this.#life.keeps) this.#life.ours = false;
      ending = replaced ? { reason: "replaced" } : { reason: "failed", error };
    }
    try {
      await this.#undo.disposeAsync();
    } catch (error) {
      log(`${this.path}: ${describe(error)}`);
    }
    return ending;
  }
}

/**
 * Destroys the device, unless its name has another server: it may have been taken over, or destroyed and made anew, a
 * moment ago. False if that is so.
 *
 * @throws {DblockError} what `destroy()` throws.
 */
async function destroyOurs(life: Life, options: { readonly force?: boolean }): Promise<boolean> {
  const { name, kernel, serverPid } = life;
  if (serverPid !== undefined) {
    using control = await Control.open(`Cannot destroy ${devicePath(name)}`, kernel);
    const { server_pid } = await control.info(name);
    if (server_pid !== 0 && server_pid !== serverPid) return false;
  }
  await destroy(name, { ...options, kernel });
  return true;
}

function isGone(error: unknown): boolean {
  return error instanceof DblockError && error.code === "ENOENT";
}

/** Destroys a device that its server cannot serve any more. Never throws. */
export async function destroyLeftover(life: Life): Promise<void> {
  if (life.gone) return;
  if (!life.ours) {
    // It stays for the next server. A Worker may be on its way out of the kernel yet.
    life.abandoned = true;
    for (const queue of life.queues) queue.stop();
    return;
  }
  try {
    await destroyOurs(life, { force: true });
  } catch (error) {
    if (!isGone(error)) life.log(describe(error));
  } finally {
    life.gone = true;
  }
}

/** Waits until nobody serves a queue any more, for a limited time. The device should be gone. */
export async function stopQueues(life: Life): Promise<void> {
  const ended = life.queues.map((queue) => queue.ended);
  if (!await settleWithin(life.replaced ? HAND_OVER_MS : STOP_MS, ended)) {
    life.abandoned = true;
    life.log(`${devicePath(life.name)}: a queue's server does not return; its memory is kept until the program ends`);
  }
  for (const queue of life.queues) queue.stop();
}
