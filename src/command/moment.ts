// SPDX-License-Identifier: MIT
/**
 * What disks did between two looks at them, as `dblock top --web` shows it: rates, percentiles, and where on the disk reads
 * and writes were. Pure: who looks, and when, is in lookout.ts.
 */
import { endOfTimeCell, MAP_CELLS, type MeterReport } from "../disk/meter.ts";
import { percentileOf } from "../filters/histogram.ts";
import type { DeviceState } from "../module/words.ts";
import type { DiskFigures, Transport } from "./figures.ts";
import type { Happening } from "./happenings.ts";
import type { Cells } from "./latency.ts";
import { type Field, FIELDS, letterOf } from "./page/terms.ts";
import type { Places } from "./places.ts";

/** A disk as it was seen. */
export interface Seen extends DiskFigures {
  /** When, on a clock that never goes back; earlier than the look if its server did not answer in time. */
  readonly atMs: number;
  /** What the kernel has counted; undefined where it measures nothing. */
  readonly latencies?: Cells | undefined;
  readonly places?: Places | undefined;
}

/** What disks there were at a moment. */
export interface Look {
  /** When, since 1970. */
  readonly timeMs: number;
  /** By {@linkcode keyOf}. */
  readonly disks: ReadonlyMap<string, Seen>;
}

/** Why there is no map of a disk. */
export type MapAbsence = "mapped" | "silent" | "unserved";

/** What a disk is, for people. */
export interface Description {
  readonly key: string;
  readonly name: string;
  readonly transport: Transport;
  readonly sizeBytes: number;
  readonly path?: string;
  readonly spec?: string;
  readonly pid?: number;
  /** Undefined for an export. */
  readonly state?: DeviceState;
  /** Of a disk in /dev: for whoever destroys it, and not another one that has its name by then. */
  readonly id?: number;
  readonly readOnly: boolean;
  /** How many have it open; undefined for an export. */
  readonly openCount?: number;
  /** Since the disk is there, or since it is measured. */
  readonly totals: { readonly errors: number; readonly deaths: number };
  /** Absent if there is a map. */
  readonly mapAbsence?: MapAbsence;
}

/** What a disk did between two looks. A page has hundreds of these for each disk, so they are short. */
export interface Activity {
  /** In the order of {@linkcode FIELDS}; null where nothing is known. */
  readonly numbers: readonly (number | null)[];
  /** A letter for each piece of the disk, see {@linkcode levelsOf}; empty if nothing was read. */
  readonly reads: string;
  readonly writes: string;
}

/** What all disks did between two looks. */
export interface Moment {
  readonly timeMs: number;
  readonly disks: readonly Description[];
  /** By key. */
  readonly activities: Readonly<Record<string, Activity>>;
  /** Those that are new, or have grown. */
  readonly happenings: readonly Happening[];
  /** What keeps figures away. */
  readonly notes: readonly string[];
}

/** Tells a disk from another one that has its name later. */
export function keyOf({ disk, transport, module, pid }: DiskFigures): string {
  return `${transport} ${disk} ${module?.id ?? pid ?? 0}`;
}

/** What a disk is. */
export function describeDisk(seen: Seen): Description {
  const { disk, transport, sizeBytes, path, spec, pid, module, meter } = seen;
  const errors = module?.counts.errors ?? meter?.errors.reduce((sum, { count }) => sum + count, 0) ?? 0;
  const mapAbsence = meter !== undefined || seen.places !== undefined
    ? undefined
    : module?.features.direct
    ? "mapped"
    : module !== undefined && module.server === undefined
    ? "unserved"
    : "silent";
  return {
    ...{ key: keyOf(seen), name: disk, transport, sizeBytes },
    ...(path === undefined ? {} : { path }),
    ...(spec === undefined ? {} : { spec }),
    ...(pid === undefined ? {} : { pid }),
    ...(module === undefined ? {} : { state: module.state, id: module.id, openCount: module.openCount }),
    readOnly: module?.features.readOnly ?? false,
    totals: { errors, deaths: module?.counts.deaths ?? 0 },
    ...(mapAbsence === undefined ? {} : { mapAbsence }),
  };
}

/** What a disk did between two looks; nothing is known of one that was not there before. */
export function activityBetween(before: Seen | undefined, now: Seen, seconds: number): Activity {
  const inFlight = now.module === undefined
    ? now.meter?.inFlight ?? 0
    : now.module.inFlight.waiting + now.module.inFlight.handedOut;
  if (before === undefined || !isMeasured(before)) {
    const numbers = FIELDS.map((field) => field === "inFlight" ? inFlight : null);
    return { numbers, reads: "", writes: "" };
  }
  const [from, to] = [totalsOf(before), totalsOf(now)];
  // A server that took the disk over begins to count anew.
  const rate = (field: keyof Totals) => rounded(Math.max(0, to[field] - from[field]) / seconds);
  const times = timesBetween(before, now);
  const numbers: Record<Field, number | null> = {
    reads: rate("reads"),
    writes: rate("writes"),
    others: rate("others"),
    readBytes: rate("readBytes"),
    writeBytes: rate("writeBytes"),
    ...times,
    inFlight,
    errors: rate("errors"),
  };
  return {
    numbers: FIELDS.map((field) => numbers[field]),
    ...levelsBetween(before, now, seconds),
  };
}

