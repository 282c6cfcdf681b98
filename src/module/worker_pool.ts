// SPDX-License-Identifier: MIT
/**
 * Workers that serve the queues of many disks together, as the main program sees them. A Worker is an isolate: it takes some 8
 * MB and the time of half a program's start, so a process with many disks does not have one for each queue. What the Workers
 * do is in pool_queues.ts.
 */
import { DblockError } from "../disk/errors.ts";
import type { Log } from "../disk/log.ts";
import type { Kernel } from "../system/libc.ts";
import { devicePath } from "./control.ts";
import type { PollFiles } from "../system/waiting.ts";
import type { FromPoolWorker, ToPoolWorker } from "./pool_queues.ts";
import type { BeginMessage } from "./pool_worker.ts";
import { PooledQueue } from "./pooled_queue.ts";
import type { QueueServer } from "./queue.ts";
import type { FromWorker } from "./worker.ts";

/** Options of a {@linkcode WorkerPool}. */
export interface WorkerPoolOptions {
  /** How many Workers: 1 to 64. @default one per CPU */
  readonly size?: number;
}

let queueOf: (pool: WorkerPool, name: string, log: Log, kernel: Kernel) => QueueServer;

/**
 * Workers that many disks share: `serve(backend, { name, workers: pool })`. They serve disks in memory and modules; with more
 * disks than a few, that is faster than a Worker for each queue, and takes less memory.
 *
 * - Disks of one Worker wait for each other: a callback that computes for long keeps those of all of them waiting.
 * - A module is imported once by each Worker, so what it has at its top is shared by the disks whose Worker that is; the factory
 *   is called for each queue, as without a pool. What it throws outside of a callback ends the Worker, and all of its disks.
 * - Timers and ports of all modules of a Worker stand still while it waits for requests, whichever disk they are of. As soon as
 *   a callback of one of them returns a promise, or one has `eventLoop`, the Worker is an event loop.
 *
 * ```ts no-run
 * import { MemoryBackend, serve, WorkerPool } from "../mod.ts";
 *
 * using workers = new WorkerPool();
 * await using devices = new AsyncDisposableStack();
 * for (let i = 0; i < 64; i++) {
 *   devices.use(await serve(new MemoryBackend({ sizeBytes: 2 ** 20 }), { name: `disk${i}`, workers }));
 * }
 * await new Promise((resolve) => Deno.addSignalListener("SIGINT", () => resolve(undefined)));
 * ```
 */
export class WorkerPool implements Disposable {
  readonly #size: number;
  #threads: Thread[] = [];
  #next = 0;
  #isDisposed = false;

  static {
    queueOf = (pool, name, log, kernel) => new PooledQueue(pool.#thread(name, kernel), name, log, kernel);
  }

  /**
   * Starts nothing before there is a disk.
   *
   * @throws {RangeError} a size that is none.
   */
  constructor({ size = navigator.hardwareConcurrency }: WorkerPoolOptions = {}) {
    if (!Number.isInteger(size) || size < 1 || size > 64) {
      throw new RangeError(`the size of a pool is 1 to 64 Workers, not ${size}`);
    }
    this.#size = size;
  }

  /** The Workers take turns. */
  #thread(name: string, kernel: Kernel): Thread {
    if (this.#isDisposed) {
      throw new DblockError("ECANCELED", `Cannot serve ${devicePath(name)}`, "its pool of Workers was disposed");
    }
    this.#threads = this.#threads.filter((thread) => !thread.isOver);
    if (this.#threads.length < this.#size) this.#threads.push(new Thread(kernel));
    return this.#threads[this.#next++ % this.#threads.length]!;
  }

  /** Ends the Workers. Disks that they still serve lose their server. */
  [Symbol.dispose](): void {
    this.#isDisposed = true;
    for (const thread of this.#threads) thread.end();
  }
}

/** Someone of a pool who serves a queue of the disk with that name. */
export { queueOf };

/** What one of the Workers says to, and of, one of its queues. */
export interface Listener {
  heard(message: FromWorker): void;
  /** The Worker's code does not run any more. */
  died(error: DblockError): void;
  /** It is about not to run any more. */
  terminated(error: DblockError): void;
}

/** One of the Workers. */
export class Thread {
  readonly #worker: Worker;
  readonly #kernel: Kernel;
  readonly #pollFiles: PollFiles;
  readonly #sent = new Int32Array(new SharedArrayBuffer(4));
  readonly #listeners = new Map<number, Listener>();
  #nextKey = 0;
  /** Why it serves nothing any more. */
  #over: DblockError | undefined;

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    this.#pollFiles = kernel.openPollFiles();
    this.#worker = new Worker(new URL("./pool_worker.ts", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data: { key, message } }: MessageEvent<FromPoolWorker>) =>
      this.#listeners.get(key)?.heard(message);
    this.#worker.onerror = (event) => {
      event.preventDefault(); // or it would end the whole program
      this.#ended(new DblockError("EIO", "A Worker stopped", event.message));
    };
    const begin: BeginMessage = { kind: "begin", pollFiles: this.#pollFiles, sent: this.#sent };
    this.#worker.postMessage(begin);
  }

  get isOver(): boolean {
    return this.#over !== undefined;
  }

  /** One more queue. @returns the number by which the Worker knows it */
  listen(listener: Listener): number {
    this.#listeners.set(++this.#nextKey, listener);
    return this.#nextKey;
  }

  forget(key: number): void {
    this.#listeners.delete(key);
  }

  /** Nobody is told anything by a Worker that has ended: `died()` says it. */
  send(key: number, message: ToPoolWorker["message"]): void {
    if (this.#over !== undefined) return this.#listeners.get(key)?.died(this.#over);
    Atomics.add(this.#sent, 0, 1);
    try {
      this.#worker.postMessage({ key, message });
    } catch (error) {
      Atomics.sub(this.#sent, 0, 1); // it cannot be cloned
      throw error;
    }
    this.#kernel.ringPollFiles(this.#pollFiles);
  }

  end(): void {
    const error = new DblockError("ECANCELED", "A Worker stopped", "it was told to");
    this.#ended(error, (listener) => listener.terminated(error));
    this.#worker.terminate();
  }

  #ended(error: DblockError, tell: (listener: Listener) => void = (listener) => listener.died(error)): void {
    if (this.#over !== undefined) return;
    this.#over = error;
    for (const listener of [...this.#listeners.values()]) tell(listener);
    this.#kernel.closePollFiles(this.#pollFiles);
  }
}
