// SPDX-License-Identifier: MIT
/**
 * Time and order of a simulation: tasks run one at a time, in an order that the seed decides, each with all promises it
 * settles before the next. Nothing waits for the real clock.
 */
import { setImmediate } from "node:timers";
import type { Random } from "./random.ts";

/** What runs things later: a `Scheduler`, or the real event loop. */
export interface Later {
  readonly nowMs: number;
  after(ms: number, run: () => void): void;
}

/** The real event loop. */
export const REAL: Later = {
  get nowMs() {
    return performance.now();
  },
  after: (ms, run) => void setTimeout(run, ms),
};

interface Task {
  readonly atMs: number;
  readonly run: () => void;
}

const STEPS_MAX = 200_000;

/** A clock and what is to be done at its times. */
export class Scheduler implements Later {
  readonly #random: Random;
  #tasks: Task[] = [];
  #nowMs = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  get nowMs(): number {
    return this.#nowMs;
  }

  /** Lets time pass while something runs. */
  advance(ms: number): void {
    this.#nowMs += ms;
  }

  /** Runs something after at least so many ms. */
  after(ms: number, run: () => void): void {
    this.#tasks.push({ atMs: this.#nowMs + ms, run });
  }

  /** A promise for that. */
  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.after(ms, resolve));
  }

  /** Runs tasks until a promise is settled. Throws when nothing is left to do before that. */
  async until<T>(promise: Promise<T>): Promise<T> {
    let settled = false;
    const done = () => {
      settled = true;
    };
    promise.then(done, done);
    for (let steps = 0; steps < STEPS_MAX; steps++) {
      await new Promise((resolve) => setImmediate(resolve)); // all promises that can settle do so here
      if (settled) return await promise;
      this.#step();
    }
    throw new Error(`no end after ${STEPS_MAX} steps`);
  }

  #step(): void {
    if (this.#tasks.length === 0) throw new Error("everything waits for something that will never happen");
    const due = this.#tasks.filter((task) => task.atMs <= this.#nowMs);
    if (due.length === 0) {
      this.#nowMs = Math.min(...this.#tasks.map((task) => task.atMs));
      return;
    }
    const task = this.#random.pick(due);
    this.#tasks = this.#tasks.filter((other) => other !== task);
    task.run();
  }
}
