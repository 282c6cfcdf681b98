// SPDX-License-Identifier: MIT
/**
 * A disk that `dblock serve` serves: brought to /dev and to NBD, replaced by itself where it grows. How it is opened is in
 * opened_disk.ts, what a process with several of them does in serve_disks.ts.
 */
import type { Backend } from "../disk/backend.ts";
import { DblockError, describe } from "../disk/errors.ts";
import { type Meter, putMeter } from "../disk/meter.ts";
import { isMapped } from "../disk/servable.ts";
import { devicePath } from "../module/control.ts";
import type { Device, Ending } from "../module/device.ts";
import { serveOn, type ServeOptions } from "../module/serve.ts";
import { linux } from "../system/libc.ts";
import type { DiskPlan, Exit } from "./disk_plan.ts";
import type { OpenOptions } from "./disk_source.ts";
import { complain } from "./log.ts";
import {
  type DeviceExit,
  explain,
  openContent,
  openDisk,
  type OpenedDisk,
  serveOptions,
  type StartOptions,
} from "./opened_disk.ts";
import { shareBackend } from "./shared_backend.ts";
import { undoDevice } from "./signals.ts";

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
   * Opens a disk and serves it: `openDisk()` and `serve()`.
   *
   * @throws {DblockError} with what to type.
   */
  static async start(plan: DiskPlan, options: StartOptions): Promise<ServedDisk> {
    return await ServedDisk.serve(await openDisk(plan, options), options);
  }

  /**
   * Serves a disk to /dev, which is owned from here on; its NBD parts are the caller's. If any of it fails, nothing is left
   * behind, and what was there before is left to the next server.
   *
   * @throws {DblockError} with what to type.
   */
  static async serve({ plan, backend, parts }: OpenedDisk, options: StartOptions): Promise<ServedDisk> {
    const { kernel = linux, signal: startSignal } = options;
    await using undo = new AsyncDisposableStack();
    const nbdParts: NbdPart[] = [];
    const kernelParts: KernelNbdPart[] = [];
    const meters = new Map<DeviceExit, Meter>();
    const starts: Promise<readonly [DeviceExit, Device]>[] = [];
    const startDevice = async (exit: DeviceExit, part: Backend) => {
      const workers = plan.queues === undefined ? options.workers : undefined;
      const device = await serveOn(kernel, part, { ...serveOptions(plan, exit.name, options), workers }, {
        startSignal,
      });
      undo.defer(() => undoDevice(device));
      return [exit, device] as const;
    };
    for (const { exit, backend: part, meter } of parts) {
      if (exit.kind === "device") {
        meters.set(exit, meter);
        starts.push(startDevice(exit, part));
        continue;
      }
      undo.defer(() => part.close?.("unused"));
      if (exit.kind === "nbd") nbdParts.push({ exit, backend: part, meter });
      else kernelParts.push({ name: exit.name, backend: part, meter });
    }
    const outcomes = await Promise.allSettled(starts);
    for (const outcome of outcomes) if (outcome.status === "rejected") throw explain(outcome.reason);
    undo.move();
    // In the order in which they were named, whichever was there first.
    const devices = new Map(await Promise.all(starts));
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
   * @param id of the device that is meant, where its name may be another one's by now
   * @throws {DblockError} EOPNOTSUPP, EINVAL, ESTALE (no device of this disk has that id), and what the backend says.
   */
  async resize(sizeBytes: number, id?: number): Promise<void> {
    const [device] = this.devices;
    if (device === undefined) throw new DblockError("ENODEV", "Cannot resize the disk", "it has ended");
    if (id !== undefined && !this.devices.some((one) => one.id === id)) {
      throw new DblockError(
        "ESTALE",
        `Cannot resize ${device.path}`,
        "the device that is meant is gone, and another one has its name",
      );
    }
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
    if (this.#backend.flush !== undefined && this.#backend.cacheSurvives !== true) {
      const wrong = "what it keeps in a cache would be written over what is newer";
      const { text, files } = this.plan.source;
      throw new DblockError(
        "EOPNOTSUPP",
        attempted,
        wrong,
        files === undefined ? {} : { hint: `serve it with ?raw: ${text}` },
      );
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
    const backend = await openContent(this.plan, { ...open, readOnly: this.plan.readOnly });
    if (backend.sizeBytes !== (open.growToBytes ?? backend.sizeBytes)) {
      await backend.close?.("unused");
      const attempted = `Cannot resize ${this.devices.map(({ path }) => path).join(", ")} to ${open.growToBytes} bytes`;
      throw new DblockError("EOPNOTSUPP", attempted, `the size of ${this.plan.source.text} stays`);
    }
    const grow = open.growToBytes !== undefined;
    await this.#put(backend, [...this.#devices.keys()], { existing: "take-over", grow });
  }

  /** Serves devices with another backend, which is owned from here on. */
  async #put(
    backend: Backend,
    exits: readonly DeviceExit[],
    changes: Pick<ServeOptions, "existing" | "grow">,
  ): Promise<void> {
    const { kernel = linux, signal: startSignal } = this.#options;
    const parts = shareBackend(backend, exits.length);
    for (const [i, exit] of exits.entries()) {
      const options = serveOptions(this.plan, exit.name, this.#options);
      putMeter(parts[i]!, this.#meters.get(exit)!);
      const old = this.#devices.get(exit);
      try {
        this.#devices.set(exit, await serveOn(kernel, parts[i]!, { ...options, ...changes }, { startSignal }));
      } catch (error) {
        for (const part of parts.slice(i + 1)) await part.close?.("unused");
        throw error;
      }
      await old?.closed;
    }
    this.#backend = backend;
  }

  /** Resolves when none of its devices is this process's any more, as they are now. */
  async given(): Promise<void> {
    await this.#replaced;
    await Promise.all(this.devices.map(({ closed }) => closed));
  }

  /**
   * Another process is to take its devices over. Those that it has taken and left again, when it turns out that it cannot
   * take all of them, are taken back: those who use them wait meanwhile, and lose nothing. Never rejects.
   *
   * @param outcome of the whole; rejects if it has failed
   */
  async give(outcome: Promise<unknown>): Promise<void> {
    const isGiven = outcome.then(() => true, () => false);
    const done = this.#replaced.then(async () => {
      if (!await isGiven) await this.#takeBack();
    });
    this.#replaced = done;
    await done;
  }

  async #takeBack(): Promise<void> {
    const lost: DeviceExit[] = [];
    for (const [exit, device] of this.#devices) {
      // One that was without a server before has been said to be.
      if (await hasNoServer(device) && (await device.closed).reason === "replaced") lost.push(exit);
    }
    if (lost.length === 0) return;
    try {
      const shared = lost.length < this.#devices.size;
      const backend = await openContent(this.plan, { readOnly: this.plan.readOnly, shared });
      await this.#put(backend, lost, { existing: "recover" });
    } catch (error) {
      for (const { name } of lost) complain(`Cannot take ${devicePath(name)} back: ${describe(error)}`, name);
    }
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

async function hasNoServer(device: Device): Promise<boolean> {
  try {
    return (await device.info()).server === undefined;
  } catch {
    return false; // it is gone
  }
}
