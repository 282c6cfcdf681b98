// SPDX-License-Identifier: MIT
/** An eventfd of the fake kernel: who waits for it is woken when the event loop comes by, and only if he waits then. */
import type { WaitedEvent } from "../../src/system/loop_event.ts";
import type { Later } from "./scheduler.ts";

export class FakeEvent implements WaitedEvent {
  readonly fd: number;
  readonly #later: Later;
  #wake: () => void = () => {};
  #isOver = false;

  constructor(fd: number, later: Later) {
    this.fd = fd;
    this.#later = later;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** The kernel writes. */
  ring(): void {
    this.#later.after(0, () => this.#wake());
  }

  wait(): Promise<void> {
    if (this.#isOver) return Promise.resolve();
    return new Promise((resolve) => this.#wake = resolve);
  }

  [Symbol.dispose](): void {
    this.#isOver = true;
    this.#wake();
  }
}
