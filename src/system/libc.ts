// SPDX-License-Identifier: MIT
/**
 * The system calls of this package. No policy is here: what a failure means and what to do about it is the caller's to
 * decide.
 *
 * errno is not read. Between a call that failed and a second call that would
 * fetch errno, V8 and Deno make system calls of their own; so dblock's ioctls
 * report in their structures, and `open` finds out with Deno's own calls.
 */
import { DblockError, ERRNO, errnoOf } from "../disk/errors.ts";
import { libc } from "./library.ts";
import { LoopEvent, type WaitedEvent } from "./loop_event.ts";
import { closePollFiles, openBell, openPollFiles, Poller, type PollFiles, ReadyFiles, ring } from "./waiting.ts";

/** Flags, requests and advice of Linux on x86_64 and aarch64. */
export const O_RDONLY = 0;
export const O_RDWR = 0o2;
export const O_EXCL = 0o200;
export const O_DIRECT: number = Deno.build.arch === "aarch64" ? 0o200000 : 0o40000;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;
const F_GETFL = 3;
const F_SETFL = 4;
const O_ACCMODE = 3;
export const FALLOC_FL_KEEP_SIZE = 0x01;
export const FALLOC_FL_PUNCH_HOLE = 0x02;
export const FALLOC_FL_ZERO_RANGE = 0x10;
const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;
const LOCK_UN = 8;
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const SCHED_OTHER = 0;
const SCHED_BATCH = 3;
const PR_SET_IO_FLUSHER = 57;
const PR_GET_IO_FLUSHER = 58;
export const SIGUSR1 = 10;
export const SIGUSR2 = 12;
export const SIGTTIN = 21;
export const SIGTTOU = 22;
const SIG_IGN = 1n;

/** Files that a thread looks at together. */
export interface FileSet extends Disposable {
  /**
   * @throws {DblockError} EMFILE (the kernel has no room).
   */
  add(fd: number): void;
  /** Before the file is closed. @returns whether it was there */
  remove(fd: number): boolean;
  /** How many of them, up to some, have something to read or have failed now: those that {@linkcode ready} has. */
  look(): number;
  /** A file of those that the last look has found, or one that is not in the set. */
  ready(index: number): number;
  /** Waits, with this thread free, until one has. */
  wait(): Promise<void>;
}

/**
 * The calls that talk to dblock.ko. Everything above this file takes one of
 * these, so that tests put a fake kernel in its place.
 */
export interface Kernel {
  /** The file descriptor, or a negative errno. Always close-on-exec. */
  open(path: string, flags: number): number;
  close(fd: number): void;
  /** Ends a wait for a file that this thread will not use again, as `close()` does. */
  forget(fd: number): void;
  /** Closes a file that a thread may still use: its number stays taken, and leads to nothing. */
  abandon(fd: number): void;
  /** Turns O_NONBLOCK on or off. @param isNonblocking @default true */
  setNonblocking(fd: number, isNonblocking?: boolean): void;
  /** ioctl with an integer argument; -1 on failure. The one hot call. */
  readonly ioctlNumber: (
    fd: number,
    request: number,
    argument: bigint,
  ) => number;
  /** ioctl with a structure; -1 on failure. */
  ioctl(fd: number, request: number, structure: Uint8Array): number;
  /** The same, waited for on another thread. */
  ioctlAsync(
    fd: number,
    request: number,
    structure: Uint8Array,
  ): Promise<number>;
  /** An eventfd that the event loop waits for by itself: cheaper than `pollAsync()`. Undefined where it cannot. */
  openEvent(): WaitedEvent | undefined;
  /**
   * Makes room to wait for a file with `pollAsync()`, which does not fail then.
   *
   * @throws {DblockError} EMFILE.
   */
  watch(fd: number): void;
  /** Waits, with this thread free, until `fd` has something to read, has failed or is closed. Once at a time. */
  pollAsync(fd: number): Promise<void>;
  /**
   * Opens what a Worker waits with. The files stay this thread's: a Worker that dies could not close them.
   *
   * @throws {DblockError} EMFILE.
   */
  openPollFiles(): PollFiles;
  /**
   * Opens what a thread looks at several files with.
   *
   * @throws {DblockError} EMFILE.
   */
  openFileSet(): FileSet;
  /** Ends the wait of a Worker whose file was abandoned. */
  ringPollFiles(files: PollFiles): void;
  /** Closes what `openPollFiles()` gave, whether the Worker is there or not. */
  closePollFiles(files: PollFiles): void;
  /**
   * Waits, with this thread, until one of some files is ready (ppoll(2)): how many are.
   *
   * @param files struct pollfd
   * @param timeout struct timespec; null: however long
   */
  poll(files: Int32Array<ArrayBuffer>, timeout: BigInt64Array<ArrayBuffer> | null): number;
  /** Makes this thread an I/O flusher, if it is none yet; false if that is refused. */
  ensureIoFlusher(): boolean;
  /** A clock that never goes back, in ms. */
  now(): number;
}

