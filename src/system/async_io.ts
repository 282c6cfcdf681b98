// SPDX-License-Identifier: MIT
/**
 * Reads and writes that the kernel does by itself and says when they are done: its asynchronous I/O (io_submit(2)), which is
 * that for files with O_DIRECT alone. A batch of requests is one system call, what has ended is another, and an eventfd wakes
 * the event loop; a thread of Deno's pool costs two switches and a message for each.
 */
import { openEvent } from "./libc.ts";
import { libc } from "./library.ts";
import type { WaitedEvent } from "./loop_event.ts";
import { addressOf } from "./memory.ts";
import { Patience } from "./patience.ts";

// The system calls' numbers; libc has no names for them.
const IS_ARM = Deno.build.arch === "aarch64";
const SYS_IO_SETUP = IS_ARM ? 0n : 206n;
const SYS_IO_DESTROY = IS_ARM ? 1n : 207n;
const SYS_IO_SUBMIT = IS_ARM ? 2n : 209n;
const SYS_IO_GETEVENTS = IS_ARM ? 4n : 208n;

// Of linux/aio_abi.h.
const IOCB_FLAG_RESFD = 1;
/** What would have to wait is not done: a write that needs new blocks would be done in io_submit() itself, and take its time. */
const RWF_NOWAIT = 8;
const EAGAIN = -11;
/** The file system has no RWF_NOWAIT. */
const EOPNOTSUPP = -95;
/** struct iocb, in words of 32 bits, and where its fields are. */
const IOCB = {
  words: 16,
  data: 0,
  rwFlags: 3,
  opcode: 4,
  fd: 5,
  buffer: 6,
  length: 8,
  offset: 10,
  flags: 14,
  eventFd: 15,
} as const;
/** struct io_event: what was in `data`, and what the call returned. */
const EVENT = { words: 8, data: 0, result: 4 } as const;

/** What can be asked for: IOCB_CMD_... */
export const ASYNC = { read: 0, write: 1, fdatasync: 3 } as const;

/** Calls under way at once; the others wait for their turn. A guess: two queues' worth. */
const DEPTH = 256;
const EVENTS_MAX = 64;
const EVENTS_MAX_LONG = BigInt(EVENTS_MAX);
const WORD = 2 ** 32;
/** What has been begun is waited for so long before the event loop sleeps, whose waking takes longer. A guess. */
const LINGER_NS = 200_000n;
/** What the kernel does not take, or could not do without waiting, is to be done another way. */
export const NOT_TAKEN = -Infinity;

/** A call that is under way, or waits for its turn. */
interface Call {
  readonly opcode: number;
  readonly fd: number;
  /** The kernel has its address until the call is done. */
  readonly bytes: Uint8Array<ArrayBuffer> | undefined;
  readonly offsetBytes: number;
  readonly resolve: (result: number) => void;
}

/** The kernel's asynchronous I/O, for any number of files. */
export class AsyncIo {
  readonly #context: bigint;
  readonly #event: WaitedEvent;
  readonly #iocbs = new Uint32Array(DEPTH * IOCB.words);
  readonly #iocbAddresses: readonly bigint[];
  /** What the next io_submit takes. */
  readonly #batch = new BigUint64Array(DEPTH);
  #batchLength = 0;
  readonly #events = new Int32Array(EVENTS_MAX * EVENT.words);
  /** struct timespec. */
  readonly #linger = new BigInt64Array([0n, LINGER_NS]);
  readonly #eventCount = new BigUint64Array(1);
  /** In vain, where the disk takes longer. */
  readonly #patience = new Patience();
  readonly #calls: (Call | undefined)[] = new Array(DEPTH).fill(undefined);
  /** Places for calls that nobody has; the last one is taken first. */
  readonly #free = Array.from({ length: DEPTH }, (_, place) => place);
  readonly #line: Call[] = [];
  /** Calls whose end has not been seen, those in line among them. */
  #openCount = 0;
  #isCollecting = false;
  #idle: (() => void) | undefined;

