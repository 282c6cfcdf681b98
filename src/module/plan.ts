// SPDX-License-Identifier: MIT
/**
 * What a device is created with: options and a backend's profile become struct dblock_create, with an error that names
 * the value when one is out of range. The kernel checks again, but can only say EINVAL.
 */
import {
  DBLOCK_BLOCK_BYTES_MAX,
  DBLOCK_BLOCK_BYTES_MIN,
  dblock_create,
  DBLOCK_DEVICE_DIRECT,
  DBLOCK_DEVICE_DISCARD,
  DBLOCK_DEVICE_FUA,
  DBLOCK_DEVICE_READ_ONLY,
  DBLOCK_DEVICE_ROTATIONAL,
  DBLOCK_DEVICE_WRITE_CACHE,
  DBLOCK_DEVICE_WRITE_ZEROES,
  DBLOCK_IO_BYTES_MAX,
  DBLOCK_IO_BYTES_MIN,
  DBLOCK_ON_DEATH_FAIL,
  DBLOCK_ON_DEATH_HOLD,
  DBLOCK_ON_DEATH_REMOVE,
  DBLOCK_QUEUE_COUNT_MAX,
  DBLOCK_QUEUE_DEPTH_MAX,
  DBLOCK_RANGE_BYTES_MAX,
  DBLOCK_SIZE_BYTES_MAX,
  DBLOCK_TIMEOUT_MS_MAX,
  DBLOCK_TIMEOUT_MS_MIN,
} from "./abi.ts";
import type { Profile } from "../disk/backend.ts";
import { type CreateOptions, devicePath, whyBadName } from "./control.ts";
import type { Geometry } from "../disk/dispatch.ts";
import { DblockError } from "../disk/errors.ts";
import { PAGE_BYTES, systemPageBytes } from "../system/libc.ts";
import type { Decoded } from "../system/struct.ts";

const KIB = 2 ** 10;
const MIB = 2 ** 20;
const DEFAULT_DEPTH = 128;
const DEFAULT_TIMEOUT_MS = 30_000;
/** As the kernel's own queues are: larger requests than this gain little and wait longer for each other. */
const DEFAULT_IO_BYTES = 512 * KIB;
/** Without a copy in the server, a large request costs it no more than a small one. */
const DEFAULT_DIRECT_IO_BYTES = MIB;
/** A backend that cannot zero gets writes instead: few enough of them to end before any timeout. */
const EMULATED_ZEROES_BYTES = 4 * MIB;
const PHYSICAL_BLOCK_BYTES_MAX = MIB;

const ON_DEATH = {
  remove: DBLOCK_ON_DEATH_REMOVE,
  fail: DBLOCK_ON_DEATH_FAIL,
  hold: DBLOCK_ON_DEATH_HOLD,
} as const;

/** What a device is like. */
export interface DeviceOptions {
  /** The disk becomes /dev/NAME: a letter or digit, then letters, digits, '.', '_', '-', at most 31 in all. */
  readonly name: string;
  /** 1 to 64, lowered to what the kernel has CPUs for. @default one per CPU up to 4; 1 for a `Backend` object */
  readonly queues?: number;
  /**
   * Requests per queue at once, 1 to 1,024. Unless the disk is memory, a queue has a buffer of `depth` × `maxIoBytes`: 16 GiB
   * of addresses at most, which take memory as far into each slot as its requests have been long.
   * @default 128
   */
  readonly depth?: number;
  /** 512, 1024, 2048 or 4096. @default 512 */
  readonly logicalBlockBytes?: number;
  /** A power of two, `logicalBlockBytes` to 1 MiB. @default 4096 */
  readonly physicalBlockBytes?: number;
  /** Preferred size of an I/O, a multiple of `physicalBlockBytes` up to 16 MiB; 0: none. @default 0 */
  readonly ioOptBytes?: number;
  /** Largest READ and WRITE: one page to 16 MiB, a multiple of 4096. @default 1 MiB for a `MappedBackend`, else 512 KiB */
  readonly maxIoBytes?: number;
  /** After this time a request ends with EIO: 0 (never) or 1,000 to 1,200,000. @default 30,000 */
  readonly timeoutMs?: number;
  /** What becomes of the device when this process dies. @default "remove" */
  readonly onDeath?: "remove" | "fail" | "hold";
  /** Tell the block layer that seeks are slow. @default false */
  readonly rotational?: boolean;
}

/**
 * What CREATE is asked for.
 *
 * @throws {DblockError} EINVAL, with the value that is out of range and the range.
 */
