// SPDX-License-Identifier: MIT
import { assert, assertEquals } from "@std/assert";
import { activityOf, type Sample, tableOf } from "../../../src/command/top.ts";
import { CELLS, STEPS } from "../../../src/filters/histogram.ts";

const before: Sample = {
  name: "a",
  id: 1,
  reads: 100,
  writes: 10,
  bytes: 2 ** 20,
  errors: 0,
  inFlight: 0,
  busyMs: 50,
  finished: 110,
};
const now: Sample = {
  ...before,
  reads: 300,
  writes: 20,
  bytes: 5 * 2 ** 20,
  errors: 2,
  inFlight: 3,
  busyMs: 470,
  finished: 320,
};

Deno.test("activityOf() is what was done in a second, between two samples of one disk", () => {
  assertEquals(activityOf(before, now, 2), {
    name: "a",
    readsPerSecond: 100,
    writesPerSecond: 5,
    bytesPerSecond: 2 * 2 ** 20,
    meanMs: 2,
    inFlight: 3,
    errorsPerSecond: 1,
  });
});

Deno.test("activityOf() counts nothing of a disk that is new, or has the name of another one", () => {
  for (const other of [undefined, { ...before, id: 2 }]) {
    const { readsPerSecond, meanMs, errorsPerSecond } = activityOf(other, now, 1);
    assertEquals([readsPerSecond, meanMs, errorsPerSecond], [0, undefined, 0]);
  }
});

/** The sample from before, with so many nanoseconds measured since. */
function counted(ns: readonly number[]): Sample {
  const cells = new Float64Array(CELLS);
  for (const one of ns) {
    const halvings = Math.max(0, Math.floor(Math.log2(one)) - 4);
    const cell = halvings * STEPS + Math.floor(one / 2 ** halvings);
    cells[cell] = cells[cell]! + 1;
  }
  return { ...before, latencies: cells };
}

/** 97 requests of 2 ms, 3 of 30 ms. */
const SLOW = [...Array<number>(97).fill(2e6), ...Array<number>(3).fill(30e6)];

Deno.test("activityOf() has percentiles of what ended between two samples, exact to 1 in 16", () => {
  const old = counted([9e9, 9e9]);
  const both = old.latencies!.map((count, cell) => count + counted(SLOW).latencies![cell]!);
  const { p50Ms, p99Ms } = activityOf(old, { ...now, latencies: both }, 1);
  for (const [ms, wanted] of [[p50Ms, 2], [p99Ms, 30]] as const) {
    assert(ms !== undefined && ms >= wanted && ms <= wanted * 17 / 16, `${ms} is not ${wanted}`);
  }
});

Deno.test("activityOf() has no percentiles of a disk where nothing ended, or nothing is measured", () => {
  for (const [from, to] of [[undefined, SLOW], [SLOW, SLOW], [SLOW, undefined]]) {
    const sample = from === undefined ? before : counted(from);
    const { p50Ms, p99Ms } = activityOf(sample, { ...now, latencies: to && counted(to).latencies }, 1);
    assertEquals([p50Ms, p99Ms], [undefined, undefined]);
  }
});

Deno.test("tableOf() has a line for each disk, and its columns stand one below the other", () => {
  const text = tableOf([activityOf(counted([]), { ...now, latencies: counted(SLOW).latencies }, 2), {
    ...activityOf(undefined, before, 1),
    name: "longer",
  }]);
  assertEquals(
    text,
    [
      "DISK    r/s  w/s  MiB/s    ms   p50    p99  queue  err/s",
      "a       100    5    2.0  2.00  2.03  30.41      3      1",
      "longer    0    0    0.0     -     -      -      0      0",
      "2 disks, 2 MiB/s",
    ].join("\n"),
  );
  assertEquals(tableOf([]), "there is no disk");
});