  private constructor(context: bigint, event: WaitedEvent) {
    this.#context = context;
    this.#event = event;
    const address = addressOf(this.#iocbs);
    this.#iocbAddresses = Array.from({ length: DEPTH }, (_, place) => BigInt(address + place * IOCB.words * 4));
  }

  /** Undefined where the kernel has none for this program: not built in, forbidden, or fs.aio-max-nr is reached. */
  static open(): AsyncIo | undefined {
    const context = new BigUint64Array(1);
    if (libc().io_setup(SYS_IO_SETUP, DEPTH, context) < 0) return undefined;
    try {
      return new AsyncIo(context[0]!, openEvent("Cannot read and write asynchronously"));
    } catch {
      libc().io_destroy(SYS_IO_DESTROY, context[0]!);
      return undefined;
    }
  }

  /**
   * Does what pread(2), pwrite(2) or fdatasync(2) do. What is asked for in one turn of the event loop goes to the kernel together.
   *
   * @param bytes is not changed, and stays where it is, until the call is done
   * @returns what the call returned, an errno as a negative number, or NOT_TAKEN
   */
  call(opcode: number, fd: number, bytes: Uint8Array<ArrayBuffer> | undefined, offsetBytes: number): Promise<number> {
    return new Promise((resolve) => {
      this.#openCount++;
      const call = { opcode, fd, bytes, offsetBytes, resolve };
      if (this.#free.length === 0) this.#line.push(call);
      else this.#prepare(call);
    });
  }

  /** Whether a call has not ended. */
  get isBusy(): boolean {
    return this.#openCount > 0;
  }

  /** Resolves when all calls have ended. Once. */
  async idle(): Promise<void> {
    if (this.isBusy) await new Promise<void>((resolve) => this.#idle = resolve);
  }

  /** Gives it back to the kernel, which waits for calls that are under way. Nobody asks any more. */
  close(): void {
    libc().io_destroy(SYS_IO_DESTROY, this.#context);
    this.#event[Symbol.dispose]();
  }

  #prepare(call: Call): void {
    const { opcode, fd, bytes, offsetBytes } = call;
    const place = this.#free.pop()!;
    this.#calls[place] = call;
    const at = place * IOCB.words;
    const iocb = this.#iocbs;
    const length = bytes?.length ?? 0;
    const address = length === 0 ? 0 : addressOf(bytes!);
    iocb[at + IOCB.data] = place;
    iocb[at + IOCB.rwFlags] = opcode === ASYNC.fdatasync ? 0 : RWF_NOWAIT;
    iocb[at + IOCB.opcode] = opcode;
    iocb[at + IOCB.fd] = fd;
    iocb[at + IOCB.buffer] = address % WORD;
    iocb[at + IOCB.buffer + 1] = address / WORD;
    iocb[at + IOCB.length] = length;
    iocb[at + IOCB.offset] = offsetBytes % WORD;
    iocb[at + IOCB.offset + 1] = offsetBytes / WORD;
    iocb[at + IOCB.flags] = IOCB_FLAG_RESFD;
    iocb[at + IOCB.eventFd] = this.#event.fd;
    this.#batch[this.#batchLength++] = this.#iocbAddresses[place]!;
    if (this.#batchLength === 1) queueMicrotask(() => this.#submit());
  }

  /** What the kernel takes is said by how many it took: it stops at the first one that it does not. */
  #submit(): void {
    while (this.#batchLength > 0) {
      const count = Math.max(0, libc().io_submit(SYS_IO_SUBMIT, this.#context, BigInt(this.#batchLength), this.#batch));
      if (count === this.#batchLength) {
        this.#batchLength = 0;
        break;
      }
      const refused = this.#iocbAddresses.indexOf(this.#batch[count]!);
      this.#batch.copyWithin(0, count + 1, this.#batchLength);
      this.#batchLength -= count + 1;
      this.#ended(refused, NOT_TAKEN);
    }
    this.#awaitFirst();
    if (!this.#isCollecting) this.#collect();
  }

  /**
   * Waits here for a moment. What has ended then shall not wake the event loop once more; what ends between two of these calls
   * is either seen by the last, or writes to the eventfd after it was read.
   */
  #awaitFirst(): void {
    if (this.#submittedCount === 0) return;
    const hasEnded = this.#patience.isWorthIt && this.#take(1n, this.#linger) > 0;
    this.#patience.told(hasEnded);
    if (!hasEnded) return;
    libc().eventfd_read(this.#event.fd, this.#eventCount);
    while (this.#submittedCount > 0 && this.#take(0n, null) > 0) { /* until nothing has ended */ }
  }

  /** Takes what has ended, as long as something is under way. */
  async #collect(): Promise<void> {
    this.#isCollecting = true;
    while (this.#submittedCount > 0) {
      await this.#event.wait();
      while (this.#take(0n, null) === EVENTS_MAX) { /* there may be more */ }
    }
    this.#isCollecting = false;
  }

  /** How many calls the kernel has. */
  get #submittedCount(): number {
    return this.#openCount - this.#line.length - this.#batchLength;
  }

  /** How many calls had ended, EVENTS_MAX at most. */
  #take(least: bigint, timeout: BigInt64Array<ArrayBuffer> | null): number {
    const context = this.#context;
    const count = libc().io_getevents(SYS_IO_GETEVENTS, context, least, EVENTS_MAX_LONG, this.#events, timeout);
    for (let i = 0; i < count; i++) {
      const at = i * EVENT.words;
      const result = this.#events[at + EVENT.result]!;
      const isTaken = result !== EAGAIN && result !== EOPNOTSUPP;
      this.#ended(this.#events[at + EVENT.data]!, isTaken ? result : NOT_TAKEN);
    }
    return count;
  }

  #ended(place: number, result: number): void {
    const call = this.#calls[place]!;
    this.#calls[place] = undefined;
    this.#free.push(place);
    this.#openCount--;
    const next = this.#line.shift();
    if (next !== undefined) this.#prepare(next);
    call.resolve(result);
    if (this.#openCount === 0) this.#idle?.();
  }
}
