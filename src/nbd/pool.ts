// SPDX-License-Identifier: MIT
/** The memory of all payloads of a server: buffers that are used again, and a bound on all of them together. */
import { addressOf } from "../system/memory.ts";
import { HEAD_BYTES_MAX } from "./reply.ts";

/** Room before each payload, so that a reply's header and its data are one piece; keeps the data aligned. */
export const HEADROOM_BYTES = 64;
const SMALLEST_BYTES = 8 * 1024;
/** Free buffers beyond this are left to the garbage collector. */
const KEPT_BYTES_MAX = 64 * 2 ** 20;

console.assert(HEADROOM_BYTES >= HEAD_BYTES_MAX);

/** Memory with room for `HEADROOM_BYTES` and a payload. */
export class PooledBuffer {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView;
  #address = 0;
  #window: Uint8Array<ArrayBuffer>;

  constructor(sizeBytes: number) {
    this.bytes = new Uint8Array(HEADROOM_BYTES + sizeBytes);
    this.view = new DataView(this.bytes.buffer);
    this.#window = this.bytes.subarray(HEADROOM_BYTES);
  }

  get sizeBytes(): number {
    return this.bytes.length - HEADROOM_BYTES;
  }

  /** Where `bytes` is, for calls of the system. */
  get address(): number {
    return this.#address ||= addressOf(this.bytes);
  }

  /** A part of the payload. Requests of one length after the other get the same object: nothing is allocated then. */
  window(offsetBytes: number, lengthBytes: number): Uint8Array<ArrayBuffer> {
    const at = HEADROOM_BYTES + offsetBytes;
    if (this.#window.length === lengthBytes && this.#window.byteOffset === at) return this.#window;
    return this.#window = this.bytes.subarray(at, at + lengthBytes);
  }
}

/** Lends buffers whose sizes are powers of two, plus the headroom. */
export class BufferPool {
  readonly #limitBytes: number;
  readonly #free = new Map<number, PooledBuffer[]>();
  #usedBytes = 0;
  #keptBytes = 0;
  #waiters: (() => void)[] = [];

  /** @param limitBytes of what is lent at a time; one buffer of any size is lent in any case */
  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  /** What is lent now. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** A buffer with room for `HEADROOM_BYTES` and a payload; undefined if too much is lent already. */
  acquire(payloadBytes: number): PooledBuffer | undefined {
    let size = SMALLEST_BYTES;
    while (size < payloadBytes) size *= 2;
    if (this.#usedBytes > 0 && this.#usedBytes + size > this.#limitBytes) return undefined;
    this.#usedBytes += size;
    const buffer = this.#free.get(size)?.pop();
    if (buffer === undefined) return new PooledBuffer(size);
    this.#keptBytes -= size;
    return buffer;
  }

  release(buffer: PooledBuffer): void {
    const size = buffer.sizeBytes;
    this.#usedBytes -= size;
    if (this.#keptBytes + size <= KEPT_BYTES_MAX) {
      const free = this.#free.get(size);
      if (free === undefined) this.#free.set(size, [buffer]);
      else free.push(buffer);
      this.#keptBytes += size;
    }
    if (this.#waiters.length === 0) return;
    for (const wake of this.#waiters.splice(0)) wake();
  }

  /** Resolves when a buffer has been given back. */
  released(): Promise<void> {
    return new Promise((resolve) => this.#waiters.push(resolve));
  }
}
