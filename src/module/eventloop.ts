// SPDX-License-Identifier: MIT
/**
 * Serves one queue of a `Backend`: channel → dispatch → backend → dispatch → channel. Only this thread touches the ring.
 *
 * Requests are taken and answered in turns: a turn exchanges until nothing is left or its time is over; answers that come
 * later are committed together, a microtask after the first. An exchange that finds nothing, while nothing is in hand,
 * waits for a moment: who has just got an answer asks again. After a turn that brought requests comes another, with all else
 * that is due between them; after one that brought none, or a single request that is answered later, the event loop sleeps
 * until a request is there. Where this thread serves several queues, their turns are those of rounds.ts.
 */
import { type Channel, GONE } from "./channel.ts";
import type { Backend } from "../disk/backend.ts";
import { Dispatcher, type Geometry, type Transport } from "../disk/dispatch.ts";
import type { DiskLog } from "../disk/log.ts";
import { InHand } from "./in_hand.ts";
import type { Member, Rounds } from "./rounds.ts";
import { servers } from "../system/servers.ts";
import { immediate, TURN_MS } from "./turn.ts";

/** In so many microtasks a backend answers that has nothing to wait for: a guess. */
const ANSWER_MICROTASKS = 4;

/** One queue, served by the thread that calls `run()`. */
export class EventLoop implements Transport, Member {
  readonly channel: Channel;
  isActive = false;
  readonly #dispatcher: Dispatcher;
  readonly #inHand: InHand;
  readonly #rounds: Rounds;
  #commitScheduled = false;
  #turnEndsMs = 0;
  /** Whether requests came since the last turn of run(), the microtasks' turns included. */
  #isBusy = false;
  /** A request was answered later, since `#isAloneAndLater()` began. */
  #hasAnswered = false;
  #ended = false;
  #failure: unknown;
  /** Ends the wait of run(). */
  #wake: () => void = () => {};

  /**
   * @param channel has attached
   * @param rounds of this thread
   * @throws {DblockError} EMFILE: others are served here, and there is no room to wait for several.
   */
  constructor(channel: Channel, backend: Backend, geometry: Geometry, log: DiskLog, rounds: Rounds) {
    this.channel = channel;
    this.#dispatcher = new Dispatcher(backend, geometry, this, log);
    this.#inHand = new InHand(channel.ring);
    this.#rounds = rounds;
    rounds.join(this);
  }

  get openCount(): number {
    return this.#inHand.openCount;
  }

  get isEnded(): boolean {
    return this.#ended;
  }

