// SPDX-License-Identifier: MIT
/**
 * Serves one queue of a mapped disk in direct mode: each completion names the address the kernel copies from or to. The
 * hot loop of a ramdisk: one system call per batch, no object made per request, no data touched.
 */
import { type Channel, GONE } from "./channel.ts";
import { checkRequest, type Geometry } from "../disk/dispatch.ts";
import { ERRNO } from "../disk/errors.ts";
import { type Operation, REQUEST_KEEP_ALLOCATED } from "../disk/operation.ts";
import type { Mapping } from "../disk/servable.ts";
import { type Ring, UNKNOWN } from "./request.ts";
import type { Flusher } from "../system/file.ts";
import { discardMapped, flusherOf, zeroMapped } from "../system/mapping.ts";

/**
 * Serves until the device is gone. Blocks this thread: for Workers only.
 *
 * @throws {DblockError} if the channel fails for good.
 */
export function serveMapped(channel: Channel, mapping: Mapping, geometry: Geometry): void {
  const ring = channel.ring;
  const disk: MappedDisk = { mapping, geometry, flusher: flusherOf(mapping) };
  for (;;) {
    const count = channel.exchange();
    if (count === GONE) return;
    // The loop is here, and not in answerOne(): V8 optimizes a loop that never ends sooner than a function.
    for (let i = 0; i < count; i++) answerOne(ring, i, disk);
  }
}

/** What a mapped disk is answered from. */
export interface MappedDisk {
  readonly mapping: Mapping;
  readonly geometry: Geometry;
  readonly flusher: Flusher;
}

/** Puts the answers to all requests of the ring into it. */
export function answerMapped(ring: Ring, count: number, disk: MappedDisk): void {
  for (let i = 0; i < count; i++) answerOne(ring, i, disk);
}

function answerOne(ring: Ring, i: number, { mapping, geometry, flusher }: MappedDisk): void {
  const operation = ring.operation(i);
  const flags = ring.flags(i);
  const offsetBytes = ring.offsetBytes(i);
  const lengthBytes = ring.lengthBytes(i);
  let errno: number = ERRNO.EOPNOTSUPP;
  if (operation !== undefined && flags !== UNKNOWN) {
    errno = checkRequest(geometry, operation, offsetBytes, lengthBytes);
    if (errno === 0 && operation !== "read" && operation !== "write") {
      errno = maintain(mapping, flusher, operation, flags, offsetBytes, lengthBytes);
    }
  }
  ring.complete(ring.slot(i), ring.generation(i), lengthBytes, mapping.address + offsetBytes, errno);
}

/** What does not move data: 0 or an errno. */
function maintain(
  mapping: Mapping,
  flusher: Flusher,
  operation: Exclude<Operation, "read" | "write">,
  flags: number,
  offsetBytes: number,
  lengthBytes: number,
): number {
  switch (operation) {
    case "flush":
      return flusher.flush() ? 0 : ERRNO.EIO;
    case "discard":
      return discardMapped(mapping, offsetBytes, lengthBytes) ? 0 : ERRNO.ENOSPC;
    case "writeZeroes": {
      const keepAllocated = (flags & REQUEST_KEEP_ALLOCATED) !== 0;
      return zeroMapped(mapping, offsetBytes, lengthBytes, { keepAllocated }) ? 0 : ERRNO.ENOSPC;
    }
  }
}
