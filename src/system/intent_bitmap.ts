// SPDX-License-Identifier: MIT
/**
 * Which parts of a disk may be in the middle of a write, in a file: a mark is durable before the write begins. After a
 * crash the marks say what has to be looked at again, instead of the whole disk.
 */
import { DblockError, describe, errnoOf, isOfSystem } from "../disk/errors.ts";
import {
  type FirstContent,
  type Geometry,
  newImage,
  NOTES_AT,
  NOTES_MAX,
  oldImage,
  PAGE_BYTES,
  setWhole,
} from "./intent_image.ts";

const REGION_BYTES_MIN = 1 << 20;
/** 128 KiB of bits at most, unless the caller wants smaller regions. */
const REGIONS_WANTED = 2 ** 20;
/** 1 MiB of bits. A set of V8 has room for twice as many marks that are not durable yet. */
const REGIONS_MAX = 2 ** 23;
/** A region that is written again and again keeps its mark: each new mark costs an fdatasync. A guess; md waits as long. */
const KEEP_MS = 5_000;
const LOCK_WAIT_MS = 2_000;
const LOCK_PAUSE_MS = 20;

/** Options of `IntentBitmap.open()`. */
export interface IntentBitmapOptions {
  /** The file; made if it is not there. Without it, the marks are in memory and a crash loses them. */
  readonly path?: string | undefined;
  /** Size of the disk. */
  readonly sizeBytes: number;
  /** What one mark covers: a power of two from 512 on. @default 1 MiB, or more for disks of more than 1 TiB */
  readonly regionBytes?: number | undefined;
  /** How many bytes the owner keeps beside the marks, 0 to 64. @default 0 */
  readonly notes?: number;
  /** Asked what a new file says, before anything is in it; what it throws, `open()` throws. @default nothing at all */
  readonly begin?: () => FirstContent;
}

interface Region {
  /** Writes that have begun and not ended. */
  inFlight: number;
  /** When the last one began. */
  begunMs: number;
  /** Changes with each write that begins. */
  turn: number;
}

/** Regions that nobody writes now: what `settled()` gives to `clear()`. */
export type Settled = ReadonlyMap<number, number>;

/** Marks of a disk's regions, and a few bytes of notes, both durable if there is a file. */
export class IntentBitmap {
  readonly regionBytes: number;
  /** The file was there: its marks and notes are from before. */
  readonly isOld: boolean;
  readonly #sizeBytes: number;
  readonly #file: Deno.FsFile | undefined;
  /** Of the file, if it was not there before. */
  readonly #madePath: string | undefined;
  /** The head, then a bit for each region: the file as it should be. */
  readonly #image: Uint8Array<ArrayBuffer>;
  readonly #noteCount: number;
  /** Marked regions that were written since the file was opened; others are marked from before. */
  readonly #regions = new Map<number, Region>();
  readonly #changedPages = new Set<number>();
  /** Those that are being written and synced. */
  #pagesInFlight: readonly number[] = [];
  #turn = 0;
  /** The run that writes and syncs the file, and the one after it, which is for changes made meanwhile. */
  #syncing: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  /** Marks that the file does not have for sure yet. */
  readonly #volatile = new Set<number>();

  private constructor(
    image: Uint8Array<ArrayBuffer>,
    geometry: Geometry,
    { file, isOld, madePath }: {
      readonly file?: Deno.FsFile;
      readonly isOld: boolean;
      readonly madePath?: string | undefined;
    },
  ) {
    this.#image = image;
    this.#sizeBytes = geometry.sizeBytes;
    this.regionBytes = geometry.regionBytes;
    this.#noteCount = geometry.notes;
    this.#file = file;
    this.#madePath = madePath;
    this.isOld = isOld;
  }