  /**
   * Serves until the device is gone.
   *
   * @param options.mayBlock this thread has nothing else to do (a Worker): EXCHANGE itself waits, until the backend
   * returns its first promise. @default false
   * @throws {DblockError} if the channel fails for good.
   */
  async run(options: { readonly mayBlock?: boolean } = {}): Promise<void> {
    try {
      if (options.mayBlock === true) {
        while (this.#inHand.openCount === 0) {
          if (!this.#exchange()) return this.#stop();
        }
        this.channel.setNonblocking();
      }
      await this.#serve();
    } finally {
      this.#rounds.leave(this);
    }
  }

  async #serve(): Promise<void> {
    servers.count++;
    try {
      while (!this.#ended) await (this.#rounds.areShared ? this.#serveWithOthers() : this.#serveAlone());
      if (this.#failure !== undefined) throw this.#failure;
    } finally {
      servers.count--;
    }
  }

  /** Until the device is gone, or it is alone. */
  #serveWithOthers(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
      this.#rounds.begin();
    });
  }

  /** Until the device is gone, or there is another one. */
  async #serveAlone(): Promise<void> {
    while (!this.#ended && !this.#rounds.areShared) {
      this.#turnEndsMs = this.channel.now() + TURN_MS;
      this.#isBusy = false;
      this.#turn(true);
      if (this.#isBusy && await this.#isAloneAndLater()) continue;
      if (!this.#ended) await (this.#isBusy ? immediate() : this.#wait());
    }
  }

  /**
   * Whether a single request is in hand, and is answered later. Whoever asks for one at a time sends no other one before that:
   * the loop may sleep now. Where several are in hand, a turn of the loop gathers those that come, for one wake. Without an
   * answer in between this is true once at most: nothing else is kept waiting.
   */
  async #isAloneAndLater(): Promise<boolean> {
    this.#hasAnswered = false;
    for (let i = 0; i < ANSWER_MICROTASKS && this.#inHand.openCount === 1 && !this.#hasAnswered; i++) await undefined;
    return this.#inHand.openCount === 1 && !this.#hasAnswered;
  }

  /** Until the channel has something to say, or stop(). Not Promise.race: a promise for the end would keep every loser. */
  #wait(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#wake = resolve;
      this.channel.wait().then(resolve, reject);
    });
  }

  /**
   * Exchanges until nothing is left or the turn's time is over. No completion is left behind; requests may be: `wait()`
   * returns at once then.
   *
   * @param sleeps `wait()` follows if nothing has come
   */
  #turn(sleeps: boolean): void {
    while (!this.#ended) {
      const count = this.#exchangeOrEnd(sleeps, servers.count === 1);
      const pending = this.channel.ring.pending;
      if (pending === 0) return; // nothing came, or all that came is answered later: another turn follows that
      // Nothing came, but not all was taken: a signal, or a refused answer that has to be given again.
      if (count === 0 || this.channel.now() >= this.#turnEndsMs) return this.commitAll();
    }
  }

  #exchangeOrEnd(sleeps: boolean, lingers: boolean): number {
    try {
      const count = this.channel.exchange(sleeps, lingers && this.#inHand.openCount === 0);
      if (count === GONE) this.#stop();
      else this.#answerAll(count);
      return count;
    } catch (error) {
      this.#stop(error);
      return 0;
    }
  }

  /** One exchange that may wait; false when the device is gone. */
  #exchange(): boolean {
    const count = this.channel.exchange();
    if (count === GONE) return false;
    this.#answerAll(count);
    return true;
  }

  #answerAll(count: number): void {
    this.#isBusy ||= count > 0;
    this.#inHand.dispatchAll(count, this.#dispatcher);
  }

  /** The memory of a slot. */
  view(slot: number, lengthBytes: number): Uint8Array<ArrayBuffer> {
    return this.channel.view(slot, lengthBytes);
  }

  /** Completes a request that was dispatched before. */
  answer(slot: number, errno: number): void {
    this.#inHand.openCount--;
    this.#hasAnswered = true;
    if (this.#ended) return;
    this.#inHand.complete(slot, errno);
    if (this.#rounds.areShared) return this.#rounds.answered(this);
    if (this.#commitScheduled) return;
    this.#commitScheduled = true;
    queueMicrotask(() => {
      this.#commitScheduled = false;
      if (this.#ended) return;
      // Inside a turn's time new requests are taken as well; after it they wait for run(), so that a backend that
      // answers in microtasks cannot keep everything else waiting for ever.
      if (this.channel.now() < this.#turnEndsMs) this.#turn(false);
      else this.commitAll();
    });
  }

  step(sleeps: boolean, lingers: boolean): number {
    return this.#exchangeOrEnd(sleeps, lingers);
  }

  commitAll(): void {
    try {
      while (!this.#ended && this.channel.ring.pending > 0) {
        if (this.channel.commit() === GONE) this.#stop();
      }
    } catch (error) {
      this.#stop(error);
    }
  }

  wake(): void {
    this.#wake();
  }

  /** Serves it no more. Its file is closed after that. */
  leave(): void {
    if (!this.#ended) this.#stop();
  }

  #stop(failure?: unknown): void {
    this.#ended = true;
    // A file that another thread has closed answers like any other, and that is no failure.
    this.#failure = this.#rounds.leave(this) ? failure : undefined;
    this.#dispatcher.abort();
    this.#wake();
  }
}
