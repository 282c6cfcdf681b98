// SPDX-License-Identifier: MIT
/** The machine's clock for who reads it often: performance.now() costs three times as much. */
import { libc } from "./library.ts";

const CLOCK_MONOTONIC = 1;
/** struct timespec as words: seconds in the first, nanoseconds in the third. */
const words = new Uint32Array(4);
const address = Deno.UnsafePointer.of(words);
/** Kept: to look the function up in the library each time takes longer than the call. */
let clock: ReturnType<typeof libc>["clock_gettime"] | undefined;

/** A clock that never goes back, in ms; its zero is the machine's start. */
export function monotonicMs(): number {
  clock ??= libc().clock_gettime;
  clock(CLOCK_MONOTONIC, address);
  return words[0]! * 1e3 + words[2]! / 1e6;
}
