// SPDX-License-Identifier: MIT
/**
 * A queue of a mapped disk that this thread serves until there is a Worker for it. The start of a Worker takes longer than all
 * else between a server's end and the first answer of the next one, and those who use the disk would wait for it. A flush that
 * comes meanwhile keeps this thread until it has ended.
 */
import type { Mapping } from "../disk/servable.ts";
import type { Kernel } from "../system/libc.ts";
import { flusherOf } from "../system/mapping.ts";
import { servers } from "../system/servers.ts";
import { Channel, GONE } from "./channel.ts";
import { answerMapped, type MappedDisk } from "./mapped.ts";
import type { QueuePlan, QueueServer, ServedQueue } from "./queue.ts";
import { immediate, TURN_MS } from "./turn.ts";

/** One queue, served by this thread's event loop, then by a Worker. */
export class MovingQueue implements ServedQueue {
  readonly left: Promise<void>;
  readonly #plan: QueuePlan;
  readonly #disk: MappedDisk;
  readonly #channel: Channel;
  #next: QueueServer | undefined;
  /** Whether the next one has it; undefined while none is told to. */
  #moved: Promise<boolean> | undefined;
  #hasLeft = false;

  /**
   * Opens the queue's file, attaches, and serves.
   *
   * @throws {DblockError} what `Channel.attach()` throws.
   */
  constructor(plan: QueuePlan, mapping: Mapping, kernel: Kernel) {
    const { name, id, queue, depth, geometry } = plan;
    this.#plan = plan;
    this.#disk = { mapping, geometry, flusher: flusherOf(mapping) };
    const channel = new Channel({
      name,
      id,
      queue,
      depth,
      slotBytes: 0,
      nonblocking: true,
      event: kernel.openEvent(),
      kernel,
    });
    try {
      channel.attach();
      channel.watch(); // before there is I/O: it may fail for lack of descriptors
    } catch (error) {
      channel[Symbol.dispose]();
      throw error;
    }
    this.#channel = channel;
    this.left = this.#run();
    this.left.catch(() => {}); // whoever waits for it hears of it
  }

  get hasLeft(): boolean {
    return this.#hasLeft && (this.#next?.hasLeft ?? true);
  }

  /**
   * Lets a Worker take it over: requests wait for some microseconds.
   *
   * @returns once it has attached
   * @throws {DblockError} why it cannot: this thread goes on then.
   */
  async moveTo(next: QueueServer): Promise<void> {
    this.#next = next;
    const attached = this.#attach(next);
    this.#moved = attached.then(() => true, () => false);
    try {
      await attached;
    } catch (error) {
      next.stop();
      this.#next = undefined;
      throw error;
    }
  }

  async #attach(next: QueueServer): Promise<void> {
    await next.serve({ ...this.#plan, takeOver: true }, { mapping: this.#disk.mapping });
  }

  async #run(): Promise<void> {
    servers.count++;
    try {
      await this.#serve();
    } catch (error) {
      // Another file has the queue: that of the next one, unless that could not have it.
      if (!await this.#moved) throw error;
    } finally {
      servers.count--;
      this.#hasLeft = true;
      this.#channel[Symbol.dispose]();
    }
    // One that came too late to attach has nothing to leave, and why it could not is no failure of the disk.
    if (await this.#moved) await this.#next?.left;
  }

  /** Until the device is gone, or somebody else has the queue. */
  async #serve(): Promise<void> {
    for (;;) {
      const count = this.#turn();
      if (count === GONE) return;
      // Answers that are left in the ring are committed by the next turn.
      if (count > 0) await immediate();
      else await this.#channel.wait();
    }
  }

  /** Answers what there is now, before this thread does something that takes long. */
  answer(): void {
    if (this.#hasLeft || this.#next !== undefined) return;
    try {
      this.#turn();
    } catch {
      // The next turn of the loop hears of it, too.
    }
  }

  /** Answers until nothing is left, or its time is over. @returns what is still in hand; `GONE` if there is nothing to serve */
  #turn(): number {
    const { ring } = this.#channel;
    const endsMs = this.#channel.now() + TURN_MS;
    for (;;) {
      const count = this.#channel.exchange(true);
      if (count === GONE) return GONE;
      answerMapped(ring, count, this.#disk);
      if (ring.pending === 0 || this.#channel.now() >= endsMs) return ring.pending;
    }
  }

  abandon(): void {
    this.#next?.abandon();
    this.#channel[Symbol.dispose]();
  }

  stop(): void {
    this.#next?.stop();
    this.#channel[Symbol.dispose]();
  }
}
