// SPDX-License-Identifier: MIT
/** A part of another disk as a disk of its own: a range, or a partition. */
import type { Backend } from "../disk/backend.ts";
import { DblockError } from "../disk/errors.ts";
import { requestOptions } from "../disk/request.ts";
import { formatSizeExactly } from "../disk/words.ts";
import { JoinedBackend, type Layout, type Piece } from "./joined.ts";
import { Member } from "./member.ts";
import { readPartitions } from "./partition_table.ts";

/** Options of `slice()`: a range, or a partition. */
export interface SliceOptions {
  /** Where the slice begins: a multiple of the disk's block size. @default 0 */
  readonly offsetBytes?: number;
  /** A multiple of the disk's block size. @default up to the end */
  readonly sizeBytes?: number;
  /** The number of a partition, as in /dev/sda2: 1 on; not together with a range. */
  readonly partition?: number;
}

/** A part of a disk. */
export interface Slice extends Backend {
  /** Where it begins on the other disk. */
  readonly offsetBytes: number;
}

/**
 * Takes a part of a disk: a range, or a partition if the disk has a GPT or an MBR. The table is read once, now. The rest of
 * the disk is out of reach; `close()` closes the disk.
 *
 * ```ts
 * import { requestOptions } from "../disk/request.ts";
 * import { MemoryBackend } from "./memory.ts";
 * import { slice } from "./slice.ts";
 *
 * const whole = new MemoryBackend({ sizeBytes: 65536 });
 * const disk = await slice(whole, { offsetBytes: 4096, sizeBytes: 8192 });
 * await disk.write(new Uint8Array(512).fill(1), 0, requestOptions());
 * console.assert(disk.sizeBytes === 8192 && whole.bytes()[4096] === 1);
 * await disk.close?.("destroyed");
 * ```
 *
 * @param backend the disk, which is the slice's from here on, unless this fails
 * @param options the range, or the number of the partition
 * @throws {DblockError} EINVAL: the range is not inside the disk, or not whole blocks; there is no such partition, or no
 * partition table.
 * @throws {RangeError} if there is a range as well as a partition.
 */
export async function slice(backend: Backend, options: SliceOptions = {}): Promise<Slice> {
  const { partition, offsetBytes, sizeBytes } = options;
  const member = new Member(backend);
  if (partition === undefined) {
    const start = offsetBytes ?? 0;
    return rangeOf(member, start, sizeBytes ?? backend.sizeBytes - start);
  }
  if (offsetBytes !== undefined || sizeBytes !== undefined) {
    throw new RangeError("a slice is a range or a partition, not both");
  }
  const found = await findPartition(member, partition);
  return rangeOf(member, found.offsetBytes, found.sizeBytes);
}

function rangeOf(member: Member, offsetBytes: number, sizeBytes: number): Slice {
  const whole = member.backend.sizeBytes;
  const { blockBytes } = member.limits;
  const isInside = Number.isSafeInteger(offsetBytes) && Number.isSafeInteger(sizeBytes) && offsetBytes >= 0 &&
    sizeBytes > 0 && offsetBytes + sizeBytes <= whole;
  if (isInside && offsetBytes % blockBytes === 0 && sizeBytes % blockBytes === 0) {
    return Object.assign(new JoinedBackend(layoutOf(member, offsetBytes, sizeBytes)), { offsetBytes });
  }
  const wrong = isInside
    ? `these are no whole blocks of ${formatSizeExactly(blockBytes)}`
    : `the disk has ${formatSizeExactly(whole)}`;
  const what = sizeBytes > 0 ? formatSizeExactly(sizeBytes) : "what is";
  throw new DblockError("EINVAL", `Cannot take ${what} at ${formatSizeExactly(offsetBytes)} of a disk`, wrong);
}

async function findPartition(member: Member, number: number): Promise<{ offsetBytes: number; sizeBytes: number }> {
  const attempted = `Cannot take partition ${number} of a disk`;
  const { blockBytes, maxIoBytes } = member.limits;
  const partitions = await readPartitions({
    sizeBytes: member.backend.sizeBytes,
    blockBytes,
    read: async (offsetBytes, lengthBytes) => {
      const bytes = new Uint8Array(lengthBytes);
      for (let at = 0; at < lengthBytes; at += maxIoBytes) {
        await member.read(bytes.subarray(at, at + maxIoBytes), offsetBytes + at, requestOptions());
      }
      return bytes;
    },
  }, attempted);
  const found = partitions.find((partition) => partition.number === number);
  if (found !== undefined) return found;
  const numbers = partitions.map((partition) => partition.number).sort((a, b) => a - b);
  const wrong = numbers.length === 0 ? "it has none" : "there is no such partition";
  throw new DblockError(
    "EINVAL",
    attempted,
    wrong,
    numbers.length === 0 ? {} : { hint: `it has ${numbers.join(", ")}` },
  );
}

function layoutOf(member: Member, start: number, sizeBytes: number): Layout {
  return {
    sizeBytes,
    members: [member],
    pieces: (offsetBytes: number, lengthBytes: number): Piece[] => [
      { member, offsetBytes: start + offsetBytes, lengthBytes },
    ],
  };
}
