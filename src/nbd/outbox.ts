// SPDX-License-Identifier: MIT
/** The replies of one connection on their way out: small ones go together in one write, each large one by itself. */
import { HEADROOM_BYTES } from "./pool.ts";
import type { Slot } from "./slot.ts";
import type { Wire } from "./wire.ts";

/** What is written at once, if the replies are small; a reply with more data is written by itself, without a copy. */
const OUT_BYTES = 128 * 1024;
const COPIED_BYTES_MAX = 16 * 1024;

/** Who owns the slots. */
export interface OutboxOwner {
  /** The slot's reply has been taken over or is written, or never will be: the slot is free. */
  sent(slot: Slot): void;
  /** Everything that was ready is written. */
  drained(): void;
  /** The connection takes no more. */
  broken(): void;
}

/** Replies in the order in which they were finished. */
export class Outbox {
  readonly #wire: Wire;
  readonly #owner: OutboxOwner;
  readonly #out = new Uint8Array(OUT_BYTES);
  readonly #ready: Slot[] = [];
  #isWriting = false;
  #isScheduled = false;
  #isBroken = false;
  #sinceMs = 0;

  constructor(wire: Wire, owner: OutboxOwner) {
    this.#wire = wire;
    this.#owner = owner;
  }

  get isWriting(): boolean {
    return this.#isWriting;
  }

  /** Since when the client has left no room for a write, in ms of `performance.now()`; 0: it is not waited for. */
  get waitingSinceMs(): number {
    return this.#sinceMs;
  }

  /** The slot's reply is complete. It goes out with the next write: `writeSoon()` or `writeNow()`. */
  add(slot: Slot): void {
    this.#ready.push(slot);
  }

  /** Writes when what runs now has ended: answers that come together are written together. */
  writeSoon(): void {
    if (this.#isScheduled || this.#isWriting) return;
    this.#isScheduled = true;
    queueMicrotask(() => {
      this.#isScheduled = false;
      this.writeNow();
    });
  }

  /** Writes what is ready. */
  writeNow(): void {
    if (!this.#isWriting && this.#ready.length > 0) void this.#write();
  }

  /** The connection has ended: nothing is written any more, and the slots are given back. */
  break(): void {
    this.#isBroken = true;
    this.writeNow();
  }

  async #write(): Promise<void> {
    this.#isWriting = true;
    while (this.#ready.length > 0) {
      try {
        await this.#writeSome();
      } catch {
        this.#isBroken = true;
        this.#owner.broken();
      }
    }
    this.#isWriting = false;
    this.#owner.drained();
  }

  async #writeSome(): Promise<void> {
    const ready = this.#ready;
    let taken = 0;
    let bytes = 0;
    for (; taken < ready.length; taken++) {
      const { reply, from, to } = ready[taken]!;
      const size = to - from;
      if (size > COPIED_BYTES_MAX || bytes + size > OUT_BYTES) break;
      // A loop is faster than a view for a few bytes.
      if (reply.length === HEADROOM_BYTES) { for (let i = from; i < to; i++) this.#out[bytes + i - from] = reply[i]!; }
      else this.#out.set(reply.subarray(from, to), bytes);
      bytes += size;
    }
    if (taken > 0) {
      // Copied: the slots are free before the write has ended.
      for (const slot of ready.splice(0, taken)) this.#owner.sent(slot);
      return await this.#send(this.#out.subarray(0, bytes));
    }
    const alone = ready.shift()!;
    try {
      await this.#send(alone.reply.subarray(alone.from, alone.to));
    } finally {
      this.#owner.sent(alone);
    }
  }

  async #send(bytes: Uint8Array): Promise<void> {
    if (this.#isBroken) return;
    this.#sinceMs = performance.now();
    try {
      await this.#wire.write(bytes);
    } finally {
      this.#sinceMs = 0;
    }
  }
}
