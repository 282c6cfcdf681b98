// SPDX-License-Identifier: MIT
/** Copies between arrays and memory that is known by its address. Nothing is checked: the memory has to be mapped. */
import { libc } from "./library.ts";

/** By buffer: to ask V8 makes an object every time. */
const addresses = new WeakMap<ArrayBuffer, number>();

/**
 * Where an array's memory is. It stays there as long as the array's buffer does, if that has been made as a buffer: V8 keeps
 * the content of a small array, whose `buffer` nobody has asked for, where it may move.
 */
export function addressOf({ buffer, byteOffset }: Uint8Array<ArrayBuffer> | Uint32Array<ArrayBuffer>): number {
  let address = addresses.get(buffer);
  if (address === undefined) {
    address = Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer)));
    addresses.set(buffer, address);
  }
  return address + byteOffset;
}

/** Fills `bytes` with what is at an address. */
export function copyFromMemory(bytes: Uint8Array<ArrayBuffer>, address: number): void {
  if (bytes.length > 0) libc().copyFromMemory(bytes, BigInt(address), BigInt(bytes.length));
}

/** Puts `bytes` at an address. */
export function copyToMemory(address: number, bytes: Uint8Array<ArrayBuffer>): void {
  if (bytes.length > 0) libc().copyToMemory(BigInt(address), bytes, BigInt(bytes.length));
}
