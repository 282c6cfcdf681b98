// SPDX-License-Identifier: MIT
/** The requests of one connection that are open: their slots and their memory, and the bounds of both. */
import type { BufferPool, PooledBuffer } from "./pool.ts";
import { PAYLOAD_BYTES_MAX } from "./protocol.ts";
import type { WireRequest } from "./request.ts";
import { Slot } from "./slot.ts";

/** Requests of one connection at once. */
const SLOTS_MAX = 128;
/** Payloads of one connection at once, unless a single one is larger. */
const OPEN_BYTES_MAX = 2 * PAYLOAD_BYTES_MAX;

/** A connection's slots, each of which has one request after the other. */
export class OpenRequests {
  readonly #pool: BufferPool;
  readonly #slots: Slot[] = [];
  readonly #free: Slot[] = [];
  #count = 0;
  #bytes = 0;

  /** @param pool where the memory of payloads comes from, and goes back to */
  constructor(pool: BufferPool) {
    this.#pool = pool;
  }

  /** Requests that have no answer yet, or whose answer is on its way. */
  get count(): number {
    return this.#count;
  }

  /** Whether another one may be open, with so many bytes of memory. */
  hasRoom(memoryBytes: number): boolean {
    return this.#count < SLOTS_MAX && (this.#bytes === 0 || this.#bytes + memoryBytes <= OPEN_BYTES_MAX);
  }

  /** By its number for dispatch. */
  slot(index: number): Slot {
    return this.#slots[index]!;
  }

  /** Opens one, as {@linkcode Slot.begin} takes it. */
  open(
    request: WireRequest,
    buffer: PooledBuffer | undefined,
    contentAddress: number,
    refusedWith: number,
  ): Slot {
    let slot = this.#free.pop();
    if (slot === undefined) this.#slots.push(slot = new Slot(this.#slots.length));
    this.#count++;
    this.#bytes += buffer?.sizeBytes ?? 0;
    slot.begin(request, buffer, contentAddress, refusedWith);
    return slot;
  }

  /** Gives back the memory of one, if it has any. */
  releaseBuffer(slot: Slot): void {
    const { buffer } = slot;
    if (buffer === undefined) return;
    this.#bytes -= buffer.sizeBytes;
    slot.buffer = undefined;
    this.#pool.release(buffer);
  }

  /** It is over: its slot is free for the next one. */
  close(slot: Slot): void {
    this.releaseBuffer(slot);
    this.#count--;
    this.#free.push(slot);
  }
}
