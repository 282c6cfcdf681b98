/** The second table: how the cost of a request grows with queues, depth, request size and the number of disks. */
import type { DiskSpec } from "./disks.ts";
import { type Job, job } from "./jobs.ts";
import type { Series } from "./plan.ts";
import type { Results, SeriesResult } from "./results.ts";
import { formatTable } from "./table.ts";

/** The processors of the VMs that measure it. */
export const processorCounts = [2, 4] as const;

const queueCounts = [1, 2, 4, 8];
const depths = [1, 2, 4, 8, 16, 32, 64, 128];
const blockSizes = [512, 4096, 16384, 65536, 262_144, 1_048_576];
const diskCounts = [1, 4, 16, 64];
const sizeMiB = 512;

const brd: DiskSpec = { name: "brd", kind: "brd", sizeMiB };
const direct: DiskSpec = { name: "direct", kind: "direct", sizeMiB };
const ublk: DiskSpec = { name: "ublk", kind: "ublk", sizeMiB };

/** What is varied, and where in a job or disk it is written: the part of the name after the last dash. */
export const scalingTitles: Readonly<Record<string, string>> = {
  queues: "queues (4k randread, 4 jobs of qd32)",
  depth: "queue depth (4k randread)",
  size: "request size in bytes (randread qd8)",
  disks: "disks with a queue each (4k randread, 4 jobs of qd32 over all)",
};

/** What is compared in numbers, unless DISKS says it. All of them are there at once, in the memory of one VM. */
export const manyKinds: readonly DiskSpec["kind"][] = ["brd", "ublk", "direct"];

/** The series of one VM; in the last one there are `kinds`. */
export function scalingSeries(rounds: number, kinds: readonly DiskSpec["kind"][] = manyKinds): Series[] {
  const busy = (name: string) => job(name, "4k randread", 4096, "--rw=randread --iodepth=32 --numjobs=4");
  return [
    {
      name: "queues",
      disks: [brd, ...queueCounts.map((queues) => ({ ...direct, name: `direct-${queues}`, queues }))],
      jobs: [busy("r4k")],
      rounds,
    },
    // One at a time: each takes /dev/ublkb0.
    ...queueCounts.map((queues): Series => ({
      name: "queues",
      disks: [{ ...ublk, name: `ublk-${queues}`, queues }],
      jobs: [busy("r4k")],
      rounds,
    })),
    {
      name: "depth",
      disks: [brd, ublk, direct],
      jobs: depths.map((depth): Job => job(`r4k-${depth}`, `depth ${depth}`, 4096, `--rw=randread --iodepth=${depth}`)),
      rounds,
    },
    {
      name: "size",
      disks: [brd, ublk, direct],
      jobs: blockSizes.map((bytes): Job => job(`r-${bytes}`, `${bytes} bytes`, bytes, "--rw=randread --iodepth=8")),
      rounds,
    },
    // One count after the other, so that no more servers are there than are measured.
    ...diskCounts.map((count): Series => ({
      name: "disks",
      disks: kinds.map((kind) => ({
        name: `${kind}-${count}`,
        kind,
        sizeMiB: 4,
        queues: 1,
        count,
      })),
      jobs: [busy("r4k")],
      rounds,
    })),
  ];
}

/** A measured point of a scaling series. */
export interface Point {
  readonly series: string;
  readonly processors: number;
  readonly disk: string;
  /** Undefined for a disk that does not vary, such as brd among queue counts. */
  readonly x?: number;
  readonly iops: number;
  /** Each of these is absent if it was not counted. */
  readonly p50Us?: number;
  readonly cpuUs?: number;
  readonly switches?: number;
  readonly batch?: number;
}

/** The points of a series, in the order they were measured. */
export function pointsOf(series: string, processors: number, result: SeriesResult): Point[] {
  return Object.entries(result.figures).flatMap(([jobName, byDisk]) =>
    Object.entries(byDisk).map(([name, figure]): Point => {
      const x = numberAtEnd(name) ?? numberAtEnd(jobName);
      return {
        series,
        processors,
        disk: name.replace(/-\d+$/, ""),
        ...(x === undefined ? {} : { x }),
        iops: figure.iops.median,
        ...(figure.p50Us === undefined ? {} : { p50Us: figure.p50Us }),
        ...(figure.cpuUs === undefined ? {} : { cpuUs: figure.cpuUs }),
        ...(figure.switches === undefined ? {} : { switches: figure.switches }),
        ...(figure.batch === undefined ? {} : { batch: figure.batch }),
      };
    })
  );
}

/** All points of results.json. */
export function allPoints(results: Results): Point[] {
  return Object.entries(results.scaling ?? {}).flatMap(([processors, { series }]) =>
    Object.entries(series).flatMap(([name, result]) => pointsOf(name, Number(processors), result))
  );
}

function numberAtEnd(name: string): number | undefined {
  const digits = /-(\d+)$/.exec(name)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/** One table per series. */
export function formatPoints(points: readonly Point[]): string {
  return Object.entries(scalingTitles).map(([series, title]) => {
    const rows = points.filter((point) => point.series === series).map((point) => [
      `  ${point.disk}`,
      String(point.processors),
      point.x === undefined ? "" : String(point.x),
      point.iops.toFixed(0),
      point.p50Us?.toPrecision(3) ?? "",
      point.cpuUs?.toPrecision(3) ?? "",
      point.switches?.toFixed(2) ?? "",
      point.batch?.toFixed(1) ?? "",
    ]);
    return formatTable([[title, "CPUs", series, "IOPS", "p50 us", "CPU us", "switches", "batch"], ...rows]);
  }).join("\n\n");
}
