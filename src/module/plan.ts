// SPDX-License-Identifier: MIT
/**
 * What a device is created with: options and a backend's profile become struct dblock_create, with an error that names
 * the value when one is out of range. The kernel checks again, but can only say EINVAL.
 */
import {
  type dblock_create,
  DBLOCK_DEVICE_CACHE_SURVIVES,
  DBLOCK_DEVICE_DIRECT,
  DBLOCK_DEVICE_DISCARD,
  DBLOCK_DEVICE_FUA,
  DBLOCK_DEVICE_NO_PART_SCAN,
  DBLOCK_DEVICE_READ_ONLY,
  DBLOCK_DEVICE_ROTATIONAL,
  DBLOCK_DEVICE_TIMEOUT_IS_DEATH,
  DBLOCK_DEVICE_WRITE_CACHE,
  DBLOCK_DEVICE_WRITE_ZEROES,
  DBLOCK_QUEUE_COUNT_MAX,
  DBLOCK_QUEUE_DEPTH_MAX,
  DBLOCK_TIMEOUT_MS_MAX,
  DBLOCK_TIMEOUT_MS_MIN,
} from "./abi.ts";
import { type CreateOptions, devicePath, whyBadName } from "./control.ts";
import type { Limits } from "../disk/backend.ts";
import type { Geometry } from "../disk/dispatch.ts";
import { DblockError } from "../disk/errors.ts";
import { checkedLimits, type DecidedLimits, LIMIT_NAMES, whyBadLimits, whyOutside } from "../disk/limits.ts";
import type { Profile } from "../disk/profile.ts";
import { systemPageBytes } from "../system/pages.ts";
import type { Decoded } from "../system/struct.ts";
import { ON_DEATH, type OnDeath } from "./words.ts";

const DEFAULT_DEPTH = 128;
const DEFAULT_TIMEOUT_MS = 30_000;

/** What a device is like. The limits are the backend's own where nothing is said here: see `Limits`. */
export interface DeviceOptions extends Limits {
  /** The disk becomes /dev/NAME: a letter or digit, then letters, digits, '.', '_', '-', at most 31 in all. */
  readonly name: string;
  /** Refuse everything that would change the disk, also where the backend would do it. @default what the backend says */
  readonly readOnly?: boolean;
  /** 1 to 64, lowered to what the kernel has CPUs for. @default one per CPU up to 4; 1 for a `Backend` object */
  readonly queues?: number;
  /**
   * Requests per queue at once, 1 to 1,024. Unless the disk is memory, a queue has a buffer of `depth` × `maxIoBytes`: 16 GiB
   * of addresses at most, which take memory as far into each slot as its requests have been long.
   * @default 128
   */
  readonly depth?: number;
  /** After this time a request ends with EIO, in ms: 1,000 to 1,200,000; 0 or Infinity: never. @default 30,000 */
  readonly timeoutMs?: number;
  /**
   * What a request that times out is.
   * - `fail`: that request ends with EIO, and others go on. Its buffer stays the backend's until the backend answers.
   * - `die`: the server's death: what `onDeath` says happens, so that under "hold" the next server does it again.
   * @default "fail"
   */
  readonly onTimeout?: "fail" | "die";
  /** Whether the kernel looks for partitions on the disk. @default true */
  readonly partitionScan?: boolean;
  /** What becomes of the device when this process dies. @default "remove" */
  readonly onDeath?: OnDeath;
}

/**
 * Checks what can be checked before the backend is known.
 *
 * @throws {DblockError} EINVAL, with the value that is out of range and the range.
 */
export function checkOptions(options: DeviceOptions): void {
  const wrong = whyBadOptions(options) ?? whyBadLimits(limitsOf(options), { pageBytes: systemPageBytes() });
  if (wrong !== undefined) throw new DblockError("EINVAL", `Cannot create ${devicePath(options.name)}`, wrong);
}

/**
 * What CREATE is asked for.
 *
 * @throws {DblockError} EINVAL, with the value that is out of range and the range.
 */
