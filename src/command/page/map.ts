// SPDX-License-Identifier: MIT
/** The map of a disk: where reads and writes land, over time. It paints pixels; the axes around it are uPlot's. */
import type { Disk } from "./model.ts";
import { bytesOfLevel, levelOf, PIECES } from "./terms.ts";

/** Colours as three numbers from 0 to 255. */
export interface MapColours {
  readonly reads: Colour;
  readonly writes: Colour;
  readonly both: Colour;
}

/** Red, green, blue. */
export type Colour = readonly [number, number, number];

/** So many levels below the brightest one, a piece is as faint as it gets: 12 doublings. */
const RANGE = 24;
const FAINTEST = 0.22;

/** What the map shows of a piece at a moment. */
export interface Spot {
  /** The first byte of the piece, and the one after its last. */
  readonly fromByte: number;
  readonly toByte: number;
  /** A second, about. */
  readonly readBytes: number;
  readonly writeBytes: number;
}

/** What is at a place of the map. */
export function spotAt(disk: Disk, at: number, offsetBytes: number): Spot | undefined {
  const { sizeBytes } = disk.description;
  const piece = Math.floor(offsetBytes / sizeBytes * PIECES);
  if (piece < 0 || piece >= PIECES || disk.reads[at] === undefined) return undefined;
  return {
    fromByte: piece * sizeBytes / PIECES,
    toByte: (piece + 1) * sizeBytes / PIECES,
    readBytes: bytesOfLevel(levelOf(disk.reads[at], piece)),
    writeBytes: bytesOfLevel(levelOf(disk.writes[at]!, piece)),
  };
}

/**
 * Paints the map: a column a second, the newest at the right, the disk's beginning at the bottom.
 *
 * @returns pixels, four bytes each, `seconds` columns by `PIECES` rows
 */
export function paint(
  { reads, writes }: Pick<Disk, "reads" | "writes">,
  times: readonly number[],
  seconds: number,
  colours: MapColours,
): Uint8ClampedArray<ArrayBuffer> {
  const pixels = new Uint8ClampedArray(seconds * PIECES * 4);
  const end = times.at(-1) ?? 0;
  const brightest = highestLevel(reads, writes);
  for (let at = 0; at < times.length; at++) {
    const [read, written] = [reads[at]!, writes[at]!];
    if (read === "" && written === "") continue;
    const column = seconds - 1 - Math.round(end - times[at]!);
    // Looks are a little more than a second apart: now and then a column has none of its own.
    const before = at === 0 ? column - 1 : seconds - 1 - Math.round(end - times[at - 1]!);
    for (let x = Math.max(0, column - before === 2 ? column - 1 : column); x <= column; x++) {
      for (let piece = 0; piece < PIECES; piece++) {
        const [r, w] = [levelOf(read, piece), levelOf(written, piece)];
        if (r + w === 0) continue;
        const colour = w === 0 ? colours.reads : r === 0 ? colours.writes : colours.both;
        const place = ((PIECES - 1 - piece) * seconds + x) * 4;
        pixels.set(colour, place);
        pixels[place + 3] = 255 * strengthOf(Math.max(r, w), brightest);
      }
    }
  }
  return pixels;
}

/** From FAINTEST to 1. */
function strengthOf(level: number, brightest: number): number {
  return FAINTEST + (1 - FAINTEST) * Math.max(0, 1 - (brightest - level) / RANGE);
}

function highestLevel(reads: readonly string[], writes: readonly string[]): number {
  let highest = 0;
  for (const letters of [...reads, ...writes]) {
    for (let i = 0; i < letters.length; i++) highest = Math.max(highest, levelOf(letters, i));
  }
  return highest;
}
