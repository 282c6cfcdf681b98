// SPDX-License-Identifier: MIT
/**
 * The queues of a Worker of a pool: of many disks, in memory or with backends of their own. Their turns are rounds.ts. The
 * thread waits inside the kernel as long as nobody answers later and nobody asks for timers.
 */
import type { Backend } from "../disk/backend.ts";
import type { DiskLog } from "../disk/log.ts";
import { profileOf } from "../disk/profile.ts";
import type { Kernel } from "../system/libc.ts";
import { Channel } from "./channel.ts";
import { EventLoop } from "./eventloop.ts";
import { closeLoaded, failureOf, loadBackend } from "./loaded_backend.ts";
import { MappedMember } from "./mapped_member.ts";
import { type OwnFiles, Rounds } from "./rounds.ts";
import type { CloseMessage, FromWorker, LoadMessage, ServeMessage, ToWorker } from "./worker.ts";

/** To the Worker, about one of its queues, by a number that the main program has given it. A queue's file is O_NONBLOCK. */
export interface ToPoolWorker {
  readonly key: number;
  readonly message: ToWorker;
}

/** From the Worker, about one of its queues. */
export interface FromPoolWorker {
  readonly key: number;
  readonly message: FromWorker;
}

type Send = (message: FromWorker) => void;

/** All queues of this thread. */
export class PoolQueues {
  readonly #kernel: Kernel;
  readonly #rounds: Rounds;
  readonly #backends = new Map<number, Backend>();
  readonly #sent: Int32Array<SharedArrayBuffer>;
  readonly #send: (message: FromPoolWorker) => void;
  readonly #isIoFlusher: boolean;
  #heardCount = 0;
  /** Messages that are being dealt with, and queues that wait to be taken over. */
  #busyCount = 0;
  /** Somebody wants timers and ports to run. */
  #isEventLoop = false;

  /**
   * @param files of the main program, with its bell
   * @param sent one word: how many messages `hear()` will have heard. Who has not heard all of them does not wait in the kernel
   */
  constructor(
    kernel: Kernel,
    files: OwnFiles,
    sent: Int32Array<SharedArrayBuffer>,
    send: (message: FromPoolWorker) => void,
  ) {
    this.#kernel = kernel;
    this.#sent = sent;
    this.#send = send;
    this.#rounds = new Rounds(kernel, { files, mayBlock: () => this.#mayBlock });
    // A flag of the thread: the process may not have it, and this thread matters most.
    this.#isIoFlusher = kernel.ensureIoFlusher();
  }

  get #mayBlock(): boolean {
    return !this.#isEventLoop && this.#busyCount === 0 && Atomics.load(this.#sent, 0) === this.#heardCount;
  }

  async hear({ key, message }: ToPoolWorker): Promise<void> {
    this.#heardCount++;
    const send = (answer: FromWorker) => this.#send({ key, message: answer });
    if (message.kind === "close") return await this.#whileBusy(this.#close(key, message, send));
    const work = message.kind === "load" ? this.#load(key, message, send) : this.#serve(key, message, send);
    const failure = await failureOf(work);
    // Whose the disk is depends on this, so it is said before the backend is closed, which may take its time.
    if (message.kind === "serve" || failure !== undefined) send({ kind: "left", failure });
  }

  async #whileBusy<T>(work: Promise<T>): Promise<T> {
    this.#busyCount++;
    try {
      return await work;
    } finally {
      this.#busyCount--;
    }
  }

  async #load(key: number, { href, data }: LoadMessage, send: Send): Promise<void> {
    const backend = await this.#whileBusy(loadBackend(href, data));
    this.#backends.set(key, backend);
    send({ kind: "loaded", profile: profileOf(backend) });
  }

  async #serve(key: number, message: ServeMessage, send: Send): Promise<void> {
    const { name, id, queue, depth, fd, geometry, takeOver = false, mapping, eventLoop = false } = message;
    const slotBytes = mapping === undefined ? geometry.maxIoBytes : 0;
    using channel = new Channel({ name, id, queue, depth, slotBytes, fd, nonblocking: true, kernel: this.#kernel });
    if (takeOver) await this.#whileBusy(channel.attachAsync({ takeOver }));
    else channel.attach();
    const member = mapping === undefined
      ? new EventLoop(channel, this.#backendOf(key), geometry, logTo(send), this.#rounds)
      : new MappedMember(channel, mapping, geometry, this.#rounds);
    if (eventLoop) this.#isEventLoop = true;
    send({ kind: "attached", ioFlusher: this.#isIoFlusher });
    await member.run();
  }

  #backendOf(key: number): Backend {
    const backend = this.#backends.get(key);
    if (backend === undefined) throw new Error("serve came before load");
    return backend;
  }

  async #close(key: number, { reason }: CloseMessage, send: Send): Promise<void> {
    const backend = this.#backends.get(key);
    this.#backends.delete(key);
    const isSaved = backend === undefined || await closeLoaded(backend, reason, logTo(send));
    send({ kind: "ended", isSaved });
  }
}

function logTo(send: Send): DiskLog {
  return (message, fields) => send({ kind: "log", message, ...(fields && { fields }) });
}
