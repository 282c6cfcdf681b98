// SPDX-License-Identifier: MIT
/**
 * A served disk: what a program holds while its device is there, and how that ends. How it begins is in serve.ts; what
 * each state of its life may do is in life.ts.
 */
import { Channel } from "./channel.ts";
import { resize } from "./node.ts";
import { type Control, devicePath } from "./control.ts";
import { settleWithin } from "./deadline.ts";
import { BUSY_WAIT_MS, destroyOn } from "./destroy.ts";
import type { Geometry } from "../disk/dispatch.ts";
import { DblockError, describe } from "../disk/errors.ts";
import type { DeviceOrigin } from "./existing.ts";
import { type DeviceInfo, infoOn } from "./info.ts";
import type { Life } from "./life.ts";

/** How long leave() waits for what is in hand. It ends within a second then, unless the backend takes its time to close. */
const LEAVE_MS = 700;
/** How long it waits for a queue that is moving to a Worker, before that: a guess, many times what a Worker's start takes. */
const MOVE_MS = 3_000;

/** Why a device ended. */
export interface Ending {
  /**
   * - `closed`: by this program.
   * - `destroyed`: by somebody else.
   * - `left`: by this program, which left the disk for the next server (`leave()`).
   * - `replaced`: another program has taken it over, and the disk goes on.
   * - `failed`: a server could not go on. What becomes of the disk is `onDeath`.
   */
  readonly reason: "closed" | "destroyed" | "left" | "replaced" | "failed";
  /** With `failed`: why. */
  readonly error?: unknown;
}

/** How to close a device. */
export interface CloseOptions {
  /** Even if somebody has the disk open: they get I/O errors, and what they have not written is lost. @default false */
  readonly force?: boolean;
  /**
   * How long to wait for the last one to close the disk, in ms. 0: not at all; Infinity: however long it takes.
   * @default 2,000
   */
  readonly waitMs?: number;
}

/** A disk that is there. */
export interface Device extends AsyncDisposable {
  /** As it was given to `serve()`. */
  readonly name: string;
  /** "/dev/NAME". */
  readonly path: string;
  /** The device's number: no other device has it while the module is loaded, whatever has its name. */
  readonly id: number;
  /** The disk's size in bytes, as it is now: `resize()` changes it. */
  readonly sizeBytes: number;
  /** How many queues it has. */
  readonly queueCount: number;
  /** Whether it is new, or was there before: see `ServeOptions.existing`. */
  readonly origin: DeviceOrigin;
  /** Resolves, and never rejects, when this program serves the device no more and the backend is closed. */
  readonly closed: Promise<Ending>;
  /**
   * Everything the module knows of it.
   *
   * @throws {DblockError} ENOENT or ESTALE (it is gone), EMFILE.
   */
  info(): Promise<DeviceInfo>;
  /**
   * Gives the disk another size, also while it is mounted: what lies past a smaller end is lost.
   *
   * @param sizeBytes a positive multiple of the block size
   * @throws {DblockError} EOPNOTSUPP (the backend has no `resize`, is memory, or is a module), EINVAL, ENODEV (the device has ended), or what the
   * backend's `resize` throws. The disk has the size of before then, unless it has become smaller already.
   * @throws {SuppressedError} when the backend cannot go back to the size of before either: `suppressed` is why the size
   * could not be changed, `error` why the backend could not go back.
   */
  resize(sizeBytes: number): Promise<void>;
  /**
   * Destroys the device and returns when it is gone and the backend is closed. Does nothing to a device that is gone
   * already, that another server has taken over, or that `onDeath` has kept after a failure: `destroy()` removes that.
   *
   * @throws {DblockError} EBUSY if somebody has it open for longer than `waitMs`, and the device goes on; EINVAL (an option).
   */
  close(options?: CloseOptions): Promise<void>;
  /**
   * Leaves the disk for the next server, as a death of this program would, but in order: what is in hand is answered, the
   * backend is flushed and closed with the reason "left", then the module is told, so that no `fsync()` fails for it. From
   * then on the disk's I/O waits or fails, by `onDeath`. Returns within a second, unless the backend takes its time to
   * flush and close, or the disk was recovered just now and its threads have not all begun; under "hold" the next server
   * does again what could not be answered in that time. Does nothing if this program serves the disk no more.
   *
   * @throws {DblockError} EOPNOTSUPP if `onDeath` is "remove", and the device goes on.
   */
  leave(): Promise<void>;
  /**
   * `close()`, which waits for `ServeOptions.disposeWaitMs`; if somebody has the disk open for longer, logs who and forces
   * it, as nobody will be left to serve it.
   */
  [Symbol.asyncDispose](): Promise<void>;
}

/** How a disk changes its size. */
export interface Resizer {
  /** What requests are checked against. */
  readonly geometry: Geometry & { sizeBytes: number };
  /** The backend's. */
  resize(sizeBytes: number): void | Promise<void>;
}

