// SPDX-License-Identifier: MIT
/** Memory by pages, as the kernel deals in it: mapped, advised on, locked, cleared. No policy is here. */
import { libc } from "./library.ts";
import { linux, O_RDWR } from "./libc.ts";

/** Flags and advice of Linux on x86_64 and aarch64. */
const PROT_READ = 1;
const PROT_WRITE = 2;
export const MAP_SHARED = 0x01;
export const MAP_PRIVATE = 0x02;
export const MAP_ANONYMOUS = 0x20;
export const MAP_NORESERVE = 0x4000;
export const MADV_DONTNEED = 4;
export const MADV_REMOVE = 9;
export const MADV_DONTFORK = 10;
export const MADV_HUGEPAGE = 14;
export const MADV_NOHUGEPAGE = 15;
const MLOCK_ONFAULT = 1;
const MS_SYNC = 4;
const SC_PAGESIZE = 30;
/** What sizes and addresses of a disk are a multiple of. Pages may be larger: see {@linkcode systemPageBytes}. */
export const PAGE_BYTES = 4096;

/**
 * Maps memory: zero-filled and not reserved, so that untouched pages cost
 * nothing. Returns its address, or undefined if there is no room.
 */
export function mapMemory(sizeBytes: number): number | undefined {
  return map(sizeBytes, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
}

/** Maps a file from its beginning, shared: what is written to the memory is in the file. */
export function mapFile(
  fd: number,
  sizeBytes: number,
  options: { readonly readOnly?: boolean } = {},
): number | undefined {
  return map(sizeBytes, MAP_SHARED, fd, options.readOnly ? PROT_READ : PROT_READ | PROT_WRITE);
}

function map(
  sizeBytes: number,
  flags: number,
  fd: number,
  protection = PROT_READ | PROT_WRITE,
): number | undefined {
  const address = libc().mmap(0n, BigInt(sizeBytes), protection, flags, fd, 0n);
  // MAP_FAILED is -1; user addresses are below 2^53 on both machines.
  return address > BigInt(Number.MAX_SAFE_INTEGER) ? undefined : Number(address);
}

/** Gives back what `mapMemory` gave. Nobody may touch it any more. */
export function unmapMemory(address: number, sizeBytes: number): boolean {
  return libc().munmap(BigInt(address), BigInt(sizeBytes)) === 0;
}

/** The kernel's page: 4 KiB on x86_64, up to 64 KiB on aarch64. Less cannot be given back: madvise(2) rounds up. */
export function systemPageBytes(): number {
  return Number(libc().sysconf(SC_PAGESIZE));
}

/** madvise(2) on whole pages; false if the kernel refuses. */
export function adviseMemory(
  address: number,
  lengthBytes: number,
  advice: number,
): boolean {
  return libc().madvise(BigInt(address), BigInt(lengthBytes), advice) === 0;
}

/** Keeps the pages of a range in memory, from their first use on; false if the kernel refuses. */
export function lockMemoryOnFault(address: number, lengthBytes: number): boolean {
  return libc().mlock2(BigInt(address), BigInt(lengthBytes), MLOCK_ONFAULT) === 0;
}

/** msync(2), waiting until the pages are on the file; false if that failed. */
export function syncMemory(address: number, lengthBytes: number): boolean {
  return libc().msync(BigInt(address), BigInt(lengthBytes), MS_SYNC) === 0;
}

/** Fills memory with zeroes. The range must be mapped and writable. */
export function zeroMemory(address: number, lengthBytes: number): void {
  libc().memset(BigInt(address), 0, BigInt(lengthBytes));
}

let devZero: number | undefined;

/**
 * Fills memory with zeroes, by a read of /dev/zero: where memset would die of SIGBUS, because a file's disk is full, this
 * returns false.
 */
export function zeroMappedFile(address: number, lengthBytes: number): boolean {
  if (devZero === undefined) {
    const fd = linux.open("/dev/zero", O_RDWR);
    if (fd < 0) return false; // to be tried again when there is room for it
    devZero = fd;
  }
  for (let done = 0; done < lengthBytes;) {
    const count = Number(libc().read(devZero, BigInt(address + done), BigInt(lengthBytes - done)));
    if (count <= 0) return false;
    done += count;
  }
  return true;
}
