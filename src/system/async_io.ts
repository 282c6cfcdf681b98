// SPDX-License-Identifier: MIT
/**
 * Reads and writes that the kernel does by itself and says when they are done: its asynchronous I/O (aio.ts), which is that
 * for files with O_DIRECT alone. A batch of requests is one system call, what has ended is another, and an eventfd wakes the
 * event loop; a thread of Deno's pool costs two switches and a message for each.
 */
import { AioContext, EVENTS_MAX, NOT_TAKEN } from "./aio.ts";
import { openEvent } from "./libc.ts";
import { libc } from "./library.ts";
import type { WaitedEvent } from "./loop_event.ts";
import { Patience } from "./patience.ts";

/** Calls under way at once; the others wait for their turn. A guess: two queues' worth. */
const DEPTH = 256;
/** What has been begun is waited for so long before the event loop sleeps, whose waking takes longer. A guess. */
const LINGER_NS = 200_000n;

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
  readonly #aio: AioContext;
  readonly #event: WaitedEvent;
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

  private constructor(aio: AioContext, event: WaitedEvent) {
    this.#aio = aio;
    this.#event = event;
  }

  /** Undefined where the kernel has none for this program, or too many files are open. */
  static open(): AsyncIo | undefined {
    let event: WaitedEvent;
    try {
      event = openEvent("Cannot read and write asynchronously");
    } catch {
      return undefined;
    }
    const aio = AioContext.open(DEPTH, event.fd);
    if (aio !== undefined) return new AsyncIo(aio, event);
    event[Symbol.dispose]();
    return undefined;
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
    this.#aio.close();
    this.#event[Symbol.dispose]();
  }

  #prepare(call: Call): void {
    const place = this.#free.pop()!;
    this.#calls[place] = call;
    this.#aio.prepare(place, call.opcode, call.fd, call.bytes, call.offsetBytes);
    if (this.#aio.batchLength === 1) queueMicrotask(() => this.#submit());
  }

  #submit(): void {
    this.#aio.submit((place) => this.#ended(place, NOT_TAKEN));
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
    return this.#openCount - this.#line.length - this.#aio.batchLength;
  }

  /** How many calls had ended, EVENTS_MAX at most. */
  #take(least: bigint, timeout: BigInt64Array<ArrayBuffer> | null): number {
    return this.#aio.take(least, timeout, this.#endedOne);
  }

  readonly #endedOne = (place: number, result: number): void => this.#ended(place, result);

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
