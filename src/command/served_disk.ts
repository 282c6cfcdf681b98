// SPDX-License-Identifier: MIT
/**
 * A disk that `dblock serve` serves: opened from its SPEC, brought to /dev and to NBD, replaced by itself where it grows.
 * What a process with several of them does is in serve.ts.
 */
import { START_TIMEOUT_MS } from "./cli.ts";
import type { Backend } from "../disk/backend.ts";
import { DblockError, quietly, withHint } from "../disk/errors.ts";
import { type Meter, putMeter } from "../disk/meter.ts";
import { isMapped } from "../disk/servable.ts";
import { readOnly } from "../filters/read_only.ts";
import { Control, devicePath } from "../module/control.ts";
import type { Device, Ending } from "../module/device.ts";
import { hasLostItsServer, settle } from "../module/existing.ts";
import { serveOn, type ServeOptions } from "../module/serve.ts";
import type { SharedWorkers } from "../module/shared_workers.ts";
import { type Kernel, linux } from "../system/libc.ts";
import type { DiskPlan, Exit } from "./disk_plan.ts";
import type { LiveOptions } from "./live_module.ts";
import { complain, logOptionsOf } from "./log.ts";
import type { OpenOptions } from "./disk_source.ts";
import { newMeter } from "./figures.ts";
import { shareBackend } from "./shared_backend.ts";
import { isKept } from "./signals.ts";

/** New code of a module has so much time to take over. A guess: those who use the disk begin to wonder. */
const PAUSE_MAX_MS = 10_000;
/** A disk that takes longer to open is named. A guess: before that nobody wonders. */
const SLOW_MS = 5_000;

/** A way out of the kind "device", whose name has been decided. */
interface DeviceExit {
  readonly kind: "device";
  readonly name: string;
}

/** A disk that is to be an export: whoever serves it closes it. */
export interface NbdPart {
  readonly exit: Exit & { readonly kind: "nbd" };
  readonly backend: Backend;
  /** Counts its requests. */
  readonly meter: Meter;
}

/** A disk that the kernel's NBD client is to have: whoever gives it closes it. */
export interface KernelNbdPart {
  readonly name: string;
  readonly backend: Backend;
  /** Counts its requests. */
  readonly meter: Meter;
}

/** How to start disks. */
export interface StartOptions {
  /** Ends the start when aborted; a disk that is there goes on. */
  readonly signal: AbortSignal;
  /** For disks that say nothing about it. @default what suits the machine */
  readonly queues?: number | undefined;
  /** Who serves new disks in memory that say nothing about queues. @default Workers of their own */
  readonly shared?: SharedWorkers | undefined;
  /** @default this machine's */
  readonly kernel?: Kernel;
}

/** Why a device of a disk ended. */
export interface DeviceEnd {
  readonly device: Device;
  readonly ending: Ending;
}

/** A disk that is being served. */
export class ServedDisk {
  readonly plan: DiskPlan;
  /** What goes to NBD. */
  readonly nbdParts: readonly NbdPart[];
  /** What goes to the kernel's NBD client. */
  readonly kernelParts: readonly KernelNbdPart[];
  /** Resolves when the disk is served to /dev no more. */
  readonly ended: Promise<DeviceEnd[]>;
  readonly #devices: Map<DeviceExit, Device>;
  readonly #options: StartOptions;
  readonly #meters: ReadonlyMap<DeviceExit, Meter>;
  #backend: Backend;
  /** Changes of size come one after the other. */
  #replaced: Promise<unknown> = Promise.resolve();

