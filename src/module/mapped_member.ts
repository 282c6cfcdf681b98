// SPDX-License-Identifier: MIT
/** A queue of a disk in memory that has its turns together with others: mapped.ts says what it answers, rounds.ts when. */
import type { Geometry } from "../disk/dispatch.ts";
import type { Mapping } from "../disk/servable.ts";
import { servers } from "../system/servers.ts";
import { flusherOf } from "../system/mapping.ts";
import { type Channel, GONE } from "./channel.ts";
import { answerMapped, type MappedDisk } from "./mapped.ts";
import type { Member, Rounds } from "./rounds.ts";

/** One queue, all of whose answers are given at once. */
export class MappedMember implements Member {
  readonly channel: Channel;
  readonly openCount = 0;
  isEnded = false;
  isActive = false;
  readonly #disk: MappedDisk;
  readonly #rounds: Rounds;
  readonly #left = Promise.withResolvers<void>();

  /**
   * @param channel has attached
   * @throws {DblockError} EMFILE.
   */
  constructor(channel: Channel, mapping: Mapping, geometry: Geometry, rounds: Rounds) {
    this.channel = channel;
    this.#disk = { mapping, geometry, flusher: flusherOf(mapping) };
    this.#rounds = rounds;
    rounds.join(this);
  }

  /**
   * Serves until the device is gone.
   *
   * @throws {DblockError} if the channel fails for good.
   */
  async run(): Promise<void> {
    servers.count++;
    this.#rounds.begin();
    try {
      await this.#left.promise;
    } finally {
      servers.count--;
    }
  }

  step(sleeps: boolean, lingers: boolean): number {
    const { channel } = this;
    try {
      const count = channel.exchange(sleeps, lingers);
      if (count !== GONE) {
        answerMapped(channel.ring, count, this.#disk);
        return count;
      }
      this.#end();
    } catch (error) {
      this.#end(error);
    }
    return 0;
  }

  commitAll(): void {
    try {
      while (!this.isEnded && this.channel.ring.pending > 0) if (this.channel.commit() === GONE) this.#end();
    } catch (error) {
      this.#end(error);
    }
  }

  /** Nothing of it waits. */
  wake(): void {}

  leave(): void {
    this.#end();
  }

  #end(error?: unknown): void {
    this.isEnded = true;
    // A file that another thread has closed answers like any other, and that is no failure.
    if (this.#rounds.leave(this) && error !== undefined) this.#left.reject(error);
    else this.#left.resolve();
  }
}
