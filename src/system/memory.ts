// SPDX-License-Identifier: MIT
/** Copies between arrays and memory that is known by its address. Nothing is checked: the memory has to be mapped. */
import { libc } from "./libc.ts";

/** Fills `bytes` with what is at an address. */
export function copyFromMemory(bytes: Uint8Array<ArrayBuffer>, address: number): void {
  if (bytes.length > 0) libc().copyFromMemory(bytes, BigInt(address), BigInt(bytes.length));
}

/** Puts `bytes` at an address. */
export function copyToMemory(address: number, bytes: Uint8Array<ArrayBuffer>): void {
  if (bytes.length > 0) libc().copyToMemory(BigInt(address), bytes, BigInt(bytes.length));
}
