// SPDX-License-Identifier: MIT
/**
 * A disk of `dblock serve` that is open, and not served yet: its content, its filters, a part for each way out. All that can
 * be wrong with a disk and with the devices of its names is found here, before anything happens to those.
 */
import { START_TIMEOUT_MS } from "./cli.ts";
import type { Backend } from "../disk/backend.ts";
import { DblockError, withHint } from "../disk/errors.ts";
import { type Meter, putMeter } from "../disk/meter.ts";
import { readOnly } from "../filters/read_only.ts";
import { Control, devicePath } from "../module/control.ts";
import { callAfter } from "../module/deadline.ts";
import { hasLostItsServer, settle } from "../module/existing.ts";
import { checkExisting, type ServeOptions } from "../module/serve.ts";
import type { WorkerPool } from "../module/worker_pool.ts";
import { formatNbdAddress } from "../nbd/address.ts";
import { type Kernel, linux } from "../system/libc.ts";
import { exists } from "../system/path.ts";
import { type DiskPlan, type Exit, nameOfPlan } from "./disk_plan.ts";
import type { LiveOptions } from "./live_module.ts";
import { complain, logOptionsOf, say } from "./log.ts";
import type { OpenOptions } from "./disk_source.ts";
import { newMeter } from "./figures.ts";
import { shareBackend } from "./shared_backend.ts";

/** New code of a module has so much time to take over. A guess: those who use the disk begin to wonder. */
const PAUSE_MAX_MS = 10_000;
/** A disk that takes longer to open is named. A guess: before that nobody wonders. */
const SLOW_MS = 5_000;

/** A way out of the kind "device", whose name has been decided. */
export interface DeviceExit {
  readonly kind: "device";
  readonly name: string;
}

/** How to start disks. */
export interface StartOptions {
  /** Ends the start when aborted; a disk that is there goes on. */
  readonly signal: AbortSignal;
  /** For disks that say nothing about it. @default what suits the machine */
  readonly queues?: number | undefined;
  /** Who serves disks in memory that say nothing about queues. @default Workers of their own */
  readonly workers?: WorkerPool | undefined;
  /** @default this machine's */
  readonly kernel?: Kernel;
}

/** A disk as one of its ways out has it. */
export interface Part {
  readonly exit: DeviceExit | Exclude<Exit, { kind: "device" }>;
  readonly backend: Backend;
  /** Counts its requests. */
  readonly meter: Meter;
}

/** A disk that is open. */
export interface OpenedDisk {
  readonly plan: DiskPlan;
  /** The content with its filters. */
  readonly backend: Backend;
  /** In the order of the plan's exits. */
  readonly parts: readonly Part[];
}

/**
 * Opens a disk. A device of its names that is there already is not touched, but it is known then that it can be served on.
 *
 * @throws {DblockError} with what to type.
 */
export async function openDisk(plan: DiskPlan, options: StartOptions): Promise<OpenedDisk> {
  const { kernel = linux, signal } = options;
  const shared = await isServed(plan, kernel);
  const content = openContent(plan, { readOnly: plan.readOnly, shared });
  const backend = await unlessAborted(content, plan.source.text, signal, nameOfPlan(plan));
  const shares = shareBackend(backend, plan.exits.length);
  const parts = plan.exits.map((exit, i) => partOf(exit, shares[i]!, plan));
  const opened = { plan, backend, parts };
  try {
    for (const { exit, backend: part } of parts) {
      if (exit.kind === "device") {
        await checkExisting(kernel, part, { ...serveOptions(plan, exit.name, options), signal });
      }
    }
  } catch (error) {
    await closeUnused(opened);
    throw explain(error);
  }
  return opened;
}

/** Closes a disk that is not going to be served. */
export async function closeUnused({ parts }: OpenedDisk): Promise<void> {
  for (const { backend } of parts) await backend.close?.("unused");
}

function partOf(exit: Exit, share: Backend, plan: DiskPlan): Part {
  const meter = newMeter();
  const isDevice = exit.kind === "device";
  const backend = isDevice || !plan.readOnly || share.readOnly ? share : readOnly(share);
  putMeter(backend, meter);
  return { exit: isDevice ? named(exit) : exit, backend, meter };
}

function named(exit: Exit & { readonly kind: "device" }): DeviceExit {
  if (exit.name === undefined) throw new RangeError("unreachable: a device without a name");
  return { kind: "device", name: exit.name };
}