  private constructor(
    plan: DiskPlan,
    options: StartOptions,
    made: {
      backend: Backend;
      devices: Map<DeviceExit, Device>;
      meters: ReadonlyMap<DeviceExit, Meter>;
      nbdParts: readonly NbdPart[];
      kernelParts: readonly KernelNbdPart[];
    },
  ) {
    this.plan = plan;
    this.#options = options;
    this.#backend = made.backend;
    this.#devices = made.devices;
    this.#meters = made.meters;
    this.nbdParts = made.nbdParts;
    this.kernelParts = made.kernelParts;
    this.ended = Promise.all([...made.devices.keys()].map((exit) => this.#end(exit)));
  }

  /**
   * Opens a disk and serves it to /dev; its NBD parts are the caller's. If any of it fails, nothing is left behind, and
   * what was there before is left to the next server.
   *
   * @throws {DblockError} with what to type.
   */
  static async start(plan: DiskPlan, options: StartOptions): Promise<ServedDisk> {
    const { kernel = linux, signal: startSignal } = options;
    const shared = await isServed(plan, kernel);
    const opened = openDisk(plan, { readOnly: plan.readOnly, shared });
    const backend = await unlessAborted(opened, plan.source.text, startSignal);
    const parts = shareBackend(backend, plan.exits.length);
    await using undo = new AsyncDisposableStack();
    const nbdParts: NbdPart[] = [];
    const kernelParts: KernelNbdPart[] = [];
    const deviceParts: { exit: DeviceExit; part: Backend }[] = [];
    const meters = new Map<DeviceExit, Meter>();
    for (const [i, exit] of plan.exits.entries()) {
      const part = parts[i]!;
      const meter = newMeter();
      if (exit.kind === "device") {
        const namedExit = named(exit);
        meters.set(namedExit, meter);
        putMeter(part, meter);
        deviceParts.push({ exit: namedExit, part });
      } else {
        const exported = plan.readOnly && !part.readOnly ? readOnly(part) : part;
        putMeter(exported, meter);
        undo.defer(() => exported.close?.("unused"));
        if (exit.kind === "nbd") nbdParts.push({ exit, backend: exported, meter });
        else kernelParts.push({ name: exit.name, backend: exported, meter });
      }
    }
    const devices = new Map<DeviceExit, Device>();
    const outcomes = await Promise.allSettled(deviceParts.map(async ({ exit, part }) => {
      const shared = plan.queues === undefined ? options.shared : undefined;
      const device = await serveOn(kernel, part, serveOptions(plan, exit.name, options), { shared, startSignal });
      undo.defer(() => undoDevice(device));
      devices.set(exit, device);
    }));
    for (const outcome of outcomes) if (outcome.status === "rejected") throw explain(outcome.reason);
    undo.move();
    return new ServedDisk(plan, options, { backend, devices, meters, nbdParts, kernelParts });
  }

  /** Its devices, as they are now. */
  get devices(): readonly Device[] {
    return [...this.#devices.values()];
  }

  /** As it is now. */
  get sizeBytes(): number {
    return this.#backend.sizeBytes;
  }

  /** Its content with its filters, as it is now. */
  get backend(): Backend {
    return this.#backend;
  }

  /** What counts the requests of a device; undefined where no code is asked for them. */
  meterOf(device: Device): Meter | undefined {
    if (isMapped(this.#backend)) return undefined;
    for (const [exit, one] of this.#devices) if (one === device) return this.#meters.get(exit);
    return undefined;
  }

  /**
   * Gives it another size. A disk whose backend cannot is opened anew, larger, and takes itself over.
   *
   * @throws {DblockError} EOPNOTSUPP, EINVAL, and what the backend says.
   */
  async resize(sizeBytes: number): Promise<void> {
    const [device] = this.devices;
    if (device === undefined) throw new DblockError("ENODEV", "Cannot resize the disk", "it has ended");
    if (this.#backend.resize !== undefined) {
      for (const one of this.devices) await one.resize(sizeBytes);
      return;
    }
    const attempted = `Cannot resize ${device.path} to ${sizeBytes} bytes`;
    if (sizeBytes === device.sizeBytes) return;
    if (!this.plan.source.survives) {
      const hint = "a disk that can grow: a file, such as /dev/shm/disk.img?size=1GiB";
      throw new DblockError("EOPNOTSUPP", attempted, `the size of ${this.plan.source.text} stays`, { hint });
    }
    if (sizeBytes < device.sizeBytes) {
      const wrong = "what is mapped can grow, and not become smaller";
      throw new DblockError("EOPNOTSUPP", attempted, wrong, { hint: `serve it with ?raw: ${this.plan.source.text}` });
    }
    if (this.nbdParts.length + this.kernelParts.length > 0) {
      throw new DblockError("EOPNOTSUPP", attempted, "it is served over NBD, too", { hint: "serve it with ?raw" });
    }
    await this.replace({ shared: true, growToBytes: sizeBytes });
  }

  /**
   * Opens the disk anew and lets that take it over from what serves it now: those who use it notice nothing. If it cannot
   * be opened, or cannot take over, all stays as it is.
   *
   * @throws {DblockError} why.
   */
  async replace(open: Omit<OpenOptions, "readOnly">): Promise<void> {
    const replaced = this.#replaced.then(() => this.#replace(open));
    this.#replaced = replaced.catch(() => {});
    await replaced;
  }

  async #replace(open: Omit<OpenOptions, "readOnly">): Promise<void> {
    const backend = await openDisk(this.plan, { ...open, readOnly: this.plan.readOnly });
    const { kernel = linux, signal: startSignal } = this.#options;
    const exits = [...this.#devices.keys()];
    const parts = shareBackend(backend, exits.length);
    for (const [i, exit] of exits.entries()) {
      const options = serveOptions(this.plan, exit.name, this.#options);
      putMeter(parts[i]!, this.#meters.get(exit)!);
      const grow = open.growToBytes !== undefined;
      const device = await serveOn(kernel, parts[i]!, { ...options, existing: "take-over", grow }, { startSignal });
      const old = this.#devices.get(exit);
      this.#devices.set(exit, device);
      await old?.closed;
    }
    this.#backend = backend;
  }

  async #end(exit: DeviceExit): Promise<DeviceEnd> {
    for (;;) {
      const device = this.#devices.get(exit)!;
      const ending = await device.closed;
      // Who took it over may be this program itself.
      if (ending.reason === "replaced") await this.#replaced;
      if (this.#devices.get(exit) === device) return { device, ending };
    }
  }
}

/** Takes a start back. A disk that was there before is left to the next server: those who use it wait, and lose nothing. */
export async function undoDevice(device: Device): Promise<void> {
  const isLeft = device.origin !== "created" && await isKept(device);
  await (isLeft ? device.leave() : device.close({ force: true }));
}

function named(exit: Exit & { readonly kind: "device" }): DeviceExit {
  if (exit.name === undefined) throw new RangeError("unreachable: a device without a name");
  return { kind: "device", name: exit.name };
}

/** The content with its filters. */
async function openDisk(plan: DiskPlan, options: OpenOptions): Promise<Backend> {
  const { source, filters } = plan;
  let disk = await source.open({ ...options, live: plan.watch ? liveOptions(plan) : undefined });
  try {
    for (const filter of filters) disk = await filter.wrap(disk);
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
export async function unlessAborted(opened: Promise<Backend>, text: string, signal: AbortSignal): Promise<Backend> {
  const over = Promise.withResolvers<never>();
  const abort = () => over.reject(signal.reason);
  signal.addEventListener("abort", abort);
  if (signal.aborted) abort();
  const timer = setTimeout(() => complain(`${text} is not open yet, and is waited for (Ctrl-C ends this)`), SLOW_MS);
  try {
    return await Promise.race([opened, over.promise]);
  } catch (error) {
    opened.then((disk) => disk.close?.("unused")).catch(() => {}); // it comes too late, or has failed
    throw error;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
  }
}

/** A request that waits for new code is answered well before its timeout. */
function liveOptions({ timeoutMs }: DiskPlan): LiveOptions {
  return {
    pauseMaxMs: timeoutMs === 0 ? PAUSE_MAX_MS : Math.min(PAUSE_MAX_MS, timeoutMs / 2),
    say: quietly(console.log),
    complain,
  };
}

function serveOptions(plan: DiskPlan, name: string, options: StartOptions): ServeOptions {
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
    }
  }
  return served;
}

function whatToDo({ source }: DiskPlan, name: string, lost: boolean): string {
  const rest = `end that one with dblock destroy ${name}, or take another name: --name NAME`;
  if (lost) return `its server died: dblock recover ${name}, ${rest}`;
  return source.survives ? `take it over with --take-over, ${rest}` : rest;
}

/** What to type when a name is in use by something else than a device of ours. */
function explain(error: unknown): unknown {
  if (!(error instanceof DblockError) || error.code !== "EEXIST") return error;
  return withHint(error, "take another name: --name NAME; dblock list shows those in use");
}
