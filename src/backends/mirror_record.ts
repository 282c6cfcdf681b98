// SPDX-License-Identifier: MIT
/**
 * What a mirror has to know after a crash, in its bitmap's file: which parts may differ, which disks it is made of, and which
 * of them are not up to date.
 */
import { DblockError } from "../disk/errors.ts";
import { IntentBitmap } from "../system/intent_bitmap.ts";
import type { Half } from "./mirror_half.ts";

export const HALVES_MAX = 8;
/** Of each half: whether it is out of date, and four bytes that know its name. */
const NOTE_BYTES = 8;
const NAME_AT = 4;
const OUT_OF_DATE = 1;

/** What the record is of. */
export interface MirrorRecordOptions {
  /** The file; without it everything is forgotten when the program ends. */
  readonly path: string | undefined;
  readonly sizeBytes: number;
  readonly regionBytes: number | undefined;
  /** Asked if there is no record from before: are the disks the same? What it throws, `open()` throws; nothing is made. */
  readonly areSame: () => boolean;
}

/** The record of one mirror. */
export class MirrorRecord {
  readonly bitmap: IntentBitmap;

  private constructor(bitmap: IntentBitmap) {
    this.bitmap = bitmap;
  }

  /**
   * Opens the record, or makes one: then all but the first half are out of date, unless they are the same.
   *
   * @throws {DblockError} EINVAL: it is another mirror's, or no such file at all; EBUSY: another program has it.
   */
  static async open(halves: readonly Half[], options: MirrorRecordOptions): Promise<MirrorRecord> {
    const { path, areSame } = options;
    const begin = () => {
      const isMarked = !areSame();
      return { notes: halves.flatMap((half, i) => notesOf(half, isMarked && i > 0)), isMarked };
    };
    const bitmap = await IntentBitmap.open({ ...options, notes: HALVES_MAX * NOTE_BYTES, begin });
    const record = new MirrorRecord(bitmap);
    try {
      record.#requireNames(halves, path ?? "");
      return record;
    } catch (error) {
      await bitmap.close({ isUnused: true });
      throw error;
    }
  }

  /** Whether a half has missed something, also before this program. */
  isOutOfDate({ index }: Half): boolean {
    return this.bitmap.note(index * NOTE_BYTES) === OUT_OF_DATE;
  }

  /** Says so, durably when this has ended. */
  async setOutOfDate({ index }: Half, isOutOfDate: boolean): Promise<void> {
    await this.bitmap.setNote(index * NOTE_BYTES, isOutOfDate ? OUT_OF_DATE : 0);
  }

  /** Ends when it is durable which halves are out of date: at once if it is. */
  halvesAreDurable(): void | Promise<void> {
    return this.bitmap.notesAreDurable();
  }

  /** Disks in another order, or other disks: what the record says would be said of the wrong ones. */
  #requireNames(halves: readonly Half[], path: string): void {
    for (let index = 0; index < HALVES_MAX; index++) {
      const half = halves[index];
      const known = [0, 1, 2, 3].map((i) => this.bitmap.note(index * NOTE_BYTES + NAME_AT + i));
      const wanted = half === undefined ? [0, 0, 0, 0] : nameBytes(half.name);
      if (known.every((byte, i) => byte === wanted[i])) continue;
      const wrong = half === undefined ? "it is that of more disks" : `its disk ${index + 1} is not ${half.name}`;
      throw new DblockError("EINVAL", `Cannot use ${path} as a mirror's bitmap`, wrong, {
        hint:
          "give the disks in the order of before; or remove the file: then all of the first is copied to the others",
      });
    }
  }
}

function notesOf({ name }: Half, isOutOfDate: boolean): number[] {
  return [isOutOfDate ? OUT_OF_DATE : 0, 0, 0, 0, ...nameBytes(name)];
}

/** FNV-1a of a name; never all zeroes, which mean that there is no half. */
function nameBytes(name: string): number[] {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 0x01000193);
  hash = hash === 0 ? 1 : hash >>> 0;
  return [0, 8, 16, 24].map((shift) => (hash >>> shift) & 0xff);
}
