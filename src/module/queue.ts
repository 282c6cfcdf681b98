// SPDX-License-Identifier: MIT
/**
 * One served queue as the main program sees it: an event loop here, or a Worker. Both are told what to serve, say when
 * they have attached, and end when the device is gone.
 */
import type { Backend, CloseReason } from "../disk/backend.ts";
import { Channel } from "./channel.ts";
import { openQueue } from "./node.ts";
import { devicePath } from "./control.ts";
import { settleWithin } from "./deadline.ts";
import type { Geometry } from "../disk/dispatch.ts";
import { DblockError, received } from "../disk/errors.ts";
import { openPolled } from "../disk/late.ts";
import { type Log, logOf } from "../disk/log.ts";
import { meterOf, putMeter } from "../disk/meter.ts";
import type { Profile } from "../disk/profile.ts";
import type { BackendModule, Mapping } from "../disk/servable.ts";
import { EventLoop } from "./eventloop.ts";
import { PolledLoop } from "./polled_loop.ts";
import { Rounds } from "./rounds.ts";
import { type Kernel, setBatchScheduling } from "../system/libc.ts";
import type { PollFiles } from "../system/waiting.ts";
import type { FromWorker, ToWorker } from "./worker.ts";

/** How long the server of a queue may take to come back from the kernel when there is nothing to serve. */
export const STOP_MS = 5_000;

/** Which queue of which device. */
export interface QueuePlan {
  readonly name: string;
  /** Which device, whatever has its name. */
  readonly id: number;
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
  /** Whether that has happened: nothing of the server is in the kernel any more. */
  readonly hasLeft: boolean;
  /** Gives the queue up: what its server still answers is refused. The server leaves. */
  abandon(): void;
  /** Ends what has not left by now. */
  stop(): void;
}

/** A queue that this thread's event loop serves. */
export class LocalQueue implements ServedQueue {
  readonly left: Promise<void>;
  #hasLeft = false;
  readonly #channel: Channel;
  /** Once it has attached. */
  #server: EventLoop | PolledLoop | undefined;
  readonly #attached: Promise<void>;

