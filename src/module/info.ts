// SPDX-License-Identifier: MIT
/**
 * What there is: the devices of the loaded module and the module itself, in words. Everything here only asks; nothing is
 * changed.
 */
import {
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
  DBLOCK_OPERATION_DISCARD,
  DBLOCK_OPERATION_FLUSH,
  DBLOCK_OPERATION_READ,
  DBLOCK_OPERATION_WRITE,
  DBLOCK_OPERATION_WRITE_ZEROES,
} from "./abi.ts";
import { Control, devicePath, type RawInfo } from "./control.ts";
import { type Kernel, linux } from "../system/libc.ts";
import { type DeviceState, ON_DEATH, type OnDeath, STATE, wordOf } from "./words.ts";

/** Requests of one kind that were answered without an error since the device was created. */
export interface RequestCount {
  /** How many. */
  readonly count: number;
  /** Their lengths together, in bytes; rounded beyond 2^53. 0 for flushes. */
  readonly bytes: number;
}

/** Everything that the module tells about a device, at the moment it was asked. Sizes are in bytes. */
export interface DeviceInfo {
  /** The name of the disk: "scratch". */
  readonly name: string;
  /** "/dev/NAME". */
  readonly path: string;
  /**
   * The number of the device: no other one has it while the module is loaded, whatever has its name. It is for
   * `destroy(name, { id })`.
   */
  readonly id: number;
  /** Where the device is in its life. */
  readonly state: DeviceState;
  /** What becomes of the disk when its server dies. */
  readonly onDeath: OnDeath;
  /** The size of the disk, in bytes. */
  readonly sizeBytes: number;
  /** What every offset and length is a multiple of. */
  readonly blockBytes: number;
  /** What the store writes at once. */
  readonly physicalBlockBytes: number;
  /** The preferred size of a request; 0: none. */
  readonly optimalIoBytes: number;
  /** The largest read and write. */
  readonly maxIoBytes: number;
  /** What can be given back at once; 0: nothing can. */
  readonly discardGranularityBytes: number;
  /** The largest discard; 0: none. */
  readonly maxDiscardBytes: number;
  /** The largest write of zeroes; 0: none. */
  readonly maxWriteZeroesBytes: number;
  /** After this time in the server's hands a request fails, in ms; 0: never. */
  readonly timeoutMs: number;
  /** What the disk was created with. */
  readonly features: {
    readonly readOnly: boolean;
    /** It has something to flush. */
    readonly writeCache: boolean;
    /** Its server is told of FUA. */
    readonly fua: boolean;
    readonly discard: boolean;
    readonly writeZeroes: boolean;
    /** Seeks are slow. */
    readonly rotational: boolean;
    /** The disk is memory or a file of its server's: the kernel reads and writes it by itself, and delivers nothing. */
    readonly direct: boolean;
    /** The kernel looks for partitions. */
    readonly partitionScan: boolean;
    /** A request that times out ends its server, and not only the request. */
    readonly timeoutIsDeath: boolean;
    /** What was answered survives the server's death, although it was not flushed. */
    readonly cacheSurvives: boolean;
  };
  /** How many have the disk open, mounts included. */
  readonly openCount: number;
  /** The process that serves it; undefined while nobody does. */
  readonly server: { readonly pid: number } | undefined;
  /** Its queues, which are served each by a thread or an event loop. */
  readonly queues: {
    readonly count: number;
    /** Requests of each at once. */
    readonly depth: number;
    /** How many of them have a server. */
    readonly servedCount: number;
  };
  /** The device number of the disk, as `stat`(2) tells it; undefined before it is there. */
  readonly diskNumber: { readonly major: number; readonly minor: number } | undefined;
  /** The minor number of "/dev/NAME-ctl", the node of its server. */
  readonly controlMinor: number;
  /** What was answered, by kind. */
  readonly requests: {
    readonly read: RequestCount;
    readonly write: RequestCount;
    readonly flush: RequestCount;
    readonly discard: RequestCount;
    readonly writeZeroes: RequestCount;
  };
  /** What is going on: how many requests. */
  readonly inFlight: {
    /** No server has seen them yet. */
    readonly waiting: number;
    /** A server is at them. */
    readonly handedOut: number;
    /** The server has said where in its file they are, and the kernel reads, writes or flushes it. */
    readonly passed: number;
    /** They have timed out, and their answer is still due. */
    readonly quarantined: number;
  };
  /** What happened since the device was created: how many. */
  readonly counts: {
    /** Servers that died. With a module from before it counted `leaves`, those that left as well. */
    readonly deaths: number;
    /** Servers that ended on purpose and left the disk to the next one. */
    readonly leaves: number;
    /** Requests that ended with an error. */
    readonly errors: number;
    /** Requests that the timeout ended. */
    readonly timeouts: number;
    /** Answers that came for a request which had ended. */
    readonly stale: number;
    /** Answers that were refused for any reason, the stale ones included. */
    readonly refused: number;
    /** Requests that were handed out again, after a death. */
    readonly replayed: number;
    /** Requests that were handed out, the replayed ones included. */
    readonly handedOut: number;
    /** Calls that handed out at least one request. */
    readonly batches: number;
  };
}

/** What the loaded module is. */
export interface ModuleVersion {
  /** The version of the ABI that it speaks: this package's, or nothing else here would work. */
  readonly abi: number;
  /** The most queues a device can have on this machine: as many as it can have processors, 64 at most. */
  readonly queueCountMax: number;
  /** How many devices there can be: its parameter `max_devices`. */
  readonly deviceCountMax: number;
}

