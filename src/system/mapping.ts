// SPDX-License-Identifier: MIT
/** What is done to a range of a mapped disk besides reading and writing it: give it back, zero it, make it durable. */
import type { Mapping } from "../disk/servable.ts";
import { Flusher } from "./file.ts";
import { punchHole, zeroRange } from "./libc.ts";
import {
  adviseMemory,
  MADV_DONTNEED,
  MADV_REMOVE,
  PAGE_BYTES,
  syncMemory,
  systemPageBytes,
  zeroMappedFile,
  zeroMemory,
} from "./pages.ts";

/**
 * Gives a range's space back: it reads as zeroes afterwards, so that nothing old ever comes back. Whole pages are given
 * back; the rest is zeroed by hand.
 *
 * @returns false if the file system has no room for the zeroes
 */
export function discardMapped(mapping: Mapping, offsetBytes: number, lengthBytes: number): boolean {
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

/**
 * Makes a range read as zeroes.
 *
 * @param options.keepAllocated a file's space stays; memory that is not reserved is found when it is written, or not
 * @returns false if the file system has no room for the zeroes
 */
export function zeroMapped(
  mapping: Mapping,
  offsetBytes: number,
  lengthBytes: number,
  options: { readonly keepAllocated: boolean },
): boolean {
  if (mapping.kind !== "file" || !options.keepAllocated) return discardMapped(mapping, offsetBytes, lengthBytes);
  return (mapping.fd !== undefined && zeroRange(mapping.fd, offsetBytes, lengthBytes)) ||
    zero(mapping, offsetBytes, lengthBytes);
}

/** Makes a mapping durable, for one queue: see {@linkcode Flusher}. */
export function flusherOf(mapping: Mapping): Flusher {
  const { kind, address, sizeBytes, flushFailures } = mapping;
  return new Flusher(() => kind === "anonymous" || syncMemory(address, sizeBytes), flushFailures);
}

/** Whether a file can have holes. Tries it behind the file's end, where nothing is lost. */
export function hasHoles(fd: number, sizeBytes: number, pageBytes: number): boolean {
  return punchHole(fd, Math.ceil(sizeBytes / pageBytes) * pageBytes, pageBytes);
}

function giveBackPages(mapping: Mapping, offsetBytes: number, lengthBytes: number): boolean {
  if (mapping.fd !== undefined && punchHole(mapping.fd, offsetBytes, lengthBytes)) return true;
  const advice = mapping.kind === "anonymous" ? MADV_DONTNEED : MADV_REMOVE;
  return adviseMemory(mapping.address + offsetBytes, lengthBytes, advice);
}

function zero(mapping: Mapping, offsetBytes: number, lengthBytes: number): boolean {
  const address = mapping.address + offsetBytes;
  if (mapping.kind === "file") return zeroMappedFile(address, lengthBytes);
  if (lengthBytes > 0) zeroMemory(address, lengthBytes);
  return true;
}
