// SPDX-License-Identifier: MIT
/**
 * How this program waits without blocking its thread where the event loop does not wait by itself (loop_event.ts): for all
 * files of an isolate at once (epoll), on another thread. Deno has 32 threads for all blocking calls of a program, so only
 * some may be in calls that return when this very program has done something. The poller does not know who is waiting: it
 * only resolves promises.
 */
import { DblockError } from "../disk/errors.ts";
import {
  controlEpoll,
  DATA_OFFSET,
  EPOLL_CLOEXEC,
  EPOLL_CTL_ADD,
  EPOLL_CTL_DEL,
  EPOLL_CTL_MOD,
  type EpollControl,
  EPOLLET,
  EPOLLIN,
  EPOLLONESHOT,
  EVENT_BYTES,
} from "./epoll.ts";

// Of sys/eventfd.h.
const EFD_CLOEXEC = EPOLL_CLOEXEC;
const EFD_NONBLOCK = 0o4000;
/** How many files may be ready at once; the others are next. */
const EVENTS_MAX = 64;
const FOR_EVER = -1;

/** Half the pool: files, short calls and the one that waits for all need the rest. */
const BLOCKED_MAX = 16;

/** The system calls, as libc.ts has them. */
export interface EpollCalls extends EpollControl {
  epoll_create1(flags: number): number;
  epoll_wait(epoll: number, events: BufferSource, capacity: number, timeoutMs: number): Promise<number>;
  eventfd(count: number, flags: number): number;
  eventfd_write(fd: number, count: bigint): number;
  close(fd: number): number;
}

/**
 * What a poller waits with. The files belong to whoever has opened them, who may be another thread: a Worker that dies
 * closes nothing, and its thread of the pool would wait for ever.
 */
export interface PollFiles {
  /** The epoll set. */
  readonly epoll: number;
  /** An eventfd in the set: a write to it makes `epoll_wait` return. All sets of a program have the same one. */
  readonly bell: number;
}

/**
 * Opens a bell. It is never closed: a bell that was closed right after it rang might not wake everybody.
 *
 * @throws {DblockError} EMFILE.
 */
export function openBell(calls: EpollCalls): number {
  const bell = calls.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (bell < 0) throw noRoom("Cannot wait for files");
  return bell;
}

/**
 * Opens an epoll set with a bell in it.
 *
 * @throws {DblockError} EMFILE.
 */
export function openPollFiles(calls: EpollCalls, bell: number): PollFiles {
  const epoll = calls.epoll_create1(EPOLL_CLOEXEC);
  // Edge-triggered: each write wakes every set once, and nobody has to read the eventfd.
  if (epoll >= 0 && control(calls, epoll, EPOLL_CTL_ADD, bell, EPOLLIN | EPOLLET)) return { epoll, bell };
  if (epoll >= 0) calls.close(epoll);
  throw noRoom("Cannot wait for files");
}

/** Makes those who wait with these files, in whatever thread, look again whether their file is still there. */
export function ring(calls: EpollCalls, { bell }: PollFiles): void {
  calls.eventfd_write(bell, 1n);
}

/** Closes an epoll set. The thread that waits with it returns, also if its Worker is dead. */
export function closePollFiles(calls: EpollCalls, files: PollFiles): void {
  ring(calls, files);
  calls.close(files.epoll);
}

/** With the file's number as what the event carries. */
function control(calls: EpollControl, epoll: number, operation: number, fd: number, events: number): boolean {
  return controlEpoll(calls, epoll, operation, fd, events, BigInt(fd));
}

/** How a poller waits. */
export interface PollerOptions {
  /** Called when nothing is watched and nobody waits: the files may be closed then. */
  readonly idle?: () => void;
}

/** Waits for any number of files. */
export class Poller {
  readonly #calls: EpollCalls;
  readonly #files: PollFiles;
  readonly #idle: () => void;
  readonly #event = new DataView(new ArrayBuffer(EVENT_BYTES));
  /** The other thread writes here. Deno keeps memory that a call was given until the call returns. */
  readonly #events = new DataView(new ArrayBuffer(EVENTS_MAX * EVENT_BYTES));
  readonly #watched = new Set<number>();
  readonly #waiters = new Map<number, () => void>();
  #isWaiting = false;

  constructor(calls: EpollCalls, files: PollFiles, options: PollerOptions = {}) {
    this.#calls = calls;
    this.#files = files;
    this.#idle = options.idle ?? (() => {});
  }

