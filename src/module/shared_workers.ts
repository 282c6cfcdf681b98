// SPDX-License-Identifier: MIT
/**
 * A few Workers for the queues of many disks in memory, as the main program sees them. A Worker is an isolate: it takes
 * some 8 MB and the time of half a program's start, so a process with many disks does not have one for each. What the
 * Workers do is in shared_worker.ts.
 */
import { DblockError, received } from "../disk/errors.ts";
import type { Profile } from "../disk/profile.ts";
import type { Kernel } from "../system/libc.ts";
import { O_NONBLOCK } from "../system/libc.ts";
import type { PollFiles } from "../system/waiting.ts";
import { openQueue } from "./node.ts";
import type { QueuePlan, QueueServer, WorkerOptions } from "./queue.ts";
import type { BeginMessage, FromSharedWorker, ServeMemoryMessage } from "./shared_worker.ts";

/** Workers that serve queues of disks in memory together. */
export class SharedWorkers implements Disposable {
  readonly #kernel: Kernel;
  #threads: Thread[] = [];
  readonly #countMax: number;
  #next = 0;

  /**
   * Starts nothing before there is a queue.
   *
   * @param countMax how many Workers: as many as there are processors, say
   */
  constructor(countMax: number, kernel: Kernel) {
    this.#countMax = countMax;
    this.#kernel = kernel;
  }

  /** Someone who serves a queue: the Workers take turns. */
  queue(): QueueServer {
    this.#threads = this.#threads.filter((thread) => !thread.isOver);
    if (this.#threads.length < this.#countMax) this.#threads.push(new Thread(this.#kernel));
    return new SharedQueue(this.#threads[this.#next++ % this.#threads.length]!, this.#kernel);
  }

  /** Ends the Workers. What they serve they must have left. */
  [Symbol.dispose](): void {
    for (const thread of this.#threads) thread.end();
  }
}

/** One of the Workers. */
class Thread {
  readonly #worker: Worker;
  readonly #kernel: Kernel;
  readonly #pollFiles: PollFiles;
  readonly #sent = new Int32Array(new SharedArrayBuffer(4));
  /** Those that are served, by their file. */
  readonly #queues = new Map<number, SharedQueue>();
  /** Why it serves nothing any more. */
  #over: DblockError | undefined;

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    this.#pollFiles = kernel.openPollFiles();
    this.#worker = new Worker(new URL("./shared_worker.ts", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data }: MessageEvent<FromSharedWorker>) => this.#queues.get(data.fd)?.heard(data);
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

  serve(queue: SharedQueue, message: ServeMemoryMessage): void {
    this.#queues.set(message.fd, queue);
    if (this.#over !== undefined) return queue.died(this.#over);
    Atomics.add(this.#sent, 0, 1);
    this.#worker.postMessage(message);
    this.ring();
  }

  /** It hears what it was told, and looks whether its files are still there. */
  ring(): void {
    if (this.#over === undefined) this.#kernel.ringPollFiles(this.#pollFiles);
  }

  forget(fd: number): void {
    this.#queues.delete(fd);
  }

  end(): void {
    this.#ended(new DblockError("ECANCELED", "A Worker stopped", "it was told to"));
    this.#worker.terminate();
  }

  #ended(error: DblockError): void {
    if (this.#over !== undefined) return;
    this.#over = error;
    for (const queue of [...this.#queues.values()]) queue.died(error);
    this.#kernel.closePollFiles(this.#pollFiles);
  }
}

/** A queue that one of the Workers serves. */
class SharedQueue implements QueueServer {
  readonly #thread: Thread;
  readonly #kernel: Kernel;
  readonly #attached = Promise.withResolvers<boolean>();
  readonly #left = Promise.withResolvers<void>();
  #hasLeft = false;
  /** The queue's file, until the Worker has left. */
  #fd: number | undefined;
  #isAbandoned = false;

  constructor(thread: Thread, kernel: Kernel) {
    this.#thread = thread;
    this.#kernel = kernel;
    for (const { promise } of [this.#attached, this.#left]) promise.catch(() => {});
  }

  get left(): Promise<void> {
    return this.#left.promise;
  }

  get hasLeft(): boolean {
    return this.#hasLeft;
  }

  load(): Promise<Profile> {
    throw new TypeError("unreachable: a disk in memory has no module");
  }

  /**
   * Serves a queue of a disk in memory.
   *
   * @throws {DblockError} at once, if the queue's file cannot be opened.
   */
  serve({ name, id, queue, depth, geometry }: QueuePlan, { mapping }: WorkerOptions = {}): Promise<boolean> {
    if (mapping === undefined) throw new TypeError("unreachable: a disk in memory has a mapping");
    const fd = this.#fd = openQueue(name, queue, { kernel: this.#kernel, flags: O_NONBLOCK });
    this.#thread.serve(this, { kind: "serve", name, id, queue, depth, geometry, mapping, fd });
    return this.#attached.promise;
  }

  /** Closes the file at once: the kernel takes nothing from the Worker any more. */
  abandon(): void {
    if (this.#fd === undefined || this.#isAbandoned) return;
    this.#isAbandoned = true;
    this.#kernel.abandon(this.#fd); // the Worker still uses the number
    this.#thread.ring();
  }

  stop(): void {
    this.abandon();
  }

  /** The Worker goes on with its other queues. */
  close(): Promise<boolean> {
    return Promise.resolve(true);
  }

  heard(message: FromSharedWorker): void {
    if (message.kind === "attached") return this.#attached.resolve(message.ioFlusher);
    this.#closeFile();
    if (message.failure === undefined) this.#left.resolve();
    else this.#failed(received(message.failure));
  }

  /** The Worker's code does not run any more, so the kernel should know, and nobody uses the file's number. */
  died(error: DblockError): void {
    this.#closeFile();
    this.#failed(error);
  }

  #closeFile(): void {
    if (this.#fd === undefined) return;
    this.#thread.forget(this.#fd);
    this.#kernel.close(this.#fd);
    this.#fd = undefined;
    this.#hasLeft = true;
  }

  #failed(error: DblockError): void {
    this.#attached.reject(error);
    this.#left.reject(error);
  }
}
