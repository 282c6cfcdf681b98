// SPDX-License-Identifier: MIT
/** What the limits of a disk may be, what they are where nobody says it, and why a value is none. Pure numbers and words. */
import type { Limits } from "./backend.ts";
import { DblockError } from "./errors.ts";
import type { Profile } from "./profile.ts";

const KIB = 2 ** 10;
const MIB = 2 ** 20;
const GIB = 2 ** 30;

/** Block sizes: powers of two. */
export const BLOCK_BYTES_MIN = 512;
export const BLOCK_BYTES_MAX = 4096;
export const PHYSICAL_BLOCK_BYTES_MAX = MIB;
/** The largest read and write. */
export const IO_BYTES_MIN = 4096;
export const IO_BYTES_MAX = 16 * MIB;
/** The largest discard and writeZeroes. */
export const RANGE_BYTES_MAX = 2 * GIB;
export const DISCARD_GRANULARITY_BYTES_MAX = GIB;
/** A disk ends where a number of JavaScript ends to be exact. */
export const SIZE_BYTES_MAX: number = Number.MAX_SAFE_INTEGER;

/** As the kernel's own queues are: larger requests than this gain little and wait longer for each other. */
const DEFAULT_IO_BYTES = 512 * KIB;
/** Without a copy in the server, a large request costs it no more than a small one. */
const DEFAULT_DIRECT_IO_BYTES = MIB;
/** A backend that cannot zero gets writes instead: few enough of them to end before any timeout. */
const EMULATED_ZEROES_BYTES = 4 * MIB;
/** What most stores give back and write at once. */
const DEFAULT_GRAIN_BYTES = 4096;

/** Every word of `Limits`. */
export const LIMIT_NAMES: readonly (keyof Limits)[] = [
  "blockBytes",
  "physicalBlockBytes",
  "optimalIoBytes",
  "maxIoBytes",
  "discardGranularityBytes",
  "maxDiscardBytes",
  "maxWriteZeroesBytes",
  "rotational",
];

/** Every limit of a disk, decided. `maxDiscardBytes` and `maxWriteZeroesBytes` are 0 where that is not offered. */
export type DecidedLimits = Required<Limits>;

/** What a disk is like: what `options` ask for, else what its backend says, else the defaults. Nothing is checked. */
export function decideLimits(profile: Profile, options: Limits = {}): DecidedLimits {
  const said: Limits = { ...profile.limits, ...withoutUndefined(options) };
  const blockBytes = said.blockBytes ?? BLOCK_BYTES_MIN;
  const grainBytes = Math.max(DEFAULT_GRAIN_BYTES, blockBytes);
  const discardGranularityBytes = said.discardGranularityBytes ?? grainBytes;
  // What only reads has nothing to give back.
  const discards = profile.discard && !profile.readOnly;
  return {
    blockBytes,
    physicalBlockBytes: said.physicalBlockBytes ?? grainBytes,
    optimalIoBytes: said.optimalIoBytes ?? 0,
    maxIoBytes: said.maxIoBytes ?? (profile.direct ? DEFAULT_DIRECT_IO_BYTES : DEFAULT_IO_BYTES),
    discardGranularityBytes,
    maxDiscardBytes: discards ? said.maxDiscardBytes ?? RANGE_BYTES_MAX : 0,
    maxWriteZeroesBytes: said.maxWriteZeroesBytes ?? (profile.writeZeroes ? RANGE_BYTES_MAX : EMULATED_ZEROES_BYTES),
    rotational: said.rotational ?? false,
  };
}

function withoutUndefined(limits: Limits): Limits {
  return Object.fromEntries(Object.entries(limits).filter(([, value]) => value !== undefined));
}

/** The kernel's smallest bound on the size of a request is its page. */
export interface CheckOptions {
  /** @default 4096 */
  readonly pageBytes?: number;
}

/**
 * What is wrong with limits, in words that name the value and the range; or undefined. What is not said is not checked, so
 * that options can be checked before a backend is known.
 */
