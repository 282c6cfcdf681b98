// SPDX-License-Identifier: MIT
/**
 * The kernel's asynchronous I/O as its system calls are (io_setup(2), io_submit(2), io_getevents(2)): a call is at a place
 * until it has ended, and a batch of them is one system call. async_io.ts makes promises of it.
 */
import { libc } from "./library.ts";
import { addressOf } from "./memory.ts";

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
const WORD = 2 ** 32;

/** What can be asked for: IOCB_CMD_... */
export const ASYNC = { read: 0, write: 1, fdatasync: 3 } as const;

/** What the kernel does not take, or could not do without waiting, is to be done another way. */
export const NOT_TAKEN = -Infinity;

/** So many ends are taken at once. */
export const EVENTS_MAX = 64;
const EVENTS_MAX_LONG = BigInt(EVENTS_MAX);

/** A context of the kernel's, with a number of places for calls. */
export class AioContext {
  readonly #context: bigint;
  readonly #eventFd: number;
  readonly #iocbs: Uint32Array<ArrayBuffer>;
  readonly #iocbAddresses: readonly bigint[];
  /** What the next io_submit takes. */
  readonly #batch: BigUint64Array<ArrayBuffer>;
  #batchLength = 0;
  readonly #events = new Int32Array(EVENTS_MAX * EVENT.words);

  private constructor(context: bigint, depth: number, eventFd: number) {
    this.#context = context;
    this.#eventFd = eventFd;
    this.#iocbs = new Uint32Array(depth * IOCB.words);
    this.#batch = new BigUint64Array(depth);
    const address = addressOf(this.#iocbs);
    this.#iocbAddresses = Array.from({ length: depth }, (_, place) => BigInt(address + place * IOCB.words * 4));
  }

  /**
   * Undefined where the kernel has none for this program: not built in, forbidden, or fs.aio-max-nr is reached.
   *
   * @param depth how many places
   * @param eventFd is written to whenever a call has ended; it is the caller's to close
   */
  static open(depth: number, eventFd: number): AioContext | undefined {
    const context = new BigUint64Array(1);
    if (libc().io_setup(SYS_IO_SETUP, depth, context) < 0) return undefined;
    return new AioContext(context[0]!, depth, eventFd);
  }

  /** How many calls are prepared and not submitted. */
  get batchLength(): number {
    return this.#batchLength;
  }

  /**
   * Prepares a call, for the next `submit()`.
   *
   * @param place which no other call has
   * @param bytes stays where it is until the call has ended
   */
  prepare(
    place: number,
    opcode: number,
    fd: number,
    bytes: Uint8Array<ArrayBuffer> | undefined,
    offsetBytes: number,
  ): void {
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
    iocb[at + IOCB.eventFd] = this.#eventFd;
    this.#batch[this.#batchLength++] = this.#iocbAddresses[place]!;
  }

  /**
   * Gives the kernel what is prepared. What it takes is said by how many it took: it stops at the first one that it does not.
   *
   * @param refused is called for each place whose call the kernel does not take; it may prepare others
   */
  submit(refused: (place: number) => void): void {
    while (this.#batchLength > 0) {
      const count = Math.max(0, libc().io_submit(SYS_IO_SUBMIT, this.#context, BigInt(this.#batchLength), this.#batch));
      if (count === this.#batchLength) {
        this.#batchLength = 0;
        break;
      }
      const place = this.#iocbAddresses.indexOf(this.#batch[count]!);
      this.#batch.copyWithin(0, count + 1, this.#batchLength);
      this.#batchLength -= count + 1;
      refused(place);
    }
  }

  /**
   * Takes what has ended.
   *
   * @param least waits until so many have, or `timeout` (struct timespec) is over; 0 waits for nothing
   * @param ended is told what the call at a place returned, an errno as a negative number, or NOT_TAKEN
   * @returns how many calls had ended, EVENTS_MAX at most
   */
  take(
    least: bigint,
    timeout: BigInt64Array<ArrayBuffer> | null,
    ended: (place: number, result: number) => void,
  ): number {
    const events = this.#events;
    const count = libc().io_getevents(SYS_IO_GETEVENTS, this.#context, least, EVENTS_MAX_LONG, events, timeout);
    for (let i = 0; i < count; i++) {
      const at = i * EVENT.words;
      const result = events[at + EVENT.result]!;
      ended(events[at + EVENT.data]!, result !== EAGAIN && result !== EOPNOTSUPP ? result : NOT_TAKEN);
    }
    return count;
  }

  /** Gives it back to the kernel, which waits for calls that are under way. */
  close(): void {
    libc().io_destroy(SYS_IO_DESTROY, this.#context);
  }
}
