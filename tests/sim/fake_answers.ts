// SPDX-License-Identifier: MIT
/** Answers that come by a file, in the time of a simulation: what the kernel's asynchronous I/O or librbd is to a backend. */
import { type Answers, LateAnswer } from "../../src/disk/late.ts";
import type { FakeKernel } from "./fake_kernel.ts";
import type { Random } from "./random.ts";
import type { Scheduler } from "./scheduler.ts";

interface Pending {
  readonly atMs: number;
  readonly settle: (answer: LateAnswer) => void;
  readonly answer: LateAnswer;
  /** Whoever waited was told of it: the file says nothing of it any more. */
  isTold: boolean;
}

/** The answers of one backend. */
export class FakeAnswers implements Answers {
  readonly fd = 1_000_000;
  isTurn = false;
  /** How many were settled. */
  settledCount = 0;
  readonly #scheduler: Scheduler;
  readonly #random: Random;
  #asked: Pending[] = [];
  #begun: Pending[] = [];
  #isWaiting = false;

  constructor(kernel: FakeKernel, scheduler: Scheduler, random: Random) {
    this.#scheduler = scheduler;
    this.#random = random;
    kernel.pollable.set(this.fd, () => {
      scheduler.advance(random.next()); // whoever waits here lets time pass
      return this.#begun.some(({ atMs, isTold }) => !isTold && atMs <= scheduler.nowMs);
    });
  }

  /** A request that is answered after so many ms, from the next `submit()` on. */
  begin(afterMs: number, settle: (answer: LateAnswer) => void): LateAnswer {
    const answer = new LateAnswer();
    this.#asked.push({ atMs: this.#scheduler.nowMs + afterMs, settle, answer, isTold: false });
    return answer;
  }

  get openCount(): number {
    return this.#asked.length + this.#begun.length;
  }

  submit(): void {
    // The store goes on, whether somebody waits for it or not.
    for (const { atMs } of this.#asked) this.#scheduler.after(atMs - this.#scheduler.nowMs, () => {});
    this.#begun.push(...this.#asked);
    this.#asked = [];
  }

  collect(): void {
    for (;;) {
      const all = this.#begun.filter(({ atMs }) => atMs <= this.#scheduler.nowMs);
      if (all.length === 0) return;
      const due = this.#random.pick(all);
      this.#begun = this.#begun.filter((one) => one !== due);
      this.settledCount++;
      due.settle(due.answer);
    }
  }

  wait(): Promise<void> {
    if (this.#isWaiting) throw new Error("two wait at once");
    this.#isWaiting = true;
    const firstMs = Math.min(...this.#begun.filter(({ isTold }) => !isTold).map(({ atMs }) => atMs));
    return new Promise((resolve) => {
      const end = () => {
        this.#isWaiting = false;
        for (const one of this.#begun) one.isTold ||= one.atMs <= this.#scheduler.nowMs;
        resolve();
      };
      this.#scheduler.after(Math.max(0, firstMs - this.#scheduler.nowMs), end);
    });
  }
}