/**
 * The real kernel. Calls on another thread need Deno 2.9 or newer: before March 2026 Deno did not keep the memory of a call
 * whose Worker ends meanwhile.
 */
export const linux: Kernel = {
  now: () => performance.now(),
  ensureIoFlusher: () => isIoFlusher() || setIoFlusher(),
  open(path: string, flags: number): number {
    const fd = libc().open(cString(path), flags | O_CLOEXEC, 0);
    return fd >= 0 ? fd : -whyNotOpened(path);
  },
  close(fd: number): void {
    linux.forget(fd);
    libc().close(fd);
  },
  forget(fd: number): void {
    poller?.forget(fd);
  },
  abandon(fd: number): void {
    const nothing = linux.open("/dev/null", O_RDWR);
    if (nothing < 0) return linux.close(fd);
    libc().dup3(nothing, fd, O_CLOEXEC);
    linux.close(nothing);
  },
  setNonblocking(fd: number, isNonblocking = true): void {
    // F_SETFL ignores the access mode, and close-on-exec is not a status flag.
    libc().fcntl(fd, F_SETFL, isNonblocking ? O_NONBLOCK : 0);
  },
  get ioctlNumber() {
    return libc().ioctlNumber;
  },
  ioctl(fd: number, request: number, structure: Uint8Array): number {
    return libc().ioctl(fd, request, structure as BufferSource);
  },
  async ioctlAsync(
    fd: number,
    request: number,
    structure: Uint8Array,
  ): Promise<number> {
    return await libc().ioctlAsync(fd, request, structure as BufferSource);
  },
  openEvent: () => LoopEvent.open(libc()),
  watch(fd: number): void {
    openPoller().watch(fd);
  },
  async pollAsync(fd: number): Promise<void> {
    const own = openPoller();
    own.watch(fd);
    await own.wait(fd);
  },
  openPollFiles(): PollFiles {
    return openPollFiles(libc(), bell ??= openBell(libc()));
  },
  openFileSet(): FileSet {
    const files = linux.openPollFiles();
    const ready = new ReadyFiles(libc(), files);
    return Object.assign(ready, { [Symbol.dispose]: () => linux.closePollFiles(files) });
  },
  ringPollFiles(files: PollFiles): void {
    ring(libc(), files);
  },
  closePollFiles(files: PollFiles): void {
    closePollFiles(libc(), files);
  },
  poll: (files, timeout) => libc().ppoll(files, BigInt(files.length / 2), timeout, 0n),
};

let bell: number | undefined;
let poller: Poller | undefined;

/** This isolate's poller. Its files are open while it watches any. */
function openPoller(): Poller {
  if (poller !== undefined) return poller;
  const files = linux.openPollFiles();
  return poller = new Poller(libc(), files, {
    idle: () => {
      poller = undefined;
      linux.closePollFiles(files);
    },
  });
}

/**
 * An eventfd that is waited for: by the event loop or, where it cannot, on another thread.
 *
 * @throws {DblockError} EMFILE.
 */
export function openEvent(attempted: string): WaitedEvent {
  const event = linux.openEvent();
  if (event !== undefined) return event;
  const fd = openEventFile();
  if (fd < 0) throw new DblockError("EMFILE", attempted, "too many files are open", { hint: "see ulimit -n" });
  const count = new BigUint64Array(1);
  return {
    fd,
    wait: async () => {
      await linux.pollAsync(fd);
      libc().eventfd_read(fd, count);
    },
    [Symbol.dispose]: () => linux.close(fd),
  };
}

/** A plain eventfd, which does not wait; negative if too many files are open. */
export function openEventFile(): number {
  return libc().eventfd(0, O_CLOEXEC | O_NONBLOCK);
}

/** In a Worker: waits with files that the main program has opened, and will close, as a Worker that dies closes nothing. */
export function usePollFiles(files: PollFiles): void {
  bell = files.bell;
  poller = new Poller(libc(), files);
}

function cString(value: string): Uint8Array<ArrayBuffer> {
  if (value.includes("\0")) throw new TypeError("a path cannot contain NUL");
  const encoded = new TextEncoder().encode(value);
  const bytes = new Uint8Array(new ArrayBuffer(encoded.byteLength + 1));
  bytes.set(encoded);
  return bytes;
}

/** The errno of an open(2) that has failed, found by trying it Deno's way. */
function whyNotOpened(path: string): number {
  try {
    Deno.openSync(path, { read: true, write: true }).close();
    return ERRNO.EAGAIN; // it works now
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return ERRNO.ENOENT;
    if (error instanceof Deno.errors.NotCapable) throw error;
    if (error instanceof Deno.errors.PermissionDenied) return ERRNO.EACCES;
    return errnoOf(error) ?? ERRNO.EIO;
  }
}

/** Makes a range of a file a hole that reads as zeroes; false if the file system cannot. */
export function punchHole(fd: number, offsetBytes: number, lengthBytes: number): boolean {
  return allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offsetBytes, lengthBytes);
}

