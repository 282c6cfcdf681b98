// SPDX-License-Identifier: MIT
/**
 * The replies of one connection on their way out. On a plain socket one system call gathers many of them where they are; with
 * TLS, small ones are copied together and each large one goes by itself.
 */
import { copyFromMemory } from "../system/memory.ts";
import { Pieces, send } from "../system/socket.ts";
import { HEADROOM_BYTES } from "./pool.ts";
import type { Slot } from "./slot.ts";
import type { Wire } from "./wire.ts";

/**
 * What is written at once, if the replies are small or their data is the disk's own; a reply with more data is written by
 * itself, without a copy.
 */
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

let pieces: Pieces | undefined;

/** Replies in the order in which they were finished. */
export class Outbox {
  readonly #wire: Wire;
  readonly #owner: OutboxOwner;
  #out: Uint8Array<ArrayBuffer> | undefined;
  readonly #ready: Slot[] = [];
  /** Those before it in `#ready` are sent. */
  #first = 0;
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

  /** Replies that are not on their way yet. */
  get waitingCount(): number {
    return this.#ready.length - this.#first;
  }

  /** Since when the client has left no room for a write, in ms of `performance.now()`; 0: it is not waited for. */
  get waitingSinceMs(): number {
    return this.#sinceMs;
  }

  /** The slot's reply is complete. It goes out with the next write: `writeSoon()`, `writeNow()` or `sendNow()`. */
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

  /** Writes what is ready. What the socket has no room for goes when it has. */
  writeNow(): void {
    if (this.#isWriting || this.waitingCount === 0) return;
    this.sendNow();
    if (this.waitingCount > 0) void this.#write();
    else this.#owner.drained();
  }

  /** Writes what is ready, as far as the socket takes it at once. */
  sendNow(): void {
    if (!this.#isWriting) this.#gather();
  }

  #gather(): void {
    const { fd } = this.#wire;
    if (fd === undefined || this.#isBroken) return;
    pieces ??= new Pieces();
    while (this.waitingCount > 0) {
      pieces.clear();
      let bytes = 0;
      for (let i = this.#first; i < this.#ready.length && pieces.room > 1; i++) {
        const slot = this.#ready[i]!;
        if (slot.to > slot.from) pieces.add(slot.replyAddress + slot.from, slot.to - slot.from);
        if (slot.tailBytes > 0) pieces.add(slot.tailAddress, slot.tailBytes);
        bytes += slot.replyBytes;
      }
      const count = send(fd, pieces);
      if (count < 0) return; // no room, or an error, which `#write()` finds out
      this.#sent(count);
      if (count < bytes) return;
    }
  }

  /** The connection has ended: nothing is written any more, and the slots are given back. */
  break(): void {
    this.#isBroken = true;
    this.writeNow();
  }

  #sent(bytes: number): void {
    let rest = bytes;
    while (this.#first < this.#ready.length) {
      const slot = this.#ready[this.#first]!;
      const size = slot.replyBytes;
      if (size > rest) {
        slot.advance(rest);
        break;
      }
      rest -= size;
      this.#first++;
      this.#owner.sent(slot);
    }
    if (this.#first < this.#ready.length) return;
    this.#ready.length = 0;
    this.#first = 0;
  }

  async #write(): Promise<void> {
    this.#isWriting = true;
    while (this.waitingCount > 0) {
      if (this.#isBroken) {
        this.#sent(Infinity); // nothing looks at their memory any more
        break;
      }
      try {
        await this.#writeSome();
        this.#gather(); // there may be room again, for much more
      } catch {
        this.#isBroken = true;
        this.#owner.broken();
      }
    }
    this.#isWriting = false;
    this.#owner.drained();
  }

  async #writeSome(): Promise<void> {
    const out = this.#out ??= new Uint8Array(OUT_BYTES);
    let bytes = 0;
    for (let i = this.#first; i < this.#ready.length; i++) {
      const { reply, from, to, tailAddress, tailBytes } = this.#ready[i]!;
      if (to - from > COPIED_BYTES_MAX || bytes + to - from > OUT_BYTES) break;
      // A loop is faster than a view for a few bytes.
      if (reply.length === HEADROOM_BYTES) { for (let i = from; i < to; i++) out[bytes + i - from] = reply[i]!; }
      else out.set(reply.subarray(from, to), bytes);
      bytes += to - from;
      const copied = Math.min(tailBytes, OUT_BYTES - bytes);
      if (copied > 0) copyFromMemory(out.subarray(bytes, bytes + copied), tailAddress);
      bytes += copied;
      if (copied < tailBytes) break;
    }
    if (bytes > 0) {
      // Copied: the slots are free before the write has ended.
      this.#sent(bytes);
      return await this.#send(out.subarray(0, bytes));
    }
    const { reply, from, to } = this.#ready[this.#first]!;
    try {
      await this.#send(reply.subarray(from, to));
    } finally {
      this.#sent(to - from);
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
