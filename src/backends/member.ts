// SPDX-License-Identifier: MIT
/**
 * One disk of a set, called as the contract demands: no flag that it does not heed, no length that it does not take, and a
 * short count is an error. What a set of several can do is decided here, too.
 */
import type { Backend, CallOptions, CloseReason, Completed, Extent, Limits, RequestOptions } from "../disk/backend.ts";
import { DblockError } from "../disk/errors.ts";
import { whenDone } from "../disk/later.ts";
import { type DecidedLimits, decideLimits } from "../disk/limits.ts";
import { profileOf } from "../disk/profile.ts";
import { formatSize, formatSizeExactly } from "../disk/words.ts";

/** A disk of a set, which is owned by the set. */
export class Member {
  readonly backend: Backend;
  /** What the disk is like, with the defaults. */
  readonly limits: DecidedLimits;

  constructor(backend: Backend) {
    this.backend = backend;
    this.limits = decideLimits({ ...profileOf(backend), direct: false });
  }

  /** Fills `buffer`; at most `limits.maxIoBytes`. */
  read(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number, options: RequestOptions): void | Promise<void> {
    return judged("read", buffer.length, this.backend.read(buffer, offsetBytes, options));
  }

  /** Puts `buffer` there; at most `limits.maxIoBytes`. The buffer is the disk's until this has ended. */
  write(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number, options: RequestOptions): void | Promise<void> {
    return judged("write", buffer.length, this.backend.write(buffer, offsetBytes, this.#heeded(options)));
  }

  /** Makes a range read as zeroes, by writing them if the disk has nothing better; at most `limits.maxWriteZeroesBytes`. */
  writeZeroes(offsetBytes: number, lengthBytes: number, options: RequestOptions): void | Promise<void> {
    const { backend } = this;
    if (backend.writeZeroes === undefined) return this.#zeroByHand(offsetBytes, lengthBytes, options);
    return judged("zero", lengthBytes, backend.writeZeroes(offsetBytes, lengthBytes, this.#heeded(options)));
  }

  #zeroByHand(offsetBytes: number, lengthBytes: number, options: RequestOptions): void | Promise<void> {
    const chunkBytes = Math.min(lengthBytes, this.limits.maxIoBytes);
    if (chunkBytes === 0) return;
    // New zeroes each time: the disk may scribble on what it is given.
    const written = this.write(new Uint8Array(chunkBytes), offsetBytes, options);
    return whenDone(written, () => this.#zeroByHand(offsetBytes + chunkBytes, lengthBytes - chunkBytes, options));
  }

  /** Gives a range back; nothing if the disk has no discard. */
  discard(offsetBytes: number, lengthBytes: number, options: RequestOptions): void | Promise<void> {
    return judged("discard", lengthBytes, this.backend.discard?.(offsetBytes, lengthBytes, options));
  }

  /** Makes everything durable; nothing if it is. */
  flush(options: CallOptions): void | Promise<void> {
    return whenDone(this.backend.flush?.(options), () => {});
  }

  /**
   * What a range consists of: whole blocks of `blockBytes` inside the range, at least one.
   *
   * @returns extents that may end before the range does
   */
  extents(
    offsetBytes: number,
    lengthBytes: number,
    blockBytes: number,
    options: CallOptions,
  ): readonly Extent[] | Promise<readonly Extent[]> {
    const { backend } = this;
    if (backend.extents === undefined) return [{ lengthBytes, kind: "data" }];
    return whenDone(
      backend.extents(offsetBytes, lengthBytes, options),
      (extents) => inBlocks(extents, lengthBytes, blockBytes),
    );
  }

  /** FUA is for a disk that heeds it; one without a flush is durable as it is. */
  #heeded(options: RequestOptions): RequestOptions {
    return options.fua && this.backend.fua !== true ? { ...options, fua: false } : options;
  }
}

/** What a disk has said that it did. */
function judged(what: string, lengthBytes: number, done: Completed | Promise<Completed>): void | Promise<void> {
  return whenDone(done, (count) => {
    if (count === undefined || count === lengthBytes) return;
    throw new DblockError("EIO", `Cannot ${what} ${lengthBytes} bytes`, `a disk of the set did ${count} of them`);
  });
}

const ORDER = ["hole", "zero", "data"] as const;

/** Extents cut off at `lengthBytes`, in whole blocks: a block of several kinds is data if anything of it is. */
function inBlocks(extents: readonly Extent[], lengthBytes: number, blockBytes: number): readonly Extent[] {
  const found: { lengthBytes: number; kind: Extent["kind"] }[] = [];
  const add = (bytes: number, kind: Extent["kind"]) => {
    const last = found.at(-1);
    if (bytes === 0) return;
    if (last?.kind === kind) last.lengthBytes += bytes;
    else found.push({ lengthBytes: bytes, kind });
  };
  let left = lengthBytes;
  /** What is known of a block that has begun. */
  let begun = 0;
  let kindBegun: Extent["kind"] = "hole";
  for (const { lengthBytes: said, kind } of extents) {
    let bytes = Math.min(said, left);
    left -= bytes;
    if (begun > 0) {
      const taken = Math.min(bytes, blockBytes - begun);
      begun += taken;
      bytes -= taken;
      kindBegun = ORDER[Math.max(ORDER.indexOf(kindBegun), ORDER.indexOf(kind))] ?? "data";
      if (begun === blockBytes) {
        add(blockBytes, kindBegun);
        begun = 0;
      }
    }
    const whole = bytes - bytes % blockBytes;
    add(whole, kind);
    if (bytes > whole) [begun, kindBegun] = [bytes - whole, kind];
  }
  return found.length > 0 ? found : [{ lengthBytes: Math.min(blockBytes, lengthBytes), kind: "data" }];
}

/**
 * What a set of disks is like: what suits all of them. The largest block is the set's; a disk whose blocks are smaller may
 * lose a part of such a block with the power, as it may under any other RAID.
 */
export function limitsOfSet(members: readonly Member[]): Limits & { readonly blockBytes: number } {
  const most = (name: "blockBytes" | "physicalBlockBytes" | "discardGranularityBytes") =>
    Math.max(...members.map(({ limits }) => limits[name]));
  const blockBytes = most("blockBytes");
  const least = (name: "maxIoBytes" | "maxDiscardBytes" | "maxWriteZeroesBytes") => {
    const bytes = Math.min(...members.map(({ limits }) => limits[name]));
    return bytes - bytes % blockBytes;
  };
  const physicalBlockBytes = most("physicalBlockBytes");
  const discardGranularityBytes = most("discardGranularityBytes");
  const maxDiscardBytes = least("maxDiscardBytes");
  return {
    blockBytes,
    physicalBlockBytes,
    maxIoBytes: least("maxIoBytes"),
    discardGranularityBytes,
    maxDiscardBytes: maxDiscardBytes < Math.max(discardGranularityBytes, physicalBlockBytes) ? 0 : maxDiscardBytes,
    maxWriteZeroesBytes: least("maxWriteZeroesBytes"),
    rotational: members.some(({ limits }) => limits.rotational),
  };
}

/**
 * What a set does not use of disks that are larger than the smallest, in a line for people.
 *
 * @param what the set, at the beginning of the line: "The mirror"
 * @param usedBytes what it uses of each disk
 * @returns undefined if the disks have one size
 */
export function unusedOf(
  what: string,
  disks: readonly { readonly name: string; readonly sizeBytes: number }[],
  usedBytes: number,
): string | undefined {
  const smallestBytes = Math.min(...disks.map(({ sizeBytes }) => sizeBytes));
  const unused = disks.filter(({ sizeBytes }) => sizeBytes > smallestBytes).map(({ name, sizeBytes }) => {
    const bytes = sizeBytes - usedBytes;
    return `${bytes} bytes${bytes < 1024 ? "" : ` (${formatSize(bytes)})`} of ${name}`;
  });
  if (unused.length === 0) return undefined;
  const used = formatSizeExactly(usedBytes);
  return `${what} uses ${used} of each disk, the most that the smallest allows; not used: ${unused.join(", ")}`;
}

/** The traits that a set has if all of its disks have them. */
export function traitsOfSet(members: readonly Member[]): Required<Pick<Backend, "readOnly" | "fua" | "cacheSurvives">> {
  const isDurable = ({ backend }: Member) => backend.flush === undefined;
  return {
    readOnly: members.some(({ backend }) => backend.readOnly === true),
    fua: members.every((member) => isDurable(member) || member.backend.fua === true),
    cacheSurvives: members.every((member) => isDurable(member) || member.backend.cacheSurvives === true),
  };
}

/**
 * Closes all of them, whatever happens to one.
 *
 * @throws what the first one threw, when all are closed.
 */
export async function closeAll(backends: readonly Backend[], reason: CloseReason): Promise<void> {
  const closed = await Promise.allSettled(backends.map(async (backend) => await backend.close?.(reason)));
  const failed = closed.find((result) => result.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}
