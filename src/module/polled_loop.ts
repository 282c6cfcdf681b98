// SPDX-License-Identifier: MIT
/**
 * Serves one queue of a backend whose answers come by a file (disk/late.ts): channel → dispatch → backend, and back. Only this
 * thread touches the ring.
 *
 * Like eventloop.ts it goes on in turns. Within one, the thread itself waits for both, the queue and the answers, and nothing
 * takes a turn of the event loop: a wake is one system call and no promise. Where neither comes within the turn, the event loop
 * waits for them.
 */
import { Dispatcher, type Geometry, type Transport } from "../disk/dispatch.ts";
import type { Answers, PolledBackend } from "../disk/late.ts";
import type { DiskLog } from "../disk/log.ts";
import type { Kernel } from "../system/libc.ts";
import { PairWait } from "../system/pair_wait.ts";
import { Patience } from "../system/patience.ts";
import { servers } from "../system/servers.ts";
import { type Channel, GONE } from "./channel.ts";
import { InHand } from "./in_hand.ts";
import { immediate, TURN_MS } from "./turn.ts";

/**
 * How long a turn may keep timers, signals and other promises waiting where this thread serves nothing else. At 400 requests of
 * 128k a second TURN_MS is over before the next one comes: each had a turn of the event loop (backends/README.md has figures).
 */
const ALONE_TURN_MS = 10;
/** How long a look may keep everything else in this thread waiting. A guess: a store that takes longer is a slow one. */
const LOOK_NS = 4_000_000n;
/** The second of the two files. */
const ANSWERS = 1;

/** One queue, served by the thread that calls `run()`. */
export class PolledLoop implements Transport {
  readonly #channel: Channel;
  readonly #dispatcher: Dispatcher;
  readonly #answers: Answers;
  readonly #inHand: InHand;
  readonly #files: PairWait;
  /** struct timespec. */
  readonly #timeout = new BigInt64Array([0n, LOOK_NS]);
  /** In vain, where the store takes longer than a turn. */
  readonly #patience = new Patience();
  #commitScheduled = false;
  #ended = false;
  #failure: unknown;
  /** Ends the wait of run(). */
  #wake: () => void = () => {};
  /** The event loop waits for these already. */
  #isWaiting = { queue: false, answers: false };

  constructor(channel: Channel, { backend, answers }: PolledBackend, geometry: Geometry, log: DiskLog, kernel: Kernel) {
    this.#channel = channel;
    this.#answers = answers;
    this.#dispatcher = new Dispatcher(backend, geometry, this, log);
    this.#inHand = new InHand(channel.ring);
    this.#files = new PairWait(kernel, channel.fd, answers.fd);
  }

  /**
   * Serves until the device is gone.
   *
   * @throws {DblockError} if the channel fails for good.
   */
  async run(): Promise<void> {
    servers.count++;
    try {
      for (;;) {
        const turnMs = servers.count === 1 ? ALONE_TURN_MS : TURN_MS;
        const isQuiet = this.#turn(this.#channel.now() + turnMs);
        if (!this.#ended) await (isQuiet ? this.#wait() : immediate());
        if (this.#failure !== undefined) throw this.#failure;
        if (this.#ended) return;
      }
    } finally {
      servers.count--;
    }
  }

  /** Serves until its time is over, or nothing comes. @returns whether the event loop is to wait for what comes next */
  #turn(endsMs: number): boolean {
    this.#answers.isTurn = true;
    try {
      this.#collect();
      return this.#serve(endsMs);
    } catch (error) {
      this.#stop(error);
      return true;
    } finally {
      this.#answers.isTurn = false;
    }
  }

  #serve(endsMs: number): boolean {
    const { ring } = this.#channel;
    for (;;) {
      // Whoever has got all answers asks again in a moment. While something is in hand, only what is there is taken.
      const isIdle = this.#inHand.openCount === 0;
      const count = this.#channel.exchange(isIdle, isIdle && servers.count === 1);
      if (count === GONE) return this.#stop();
      if (count > 0) this.#answerAll(count);
      else if (isIdle && ring.pending === 0) return true;
      if (this.#channel.now() >= endsMs) return this.#commitAll();
      if (ring.pending > 0) continue; // some were answered at once
      if (!this.#look()) return this.#arm();
      if (this.#files.isReady(ANSWERS)) this.#collect();
    }
  }

  /**
   * Waits for a request or an answer, where the event loop has nothing to do meanwhile: what is answered by a promise needs it,
   * and so do others who serve in this thread.
   *
   * @returns whether one is there
   */
  #look(): boolean {
    const waits = servers.count === 1 && this.#inHand.openCount === this.#answers.openCount && this.#patience.isWorthIt;
    const found = waits && this.#files.wait(this.#timeout);
    this.#patience.told(found);
    return found;
  }

  #collect(): void {
    if (this.#answers.openCount === 0) return;
    this.#answers.collect();
    this.#answers.submit(); // a flush follows some writes
    this.#dispatcher.lateEnds();
  }

  /** The kernel will say when a request is there. @returns false if one is there already */
  #arm(): boolean {
    const count = this.#channel.exchange(true);
    if (count === GONE) return this.#stop();
    if (count > 0) this.#answerAll(count);
    if (this.#channel.ring.pending > 0) return this.#commitAll();
    return count === 0;
  }

  #answerAll(count: number): void {
    this.#inHand.dispatchAll(count, this.#dispatcher);
    this.#answers.submit();
  }

  /** Until the queue or the store has something to say, or stop(). */
  #wait(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#wake = resolve;
      const waiting = this.#isWaiting;
      if (!waiting.queue) {
        waiting.queue = true;
        this.#channel.wait().finally(() => waiting.queue = false).then(() => this.#wake(), reject);
      }
      if (!waiting.answers && this.#answers.openCount > 0) {
        waiting.answers = true;
        this.#answers.wait().finally(() => waiting.answers = false).then(() => this.#wake(), reject);
      }
    });
  }

  /** The memory of a slot. */
  view(slot: number, lengthBytes: number): Uint8Array<ArrayBuffer> {
    return this.#channel.view(slot, lengthBytes);
  }

  /** Completes a request that was dispatched before. */
  answer(slot: number, errno: number): void {
    this.#inHand.openCount--;
    if (this.#ended) return;
    this.#inHand.complete(slot, errno);
    if (this.#answers.isTurn || this.#commitScheduled) return;
    this.#commitScheduled = true;
    queueMicrotask(() => {
      this.#commitScheduled = false;
      this.#commitAll();
    });
  }

  /** @returns false: more may be there */
  #commitAll(): false {
    try {
      while (!this.#ended && this.#channel.ring.pending > 0) {
        if (this.#channel.commit() === GONE) this.#stop();
      }
    } catch (error) {
      this.#stop(error);
    }
    return false;
  }

  /** Serves it no more. Its file is closed after that. */
  leave(): void {
    if (!this.#ended) this.#stop();
  }

  /** @returns true: nothing is to come */
  #stop(failure?: unknown): true {
    this.#ended = true;
    this.#failure = failure;
    this.#dispatcher.abort();
    this.#wake();
    return true;
  }
}
