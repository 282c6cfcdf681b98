// SPDX-License-Identifier: MIT
/** Reads and writes at a place of a file, and looks for its holes: on this thread, and with errors that say why. */
import type { Extent } from "../disk/backend.ts";
import { DblockError, describe, errnoOf } from "../disk/errors.ts";
import { isWritable, libc } from "./libc.ts";

const SEEK_DATA = 3;
const SEEK_HOLE = 4;
/** So many extents are told at once. */
const EXTENTS_MAX = 1_024;

/**
 * Fills `bytes` with what a file has at `offsetBytes`.
 *
 * @throws {DblockError} EIO and what else read(2) says; EIO if the file ends before.
 */
export function readAt(fd: number, bytes: Uint8Array<ArrayBuffer>, offsetBytes: number): void {
  for (let done = 0; done < bytes.length;) {
    const rest = done === 0 ? bytes : bytes.subarray(done);
    const count = Number(libc().pread(fd, rest, BigInt(rest.length), BigInt(offsetBytes + done)));
    if (count === 0) throw failure("read", rest, offsetBytes + done, "the file ends before");
    if (count < 0) done += again("read", fd, rest, offsetBytes + done);
    else done += count;
  }
}

/**
 * Puts `bytes` into a file at `offsetBytes`.
 *
 * @throws {DblockError} ENOSPC, EDQUOT, EIO and what else write(2) says.
 */
export function writeAt(fd: number, bytes: Uint8Array<ArrayBuffer>, offsetBytes: number): void {
  for (let done = 0; done < bytes.length;) {
    const rest = done === 0 ? bytes : bytes.subarray(done);
    const count = Number(libc().pwrite(fd, rest, BigInt(rest.length), BigInt(offsetBytes + done)));
    if (count === 0) throw failure("write", rest, offsetBytes + done, "nothing of it was taken");
    if (count < 0) done += again("write", fd, rest, offsetBytes + done);
    else done += count;
  }
}

/** errno is not read (see libc.ts): the same once more, Deno's way, says what is wrong, or does it. */
function again(what: "read" | "write", fd: number, bytes: Uint8Array<ArrayBuffer>, offsetBytes: number): number {
  // Opened anew it might be writable, which this one is not meant to be.
  if (what === "write" && !isWritable(fd)) throw new DblockError("EBADF", `Cannot ${what}`, "the file is open to read");
  try {
    using file = Deno.openSync(`/proc/self/fd/${fd}`, { [what]: true });
    file.seekSync(offsetBytes, Deno.SeekMode.Start);
    const count = what === "read" ? file.readSync(bytes) : file.writeSync(bytes);
    if (count !== null && count > 0) return count;
  } catch (error) {
    throw failure(what, bytes, offsetBytes, describe(error), error);
  }
  throw failure(what, bytes, offsetBytes, "nothing of it was done");
}

function failure(what: string, { length }: Uint8Array, at: number, wrong: string, cause?: unknown): DblockError {
  return new DblockError(errnoOf(cause) ?? "EIO", `Cannot ${what} ${length} bytes at ${at}`, wrong, { cause });
}

/**
 * What a range of a file consists of, as its file system says: one that knows no holes says that all is data. Ends before
 * the range does after 1,024 extents.
 *
 * @param blockBytes what every extent is a multiple of
 */
export function extentsOf(fd: number, offsetBytes: number, lengthBytes: number, blockBytes: number): readonly Extent[] {
  const end = offsetBytes + lengthBytes;
  const extents: Extent[] = [];
  for (let at = offsetBytes; at < end && extents.length < EXTENTS_MAX;) {
    // A block that has some of both is data.
    const data = Math.floor(seek(fd, at, SEEK_DATA, end) / blockBytes) * blockBytes;
    const isData = data <= at;
    const next = isData ? Math.ceil(seek(fd, at, SEEK_HOLE, end) / blockBytes) * blockBytes : data;
    const stop = Math.min(Math.max(next, at + blockBytes), end);
    extents.push({ lengthBytes: stop - at, kind: isData ? "data" : "hole" });
    at = stop;
  }
  return extents;
}

/** lseek(2); `end` where it finds nothing. Moves the position of the file, which nobody uses. */
function seek(fd: number, offsetBytes: number, whence: number, end: number): number {
  const found = libc().lseek(fd, BigInt(offsetBytes), whence);
  return found < 0n ? end : Number(found);
}
