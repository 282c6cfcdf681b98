import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { describeFalls, findFalls, toleratedCounted, toleratedTimed } from "../../bench/guard.ts";
import { jobs } from "../../bench/jobs.ts";
import type { Line, Measurement } from "../../bench/plan.ts";
import { type Figures, noiseOf, summarize } from "../../bench/results.ts";
import { median, spread } from "../../bench/statistics.ts";
import { formatFigures, formatRatios, formatTable } from "../../bench/table.ts";

const [job] = jobs;
const name = job!.name;

function measurement(iops: number, rest: Partial<Measurement> = {}): Measurement {
  return { iops, p50Us: 10, p99Us: 20, cpuUs: 5, switches: 1, ...rest };
}

function line(round: number, disk: string, one: Measurement, series = "main"): Line {
  return { type: "measurement", series, round, job: name, disk, measurement: one };
}

Deno.test("median() is the middle one, or the mean of the two in the middle", () => {
  assertEquals(median([9, 1, 5]), 5);
  assertEquals(median([4, 1, 3, 2]), 2.5);
  assertEquals(median([7]), 7);
  assertThrows(() => median([]), RangeError);
});

Deno.test("spread() leaves its argument in order", () => {
  const values = [3, 1, 2];
  assertEquals(spread(values), { median: 2, min: 1, max: 3, noise: 1 });
  assertEquals(values, [3, 1, 2]);
});

Deno.test("spread() calls noise how far apart the middle half is: of two to four all, of five the middle three", () => {
  assertEquals(spread([7]).noise, 0);
  assertEquals(spread([90, 110]).noise, 0.2);
  assertEquals(spread([1000, 90, 100, 110, 10]).noise, 0.2);
  assertEquals(spread([1000, 2000, 90, 100, 100, 100, 110, 10]).noise, 0.1);
});

Deno.test("summarize() takes medians over the rounds, ratios of medians, and no other series", () => {
  const result = summarize([
    { type: "disk", series: "main", disk: "brd", facts: { queues: 0, scheduler: "none" } },
    { type: "absent", series: "main", disk: "ublk", reason: "no module" },
    line(1, "brd", measurement(1000)),
    line(1, "direct", measurement(900, { calls: 0.1, batch: 10 })),
    line(2, "brd", measurement(3000)),
    line(2, "direct", measurement(500, { calls: 0.2, batch: 5 })),
    line(3, "brd", measurement(2000)),
    line(3, "direct", measurement(700, { calls: 0.5, batch: 2 })),
    line(1, "brd", measurement(1), "other"),
  ], "main");
  assertEquals(result.disks, { brd: { queues: 0, scheduler: "none" } });
  assertEquals(result.absent, { ublk: "no module" });
  const { brd, direct } = result.figures[name]!;
  assertEquals(brd!.iops, { median: 2000, min: 1000, max: 3000, noise: 1 });
  assertEquals(brd!.ratio, 1);
  assertEquals(brd!.calls, undefined);
  assertEquals(direct!.ratio, 0.35);
  assertEquals([direct!.calls, direct!.batch], [0.2, 5]);
});

Deno.test("summarize() leaves out one cell for a count that is missing in every round, and takes the others' median", () => {
  // What JSON made of 0 / 0 and 1 / 0.
  const missing = null as unknown as number;
  const none = measurement(1000, { calls: missing, batch: missing, cpuUs: missing });
  const lines = [
    line(1, "brd", measurement(1000)),
    line(1, "direct", none),
    line(1, "delivered", none),
    line(2, "delivered", measurement(3000, { calls: 0.5, batch: missing })),
    line(1, "async", measurement(missing)),
  ];
  const { direct, delivered, async } = summarize(lines, "main").figures[name]!;
  assertEquals([direct!.iops.median, direct!.cpuUs, direct!.calls, direct!.p99Us], [1000, undefined, undefined, 20]);
  assertEquals([delivered!.iops.median, delivered!.cpuUs, delivered!.calls], [2000, 5, 0.5]);
  assertEquals(async, undefined);
  const rows = formatFigures(jobs, { [name]: { direct: direct! } }).split("\n");
  assertEquals(rows[1]!.trim().split(/ +/), ["direct", "1.0k", "1.0k-1.0k", "4", "1.00", "10.0", "20.0", "1.00"]);
});

