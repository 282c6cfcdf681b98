// SPDX-License-Identifier: MIT
/**
 * What is known of disks in numbers, and from whom: the module counts requests of its disks, the kernel's block layer how
 * long they took, and who serves a disk with code what its code was asked and how long that took. This file collects; how
 * it is shown is in metrics.ts and web.ts.
 */
import type { Backend, Figure } from "../disk/backend.ts";
import { DblockError } from "../disk/errors.ts";
import { Meter, type MeterReport } from "../disk/meter.ts";
import { type DeviceInfo, list } from "../module/info.ts";
import { monotonicMs } from "../system/clock.ts";
import { kernelDevicePath } from "../system/kernel_nbd.ts";
import { ANSWER_MS, ask, readStarted, serverName, serverPids } from "./run_folder.ts";
import { byName } from "./page/order.ts";

/** How a disk gets to those who use it. */
export type Transport = "dblock.ko" | "nbd" | "kernel-nbd";

/** What a process that serves a disk says of it. */
export interface ServedFigures {
  /** In /dev, or of the export. */
  readonly disk: string;
  readonly transport: Transport;
  readonly spec: string;
  readonly sizeBytes: number;
  /** Absent for a mapped disk in /dev: the kernel copies, and no code is asked. */
  readonly meter?: MeterReport;
  /** The backend's own. */
  readonly own: readonly Figure[];
}

/** What the block layer says of a disk: counts since it came, and seconds. */
export interface KernelFigures {
  readonly readSeconds: number;
  readonly writeSeconds: number;
  readonly discardSeconds: number;
  readonly flushSeconds: number;
  /** In which there was at least one request. */
  readonly busySeconds: number;
}

/** All that is known of a disk now. */
export interface DiskFigures {
  readonly disk: string;
  readonly transport: Transport;
  readonly sizeBytes: number;
  /** "/dev/scratch"; undefined for an export. */
  readonly path?: string;
  readonly spec?: string;
  /** The process that serves it, where that says something itself. */
  readonly pid?: number;
  readonly module?: DeviceInfo;
  readonly kernel?: KernelFigures;
  readonly meter?: MeterReport;
  readonly own: readonly Figure[];
}

/** A disk of this process on one of its ways out, as it is measured. */
export class Measured {
  readonly disk: string;
  readonly transport: Transport;
  readonly spec: string;
  readonly #backend: () => Backend;
  readonly #meter: Meter | undefined;

  /** @param meter absent where no code is asked */
  constructor(
    what: { readonly disk: string; readonly transport: Transport; readonly spec: string },
    backend: () => Backend,
    meter: Meter | undefined,
  ) {
    this.disk = what.disk;
    this.transport = what.transport;
    this.spec = what.spec;
    this.#backend = backend;
    this.#meter = meter;
  }

  /** What there is to say of it. It counts from the first time on that somebody asks, for so long. */
  figures(forMs = Infinity): ServedFigures {
    this.#meter?.countFor(forMs);
    const { disk, transport, spec } = this;
    const backend = this.#backend();
    const meter = this.#meter === undefined ? {} : { meter: this.#meter.report() };
    return { disk, transport, spec, sizeBytes: backend.sizeBytes, ...meter, own: ownOf(backend) };
  }
}

/** A meter for a disk of this process. */
export function newMeter(): Meter {
  return new Meter(monotonicMs);
}

/** A backend whose figures cannot be had has none: it is a disk all the same. */
function ownOf(backend: Backend): readonly Figure[] {
  try {
    return (backend.figures?.() ?? []).filter(isFigure);
  } catch {
    return [];
  }
}

/** What the code of users says is no type: one wrong line, and Prometheus takes nothing of all disks. */
function isFigure(figure: unknown): figure is Figure {
  if (typeof figure !== "object" || figure === null) return false;
  const { name, help, value, labels = {} } = figure as Partial<Record<keyof Figure, unknown>>;
  return typeof name === "string" && /^[a-z][a-z0-9_]*$/.test(name) && typeof help === "string" &&
    Number.isFinite(value) && typeof labels === "object" && labels !== null &&
    // Labels that begin with two underscores are Prometheus's own.
    Object.entries(labels).every(([key, text]) => /^(?!__)[a-zA-Z_]\w*$/.test(key) && typeof text === "string");
}

