// SPDX-License-Identifier: MIT
/**
 * Waits for an epoll set on the event loop's own thread, where a thread of Deno's pool costs three switches a wait. The loop
 * sleeps in an epoll set of Deno's, to which a program cannot add files; but the pipes of node:net can be given any file
 * that has nothing to read now and then. So a pipe reads an eventfd here, and the kernel adds to that when the program's set
 * has a file that is ready: a poll of io_submit(2) that reports there.
 */

// Of linux/aio_abi.h.
const IOCB_CMD_POLL = 5;
const IOCB_FLAG_RESFD = 1;
const IOCB_BYTES = 64;
const IOCB_OPCODE_OFFSET = 16;
const IOCB_FILE_OFFSET = 20;
const IOCB_EVENTS_OFFSET = 24;
const IOCB_FLAGS_OFFSET = 56;
const IOCB_RESFD_OFFSET = 60;
const IO_EVENT_BYTES = 32;
/** Of asm/unistd.h. */
const NUMBERS = Deno.build.arch === "aarch64"
  ? { io_setup: 0n, io_destroy: 1n, io_submit: 2n, io_getevents: 4n }
  : { io_setup: 206n, io_destroy: 207n, io_submit: 209n, io_getevents: 208n };
const EPOLLIN = 0x1n;
const EFD_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = 0o4000;
/** What has ended is taken from the kernel so many at a time: one call for them all. */
const ENDED_MAX = 64;

/** The system calls, as library.ts has them. */
export interface LoopWaitCalls {
  eventfd(count: number, flags: number): number;
  close(fd: number): number;
  epoll_waitHere(epoll: number, events: BufferSource, capacity: number, timeoutMs: number): number;
  io_setup(number: bigint, capacity: number, context: BufferSource): bigint;
  io_destroy(number: bigint, context: bigint): bigint;
  io_submit(number: bigint, context: bigint, count: bigint, list: BufferSource): bigint;
  io_getevents(
    number: bigint,
    context: bigint,
    countMin: bigint,
    countMax: bigint,
    events: BufferSource,
    timeout: null,
  ): bigint;
}

/** What a pipe of node:net is made of. It closes its file. */
interface PipeHandle {
  onread: (bytes: ArrayBuffer | undefined) => void;
  open(fd: number): number;
  readStart(): number;
  readStop(): number;
  ref(): void;
  unref(): void;
  close(): void;
}

/** One epoll set that is waited for. */
export class LoopWait implements Disposable {
  readonly #calls: LoopWaitCalls;
  readonly #epoll: number;
  readonly #context: bigint;
  readonly #pipe: PipeHandle;
  /** The poll, and the list of one that io_submit wants. The kernel has read them when the call returns. */
  readonly #poll: Uint8Array<ArrayBuffer>;
  readonly #list: BigUint64Array<ArrayBuffer>;
  #endedCount = 0;
  #isSubmitted = false;
  #isBroken = false;
  #isReading = false;
  #wake: () => void = () => {};

  private constructor(
    calls: LoopWaitCalls,
    epoll: number,
    made: { context: bigint; pipe: PipeHandle; eventFd: number },
  ) {
    this.#calls = calls;
    this.#epoll = epoll;
    this.#context = made.context;
    this.#pipe = made.pipe;
    this.#poll = new Uint8Array(IOCB_BYTES);
    const view = new DataView(this.#poll.buffer);
    view.setUint16(IOCB_OPCODE_OFFSET, IOCB_CMD_POLL, true);
    view.setInt32(IOCB_FILE_OFFSET, epoll, true);
    view.setBigUint64(IOCB_EVENTS_OFFSET, EPOLLIN, true);
    view.setUint32(IOCB_FLAGS_OFFSET, IOCB_FLAG_RESFD, true);
    view.setInt32(IOCB_RESFD_OFFSET, made.eventFd, true);
    this.#list = new BigUint64Array([Deno.UnsafePointer.value(Deno.UnsafePointer.of(this.#poll))]);
    this.#pipe.onread = (bytes) => this.#read(bytes);
  }

  /** Undefined where the loop cannot wait so: a kernel without aio, no file left, or pipes that are made differently. */
  static open(calls: LoopWaitCalls, epoll: number): LoopWait | undefined {
    const pipe = newPipe();
    if (pipe === undefined) return undefined;
    const context = new BigUint64Array(1);
    if (calls.io_setup(NUMBERS.io_setup, 2 * ENDED_MAX, context) !== 0n) return undefined;
    const eventFd = calls.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (eventFd >= 0 && pipe.open(eventFd) === 0) {
      return new LoopWait(calls, epoll, { context: context[0]!, pipe, eventFd });
    }
    if (eventFd >= 0) calls.close(eventFd);
    calls.io_destroy(NUMBERS.io_destroy, context[0]!);
    return undefined;
  }

  /**
   * epoll_wait(2) without an end. Once at a time.
   *
   * @returns how many of `events` are filled; -1: the loop cannot wait (any more)
   */
  async wait(events: BufferSource, capacity: number): Promise<number> {
    while (this.#submit()) {
      const woken = new Promise<void>((resolve) => this.#wake = resolve);
      // Read on between waits: a stop and a start are two turns of the loop more.
      if (!this.#isReading) this.#isReading = this.#pipe.readStart() === 0;
      if (!this.#isReading) this.#break();
      else {
        this.#pipe.ref();
        await woken;
      }
      if (this.#isBroken) break;
      const count = this.#calls.epoll_waitHere(this.#epoll, events, capacity, 0);
      if (count !== 0) return count;
    }
    return -1;
  }

  /** Has the kernel watch the set, unless it does. */
  #submit(): boolean {
    if (this.#isBroken) return false;
    if (this.#isSubmitted) return true;
    if (this.#endedCount === ENDED_MAX) this.#takeEnded();
    return this.#isSubmitted = this.#calls.io_submit(NUMBERS.io_submit, this.#context, 1n, this.#list) === 1n;
  }

  /** The eventfd's 8 bytes have come, or undefined: it cannot be read. */
  #read(bytes: ArrayBuffer | undefined): void {
    if (bytes === undefined) this.#break();
    else {
      this.#isSubmitted = false;
      this.#endedCount++;
      this.#pipe.unref();
    }
    this.#wake();
  }

  /** What polls have found the set says as well. */
  #takeEnded(): void {
    const ended = new Uint8Array(ENDED_MAX * IO_EVENT_BYTES);
    this.#calls.io_getevents(NUMBERS.io_getevents, this.#context, 0n, BigInt(ENDED_MAX), ended, null);
    this.#endedCount = 0;
  }

  #break(): void {
    this.#isBroken = true;
    this.#pipe.readStop();
  }

  /** Ends a wait. */
  [Symbol.dispose](): void {
    this.#isBroken = true;
    this.#calls.io_destroy(NUMBERS.io_destroy, this.#context);
    this.#pipe.close();
    this.#wake();
  }
}

/** Deno's own modules make pipes with what this gives, and so did node's users before there was node:net. */
function newPipe(): PipeHandle | undefined {
  try {
    const { process } = globalThis as { readonly process?: { binding?(name: string): unknown } };
    const { Pipe, constants } = process?.binding?.("pipe_wrap") as {
      readonly Pipe: new (kind: number) => PipeHandle;
      readonly constants: { readonly SOCKET: number };
    };
    return new Pipe(constants.SOCKET);
  } catch {
    return undefined;
  }
}
