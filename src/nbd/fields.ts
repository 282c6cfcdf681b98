// SPDX-License-Identifier: MIT
/** The pieces that options of the handshake and their replies consist of: numbers and strings, read and written. Pure. */
import { NBD_STRING_BYTES_MAX } from "./protocol.ts";

/** The fields of an option's data, one after the other. What is not there is 0, and `isGood` is false then. */
export class Fields {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;
  isGood = true;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Everything was there, and nothing is left. */
  get isComplete(): boolean {
    return this.isGood && this.#at === this.#bytes.length;
  }

  u16(): number {
    const at = this.#take(2);
    return at < 0 ? 0 : this.#view.getUint16(at);
  }

  u32(): number {
    const at = this.#take(4);
    return at < 0 ? 0 : this.#view.getUint32(at);
  }

  /** A string after its length; undefined if it is none. */
  text32(): string | undefined {
    const lengthBytes = this.u32();
    if (lengthBytes > NBD_STRING_BYTES_MAX) this.isGood = false;
    const at = this.#take(lengthBytes);
    return at < 0 ? undefined : textOf(this.#bytes.subarray(at, at + lengthBytes));
  }

  #take(count: number): number {
    const at = this.#at;
    this.isGood &&= at + count <= this.#bytes.length;
    if (!this.isGood) return -1;
    this.#at += count;
    return at;
  }
}

/** Zeroes to be filled in, and the view to do it with. */
export function message(lengthBytes: number): { bytes: Uint8Array<ArrayBuffer>; view: DataView } {
  const bytes = new Uint8Array(lengthBytes);
  return { bytes, view: new DataView(bytes.buffer) };
}

/** A number of 16 bits as it is on the wire. */
export function u16Of(value: number): Uint8Array {
  return Uint8Array.of(value >>> 8, value & 0xff);
}

/** A text in UTF-8. */
export function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** UTF-8 without NUL, as the specification wants every string; undefined if it is not. */
export function textOf(bytes: Uint8Array): string | undefined {
  if (bytes.length > NBD_STRING_BYTES_MAX || bytes.includes(0)) return undefined;
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
