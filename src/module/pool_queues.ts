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
  /** `look`: its file was closed. */
  readonly message: ToWorker | { readonly kind: "look" };
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
  /** That were asked for, and not closed. */
  readonly #backends = new Map<number, Promise<Backend>>();
  readonly #sent: Int32Array<SharedArrayBuffer>;
  readonly #send: (message: FromPoolWorker) => void;
  readonly #isIoFlusher: boolean;
  #heardCount = 0;
  /** Messages whose answer has not been said. */
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

  /** Does what the main program says. Resolves when that is done, and a queue is served no more. */
  async hear({ key, message }: ToPoolWorker): Promise<void> {
    this.#heardCount++;
    if (message.kind === "look") return this.#rounds.lookForClosed();
    // From here until the answer is said the thread must not wait in the kernel, where no promise goes on.
    this.#busyCount++;
    let isBusy = true;
    const said = () => {
      if (isBusy) this.#busyCount--;
      isBusy = false;
    };
    const send = (answer: FromWorker) => this.#send({ key, message: answer });
    if (message.kind === "close") await this.#close(key, message, send);
    else {
      const work = message.kind === "load" ? this.#load(key, message, send) : this.#serve(key, message, send, said);
      const failure = await failureOf(work);
      // Whose the disk is depends on this, so it is said before the backend is closed, which may take its time.
      if (message.kind === "serve" || failure !== undefined) send({ kind: "left", failure });
    }
    said();
  }

  async #load(key: number, { href, data }: LoadMessage, send: Send): Promise<void> {
    const loading = loadBackend(href, data);
    this.#backends.set(key, loading);
    send({ kind: "loaded", profile: profileOf(await loading) });
  }

  /** @param said to be called when it is served */
  async #serve(key: number, message: ServeMessage, send: Send, said: () => void): Promise<void> {
    const { name, id, queue, depth, fd, geometry, takeOver = false, mapping, eventLoop = false } = message;
    const slotBytes = mapping === undefined ? geometry.maxIoBytes : 0;
    const backend = await this.#backends.get(key);
    using channel = new Channel({ name, id, queue, depth, slotBytes, fd, nonblocking: true, kernel: this.#kernel });
    if (takeOver) await channel.attachAsync({ takeOver });
    else channel.attach();
    const member = mapping === undefined
      ? new EventLoop(channel, loaded(backend), geometry, logTo(send), this.#rounds)
      : new MappedMember(channel, mapping, geometry, this.#rounds);
    if (eventLoop) this.#isEventLoop = true;
    send({ kind: "attached", ioFlusher: this.#isIoFlusher });
    const served = member.run();
    said();
    await served;
  }

  async #close(key: number, { reason }: CloseMessage, send: Send): Promise<void> {
    const loading = this.#backends.get(key);
    this.#backends.delete(key);
    const backend = await loading?.catch(() => undefined); // what could not be loaded was told of
    const isSaved = backend === undefined || await closeLoaded(backend, reason, logTo(send));
    send({ kind: "ended", isSaved });
  }
}

function loaded(backend: Backend | undefined): Backend {
  if (backend === undefined) throw new Error("serve came before load");
  return backend;
}

function logTo(send: Send): DiskLog {
  return (message, fields) => send({ kind: "log", message, ...(fields && { fields }) });
}