  /**
   * Opens the queue's file, and attaches; `stop()` ends the wait of a take-over.
   *
   * @param isOnly the device has no other queue: this thread may wait for the backend's answers
   */
  constructor(plan: QueuePlan, backend: Backend, kernel: Kernel, log: Log, isOnly = false) {
    const { name, id, queue, depth, geometry, takeOver = false } = plan;
    const polled = isOnly ? openPolled(backend) : undefined;
    const rounds = Rounds.of(kernel);
    const channel = new Channel({
      name,
      id,
      queue,
      depth,
      slotBytes: geometry.maxIoBytes,
      nonblocking: true,
      event: polled === undefined ? rounds.openEvent() : kernel.openEvent(),
      kernel,
    });
    this.#channel = channel;
    const attach = async (): Promise<EventLoop | PolledLoop> => {
      if (takeOver) await channel.attachAsync({ takeOver });
      else channel.attach();
      channel.watch(); // before there is I/O: it may fail for lack of descriptors
      setBatchScheduling();
      const diskLog = logOf(log, devicePath(name), name);
      if (polled === undefined) return new EventLoop(channel, backend, geometry, diskLog, rounds);
      const meter = meterOf(backend);
      if (meter !== undefined) putMeter(polled.backend, meter);
      return new PolledLoop(channel, polled, geometry, diskLog, kernel);
    };
    const attached = attach().then((server) => this.#server = server);
    this.#attached = attached.then(() => {});
    this.left = attached.then((server) => server.run())
      .finally(() => {
        this.#hasLeft = true;
        channel[Symbol.dispose]();
      });
    for (const promise of [this.#attached, this.left]) promise.catch(() => {}); // whoever waits for it hears of it
  }

  get hasLeft(): boolean {
    return this.#hasLeft;
  }

  /**
   * Returns when it is served.
   *
   * @throws {DblockError} what `Channel.attach()` throws; EMFILE.
   */
  async attached(): Promise<void> {
    await this.#attached;
  }

  abandon(): void {
    this.#server?.leave();
    this.#channel[Symbol.dispose]();
  }

  stop(): void {
    this.abandon();
  }
}

/** How a Worker serves its queue. */
export interface WorkerOptions {
  /** The disk's memory; without it, the backend that was loaded. */
  readonly mapping?: Mapping;
  /** dblock.ko reads and writes the file of the backend that was loaded. @default false */
  readonly fromFile?: boolean;
  /** It never waits in the kernel, so that timers and ports of its backend run. @default false */
  readonly eventLoop?: boolean;
}

/** Somebody in another thread who can serve a queue. */
export interface QueueServer extends ServedQueue {
  /** Imports a backend and returns what it can do. */
  load(module: BackendModule): Promise<Profile>;
  /** Serves a queue; resolves once it has attached, to whether its thread is an I/O flusher. */
  serve(plan: QueuePlan, options?: WorkerOptions): Promise<boolean>;
  /** Closes a backend that was loaded, and gives the thread back; resolves to whether that went well. */
  close(reason: CloseReason, timeoutMs: number): Promise<boolean>;
}

/** A Worker that serves one queue: `load()` if it needs a module, then `serve()`, at the end `close()`. */
export class QueueWorker implements QueueServer {
  readonly #name: string;
  readonly #worker: Worker;
  readonly #log: Log;
  readonly #kernel: Kernel;
  readonly #loaded = Promise.withResolvers<Profile>();
  readonly #attached = Promise.withResolvers<boolean>();
  readonly #left = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<boolean>();
  /** It has a backend, which wants to be closed. */
  #isLoaded = false;
  #isServing = false;
  #hasLeft = false;
  #isOver = false;
  #closed: Promise<boolean> | undefined;
  /** The file of the queue that it serves, until it says `left`. */
  #fd: number | undefined;
  #isAbandoned = false;
  /** What it waits with, until it is over. */
  #pollFiles: PollFiles | undefined;

  /** @param name of the device, for what is logged */
  constructor(name: string, log: Log, kernel: Kernel) {
    this.#name = name;
    this.#log = log;
    this.#kernel = kernel;
    for (const { promise } of [this.#loaded, this.#attached, this.#left]) promise.catch(() => {});
    this.#worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    this.#worker.onmessage = (event: MessageEvent<FromWorker>) => this.#heard(event.data);
    this.#worker.onerror = (event) => {
      event.preventDefault(); // or it would end the whole program
      this.#died(event.message);
    };
  }

  get left(): Promise<void> {
    return this.#left.promise;
  }

  get hasLeft(): boolean {
    return this.#hasLeft;
  }

  /** Imports a backend into the Worker and returns what it can do. */
  async load(module: BackendModule): Promise<Profile> {
    this.#send({ kind: "load", href: String(module.module), data: module.data });
    return await this.#loaded.promise;
  }

  /**
   * Serves a queue: of a mapping, or with the backend that was loaded.
   *
   * @returns once it has attached, whether its thread is an I/O flusher
   * @throws {DblockError} at once, if the queue's file cannot be opened, or there is no room to wait for it.
   */
  serve(plan: QueuePlan, options: WorkerOptions = {}): Promise<boolean> {
    if (options.mapping === undefined && !options.fromFile) this.#pollFiles = this.#kernel.openPollFiles();
    const fd = openQueue(plan.name, plan.queue, { kernel: this.#kernel });
    this.#fd = fd;
    this.#isServing = true;
    const files = this.#pollFiles === undefined ? {} : { pollFiles: this.#pollFiles };
    this.#send({ kind: "serve", ...plan, ...options, ...files, fd });
    return this.#attached.promise;
  }

  /**
   * Closes a backend that it has loaded, and ends the Worker. What it serves it must have left, or `stop()` has ended it.
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
      this.#send({ kind: "close", reason });
      if (await settleWithin(timeoutMs, [this.#ended.promise])) isSaved = await this.#ended.promise;
      else {
        this.#log(
          `${devicePath(this.#name)}: close() of the backend was ended after ${timeoutMs / 1000} s, with its Worker: ` +
            "what it had not stored is lost (closeTimeoutMs gives it longer)",
        );
      }
    }
    this.#terminate();
    return isSaved;
  }

  /** Closes the file at once: the kernel takes nothing from the Worker any more, and wakes it. */
  abandon(): void {
    if (this.#fd === undefined || this.#isAbandoned) return;
    this.#isAbandoned = true;
    this.#kernel.abandon(this.#fd); // the Worker still uses the number
    if (this.#pollFiles !== undefined) this.#kernel.ringPollFiles(this.#pollFiles);
  }

  stop(): void {
    if (!this.#isServing || this.#hasLeft) return;
    // A thread that is in the kernel ends only when it comes back, and may use the file's number then: that stays taken.
    this.abandon();
    this.#terminate();
  }

  #terminate(): void {
    this.#worker.terminate();
    this.#over(new DblockError("ECANCELED", "A queue's Worker stopped", "it was told to"));
  }

  /** Its code does not run any more, so the kernel should know, and nobody uses the file's number. */
  #died(message: string): void {
    if (this.#isOver) return;
    this.#closeFile();
    this.#hasLeft = true;
    this.#over(new DblockError("EIO", "A queue's Worker stopped", message));
  }

  #send(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  #heard(message: FromWorker): void {
    if (this.#isOver) return; // what it said before it was ended
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
        this.#hasLeft = this.#isServing;
        if (message.failure === undefined) return this.#left.resolve();
        return this.#failed(received(message.failure));
      case "ended":
        return this.#ended.resolve(message.isSaved);
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

  /** A thread of its own that waits for it would wait for ever: the files make it return. */
  #over(error: DblockError): void {
    this.#isOver = true;
    if (this.#pollFiles !== undefined) this.#kernel.closePollFiles(this.#pollFiles);
    this.#pollFiles = undefined;
    this.#failed(error);
    this.#ended.resolve(false);
  }
}