export function whyBadLimits(limits: Limits, options: CheckOptions = {}): string | undefined {
  const { blockBytes, physicalBlockBytes, optimalIoBytes, maxIoBytes, discardGranularityBytes } = limits;
  const block = blockBytes ?? BLOCK_BYTES_MIN;
  const physical = physicalBlockBytes ?? block;
  // The block layer does not split what is smaller than a grain.
  const discardMin = Math.max(discardGranularityBytes ?? block, physical);
  const ioBytesMin = Math.max(IO_BYTES_MIN, options.pageBytes ?? 0);
  return whyNotPower("blockBytes", blockBytes, BLOCK_BYTES_MIN, BLOCK_BYTES_MAX) ??
    whyNotPower("physicalBlockBytes", physicalBlockBytes, block, PHYSICAL_BLOCK_BYTES_MAX) ??
    whyOutside("optimalIoBytes", optimalIoBytes, 0, IO_BYTES_MAX, physical) ??
    whyOutside("maxIoBytes", maxIoBytes, ioBytesMin, IO_BYTES_MAX, IO_BYTES_MIN) ??
    whyNotPower("discardGranularityBytes", discardGranularityBytes, block, DISCARD_GRANULARITY_BYTES_MAX) ??
    whyBadRange("maxDiscardBytes", limits.maxDiscardBytes, discardMin, block) ??
    whyBadRange("maxWriteZeroesBytes", limits.maxWriteZeroesBytes, block, block) ??
    whyNotBoolean("rotational", limits.rotational);
}

/** What options ask for that a backend has said it cannot do; or undefined. */
export function whyTooMuch(said: Limits, decided: DecidedLimits): string | undefined {
  const { blockBytes = 0 } = said;
  if (decided.blockBytes < blockBytes) return `blockBytes is at least ${blockBytes} here, not ${decided.blockBytes}`;
  for (const limit of ["maxIoBytes", "maxDiscardBytes", "maxWriteZeroesBytes"] as const) {
    const most = said[limit] ?? Infinity;
    if (decided[limit] > most) return `${limit} is at most ${most} here, not ${decided[limit]}`;
  }
  return undefined;
}

/** Why a disk cannot have that size; or undefined. */
export function whyBadSize(sizeBytes: number, blockBytes: number): string | undefined {
  return whyOutside("sizeBytes", sizeBytes, blockBytes, SIZE_BYTES_MAX, blockBytes);
}

/**
 * The limits of a disk, checked.
 *
 * @throws {DblockError} EINVAL: `attempted`, and the value that is out of range with the range.
 */
export function checkedLimits(
  attempted: string,
  profile: Profile,
  options: Limits & CheckOptions = {},
): DecidedLimits {
  const { pageBytes, ...limits } = options;
  const decided = decideLimits(profile, limits);
  const wrong = whyBadLimits(decided, pageBytes === undefined ? {} : { pageBytes }) ??
    whyTooMuch(profile.limits, decided) ?? whyBadSize(profile.sizeBytes, decided.blockBytes);
  if (wrong !== undefined) throw new DblockError("EINVAL", attempted, wrong);
  return decided;
}

/** 0, or a multiple of the block size from `min` on. */
function whyBadRange(what: string, value: number | undefined, min: number, block: number): string | undefined {
  return value === 0 ? undefined : whyOutside(what, value, min, RANGE_BYTES_MAX, block);
}

/** Why a number is not in a range; undefined if it is, or is not said. */
export function whyOutside(
  what: string,
  value: number | undefined,
  min: number,
  max: number,
  multipleOf: number,
): string | undefined {
  if (value === undefined) return undefined;
  if (Number.isSafeInteger(value) && value >= min && value <= max && value % multipleOf === 0) return undefined;
  const step = multipleOf === 1 ? "" : `, a multiple of ${multipleOf}`;
  return `${what} is ${min} to ${max}${step}, not ${value}`;
}

function whyNotPower(what: string, value: number | undefined, min: number, max: number): string | undefined {
  if (value === undefined) return undefined;
  if (Number.isInteger(Math.log2(value)) && value >= min && value <= max) return undefined;
  return `${what} is a power of two from ${min} to ${max}, not ${value}`;
}

function whyNotBoolean(what: string, value: boolean | undefined): string | undefined {
  return value === undefined || typeof value === "boolean" ? undefined : `${what} is true or false, not ${value}`;
}