Deno.test("summarize() leaves out a ledger that counted no request", () => {
  const missing = null as unknown as number;
  const ledger = (disk: string, copies: number): Line => ({
    type: "ledger",
    series: "main",
    disk,
    job: name,
    ledger: { calls: { ioctl: copies }, copies, allocations: copies },
  });
  const { ledgers } = summarize([ledger("direct", 1), ledger("async", missing)], "main");
  assertEquals(Object.keys(ledgers![name]!), ["direct"]);
});

Deno.test("noiseOf() is how much the reference differs from round to round, the middle job's", () => {
  const rounds = (low: number, high: number) => {
    const lines = [low, (low + high) / 2, high].map((iops, i) => line(i, "brd", measurement(iops)));
    return summarize(lines, "main").figures[name]!;
  };
  assertEquals(noiseOf({ a: rounds(900, 1100), b: rounds(500, 1500), c: rounds(1000, 1000) }), 0.2);
  assertEquals(noiseOf({ a: {} }), Infinity);
});

Deno.test("summarize() gives no ratio without the reference", () => {
  assertEquals(summarize([line(1, "direct", measurement(900))], "main").figures[name]!.direct!.ratio, undefined);
});

function figures(ratios: Readonly<Record<string, number>>): Figures {
  const lines = Object.entries(ratios).map(([disk, ratio]) => line(1, disk, measurement(1000 * ratio)));
  return summarize([line(1, "brd", measurement(1000)), ...lines], "main").figures;
}

Deno.test("findFalls() names what fell by more than a quarter, and only that", () => {
  const recorded = figures({ direct: 0.8, delivered: 0.5, async: 0.2, loop: 1 });
  const now = figures({ direct: 0.59, delivered: 0.375, async: 0.25, loop: 0.1 });
  const falls = findFalls(recorded, now, ["direct", "delivered", "async"], toleratedTimed);
  assertEquals(falls, [{ job: name, disk: "direct", before: 0.8, now: 0.59 }]);
  assertStringIncludes(describeFalls(falls, "0a924aa", toleratedTimed), `direct ${name} 0.80 -> 0.59`);
});

Deno.test("findFalls() sees less where instructions are counted", () => {
  const fallsTo = (direct: number, tolerated: number) =>
    findFalls(figures({ direct: 0.8 }), figures({ direct }), ["direct"], tolerated).length;
  assertEquals([fallsTo(0.77, toleratedCounted), fallsTo(0.75, toleratedCounted)], [0, 1]);
  assertEquals(fallsTo(0.75, toleratedTimed), 0);
});

Deno.test("findFalls() takes the best of the rounds", () => {
  const recorded = figures({ direct: 0.8 });
  const rounds = (slow: number, fast: number) =>
    summarize([
      line(1, "brd", measurement(1000)),
      line(1, "direct", measurement(slow)),
      line(2, "direct", measurement(fast)),
    ], "main").figures;
  assertEquals(findFalls(recorded, rounds(200, 790), ["direct"], toleratedTimed), []);
  assertEquals(findFalls(recorded, rounds(200, 590), ["direct"], toleratedTimed).length, 1);
});

Deno.test("findFalls() compares nothing that was not recorded or not measured", () => {
  assertEquals(findFalls(figures({}), figures({ direct: 0.1 }), ["direct"], toleratedTimed), []);
  assertEquals(findFalls(figures({ direct: 0.9 }), figures({}), ["direct"], toleratedTimed), []);
});

Deno.test("formatTable() aligns the first column left and the others right", () => {
  assertEquals(formatTable([["a", "bb", "c"], ["long", "1", "22"]]), "a     bb   c\nlong   1  22");
});

Deno.test("formatRatios() compares every disk with any of them", () => {
  const table = formatRatios(jobs, figures({ direct: 0.5, loop: 0.25 }), "direct");
  assertEquals(table.split("\n").map((row) => row.split(/ {2,}/)), [
    ["ratio to direct", "brd", "direct", "loop", "noise"],
    [job!.title, "2.00", "1.00", "0.50", "0%"],
  ]);
});

Deno.test("formatFigures() has a row per disk and leaves out what a disk has not", () => {
  const rows = formatFigures(jobs, figures({ direct: 0.5 })).split("\n");
  assertEquals(rows.length, 3);
  assertEquals(rows[1]!.trim().split(/ +/), ["brd", "1.0k", "1.0k-1.0k", "4", "1.00", "10.0", "20.0", "5.00", "1.00"]);
});
