/**
 * What the host tells the bench in the VM, and what that tells the host: data only. main.ts writes plans and reads lines,
 * guest.ts reads the plan and writes lines.
 */
import type { DiskSpec } from "./disks.ts";
import type { Job } from "./jobs.ts";

/** The path of the plan in the VM. */
export const planPath = "/bench-plan.json";

/** The path of ublk_memory.c's program in the VM. */
export const ublkServerPath = "/bench-ublk-memory";

/** What the disk that the VM may write to says it is: its serial number. */
export const scratchSerial = "scratch";

/** A series: every job on every disk, in rounds, so that a drift of the machine meets all disks alike. */
export interface Series {
  readonly name: string;
  readonly disks: readonly DiskSpec[];
  readonly jobs: readonly Job[];
  readonly rounds: number;
}

/** All that a VM is to measure. */
export interface Plan {
  readonly series: readonly Series[];
  /** How long each job is measured. */
  readonly runtimeMs: number;
  /** How long it runs before that. */
  readonly rampMs: number;
  /** Measure memory, idle processor time and the time of a create/destroy cycle, too. */
  readonly footprint: boolean;
  /** Count what each request asks of the kernel, after the rounds. */
  readonly ledger: boolean;
}

/** What one run of one job on one disk gave. Everything "per request" is of the whole machine. */
export interface Measurement {
  readonly iops: number;
  readonly p50Us: number;
  readonly p99Us: number;
  /** Processor time per request, of whoever spent it. */
  readonly cpuUs: number;
  /** Context switches per request. */
  readonly switches: number;
  /** EXCHANGE calls per request; only of a dblock disk. */
  readonly calls?: number;
  /** Requests per EXCHANGE call that brought any; only of a dblock disk. */
  readonly batch?: number;
}

/** What a disk turned out to be in this kernel. */
export interface DiskFacts {
  readonly queues: number;
  readonly scheduler: string;
}

/** What a disk costs that does nothing. */
export interface Footprint {
  /** Memory of a dblock-ramdisk without data. */
  readonly residentMiB: number;
  /** Its processor time in ten seconds in which nobody uses the disk. */
  readonly idleCpuMs: number;
  /** From the command to the disk, and from `-d` to the end of both processes. Medians, in the VM. */
  readonly createMs: number;
  readonly destroyMs: number;
}

/** What the threads of a server did per request. */
export interface Ledger {
  /** System calls by name. */
  readonly calls: Readonly<Record<string, number>>;
  /** Times that the kernel copied its data, or a part of it. What a backend copies in its own memory comes on top. */
  readonly copies: number;
  /** Allocations of the kernel: kmalloc, slab objects, pages. */
  readonly allocations: number;
}

/** One line on the report port, as JSON. */
export type Line =
  | { readonly type: "disk"; readonly series: string; readonly disk: string; readonly facts: DiskFacts }
  /** A disk that this kernel cannot have. */
  | { readonly type: "absent"; readonly series: string; readonly disk: string; readonly reason: string }
  | {
    readonly type: "measurement";
    readonly series: string;
    readonly round: number;
    readonly job: string;
    readonly disk: string;
    readonly measurement: Measurement;
  }
  | {
    readonly type: "ledger";
    readonly series: string;
    readonly disk: string;
    readonly job: string;
    readonly ledger: Ledger;
  }
  | { readonly type: "footprint"; readonly footprint: Footprint };