/** What a device is served with besides its life. */
export interface ServedDeviceOptions {
  /** What requests are checked against. */
  readonly geometry: Geometry;
  /** Requests of each queue at once. */
  readonly depth: number;
  /** The disk is memory: no buffers. */
  readonly direct: boolean;
  readonly signal?: AbortSignal | undefined;
  /** Undefined if the size stays. */
  readonly resizer?: Resizer | undefined;
  /** How long asyncDispose waits for those who have it open. @default 2,000 */
  readonly disposeWaitMs?: number | undefined;
}

/** The device that `serve()` returns. */
export class ServedDevice implements Device {
  readonly name: string;
  readonly path: string;
  readonly id: number;
  readonly queueCount: number;
  readonly origin: DeviceOrigin;
  readonly closed: Promise<Ending>;
  readonly #life: Life;
  readonly #options: ServedDeviceOptions;
  readonly #undo: AsyncDisposableStack;
  /** Resolves when this program has ended the device: its queues need not say so. */
  readonly #ended = Promise.withResolvers<void>();
  /** Sizes change one after the other. */
  #resized: Promise<void> = Promise.resolve();
  /** Calls of close() that are at it, or have done it. */
  #closers = 0;
  #leaving: Promise<LeftQueues> | undefined;

  /** @param undo takes everything down again; owned from here on */
  constructor(life: Life, undo: AsyncDisposableStack, options: ServedDeviceOptions) {
    this.#life = life;
    this.#undo = undo;
    this.#options = options;
    this.name = life.name;
    this.path = devicePath(life.name);
    this.id = life.id;
    this.queueCount = life.queues.length;
    this.origin = life.origin;
    const { signal } = options;
    const abort = () => this[Symbol.asyncDispose]().catch((error) => life.log(describe(error)));
    signal?.addEventListener("abort", abort, { once: true });
    this.closed = this.#watch().finally(() => signal?.removeEventListener("abort", abort));
    if (signal?.aborted) void abort(); // an event that was before is not heard
  }

  get sizeBytes(): number {
    return this.#options.geometry.sizeBytes;
  }

