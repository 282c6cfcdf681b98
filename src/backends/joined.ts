// SPDX-License-Identifier: MIT
/**
 * A disk that is made of ranges of others: the common part of `slice`, `concat` and `stripe`. What belongs where is the
 * layout's to say.
 */
import type { Backend, CallOptions, CloseReason, Extent, Limits, RequestOptions } from "../disk/backend.ts";
import { everything, whenDone } from "../disk/later.ts";
import { closeAll, limitsOfSet, type Member, traitsOfSet } from "./member.ts";

/** So many pieces are asked for their extents at once. */
const EXTENT_PIECES_MAX = 256;

/** A part of a range, on one disk. */
export interface Piece {
  readonly member: Member;
  /** Where it is on that disk. */
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** Which parts of which disks a joined disk consists of. */
export interface Layout {
  readonly sizeBytes: number;
  /** Every disk, once. */
  readonly members: readonly Member[];
  /** What the disk is like, where it is not as its disks are. */
  readonly limits?: Limits;
  /** The parts of a range in their order, without gaps. */
  pieces(offsetBytes: number, lengthBytes: number): Iterable<Piece>;
  /** The parts of a range in any order, as few as possible: for what has no data. @default `pieces` */
  ranges?(offsetBytes: number, lengthBytes: number): Iterable<Piece>;
}

/** A disk over a layout. */
export class JoinedBackend implements Backend {
  readonly sizeBytes: number;
  readonly limits: Limits & { readonly blockBytes: number };
  readonly readOnly: boolean;
  readonly fua: boolean;
  readonly cacheSurvives: boolean;
  /** Absent if no disk has something to flush. */
  readonly flush?: NonNullable<Backend["flush"]>;
  /** Absent if a disk has none. */
  readonly discard?: NonNullable<Backend["discard"]>;
  readonly #layout: Layout;

  /** Owns the layout's disks from here on. */
  constructor(layout: Layout) {
    const { members } = layout;
    const limits = { ...limitsOfSet(members), ...layout.limits };
    const { readOnly, fua, cacheSurvives } = traitsOfSet(members);
    this.#layout = layout;
    this.limits = limits;
    this.sizeBytes = layout.sizeBytes;
    this.readOnly = readOnly;
    this.fua = fua;
    this.cacheSurvives = cacheSurvives;
    const backends = members.map(({ backend }) => backend);
    if (backends.some(({ flush }) => flush !== undefined)) this.flush = (options) => this.#flush(options);
    if (limits.maxDiscardBytes !== 0 && backends.every(({ discard }) => discard !== undefined)) {
      this.discard = (...range) => this.#discard(...range);
    }
  }

  /** Fills `buffer` from the disks. */
  read(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number, options: RequestOptions): void | Promise<void> {
    return this.#each(buffer, offsetBytes, (part, { member, offsetBytes }) => member.read(part, offsetBytes, options));
  }

  /** Puts `buffer` on the disks. */
  write(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number, options: RequestOptions): void | Promise<void> {
    return this.#each(buffer, offsetBytes, (part, { member, offsetBytes }) => member.write(part, offsetBytes, options));
  }

  /** Every part of a buffer with the piece where it belongs, all at the same time. */
  #each(
    buffer: Uint8Array<ArrayBuffer>,
    offsetBytes: number,
    work: (part: Uint8Array<ArrayBuffer>, piece: Piece) => void | Promise<void>,
  ): void | Promise<void> {
    const works: (() => void | Promise<void>)[] = [];
    let at = 0;
    for (const piece of this.#layout.pieces(offsetBytes, buffer.length)) {
      const part = buffer.subarray(at, at + piece.lengthBytes);
      works.push(() => work(part, piece));
      at += piece.lengthBytes;
    }
    return all(works);
  }

  /** Makes a range read as zeroes. */
  writeZeroes(offsetBytes: number, lengthBytes: number, options: RequestOptions): void | Promise<void> {
    const ranges = this.#rangesOf(offsetBytes, lengthBytes);
    return all(ranges.map((range) => () => range.member.writeZeroes(range.offsetBytes, range.lengthBytes, options)));
  }

  #discard(offsetBytes: number, lengthBytes: number, options: RequestOptions): void | Promise<void> {
    const ranges = this.#rangesOf(offsetBytes, lengthBytes);
    return all(ranges.map((range) => () => range.member.discard(range.offsetBytes, range.lengthBytes, options)));
  }

  #rangesOf(offsetBytes: number, lengthBytes: number): Piece[] {
    const layout = this.#layout;
    return [...layout.ranges?.(offsetBytes, lengthBytes) ?? layout.pieces(offsetBytes, lengthBytes)];
  }

  #flush(options: CallOptions): void | Promise<void> {
    return all(this.#layout.members.map((member) => () => member.flush(options)));
  }

  /** What the disks say of their parts: one that cannot say anything is all data. */
  async extents(offsetBytes: number, lengthBytes: number, options: CallOptions): Promise<readonly Extent[]> {
    const found: Extent[] = [];
    let pieceCount = 0;
    for (const piece of this.#layout.pieces(offsetBytes, lengthBytes)) {
      const said = await piece.member.extents(piece.offsetBytes, piece.lengthBytes, this.limits.blockBytes, options);
      let bytes = 0;
      for (const extent of said) {
        bytes += extent.lengthBytes;
        const last = found.at(-1);
        if (last?.kind === extent.kind) found[found.length - 1] = joined(last, extent);
        else found.push(extent);
      }
      if (bytes < piece.lengthBytes || ++pieceCount === EXTENT_PIECES_MAX) break;
    }
    return found;
  }

  /** Closes every disk, for the same reason. */
  async close(reason: CloseReason): Promise<void> {
    await closeAll(this.#layout.members.map(({ backend }) => backend), reason);
  }
}

function joined({ lengthBytes, kind }: Extent, next: Extent): Extent {
  return { lengthBytes: lengthBytes + next.lengthBytes, kind };
}

function all(works: readonly (() => void | Promise<void>)[]): void | Promise<void> {
  const [only] = works;
  if (works.length === 1 && only !== undefined) return only();
  return whenDone(everything(works), () => {});
}
