/** Measurements become figures: medians over the rounds, and their ratio to the reference. The form of results.json. */
import { reference } from "./disks.ts";
import type { DiskFacts, Footprint, Ledger, Line, Measurement } from "./plan.ts";
import { median, type Spread, spread } from "./statistics.ts";

/** What one job gave on one disk: medians over the rounds. */
export interface Figure {
  readonly iops: Spread;
  /** To the reference's median; undefined if that was not measured. */
  readonly ratio?: number;
  /** Each of these is absent if no round gave it. */
  readonly p50Us?: number;
  readonly p99Us?: number;
  readonly cpuUs?: number;
  readonly switches?: number;
  readonly calls?: number;
  readonly batch?: number;
}

/** Figures by job, then by disk, in the order they were measured. */
export type Figures = Readonly<Record<string, Readonly<Record<string, Figure>>>>;

/** What a series came to. */
export interface SeriesResult {
  readonly disks: Readonly<Record<string, DiskFacts>>;
  /** Disks that could not be had, and why. */
  readonly absent: Readonly<Record<string, string>>;
  readonly figures: Figures;
  /** Of our own disks, by job and disk. */
  readonly ledgers?: Readonly<Record<string, Readonly<Record<string, Ledger>>>>;
}

/** What the executable costs where it does nothing, beside what the VM measured. */
export interface ProgramFootprint extends Footprint {
  readonly executableMiB: number;
  /** `--version`, the whole process, outside the VM. */
  readonly versionMs: number;
}

/** The circumstances of a run. */
export interface Circumstances {
  /** What `uname -r` says. */
  readonly kernel: string;
  readonly date: string;
  readonly processors: number;
  readonly rounds: number;
  readonly runtimeMs: number;
}

/** The second table, of one VM. */
export interface ScalingResult {
  readonly circumstances: Circumstances;
  readonly series: Readonly<Record<string, SeriesResult>>;
}

/** results.json. */
export interface Results {
  readonly circumstances: Circumstances;
  readonly main: SeriesResult;
  readonly footprint: ProgramFootprint;
  /** By number of processors; see scaling.ts. */
  readonly scaling?: Readonly<Record<string, ScalingResult>>;
}

/** Sums up what the VM reported of a series. */
export function summarize(lines: readonly Line[], series: string): SeriesResult {
  const disks: Record<string, DiskFacts> = {};
  const absent: Record<string, string> = {};
  const ledgers: Record<string, Record<string, Ledger>> = {};
  const measured: Record<string, Record<string, Measurement[]>> = {};
  for (const line of lines) {
    if (line.type === "footprint" || line.series !== series) continue;
    if (line.type === "disk") disks[line.disk] = line.facts;
    else if (line.type === "absent") absent[line.disk] = line.reason;
    else if (line.type === "ledger") {
      // Without requests in its window a ledger is all nulls.
      if (Number.isFinite(line.ledger.copies)) (ledgers[line.job] ??= {})[line.disk] = roundLedger(line.ledger);
    } else ((measured[line.job] ??= {})[line.disk] ??= []).push(line.measurement);
  }
  const figures: Record<string, Record<string, Figure>> = {};
  // JSON has no NaN: what was divided by nothing arrives as null, here and below.
  const hasRate = (one: Measurement) => Number.isFinite(one.iops);
  for (const [job, byDisk] of Object.entries(measured)) {
    const rates = byDisk[reference]?.filter(hasRate).map(({ iops }) => iops) ?? [];
    const referenceIops = rates.length === 0 ? undefined : median(rates);
    figures[job] = {};
    for (const [disk, measurements] of Object.entries(byDisk)) {
      const usable = measurements.filter(hasRate);
      if (usable.length > 0) figures[job][disk] = figureOf(usable, referenceIops);
    }
  }
  return { disks, absent, figures, ...(Object.keys(ledgers).length === 0 ? {} : { ledgers }) };
}

/** Without what happens less than once in a thousand requests: timers and the like. */
function roundLedger({ calls, copies, allocations }: Ledger): Ledger {
  const often = Object.entries(calls).filter(([, count]) => count >= 0.001);
  return {
    calls: Object.fromEntries(often.map(([call, count]) => [call, significant(count)])),
    copies: significant(copies),
    allocations: significant(allocations),
  };
}

function figureOf(measurements: readonly Measurement[], referenceIops: number | undefined): Figure {
  const iops = spread(measurements.map((one) => one.iops));
  const columns = ["p50Us", "p99Us", "cpuUs", "switches", "calls", "batch"] as const;
  const middles = columns.flatMap((column) => {
    const values = measurements.map((one) => one[column]).filter((value) => Number.isFinite(value));
    return values.length === 0 ? [] : [[column, significant(median(values as number[]))] as const];
  });
  return {
    iops: {
      median: Math.round(iops.median),
      min: Math.round(iops.min),
      max: Math.round(iops.max),
      noise: significant(iops.noise),
    },
    ...(referenceIops === undefined ? {} : { ratio: significant(iops.median / referenceIops) }),
    ...Object.fromEntries(middles),
  };
}

/** Where the machine's noise is above this, figures of another day cannot be compared with these. */
export const noiseMax = 0.1;

/**
 * The machine's own noise: how much the reference differs from round to round, the middle one of all jobs. What is recorded are
 * medians, which one odd round does not move; so the middle half of the rounds counts.
 */
export function noiseOf(figures: Figures): number {
  const spreads = Object.values(figures).flatMap((byDisk) => byDisk[reference] ? [byDisk[reference].iops.noise] : []);
  return spreads.length === 0 ? Infinity : median(spreads);
}

/** The noise in words. */
export function describeNoise(noise: number): string {
  return Number.isFinite(noise)
    ? `the machine is not quiet: ${reference} differs by ${Math.round(noise * 100)}% from round to round`
    : `${reference} was not measured, so nobody knows how quiet the machine is`;
}

/** Three digits are more than these measurements know. */
function significant(value: number): number {
  return Number(value.toPrecision(3));
}