  /**
   * Makes room to wait for a file, so that no later wait can fail for lack of it. dblock.ko wakes those who watch a file
   * that has attached; so ATTACH comes first.
   *
   * @throws {DblockError} EMFILE (the kernel has no room).
   */
  watch(fd: number): void {
    if (this.#watched.has(fd)) return;
    if (!this.#control(EPOLL_CTL_ADD, fd, EPOLLONESHOT)) {
      this.#idleIfUnused();
      throw noRoom(`Cannot wait for file ${fd}`);
    }
    this.#watched.add(fd);
  }

  /**
   * Resolves when `fd`, which is watched, has something to read, has failed, or is forgotten; also when it was
   * closed by another thread and the bell rings. Once at a time for each file.
   */
  async wait(fd: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiters.set(fd, resolve);
    this.#arm(fd);
    if (!this.#isWaiting) this.#waitForAll();
    await promise;
  }

  /** Ends the wait for a file that will be waited for no more: it is about to be closed. */
  forget(fd: number): void {
    if (!this.#watched.delete(fd)) return;
    this.#control(EPOLL_CTL_DEL, fd, 0);
    this.#wake(fd);
    // A thread that waits for nobody would keep the program from ending.
    if (this.#isWaiting && this.#waiters.size === 0) ring(this.#calls, this.#files);
    this.#idleIfUnused();
  }

  #idleIfUnused(): void {
    if (!this.#isWaiting && this.#watched.size === 0) this.#idle();
  }

  #control(operation: number, fd: number, events: number): boolean {
    this.#event.setUint32(0, events, true);
    this.#event.setInt32(DATA_OFFSET, fd, true);
    return this.#calls.epoll_ctl(this.#files.epoll, operation, fd, this.#event) === 0;
  }

  /** A file that is ready stays so until it is armed again: nothing is lost between two calls. */
  async #waitForAll(): Promise<void> {
    this.#isWaiting = true;
    while (this.#waiters.size > 0) {
      const count = await this.#calls.epoll_wait(this.#files.epoll, this.#events, EVENTS_MAX, FOR_EVER);
      for (let i = 0; i < count; i++) {
        const fd = this.#events.getInt32(i * EVENT_BYTES + DATA_OFFSET, true);
        if (fd === this.#files.bell) this.#lookAgain();
        else this.#wake(fd);
      }
    }
    this.#isWaiting = false;
    this.#idleIfUnused();
  }

  #arm(fd: number): boolean {
    return this.#control(EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLONESHOT);
  }

  /** A file that another thread has closed cannot be armed, and says nothing by itself. */
  #lookAgain(): void {
    for (const fd of [...this.#waiters.keys()]) if (!this.#arm(fd)) this.#wake(fd);
  }

  /** Nobody waits for a file that became ready while it was forgotten. */
  #wake(fd: number): void {
    const resolve = this.#waiters.get(fd);
    this.#waiters.delete(fd);
    resolve?.();
  }
}

function noRoom(attempted: string): DblockError {
  return new DblockError("EMFILE", attempted, "the kernel has no room", {
    hint: "see ulimit -n and sysctl fs.epoll.max_user_watches",
  });
}

/** The system calls of {@linkcode ReadyFiles}. */
export interface ReadyCalls {
  epoll_ctl(epoll: number, operation: number, fd: number, event: BufferSource): number;
  epoll_wait(epoll: number, events: BufferSource, capacity: number, timeoutMs: number): Promise<number>;
  epoll_waitHere(epoll: number, events: BufferSource, capacity: number, timeoutMs: number): number;
}

/** Any number of files that one thread looks at and waits for together, until all are asked for again. */
export class ReadyFiles {
  readonly #calls: ReadyCalls;
  readonly #files: PollFiles;
  readonly #events = new DataView(new ArrayBuffer(EVENTS_MAX * EVENT_BYTES));
  /** The other thread writes here. */
  readonly #found = new DataView(new ArrayBuffer(EVENT_BYTES));
  #waiting: Promise<number> | undefined;

  /** @param files belong to somebody else, whose bell ends a wait */
  constructor(calls: ReadyCalls, files: PollFiles) {
    this.#calls = calls;
    this.#files = files;
  }

  /**
   * Waits for this file, too. dblock.ko wakes those who watch a file that has attached; so ATTACH comes first.
   *
   * @throws {DblockError} EMFILE (the kernel has no room).
   */
  add(fd: number): void {
    if (!control(this.#calls, this.#files.epoll, EPOLL_CTL_ADD, fd, EPOLLIN)) {
      throw noRoom(`Cannot wait for file ${fd}`);
    }
  }

  /** Whether it is waited for: a file that another thread has closed is not, and says nothing by itself. */
  has(fd: number): boolean {
    return control(this.#calls, this.#files.epoll, EPOLL_CTL_MOD, fd, EPOLLIN);
  }

  /** It is waited for no more. @returns whether it was: a file that another thread has closed was not */
  remove(fd: number): boolean {
    return control(this.#calls, this.#files.epoll, EPOLL_CTL_DEL, fd, 0);
  }

  /**
   * Blocks this thread until a file has something to read or has failed, or the bell rings: how many {@linkcode ready} has. For
   * Workers that have nothing else to do.
   */
  waitHere(): number {
    return this.#find(FOR_EVER);
  }

  /** The same for what is there already. */
  look(): number {
    return this.#find(0);
  }

  #find(timeoutMs: number): number {
    return Math.max(0, this.#calls.epoll_waitHere(this.#files.epoll, this.#events, EVENTS_MAX, timeoutMs));
  }

  /** The same wait on another thread, one for all who ask meanwhile. {@linkcode look} says what has come. */
  async wait(): Promise<void> {
    this.#waiting ??= this.#calls.epoll_wait(this.#files.epoll, this.#found, 1, FOR_EVER);
    await this.#waiting;
    this.#waiting = undefined;
  }

  /** Whether somebody is in {@linkcode wait}. */
  get isWaited(): boolean {
    return this.#waiting !== undefined;
  }

  /** A file of those that the last look, or wait here, has found; the bell, if it rang. */
  ready(index: number): number {
    return this.#events.getInt32(index * EVENT_BYTES + DATA_OFFSET, true);
  }
}

let turnsLeft = BLOCKED_MAX;
const line: (() => void)[] = [];

/**
 * To be called before a call that returns only when somebody has answered requests, and to be disposed after it. That
 * somebody may be an event loop of this program: with such calls on every thread of the pool, none would be left to wait
 * for the requests.
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