/**
 * All devices of the module, whoever serves them, in no particular order.
 *
 * ```ts no-run
 * import { list } from "../mod.ts";
 *
 * for (const { path, state, server } of await list()) console.log(path, state, server?.pid ?? "no server");
 * ```
 *
 * @throws {DblockError} ENOENT (the module is not loaded), EACCES and EPERM (not root), EPROTO (the module is another
 * version's).
 */
export async function list(): Promise<DeviceInfo[]> {
  return await listOn(linux);
}

/**
 * Everything about /dev/NAME.
 *
 * ```ts no-run
 * import { info } from "../mod.ts";
 *
 * const { sizeBytes, requests } = await info("scratch");
 * console.log(`${sizeBytes} bytes; ${requests.read.count} reads, ${requests.write.count} writes so far`);
 * ```
 *
 * @param name of the disk: "scratch"
 * @throws {DblockError} ENOENT (there is no such device, or the module is not loaded), EACCES and EPERM (not root), EPROTO
 * (the module is another version's).
 */
export async function info(name: string): Promise<DeviceInfo> {
  return await infoOn(linux, name);
}

/**
 * What the loaded module is, asked without any right but that to open its node.
 *
 * ```ts no-run
 * import { moduleVersion } from "../mod.ts";
 *
 * const { abi, queueCountMax } = await moduleVersion();
 * console.log(`ABI ${abi}, up to ${queueCountMax} queues`);
 * ```
 *
 * @throws {DblockError} ENOENT (the module is not loaded), EACCES (not root), EPROTO (the module is another version's).
 */
export async function moduleVersion(): Promise<ModuleVersion> {
  return await moduleVersionOn(linux);
}

/** {@linkcode list} on a given kernel. */
export async function listOn(kernel: Kernel): Promise<DeviceInfo[]> {
  using control = await Control.open("Cannot list the devices", kernel);
  return (await control.list()).map(inWords);
}

/** {@linkcode info} on a given kernel; with an id, of that device and no other. */
export async function infoOn(kernel: Kernel, name: string, id = 0): Promise<DeviceInfo> {
  using control = await Control.open(`Cannot ask about ${devicePath(name)}`, kernel);
  return inWords(await control.info(name, id));
}

/** {@linkcode moduleVersion} on a given kernel. */
export async function moduleVersionOn(kernel: Kernel): Promise<ModuleVersion> {
  using control = await Control.open("Cannot ask the module for its version", kernel);
  const { abi_version, queue_count_max, device_count_max } = await control.version();
  return { abi: abi_version, queueCountMax: queue_count_max, deviceCountMax: device_count_max };
}

/** The module's structure in words. */
export function inWords(raw: RawInfo): DeviceInfo {
  const has = (flag: number): boolean => (raw.flags & flag) !== 0;
  const requests = (operation: number): RequestCount => ({
    count: raw.requests[operation] ?? 0,
    bytes: raw.bytes[operation] ?? 0,
  });
  return {
    name: raw.name,
    path: devicePath(raw.name),
    id: raw.id,
    state: wordOf(STATE, raw.state),
    onDeath: wordOf(ON_DEATH, raw.on_death),
    sizeBytes: raw.size_bytes,
    blockBytes: raw.logical_block_bytes,
    physicalBlockBytes: raw.physical_block_bytes,
    optimalIoBytes: raw.io_opt_bytes,
    maxIoBytes: raw.max_io_bytes,
    discardGranularityBytes: raw.discard_granularity_bytes,
    maxDiscardBytes: raw.max_discard_bytes,
    maxWriteZeroesBytes: raw.max_write_zeroes_bytes,
    timeoutMs: raw.timeout_ms,
    features: {
      readOnly: has(DBLOCK_DEVICE_READ_ONLY),
      writeCache: has(DBLOCK_DEVICE_WRITE_CACHE),
      fua: has(DBLOCK_DEVICE_FUA),
      discard: has(DBLOCK_DEVICE_DISCARD),
      writeZeroes: has(DBLOCK_DEVICE_WRITE_ZEROES),
      rotational: has(DBLOCK_DEVICE_ROTATIONAL),
      direct: has(DBLOCK_DEVICE_DIRECT),
      partitionScan: !has(DBLOCK_DEVICE_NO_PART_SCAN),
      timeoutIsDeath: has(DBLOCK_DEVICE_TIMEOUT_IS_DEATH),
      cacheSurvives: has(DBLOCK_DEVICE_CACHE_SURVIVES),
    },
    openCount: raw.open_count,
    server: raw.server_pid === 0 ? undefined : { pid: raw.server_pid },
    queues: { count: raw.queue_count, depth: raw.queue_depth, servedCount: raw.attached_count },
    diskNumber: raw.disk_major === 0 ? undefined : { major: raw.disk_major, minor: raw.disk_minor },
    controlMinor: raw.minor,
    requests: {
      read: requests(DBLOCK_OPERATION_READ),
      write: requests(DBLOCK_OPERATION_WRITE),
      flush: requests(DBLOCK_OPERATION_FLUSH),
      discard: requests(DBLOCK_OPERATION_DISCARD),
      writeZeroes: requests(DBLOCK_OPERATION_WRITE_ZEROES),
    },
    inFlight: {
      waiting: raw.waiting_count,
      handedOut: raw.handed_count,
      passed: raw.passed_count,
      quarantined: raw.quarantined_count,
    },
    counts: {
      deaths: raw.death_count,
      leaves: raw.leave_count,
      errors: raw.error_count,
      timeouts: raw.timeout_count,
      stale: raw.stale_count,
      refused: raw.refused_count,
      replayed: raw.replayed_count,
      handedOut: raw.handed_total,
      batches: raw.batch_count,
    },
  };
}
