// SPDX-License-Identifier: MIT
/**
 * An eventfd that this thread's event loop waits for by itself, where a thread of Deno's pool costs three switches a wait.
 * The loop sleeps in an epoll set of Deno's, to which a program cannot add files; but the pipes of node:net can be given any
 * file that has nothing to read now and then, and so an eventfd. Whoever writes to it wakes the loop.
 */

const EFD_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = 0o4000;

/** The system calls, as library.ts has them. */
export interface EventCalls {
  eventfd(count: number, flags: number): number;
  close(fd: number): number;
}

/** What a pipe of node:net is made of. It closes its file. */
interface PipeHandle {
  onread: (bytes: ArrayBuffer | undefined) => void;
  open(fd: number): number;
  readStart(): number;
  ref(): void;
  unref(): void;
  close(): void;
}

/** An eventfd, and a way to wait for it. */
export interface WaitedEvent extends Disposable {
  /** For whoever is to write to it. Closed by disposing. */
  readonly fd: number;
  /**
   * Resolves when the event loop finds that somebody has written, from this turn of the loop on; also when this is disposed.
   * Once at a time. What was found while nobody waited may wake nobody: look first, and wait in the same turn.
   */
  wait(): Promise<void>;
}

/** One eventfd. Not for Workers: Deno never closes the pipes of one that was terminated. */
export class LoopEvent implements WaitedEvent {
  readonly fd: number;
  readonly #pipe: PipeHandle;
  #isOver = false;
  #isDisposed = false;
  #wake: () => void = () => {};

  private constructor(fd: number, pipe: PipeHandle) {
    this.fd = fd;
    this.#pipe = pipe;
    pipe.onread = (bytes) => this.#read(bytes);
    pipe.unref();
  }

  /** Undefined where the loop cannot wait so: no file is left, or pipes are made differently. */
  static open(calls: EventCalls): LoopEvent | undefined {
    const pipe = newPipe();
    if (pipe === undefined) return undefined;
    const fd = calls.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) return undefined;
    if (pipe.open(fd) !== 0) {
      calls.close(fd);
      return undefined;
    }
    const event = new LoopEvent(fd, pipe);
    // It reads for as long as it lives: a stop and a start between two waits are two turns of the loop more.
    if (pipe.readStart() === 0) return event;
    pipe.close();
    return undefined;
  }

  wait(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#isOver) return resolve();
      this.#wake = resolve;
      this.#pipe.ref();
    });
  }

  /** The eventfd's 8 bytes have come, or undefined: it cannot be read, and nobody may wait for ever. */
  #read(bytes: ArrayBuffer | undefined): void {
    if (bytes === undefined) this.#isOver = true;
    this.#pipe.unref();
    this.#wake();
  }

  /** Ends a wait. */
  [Symbol.dispose](): void {
    if (this.#isDisposed) return;
    this.#isDisposed = this.#isOver = true;
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
