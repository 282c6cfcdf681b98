// SPDX-License-Identifier: MIT
/** The halves of a mirror together: which of them are used, what asking all of them comes to, and who is left for it. */
import { everything } from "../disk/later.ts";
import type { Member } from "./member.ts";
import { askAll, type Result } from "./mirror_ask.ts";
import type { Half, HalfState, Range } from "./mirror_half.ts";
import type { MirrorRecord } from "./mirror_record.ts";

/** The halves of one mirror. */
export class Halves {
  /** In their order. */
  readonly all: readonly Half[];
  readonly #record: MirrorRecord;
  readonly #lateMs: number;
  readonly #left: (half: Half, error: unknown) => void;

  /** @param left told of each half that is left, and why */
  constructor(
    all: readonly Half[],
    record: MirrorRecord,
    lateMs: number,
    left: (half: Half, error: unknown) => void,
  ) {
    this.all = all;
    this.#record = record;
    this.#lateMs = lateMs;
    this.#left = left;
  }

  /** True if every half has everything. */
  get areAllWorking(): boolean {
    return this.all.every(({ state }) => state === "working");
  }

  /** Those that are in one of these states, in their order. */
  in(...states: readonly HalfState[]): Half[] {
    return this.all.filter(({ state }) => states.includes(state));
  }

  /**
   * Asks several the same: see `askAll()`. A disk that is late is left, and the last one that has everything is waited for:
   * what a disk does when this has ended is not seen, and cannot undo what it is asked next.
   *
   * @throws why it cannot be recorded that a disk has left.
   */
  async ask(halves: readonly Half[], work: (member: Member, half: Half) => void | Promise<void>): Promise<Result[]> {
    const results = await askAll(halves, work, this.#lateMs);
    return await everything(results.map((result) => async () => {
      if (result.late === undefined) return result;
      await this.leave(result.half, result.error);
      return result.half.state === "left" ? result : await result.late;
    }));
  }

  /**
   * Leaves every disk that has failed at something which all should have done. If all have failed that had everything, the
   * first of them stays, because it is still the best one; the others may differ from it now. When this has ended, it is on
   * record which halves are left, also those that another request has left: what they have missed may be answered then.
   *
   * @param changed what they were to change
   * @throws the error of the one that stays; or why it cannot be recorded.
   */
  async judge(results: readonly Result[], changed?: Range): Promise<void> {
    const working = results.filter(({ half }) => half.state === "working");
    const survivor = working.every(({ error }) => error !== undefined) ? working[0] : undefined;
    if (survivor !== undefined && changed !== undefined) {
      // One that is copied to, and could, has now what the one that stays has not.
      for (const { half } of results) if (half.state === "syncing") half.copyAgain(changed);
    }
    const failed = results.filter((result) => result.error !== undefined && result !== survivor);
    await Promise.all(failed.map(({ half, error }) => this.leave(half, error)));
    if (survivor !== undefined) throw survivor.error;
    await this.#record.halvesAreDurable();
  }

  /** Does without a disk, unless it is the last one; that is on record when this has ended. */
  async leave(half: Half, error: unknown): Promise<void> {
    const [first, second] = this.in("working");
    if (half === first && second === undefined) return;
    if (half.state !== "left") {
      half.leave(error);
      this.#left(half, error);
    }
    await this.#record.setOutOfDate(half, true);
  }
}
