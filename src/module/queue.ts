// SPDX-License-Identifier: MIT
/**
 * One served queue as the main program sees it: an event loop here, or a Worker. Both are told what to serve, say when
 * they have attached, and end when the device is gone.
 */
import type { Backend } from "../disk/backend.ts";
import { Channel, openQueue } from "./channel.ts";
import type { Geometry } from "../disk/dispatch.ts";
import { DblockError, received } from "../disk/errors.ts";
import type { Profile } from "../disk/profile.ts";
import type { BackendModule, Mapping } from "../disk/servable.ts";
import { EventLoop } from "./eventloop.ts";
import type { Kernel } from "../system/libc.ts";
import type { FromWorker, ToWorker } from "./worker.ts";

/** How long the server of a queue may take to end when there is nothing to serve. */
export const STOP_MS = 5_000;

/** Which queue of which device. */
export interface QueuePlan {
  readonly name: string;
  readonly queue: number;
  readonly depth: number;
  readonly geometry: Geometry;
  /** From the server that the queue has. @default false */
  readonly takeOver?: boolean;
}

/** A queue that is being served. */
export interface ServedQueue {
  /** Settles when it is served no more: resolves when the device is gone, rejects if the server failed. */
  readonly left: Promise<void>;
  /** Settles when nothing of its server is left: a backend of its own is closed. */
  readonly ended: Promise<void>;
  /** Gives up what is left. The device should be gone. */
  stop(): void;
}

/** A queue that this thread's event loop serves. */
export class LocalQueue implements ServedQueue {
  readonly left: Promise<void>;
  readonly ended: Promise<void>;
  readonly #channel: Channel;
  readonly #attached: Promise<void>;

  /** Opens the queue's file, and attaches; `stop()` ends the wait of a take-over. */
  constructor(plan: QueuePlan, backend: Backend, kernel: Kernel, log: (message: string) => void) {
    const { name, queue, depth, geometry, takeOver = false } = plan;
    const channel = new Channel({ name, queue, depth, slotBytes: geometry.maxIoBytes, nonblocking: true, kernel });
    this.#channel = channel;
    this.#attached = (async () => takeOver ? await channel.attachAsync({ takeOver }) : channel.attach())();
    this.left = this.#attached.then(() => new EventLoop(channel, backend, geometry, log).run({ mayBlock: false }))
      .finally(() => channel[Symbol.dispose]());
    this.left.catch(() => {}); // whoever waits for it hears of it
    this.ended = this.left;
  }

  /**
   * Returns when it is served.
   *
   * @throws {DblockError} what `Channel.attach()` throws.
   */
  async attached(): Promise<void> {
    await this.#attached;
  }

  stop(): void {
    this.#channel[Symbol.dispose]();
  }
}

/** A Worker that serves one queue: `load()` if it needs a module, then `serve()`. */
export class QueueWorker implements ServedQueue {
  readonly #worker: Worker;
  readonly #log: (message: string) => void;
  readonly #kernel: Kernel;
  readonly #loaded = Promise.withResolvers<Profile>();
  readonly #attached = Promise.withResolvers<boolean>();
  readonly #left = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<void>();
  /** It has a backend, and nobody has told it to serve that. */
  #isIdle = false;
  #closed: Promise<void> | undefined;
  /** The file of the queue that it serves. */
  #fd: number | undefined;

  constructor(log: (message: string) => void, kernel: Kernel) {
    this.#log = log;
    this.#kernel = kernel;
    for (const { promise } of [this.#loaded, this.#attached, this.#left]) promise.catch(() => {});
    this.#worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    this.#worker.onmessage = (event: MessageEvent<FromWorker>) => this.#heard(event.data);
    this.#worker.onerror = (event) => {
      event.preventDefault(); // or it would end the whole program
      this.#closeFile(); // nothing of it runs any more: the kernel should know
      this.#gone(new DblockError("EIO", "A queue's Worker stopped", event.message));
    };
  }

  get left(): Promise<void> {
    return this.#left.promise;
  }

  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** Imports a backend into the Worker and returns what it can do. */
  async load(module: BackendModule): Promise<Profile> {
    this.#send({ kind: "load", href: String(module.module), data: module.data });
    return await this.#loaded.promise;
  }

  /**
   * Serves a queue: of `mapping`, or with the backend that was loaded.
   *
   * @returns once it has attached, whether its thread is an I/O flusher
   * @throws {DblockError} at once, if the queue's file cannot be opened: it is as it was then.
   */
  serve(plan: QueuePlan, mapping?: Mapping): Promise<boolean> {
    const fd = openQueue(plan.name, plan.queue, { kernel: this.#kernel });
    this.#fd = fd;
    this.#isIdle = false;
    this.#send({ kind: "serve", ...plan, fd, ...(mapping === undefined ? {} : { mapping }) });
    return this.#attached.promise;
  }

  /** Ends it. A backend that it has loaded, and does not serve, is closed before, if that takes no longer than `STOP_MS`. */
  close(): Promise<void> {
    return this.#closed ??= this.#close();
  }

  async #close(): Promise<void> {
    if (this.#isIdle) {
      this.#send({ kind: "close" });
      await settleWithin(STOP_MS, [this.ended]);
    }
    this.stop();
  }

  /** One that is in the kernel ends only when it comes back, and may use the file's number then: that stays taken. */
  stop(): void {
    this.#worker.terminate();
    if (this.#fd !== undefined) this.#kernel.abandon(this.#fd);
    this.#fd = undefined;
    this.#gone(new DblockError("ECANCELED", "A queue's Worker stopped", "it was told to"));
  }

  #send(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  #heard(message: FromWorker): void {
    switch (message.kind) {
      case "loaded":
        this.#isIdle = true;
        return this.#loaded.resolve(message.profile);
      case "attached":
        return this.#attached.resolve(message.ioFlusher);
      case "log":
        return this.#log(message.message);
      case "left":
        this.#closeFile();
        if (message.failure === undefined) return this.#left.resolve();
        return this.#failed(received(message.failure));
      case "ended":
        return this.#ended.resolve();
    }
  }

  #closeFile(): void {
    if (this.#fd !== undefined) this.#kernel.close(this.#fd);
    this.#fd = undefined;
  }

  #failed(error: DblockError): void {
    this.#loaded.reject(error);
    this.#attached.reject(error);
    this.#left.reject(error);
  }

  #gone(error: DblockError): void {
    this.#isIdle = false;
    this.#failed(error);
    this.#ended.resolve();
  }
}

/** Whether all of them settle in that time. */
export async function settleWithin(ms: number, promises: readonly Promise<unknown>[]): Promise<boolean> {
  const late = Promise.withResolvers<boolean>();
  const timer = setTimeout(late.resolve, ms, false);
  try {
    return await Promise.race([Promise.allSettled(promises).then(() => true), late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
