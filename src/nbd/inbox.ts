// SPDX-License-Identifier: MIT
/**
 * What one connection has received and nobody has taken yet: headers and small payloads of many requests at a time. The rest
 * of a large payload goes past it, to where it belongs.
 */
import { addressOf, copyToMemory } from "../system/memory.ts";
import { Pieces, receive } from "../system/socket.ts";
import type { Wire } from "./wire.ts";

/** What is read at once. */
const INBOX_BYTES = 128 * 1024;
/** After a payload from this size on, the next one is expected to be as large. */
const LARGE_BYTES = 16 * 1024;
/** What comes before a large payload is little, and what came with it would be copied. */
const LARGE_AHEAD_BYTES = 4 * 1024;

let pieces: Pieces | undefined;

/** Bytes in the order in which they came. */
export class Inbox {
  readonly #bytes = new Uint8Array(INBOX_BYTES);
  /** All of its memory; the bytes that came are at `begin`. */
  readonly view: DataView = new DataView(this.#bytes.buffer);
  #begin = 0;
  #end = 0;
  #address = 0;
  #isLarge = false;

  /** Where the first byte is that nobody has taken. */
  get begin(): number {
    return this.#begin;
  }

  /** How many bytes there are. */
  get length(): number {
    return this.#end - this.#begin;
  }

  /** Begins with what has come already; there is nothing in it. */
  put(bytes: Uint8Array): void {
    this.#bytes.set(bytes);
    this.#begin = 0;
    this.#end = bytes.length;
  }

  /** The first so many bytes are taken. */
  skip(count: number): void {
    this.#begin += count;
  }

  /** The first so many bytes, at a place of other memory. */
  copyTo(target: Uint8Array, at: number, count: number): void {
    target.set(this.#bytes.subarray(this.#begin, this.#begin + count), at);
  }

  /** The same, at an address. */
  copyToAddress(address: number, count: number): void {
    copyToMemory(address, this.#bytes.subarray(this.#begin, this.#begin + count));
  }

  /** A request has a payload of that size; so may the next one have. */
  expects(payloadBytes: number): void {
    this.#isLarge = payloadBytes > LARGE_BYTES;
  }

  /**
   * Waits for bytes.
   *
   * @param direct where they are to go instead; the inbox is empty then
   * @returns how many came; 0 at the end
   */
  async read(wire: Wire, direct: Uint8Array<ArrayBuffer> | undefined): Promise<number> {
    this.#compact();
    if (direct !== undefined) return await wire.read(direct);
    const count = await wire.read(this.#end === 0 ? this.#bytes : this.#bytes.subarray(this.#end));
    this.#end += count;
    return count;
  }

  /**
   * Takes what has come, without waiting.
   *
   * @param directAddress where the first `directBytes` of it are to go instead; the inbox is empty then
   * @returns how many came; 0 at the end, -1 for an error or if nothing is there
   */
  receive(fd: number, directAddress: number, directBytes: number): number {
    this.#compact();
    pieces ??= new Pieces();
    pieces.clear();
    if (directBytes > 0) pieces.add(directAddress, directBytes);
    const ownBytes = Math.min(INBOX_BYTES - this.#end, this.#isLarge ? LARGE_AHEAD_BYTES : INBOX_BYTES);
    pieces.add((this.#address ||= addressOf(this.#bytes)) + this.#end, ownBytes);
    const count = receive(fd, pieces);
    this.#end += Math.max(0, count - directBytes);
    return count;
  }

  /** Moves what there is to the beginning. */
  #compact(): void {
    if (this.#begin === this.#end) this.#begin = this.#end = 0;
    else if (this.#begin > 0) {
      this.#bytes.copyWithin(0, this.#begin, this.#end);
      this.#end -= this.#begin;
      this.#begin = 0;
    }
  }
}
