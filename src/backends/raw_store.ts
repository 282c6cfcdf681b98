// SPDX-License-Identifier: MIT
/** How a `RawBackend` gets its file or block device: opened, locked, of the right size, and what is known of it. */
import type { Limits } from "../disk/backend.ts";
import { DblockError, describe, ERRNO, errnoName, errnoOf } from "../disk/errors.ts";
import { BLOCK_BYTES_MIN } from "../disk/limits.ts";
import { fileSize } from "../system/file.ts";
import { deviceNumber } from "../system/holders.ts";
import { linux, O_DIRECT, O_EXCL, O_RDONLY, O_RDWR, punchHole } from "../system/libc.ts";
import { PAGE_BYTES } from "../system/pages.ts";
import { lock } from "./lock.ts";
import type { RawBackendOptions, RawData } from "./raw.ts";

/** What cannot be zeroed by its file system: few enough zeroes at once to end before any timeout. */
const WRITTEN_ZEROES_BYTES = 4 * 2 ** 20;

/** An open store. */
export interface RawStore {
  readonly data: RawData;
  /** Nobody else has it. False only for a `shared` one. */
  readonly isLocked: boolean;
  /** The file was not there before. */
  readonly isMade: boolean;
}

/** Opens a file or a block device, or makes a file: see `RawBackend.open()`. */
export async function openStore(options: RawBackendOptions): Promise<RawStore> {
  const { path, readOnly = false, direct = false, shared = false } = options;
  const attempted = `Cannot keep a disk in ${path}`;
  await using undo = new AsyncDisposableStack();
  const { file, isMade } = openOrMake(options, attempted);
  undo.defer(() => file.close());
  const { isFile, isBlockDevice, dev, rdev } = file.statSync();
  if (!isFile && !isBlockDevice) throw new DblockError("EINVAL", attempted, "it is no file and no block device");
  // A device that is mounted, or part of another one, cannot be opened so.
  const exclusive = isBlockDevice && !readOnly && !shared ? O_EXCL : 0;
  const fd = linux.open(path, (readOnly ? O_RDONLY : O_RDWR) | exclusive | (direct ? O_DIRECT : 0));
  if (fd < 0) throw whyNotOpened(-fd, attempted, { exclusive: exclusive !== 0, direct });
  undo.defer(() => linux.close(fd));
  const isLocked = await lock({ fd, isDevice: !isFile, file, path, attempted }, { readOnly, shared });
  // Without the lock it is somebody else's by now; with it, it is removed before it is let go.
  if (isMade && isLocked) undo.defer(() => Deno.removeSync(path));
  const blocks = blocksOf((isBlockDevice ? rdev : dev) ?? 0);
  // A file's blocks are its own business, unless requests go to the device as they are.
  const blockBytes = isBlockDevice || direct ? blocks.blockBytes : BLOCK_BYTES_MIN;
  const sizeBytes = fitSize(file, fd, options, { isFile, blockBytes, attempted, undo });
  const hasHoles = !readOnly && (isFile ? punchHole(fd, holeAfter(sizeBytes), PAGE_BYTES) : blocks.discards);
  const limits: Limits = {
    blockBytes,
    physicalBlockBytes: Math.max(blocks.physicalBlockBytes, PAGE_BYTES),
    rotational: blocks.rotational,
    ...(hasHoles ? {} : { maxWriteZeroesBytes: WRITTEN_ZEROES_BYTES }),
  };
  undo.move();
  file.close();
  const flushFailures = new Int32Array(new SharedArrayBuffer(4));
  const size = new Float64Array(new SharedArrayBuffer(8));
  size[0] = sizeBytes;
  return { data: { path, fd, size, readOnly, direct, isFile, hasHoles, limits, flushFailures }, isLocked, isMade };
}

function whyNotOpened(
  errno: number,
  attempted: string,
  { exclusive, direct }: { readonly exclusive: boolean; readonly direct: boolean },
): DblockError {
  // EAGAIN: it can be opened in another way.
  if (errno !== ERRNO.EAGAIN) {
    return new DblockError(errno, attempted, `it cannot be opened (${errnoName(errno)})`);
  }
  if (exclusive) return new DblockError("EBUSY", attempted, "it is mounted, or somebody else's");
  return direct
    ? new DblockError("EINVAL", attempted, "its file system has no O_DIRECT", { hint: "do without `direct`" })
    : new DblockError(errno, attempted, "it could not be opened a moment ago", { hint: "try again" });
}

