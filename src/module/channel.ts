// SPDX-License-Identifier: MIT
/**
 * One queue's open /dev/NAME-ctl, with its ring and buffer: ATTACH, EXCHANGE, COMMIT. It moves requests and completions;
 * what they mean is the business of those who call it.
 */
import {
  dblock_attach,
  DBLOCK_ATTACH_EVENTFD,
  DBLOCK_ATTACH_FILE,
  DBLOCK_ATTACH_TAKE_OVER,
  dblock_commit,
  DBLOCK_COMMIT_FLUSHED,
  DBLOCK_COMMIT_LEAVES,
  DBLOCK_EXCHANGE_ARM,
  DBLOCK_EXCHANGE_LINGER,
  DBLOCK_IOC_ATTACH,
  DBLOCK_IOC_COMMIT,
  DBLOCK_IOC_EXCHANGE,
  DBLOCK_QUEUE_DEPTH_MAX,
  DBLOCK_STATUS_BAD_FIELD,
  DBLOCK_STATUS_BAD_LENGTH,
} from "./abi.ts";
import { addressOf, devicePath, ioctlError } from "./control.ts";
import { DblockError, ERRNO } from "../disk/errors.ts";
import { type Kernel, linux, O_NONBLOCK } from "../system/libc.ts";
import type { WaitedEvent } from "../system/loop_event.ts";
import { openQueue } from "./node.ts";
import { Ring } from "./request.ts";
import { slotMemory } from "./slot_memory.ts";
import { decode, encode } from "../system/struct.ts";
import { blockingTurn } from "../system/waiting.ts";

/** `exchange()` and `commit()`: the device is gone, stop serving. */
export const GONE = -1;

/** The arguments of EXCHANGE as bigints, for each combination of the flags: made once, none per call. */
const COUNTS = [0, DBLOCK_EXCHANGE_ARM, DBLOCK_EXCHANGE_LINGER, DBLOCK_EXCHANGE_ARM + DBLOCK_EXCHANGE_LINGER].map(
  (flags) => Array.from({ length: DBLOCK_QUEUE_DEPTH_MAX + 1 }, (_, count) => BigInt(flags + count)),
);
const [ARMED, LINGERS] = [1, 2];
const COMMIT = dblock_commit.fields;

/** Which queue to serve, and how. */
export interface ChannelOptions {
  /** Of the device: "disk0". */
  readonly name: string;
  /** Of the device: ATTACH fails with ESTALE if the name is another's. @default any */
  readonly id?: number;
  /** 0 to queue_count - 1. */
  readonly queue: number;
  /** Requests at once, as the device was created. */
  readonly depth: number;
  /** Size of a slot of the buffer: max_io_bytes; 0 in direct mode. */
  readonly slotBytes: number;
  /** In direct mode: the file, open with O_DIRECT, in which addresses are offsets. @default they are this process' */
  readonly contentFd?: number | undefined;
  /** EXCHANGE does not wait, unless it lingers (for up to twice the module's poll_us, 200 µs); `wait()` does. @default false */
  readonly nonblocking?: boolean;
  /** What `wait()` is to wait for, if the module knows how to: this channel's from now on. @default the queue's file */
  readonly event?: WaitedEvent | undefined;
  /** The queue's file, which somebody else has opened and will close. @default one of its own */
  readonly fd?: number;
  /** @default linux */
  readonly kernel?: Kernel;
}

/** One queue of a device. */
export class Channel implements Disposable {
  readonly name: string;
  readonly queue: number;
  readonly ring: Ring;
  /** Completions the kernel refused: a timed-out request answered late, mostly. */
  refusedCount = 0;
  readonly #kernel: Kernel;
  readonly #ioctl: Kernel["ioctlNumber"];
  readonly #fd: number;
  readonly #ownsFile: boolean;
  readonly #id: number;
  readonly #slotBytes: number;
  readonly #contentFd: number | undefined;
  readonly #buffer: Uint8Array<ArrayBuffer>;
  readonly #bufferBytes: number;
  readonly #views: Uint8Array<ArrayBuffer>[];
  readonly #commit = encode(dblock_commit);
  readonly #commitView = new DataView(this.#commit.buffer);
  #closed = false;
  /** What the kernel wakes the event loop with, if it can be had. */
  #event: WaitedEvent | undefined;
  /** The last EXCHANGE found nothing, and the kernel will write to the event. */
  #isArmed = false;
  /** The module knows it; until it has said otherwise. */
  #canLinger = true;

