// SPDX-License-Identifier: MIT
/**
 * A disk's own words for what it is asked: operations and flags. A transport (dblock.ko, NBD) translates its numbers into
 * these. What the words mean for a backend is in backend.ts.
 */

/** What a disk can be asked to do, by the names of the callbacks of a `Backend`. */
export type Operation = "read" | "write" | "flush" | "discard" | "writeZeroes";

/** Every operation, in the order of the counters that a transport keeps. */
export const OPERATIONS: readonly Operation[] = ["read", "write", "flush", "discard", "writeZeroes"];

/** Flags of a request, in one byte: what a `RequestOptions` says in words. */
export const REQUEST_FUA = 1 << 0;
export const REQUEST_REPLAYED = 1 << 1;
export const REQUEST_KEEP_ALLOCATED = 1 << 2;
export const REQUEST_METADATA = 1 << 3;
export const REQUEST_READ_AHEAD = 1 << 4;
export const REQUEST_SWAP = 1 << 5;
/** Two bits: an index into {@linkcode PRIORITIES}. */
export const REQUEST_PRIORITY_SHIFT = 6;

/** How urgent a request is: the I/O scheduling class of who made it (`ioprio_set`(2)). */
export type Priority = "none" | "realtime" | "best-effort" | "idle";

/** Every priority, by its number in a request's flags: that of Linux' IOPRIO_CLASS_*. */
export const PRIORITIES: readonly Priority[] = ["none", "realtime", "best-effort", "idle"];
