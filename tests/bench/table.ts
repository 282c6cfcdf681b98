/** Figures as text: what `make bench` prints. */
import type { Job } from "./jobs.ts";
import type { Figure, Figures, ProgramFootprint, SeriesResult } from "./results.ts";

type Row = readonly string[];

/** Columns as wide as their widest cell; the first one to the left, the others to the right. */
export function formatTable(rows: readonly Row[]): string {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  return rows.map((row) =>
    row.map((cell, i) => i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)).join("  ").trimEnd()
  ).join("\n");
}

/** One table per job: what it measured on each disk. */
export function formatFigures(jobs: readonly Job[], figures: Figures): string {
  const tables = jobs.filter(({ name }) => figures[name] !== undefined).map(({ name, title, blockBytes }) => {
    const header = [
      title,
      "IOPS",
      "min-max",
      "MB/s",
      "ratio",
      "p50 us",
      "p99 us",
      "CPU us",
      "switches",
      "calls",
      "batch",
    ];
    const rows = Object.entries(figures[name]!).map(([disk, figure]) => figureRow(disk, figure, blockBytes));
    return formatTable([header, ...rows]);
  });
  return tables.join("\n\n");
}

function figureRow(disk: string, figure: Figure, blockBytes: number): Row {
  const { median, min, max } = figure.iops;
  return [
    `  ${disk}`,
    thousands(median),
    `${thousands(min)}-${thousands(max)}`,
    (median * blockBytes / 1e6).toFixed(0),
    figure.ratio?.toFixed(2) ?? "",
    ...[figure.p50Us, figure.p99Us, figure.cpuUs, figure.switches, figure.calls, figure.batch].map((value) =>
      value === undefined ? "" : digits(value)
    ),
  ];
}

/**
 * Throughput of every disk as a ratio to that of one: a row per job, a column per disk, and beside them how much that one
 * differed from round to round.
 */
export function formatRatios(jobs: readonly Job[], figures: Figures, base: string): string {
  const present = jobs.filter(({ name }) => figures[name]?.[base] !== undefined);
  const disks = Object.keys(figures[present[0]?.name ?? ""] ?? {});
  const rows = present.map(({ name, title }) => {
    const baseIops = figures[name]![base]!.iops.median;
    const ratios = disks.map((disk) => {
      const figure = figures[name]![disk];
      return figure === undefined ? "" : (figure.iops.median / baseIops).toFixed(2);
    });
    return [title, ...ratios, `${Math.round(figures[name]![base]!.iops.noise * 100)}%`];
  });
  return formatTable([[`ratio to ${base}`, ...disks, "noise"], ...rows]);
}

/** What each request asks of the kernel, in the server's threads. What is rarer than one in a hundred is left out. */
export function formatLedgers(jobs: readonly Job[], ledgers: NonNullable<SeriesResult["ledgers"]>): string {
  const rows = jobs.flatMap(({ name, title }) =>
    Object.entries(ledgers[name] ?? {}).map(([disk, { calls, copies, allocations }]) => {
      const often = Object.entries(calls).filter(([, count]) => count >= 0.01);
      const list = often.map(([call, count]) => `${call} ${digits(count)}`).join(", ");
      // The list is the last column and not aligned.
      return { row: [title, disk, digits(copies), digits(allocations)], list };
    })
  );
  const header = { row: ["per request, in the server", "disk", "copies", "allocations"], list: "system calls" };
  const all = [header, ...rows];
  return formatTable(all.map(({ row }) => row)).split("\n").map((line, i) => `${line}  ${all[i]!.list}`).join("\n");
}

/** What the program costs where it does nothing. */
export function formatFootprint(footprint: ProgramFootprint): string {
  return formatTable([
    ["dblock-ramdisk --version (native, whole process)", `${footprint.versionMs.toFixed(0)} ms`],
    ["from the command to the disk (VM)", `${footprint.createMs.toFixed(0)} ms`],
    ["from -d to the end of both processes (VM)", `${footprint.destroyMs.toFixed(0)} ms`],
    ["processor time in 10 s of an idle disk (VM)", `${footprint.idleCpuMs} ms`],
    ["memory without data (VM)", `${footprint.residentMiB.toFixed(0)} MiB`],
    ["size of the executable", `${footprint.executableMiB.toFixed(0)} MiB`],
  ]);
}

function thousands(value: number): string {
  return value >= 10_000
    ? `${(value / 1000).toFixed(0)}k`
    : value >= 1000
    ? `${(value / 1000).toFixed(1)}k`
    : `${value}`;
}

/** Three significant digits, without an exponent. */
function digits(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}