  async resize(sizeBytes: number): Promise<void> {
    const { resizer, geometry } = this.#options;
    const attempted = `Cannot resize ${this.path} to ${sizeBytes} bytes`;
    if (resizer === undefined) throw new DblockError("EOPNOTSUPP", attempted, "its backend cannot be resized");
    if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % geometry.blockBytes !== 0) {
      throw new DblockError("EINVAL", attempted, `that is not a positive multiple of ${geometry.blockBytes}`);
    }
    const resized = this.#resized.then(() => this.#resizeTo(sizeBytes, resizer));
    this.#resized = resized.catch(() => {});
    await resized;
  }

  async #resizeTo(sizeBytes: number, { geometry, resize: resizeBackend }: Resizer): Promise<void> {
    const { name, id, kernel, may } = this.#life;
    const before = geometry.sizeBytes;
    if (!may.owns) {
      const wrong = "this program serves it no more";
      throw new DblockError("ENODEV", `Cannot resize ${this.path} to ${sizeBytes} bytes`, wrong);
    }
    if (sizeBytes < before) {
      await resize(name, sizeBytes, kernel, id);
      geometry.sizeBytes = sizeBytes;
      return await resizeBackend(sizeBytes);
    }
    await resizeBackend(sizeBytes);
    geometry.sizeBytes = sizeBytes;
    try {
      await resize(name, sizeBytes, kernel, id);
    } catch (error) {
      geometry.sizeBytes = before;
      await goBack(error, () => resizeBackend(before));
      throw error;
    }
  }

  async info(): Promise<DeviceInfo> {
    return await infoOn(this.#life.kernel, this.name, this.id);
  }

  async close(options: CloseOptions = {}): Promise<void> {
    if (this.#life.may.owns) {
      this.#closers++;
      let isDone = false;
      try {
        isDone = await destroyOwn(this.#life, options);
        if (isDone) this.#ended.resolve();
      } finally {
        if (!isDone) this.#closers--; // the device goes on, or its queues are about to say why it does not
      }
    }
    await this.closed;
  }

  async leave(): Promise<void> {
    const { may, keeps } = this.#life;
    if (may.owns) {
      if (!keeps) {
        throw new DblockError(
          "EOPNOTSUPP",
          `Cannot leave ${this.path}`,
          'its policy is "remove": it ends with its server',
          {
            hint: 'close it, or serve it with onDeath "hold" or "fail"',
          },
        );
      }
      this.#life.end("left"); // so that its queues' end is no failure
      this.#leaving = takeFromOwnQueues(this.#life, this.#options);
      this.#ended.resolve();
    }
    await this.closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.close({ waitMs: this.#options.disposeWaitMs ?? BUSY_WAIT_MS });
    } catch (error) {
      this.#life.log(`${describe(error)}; forcing it`);
      await this.close({ force: true });
    }
  }

  async #watch(): Promise<Ending> {
    const { queues, log } = this.#life;
    let ending: Ending;
    try {
      // A queue ends without an error only if the device is gone. Undoing waits for the others, but not for ever.
      await Promise.race([...queues.map((queue) => queue.left), this.#ended.promise]);
      this.#life.end("gone");
      ending = { reason: this.#life.state === "left" ? "left" : this.#closers > 0 ? "closed" : "destroyed" };
    } catch (error) {
      ending = this.#endOf(error);
    }
    using taken = await this.#leaving;
    try {
      await this.#undo.disposeAsync();
      // What was answered has to be there for the next server, and nobody answers any more.
      // Two calls: a module from before the second could be said refuses that alone.
      if (!this.#life.isUnsaved) {
        taken?.first?.sayFlushed();
        taken?.first?.sayLeaving();
      }
    } catch (error) {
      log(`${this.path}: ${describe(error)}`);
    }
    return ending;
  }

  /** What it means that a queue's server failed. */
  #endOf(error: unknown): Ending {
    const life = this.#life;
    if (life.state === "left") return { reason: "left" };
    // ENOTCONN: this file serves its queue no more, because another one does. Not ours to destroy then.
    if (error instanceof DblockError && error.code === "ENOTCONN") {
      life.end("replaced");
      return { reason: "replaced" };
    }
    // What a policy keeps when the process dies it also keeps when a Worker does: the next server goes on with it.
    if (life.keeps) life.end("left");
    return { reason: "failed", error };
  }
}

/** @throws {SuppressedError} if the way back fails as well: neither error may hide the other. */
async function goBack(why: unknown, back: () => void | Promise<void>): Promise<void> {
  try {
    await back();
  } catch (error) {
    throw new SuppressedError(error, why, `${describe(why)}; and its backend cannot go back: ${describe(error)}`);
  }
}

/**
 * Destroys this program's device, unless another server has it: it may have been taken over, or destroyed and made anew,
 * a moment ago. Returns whether the device is gone.
 *
 * @throws {DblockError} what `destroy()` throws.
 */
async function destroyOwn(life: Life, options: CloseOptions): Promise<boolean> {
  const { name, id, kernel } = life;
  const isOurs = async (control: Control): Promise<boolean> => {
    // A take-over keeps the device, so its number alone does not tell whose it is.
    const { server_pid } = await control.info(name, id);
    return life.may.owns && (server_pid === 0 || life.serverPid === undefined || server_pid === life.serverPid);
  };
  try {
    if (!await destroyOn(kernel, name, { ...options, id }, isOurs)) return false;
  } catch (error) {
    if (!isGone(error)) throw error; // somebody else was faster
  }
  life.end("gone");
  return true;
}

function isGone(error: unknown): boolean {
  return error instanceof DblockError && (error.code === "ENOENT" || error.code === "ESTALE");
}

/** Queues that are taken from this program's servers: to be let go when nothing of the backend is needed any more. */
interface LeftQueues extends Disposable {
  /** Undefined if they could not be taken. Who has the first queue has the device. */
  readonly first: Channel | undefined;
}

/**
 * Takes this program's own queues from their servers, as another program would: each answers what it has in hand, and is
 * given nothing new. What comes meanwhile waits for whoever serves the queues next. Takes `LEAVE_MS` at most, and `MOVE_MS`
 * before that if a queue is moving.
 */
async function takeFromOwnQueues(life: Life, options: ServedDeviceOptions): Promise<LeftQueues> {
  const { name, id, kernel } = life;
  const { depth, direct, geometry } = options;
  const channels = new DisposableStack();
  const take = async (queue: number): Promise<Channel> => {
    const slotBytes = direct ? 0 : geometry.maxIoBytes;
    const channel = channels.use(new Channel({ name, id, queue, depth, slotBytes, kernel }));
    await channel.attachAsync({ takeOver: true });
    return channel;
  };
  const takeAll = async (): Promise<Channel> => {
    const first = await take(0);
    await Promise.all(life.queues.slice(1).map((_, i) => take(i + 1)));
    return first;
  };
  if (life.moved !== undefined) await settleWithin(MOVE_MS, [life.moved]); // nobody could take it in the middle of that
  const taken = takeAll();
  const first = await settleWithin(LEAVE_MS, [taken]) ? await taken.catch(() => undefined) : undefined;
  // Otherwise the servers are given up in the middle of their work, as by a death.
  if (first === undefined) channels.dispose();
  return { first, [Symbol.dispose]: () => channels.dispose() };
}

/** What becomes of a device when this program ends with it. Never throws. */
export async function endDevice(life: Life): Promise<void> {
  if (life.may.atEnd === "destroy") {
    try {
      // False: another server has it, which its queues have not said yet.
      if (!await destroyOwn(life, { force: true })) life.end("replaced");
    } catch (error) {
      life.log(describe(error));
      life.end("left"); // the module will do what its policy says
    }
  }
  if (life.may.atEnd !== "abandon") return;
  for (const queue of life.queues) queue.abandon();
}

/** Waits until nobody serves a queue any more, for a limited time. The device should be gone, or given up. */
export async function stopQueues(life: Life): Promise<void> {
  const { stopMs } = life.may;
  if (!await settleWithin(stopMs, life.queues.map((queue) => queue.left))) {
    life.log(
      `${devicePath(life.name)}: a queue's server has not returned from the kernel or its backend after ` +
        `${stopMs / 1000} s; what it uses is kept until the program ends`,
    );
  }
  for (const queue of life.queues) queue.stop();
}
