// SPDX-License-Identifier: MIT
/**
 * What file.ts does to a file, waited for on another thread: for an event loop, which goes on meanwhile. A call costs some
 * 20 µs more. The file has to stay open until every call has ended: another file could get its number.
 */
import { describe } from "../disk/errors.ts";
import { type Direction, failure, requireAccess, taken } from "./file.ts";
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE } from "./libc.ts";
import { libc } from "./library.ts";
import { blockingTurn } from "./waiting.ts";

/**
 * Fills `bytes` with what a file has at `offsetBytes`.
 *
 * @throws {DblockError} EIO and what else read(2) says; EIO if the file ends before.
 */
export async function readAtLater(fd: number, bytes: Uint8Array<ArrayBuffer>, offsetBytes: number): Promise<void> {
  using _ = await blockingTurn();
  for (let done = 0; done < bytes.length;) {
    const rest = done === 0 ? bytes : bytes.subarray(done);
    const at = offsetBytes + done;
    const count = Number(await libc().preadAsync(fd, rest, BigInt(rest.length), BigInt(at)));
    done += count < 0 ? await again("read", fd, rest, at) : taken("read", rest, at, count);
  }
}

/**
 * Puts `bytes` into a file at `offsetBytes`.
 *
 * @throws {DblockError} ENOSPC, EDQUOT, EIO and what else write(2) says.
 */
export async function writeAtLater(fd: number, bytes: Uint8Array<ArrayBuffer>, offsetBytes: number): Promise<void> {
  using _ = await blockingTurn();
  for (let done = 0; done < bytes.length;) {
    const rest = done === 0 ? bytes : bytes.subarray(done);
    const at = offsetBytes + done;
    const count = Number(await libc().pwriteAsync(fd, rest, BigInt(rest.length), BigInt(at)));
    done += count < 0 ? await again("write", fd, rest, at) : taken("write", rest, at, count);
  }
}

/** fdatasync(2); false if that failed. */
export async function syncFileLater(fd: number): Promise<boolean> {
  using _ = await blockingTurn();
  return await libc().fdatasyncAsync(fd) === 0;
}

/** Makes a range of a file a hole that reads as zeroes; false if the file system cannot. */
export function punchHoleLater(fd: number, offsetBytes: number, lengthBytes: number): Promise<boolean> {
  return allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offsetBytes, lengthBytes);
}

/** Makes a range of a file read as zeroes and have its space; false if the file system cannot. */
export function zeroRangeLater(fd: number, offsetBytes: number, lengthBytes: number): Promise<boolean> {
  return allocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offsetBytes, lengthBytes);
}

async function allocate(fd: number, mode: number, offsetBytes: number, lengthBytes: number): Promise<boolean> {
  using _ = await blockingTurn();
  return await libc().fallocateAsync(fd, mode, BigInt(offsetBytes), BigInt(lengthBytes)) === 0;
}

/** errno is not read (see libc.ts): the same once more, Deno's way, says what is wrong, or does it. */
async function again(
  what: Direction,
  fd: number,
  bytes: Uint8Array<ArrayBuffer>,
  offsetBytes: number,
): Promise<number> {
  requireAccess(what, fd);
  let count: number | null;
  try {
    using file = await Deno.open(`/proc/self/fd/${fd}`, { [what]: true });
    await file.seek(offsetBytes, Deno.SeekMode.Start);
    count = await (what === "read" ? file.read(bytes) : file.write(bytes));
  } catch (error) {
    throw failure(what, bytes, offsetBytes, describe(error), error);
  }
  return taken(what, bytes, offsetBytes, count ?? 0);
}
