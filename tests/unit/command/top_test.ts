// SPDX-License-Identifier: MIT
import { assertEquals } from "@std/assert";
import { activityOf, type Sample, tableOf } from "../../../src/command/top.ts";

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

Deno.test("tableOf() has a line for each disk, and its columns stand one below the other", () => {
  const text = tableOf([activityOf(before, now, 2), { ...activityOf(undefined, before, 1), name: "longer" }]);
  assertEquals(
    text,
    [
      "DISK    r/s  w/s  MiB/s   ms  queue  err/s",
      "a       100    5    2.0  2.0      3      1",
      "longer    0    0    0.0    -      0      0",
      "2 disks, 2 MiB/s",
    ].join("\n"),
  );
  assertEquals(tableOf([]), "there is no disk");
});