/** The server's own count, which divides a request among the pieces that it touches; else the kernel's. */
function levelsBetween(before: Seen, now: Seen, seconds: number): Pick<Activity, "reads" | "writes"> {
  const [from, to] = before.meter !== undefined && now.meter !== undefined
    ? [placesOf(before.meter), placesOf(now.meter)]
    : [before.places, now.places];
  return {
    reads: levelsOf(from?.reads, to?.reads, seconds),
    writes: levelsOf(from?.writes, to?.writes, seconds),
  };
}

function placesOf({ readMap, writeMap }: MeterReport): Places {
  return { reads: readMap, writes: writeMap };
}

function isMeasured({ module, meter }: Seen): boolean {
  return module !== undefined || meter !== undefined;
}

interface Totals {
  readonly reads: number;
  readonly writes: number;
  readonly others: number;
  readonly readBytes: number;
  readonly writeBytes: number;
  readonly errors: number;
}

/** The module's own counts go on when a server dies; an export has its server's. */
function totalsOf({ module, meter }: Seen): Totals {
  const of = (...operations: string[]) => {
    if (module !== undefined) {
      const counts = Object.entries(module.requests).filter(([name]) => operations.includes(name));
      return counts.reduce((sum, [, one]) => ({ count: sum.count + one.count, bytes: sum.bytes + one.bytes }), NONE);
    }
    const rows = meter?.rows.filter(({ operation }) => operations.includes(operation)) ?? [];
    return rows.reduce((sum, row) => ({ count: sum.count + row.succeeded, bytes: sum.bytes + row.bytes }), NONE);
  };
  const [read, write, other] = [of("read"), of("write"), of("flush", "discard", "writeZeroes")];
  return {
    reads: read.count,
    writes: write.count,
    others: other.count,
    readBytes: read.bytes,
    writeBytes: write.bytes,
    errors: module?.counts.errors ?? meter?.errors.reduce((sum, { count }) => sum + count, 0) ?? 0,
  };
}

const NONE = { count: 0, bytes: 0 };

type Times = Record<"p50Ms" | "p90Ms" | "p99Ms" | "maxMs", number | null>;
const UNKNOWN: Times = { p50Ms: null, p90Ms: null, p99Ms: null, maxMs: null };

/** The kernel's measurement if there is one, as it has the time for which a request waited for the server as well. */
function timesBetween(before: Seen, now: Seen): Times {
  if (now.latencies !== undefined && before.latencies !== undefined) {
    const cells = now.latencies.map((count, cell) => Math.max(0, count - before.latencies![cell]!));
    const count = cells.reduce((sum, one) => sum + one, 0);
    if (count === 0) return UNKNOWN;
    return timesAt((percent) => percentileOf(cells, count, percent) / 1e6);
  }
  if (now.meter === undefined || before.meter === undefined) return UNKNOWN;
  const cells = addTimes(addTimes(new Map(), now.meter, 1), before.meter, -1);
  const ordered = [...cells].filter(([, count]) => count > 0).sort(([a], [b]) => a - b);
  const count = ordered.reduce((sum, [, one]) => sum + one, 0);
  if (count === 0) return UNKNOWN;
  return timesAt((percent) => {
    let seen = 0;
    const [cell] = ordered.find(([, one]) => (seen += one) >= Math.max(1, Math.ceil(count * percent / 100)))!;
    return endOfTimeCell(cell) * 1000;
  });
}

function timesAt(percentile: (percent: number) => number): Times {
  const [p50Ms, p90Ms, p99Ms, maxMs] = [50, 90, 99, 100].map((percent) => rounded(percentile(percent)));
  return { p50Ms: p50Ms!, p90Ms: p90Ms!, p99Ms: p99Ms!, maxMs: maxMs! };
}

/** Not flushes, which take as long as all that was written before. */
function addTimes(cells: Map<number, number>, { rows }: MeterReport, sign: 1 | -1): Map<number, number> {
  for (const { operation, times } of rows) {
    if (operation === "flush") continue;
    for (const [cell, count] of times) cells.set(cell, (cells.get(cell) ?? 0) + sign * count);
  }
  return cells;
}

/** Three digits, or all of a whole number: a page has thousands of them. */
function rounded(value: number): number {
  return value >= 1000 ? Math.round(value) : Number(value.toPrecision(3));
}

/** How much was read or written of each piece of a disk: a letter each, "0" for nothing; empty if there was nothing at all. */
export function levelsOf(
  before: readonly number[] | undefined,
  now: readonly number[] | undefined,
  seconds: number,
): string {
  if (before === undefined || now === undefined) return "";
  const nothing = letterOf(0);
  let letters = "";
  let isEmpty = true;
  for (let i = 0; i < MAP_CELLS; i++) {
    const letter = letterOf(((now[i] ?? 0) - (before[i] ?? 0)) / seconds);
    if (letter !== nothing) isEmpty = false;
    letters += letter;
  }
  return isEmpty ? "" : letters;
}
