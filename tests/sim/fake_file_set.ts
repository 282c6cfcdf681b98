// SPDX-License-Identifier: MIT
/** An epoll set of the fake kernel: what is done with a file that is not in it is a mistake, and so is a wait that blocks. */
import type { FileSet } from "../../src/system/libc.ts";
import type { OwnFiles } from "../../src/module/rounds.ts";

/** What it needs of the kernel. */
export interface FileSetKernel {
  isOpen(fd: number): boolean;
  isReady(fd: number): boolean;
  /** Calls `wake` once: when one of the files is ready, or for nothing. */
  waitFor(fds: readonly number[], wake: () => void): void;
  close(): void;
}

export class FakeFileSet implements FileSet, OwnFiles {
  readonly #kernel: FileSetKernel;
  /** The descriptor of its bell, if it has one: another thread may close its files then. */
  readonly #bell: number | undefined;
  readonly #fds = new Set<number>();
  #isRung = false;
  #waiting: Promise<void> | undefined;
  #found: number[] = [];
  #wake: () => void = () => {};

  constructor(kernel: FileSetKernel, bell?: number) {
    this.#kernel = kernel;
    this.#bell = bell;
  }

  add(fd: number): void {
    if (this.#fds.has(fd) || !this.#kernel.isOpen(fd)) throw new Error(`add(${fd}) to an epoll set`);
    this.#fds.add(fd);
    this.#wake(); // who waits already waits for this one, too
  }

  remove(fd: number): boolean {
    if (!this.#fds.delete(fd)) throw new Error(`file ${fd} is not there`);
    if (this.#bell === undefined && !this.#kernel.isOpen(fd)) throw new Error(`file ${fd} was closed before`);
    return this.#kernel.isOpen(fd);
  }

  has(fd: number): boolean {
    return this.#fds.has(fd) && this.#kernel.isOpen(fd);
  }

  look(): number {
    this.#found = this.#open.filter((fd) => this.#kernel.isReady(fd));
    if (this.#isRung) this.#found.push(this.#bell!);
    this.#isRung = false;
    return this.#found.length;
  }

  get #open(): number[] {
    return [...this.#fds].filter((fd) => this.#bell === undefined || this.#kernel.isOpen(fd));
  }

  ready(index: number): number {
    return this.#found[index]!;
  }

  waitHere(): number {
    if (this.look() === 0) throw new Error("epoll_wait would block for ever");
    return this.#found.length;
  }

  get isWaited(): boolean {
    return this.#waiting !== undefined;
  }

  wait(): Promise<void> {
    return this.#waiting ??= this.#wait();
  }

  async #wait(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      if (this.#isRung) resolve();
      else this.#kernel.waitFor(this.#open, resolve);
    });
    this.#isRung = false; // edge-triggered: who waited was told of it
    this.#waiting = undefined;
  }

  /** Somebody has rung the bell. */
  ring(): void {
    this.#isRung = true;
    this.#wake();
  }

  [Symbol.dispose](): void {
    this.#kernel.close();
    this.#wake();
  }
}
