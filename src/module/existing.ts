// SPDX-License-Identifier: MIT
/**
 * What is at a device's name already: a device on its way out is waited for, one whose server died can be served again,
 * one with a server can be taken over. Decides and checks; attaches nothing.
 */
import {
  type dblock_create,
  DBLOCK_DEVICE_CACHE_SURVIVES,
  DBLOCK_DEVICE_DIRECT,
  DBLOCK_DEVICE_DISCARD,
  DBLOCK_DEVICE_FUA,
  DBLOCK_DEVICE_READ_ONLY,
  DBLOCK_DEVICE_WRITE_CACHE,
  DBLOCK_STATE_FAILED,
  DBLOCK_STATE_HELD,
  DBLOCK_STATE_LIVE,
  DBLOCK_STATE_REMOVING,
} from "./abi.ts";
import { type Control, type CreateOptions, devicePath, type RawInfo } from "./control.ts";
import { pause } from "./deadline.ts";
import { DblockError } from "../disk/errors.ts";
import type { Decoded } from "../system/struct.ts";

/** How long a name may take to come free, or a killed server to be gone. */
const SETTLE_MS = 2_000;
const PAUSE_MS = 20;
const PF_EXITING = 0x4;
const SIGKILL_BIT = 1n << 8n;

/**
 * What to do when there is a device of this name:
 * `refuse`: it is an error.
 * `recover`: serve it if its server died (`onDeath` "hold" or "fail"); an error otherwise.
 * `take-over`: that, or take it from the server that it has, without an error to those who use it. Not a disk that has a
 * `flush` and no `cacheSurvives`: its server would flush old data over new.
 */
export type ExistingPolicy = "refuse" | "recover" | "take-over";

/** Every policy. */
export const EXISTING_POLICIES: readonly ExistingPolicy[] = ["refuse", "recover", "take-over"];

/** How a device came to be served. */
export type DeviceOrigin = "created" | "recovered" | "taken-over";

/**
 * What is there once it is not changing by itself: undefined if the name is free. A device that is being removed, and one
 * whose server has been killed and is not gone yet, are waited for: 2 s, or until the signal is aborted.
 *
 * @throws the signal's reason.
 */
export async function settle(control: Control, name: string, signal?: AbortSignal): Promise<RawInfo | undefined> {
  const givenUpMs = performance.now() + SETTLE_MS;
  for (;;) {
    const info = await infoIfThere(control, name);
    if (info === undefined || !isChanging(info) || performance.now() >= givenUpMs) return info;
    await pause(PAUSE_MS, signal);
  }
}

/** Undefined if the name is free. */
export async function infoIfThere(control: Control, name: string): Promise<RawInfo | undefined> {
  try {
    return await control.info(name);
  } catch (error) {
    if (error instanceof DblockError && error.code === "ENOENT") return undefined;
    throw error;
  }
}

function isChanging(info: RawInfo): boolean {
  if (info.state >= DBLOCK_STATE_REMOVING) return true;
  if (hasLostItsServer(info)) return info.attached_count > 0;
  return info.server_pid !== 0 && isDying(info.server_pid);
}

/** Its server died, and it waits for another one. */
export function hasLostItsServer({ state }: Pick<RawInfo, "state">): boolean {
  return state === DBLOCK_STATE_HELD || state === DBLOCK_STATE_FAILED;
}

/** Whether a process has been killed, or is gone: its files may still be open for a moment. */
export function isDying(pid: number): boolean {
  try {
    const status = Deno.readTextFileSync(`/proc/${pid}/status`);
    if (/^State:\s+[ZX]/m.test(status)) return true;
    const pending = /^SigPnd:\s+([0-9a-f]+)$/m.exec(status)?.[1] ?? "0";
    if ((BigInt(`0x${pending}`) & SIGKILL_BIT) !== 0n) return true;
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    const flags = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[6];
    return (Number(flags) & PF_EXITING) !== 0;
  } catch {
    return true;
  }
}

/**
 * The device that is to be served on, or undefined if there is none to create a new one beside.
 *
 * @throws {DblockError} EEXIST if there is one that may not be served on; EOPNOTSUPP if there is one that cannot be taken
 * over, as its cache is its server's.
 */
