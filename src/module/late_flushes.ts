// SPDX-License-Identifier: MIT
/**
 * Flushes of a mapped file that the kernel does by itself (aio.ts) while the thread goes on to answer. What a file has to
 * write before it is durable can take seconds, and reads that are behind the flush in the queue would wait as long.
 */
import { ERRNO } from "../disk/errors.ts";
import { AioContext, ASYNC, NOT_TAKEN } from "../system/aio.ts";
import type { Flusher } from "../system/file.ts";
import { linux, openEventFile } from "../system/libc.ts";
import { libc } from "../system/library.ts";
import { PairWait } from "../system/pair_wait.ts";
import type { Ring } from "./request.ts";

/**
 * Flushes under way at once; others are waited for. The block layer sends one at a time to a queue, and each that has timed
 * out may still be under way: a guess.
 */
const DEPTH = 4;

/** The flushes of one queue. */
export class LateFlushes implements Disposable {
  readonly #fd: number;
  readonly #flusher: Flusher;
  readonly #ring: Ring;
  /** Both are opened by the first flush: a file in memory gets none. */
  #aio: AioContext | undefined;
  #eventFd = -1;
  /** The request that is at each place. */
  readonly #slots = new Uint16Array(DEPTH);
  readonly #generations = new Uint32Array(DEPTH);
  readonly #free = Array.from({ length: DEPTH }, (_, place) => place);
  readonly #eventCount = new BigUint64Array(1);
  #files: PairWait | undefined;

  /**
   * Opens nothing before there is a flush.
   *
   * @param fd the file, open as it was mapped
   * @param flusher what the kernel says of a flush is told to it
   * @param ring takes the answers
   */
  constructor(fd: number, flusher: Flusher, ring: Ring) {
    this.#fd = fd;
    this.#flusher = flusher;
    this.#ring = ring;
  }

  /** How many flushes are under way. */
  get openCount(): number {
    return DEPTH - this.#free.length;
  }

  /**
   * Begins a flush, whose answer `wait()` puts into the ring.
   *
   * @returns false if the kernel does not take it: then it is to be waited for
   */
  begin(slot: number, generation: number): boolean {
    const place = this.#free.at(-1);
    const aio = this.#aio ??= this.#open();
    if (place === undefined || aio === undefined) return false;
    let isTaken = true;
    aio.prepare(place, ASYNC.fdatasync, this.#fd, undefined, 0);
    aio.submit(() => isTaken = false);
    if (!isTaken) return false;
    this.#free.pop();
    this.#slots[place] = slot;
    this.#generations[place] = generation;
    return true;
  }

  /** Undefined where the kernel has no asynchronous I/O for this program, or too many files are open. */
  #open(): AioContext | undefined {
    const eventFd = openEventFile();
    if (eventFd < 0) return undefined;
    const aio = AioContext.open(DEPTH, eventFd);
    if (aio === undefined) libc().close(eventFd);
    else this.#eventFd = eventFd;
    return aio;
  }

  /**
   * Waits, with this thread, until a flush has ended, whose answer is in the ring then, or a file has something to read or
   * has failed. A signal ends the wait as well.
   *
   * @param fd always the same
   * @returns whether the file has
   */
  wait(fd: number): boolean {
    const files = this.#files ??= new PairWait(linux, fd, this.#eventFd);
    if (!files.wait(null)) return false;
    if (files.isReady(1)) this.#collect();
    return files.isReady(0);
  }

  #collect(): void {
    libc().eventfd_read(this.#eventFd, this.#eventCount);
    this.#aio?.take(0n, null, this.#ended); // DEPTH of them at most, which is less than it takes at once
  }

  readonly #ended = (place: number, result: number): void => {
    this.#free.push(place);
    const isFlushed = result === NOT_TAKEN ? this.#flusher.flush() : this.#flusher.judge(result === 0);
    this.#ring.complete(this.#slots[place]!, this.#generations[place]!, 0, 0, isFlushed ? 0 : ERRNO.EIO);
  };

  /** Waits for flushes that are under way, whose answers nobody hears. A thread that is ended from outside does not get here. */
  [Symbol.dispose](): void {
    this.#aio?.close();
    if (this.#eventFd >= 0) libc().close(this.#eventFd);
    this.#aio = undefined;
    this.#eventFd = -1;
  }
}