export function planDevice(profile: Profile, options: DeviceOptions & { readonly queues: number }): CreateOptions {
  const logicalBlockBytes = options.logicalBlockBytes ?? DBLOCK_BLOCK_BYTES_MIN;
  const maxIoBytes = options.maxIoBytes ?? (profile.direct ? DEFAULT_DIRECT_IO_BYTES : DEFAULT_IO_BYTES);
  const request = {
    name: options.name,
    flags: flagsOf(profile, options),
    size_bytes: profile.sizeBytes,
    logical_block_bytes: logicalBlockBytes,
    physical_block_bytes: options.physicalBlockBytes ?? Math.max(PAGE_BYTES, logicalBlockBytes),
    io_opt_bytes: options.ioOptBytes ?? 0,
    max_io_bytes: maxIoBytes,
    queue_count: options.queues,
    queue_depth: options.depth ?? DEFAULT_DEPTH,
    timeout_ms: options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
    on_death: ON_DEATH[options.onDeath ?? "remove"],
    discard_granularity_bytes: profile.discard ? Math.max(PAGE_BYTES, logicalBlockBytes) : 0,
    max_discard_bytes: profile.discard ? DBLOCK_RANGE_BYTES_MAX : 0,
    max_write_zeroes_bytes: profile.writeZeroes ? DBLOCK_RANGE_BYTES_MAX : EMULATED_ZEROES_BYTES,
  };
  const wrong = whyBadRequest(request);
  if (wrong !== undefined) throw new DblockError("EINVAL", `Cannot create ${devicePath(options.name)}`, wrong);
  return request;
}

function flagsOf(profile: Profile, options: DeviceOptions): number {
  return (profile.readOnly ? DBLOCK_DEVICE_READ_ONLY : 0) |
    (profile.writeCache ? DBLOCK_DEVICE_WRITE_CACHE : 0) |
    (profile.fua ? DBLOCK_DEVICE_FUA : 0) |
    (profile.discard ? DBLOCK_DEVICE_DISCARD : 0) |
    DBLOCK_DEVICE_WRITE_ZEROES | // by the backend, or by dispatch with writes
    (options.rotational ? DBLOCK_DEVICE_ROTATIONAL : 0) |
    (profile.direct ? DBLOCK_DEVICE_DIRECT : 0);
}

/** What is out of range in a CREATE, in words, or undefined. */
function whyBadRequest(request: Required<Omit<CreateOptions, "error" | "minor" | "reserved">>): string | undefined {
  const badName = whyBadName(request.name);
  if (badName !== undefined) return `"${request.name}" is not a name: ${badName}`;
  const logical = request.logical_block_bytes;
  const physical = request.physical_block_bytes;
  const sizeMax = Math.min(DBLOCK_SIZE_BYTES_MAX, Number.MAX_SAFE_INTEGER);
  const ioBytesMin = Math.max(DBLOCK_IO_BYTES_MIN, systemPageBytes());
  return whyNotPower("logicalBlockBytes", logical, DBLOCK_BLOCK_BYTES_MIN, DBLOCK_BLOCK_BYTES_MAX) ??
    whyNotPower("physicalBlockBytes", physical, logical, PHYSICAL_BLOCK_BYTES_MAX) ??
    whyOutside("sizeBytes", request.size_bytes, logical, sizeMax, logical) ??
    whyOutside("ioOptBytes", request.io_opt_bytes, 0, DBLOCK_IO_BYTES_MAX, physical) ??
    whyOutside("maxIoBytes", request.max_io_bytes, ioBytesMin, DBLOCK_IO_BYTES_MAX, PAGE_BYTES) ??
    whyOutside("queues", request.queue_count, 1, DBLOCK_QUEUE_COUNT_MAX, 1) ??
    whyOutside("depth", request.queue_depth, 1, DBLOCK_QUEUE_DEPTH_MAX, 1) ??
    (request.timeout_ms === 0
      ? undefined
      : whyOutside("timeoutMs", request.timeout_ms, DBLOCK_TIMEOUT_MS_MIN, DBLOCK_TIMEOUT_MS_MAX, 1));
}

function whyOutside(what: string, value: number, min: number, max: number, multipleOf: number): string | undefined {
  if (Number.isSafeInteger(value) && value >= min && value <= max && value % multipleOf === 0) return undefined;
  const step = multipleOf === 1 ? "" : `, a multiple of ${multipleOf}`;
  return `${what} is ${min} to ${max}${step}, not ${value}`;
}

function whyNotPower(what: string, value: number, min: number, max: number): string | undefined {
  if (Number.isInteger(Math.log2(value)) && value >= min && value <= max) return undefined;
  return `${what} is a power of two from ${min} to ${max}, not ${value}`;
}

/** The limits that requests of a device keep: struct dblock_create or struct dblock_info. */
export function geometryOf(
  created: Pick<
    Decoded<typeof dblock_create>,
    "size_bytes" | "logical_block_bytes" | "max_io_bytes" | "max_discard_bytes" | "max_write_zeroes_bytes" | "flags"
  >,
): Geometry & { sizeBytes: number } {
  return {
    sizeBytes: created.size_bytes,
    logicalBlockBytes: created.logical_block_bytes,
    maxIoBytes: created.max_io_bytes,
    maxDiscardBytes: created.max_discard_bytes,
    maxWriteZeroesBytes: created.max_write_zeroes_bytes,
    readOnly: (created.flags & DBLOCK_DEVICE_READ_ONLY) !== 0,
  };
}
