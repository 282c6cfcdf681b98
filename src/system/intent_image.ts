// SPDX-License-Identifier: MIT
/** The bytes of an intent bitmap's file: what a new one has, and whether one that is there is the right one. */
import { DblockError } from "../disk/errors.ts";

/** "dblockIB", and the version of what follows. */
const MAGIC = new TextEncoder().encode("dblockIB");
const VERSION = 1;
/** Instead of the version, until the rest of a new file is durable: a crash before that leaves a file that is new. */
const BEING_MADE = 0;
/** Magic, version, number of notes, bytes of a region and of the disk; the notes; the bits from the next page on. */
export const PAGE_BYTES = 4096;
const VERSION_AT = 8;
export const NOTES_AT = 32;
export const NOTES_MAX = 64;

/** What a bitmap is of. */
export interface Geometry {
  /** Of the disk. */
  readonly sizeBytes: number;
  readonly regionBytes: number;
  /** How many there are. */
  readonly notes: number;
}

/** What is in a new file from its first moment on. */
export interface FirstContent {
  /** The first of the owner's bytes; the others are 0. */
  readonly notes: readonly number[];
  /** All of the disk is marked, as if that had been done before. */
  readonly isMarked: boolean;
}

/** A new file, whole. */
export function newImage(geometry: Geometry, first: FirstContent | undefined): Uint8Array<ArrayBuffer> {
  const { sizeBytes, regionBytes, notes } = geometry;
  const regionCount = Math.ceil(sizeBytes / regionBytes);
  const image = new Uint8Array(PAGE_BYTES + Math.ceil(regionCount / 8 / PAGE_BYTES) * PAGE_BYTES);
  const view = new DataView(image.buffer);
  image.set(MAGIC);
  view.setUint32(VERSION_AT, VERSION, true);
  view.setUint32(12, notes, true);
  view.setBigUint64(16, BigInt(regionBytes), true);
  view.setBigUint64(24, BigInt(sizeBytes), true);
  if (first === undefined) return image;
  image.set(first.notes, NOTES_AT);
  if (first.isMarked) {
    const rest = PAGE_BYTES + (regionCount >> 3);
    image.fill(0xff, PAGE_BYTES, rest);
    if ((regionCount & 7) !== 0) image[rest] = (1 << (regionCount & 7)) - 1;
  }
  return image;
}

/** Says whether all of the file is there. */
export function setWhole(image: Uint8Array<ArrayBuffer>, isWhole: boolean): void {
  new DataView(image.buffer).setUint32(VERSION_AT, isWhole ? VERSION : BEING_MADE, true);
}

/**
 * What the file says; undefined if it is new, or was not made to its end.
 *
 * @throws {DblockError} EINVAL: it is another kind of file, or that of another disk.
 */
export async function oldImage(
  file: Deno.FsFile,
  geometry: Geometry,
  path: string,
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const attempted = `Cannot use ${path} as a write-intent bitmap`;
  const hint = "take another file, or remove this one: then nothing is known of what a crash left behind";
  const wanted = newImage(geometry, undefined);
  const image = new Uint8Array(wanted.length);
  let at = 0;
  while (at < image.length) {
    const count = await file.read(image.subarray(at));
    if (count === null) break;
    at += count;
  }
  if (at === 0) return undefined;
  if (at < NOTES_AT || MAGIC.some((byte, i) => image[i] !== byte)) {
    throw new DblockError("EINVAL", attempted, "it is another kind of file", { hint });
  }
  const view = new DataView(image.buffer);
  const version = view.getUint32(VERSION_AT, true);
  if (version === BEING_MADE) return undefined;
  if (at === image.length && wanted.subarray(0, NOTES_AT).every((byte, i) => image[i] === byte)) return image;
  const wrong = `it belongs to a disk of ${view.getBigUint64(24, true)} bytes with regions of ` +
    `${view.getBigUint64(16, true)}, version ${version}`;
  throw new DblockError("EINVAL", attempted, wrong, { hint });
}
