import { assert, assertEquals } from "@std/assert";
import { ledgerBetween, parseHistogram } from "../../bench/ledger.ts";
import { jobs } from "../../bench/jobs.ts";
import type { Line } from "../../bench/plan.ts";
import { chartsOf } from "../../bench/plot.ts";
import { type Results, summarize } from "../../bench/results.ts";
import { allPoints, formatPoints, pointsOf, scalingSeries, scalingTitles } from "../../bench/scaling.ts";

const measurement = { iops: 1000, p50Us: 10, p99Us: 20, cpuUs: 5, switches: 1 };

/** Every job on every disk of all series, once. */
function linesOf(): Line[] {
  return scalingSeries(1).flatMap(({ name: series, disks, jobs }) =>
    jobs.flatMap((job) =>
      disks.map(({ name: disk }): Line => ({ type: "measurement", series, round: 1, job: job.name, disk, measurement }))
    )
  );
}

function results(): Results {
  const circumstances = { kernel: "6.12.0", date: "2026-01-01", processors: 2, rounds: 1, runtimeMs: 1000 };
  const lines = linesOf();
  const series = Object.fromEntries(scalingSeries(1).map(({ name }) => [name, summarize(lines, name)]));
  return {
    circumstances,
    main: { disks: {}, absent: {}, figures: {} },
    footprint: { residentMiB: 1, idleCpuMs: 0, createMs: 1, destroyMs: 1, executableMiB: 1, versionMs: 1 },
    scaling: { 2: { circumstances, series }, 4: { circumstances, series } },
  };
}

Deno.test("every scaling series has a title, and names that tell its points apart", () => {
  for (const { name, disks, jobs } of scalingSeries(1)) {
    assert(name in scalingTitles, name);
    assertEquals(new Set(disks.map((disk) => disk.name)).size, disks.length);
    assertEquals(new Set(jobs.map((job) => job.name)).size, jobs.length);
  }
});

Deno.test("pointsOf() reads what was varied from a disk's or a job's name", () => {
  const lines = linesOf();
  const varied = (series: string) => pointsOf(series, 2, summarize(lines, series)).map(({ disk, x }) => `${disk} ${x}`);
  const queues = [1, 2, 4, 8];
  const byQueues = [...queues.map((count) => `direct ${count}`), ...queues.map((count) => `ublk ${count}`)];
  assertEquals(varied("queues"), ["brd undefined", ...byQueues]);
  assertEquals(varied("depth").slice(0, 4), ["brd 1", "ublk 1", "direct 1", "brd 2"]);
  assertEquals(varied("size").at(-1), "direct 1048576");
  assertEquals(varied("disks").slice(0, 4), ["brd 1", "ublk 1", "direct 1", "brd 4"]);
  assertEquals(varied("disks").at(-1), "direct 64");
});

Deno.test("formatPoints() has a row per point, chartsOf() a chart per series", () => {
  const points = allPoints(results());
  const text = formatPoints(points);
  assertEquals(text.split("\n").filter((row) => row.startsWith("  ")).length, points.length);
  const names = Object.keys(chartsOf(results(), jobs));
  assertEquals(names, ["ratio.svg", "cpu.svg", ...Object.keys(scalingTitles).map((name) => `scaling-${name}.svg`)]);
});

Deno.test("parseHistogram() adds up the kernel's counts by key", () => {
  const text = `# event histogram
#
# trigger info: hist:keys=id.syscall:vals=hitcount:sort=hitcount:size=2048 if common_pid==7 [active]
#

{ id: sys_futex                     [202] } hitcount:          7
{ id: sys_ioctl                     [ 16] } hitcount:      12345

Totals:
    Hits: 12352
    Entries: 2
    Dropped: 0
`;
  assertEquals(parseHistogram(text), { sys_futex: 7, sys_ioctl: 12345 });
  assertEquals(parseHistogram("{ common_pid:         12 } hitcount:          3\n"), { 12: 3 });
  assertEquals(parseHistogram("# event histogram\n\nTotals:\n    Hits: 0\n"), {});
});

Deno.test("ledgerBetween() counts per request what came between two readings", () => {
  const before = { requests: 100, counts: [{ sys_ioctl: 50 }, { 12: 10 }, { 12: 1 }] };
  const after = { requests: 300, counts: [{ sys_futex: 20, sys_ioctl: 150 }, { 12: 110, 13: 100 }, { 12: 3, 13: 2 }] };
  assertEquals(ledgerBetween(before, after), { calls: { ioctl: 0.5, futex: 0.1 }, copies: 1, allocations: 0.02 });
});