/** What these disks of this process show, with what the kernel knows of them. */
export async function figuresOf(served: readonly ServedFigures[]): Promise<DiskFigures[]> {
  const names = new Set(served.filter(({ transport }) => transport === "dblock.ko").map(({ disk }) => disk));
  const infos = names.size === 0 ? [] : (await list()).filter(({ name }) => names.has(name));
  return merge(infos, served);
}

/** How to ask servers. */
export interface AskOptions {
  /** For how long they count from now on, in ms. @default as long as their disks are there */
  readonly forMs?: number;
  /** How long each may take to answer, in ms. @default 2,000 */
  readonly limitMs?: number;
  /** Which processes are asked. @default those that are there */
  readonly pids?: readonly number[];
}

/**
 * What all disks of this machine show, whoever serves them. Servers that do not answer are left out.
 *
 * @throws {DblockError} EACCES and EPERM: not root
 */
export async function figuresOfMachine(options: AskOptions = {}): Promise<DiskFigures[]> {
  const { forMs, limitMs = ANSWER_MS, pids = serverPids() } = options;
  const question = { ask: "figures", ...(forMs === undefined ? {} : { forMs }) } as const;
  const answers = await Promise.all(
    pids.map(async (pid) => {
      try {
        const answer = await ask(serverName(pid), question, `Cannot ask process ${pid}`, limitMs) as ServedFigures[];
        return answer.map((one) => ({ ...one, pid }));
      } catch {
        return []; // it has just ended, or is stuck: whoever asks for figures asks again
      }
    }),
  );
  const served = answers.flat();
  // Only names of exports can be there twice: another server may have the same.
  const isTwice = (one: ServedFigures) =>
    served.filter(({ disk, transport }) => disk === one.disk && transport === one.transport).length > 1;
  const named = served.map((one) => isTwice(one) ? { ...one, disk: `${one.disk} of process ${one.pid}` } : one);
  return merge(await ofModule(), named);
}

/** Without the module there are none. */
async function ofModule(): Promise<DeviceInfo[]> {
  try {
    return await list();
  } catch (error) {
    if (error instanceof DblockError && error.code === "ENOENT") return [];
    throw error;
  }
}

function merge(infos: readonly DeviceInfo[], served: readonly ServedFigures[]): DiskFigures[] {
  const ofDevices = infos.map((module): DiskFigures => {
    const one = served.find(({ disk, transport }) => transport === "dblock.ko" && disk === module.name);
    const { name: disk, path, sizeBytes } = module;
    const spec = one?.spec ?? readStarted(disk)?.words[0];
    return {
      ...{ disk, path, sizeBytes, module, transport: "dblock.ko", own: one?.own ?? [] },
      ...kernelFigures(disk),
      ...(one?.meter === undefined ? {} : { meter: one.meter }),
      ...(module.server === undefined ? {} : { pid: module.server.pid }),
      ...(spec === undefined ? {} : { spec }),
    };
  });
  const others = served.filter(({ transport }) => transport !== "dblock.ko").map((one): DiskFigures => {
    if (one.transport === "nbd") return one;
    const number = readStarted(one.disk)?.kernelNbd;
    return number === undefined ? one : { ...one, path: kernelDevicePath(number), ...kernelFigures(`nbd${number}`) };
  });
  return [...ofDevices, ...others].sort((a, b) => byName(a.disk, b.disk));
}

/** Fields of `/sys/block/NAME/stat` that are milliseconds; see the kernel's Documentation/block/stat.rst. */
function kernelFigures(name: string): { readonly kernel?: KernelFigures } {
  try {
    const fields = Deno.readTextFileSync(`/sys/block/${name}/stat`).trim().split(/\s+/).map((ms) => Number(ms) / 1000);
    const at = (field: number) => fields[field] ?? 0;
    return {
      kernel: {
        readSeconds: at(3),
        writeSeconds: at(7),
        busySeconds: at(9),
        discardSeconds: at(14),
        flushSeconds: at(16),
      },
    };
  } catch {
    return {}; // it has gone, or has not come yet
  }
}
