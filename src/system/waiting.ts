// SPDX-License-Identifier: MIT
/**
 * How this program waits without its thread. Deno's pool has 32 threads for all that: one of them waits for every file,
 * and only some may be in calls that return when this very program has done something. Whom it wakes is none of its
 * business.
 */
import { DblockError } from "../disk/errors.ts";

// Of sys/epoll.h.
const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;
const EPOLLIN = 0x1;
const EPOLLONESHOT = 1 << 30;
const EFD_CLOEXEC = EPOLL_CLOEXEC;
/** struct epoll_event { u32 events; u64 data; } is packed on x86_64 and nowhere else. */
const DATA_OFFSET = Deno.build.arch === "x86_64" ? 4 : 8;
const EVENT_BYTES = DATA_OFFSET + 8;
/** How many files may be ready at once; the others are next. */
const EVENTS_MAX = 64;
const FOR_EVER = -1;

/** Half the pool: files, short calls and the one that waits for all need the rest. */
const BLOCKED_MAX = 16;

/** The system calls, as libc.ts has them. */
export interface EpollCalls {
  epoll_create1(flags: number): number;
  epoll_ctl(epoll: number, operation: number, fd: number, event: BufferSource): number;
  epoll_wait(epoll: number, events: BufferSource, capacity: number, timeoutMs: number): Promise<number>;
  eventfd(count: number, flags: number): number;
  close(fd: number): number;
}

/** Waits for any number of files on one other thread; has nothing open unless it knows some. */
export class Poller {
  readonly #calls: EpollCalls;
  #epoll = -1;
  /** An eventfd that is always ready: it rings when it is armed, once. */
  #bell = -1;
  readonly #event = new DataView(new ArrayBuffer(EVENT_BYTES));
  /** The thread writes here: never on V8's heap, and kept as long as this object. */
  readonly #events = new DataView(new ArrayBuffer(EVENTS_MAX * EVENT_BYTES));
  readonly #known = new Set<number>();
  readonly #waiters = new Map<number, () => void>();
  #isWaiting = false;

  constructor(calls: EpollCalls) {
    this.#calls = calls;
  }

  /**
   * Resolves when `fd` has something to read, has failed, or is forgotten. Once at a time for each file.
   *
   * @throws {DblockError} EMFILE (there is no room to wait for it).
   */
  async wait(fd: number): Promise<void> {
    const isOpen = this.#epoll >= 0 || this.#open();
    const operation = this.#known.has(fd) ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (!isOpen || !this.#control(operation, fd, EPOLLIN | EPOLLONESHOT)) {
      this.#closeIfUnused();
      throw noRoom(fd);
    }
    this.#known.add(fd);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiters.set(fd, resolve);
    if (!this.#isWaiting) this.#waitForAll();
    await promise;
  }

  /** Ends the wait for a file that will be waited for no more: it is about to be closed. */
  forget(fd: number): void {
    if (!this.#known.delete(fd)) return;
    this.#control(EPOLL_CTL_DEL, fd, 0);
    this.#wake(fd);
    // A thread that waits for nobody would keep the program from ending.
    if (this.#isWaiting && this.#waiters.size === 0) {
      this.#control(EPOLL_CTL_MOD, this.#bell, EPOLLIN | EPOLLONESHOT);
    }
    this.#closeIfUnused();
  }

  #open(): boolean {
    this.#epoll = this.#calls.epoll_create1(EPOLL_CLOEXEC);
    this.#bell = this.#calls.eventfd(1, EFD_CLOEXEC);
    return this.#control(EPOLL_CTL_ADD, this.#bell, EPOLLONESHOT);
  }

  /** A Worker that has served is ended, and would leave them open. */
  #closeIfUnused(): void {
    if (this.#isWaiting || this.#known.size > 0) return;
    this.#calls.close(this.#bell);
    this.#calls.close(this.#epoll);
    this.#epoll = -1;
  }

  #control(operation: number, fd: number, events: number): boolean {
    this.#event.setUint32(0, events, true);
    this.#event.setInt32(DATA_OFFSET, fd, true);
    return this.#calls.epoll_ctl(this.#epoll, operation, fd, this.#event) === 0;
  }

  /** A file that is ready stays so until it is armed again: nothing is lost between two calls. */
  async #waitForAll(): Promise<void> {
    this.#isWaiting = true;
    while (this.#waiters.size > 0) {
      const count = await this.#calls.epoll_wait(this.#epoll, this.#events, EVENTS_MAX, FOR_EVER);
      for (let i = 0; i < count; i++) this.#wake(this.#events.getInt32(i * EVENT_BYTES + DATA_OFFSET, true));
    }
    this.#isWaiting = false;
    this.#closeIfUnused();
  }

  /** Nobody waits for the bell, or for what became ready while it was forgotten. */
  #wake(fd: number): void {
    const resolve = this.#waiters.get(fd);
    this.#waiters.delete(fd);
    resolve?.();
  }
}

function noRoom(fd: number): DblockError {
  return new DblockError("EMFILE", `Cannot wait for file ${fd}`, "the kernel has no room", {
    hint: "see ulimit -n and sysctl fs.epoll.max_user_watches",
  });
}

let turnsLeft = BLOCKED_MAX;
const line: (() => void)[] = [];

/**
 * Before a call that returns only when somebody has answered requests, who may be this program's event loop: with such calls
 * on every thread of the pool, none would be left for the answers. To be disposed when the call has returned.
 */
export async function blockingTurn(): Promise<Disposable> {
  if (turnsLeft > 0) turnsLeft--;
  else await new Promise<void>((resolve) => line.push(resolve));
  return {
    [Symbol.dispose]: () => {
      const next = line.shift();
      if (next === undefined) turnsLeft++;
      else next();
    },
  };
}
