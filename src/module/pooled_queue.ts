// SPDX-License-Identifier: MIT
/** A queue that a Worker of a pool serves, as the main program sees it: the Worker goes on with its other queues. */
import type { CloseReason } from "../disk/backend.ts";
import { type DblockError, received } from "../disk/errors.ts";
import { type Log, logOf } from "../disk/log.ts";
import type { Profile } from "../disk/profile.ts";
import type { BackendModule } from "../disk/servable.ts";
import { type Kernel, O_NONBLOCK } from "../system/libc.ts";
import { devicePath } from "./control.ts";
import { settleWithin } from "./deadline.ts";
import { openQueue } from "./node.ts";
import type { QueuePlan, QueueServer, WorkerOptions } from "./queue.ts";
import type { FromWorker } from "./worker.ts";
import type { Listener, Thread } from "./worker_pool.ts";

/** One queue of a Worker that has several. */
export class PooledQueue implements QueueServer, Listener {
  readonly #thread: Thread;
  readonly #key: number;
  readonly #name: string;
  readonly #log: Log;
  readonly #kernel: Kernel;
  readonly #loaded = Promise.withResolvers<Profile>();
  readonly #attached = Promise.withResolvers<boolean>();
  readonly #left = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<boolean>();
  /** It has a backend, or will have one, which wants to be closed. */
  #isLoaded = false;
  #isLoading = false;
  #isServing = false;
  #hasLeft = false;
  #isOver = false;
  #closed: Promise<boolean> | undefined;
  /** The queue's file, until the Worker has left. */
  #fd: number | undefined;
  #isAbandoned = false;

  /** @param name of the device, for what is logged */
  constructor(thread: Thread, name: string, log: Log, kernel: Kernel) {
    this.#thread = thread;
    this.#name = name;
    this.#log = log;
    this.#kernel = kernel;
    for (const { promise } of [this.#loaded, this.#attached, this.#left]) promise.catch(() => {});
    this.#key = thread.listen(this);
  }

  get left(): Promise<void> {
    return this.#left.promise;
  }

  get hasLeft(): boolean {
    return this.#hasLeft;
  }

  async load(module: BackendModule): Promise<Profile> {
    this.#thread.send(this.#key, { kind: "load", href: String(module.module), data: module.data });
    this.#isLoading = true;
    try {
      return await this.#loaded.promise;
    } finally {
      this.#isLoading = false;
    }
  }

  /**
   * Serves a queue: of a mapping, or with the backend that was loaded.
   *
   * @throws {DblockError} at once, if the queue's file cannot be opened.
   */
  serve(plan: QueuePlan, options: WorkerOptions = {}): Promise<boolean> {
    if (this.#isOver) return this.#attached.promise;
    const fd = this.#fd = openQueue(plan.name, plan.queue, { kernel: this.#kernel, flags: O_NONBLOCK });
    this.#isServing = true;
    this.#thread.send(this.#key, { kind: "serve", ...plan, ...options, fd });
    return this.#attached.promise;
  }

  /** Closes the file at once: the kernel takes nothing from the Worker any more. */
  abandon(): void {
    if (this.#fd === undefined || this.#isAbandoned) return;
    this.#isAbandoned = true;
    this.#kernel.abandon(this.#fd); // the Worker still uses the number
    if (!this.#isOver) this.#thread.send(this.#key, { kind: "look" });
  }

  stop(): void {
    this.abandon();
  }

  /**
   * Closes a backend that was loaded, and has nothing to do with the Worker any more.
   *
   * @param timeoutMs how long the backend may take; 0: however long
   * @returns whether no backend is left that was not closed, or not without an error
   */
  close(reason: CloseReason, timeoutMs: number): Promise<boolean> {
    return this.#closed ??= this.#close(reason, timeoutMs);
  }

  async #close(reason: CloseReason, timeoutMs: number): Promise<boolean> {
    let isSaved = !this.#isLoaded;
    if (this.#isLoaded && !this.#isOver && this.#hasLeft === this.#isServing) {
      this.#thread.send(this.#key, { kind: "close", reason });
      if (await settleWithin(timeoutMs, [this.#ended.promise])) isSaved = await this.#ended.promise;
      else {
        this.#log(
          `${devicePath(this.#name)}: close() of the backend has not returned after ${
            timeoutMs / 1000
          } s: it is not waited ` +
            "for any longer (see closeTimeoutMs)",
        );
      }
    }
    // Nobody has used it. It may take its time to be there, and is not waited for.
    if (this.#isLoading && !this.#isOver) this.#thread.send(this.#key, { kind: "close", reason });
    // One that is still in its Worker's hands is heard of until it has left.
    if (this.#fd === undefined) this.#thread.forget(this.#key);
    return isSaved;
  }

  heard(message: FromWorker): void {
    switch (message.kind) {
      case "loaded":
        this.#isLoaded = true;
        return this.#loaded.resolve(message.profile);
      case "attached":
        return this.#attached.resolve(message.ioFlusher);
      case "log":
        return logOf(this.#log, devicePath(this.#name), this.#name)(message.message, message.fields);
      case "left":
        this.#closeFile();
        if (message.failure === undefined) return this.#left.resolve();
        return this.#failed(received(message.failure));
      case "ended":
        return this.#ended.resolve(message.isSaved);
    }
  }

  /** The kernel should know, and nobody uses the file's number. */
  died(error: DblockError): void {
    this.#closeFile();
    this.#hasLeft = true;
    this.#over(error);
  }

  /** A thread that is in the kernel ends only when it comes back, and may use the file's number then: that stays taken. */
  terminated(error: DblockError): void {
    this.#isOver = true;
    this.abandon();
    this.#over(error);
  }

  #over(error: DblockError): void {
    this.#isOver = true;
    this.#failed(error);
    this.#ended.resolve(false);
    this.#thread.forget(this.#key);
  }

  #closeFile(): void {
    if (this.#fd !== undefined) this.#kernel.close(this.#fd);
    this.#fd = undefined;
    this.#hasLeft = this.#isServing;
    if (this.#closed !== undefined) this.#thread.forget(this.#key);
  }

  #failed(error: DblockError): void {
    this.#loaded.reject(error);
    this.#attached.reject(error);
    this.#left.reject(error);
  }
}
