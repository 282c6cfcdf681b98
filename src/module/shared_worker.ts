// SPDX-License-Identifier: MIT
/**
 * The module of a Worker that serves queues of many disks in memory. Its thread waits for all of them at once (epoll), and
 * between two waits it hears what the main program says, which rings a bell for that. The main program's side is in
 * shared_workers.ts.
 */
import { DblockError, describe } from "../disk/errors.ts";
import type { Mapping } from "../disk/servable.ts";
import { linux, setBatchScheduling } from "../system/libc.ts";
import { libc } from "../system/library.ts";
import { flusherOf } from "../system/mapping.ts";
import { type PollFiles, ReadyFiles } from "../system/waiting.ts";
import { Channel, GONE } from "./channel.ts";
import { answerMapped, type MappedDisk } from "./mapped.ts";
import type { Failure } from "./loaded_backend.ts";
import type { ServeMessage } from "./worker.ts";

/** To the Worker, first of all. */
export interface BeginMessage {
  readonly kind: "begin";
  readonly pollFiles: PollFiles;
  /** One word: how many messages of the kind "serve" were sent. Who has not heard all of them does not wait in the kernel. */
  readonly sent: Int32Array<SharedArrayBuffer>;
}

/** To the Worker: serve a queue, whose file is O_NONBLOCK; it answers `attached` or `left`. */
export interface ServeMemoryMessage extends Omit<ServeMessage, "takeOver" | "pollFiles" | "eventLoop"> {
  readonly mapping: Mapping;
}

/** From the Worker, about the queue with this file. */
export type FromSharedWorker =
  | { readonly kind: "attached"; readonly fd: number; readonly ioFlusher: boolean }
  /** It serves the queue no more: the device is gone, or there is a failure. */
  | { readonly kind: "left"; readonly fd: number; readonly failure: Failure | undefined };

/** The part of a Worker's global scope that is used: the default types are those of a main program. */
interface WorkerScope {
  postMessage(message: FromSharedWorker): void;
  addEventListener(
    type: "message",
    listener: (event: MessageEvent<BeginMessage | ServeMemoryMessage>) => void,
  ): void;
}

/** So often in a row one queue has its turn while others wait: a guess. */
const ROUNDS_MAX = 8;

const scope = self as unknown as WorkerScope;

interface Served extends MappedDisk {
  readonly channel: Channel;
}

/** All queues of this thread. */
class Queues {
  readonly #served = new Map<number, Served>();
  readonly #files: ReadyFiles;
  readonly #bell: number;
  readonly #sent: Int32Array<SharedArrayBuffer>;
  readonly #isIoFlusher: boolean;
  #heardCount = 0;
  #isRunning = false;

  constructor({ pollFiles, sent }: BeginMessage) {
    this.#files = new ReadyFiles(libc(), pollFiles);
    this.#bell = pollFiles.bell;
    this.#sent = sent;
    // A flag of the thread: the process may not have it, and this thread matters most.
    this.#isIoFlusher = linux.ensureIoFlusher();
    setBatchScheduling();
  }

  /** Serves one more. */
  add({ name, id, queue, depth, fd, geometry, mapping }: ServeMemoryMessage): void {
    this.#heardCount++;
    const channel = new Channel({ name, id, queue, depth, slotBytes: 0, fd, nonblocking: true });
    this.#served.set(fd, { channel, mapping, geometry, flusher: flusherOf(mapping) });
    try {
      channel.attach();
      this.#files.add(fd);
    } catch (error) {
      return this.#leave(fd, error);
    }
    scope.postMessage({ kind: "attached", fd, ioFlusher: this.#isIoFlusher });
    if (!this.#isRunning) this.#run().catch(reportError);
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    while (this.#served.size > 0) {
      if (Atomics.load(this.#sent, 0) !== this.#heardCount) {
        await new Promise((resolve) => setTimeout(resolve, 0));
        continue;
      }
      const count = this.#files.waitHere();
      for (let i = 0; i < count; i++) {
        const fd = this.#files.ready(i);
        if (fd === this.#bell) this.#lookForClosed();
        else this.#answer(fd);
      }
    }
    this.#isRunning = false;
  }

  /** Answers what a queue asks; what is left after some rounds is found by the next wait. */
  #answer(fd: number): void {
    const served = this.#served.get(fd);
    if (served === undefined) return;
    const { channel } = served;
    try {
      for (let round = 0; round < ROUNDS_MAX; round++) {
        const count = channel.exchange();
        if (count === GONE) return this.#leave(fd);
        if (count === 0 && channel.ring.pending === 0) return;
        answerMapped(channel.ring, count, served);
      }
      if (channel.ring.pending > 0 && channel.commit() === GONE) this.#leave(fd);
    } catch (error) {
      // A file that was closed meanwhile answers like any other.
      this.#leave(fd, this.#files.has(fd) ? error : undefined);
    }
  }

  #lookForClosed(): void {
    for (const fd of [...this.#served.keys()]) if (!this.#files.has(fd)) this.#leave(fd);
  }

  #leave(fd: number, error?: unknown): void {
    this.#files.remove(fd);
    this.#served.get(fd)?.channel[Symbol.dispose]();
    this.#served.delete(fd);
    scope.postMessage({ kind: "left", fd, failure: error === undefined ? undefined : failureOf(error) });
  }
}

function failureOf(error: unknown): Failure {
  const { message, errno } = error instanceof DblockError
    ? error
    : new DblockError("EIO", "A queue's Worker stopped", describe(error), { cause: error });
  return { errno, message };
}

let queues: Queues | undefined;
scope.addEventListener("message", ({ data }) => {
  if (data.kind === "begin") queues = new Queues(data);
  else queues?.add(data);
});