  /**
   * Opens the file, or makes it. One that was not made to its end, because `begin()` had thrown or the program had died, is
   * still new.
   *
   * @throws {DblockError} EINVAL if the file is none of these, or is that of a disk of another size; EBUSY if another
   * program has it; ENOENT, EACCES and the like if it cannot be opened. A file that was made is removed then.
   * @throws {RangeError} if an option is out of its range.
   * @throws what `begin()` throws, or reading or writing the file.
   */
  static async open(options: IntentBitmapOptions): Promise<IntentBitmap> {
    const { path, sizeBytes, notes = 0, regionBytes = defaultRegionBytes(sizeBytes) } = options;
    const count = Math.ceil(sizeBytes / regionBytes);
    if (!Number.isInteger(Math.log2(regionBytes)) || regionBytes < 512 || !(count >= 1 && count <= REGIONS_MAX)) {
      throw new RangeError(
        `a region is a power of two from 512 on and a ${REGIONS_MAX}th of the disk, not ${regionBytes}`,
      );
    }
    if (!(notes >= 0 && notes <= NOTES_MAX)) throw new RangeError(`there are 0 to ${NOTES_MAX} notes, not ${notes}`);
    const geometry = { sizeBytes, regionBytes, notes };
    const begin = () => newImage(geometry, options.begin?.());
    if (path === undefined) return new IntentBitmap(begin(), geometry, { isOld: false });
    const { file, isMade } = await openOrMake(path);
    const madePath = isMade ? path : undefined;
    let isLocked = false;
    try {
      await lock(file, path);
      isLocked = true;
      const old = await oldImage(file, geometry, path);
      const bitmap = new IntentBitmap(old ?? begin(), geometry, { file, isOld: old !== undefined, madePath });
      if (old === undefined) await bitmap.#make();
      return bitmap;
    } catch (error) {
      // Another program may have opened and locked the file between the two.
      if (isLocked && madePath !== undefined) await remove(madePath);
      file.close();
      if (!isOfSystem(error)) throw error;
      const attempted = `Cannot keep marks in ${path}`;
      throw new DblockError(errnoOf(error) ?? "EIO", attempted, describe(error), { cause: error });
    }
  }

  /** How many bytes of the disk are marked. */
  get markedBytes(): number {
    let bytes = 0;
    for (const { lengthBytes } of this.marked()) bytes += lengthBytes;
    return bytes;
  }

