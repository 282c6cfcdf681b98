// SPDX-License-Identifier: MIT
/**
 * Serves one queue of a mapped disk in direct mode: each completion names the address the kernel copies from or to. The
 * hot loop of a ramdisk: one system call per batch, no object made per request, no data touched.
 */
import {
  DBLOCK_OPERATION_DISCARD,
  DBLOCK_OPERATION_READ,
  DBLOCK_OPERATION_WRITE,
  DBLOCK_OPERATION_WRITE_ZEROES,
  DBLOCK_REQUEST_NO_UNMAP,
} from "./abi.ts";
import type { Mapping } from "../disk/backend.ts";
import { type Channel, GONE } from "./channel.ts";
import { checkRequest, type Geometry } from "../disk/dispatch.ts";
import { ERRNO } from "../disk/errors.ts";
import {
  adviseMemory,
  MADV_DONTNEED,
  MADV_REMOVE,
  PAGE_BYTES,
  punchHole,
  syncMemory,
  systemPageBytes,
  zeroMappedFile,
  zeroMemory,
  zeroRange,
} from "../system/libc.ts";

/**
 * Serves until the device is gone. Blocks this thread: for Workers only.
 *
 * @throws {DblockError} if the channel fails for good.
 */
export function serveMapped(channel: Channel, mapping: Mapping, geometry: Geometry): void {
  const ring = channel.ring;
  for (;;) {
    const count = channel.exchange();
    if (count === GONE) return;
    for (let i = 0; i < count; i++) {
      const operation = ring.operation(i);
      const flags = ring.flags(i);
      const offsetBytes = ring.offsetBytes(i);
      const lengthBytes = ring.lengthBytes(i);
      let errno = checkRequest(geometry, operation, flags, offsetBytes, lengthBytes);
      if (errno === 0 && operation !== DBLOCK_OPERATION_READ && operation !== DBLOCK_OPERATION_WRITE) {
        errno = maintain(mapping, operation, flags, offsetBytes, lengthBytes);
      }
      ring.complete(ring.slot(i), ring.generation(i), lengthBytes, mapping.address + offsetBytes, errno);
    }
  }
}

/** FLUSH, DISCARD and WRITE_ZEROES: 0 or an errno. */
export function maintain(
  mapping: Mapping,
  operation: number,
  flags: number,
  offsetBytes: number,
  lengthBytes: number,
): number {
  switch (operation) {
    case DBLOCK_OPERATION_DISCARD:
      // Discarded blocks may read as anything; they read as zeroes here, so that nothing old ever comes back.
      return giveBack(mapping, offsetBytes, lengthBytes) ? 0 : ERRNO.ENOSPC;
    case DBLOCK_OPERATION_WRITE_ZEROES: {
      // Only a file has space to keep: memory that is not reserved is found when it is written, or not.
      const keep = mapping.kind === "file" && (flags & DBLOCK_REQUEST_NO_UNMAP) !== 0;
      const done = keep
        ? allocateZeroes(mapping, offsetBytes, lengthBytes)
        : giveBack(mapping, offsetBytes, lengthBytes);
      return done ? 0 : ERRNO.ENOSPC;
    }
    default: // FLUSH
      if (mapping.kind === "anonymous") return 0;
      return syncMemory(mapping.address, mapping.sizeBytes) ? 0 : ERRNO.EIO;
  }
}

/** Zeroes a range: whole pages by giving them back, the edges by hand. */
function giveBack(mapping: Mapping, offsetBytes: number, lengthBytes: number): boolean {
  const { fd, pageBytes: grain = PAGE_BYTES } = mapping;
  // The edges of a hole are zeroed by the file system, without taking space; not on hugetlbfs before 5.18.
  if (fd !== undefined && grain === PAGE_BYTES && punchHole(fd, offsetBytes, lengthBytes)) return true;
  const pageBytes = Math.max(grain, systemPageBytes());
  const end = offsetBytes + lengthBytes;
  const firstPage = Math.ceil(offsetBytes / pageBytes) * pageBytes;
  const lastPage = Math.floor(end / pageBytes) * pageBytes;
  // Locked memory and some file systems cannot give pages back.
  if (firstPage >= lastPage || !giveBackPages(mapping, firstPage, lastPage - firstPage)) {
    return zero(mapping, offsetBytes, lengthBytes);
  }
  return zero(mapping, offsetBytes, firstPage - offsetBytes) && zero(mapping, lastPage, end - lastPage);
}

function giveBackPages(mapping: Mapping, offsetBytes: number, lengthBytes: number): boolean {
  if (mapping.fd !== undefined && punchHole(mapping.fd, offsetBytes, lengthBytes)) return true;
  const advice = mapping.kind === "anonymous" ? MADV_DONTNEED : MADV_REMOVE;
  return adviseMemory(mapping.address + offsetBytes, lengthBytes, advice);
}

function allocateZeroes(mapping: Mapping, offsetBytes: number, lengthBytes: number): boolean {
  return (mapping.fd !== undefined && zeroRange(mapping.fd, offsetBytes, lengthBytes)) ||
    zero(mapping, offsetBytes, lengthBytes);
}

function zero(mapping: Mapping, offsetBytes: number, lengthBytes: number): boolean {
  const address = mapping.address + offsetBytes;
  if (mapping.kind === "file") return zeroMappedFile(address, lengthBytes);
  if (lengthBytes > 0) zeroMemory(address, lengthBytes);
  return true;
}
