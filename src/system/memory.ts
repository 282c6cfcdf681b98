// SPDX-License-Identifier: MIT
/** Copies between arrays and memory that is known by its address. Nothing is checked: the memory has to be mapped. */
import { libc } from "./library.ts";

/**
 * Where an array's memory is. It stays there as long as the array's buffer does, if that has been made as a buffer: V8 keeps
 * the content of a small array, whose `buffer` nobody has asked for, where it may move.
 */
export function addressOf(bytes: Uint8Array<ArrayBuffer>): number {
  const { buffer, byteOffset } = bytes;
  return Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer))) + byteOffset;
}

/** Fills `bytes` with what is at an address. */
export function copyFromMemory(bytes: Uint8Array<ArrayBuffer>, address: number): void {
  if (bytes.length > 0) libc().copyFromMemory(bytes, BigInt(address), BigInt(bytes.length));
}

/** Puts `bytes` at an address. */
export function copyToMemory(address: number, bytes: Uint8Array<ArrayBuffer>): void {
  if (bytes.length > 0) libc().copyToMemory(BigInt(address), bytes, BigInt(bytes.length));
}
