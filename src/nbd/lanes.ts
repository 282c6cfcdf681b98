// SPDX-License-Identifier: MIT
/**
 * Threads for clients that write much at the same time. One thread can receive for one of them only, and the scheduler gives
 * several threads more of the machine than one. Which connection needs a lane is its session's to say.
 */
import type { Log } from "../disk/log.ts";
import { GO_ON, type LaneJob, type LaneOutcome, type NOW, SOON } from "./lane.ts";
import { turns } from "./turns.ts";

/** More than that would wait for each other's memory: a guess. */
const LANES_MAX = 4;
/** How often a lane is looked after. */
const LOOK_MS = 100;

/** A connection in a lane. */
export interface Given {
  /** Resolves, and never rejects, when the lane has let it go. */
  readonly outcome: Promise<LaneOutcome>;
  /** How often something has come. */
  readonly progress: number;
  /** Ends it after the request that has begun, or at once: within 20 ms. */
  end(when: typeof SOON | typeof NOW): void;
}

/** The lanes of a server. Their Workers start when they are first wanted. */
export class Lanes implements Disposable {
  readonly #free: Worker[] = [];
  readonly #all: Worker[] = [];
  /** What is to be told the outcome, of those that are busy. */
  readonly #ended = new Map<Worker, (outcome: LaneOutcome) => void>();
  readonly #log: Log;
  /** Connections amid a large WRITE, in a lane or not: they count themselves. */
  amidCount = 0;
  #busyCount = 0;
  #isOver = false;

  /** @param log is told of a Worker that has stopped */
  constructor(log: Log) {
    this.#log = log;
  }

  /** How many connections are in lanes. */
  get busyCount(): number {
    return this.#busyCount;
  }

  /** Whether there is one now. If not, one may be there soon. */
  get isFree(): boolean {
    if (this.#free.length > 0) return true;
    if (!this.#isOver && this.#all.length === this.#busyCount) this.#start();
    return false;
  }

  /**
   * Gives a connection to a lane. Only while `isFree`.
   *
   * @param isWanted asked again and again; when it says no, the lane ends soon
   */
  give(job: Omit<LaneJob, "control">, isWanted: () => boolean): Given {
    const worker = this.#free.pop()!;
    const control = new Int32Array(new SharedArrayBuffer(8));
    this.#busyCount++;
    turns.othersCount++;
    const timer = setInterval(() => isWanted() || Atomics.compareExchange(control, 0, GO_ON, SOON), LOOK_MS);
    const outcome = new Promise<LaneOutcome>((resolve) => {
      this.#ended.set(worker, (data) => {
        clearInterval(timer);
        this.#ended.delete(worker);
        this.#busyCount--;
        turns.othersCount--;
        resolve(data);
      });
      worker.postMessage({ ...job, control } satisfies LaneJob);
    });
    return {
      outcome,
      get progress() {
        return Atomics.load(control, 1);
      },
      end: (when) => void Atomics.store(control, 0, when),
    };
  }

  #start(): void {
    if (this.#all.length >= Math.min(LANES_MAX, navigator.hardwareConcurrency)) return;
    const worker = new Worker(new URL("./lane_worker.ts", import.meta.url), { type: "module" });
    this.#all.push(worker);
    worker.onmessage = ({ data }: MessageEvent<LaneOutcome | "ready">) => {
      if (!this.#isOver) this.#free.push(worker);
      if (data !== "ready") this.#ended.get(worker)?.(data);
    };
    // One that cannot begin, for instance for want of a permission: nobody waits for it, and no other is tried.
    worker.onerror = (event) => {
      event.preventDefault(); // or it would end the whole program
      this.#log(`A thread for large writes has stopped, and no other one is started: ${event.message}`);
      this.#isOver = true;
      this.#ended.get(worker)?.({ rest: new Uint8Array(0), isEnd: true, answeredCount: 0 });
    };
  }

  /** Ends the Workers. No connection may be in a lane any more. */
  [Symbol.dispose](): void {
    this.#isOver = true;
    for (const worker of this.#all) worker.terminate();
  }
}
