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
import { LateFlushes } from "./late_flushes.ts";
import { discardMapped, flusherOf, zeroMapped } from "../system/mapping.ts";

/**
 * Serves until the device is gone. Blocks this thread: for Workers only.
 *
 * @throws {DblockError} if the channel fails for good.
 */
export function serveMapped(channel: Channel, mapping: Mapping, geometry: Geometry): void {
  const flusher = flusherOf(mapping);
  using flushes = mapping.fd === undefined ? undefined : new LateFlushes(mapping.fd, flusher, channel.ring);
  serve(channel, mapping, geometry, flusher, flushes);
}

/** The loop alone: what V8 knows of its objects, and that nothing is disposed around it, is 4% of the instructions. */
function serve(
  channel: Channel,
  mapping: Mapping,
  geometry: Geometry,
  flusher: Flusher,
  flushes: LateFlushes | undefined,
): void {
  const ring = channel.ring;
  const disk: MappedDisk = { mapping, geometry, flusher, flushes };
  for (;;) {
    const count = channel.exchange();
    if (count === GONE) return;
    // The loop is here, and not in answerOne(): V8 optimizes a loop that never ends sooner than a function.
    for (let i = 0; i < count; i++) answerOne(ring, i, disk);
    if (flushes !== undefined && flushes.openCount > 0 && !serveMeanwhile(channel, disk, flushes)) return;
  }
}

/**
 * Serves until no flush is under way. EXCHANGE cannot wait for one, so it does not wait at all, and ppoll does. What is still
 * in the ring at the end is for the next EXCHANGE.
 *
 * @returns false if the device is gone
 */
function serveMeanwhile(channel: Channel, disk: MappedDisk, flushes: LateFlushes): boolean {
  const { ring } = channel;
  channel.setNonblocking(true);
  while (flushes.openCount > 0) {
    // Whoever waits for these answers must not wait for the flush.
    if (ring.pending > 0 && channel.commit() === GONE) return false;
    // No EXCHANGE before there is a request: one that finds none is a system call for nothing.
    if (!flushes.wait(channel.fd)) continue;
    const count = channel.exchange();
    if (count === GONE) return false;
    answerMapped(ring, count, disk);
  }
  channel.setNonblocking(false);
  return true;
}

/** What a mapped disk is answered from. */
export interface MappedDisk {
  readonly mapping: Mapping;
  readonly geometry: Geometry;
  readonly flusher: Flusher;
  /** Flushes that do not keep the thread waiting; without it, the thread waits for each. */
  readonly flushes?: LateFlushes | undefined;
}

/** Puts the answers to all requests of the ring into it. */
export function answerMapped(ring: Ring, count: number, disk: MappedDisk): void {
  for (let i = 0; i < count; i++) answerOne(ring, i, disk);
}

function answerOne(ring: Ring, i: number, disk: MappedDisk): void {
  const { mapping, geometry, flusher, flushes } = disk;
  const operation = ring.operation(i);
  const flags = ring.flags(i);
  const offsetBytes = ring.offsetBytes(i);
  const lengthBytes = ring.lengthBytes(i);
  let errno: number = ERRNO.EOPNOTSUPP;
  if (operation !== undefined && flags !== UNKNOWN) {
    errno = checkRequest(geometry, operation, offsetBytes, lengthBytes);
    if (errno === 0 && operation !== "read" && operation !== "write") {
      if (operation === "flush" && flushes?.begin(ring.slot(i), ring.generation(i))) return;
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