  /** The marked regions, in their order. */
  *marked(): Generator<{ readonly offsetBytes: number; readonly lengthBytes: number }> {
    for (let byte = PAGE_BYTES; byte < this.#image.length; byte++) {
      if (this.#image[byte] === 0) continue;
      for (let bit = 0; bit < 8; bit++) {
        const region = (byte - PAGE_BYTES) * 8 + bit;
        if (!this.#has(region)) continue;
        const offsetBytes = region * this.regionBytes;
        yield { offsetBytes, lengthBytes: Math.min(this.regionBytes, this.#sizeBytes - offsetBytes) };
      }
    }
  }

  /** True if a part of the range is marked. */
  isMarked(offsetBytes: number, lengthBytes: number): boolean {
    for (const region of this.#covered(offsetBytes, lengthBytes)) if (this.#has(region)) return true;
    return false;
  }

  /** A write of this range begins. When this has ended, its marks are durable. `end()` has to follow. */
  begin(offsetBytes: number, lengthBytes: number): void | Promise<void> {
    const begunMs = performance.now();
    let isVolatile = false;
    for (const region of this.#covered(offsetBytes, lengthBytes)) {
      const known = this.#regions.get(region) ?? { inFlight: 0, begunMs, turn: 0 };
      known.inFlight++;
      known.begunMs = begunMs;
      known.turn = ++this.#turn;
      this.#regions.set(region, known);
      if (!this.#has(region)) this.#set(region);
      if (this.#volatile.has(region)) isVolatile = true;
    }
    return isVolatile ? this.#sync() : undefined;
  }

  /** A write that had begun has ended, well or not. */
  end(offsetBytes: number, lengthBytes: number): void {
    for (const region of this.#covered(offsetBytes, lengthBytes)) {
      const known = this.#regions.get(region);
      if (known !== undefined) known.inFlight--;
    }
  }

  /** Marks a range of which no write is in flight, durably. */
  async mark(offsetBytes: number, lengthBytes: number): Promise<void> {
    try {
      await this.begin(offsetBytes, lengthBytes);
    } finally {
      this.end(offsetBytes, lengthBytes);
    }
  }

  /** Marks a range as if that had been done before the file was opened: see `clearOld()`. Durable when this has ended. */
  async markOld(offsetBytes: number, lengthBytes: number): Promise<void> {
    for (const region of this.#covered(offsetBytes, lengthBytes)) if (!this.#has(region)) this.#set(region);
    await this.#sync();
  }

  /** Takes the marks of before away, unless their region was written since: what they stand for is as it should be. */
  clearOld(): void {
    for (const { offsetBytes } of this.marked()) {
      const region = offsetBytes / this.regionBytes;
      if (!this.#regions.has(region)) this.#unset(region);
    }
  }

  /**
   * The marked regions without a write in flight. Make durable what was written to them, then `clear()` them.
   *
   * @param keepMs leave out those that were written so recently: their mark would have to come back soon
   */
  settled(keepMs: number = KEEP_MS): Settled {
    const before = performance.now() - keepMs;
    const settled = new Map<number, number>();
    for (const [region, { inFlight, begunMs, turn }] of this.#regions) {
      if (inFlight === 0 && begunMs <= before) settled.set(region, turn);
    }
    return settled;
  }

  /** Takes the marks of regions away that nobody has written since they were settled. */
  clear(settled: Settled): void {
    for (const [region, turn] of settled) {
      if (this.#regions.get(region)?.turn !== turn) continue;
      this.#regions.delete(region);
      this.#unset(region);
    }
  }

  /** Takes the marks of a range away: it is as it should be, durably, and nobody writes it. */
  clearRange(offsetBytes: number, lengthBytes: number): void {
    for (const region of this.#covered(offsetBytes, lengthBytes)) {
      if ((this.#regions.get(region)?.inFlight ?? 0) > 0) continue;
      this.#regions.delete(region);
      this.#unset(region);
    }
  }

  /** One of the owner's bytes. */
  note(index: number): number {
    return this.#image[NOTES_AT + index] ?? 0;
  }

  /** Changes one of the owner's bytes, durably. */
  async setNote(index: number, value: number): Promise<void> {
    if (!(index >= 0 && index < this.#noteCount)) throw new RangeError(`there is no note ${index}`);
    if (this.#image[NOTES_AT + index] !== value) {
      this.#image[NOTES_AT + index] = value;
      this.#changedPages.add(0);
    }
    await this.notesAreDurable();
  }

  /** Ends when the notes are durable as they are now: at once if nobody has changed one since they were. */
  notesAreDurable(): void | Promise<void> {
    if (this.#file === undefined) return;
    if (this.#changedPages.has(0) || this.#pagesInFlight.includes(0)) return this.#sync();
  }

  /**
   * Writes what has changed, and closes the file.
   *
   * @param options.isUnused its disk was never used: a file that `open()` has made is removed instead
   */
  async close({ isUnused = false }: { readonly isUnused?: boolean } = {}): Promise<void> {
    try {
      if (isUnused && this.#madePath !== undefined) await remove(this.#madePath);
      else await this.#sync();
    } finally {
      this.#file?.close();
    }
  }

  /** Makes a new file: nobody may take one for whole of which a part is missing. */
  async #make(): Promise<void> {
    setWhole(this.#image, false);
    this.#changedPages.add(0);
    await this.#sync();
    for (let page = 1; page < this.#image.length / PAGE_BYTES; page++) this.#changedPages.add(page);
    await this.#sync();
    setWhole(this.#image, true);
    this.#changedPages.add(0);
    await this.#sync();
  }

  *#covered(offsetBytes: number, lengthBytes: number): Generator<number> {
    const last = Math.floor((offsetBytes + lengthBytes - 1) / this.regionBytes);
    for (let region = Math.floor(offsetBytes / this.regionBytes); region <= last; region++) yield region;
  }

  #has(region: number): boolean {
    return (this.#image[PAGE_BYTES + (region >> 3)]! & (1 << (region & 7))) !== 0;
  }

  #set(region: number): void {
    const at = PAGE_BYTES + (region >> 3);
    this.#image[at] = this.#image[at]! | (1 << (region & 7));
    this.#changedPages.add(Math.floor(at / PAGE_BYTES));
    if (this.#file !== undefined) this.#volatile.add(region);
  }

  #unset(region: number): void {
    const at = PAGE_BYTES + (region >> 3);
    this.#image[at] = this.#image[at]! & ~(1 << (region & 7));
    this.#changedPages.add(Math.floor(at / PAGE_BYTES));
    this.#volatile.delete(region);
  }

  /** Ends when everything changed until now is in the file, durably. */
  #sync(): Promise<void> {
    if (this.#syncing === undefined) {
      this.#syncing = this.#write().finally(() => this.#syncing = undefined);
      return this.#syncing;
    }
    // The run that goes on may have passed the page: the next one has it, for everybody who asks until it begins.
    const running = this.#syncing;
    this.#next ??= running.catch(() => {}).then(() => {
      this.#next = undefined;
      return this.#sync();
    });
    return this.#next;
  }

  async #write(): Promise<void> {
    const file = this.#file;
    if (file === undefined) return;
    const pages = [...this.#changedPages].sort((a, b) => a - b);
    const marks = [...this.#volatile];
    if (pages.length === 0) return;
    // All of one moment: a mark that goes and comes back meanwhile would else count as durable though it is not written.
    const copies = pages.map((page) => this.#image.slice(page * PAGE_BYTES, (page + 1) * PAGE_BYTES));
    this.#changedPages.clear();
    this.#pagesInFlight = pages;
    try {
      for (const [i, page] of pages.entries()) {
        await file.seek(page * PAGE_BYTES, Deno.SeekMode.Start);
        let rest = copies[i]!;
        while (rest.length > 0) rest = rest.subarray(await file.write(rest));
      }
      await file.syncData();
    } catch (error) {
      for (const page of pages) this.#changedPages.add(page);
      throw error;
    } finally {
      this.#pagesInFlight = [];
    }
    for (const region of marks) this.#volatile.delete(region);
  }
}

async function openOrMake(path: string): Promise<{ readonly file: Deno.FsFile; readonly isMade: boolean }> {
  const access = { read: true, write: true, mode: 0o600 };
  try {
    try {
      return { file: await Deno.open(path, access), isMade: false };
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      return { file: await Deno.open(path, { ...access, createNew: true }), isMade: true };
    }
  } catch (error) {
    const wrong = error instanceof Deno.errors.NotFound
      ? "there is no such folder"
      : error instanceof Deno.errors.IsADirectory
      ? "it is a folder"
      : error instanceof Deno.errors.PermissionDenied
      ? "it may not be read and written"
      : describe(error);
    const hint = "give a file on a file system that is not on the disk itself: /var/lib/dblock/NAME.bitmap";
    throw new DblockError(errnoOf(error) ?? "EIO", `Cannot use ${path} as a write-intent bitmap`, wrong, {
      hint,
      cause: error,
    });
  }
}

/** Removes a file before its lock is let go. Never throws: there is another reason to be told. */
async function remove(path: string): Promise<void> {
  await Deno.remove(path).catch(() => {});
}

/** For this program alone, until the file is closed: a program that was killed keeps its lock for a moment. */
async function lock(file: Deno.FsFile, path: string): Promise<void> {
  for (let waitedMs = 0; !await file.tryLock(true); waitedMs += LOCK_PAUSE_MS) {
    if (waitedMs >= LOCK_WAIT_MS) {
      throw new DblockError("EBUSY", `Cannot use ${path} as a write-intent bitmap`, "another program has it");
    }
    await new Promise((resolve) => setTimeout(resolve, LOCK_PAUSE_MS));
  }
}

function defaultRegionBytes(sizeBytes: number): number {
  let bytes = REGION_BYTES_MIN;
  while (sizeBytes / bytes > REGIONS_WANTED) bytes *= 2;
  return bytes;
}