export async function findExisting(
  control: Control,
  name: string,
  existing: ExistingPolicy,
  signal?: AbortSignal,
): Promise<{ readonly info: RawInfo; readonly origin: DeviceOrigin } | undefined> {
  if (existing === "refuse") return undefined; // CREATE will say it
  const info = await settle(control, name, signal);
  if (info === undefined) return undefined;
  if (hasLostItsServer(info)) return { info, origin: "recovered" };
  if (info.state === DBLOCK_STATE_LIVE && existing === "take-over") {
    if (isVolatile(info)) throw cacheIsElsewhere(name);
    return { info, origin: "taken-over" };
  }
  throw inUse(info);
}

/** What its server answered and did not flush is that server's alone. */
function isVolatile({ flags }: Pick<RawInfo, "flags">): boolean {
  return (flags & (DBLOCK_DEVICE_WRITE_CACHE | DBLOCK_DEVICE_CACHE_SURVIVES)) === DBLOCK_DEVICE_WRITE_CACHE;
}

function cacheIsElsewhere(name: string): DblockError {
  const wrong = "what its server keeps in a cache would be lost, or written over what is newer";
  const hint = "end that server, which flushes, and recover the disk: with onDeath hold its users wait for that";
  return new DblockError("EOPNOTSUPP", `Cannot take over ${devicePath(name)}`, wrong, { hint });
}

/**
 * CREATE; a device of the same name that is on its way out is waited for.
 *
 * @throws {DblockError} what `Control.create()` throws, or the signal's reason.
 */
export async function createWhenFree(
  control: Control,
  request: CreateOptions,
  signal?: AbortSignal,
): Promise<Decoded<typeof dblock_create>> {
  for (let isLast = false;;) {
    try {
      return await control.create(request);
    } catch (error) {
      if (isLast || !(error instanceof DblockError) || error.code !== "EEXIST") throw error;
      const info = await settle(control, request.name, signal);
      if (info !== undefined) throw inUse(info);
      isLast = true; // the name has come free, or somebody else's node has it
    }
  }
}

function inUse(info: RawInfo): DblockError {
  const attempted = `Cannot create ${devicePath(info.name)}`;
  const hint = hasLostItsServer(info)
    ? "its server died: recover it, or destroy it first"
    : "take another name, take it over, or destroy that device first";
  return new DblockError("EEXIST", attempted, "the name is in use", { hint });
}

/** What a device was created with and a later server cannot change, in the words of `Backend` and `DeviceOptions`. */
const FIXED: readonly [flag: number, is: string, isNot: string][] = [
  [DBLOCK_DEVICE_DIRECT, "memory or a file that the kernel reads and writes itself", "answers of a program"],
  [DBLOCK_DEVICE_READ_ONLY, "read-only", "writable"],
  [DBLOCK_DEVICE_WRITE_CACHE, "a disk that is flushed", "a disk without flush"],
  [DBLOCK_DEVICE_FUA, "a disk with FUA", "a disk without FUA"],
  [DBLOCK_DEVICE_CACHE_SURVIVES, "a disk whose cache survives its server", "a disk whose cache its server takes along"],
  [DBLOCK_DEVICE_DISCARD, "a disk that discards", "a disk that does not discard"],
];

/**
 * Checks that a backend can go on with a device that another server created. Queues, depth, block sizes and everything
 * else stay as they are.
 *
 * @param request what the backend would be created with
 * @param options.grow the backend may be larger than the device
 * @throws {DblockError} EINVAL with the first thing that does not fit.
 */
export function checkFits(info: RawInfo, request: CreateOptions, options: { readonly grow: boolean }): void {
  const attempted = `Cannot serve ${devicePath(info.name)}, which is there already`;
  const sizeBytes = request.size_bytes ?? 0;
  if (sizeBytes < info.size_bytes || sizeBytes > info.size_bytes && !options.grow) {
    throw new DblockError("EINVAL", attempted, `it has ${info.size_bytes} bytes, not ${request.size_bytes}`);
  }
  if (sizeBytes % info.logical_block_bytes !== 0) {
    const wrong = `its size is a multiple of ${info.logical_block_bytes}, and cannot become ${sizeBytes}`;
    throw new DblockError("EINVAL", attempted, wrong);
  }
  if (info.max_write_zeroes_bytes > (request.max_write_zeroes_bytes ?? 0)) {
    const wrong = "it is a disk that zeroes by itself, not one whose zeroes are written for it";
    throw new DblockError("EINVAL", attempted, wrong);
  }
  for (const [flag, is, isNot] of FIXED) {
    const has = (info.flags & flag) !== 0;
    if (has === (((request.flags ?? 0) & flag) !== 0)) continue;
    throw new DblockError("EINVAL", attempted, has ? `it is ${is}, not ${isNot}` : `it is ${isNot}, not ${is}`);
  }
}
