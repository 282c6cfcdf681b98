// SPDX-License-Identifier: MIT
/**
 * One served queue as the main program sees it: an event loop here, or a Worker. Both are told what to serve, say when
 * they have attached, and end when the device is gone.
 */
import type { BackendModule, Mapping, Profile } from "./backend.ts";
import { Channel } from "./channel.ts";
import type { Dispatcher, Geometry } from "./dispatch.ts";
import { DblockError } from "./errors.ts";
import { EventLoop } from "./eventloop.ts";
import { abandonFile, type Kernel, linux } from "./libc.ts";
import type { FromWorker, ToWorker } from "./worker.ts";

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
  /** Settles when nobody serves it any more: resolves when the device is gone, rejects if the server failed. */
  readonly ended: Promise<void>;
  /** Gives up what is left. The device should be gone. */
  stop(): void;
}

/** A queue that this thread's event loop serves. */
export class LocalQueue implements ServedQueue {
  readonly ended: Promise<void>;
  readonly #channel: Channel;
  readonly #attached: Promise<void>;

  /** Opens the queue's file, and attaches; `stop()` ends the wait of a take-over. */
  constructor(plan: QueuePlan, dispatcher: Dispatcher, kernel: Kernel) {
    const { name, queue, depth, geometry, takeOver = false } = plan;
    const channel = new Channel({ name, queue, depth, slotBytes: geometry.maxIoBytes, nonblocking: true, kernel });
    this.#channel = channel;
    this.#attached = (async () => takeOver ? await channel.attachAsync({ takeOver }) : channel.attach())();
    this.ended = this.#attached.then(() => new EventLoop(channel, dispatcher).run({ mayBlock: false }))
      .finally(() => channel[Symbol.dispose]());
    this.ended.catch(() => {}); // whoever waits for it hears of it
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
  readonly #loaded = Promise.withResolvers<Profile>();
  readonly #attached = Promise.withResolvers<boolean>();
  readonly #ended = Promise.withResolvers<void>();
  /** The queue's open file, as long as the Worker has not closed it itself. */
  #fd: number | undefined;

  constructor(log: (message: string) => void) {
    this.#log = log;
    for (const { promise } of [this.#loaded, this.#attached]) promise.catch(() => {});
    this.#ended.promise.catch(() => {});
    this.#worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    this.#worker.onmessage = (event: MessageEvent<FromWorker>) => this.#heard(event.data);
    this.#worker.onerror = (event) => {
      event.preventDefault(); // or it would end the whole program
      this.#failed(new DblockError("EIO", "A queue's Worker stopped", event.message));
      this.#closeFile(linux.close); // nothing of it runs any more: the kernel should know
    };
  }

  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** Imports a backend into the Worker and returns what it can do. */
  async load(module: BackendModule): Promise<Profile> {
    this.#send({ kind: "load", href: module.module.href, data: module.data });
    return await this.#loaded.promise;
  }

  /**
   * Serves a queue: of `mapping`, or with the backend that was loaded.
   *
   * @returns once it has attached, whether its thread is an I/O flusher
   */
  async serve(plan: QueuePlan, mapping?: Mapping): Promise<boolean> {
    this.#send({ kind: "serve", ...plan, ...(mapping === undefined ? {} : { mapping }) });
    return await this.#attached.promise;
  }

  stop(): void {
    this.#worker.terminate();
    this.#closeFile(abandonFile);
    this.#failed(new DblockError("ECANCELED", "A queue's Worker stopped", "it was told to"));
  }

  #send(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  #heard(message: FromWorker): void {
    switch (message.kind) {
      case "loaded":
        return this.#loaded.resolve(message.profile);
      case "opened":
        this.#fd = message.fd;
        return;
      case "closed":
        this.#fd = undefined;
        return;
      case "attached":
        return this.#attached.resolve(message.ioFlusher);
      case "log":
        return this.#log(message.message);
      case "ended":
        return this.#ended.resolve();
      case "failed":
        return this.#failed(DblockError.received(message.errno, message.message));
    }
  }

  /**
   * A file belongs to the process: a Worker that ends without a word leaves it open. One that is in the kernel ends only
   * when it comes back, and then closes the number itself.
   */
  #closeFile(close: (fd: number) => void): void {
    if (this.#fd !== undefined) close(this.#fd);
    this.#fd = undefined;
  }

  #failed(error: DblockError): void {
    this.#loaded.reject(error);
    this.#attached.reject(error);
    this.#ended.reject(error);
  }
}