/** The content with its filters. */
export async function openContent(plan: DiskPlan, options: OpenOptions): Promise<Backend> {
  const { source, filters } = plan;
  const name = nameOfPlan(plan);
  const { log } = logOptionsOf(name);
  // Filters say which disk it is; one without a name is the one at its address.
  const address = plan.exits.find((exit) => exit.kind === "nbd")?.address;
  const label = name ?? (address === undefined ? undefined : formatNbdAddress(address));
  let disk = await source.open({ log, ...options, live: plan.watch ? liveOptions(plan) : undefined });
  try {
    for (const filter of filters) disk = await filter.wrap(disk, { log, disk: label });
    return disk;
  } catch (error) {
    await disk.close?.("unused");
    throw error;
  }
}

/**
 * A disk that is being opened. A module of the user's or another machine may never answer: then somebody is told what is
 * waited for, and can end the wait.
 *
 * @throws what opening throws; the signal's reason as soon as it is aborted.
 */
export async function unlessAborted(
  opened: Promise<Backend>,
  text: string,
  signal: AbortSignal,
  name?: string,
): Promise<Backend> {
  const over = Promise.withResolvers<never>();
  const abort = () => over.reject(signal.reason);
  signal.addEventListener("abort", abort);
  if (signal.aborted) abort();
  const slow = `${text} is not open yet, and is waited for (Ctrl-C ends this)`;
  using _timer = callAfter(SLOW_MS, () => complain(slow, name));
  try {
    return await Promise.race([opened, over.promise]);
  } catch (error) {
    opened.then((disk) => disk.close?.("unused")).catch(() => {}); // it comes too late, or has failed
    throw error;
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

/** A request that waits for new code is answered well before its timeout. */
function liveOptions(plan: DiskPlan): LiveOptions {
  const { timeoutMs } = plan;
  const name = nameOfPlan(plan);
  return {
    pauseMaxMs: timeoutMs === 0 ? PAUSE_MAX_MS : Math.min(PAUSE_MAX_MS, timeoutMs / 2),
    say: (line) => say(line, name),
    complain: (line) => complain(line, name),
  };
}

/** What `serve()` is told of a device. */
export function serveOptions(plan: DiskPlan, name: string, options: StartOptions): ServeOptions {
  const { source, timeoutMs, onDeath, takeOver, depth } = plan;
  const queues = plan.queues ?? options.queues;
  return {
    name,
    timeoutMs,
    onDeath,
    readOnly: plan.readOnly,
    existing: !source.survives ? "refuse" : takeOver ? "take-over" : "recover",
    startTimeoutMs: START_TIMEOUT_MS,
    ...logOptionsOf(name),
    ...(queues === undefined ? {} : { queues }),
    ...(depth === undefined ? {} : { depth }),
  };
}

/**
 * Whether another server has the disk and is about to lose it. Asked before a file is touched, so that a name in use is what
 * is said, and not that the file is.
 */
async function isServed(plan: DiskPlan, kernel: Kernel): Promise<boolean> {
  let served = false;
  for (const exit of plan.exits) {
    if (exit.kind !== "device") continue;
    const { name } = named(exit);
    const attempted = `Cannot create ${devicePath(name)}`;
    using control = await Control.open(attempted, kernel);
    const info = await settle(control, name);
    if (info === undefined) continue;
    const lost = hasLostItsServer(info);
    if (!lost && plan.takeOver) served = true;
    else if (!lost || !plan.source.survives) {
      throw new DblockError("EEXIST", attempted, "the name is in use", { hint: whatToDo(plan, name, lost) });
    } else if (lost) checkContent(plan, name, attempted);
  }
  return served;
}

/** Who waits for a disk is to find what was in it, and not a file that is made for the next server. */
function checkContent({ source }: DiskPlan, name: string, attempted: string): void {
  const { files = [] } = source;
  const absent = files.find((path) => !exists(path));
  if (absent === undefined || source.mirror !== undefined && files.some(exists)) return;
  const wrong = `there is nothing in ${absent}, and the disk has had content`;
  throw new DblockError("ENOENT", attempted, wrong, { hint: `what it had: dblock recover ${name}` });
}

function whatToDo({ source }: DiskPlan, name: string, lost: boolean): string {
  const rest = `end that one with dblock destroy ${name}, or take another name: --name NAME`;
  if (lost) return `its server died: dblock recover ${name}, ${rest}`;
  return source.survives ? `take it over with --take-over, ${rest}` : rest;
}

/** What to type when a name is in use by something else than a device of ours. */
export function explain(error: unknown): unknown {
  if (!(error instanceof DblockError) || error.code !== "EEXIST") return error;
  return withHint(error, "take another name: --name NAME; lsblk shows those in use");
}