  /**
   * Opens the device's server node. Nothing is served before `attach()`.
   *
   * @throws {DblockError} ENOENT, EACCES.
   */
  constructor(options: ChannelOptions) {
    const { name, queue, depth, slotBytes, kernel = linux } = options;
    this.name = name;
    this.queue = queue;
    this.#id = options.id ?? 0;
    this.ring = new Ring(depth);
    this.#slotBytes = slotBytes;
    this.#contentFd = options.contentFd;
    this.#buffer = slotMemory(depth * slotBytes);
    this.#bufferBytes = this.#buffer.byteLength;
    this.#views = Array.from(
      { length: slotBytes === 0 ? 0 : depth },
      (_, slot) => this.#buffer.subarray(slot * slotBytes, slot * slotBytes),
    );
    this.#commitView.setBigUint64(
      COMMIT.completions_address.offset,
      BigInt(addressOf(this.ring.bytes) + this.ring.completionsOffset),
      true,
    );
    this.#kernel = kernel;
    this.#ioctl = kernel.ioctlNumber;
    this.#ownsFile = options.fd === undefined;
    this.#event = options.event;
    try {
      this.#fd = options.fd ?? openQueue(name, queue, { kernel, flags: options.nonblocking ? O_NONBLOCK : 0 });
    } catch (error) {
      options.event?.[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * Registers ring and buffer: this file serves the queue from now on.
   *
   * @param options.takeOver from the server that it has, if any: waits until that one has answered what it was given
   * @throws {DblockError} EPERM, EBUSY (it has a server, or another one takes it over), ENODEV.
   */
  attach(options: { readonly takeOver?: boolean } = {}): void {
    for (;;) {
      const bytes = this.#attachment(options.takeOver);
      if (this.#attached(this.#kernel.ioctl(this.#fd, DBLOCK_IOC_ATTACH, bytes), bytes, options)) return;
    }
  }

  /** The same, waited for on another thread: for those that have other things to do. */
  async attachAsync(options: { readonly takeOver?: boolean } = {}): Promise<void> {
    using _turn = await blockingTurn();
    for (;;) {
      const bytes = this.#attachment(options.takeOver);
      if (this.#closed) throw new DblockError("ECANCELED", `Cannot serve queue ${this.queue}`, "it was told to stop");
      if (this.#attached(await this.#kernel.ioctlAsync(this.#fd, DBLOCK_IOC_ATTACH, bytes), bytes, options)) return;
    }
  }

  #attachment(takeOver = false): Uint8Array<ArrayBuffer> {
    const event = this.#event;
    const content = this.#contentFd;
    return encode(dblock_attach, {
      flags: (takeOver ? DBLOCK_ATTACH_TAKE_OVER : 0) | (event === undefined ? 0 : DBLOCK_ATTACH_EVENTFD) |
        (content === undefined ? 0 : DBLOCK_ATTACH_FILE),
      id: this.#id,
      queue: this.queue,
      event_fd: event?.fd ?? 0,
      file_fd: content ?? 0,
      ring_address: addressOf(this.ring.bytes),
      ring_bytes: this.ring.bytes.byteLength,
      buffer_address: this.#slotBytes === 0 ? 0 : addressOf(this.#buffer),
      buffer_bytes: this.#buffer.byteLength,
    });
  }

  /** False if a signal ended the wait for the server before, or the module is an older one: to be tried again. */
  #attached(result: number, bytes: Uint8Array, { takeOver = false }: { readonly takeOver?: boolean }): boolean {
    if (result >= 0) return true;
    const attempted = `Cannot serve queue ${this.queue} of ${devicePath(this.name)}`;
    const { error } = decode(dblock_attach, bytes);
    if (error === ERRNO.EINTR) return false;
    if (error === ERRNO.EOPNOTSUPP && this.#event !== undefined) {
      this.#event[Symbol.dispose]();
      this.#event = undefined;
      return false;
    }
    if (error === ERRNO.EBUSY) {
      const wrong = takeOver
        ? "another server takes it over, or the one it has still owes answers to writes that timed out"
        : "it has a server already";
      throw new DblockError(error, attempted, wrong);
    }
    if (error === ERRNO.ENODEV) {
      throw new DblockError(error, attempted, "the device is gone");
    }
    throw ioctlError(error, attempted);
  }

  /**
   * Commits the ring's pending completions and takes what is next.
   *
   * @param sleeps `wait()` follows if nothing is there. Who does not sleep need not be woken, which costs
   * @param lingers a moment is waited for requests, as this thread has nothing else to do; not where EXCHANGE waits anyway
   * @returns how many requests are in the ring; 0 if none are there or a signal
   * came; `GONE` when there is nothing left to serve, or this channel is closed
   * @throws {DblockError} for what no retry will mend.
   */
  exchange(sleeps = false, lingers = false): number {
    if (this.#closed) return GONE; // a closed file's number is given to the next file that is opened
    if (this.#buffer.byteLength !== this.#bufferBytes) throw this.#transferred();
    const ring = this.ring;
    ring.clearHeader();
    const arm = sleeps && this.#event !== undefined;
    const counts = COUNTS[(arm ? ARMED : 0) + (lingers && this.#canLinger ? LINGERS : 0)]!;
    const count = this.#ioctl(this.#fd, DBLOCK_IOC_EXCHANGE, counts[ring.pending]);
    if (ring.takenCount > 0) {
      this.#taken(ring.takenCount, ring.refusedCount);
    }
    this.#isArmed = arm && count === 0 && ring.error === ERRNO.EAGAIN;
    if (count >= 0) return count;
    if (lingers && this.#canLinger && ring.error === ERRNO.EINVAL) {
      this.#canLinger = false; // a module from before it: nothing was taken
      return this.exchange(sleeps);
    }
    return this.#failed(ring.error, "exchange requests with");
  }

  /** Commits the ring's pending completions; never waits and takes nothing. */
  commit(): number {
    if (this.#closed) return GONE;
    if (this.#buffer.byteLength !== this.#bufferBytes) throw this.#transferred();
    const ring = this.ring;
    const view = this.#commitView;
    view.setUint32(COMMIT.error.offset, 0, true);
    view.setUint32(COMMIT.count.offset, ring.pending, true);
    view.setUint32(COMMIT.completion_count.offset, 0, true);
    view.setUint32(COMMIT.refused_count.offset, 0, true);
    const result = this.#kernel.ioctl(
      this.#fd,
      DBLOCK_IOC_COMMIT,
      this.#commit,
    );
    const taken = view.getUint32(COMMIT.completion_count.offset, true);
    if (taken > 0) {
      this.#taken(taken, view.getUint32(COMMIT.refused_count.offset, true));
    }
    if (result >= 0) return 0;
    return this.#failed(
      view.getUint32(COMMIT.error.offset, true),
      "commit to",
    );
  }

  /**
   * Says that all that was answered on every queue of the device is durable: the end of this server makes no FLUSH fail.
   * Nothing may be answered on another queue meanwhile.
   *
   * @returns whether the module knows it now; false if this server has the queue no more
   */
  sayFlushed(): boolean {
    return this.#say(DBLOCK_COMMIT_FLUSHED);
  }

  /**
   * Says that this process leaves the device on purpose: the end of its files is not counted as a death.
   *
   * @returns whether the module knows it now; false if it is one from before this could be said, or this server has the
   * queue no more
   */
  sayLeaving(): boolean {
    return this.#say(DBLOCK_COMMIT_LEAVES);
  }

  #say(flags: number): boolean {
    if (this.#closed) return false;
    return this.#kernel.ioctl(this.#fd, DBLOCK_IOC_COMMIT, encode(dblock_commit, { flags })) >= 0;
  }

  /** The memory of the slots is gone, and the kernel must not copy to its address any more. */
  #transferred(): DblockError {
    const attempted = `Cannot serve queue ${this.queue} of ${devicePath(this.name)}`;
    return new DblockError(
      "EFAULT",
      attempted,
      "its backend has transferred the memory of a request to another thread",
      {
        hint: "transfer a copy: buffer.slice()",
      },
    );
  }

  #failed(errno: number, verb: string): number {
    switch (errno) {
      case ERRNO.ENODEV:
        return GONE;
      case ERRNO.EINTR:
      case ERRNO.EAGAIN:
        return 0;
      default:
        throw ioctlError(
          errno,
          `Cannot ${verb} queue ${this.queue} of ${devicePath(this.name)}`,
        );
    }
  }

  /**
   * Drops what the kernel has looked at. A completion refused because of its own
   * fields leaves its request open, so that one is answered again, with EIO.
   */
  #taken(takenCount: number, refusedCount: number): void {
    const ring = this.ring;
    if (refusedCount === 0) {
      ring.drop(takenCount);
      return;
    }
    this.refusedCount += refusedCount;
    const again: [slot: number, generation: number][] = [];
    for (let i = 0; i < takenCount; i++) {
      const status = ring.completionStatus(i);
      if (
        status === DBLOCK_STATUS_BAD_LENGTH ||
        status === DBLOCK_STATUS_BAD_FIELD
      ) {
        again.push([ring.completionSlot(i), ring.completionGeneration(i)]);
      }
    }
    ring.drop(takenCount);
    for (const [slot, generation] of again) {
      ring.complete(slot, generation, 0, 0, ERRNO.EIO);
    }
  }

  /** Whether EXCHANGE waits from now on, or its caller has another way to (`wait()`, `fd`). */
  setNonblocking(isNonblocking = true): void {
    this.#kernel.setNonblocking(this.#fd, isNonblocking);
  }

  /** The queue's file, for who waits for several files at once. */
  get fd(): number {
    return this.#fd;
  }

  /** Whether `wait()` waits for an event, and not for the file. After `attach()`. */
  get hasEvent(): boolean {
    return this.#event !== undefined;
  }

  /** The last EXCHANGE found nothing, and the event is written to when there is something. */
  get isArmed(): boolean {
    return this.#isArmed;
  }

  /**
   * Makes room for `wait()`, which does not fail then. After `attach()`.
   *
   * @throws {DblockError} EMFILE.
   */
  watch(): void {
    if (this.#event === undefined) this.#kernel.watch(this.#fd);
  }

  /**
   * Waits, with this thread free, until EXCHANGE has something to say. Once at a time, and in the turn of the event loop in
   * which the last EXCHANGE was made, with `sleeps`.
   */
  async wait(): Promise<void> {
    if (this.#event === undefined) await this.#kernel.pollAsync(this.#fd);
    else if (this.#isArmed) await this.#event.wait();
  }

  /** The kernel's clock, in ms. */
  now(): number {
    return this.#kernel.now();
  }

  /** The first `lengthBytes` of a slot of the buffer. */
  view(slot: number, lengthBytes: number): Uint8Array<ArrayBuffer> {
    const view = this.#views[slot];
    // Most requests of a slot are as long as the one before: no new object then.
    if (view.byteLength === lengthBytes) return view;
    const at = this.#buffer.byteOffset + slot * this.#slotBytes;
    return this.#views[slot] = new Uint8Array(
      this.#buffer.buffer,
      at,
      lengthBytes,
    );
  }

  /** Closes the file, if it is its own: the queue has no server any more. In any case `wait()` returns. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#event?.[Symbol.dispose]();
    if (this.#ownsFile) this.#kernel.close(this.#fd);
    else this.#kernel.forget(this.#fd);
  }
}