/** Makes a range of a file read as zeroes and have its space; false if the file system cannot. */
export function zeroRange(fd: number, offsetBytes: number, lengthBytes: number): boolean {
  return allocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offsetBytes, lengthBytes);
}

function allocate(fd: number, mode: number, offsetBytes: number, lengthBytes: number): boolean {
  return libc().fallocate(fd, mode, BigInt(offsetBytes), BigInt(lengthBytes)) === 0;
}

/** The file system that a file is on. */
export interface FileSystem {
  /** As linux/magic.h has it; 0 if the kernel does not say. */
  readonly type: number;
  /** On hugetlbfs the size of a page. */
  readonly blockBytes: number;
}

/** Not `statfsSync` of node:fs: loading that module takes as long as the start of everything else. */
export function fileSystemOf(fd: number): FileSystem {
  // struct statfs { long f_type; long f_bsize; ... }, 120 bytes
  const words = new BigInt64Array(15);
  libc().fstatfs(fd, new Uint8Array(words.buffer));
  return { type: Number(words[0]), blockBytes: Number(words[1]) };
}

/** Whether a file was opened to be written. */
export function isWritable(fd: number): boolean {
  return (libc().fcntl(fd, F_GETFL, 0) & O_ACCMODE) !== O_RDONLY;
}

/** Locks a file for this open file alone, or with others that only read, until it is closed; false if another one has it. */
export function lockFile(fd: number, options: { readonly shared?: boolean } = {}): boolean {
  return libc().flock(fd, (options.shared ? LOCK_SH : LOCK_EX) | LOCK_NB) === 0;
}

/**
 * The same for a block device, in a way that udev does not mind. udev handles no event of a device that somebody has locked for
 * himself by flock(2): it tries again for three minutes, and all who wait for udev wait as long. So that lock is taken together
 * with udev, and keeps away those who want it alone (mkfs, and older versions of this program); among servers that open
 * file's fcntl(2) lock decides.
 */
export function lockDevice(fd: number, options: { readonly shared?: boolean } = {}): boolean {
  if (!lockFile(fd, { shared: true })) return false;
  // struct flock { short l_type, l_whence; off_t l_start, l_len; pid_t l_pid; }: all of it, from the beginning on
  const range = new BigInt64Array(4);
  new Int16Array(range.buffer)[0] = options.shared ? F_RDLCK : F_WRLCK;
  if (libc().fcntlLock(fd, F_OFD_SETLK, new Uint8Array(range.buffer)) === 0) return true;
  unlockFile(fd);
  return false;
}

/** Gives up that lock, also where a mapping keeps the open file from ending. */
export function unlockFile(fd: number): void {
  libc().flock(fd, LOCK_UN);
}

/**
 * Tells the kernel that this thread (and those it will start) serves a block
 * device: its allocations must not wait for one. Needs CAP_SYS_RESOURCE.
 */
export function setIoFlusher(): boolean {
  return libc().prctl(PR_SET_IO_FLUSHER, 1n, 0n, 0n, 0n) === 0;
}

/**
 * Lets this thread be no I/O flusher until the result is disposed: for calls that need memory and have nothing to do with a
 * disk that is served. For one who must not wait, the kernel (before 6.15) has only the per-processor memory that happens to
 * be left over, and may answer ENOMEM.
 */
export function pauseIoFlusher(): Disposable {
  const wasFlusher = isIoFlusher();
  if (wasFlusher) libc().prctl(PR_SET_IO_FLUSHER, 0n, 0n, 0n, 0n);
  return { [Symbol.dispose]: () => void (wasFlusher && setIoFlusher()) };
}

/** Whether this very thread is an I/O flusher. */
export function isIoFlusher(): boolean {
  return libc().prctl(PR_GET_IO_FLUSHER, 0n, 0n, 0n, 0n) === 1;
}

/**
 * This thread goes on when it is woken only once nobody else wants the processor (SCHED_BATCH), instead of pushing aside
 * the program that has just sent a request and is about to send more. A policy that was set from outside stays. Programs that
 * this thread starts inherit it, like a nice value.
 */
export function setBatchScheduling(): void {
  const thisThread = 0;
  if (libc().sched_getscheduler(thisThread) !== SCHED_OTHER) return;
  // struct sched_param { int priority; }: 0 for this policy. Refused or not, serving works.
  libc().sched_setscheduler(thisThread, SCHED_BATCH, new Uint8Array(4));
}

/** Has the kernel drop a signal that `Deno.addSignalListener()` could only hear of. Programs that are started ignore it, too. */
export function ignoreSignal(number: number): void {
  libc().signal(number, SIG_IGN);
}

/** Becomes another program with the same environment; returns only to fail. */
export function execute(path: string, args: readonly string[]): void {
  const strings = args.map(cString);
  const argv = new BigUint64Array(strings.length + 1);
  strings.forEach((string, i) => {
    argv[i] = Deno.UnsafePointer.value(Deno.UnsafePointer.of(string));
  });
  libc().execv(cString(path), new Uint8Array(argv.buffer));
}
