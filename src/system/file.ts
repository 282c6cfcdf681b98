// SPDX-License-Identifier: MIT
/** Reads and writes at a place of a file, looks for its holes, makes it durable: with errors that say why. */
import type { Extent } from "../disk/backend.ts";
import { DblockError, describe, errnoOf } from "../disk/errors.ts";
import { isWritable } from "./libc.ts";
import { libc } from "./library.ts";
import { addressOf } from "./memory.ts";

/** Which way the data goes. */
export type Direction = "read" | "write";

/** Of preadv2(2): what would have to wait is not done. */
const RWF_NOWAIT = 8;
const SEEK_END = 2;
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
    done += count < 0 ? again("read", fd, rest, offsetBytes + done) : taken("read", rest, offsetBytes + done, count);
  }
}

/** struct iovec, in words of 32 bits. */
const iovec = new Uint32Array(4);
const WORD = 2 ** 32;

/** Fills `bytes` if the page cache has what the file has there, and says so; else it does not wait. */
export function readCached(fd: number, bytes: Uint8Array<ArrayBuffer>, offsetBytes: number): boolean {
  const address = addressOf(bytes);
  iovec[0] = address % WORD;
  iovec[1] = address / WORD;
  iovec[2] = bytes.length;
  return libc().preadv2(fd, iovec, 1, BigInt(offsetBytes), RWF_NOWAIT) === bytes.length;
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
    done += count < 0 ? again("write", fd, rest, offsetBytes + done) : taken("write", rest, offsetBytes + done, count);
  }
}

/** How many bytes a call did: none at all is an error, for a caller would ask for ever. */
export function taken(what: Direction, bytes: Uint8Array, offsetBytes: number, count: number): number {
  if (count > 0) return count;
  throw failure(what, bytes, offsetBytes, what === "read" ? "the file ends before" : "nothing of it was taken");
}

/** errno is not read (see libc.ts): the same once more, Deno's way, says what is wrong, or does it. */
function again(what: Direction, fd: number, bytes: Uint8Array<ArrayBuffer>, offsetBytes: number): number {
  requireAccess(what, fd);
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

/** Opened anew, a file might be writable that was opened to be read alone. */
export function requireAccess(what: Direction, fd: number): void {
  if (what === "write" && !isWritable(fd)) throw new DblockError("EBADF", `Cannot ${what}`, "the file is open to read");
}

/** The error of a read or write, with what Deno said of it as its cause. */
export function failure(what: string, { length }: Uint8Array, at: number, wrong: string, cause?: unknown): DblockError {
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
    const data = Math.floor(nextData(fd, at, end) / blockBytes) * blockBytes;
    const isData = data <= at;
    const next = isData ? Math.ceil((seek(fd, at, SEEK_HOLE) ?? end) / blockBytes) * blockBytes : data;
    const stop = Math.min(Math.max(next, at + blockBytes), end);
    extents.push({ lengthBytes: stop - at, kind: isData ? "data" : "hole" });
    at = stop;
  }
  return extents;
}

/**
 * Where the next data begins. A file without any more fails as one does that cannot be asked (a block device, a broken
 * disk): only the former says that there is a hole. Whatever cannot be asked is data.
 */
function nextData(fd: number, offsetBytes: number, end: number): number {
  const data = seek(fd, offsetBytes, SEEK_DATA);
  if (data !== undefined) return data;
  return seek(fd, offsetBytes, SEEK_HOLE) === offsetBytes ? end : offsetBytes;
}

/** lseek(2); undefined where it fails. Moves the position of the file, which nobody uses. */
function seek(fd: number, offsetBytes: number, whence: number): number | undefined {
  const found = libc().lseek(fd, BigInt(offsetBytes), whence);
  return found < 0n ? undefined : Number(found);
}

/** The end of a file or a block device. Moves the position, which nobody uses. */
export function fileSize(fd: number): number {
  return Number(libc().lseek(fd, 0n, SEEK_END));
}

/** fdatasync(2), waiting on this thread until the store has everything; false if that failed. */
export function syncFile(fd: number): boolean {
  return libc().fdatasync(fd) === 0;
}

/**
 * Makes a store durable, for one queue. The kernel reports a failed write-back once for an open file, to whichever queue
 * flushes first; the others report it once as well, at their next flush, since it may be their data.
 */
export class Flusher {
  readonly #sync: () => boolean;
  readonly #failures: Int32Array<SharedArrayBuffer> | undefined;
  #reported: number;

  /**
   * @param sync waits for the store; false if that failed
   * @param failures one word that all queues share: how often it has failed
   */
  constructor(sync: () => boolean, failures: Int32Array<SharedArrayBuffer> | undefined) {
    this.#sync = sync;
    this.#failures = failures;
    this.#reported = this.#count();
  }

  /** Waits until the store has everything; false if that failed, here or for another queue since the last call. */
  flush(): boolean {
    return this.judge(this.#sync());
  }

  /** The answer of a flush, given what its own wait came to. */
  judge(isGood: boolean): boolean {
    if (!isGood && this.#failures !== undefined) Atomics.add(this.#failures, 0, 1);
    const failures = this.#count();
    const isKnown = failures === this.#reported;
    this.#reported = failures;
    return isGood && isKnown;
  }

  #count(): number {
    return this.#failures === undefined ? 0 : Atomics.load(this.#failures, 0);
  }
}
