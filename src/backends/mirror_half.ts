// SPDX-License-Identifier: MIT
/** One half of a mirror: its disk, whether the mirror uses the disk, and why not. What that means is the mirror's to decide. */
import type { Backend, CloseReason } from "../disk/backend.ts";
import { describe } from "../disk/errors.ts";
import { watched } from "../disk/later.ts";
import { Member } from "./member.ts";

/** A disk that a mirror is made of. */
export interface MirrorDisk {
  /** What the disk is called in status and log, and how the bitmap knows it again: the path or address. */
  readonly name: string;
  /** Opens the disk; called again after it has failed. */
  readonly open: () => Backend | Promise<Backend>;
}

/**
 * - `working`: it has everything; reads and writes go to it.
 * - `syncing`: writes go to it, and what it has missed is being copied.
 * - `left`: it has failed, or could not be opened, and is not used.
 */
export type HalfState = "working" | "syncing" | "left";

/** A part of a disk. */
export interface Range {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** A half of a mirror. */
export class Half {
  readonly name: string;
  /** Its place in the mirror. */
  readonly index: number;
  /** Why it has left, in words; undefined while it is used. */
  error: string | undefined;
  /** What is still to be copied to it. */
  syncLeftBytes = 0;
  /** What is copied to it until it has everything, in this order. */
  #toCopy: Range[] = [];
  /** How many reads have failed. */
  readErrorCount = 0;
  readonly #open: MirrorDisk["open"];
  #state: HalfState = "left";
  #member: Member | undefined;
  #callCount = 0;
  #whenIdle: (() => void) | undefined;
  /** Settles when the disk that has failed is closed. */
  #closed: Promise<void> = Promise.resolve();

  constructor({ name, open }: MirrorDisk, index: number) {
    this.name = name;
    this.#open = open;
    this.index = index;
  }

  /** Whether the mirror uses it. */
  get state(): HalfState {
    return this.#state;
  }

  /** The disk, while it is used. */
  get member(): Member | undefined {
    return this.#member;
  }

  /**
   * Opens the disk, once what was open before is closed.
   *
   * @throws what opening throws.
   */
  async open(): Promise<Member> {
    await this.#closed;
    return new Member(await this.#open());
  }

  /** The disk is used from now on. */
  join(member: Member, state: "working" | "syncing"): void {
    this.#member = member;
    this.#state = state;
    this.error = undefined;
  }

  /**
   * Begins to copy to it.
   *
   * @returns the same ranges; those that `copyAgain()` adds come behind them
   */
  beginSync(ranges: Iterable<Range>): readonly Range[] {
    this.#toCopy = [...ranges];
    this.syncLeftBytes = this.#toCopy.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
    return this.#toCopy;
  }

  /** What it has there is not what the disk has that it is copied from. */
  copyAgain(range: Range): void {
    this.#toCopy.push(range);
    this.syncLeftBytes += range.lengthBytes;
  }

  /** True until it has left, or has everything: it may have come back since, and then other ranges are copied to it. */
  isSyncing(ranges: readonly Range[]): boolean {
    return this.#state === "syncing" && this.#toCopy === ranges;
  }

  /** It has everything. */
  becomeWorking(): void {
    this.#state = "working";
    this.syncLeftBytes = 0;
  }

  /** Asks the disk, which is not closed before it has answered. */
  ask<T>(work: (member: Member) => T | Promise<T>): T | Promise<T> {
    const member = this.#member;
    if (member === undefined) throw new Error(`${this.name} is not there`);
    this.#callCount++;
    return watched(() => work(member), () => {
      if (--this.#callCount === 0) this.#whenIdle?.();
    });
  }

  /** The disk is not used any more; it is closed when it has answered everything. */
  leave(error: unknown): void {
    this.#state = "left";
    this.error = describe(error);
    this.syncLeftBytes = 0;
    // It has failed already: what it says when it is closed is not news.
    this.#closed = this.close("left").catch(() => {});
  }

  /** Closes the disk when it has answered everything. */
  async close(reason: CloseReason): Promise<void> {
    const member = this.#member;
    if (member === undefined) return await this.#closed;
    this.#member = undefined;
    if (this.#callCount > 0) await new Promise<void>((resolve) => this.#whenIdle = resolve);
    this.#whenIdle = undefined;
    await member.backend.close?.(reason);
  }
}