function openOrMake(
  { path, readOnly = false, sizeBytes }: RawBackendOptions,
  attempted: string,
): { readonly file: Deno.FsFile; readonly isMade: boolean } {
  // Whoever closes a block device that he could write to has udev look at it anew, for nothing.
  const access = { read: true, write: !readOnly && !isBlockDevice(path) };
  try {
    return { file: Deno.openSync(path, access), isMade: false };
  } catch (error) {
    const isMade = error instanceof Deno.errors.NotFound && sizeBytes !== undefined && !readOnly;
    if (!isMade) throw explain(error, attempted);
  }
  try {
    return { file: Deno.openSync(path, { ...access, createNew: true, mode: 0o600 }), isMade: true };
  } catch (error) {
    throw explain(error, attempted);
  }
}

function isBlockDevice(path: string): boolean {
  try {
    return Deno.statSync(path).isBlockDevice ?? false;
  } catch {
    return false; // whoever opens it finds out why
  }
}

function explain(error: unknown, attempted: string): DblockError {
  const wrong = error instanceof Deno.errors.NotFound
    ? "it is not there"
    : error instanceof Deno.errors.IsADirectory
    ? "it is a folder"
    : describe(error);
  return new DblockError(errnoOf(error) ?? "EIO", attempted, wrong, { cause: error });
}

/** The disk's size; an empty file, or one that may grow, is made so long. */
function fitSize(
  file: Deno.FsFile,
  fd: number,
  { sizeBytes: wanted, grow = false, readOnly = false }: RawBackendOptions,
  options: {
    readonly isFile: boolean;
    readonly blockBytes: number;
    readonly attempted: string;
    readonly undo: AsyncDisposableStack;
  },
): number {
  const { isFile, blockBytes, attempted, undo } = options;
  const size = fileSize(fd);
  const sizeBytes = wanted ?? size;
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % blockBytes !== 0) {
    const wrong = `a disk's size is a positive multiple of ${blockBytes} there, not ${sizeBytes}`;
    throw new DblockError("EINVAL", attempted, wrong);
  }
  if (sizeBytes === size) return sizeBytes;
  if (!isFile || readOnly || size !== 0 && !(grow && size < sizeBytes)) {
    throw new DblockError("EINVAL", attempted, `it has ${size} bytes, not ${sizeBytes}`, {
      hint: isFile && !readOnly && size < sizeBytes ? "let it grow, or give no size" : "give no size",
    });
  }
  try {
    file.truncateSync(sizeBytes);
  } catch (error) {
    throw explain(error, attempted);
  }
  undo.defer(() => file.truncateSync(size));
  return sizeBytes;
}

/** Where a hole can be tried and nothing is lost: behind the end. */
function holeAfter(sizeBytes: number): number {
  return Math.ceil(sizeBytes / PAGE_BYTES) * PAGE_BYTES;
}

interface Blocks {
  readonly blockBytes: number;
  readonly physicalBlockBytes: number;
  readonly rotational: boolean;
  readonly discards: boolean;
}

/** What /sys says of the device with this number; the careful values where it says nothing (a network's file system). */
function blocksOf(device: number): Blocks {
  const number = deviceNumber(device);
  const value = (name: string): number | undefined => {
    // A partition has no queue of its own.
    for (const queue of ["queue", "../queue"]) {
      try {
        return Number(Deno.readTextFileSync(`/sys/dev/block/${number}/${queue}/${name}`));
      } catch {
        // look further
      }
    }
    return undefined;
  };
  return {
    blockBytes: value("logical_block_size") ?? PAGE_BYTES,
    physicalBlockBytes: value("physical_block_size") ?? PAGE_BYTES,
    rotational: value("rotational") === 1,
    discards: (value("write_zeroes_max_bytes") ?? 0) > 0 && (value("discard_max_bytes") ?? 0) > 0,
  };
}