export function planDevice(profile: Profile, options: DeviceOptions & { readonly queues: number }): CreateOptions {
  checkOptions(options);
  const readOnly = profile.readOnly || options.readOnly === true;
  const limits = checkedLimits(`Cannot create ${devicePath(options.name)}`, { ...profile, readOnly }, {
    ...limitsOf(options),
    pageBytes: systemPageBytes(),
  });
  return {
    name: options.name,
    flags: flagsOf({ ...profile, readOnly }, limits) |
      (options.partitionScan ?? true ? 0 : DBLOCK_DEVICE_NO_PART_SCAN) |
      (options.onTimeout === "die" ? DBLOCK_DEVICE_TIMEOUT_IS_DEATH : 0),
    size_bytes: profile.sizeBytes,
    logical_block_bytes: limits.blockBytes,
    physical_block_bytes: limits.physicalBlockBytes,
    io_opt_bytes: limits.optimalIoBytes,
    max_io_bytes: limits.maxIoBytes,
    queue_count: options.queues,
    queue_depth: options.depth ?? DEFAULT_DEPTH,
    timeout_ms: options.timeoutMs === Infinity ? 0 : options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
    on_death: ON_DEATH[options.onDeath ?? "remove"],
    discard_granularity_bytes: limits.maxDiscardBytes === 0 ? 0 : limits.discardGranularityBytes,
    max_discard_bytes: limits.maxDiscardBytes,
    max_write_zeroes_bytes: limits.maxWriteZeroesBytes,
  };
}

/** The limits among the options, and nothing else. */
function limitsOf(options: DeviceOptions): Limits {
  return Object.fromEntries(LIMIT_NAMES.map((name) => [name, options[name]]));
}

function flagsOf(profile: Profile, limits: DecidedLimits): number {
  return (profile.readOnly ? DBLOCK_DEVICE_READ_ONLY : 0) |
    (profile.writeCache ? DBLOCK_DEVICE_WRITE_CACHE : 0) |
    (profile.writeCache && profile.cacheSurvives ? DBLOCK_DEVICE_CACHE_SURVIVES : 0) |
    (profile.fua ? DBLOCK_DEVICE_FUA : 0) |
    (limits.maxDiscardBytes > 0 ? DBLOCK_DEVICE_DISCARD : 0) |
    (limits.maxWriteZeroesBytes > 0 ? DBLOCK_DEVICE_WRITE_ZEROES : 0) | // by the backend, or by dispatch with writes
    (limits.rotational ? DBLOCK_DEVICE_ROTATIONAL : 0) |
    (profile.direct ? DBLOCK_DEVICE_DIRECT : 0);
}

/** What is wrong with the options that are no limits, in words, or undefined. */
function whyBadOptions(options: DeviceOptions): string | undefined {
  const { name, onDeath = "remove", onTimeout = "fail", timeoutMs } = options;
  const never = timeoutMs === 0 || timeoutMs === Infinity;
  const badName = whyBadName(name);
  if (badName !== undefined) return `"${name}" is not a name: ${badName}`;
  if (!Object.hasOwn(ON_DEATH, onDeath)) return `onDeath is remove, fail or hold, not ${onDeath}`;
  if (onTimeout !== "fail" && onTimeout !== "die") return `onTimeout is fail or die, not ${onTimeout}`;
  if (onTimeout === "die" && never) return 'onTimeout "die" takes a timeoutMs';
  return whyOutside("queues", options.queues, 1, DBLOCK_QUEUE_COUNT_MAX, 1) ??
    whyOutside("depth", options.depth, 1, DBLOCK_QUEUE_DEPTH_MAX, 1) ??
    (never ? undefined : whyOutside("timeoutMs", timeoutMs, DBLOCK_TIMEOUT_MS_MIN, DBLOCK_TIMEOUT_MS_MAX, 1));
}

/** The limits that requests of a device keep: struct dblock_create or struct dblock_info. */
export function geometryOf(
  created: Pick<
    Decoded<typeof dblock_create>,
    | "size_bytes"
    | "logical_block_bytes"
    | "max_io_bytes"
    | "max_discard_bytes"
    | "max_write_zeroes_bytes"
    | "flags"
    | "timeout_ms"
  >,
): Geometry & { sizeBytes: number } {
  return {
    sizeBytes: created.size_bytes,
    blockBytes: created.logical_block_bytes,
    maxIoBytes: created.max_io_bytes,
    maxDiscardBytes: created.max_discard_bytes,
    maxWriteZeroesBytes: created.max_write_zeroes_bytes,
    readOnly: (created.flags & DBLOCK_DEVICE_READ_ONLY) !== 0,
    timeoutMs: created.timeout_ms,
  };
}
