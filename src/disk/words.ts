// SPDX-License-Identifier: MIT
/** Values as people write them: sizes, times, shares, lists. What cannot be meant is a `UsageError` that says what can. */
import { type Operation, OPERATIONS } from "./operation.ts";
import { ERRNO, type ErrnoName } from "./errors.ts";

/** Somebody typed something that cannot be meant. */
export class UsageError extends Error {
  /** "UsageError". */
  override readonly name = "UsageError";
}

const POWERS = ["", "k", "m", "g", "t", "p"];
const SIZE = /^(?<number>[0-9]+(?:\.[0-9]+)?) ?(?:(?<unit>[kmgtp]?)(?<suffix>i?b)?)$/i;

/**
 * Bytes of a size as people write it: "4096", "512M", "4GiB", "1.5 GiB". K, M, G, T, P and KiB … are powers of 1024; KB,
 * MB … powers of 1000, as for dd and truncate.
 *
 * @throws {UsageError} if it is none, or not a whole number of bytes below 2^53.
 */
export function parseSize(text: string, what = "size"): number {
  const groups = SIZE.exec(text.trim())?.groups;
  const unit = groups?.unit?.toLowerCase() ?? "";
  const suffix = groups?.suffix?.toLowerCase();
  if (groups === undefined || (unit === "" && suffix === "ib")) {
    throw new UsageError(`"${text}" is not a ${what} (write it like 4GiB, 512M or 1048576)`);
  }
  const base = unit !== "" && suffix === "b" ? 1000n : 1024n;
  const [whole = "", fraction = ""] = groups.number?.split(".") ?? [];
  const scaled = BigInt(whole + fraction) * base ** BigInt(POWERS.indexOf(unit));
  const scale = 10n ** BigInt(fraction.length);
  if (scaled > BigInt(Number.MAX_SAFE_INTEGER) * scale) {
    throw new UsageError(`${what} ${text} is too big (less than 8 PiB)`);
  }
  if (scaled % scale !== 0n) throw new UsageError(`${what} ${text} is not a whole number of bytes`);
  return Number(scaled / scale);
}

/** "4 GiB", "1.5 GiB", "512 bytes": exact where three digits are enough. */
export function formatSize(bytes: number): string {
  if (bytes < 1024) return `${bytes} bytes`;
  const { rounded, power } = inUnits(bytes);
  return `${rounded} ${(POWERS[power] ?? "").toUpperCase()}iB`;
}

/** The same where that is exact, else all bytes, for sizes that a reader compares: "1 MiB", "1048577 bytes". */
export function formatSizeExactly(bytes: number): string {
  const { rounded, power } = inUnits(Math.max(1, bytes));
  return rounded * 1024 ** power === bytes ? formatSize(bytes) : `${bytes} bytes`;
}

function inUnits(bytes: number): { readonly rounded: number; readonly power: number } {
  const power = Math.min(POWERS.length - 1, Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 1024 ** power;
  return { rounded: Number(value.toPrecision(value >= 1000 ? 4 : 3)), power };
}

/**
 * A whole number in a range.
 *
 * @param what of what it is a number, "requests"; or the number itself with its article, "a seed"
 * @throws {UsageError} with the range if it is none, or outside.
 */
export function parseCount(text: string, what: string, min: number, max: number): number {
  const value = /^[0-9]+$/.test(text) ? Number(text) : NaN;
  if (value >= min && value <= max) return value;
  const noun = what.startsWith("a ") ? what : `a number of ${what}`;
  throw new UsageError(`"${text}" is not ${noun} (${min} to ${max})`);
}

const DURATION = /^(?<number>[0-9]+(?:\.[0-9]+)?) ?(?<unit>us|ms|s|min|)$/;
const UNIT_MS: Readonly<Record<string, number>> = { us: 0.001, ms: 1, s: 1_000, min: 60_000 };

/**
 * Milliseconds of a time as people write it: "5ms", "1.5s", "200us", "2min". A number alone, unless it is 0, could be seconds
 * (`--timeout`) or milliseconds (`?late=`), and is refused.
 *
 * @throws {UsageError} if it is none.
 */
export function parseDuration(text: string, what = "time"): number {
  const { number, unit = "" } = DURATION.exec(text.trim())?.groups ?? {};
  if (number === undefined) throw new UsageError(`"${text}" is not a ${what} (write it like 5ms, 1.5s or 200us)`);
  if (Number(number) === 0) return 0;
  if (unit === "") throw new UsageError(`"${text}" has no unit (write it like ${number}ms, ${number}s or ${number}us)`);
  return Number(number) * UNIT_MS[unit]!;
}

/**
 * A part of all: "0.01", or "1%".
 *
 * @throws {UsageError} if it is not 0 to 1.
 */
export function parseShare(text: string, what = "share"): number {
  const { number, percent } = /^(?<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?<percent>%)?$/.exec(text.trim())?.groups ?? {};
  const value = Number(number ?? NaN) / (percent === undefined ? 1 : 100);
  if (value >= 0 && value <= 1) return value;
  throw new UsageError(`"${text}" is not a ${what} (0 to 1, or 0% to 100%)`);
}

/**
 * Operations, joined by "+": "read+write".
 *
 * @throws {UsageError} with all of them if one is not known.
 */
export function parseOperations(text: string): Operation[] {
  return text.split("+").map((word) => oneOf(word, OPERATIONS, "operation"));
}

/**
 * Names of errnos, joined by "+": "EIO+ENOSPC".
 *
 * @throws {UsageError} if one is not known.
 */
export function parseErrnos(text: string): ErrnoName[] {
  return text.split("+").map((word) => {
    if (Object.hasOwn(ERRNO, word)) return word as ErrnoName;
    throw new UsageError(`"${word}" is not an errno (write it like EIO or ENOSPC)`);
  });
}

/**
 * One of some words.
 *
 * @throws {UsageError} with all of them if it is another.
 */
export function oneOf<T extends string>(word: string, words: readonly T[], what: string): T {
  const found = words.find((one) => one === word);
  if (found !== undefined) return found;
  const near = nearest(word, words);
  const guess = near === undefined ? "" : `; did you mean ${near}?`;
  throw new UsageError(`there is no ${what} "${word}" (${words.join(", ")})${guess}`);
}

/** The word that was meant, if one is at most two slips away. */
export function nearest(word: string, words: readonly string[]): string | undefined {
  const ranked = words.map((one) => ({ one, slips: distance(word, one) })).sort((a, b) => a.slips - b.slips);
  const [best] = ranked;
  return best !== undefined && best.slips <= Math.min(2, word.length - 1) ? best.one : undefined;
}

/** How many letters have to be changed, added or left out (Levenshtein). */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
    row = next;
  }
  return row[b.length]!;
}
