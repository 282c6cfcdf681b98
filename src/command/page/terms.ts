// SPDX-License-Identifier: MIT
/** What the page and who looks for it have agreed on: the order of numbers, and letters for bytes. Pure; both import it. */

/** What the numbers of an activity are: each second's, but for times (in ms) and what is in flight. */
export const FIELDS = [
  "reads",
  "writes",
  "others",
  "readBytes",
  "writeBytes",
  "p50Ms",
  "p90Ms",
  "p99Ms",
  "maxMs",
  "inFlight",
  "errors",
] as const;

/** One of them. */
export type Field = typeof FIELDS[number];

/** How many pieces a map of a disk has: letters of one moment. */
export const PIECES = 256;

/** The letter of a piece of which nothing was read or written. */
const LEVEL_0 = "0".charCodeAt(0);
/** Up to this many bytes a second have level 1; each level more is half a doubling. */
const LEVEL_BYTES = 512;
/** So that a letter is one of 7 bits: 1 TB a second. */
const LEVEL_MAX = 62;

/** The letter for so many bytes a second. */
export function letterOf(bytes: number): string {
  const level = bytes <= 0 ? 0 : Math.max(1, Math.min(LEVEL_MAX, 1 + Math.round(2 * Math.log2(bytes / LEVEL_BYTES))));
  return String.fromCharCode(LEVEL_0 + level);
}

/** The level of a piece: 0 for nothing. */
export function levelOf(letters: string, piece: number): number {
  return letters === "" ? 0 : letters.charCodeAt(piece) - LEVEL_0;
}

/** About how many bytes a second a level is. */
export function bytesOfLevel(level: number): number {
  return level === 0 ? 0 : LEVEL_BYTES * 2 ** ((level - 1) / 2);
}
